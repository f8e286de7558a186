"""Make batches of counts for training: crystals simulated on the fly, or patterns that were measured.

A `Source` computes each batch from the number of the step alone, so a killed training resumes with the same batches. A batch
consists of chunks, and each chunk has a seed of its own. So several processes can share the chunks without changing the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Generator, Tensor

from braggshot.crystals.detector import DetectorSettings
from braggshot.crystals.sample import CrystalSettings, random_volumes
from braggshot.errors import DataError
from braggshot.iterative.projections import held_out_voxels
from braggshot.iterative.spacing import resample
from braggshot.nn.augmentation import draw_balls, orientations, thin_counts, turn
from braggshot.nn.resampling import sampling
from braggshot.nn.two_scale import CENTRAL
from braggshot.physics.fourier import crop, fourier, inverse_fourier
from braggshot.volumes import DiffractionVolume

TRAINING, VALIDATION = 0, 1  # two families of random seeds: one for training patterns, one for validation patterns
# Factors by which `seed_of` mixes the seed, the step and the chunk.
_PRIMES = (1_000_003, 8_191, 131)


@dataclass(frozen=True)
class Batch:
    """Counts of several patterns of one shape, centred at N // 2.

    Parameters
    ----------
    counts : (n, z, y, x) [photons], 0 where not valid
    valid : (n, z, y, x), True on trusted voxels
    truth : simulated crystals, None for measured patterns; only validation may use it
    solution : objects that iterative phasing found, (n, z / 2, y / 2, x / 2); None where phasing was not run
    """

    counts: Tensor
    valid: Tensor
    truth: Tensor | None = None
    solution: Tensor | None = None


def mixed_crystals(size: int) -> tuple[CrystalSettings, ...]:
    """Return settings of three kinds of crystals, on arrays of size^3 voxels.

    The kinds are ordinary crystals, strongly strained crystals, and crystals whose patterns have gaps, dead pixels and lost frames.
    """
    width = max(1, size // 32)
    detector = DetectorSettings(background=(0, 0.1), gaps=0.4, gap_widths=(2 * width, 3 * width, 4 * width), dead=0.002, missing=2)
    ordinary = CrystalSettings(
        shape=(size,) * 3, oversampling=(2.1, 4.0), phase_range=(0, 2 * math.pi), counts=(1e3, 1e7), steepest=2.0
    )
    return (
        ordinary,
        replace(ordinary, phase_range=(math.pi, 4 * math.pi)),
        replace(ordinary, phase_range=(0, 3 * math.pi), detector=detector),
    )


@dataclass(frozen=True)
class DataConfig:
    """Settings of the patterns on which a network is trained.

    Parameters
    ----------
    crystals : kinds of simulated crystals; each training step takes the next kind
    crop : largest number of voxels per axis, to which simulated patterns are cropped as for a prediction; None for no crop
    hidden : share of the voxels that are hidden from network and loss, because phasing also holds voxels out [1]
    measured : share of the training steps that take measured patterns, if files of such patterns are given [1]
    """

    crystals: tuple[CrystalSettings, ...] = field(
        default_factory=lambda: (*mixed_crystals(32), *mixed_crystals(48), *mixed_crystals(64))
    )
    crop: int | None = None
    hidden: float = 0.05
    measured: float = 0.5


class Source(Protocol):
    """Function that returns batches of patterns for training or validation."""

    def __call__(self, step: int, chunk: int, n: int, family: int = TRAINING) -> Batch:
        """Return the `n` patterns of chunk number `chunk` of a training step; the same arguments give the same patterns."""
        ...


def seed_of(seed: int, step: int, chunk: int, family: int = TRAINING) -> int:
    """Return a random seed for one chunk of one training step; two chunks share a seed only by chance."""
    a, b, c = _PRIMES
    return ((seed * a + step) * b + chunk * 2 + family) * c % (2**62)


def simulated_source(
    settings: Sequence[CrystalSettings],
    seed: int,
    device: torch.device | str = "cpu",
    hidden: float = 0.05,
    largest: int | None = None,
) -> Source:
    """Return a source of simulated patterns, whose crystals are drawn anew for every batch.

    The training steps take the entries of `settings` in turn; entries may differ in the shape of the array. A share `hidden` of the
    voxels is hidden from network and loss, because phasing hides voxels too. A pattern with more than `largest` voxels on an axis
    is cropped to its central fringes, and the true crystal loses the details that only the outer fringes show.
    """

    def source(step: int, chunk: int, n: int, family: int = TRAINING) -> Batch:
        chosen = settings[step % len(settings)]
        generator = Generator().manual_seed(seed_of(seed, step, chunk, family))
        rho, counts, valid = random_volumes(generator, n, chosen, device)
        smaller = [min(size, largest or size) for size in counts.shape[1:]]
        if list(counts.shape[1:]) != smaller:
            rho, counts, valid = inverse_fourier(crop(fourier(rho), smaller)), crop(counts, smaller), crop(valid, smaller)
        on_device = Generator(rho.device).manual_seed(seed_of(seed, step, chunk, family) + 1)
        valid = valid & ~draw_balls(on_device, valid.shape, hidden)
        return Batch(counts * valid, valid, rho)

    return source


def measured_source(
    volumes: Sequence[DiffractionVolume], seed: int, faintest: float = 1e3, hidden: float = 0.05, most: int = CENTRAL
) -> Source:
    """Return a source of measured patterns, resampled as for a prediction; each chunk holds several variants of one pattern.

    A variant is turned, which makes it the pattern of another crystal. Its counts are thinned, and some voxels are hidden. The
    voxels that phasing with seed 0 holds out are always hidden, so that they can show whether training has helped.

    Parameters
    ----------
    volumes : prepared volumes, centred on their peaks
    seed : seed of the random draws
    faintest : lowest number of photons that thinning leaves in the brightest voxel
    hidden : share of the voxels that are hidden in a variant [1]
    most : largest number of voxels per axis of the resampled patterns

    Raises
    ------
    DataError : if there are no volumes.
    """
    if not volumes:
        raise DataError("there are no measured volumes to train on.")
    fitted = [_fit_volume(volume, most) for volume in volumes]

    def source(step: int, chunk: int, n: int, family: int = TRAINING) -> Batch:
        generator = Generator().manual_seed(seed_of(seed, step, chunk, family))
        counts, valid = fitted[int(torch.randint(len(fitted), (), generator=generator))]
        if family != TRAINING:
            return Batch(counts.expand(n, -1, -1, -1), valid.expand(n, -1, -1, -1))
        ways = orientations(counts.shape)
        chosen = [ways[k] for k in torch.randint(len(ways), (n,), generator=generator).tolist()]
        shown = torch.stack([turn(valid, way) for way in chosen])
        shown = shown & ~draw_balls(generator, shown.shape, hidden)
        return Batch(thin_counts(generator, torch.stack([turn(counts, way) for way in chosen]), faintest) * shown, shown)

    return source


def _fit_volume(volume: DiffractionVolume, most: int) -> tuple[Tensor, Tensor]:
    """Return counts and mask of valid voxels as the network will see them; voxels that phasing holds out are not valid."""
    counts, valid = torch.from_numpy(volume.intensity).float(), torch.from_numpy(volume.valid)
    shown = valid & ~held_out_voxels(valid, generator=Generator().manual_seed(0))
    return resample(counts, shown, sampling(volume.shape, volume.oversampling, most))


def mix_sources(first: Source, second: Source, share: float) -> Source:
    """Return a source that takes the batch of each training step from one of two sources.

    In a share `share` of the steps, evenly spread, the batch comes from the second source; else it comes from the first.
    """

    def source(step: int, chunk: int, n: int, family: int = TRAINING) -> Batch:
        take = int((step + 1) * share) > int(step * share)
        return (second if take else first)(step, chunk, n, family)

    return source
