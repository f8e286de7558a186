r"""Find the surface of a crystal, where its amplitude passes a level, by marching cubes.

.. math:: n = -\frac{B^{-T} \nabla A}{|B^{-T} \nabla A|}

is the outward normal of the amplitude A on a grid whose voxel edges are the columns of B, since a gradient transforms with the
inverse transpose. Marching cubes: Lewiner et al., J. Graphics Tools 8, 1 (2003), by scikit-image.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from braggshot.volumes import FloatArray

SMOOTHING = 0.7  # Gaussian width [voxels] that removes the steps of a surface whose amplitude ends from one voxel to the next


@dataclass(frozen=True)
class Surface:
    """Triangles of an iso-surface.

    Parameters
    ----------
    index : (n, 3) corners as fractional indices (z, y, x) of the grid
    triangles : (m, 3) numbers of the three corners of each triangle
    amplitude : the field whose surface this is, smoothed, on the grid
    basis : columns are the voxel edges [any unit of length]
    origin : index of the point r = 0
    softness : Gaussian width of the amplitude whose gradient gives the normals [voxels]
    """

    index: NDArray[np.float64]
    triangles: NDArray[np.int32]
    amplitude: FloatArray
    basis: FloatArray
    origin: FloatArray
    softness: float = SMOOTHING

    @cached_property
    def points(self) -> NDArray[np.float64]:
        """(n, 3) positions of the corners [unit of the basis]."""
        return np.asarray((self.index - self.origin) @ self.basis.T)

    @cached_property
    def normals(self) -> NDArray[np.float64]:
        """(n, 3) outward unit normals at the vertices of the surface mesh."""
        slopes = np.gradient(ndimage.gaussian_filter(self.amplitude, self.softness))
        slope = np.stack([ndimage.map_coordinates(part, self.index.T, order=1) for part in slopes])
        outward = -(np.linalg.inv(self.basis).T @ slope).T
        return np.asarray(outward / np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-30))

    @cached_property
    def areas(self) -> NDArray[np.float64]:
        """(m,) areas of the triangles [square of the unit of the basis]."""
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
    smoothing : Gaussian width of the amplitude, and again of the gradient that gives the normals [voxels]
    origin : index of the point r = 0; the voxel N // 2 by default
    step : voxels per cube; more makes fewer triangles
    """
    from skimage.measure import marching_cubes

    middle = np.array(amplitude.shape) // 2 if origin is None else np.asarray(origin)
    smooth = np.asarray(amplitude, float) if smoothing <= 0 else ndimage.gaussian_filter(np.asarray(amplitude, float), smoothing)
    if not smooth.max(initial=0) > level:
        return None
    padded = np.pad(smooth, 1)
    points, triangles, _, _ = marching_cubes(padded, level, step_size=step)  # type: ignore[no-untyped-call]
    return Surface(points, triangles, padded, basis, middle + 1.0, max(smoothing, SMOOTHING))
