"""Batches of counts for training: crystals simulated on the fly, or patterns that were measured.

A `Source` gives batch after batch from the number of the step alone, so that training which was killed goes on with the same ones.
A batch is made of chunks with seeds of their own; as many processes as there are chunks may share it and see what one would see.
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
from braggshot.nn.network import STRIDE
from braggshot.physics.fourier import crop, pad
from braggshot.volumes import DiffractionVolume

TRAINING, VALIDATION = 0, 1  # families of seeds that never meet
_PRIMES = (1_000_003, 8_191, 131)


@dataclass(frozen=True)
class Batch:
    """Counts of several patterns of one shape, centred at N // 2.

    Parameters
    ----------
    counts : (n, z, y, x) [photons], 0 where not valid
    valid : (n, z, y, x), True on trusted voxels
    truth : the simulated crystals, None for measured ones; validation alone may look at it
    """

    counts: Tensor
    valid: Tensor
    truth: Tensor | None = None


def mixture(size: int) -> tuple[CrystalSettings, ...]:
    """Ordinary crystals, strongly strained ones, and detectors with gaps, dead pixels and lost frames, of size^3 voxels."""
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
    """What a network is trained on.

    Parameters
    ----------
    crystals : kinds of simulated crystals, which take turns
    hidden : share of the voxels that network and loss never see, as phasing holds voxels out [1]
    measured : share of the steps that take measured patterns, where files are given [1]
    measured_shape : voxels that measured patterns are cropped or padded to; None takes the first one's
    """

    crystals: tuple[CrystalSettings, ...] = field(default_factory=lambda: (*mixture(32), *mixture(48), *mixture(64)))
    hidden: float = 0.05
    measured: float = 0.5
    measured_shape: tuple[int, int, int] | None = None


class Source(Protocol):
    """Where batches come from."""

    def __call__(self, step: int, chunk: int, n: int, family: int = TRAINING) -> Batch:
        """`n` patterns of chunk number `chunk` of a step; the same numbers give the same patterns."""
        ...


def seed_of(seed: int, step: int, chunk: int, family: int = TRAINING) -> int:
    """A seed for one chunk of one step, that two chunks share by chance alone."""
    a, b, c = _PRIMES
    return ((seed * a + step) * b + chunk * 2 + family) * c % (2**62)


def simulated(settings: Sequence[CrystalSettings], seed: int, device: torch.device | str = "cpu", hidden: float = 0.05) -> Source:
    """Crystals drawn anew for every batch; each step takes the next of `settings`, such as other shapes, in turn.

    A share `hidden` of the voxels is hidden from network and loss alike, as phasing hides them to judge by.
    """

    def source(step: int, chunk: int, n: int, family: int = TRAINING) -> Batch:
        chosen = settings[step % len(settings)]
        generator = Generator().manual_seed(seed_of(seed, step, chunk, family))
        rho, counts, valid = random_volumes(generator, n, chosen, device)
        on_device = Generator(rho.device).manual_seed(seed_of(seed, step, chunk, family) + 1)
        valid = valid & ~balls(on_device, valid.shape, hidden)
        return Batch(counts * valid, valid, rho)

    return source


def measured(volumes: Sequence[DiffractionVolume], seed: int, shape: tuple[int, int, int], thin: float = 0.5) -> Source:
    """Patterns that were measured, drawn at random; each is inverted or not (which is another crystal's pattern) and thinned.

    Parameters
    ----------
    volumes : prepared, about their peaks
    seed : of the draws
    shape : voxels to bring each of them to, by cropping about the peak or padding with voxels that are not valid
    thin : smallest share of the photons that a draw keeps (binomial thinning of Poisson counts is Poisson again) [1]

    Raises
    ------
    DataError : without volumes, or if the shape does not suit the network.
    """
    if not volumes:
        raise DataError("there are no measured volumes to train on.")
    if any(size % STRIDE for size in shape):
        raise DataError(f"the network takes shapes that {STRIDE} divides, found {shape}.")
    fitted = [(_fitted(torch.from_numpy(v.intensity).float(), shape), _fitted(torch.from_numpy(v.valid), shape)) for v in volumes]

    def source(step: int, chunk: int, n: int, family: int = TRAINING) -> Batch:
        generator = Generator().manual_seed(seed_of(seed, step, chunk, family))
        chosen = torch.randint(len(fitted), (n,), generator=generator).tolist()
        counts, valid = (torch.stack(column) for column in zip(*(fitted[i] for i in chosen), strict=True))
        if family == TRAINING:
            keep = thin + (1 - thin) * torch.rand((n, 1, 1, 1), generator=generator)
            counts = torch.binomial(counts.round().clamp_min(0), keep.expand_as(counts).contiguous(), generator=generator)
        return Batch(counts, valid)

    return source


def balls(generator: Generator, shape: torch.Size, share: float) -> Tensor:
    """Random balls of radius 1 that fill a share of (n, z, y, x), none of them within a tenth of an axis of the peak."""
    device = generator.device
    centres = torch.rand(shape, generator=generator, device=device) < share / 7
    outside = torch.zeros((), dtype=torch.bool, device=device)
    for axis, size in enumerate(shape[1:], start=1):
        near = (torch.arange(size, device=device) - size // 2).abs() <= math.ceil(size / 10) + 1
        far = (~near).reshape([-1 if other == axis else 1 for other in range(4)])
        outside = outside | far
    centres &= outside
    grown = centres.clone()
    for axis in (1, 2, 3):
        grown |= centres.roll(1, axis) | centres.roll(-1, axis)
    return grown


def mixed(first: Source, second: Source, share: float) -> Source:
    """Every chunk from one of two sources, the second with probability `share`, evenly over the steps."""

    def source(step: int, chunk: int, n: int, family: int = TRAINING) -> Batch:
        take = int((step + 1) * share) > int(step * share)
        return (second if take else first)(step, chunk, n, family)

    return source


def _fitted(field: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Crop or pad each axis about N // 2."""
    smaller = [min(a, b) for a, b in zip(field.shape, shape, strict=True)]
    return pad(crop(field, smaller), shape)
