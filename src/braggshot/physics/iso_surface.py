r"""Find the amplitude at which a crystal ends, and how much the volume of the crystal depends on that choice.

A step of the density seen with a finite resolution falls to half its height at the true surface, whatever the resolution, so

.. math:: A_{iso} = \frac{1}{2}\,\mathrm{median}\{A_n : n \in \mathrm{bulk}\},

where A_n is the amplitude of voxel n, and the bulk are the voxels above A_iso that have no neighbour below A_iso. As the bulk
depends on A_iso, both are found by iteration. The first A_iso is half of the amplitude above which voxels hold half of the
scattering. Two crystals of the same amplitude thus have the same surface. A level some standard deviations below the peak of the
histogram (Carnis et al., Sci. Rep. 9, 17357 (2019)) instead falls into the tail of the support where the amplitude is uneven, and
the volume is then wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from braggshot.errors import DataError
from braggshot.volumes import BoolArray, FloatArray

# Lowest and highest plausible amplitude of the surface, relative to the one chosen [1]. The one chosen is half of the median
# amplitude inside the crystal, so these are 0.4 and 0.6 of that median.
NEARBY = (0.8, 1.2)
# Largest number of iterations that find the amplitude of the surface; relative change of this amplitude below which they end [1].
_ROUNDS, _SETTLED = 50, 1e-4
# Least share of inner voxels, without a neighbour below the surface level, among all voxels above this level [1]. A crystal with
# fewer is too thin, and the median amplitude is then taken over all its voxels instead of the inner ones.
_LEAST = 0.02


@dataclass(frozen=True)
class IsoSurface:
    """The amplitude level of a surface, and how far it can be trusted.

    Parameters
    ----------
    level : amplitude at the surface [unit of the amplitude]
    thin : True if the crystal is too thin for a bulk of voxels away from the surface; all voxels above the level then replace it
    cut : share of the surface voxels that lie at the rim of the support, where the support and not the amplitude decides where
        the crystal ends [1]
    """

    level: float
    thin: bool
    cut: float


def iso_surface(amplitude: FloatArray, support: BoolArray) -> IsoSurface:
    """Find the amplitude at the surface of a crystal: half of the median amplitude of the voxels away from the surface.

    Raises
    ------
    DataError : if there is no amplitude in the support.
    """
    values = amplitude[support & (amplitude > 0)].astype(np.float64)
    if not values.size:
        raise DataError("the support is empty or the amplitude is zero in it, so there is no surface.")
    level, thin = 0.5 * _bright(values), False
    for _ in range(_ROUNDS):
        inside = support & (amplitude >= level)
        bulk = ndimage.binary_erosion(inside)
        thin = bulk.sum() < max(1, _LEAST * inside.sum())
        last, level = level, 0.5 * float(np.median(amplitude[inside if thin else bulk]))
        if abs(level - last) < _SETTLED * level:
            break
    return IsoSurface(level, thin, cut_share(amplitude, support, level))


def _bright(values: NDArray[np.float64]) -> float:
    """Find the amplitude above which voxels hold half of the sum of squares; a loose support or a bright spot hardly moves it."""
    ordered = np.sort(values)
    power = np.cumsum(ordered**2)
    return float(ordered[np.searchsorted(power, power[-1] / 2)])


def cut_share(amplitude: FloatArray, support: BoolArray, level: float) -> float:
    """Compute the share of the surface voxels that have a neighbour outside the support [1]."""
    inside = support & (amplitude >= level)
    surface = inside & ~ndimage.binary_erosion(inside)
    ends = inside & ~ndimage.binary_erosion(support)
    return float(ends.sum() / max(1, surface.sum()))


def nearby_volumes(amplitude: FloatArray, level: float, basis: FloatArray) -> tuple[float, float]:
    """Compute the smallest and the largest volume [m^3] of the crystal, at surface levels of `NEARBY` times `level`."""
    voxel = abs(float(np.linalg.det(basis)))
    greatest, least = (float(np.count_nonzero(amplitude >= share * level)) * voxel for share in NEARBY)
    return least, greatest
