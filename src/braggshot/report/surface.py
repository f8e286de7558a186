"""Draw the surface of a crystal from any side, by a small orthographic renderer.

Each pixel is shaded by Lambert's law from interpolated normals. The colour of a pixel follows from the interpolated *complex*
field, so that no wrap of the phase shows as a seam. The corners of the triangles are converted by the voxel basis, so a crystal in
the skewed detector frame is drawn in true proportions. Coordinates are (z, y, x) of the frame of the basis, with y up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from braggshot.physics.loops import compiled
from braggshot.physics.surface import SMOOTHING, find_surface
from braggshot.volumes import BoolArray, ComplexArray, FloatArray

LEVEL = 0.5  # amplitude at the drawn surface, divided by the median amplitude inside the support [1]
_OVERDRAW = 2  # rendered pixels per pixel of the image, along each axis; they are averaged, so that edges are smooth
_AMBIENT = 0.5  # brightness where no direct light falls, relative to full light [1]
_LIGHT = np.array([-0.35, 0.5, 0.79])  # direction to the light: right, up, towards the viewer


@dataclass(frozen=True)
class ColouredSurface:
    """Triangles of an iso-surface, centred on the origin, with the complex field at their corners.

    Parameters
    ----------
    corners : (triangle, 3, 3) positions, components (z, y, x), relative to their common centre [unit of the basis]
    normals : (triangle, 3, 3) outward unit normals at the corners
    field : (triangle, 3) complex field at the corners
    centre : position of the common centre of the corners, relative to the voxel N // 2 [unit of the basis]
    radius : distance of the farthest corner from the centre, plus a margin [unit of the basis]
    """

    corners: FloatArray
    normals: FloatArray
    field: ComplexArray
    centre: FloatArray
    radius: float


def bulk(rho: ComplexArray, support: BoolArray) -> BoolArray:
    """Find the voxels of the support with at least half of the median amplitude; the phase of fainter voxels means little."""
    amplitude = np.abs(rho)
    return support & (amplitude > 0) & (amplitude >= (LEVEL * np.median(amplitude[support]) if support.any() else 0))


def isosurface(rho: ComplexArray, support: BoolArray, basis: FloatArray) -> ColouredSurface | None:
    """Find the surface at half of the median amplitude in the support; None where there is no such surface."""
    if not support.any() or not np.abs(rho[support]).max() > 0:
        return None
    box = tuple(slice(max(0, found.start - 3), found.stop + 3) for found in ndimage.find_objects(support.astype(np.uint8))[0])
    start = np.array([part.start for part in box])
    found = find_surface(
        np.abs(rho[box]), LEVEL * float(np.median(np.abs(rho[support]))), basis, origin=np.array(rho.shape) // 2 - start
    )
    if found is None:
        return None
    soft = [np.pad(ndimage.gaussian_filter(part, SMOOTHING), 1) for part in (rho[box].real, rho[box].imag)]
    real, imaginary = (ndimage.map_coordinates(part, found.index.T, order=1) for part in soft)
    field, faces = real + 1j * imaginary, found.triangles
    centre = (found.points.min(axis=0) + found.points.max(axis=0)) / 2
    places = found.points - centre
    radius = 1.05 * float(np.linalg.norm(places, axis=1).max())
    return ColouredSurface(places[faces], found.normals[faces], field[faces], centre, radius)


def view_axes(azimuth: float, elevation: float) -> NDArray[np.float64]:
    """Compute the axes of a view as rows: right, up and towards the viewer, components (z, y, x).

    The azimuth [rad] is an angle about y, from +z (upstream) to +x.
    """
    towards = np.array([np.cos(elevation) * np.cos(azimuth), np.sin(elevation), np.cos(elevation) * np.sin(azimuth)])
    right = np.array([-np.sin(azimuth), 0.0, np.cos(azimuth)])
    return np.stack([right, _cross(towards, right), towards])


def _cross(a: FloatArray, b: FloatArray) -> NDArray[np.float64]:
    """Compute the vector product of two vectors with components (z, y, x); the axes x, y, z are right-handed."""
    return np.asarray(np.cross(a[::-1], b[::-1])[::-1], dtype=np.float64)


def render(
    surface: ColouredSurface, axes: FloatArray, size: int, colour: Callable[[ComplexArray], FloatArray]
) -> NDArray[np.uint8]:
    """Draw the surface as a square image that spans twice the radius of the surface; the viewer looks along ``-axes[2]``.

    Parameters
    ----------
    axes : rows are the unit vectors right, up and towards the viewer, from `view_axes`
    size : pixels per side of the square image
    colour : complex field (n,) -> RGB (n, 3), 0 to 1

    Returns
    -------
    RGBA (size, size, 4), transparent around the crystal
    """
    fine = size * _OVERDRAW
    seen = surface.normals.mean(axis=1) @ axes[2] > -0.2  # True for triangles that face the viewer, or nearly do
    corners = surface.corners[seen] @ axes.T * (fine / (2 * surface.radius))
    corners[..., :2] = fine / 2 + corners[..., :2] * (1, -1)  # columns count to the right, rows downwards
    owner, weights = _cover(corners.astype(np.float32), fine)
    pixels = np.flatnonzero(owner >= 0)
    triangle, blend = owner[pixels], weights[pixels]
    normals = np.einsum("ik,ikj->ij", blend, (surface.normals[seen] @ axes.T).astype(np.float32)[triangle])
    field = np.einsum("ik,ik->i", blend, surface.field[seen].astype(np.complex64)[triangle])
    normals /= np.maximum(np.sqrt(np.einsum("ij,ij->i", normals, normals)), 1e-30)[:, None]
    light = _AMBIENT + (1 - _AMBIENT) * np.clip(normals @ (_LIGHT / np.linalg.norm(_LIGHT)).astype(np.float32), 0, 1)
    image = np.zeros((fine * fine, 4), np.float32)
    image[pixels, :3] = colour(field) * light[:, None]
    image[pixels, 3] = 1
    image = np.einsum("iajbc->ijc", image.reshape(size, _OVERDRAW, size, _OVERDRAW, 4)) / _OVERDRAW**2
    image[..., :3] /= np.maximum(image[..., 3:], 1e-9)  # the mean was over covered pixels only
    return np.asarray(np.round(image * 255), dtype=np.uint8)


@compiled
def _cover(corners: NDArray[np.float32], size: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Find the nearest triangle at the middle of each pixel: its number, -1 where there is none, and the barycentric weights.

    Corners are (triangle, 3, 3): column, row and depth [pixels]; of two triangles the one of larger depth is nearer.
    """
    owner = np.full(size * size, -1, np.int32)
    weights = np.zeros((size * size, 3), np.float32)
    nearest = np.zeros(size * size, np.float32)
    for number in range(len(corners)):
        (x0, y0, z0), (x1, y1, z1), (x2, y2, z2) = corners[number, 0], corners[number, 1], corners[number, 2]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if area == 0:  # seen from its edge
            continue
        for row in range(max(0, int(min(y0, y1, y2) - 0.5)), min(size, int(max(y0, y1, y2) + 0.5))):
            for column in range(max(0, int(min(x0, x1, x2) - 0.5)), min(size, int(max(x0, x1, x2) + 0.5))):
                x, y = column + 0.5, row + 0.5
                first = ((x1 - x) * (y2 - y) - (x2 - x) * (y1 - y)) / area
                second = ((x2 - x) * (y0 - y) - (x0 - x) * (y2 - y)) / area
                third = 1 - first - second
                pixel, depth = row * size + column, first * z0 + second * z1 + third * z2
                if min(first, second, third) >= -1e-4 and (owner[pixel] < 0 or depth > nearest[pixel]):  # rounding leaves no hole
                    owner[pixel], nearest[pixel] = number, depth
                    weights[pixel, 0], weights[pixel, 1], weights[pixel, 2] = first, second, third
    return owner, weights
