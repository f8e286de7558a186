r"""Bring counts measured on a curved grid of frames and pixels onto the straight grid of a volume.

Phasing takes frame, row and column for steps along three fixed edges of q. They are steps along curves: a flat detector cuts a
curved Ewald sphere, and the frames of an energy scan are a fan, whose pixels spread as the energy grows:

.. math:: q(E, \text{row}, \text{column}) = \frac{E}{\hbar c}\,(\hat s_f - \hat s_i)

Where photons lie far off the straight grid, each voxel takes the counts at its own q, by a cubic spline between measured voxels.
Counts are samples of the intensity at a q, so they are interpolated and not shared out. This spoils their Poisson statistics, so
elsewhere they are left as they were counted; a rocking scan that bends less is corrected after phasing, in the found field
(`braggshot.crystal_frame.corrections`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial.polynomial import polygrid3d
from numpy.typing import NDArray
from scipy import ndimage

from braggshot.physics.geometry import curvature, scanned_line, scanned_values, steps_energy
from braggshot.prepare.window import Triple, raw_centre
from braggshot.volumes import BoolArray, FloatArray, Geometry, Window

# Distances of photons from the straight grid from which their counts are interpolated, in an energy scan and in a rocking scan
# [voxels]. Crystals from rocking scans that bend by 0.8 voxels came out the same with and without it.
FAN, CLOSE_UP = 0.3, 1.0
LIT = 1.0  # least counts of a voxel, averaged over its neighbours, whose distance matters [photons]
RIM = 1.0  # how far beyond the measured voxels a place may lie; it then takes the counts of the outermost ones [voxels]
SPLINE = 3  # voxels on each side of a place that its spline needs [voxels]


@dataclass(frozen=True)
class Bend:
    """How far the voxels of a straight grid lie from where their q was measured.

    Parameters
    ----------
    moved : (3, z, y, x) from each voxel to the place on the measured grid that has its q [voxels]
    limit : distance of photons from the straight grid from which their counts are interpolated [voxels]
    """

    moved: NDArray[np.float32]
    limit: float

    @property
    def margin(self) -> Triple:
        """Voxels on each side of the volume that the interpolation needs."""
        z, y, x = (int(np.ceil(np.abs(along).max())) + SPLINE for along in self.moved)
        return z, y, x

    def farthest(self, counts: FloatArray) -> float:
        """Return how far the voxels that hold photons lie off at most, along any axis [voxels]."""
        lit = ndimage.uniform_filter(np.asarray(counts, np.float32), 3) >= LIT
        return float(np.abs(self.moved[:, lit]).max(initial=0.0))


def find_bend(geometry: Geometry, window: Window, shape: Triple) -> Bend:
    """Find where on the measured grid the scattering vectors of the straight grid were measured.

    Raises
    ------
    GeometryError : as `braggshot.physics.geometry.reciprocal_basis`.
    """
    z, y, x = (2 * (np.arange(size) - size // 2) / size for size in shape)
    moved = polygrid3d(z, y, x, curvature(geometry, window, shape)).astype(np.float32)
    if steps_energy(geometry):
        moved[0] += _unevenness(geometry, window, shape, moved[0])
        return Bend(moved, FAN)
    return Bend(moved, CLOSE_UP)


def straighten(counts: FloatArray, valid: BoolArray, bend: Bend) -> tuple[FloatArray, BoolArray, str | None]:
    """Bring counts onto the straight grid, if photons lie off it; else leave them as they are.

    Parameters
    ----------
    counts, valid : counts [photons] and mask, with `bend.margin` voxels more on each side than the straight grid
    bend : how far the grid bends

    Returns
    -------
    counts, valid : without the margin
    step : what was done, in words; None if nothing was
    """
    inner = tuple(slice(more, size - more) for more, size in zip(bend.margin, counts.shape, strict=True))
    farthest = bend.farthest(counts[inner] * valid[inner])
    if farthest < bend.limit:
        return counts[inner], valid[inner], None
    found, good = interpolate(counts, valid, bend)
    lost = int(valid[inner].sum()) - int(good.sum())
    said = f"photons lie up to {farthest:.1f} voxels off a straight grid: counts interpolated onto it (cubic spline)"
    return found, good, f"{said}, {lost} voxels beside masked ones masked" if lost > 0 else said


def interpolate(counts: FloatArray, valid: BoolArray, bend: Bend) -> tuple[NDArray[np.float32], BoolArray]:
    """Interpolate counts at the places that have the q of the straight grid.

    Parameters
    ----------
    counts, valid : counts [photons] and mask, with `bend.margin` voxels more on each side than the straight grid
    bend : places of the voxels

    Returns
    -------
    counts, valid : of the straight grid; a voxel is valid where all its next neighbours on the measured grid are. Places up to a
        voxel beyond the outermost valid ones take their counts: a masked rim would leave phasing free where crystals end
    """
    margin = np.array(bend.margin).reshape(3, 1, 1, 1)
    places = np.indices(bend.moved.shape[1:], dtype=np.float32) + bend.moved + margin
    for place, across in zip(places, ((1, 2), (0, 2), (0, 1)), strict=True):
        lit = np.flatnonzero(valid.any(axis=across))
        if lit.size:
            held = np.clip(place, lit[0], lit[-1])
            np.copyto(place, held, where=np.abs(held - place) <= RIM)
    good: BoolArray = ndimage.map_coordinates(valid.astype(np.float32), places, order=1) > 0.999
    found = ndimage.map_coordinates(_fill(counts, valid), places, order=3, mode="nearest")
    return np.maximum(found, 0).astype(np.float32) * good, good


def _unevenness(geometry: Geometry, window: Window, shape: Triple, moved: FloatArray) -> NDArray[np.float64]:
    """Return how far along the frames evenly spaced energies lie from the energies of the scan [voxels].

    `moved` is what the voxels are moved along the frames already.
    """
    energies = scanned_values(geometry)
    start, step = scanned_line(geometry, window)
    rising = np.maximum.accumulate(energies * np.sign(step))
    beyond = abs(step) * energies.size  # the mean step is continued where nothing was measured
    known = np.concatenate([[rising[0] - beyond], rising, [rising[-1] + beyond]])
    frames = np.concatenate([[-energies.size], np.arange(energies.size), [2 * energies.size - 1]])
    voxels = np.arange(shape[0]).reshape(-1, 1, 1) - shape[0] // 2 + moved
    place = raw_centre(window, shape)[0] + window.binning[0] * voxels
    return (np.interp((start + step * place) * np.sign(step), known, frames) - place) / window.binning[0]


def _fill(counts: FloatArray, valid: BoolArray) -> NDArray[np.float32]:
    """Fill voxels that are not valid with the counts of the nearest valid one, so that splines beside them do not swing."""
    if valid.all() or not valid.any():
        return np.asarray(counts, np.float32)
    nearest = ndimage.distance_transform_edt(~valid, return_distances=False, return_indices=True)
    return np.asarray(counts[tuple(nearest)], np.float32)
