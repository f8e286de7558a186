"""Hold the pattern in which a crystal is searched, and what its counts tell the search: sampling, finest detail, blur."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from braggshot.iterative.projections import Measured
from braggshot.iterative.spacing import widen
from braggshot.physics import sampling
from braggshot.physics.forward import PointSpread
from braggshot.physics.fourier import frequencies, to_centre

SHELLS = 50  # number of frequency shells, of equal width from 0 to 1 cycle per voxel, in each of which counts are averaged
SAMPLED = 4.0  # oversampling above which the blur of the shrink-wrap is reduced, because the crystal has fewer voxels [1]


@dataclass(frozen=True)
class Pattern:
    """A measurement in which a tournament searches for the crystal.

    Parameters
    ----------
    data, host : the measurement on the device to use, and on the CPU
    oversampling : array size over crystal size, per axis
    wanted : oversampling down to which starts are phased at wider spacings [1]
    point_spread : point spread with which starts are compared to the counts of `host`; `data` may be sharpened by it
    """

    data: Measured
    host: Measured
    oversampling: tuple[float, float, float]
    wanted: float
    point_spread: PointSpread | None = None

    @cached_property
    def wide(self) -> Measured:
        """The measurement `data` at the wider spacings, without held-out voxels."""
        return widen(self.data, self.oversampling, self.wanted)

    @cached_property
    def finest(self) -> float:
        """Frequency up to which there is a photon per voxel [cycles per voxel], see `finest_frequency`."""
        return finest_frequency(self.host)

    @cached_property
    def filled(self) -> float:
        """Share of the array that the crystal fills."""
        return sampling.filled_share(to_centre(self.host.intensity).numpy(), to_centre(self.host.valid).numpy(), self.oversampling)


def blur_factor(oversampling: Sequence[float] | None) -> float:
    """Compute the factor by which the blur width of the shrink-wrap is multiplied.

    The factor is 1 up to a mean oversampling of `SAMPLED`, and falls as its inverse above, where the crystal has fewer voxels.
    """
    return 1.0 if oversampling is None else min(1.0, SAMPLED / math.prod(oversampling) ** (1 / 3))


def measure_oversampling(data: Measured) -> tuple[float, float, float]:
    """Measure the oversampling of a pattern from its counts, per axis."""
    return sampling.oversampling(to_centre(data.intensity).numpy(), to_centre(data.valid).numpy())


def finest_frequency(data: Measured) -> float:
    """Find the frequency at which the mean count of a frequency shell first falls below one photon [cycles per voxel].

    If it is one photon or more in all shells, the highest frequency of the array is returned, that of its corner.
    """
    radius = sum((f.square() for f in frequencies(tuple(data.shape))), torch.zeros(())).sqrt()
    shell = (SHELLS * radius).long()
    held = torch.zeros(SHELLS).index_add_(0, shell[data.valid], torch.ones(int(data.valid.sum())))
    mean = torch.zeros(SHELLS).index_add_(0, shell[data.valid], data.intensity[data.valid].float()) / held.clamp_min(1)
    dark = ((mean < 1) & (held > 0)).nonzero()
    return (float(dark[0]) + 0.5) / SHELLS if len(dark) else float(radius.max())
