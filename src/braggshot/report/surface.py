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

from braggshot.physics.surface import SMOOTHING, find_surface
from braggshot.volumes import BoolArray, ComplexArray, FloatArray

LEVEL = 0.5  # amplitude at the drawn surface, divided by the median amplitude inside the support [1]
_OVERDRAW = 2  # rendered pixels per pixel of the image, along each axis; they are averaged, so that edges are smooth
_SPACING = 0.7  # distance between neighbouring points that fill a triangle [rendered pixels]; below 1 / sqrt(2) there are no holes
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
    corners = (surface.corners[seen] @ axes.T).astype(np.float32)
    corners *= fine / (2 * surface.radius)
    weights = _lattice(np.linalg.norm(corners[:, :, :2] - np.roll(corners[:, :, :2], 1, axis=1), axis=2).max() / _SPACING)
    points = (weights @ corners.transpose(1, 0, 2).reshape(3, -1)).reshape(len(weights), len(corners), 3)
    column = np.clip(points[..., 0] + fine / 2, 0, fine - 1).astype(np.int32)
    row = np.clip(fine / 2 - points[..., 1], 0, fine - 1).astype(np.int32)
    place, depth = (row * fine + column).ravel(), points[..., 2].ravel()
    nearest = np.full(fine * fine, -np.inf, np.float32)
    np.maximum.at(nearest, place, depth)
    shown = np.flatnonzero(depth == nearest[place])
    pixels = place[shown]
    point, triangle = np.divmod(shown, len(corners))
    blend = weights[point]
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


def _lattice(longest: float) -> NDArray[np.float32]:
    """Compute evenly spaced points in a triangle, at least `longest` steps per edge, as barycentric weights (point, 3)."""
    steps = max(1, int(np.ceil(longest)))
    first, second = (index.ravel() for index in np.mgrid[: steps + 1, : steps + 1])
    inside = first + second <= steps
    weights = np.column_stack([first, second, steps - first - second])[inside] / steps
    return weights.astype(np.float32)
