r"""Find the surface of a crystal, where its amplitude passes a level, by marching cubes.

.. math:: n = -\frac{B^{-T} \nabla A}{|B^{-T} \nabla A|}

is the outward normal n of the surface of the amplitude A, whose gradient is taken along the voxel indices. The columns of B are the
voxel edges, and a gradient transforms with the inverse transpose of B. Marching cubes: Lewiner et al., J. Graphics Tools 8, 1
(2003), by scikit-image.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from braggshot.volumes import FloatArray

# Gaussian width by which an amplitude is smoothed, by default, before its surface is found [voxels]. Without this, a surface at
# which the amplitude drops within one voxel would show the steps of the voxels.
SMOOTHING = 0.7


@dataclass(frozen=True)
class Surface:
    """Triangles of an iso-surface.

    Parameters
    ----------
    index : (n, 3) corners of the triangles as fractional indices (z, y, x) of the grid
    triangles : (m, 3) row in `index` of the three corners of each triangle
    amplitude : the field whose surface this is, smoothed, on the grid
    basis : columns are the voxel edges [any unit of length]
    origin : index of the point r = 0
    softness : Gaussian width by which `amplitude` is smoothed before its gradient gives the normals [voxels]
    """

    index: NDArray[np.float64]
    triangles: NDArray[np.int32]
    amplitude: FloatArray
    basis: FloatArray
    origin: FloatArray
    softness: float = SMOOTHING

    @cached_property
    def points(self) -> NDArray[np.float64]:
        """Positions (n, 3) of the corners of the triangles [unit of the basis]."""
        return np.asarray((self.index - self.origin) @ self.basis.T)

    @cached_property
    def normals(self) -> NDArray[np.float64]:
        """Outward unit normals (n, 3) of the surface at the corners of the triangles."""
        slopes = np.gradient(ndimage.gaussian_filter(self.amplitude, self.softness))
        slope = np.stack([ndimage.map_coordinates(part, self.index.T, order=1) for part in slopes])
        outward = -(np.linalg.inv(self.basis).T @ slope).T
        return np.asarray(outward / np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-30))

    @cached_property
    def areas(self) -> NDArray[np.float64]:
        """Areas (m,) of the triangles [square of the unit of the basis]."""
        first, second, third = np.moveaxis(self.points[self.triangles], 1, 0)
        return np.asarray(np.linalg.norm(np.cross(second - first, third - first), axis=1) / 2)


def find_surface(
    amplitude: FloatArray,
    level: float,
    basis: FloatArray,
    *,
    smoothing: float = SMOOTHING,
    origin: FloatArray | None = None,
    step: int = 1,
) -> Surface | None:
    """Find the surface at which the smoothed amplitude passes `level`; None where it passes it nowhere.

    Parameters
    ----------
    amplitude : (z, y, x); a border of zeros is put around it, so that the surface of a crystal at the edge of the grid is closed
    level : amplitude at the surface
    basis : columns are the voxel edges [any unit of length]
    smoothing : Gaussian width by which the amplitude is smoothed; for the normals it is smoothed again, by at least `SMOOTHING`
        [voxels]
    origin : index of the point r = 0; the voxel N // 2 by default
    step : edge of the cubes of marching cubes [voxels]; larger cubes make fewer triangles
    """
    from skimage.measure import marching_cubes

    middle = np.array(amplitude.shape) // 2 if origin is None else np.asarray(origin)
    smooth = np.asarray(amplitude, float) if smoothing <= 0 else ndimage.gaussian_filter(np.asarray(amplitude, float), smoothing)
    if not smooth.max(initial=0) > level:
        return None
    padded = np.pad(smooth, 1)
    points, triangles, _, _ = marching_cubes(padded, level, step_size=step)  # type: ignore[no-untyped-call]
    return Surface(points, triangles, padded, basis, middle + 1.0, max(smoothing, SMOOTHING))
