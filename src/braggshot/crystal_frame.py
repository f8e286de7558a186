"""From the skewed voxels of the detector frame to an orthogonal grid in the laboratory."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from braggshot.errors import DataError, GeometryError
from braggshot.volumes import BoolArray, ComplexArray, FloatArray, Reconstruction

LARGEST = 2**28  # voxels of a resampled grid
MARGIN = 3  # empty voxels around the crystal


def to_lab(reconstruction: Reconstruction, voxel_size: float | None = None) -> Reconstruction:
    """Resample a crystal onto cubic voxels along the laboratory axes, z downstream, y up, x outboard.

    Amplitude and support are interpolated linearly, so that nothing overshoots at the surface. The phase is interpolated by cubic
    splines of the unit field exp(i phase), continued beyond the surface and freed of its mean ramp: no wraps, and no loss of
    amplitude where the phase is steep. The point r = 0 stays at the voxel N // 2; the array is as large as the crystal needs.

    Parameters
    ----------
    reconstruction : with a basis
    voxel_size : edge of the new voxels [m]; None keeps the voxels' volume

    Returns
    -------
    The same record with rho, support, basis and frame of the new grid; rho keeps its unit, one value per old voxel.

    Raises
    ------
    GeometryError : without a basis, or with a voxel size that makes no grid.
    DataError : if the support is empty.
    """
    basis, support = reconstruction.basis, reconstruction.support
    if basis is None:
        raise GeometryError("the reconstruction has no voxel size: its volume was prepared without geometry; give the angles.")
    if not support.any():
        raise DataError("the support is empty, so there is no crystal to put into the laboratory frame.")
    edge = abs(np.linalg.det(basis)) ** (1 / 3) if voxel_size is None else voxel_size
    shape = _shape(support, basis, edge)
    lab = edge * np.eye(3)
    points = _points(shape, lab, basis, support.shape)
    inside = _interpolate(support.astype(float), points, order=1) >= 0.5
    amplitude = _interpolate(np.abs(reconstruction.rho), points, order=1)
    rho = inside * amplitude * _phase_factor(reconstruction.rho, support, points)
    return replace(reconstruction, rho=rho.astype(np.complex64), support=inside, basis=lab, frame="lab")


def _shape(support: BoolArray, basis: FloatArray, edge: float) -> tuple[int, int, int]:
    """Smallest array about r = 0 that holds the crystal and a margin."""
    if not edge > 0:
        raise GeometryError(f"expected a voxel size above 0 m, found {edge}.")
    index = np.argwhere(support) - np.array(support.shape) // 2
    reach = np.abs(index @ basis.T).max(0) + np.abs(basis).sum(1) / 2  # centres, and half a voxel's shadow
    z, y, x = (2 * math.ceil(r / edge) + 1 + 2 * MARGIN for r in reach)
    if z * y * x > LARGEST:
        raise GeometryError(f"voxels of {edge:.3g} m would make an array of {z} x {y} x {x}; take larger ones.")
    return z, y, x


def _points(shape: tuple[int, int, int], lab: FloatArray, basis: FloatArray, old_shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Old fractional indices of the new voxels, (3, z, y, x)."""
    index = np.indices(shape).reshape(3, -1) - np.array(shape)[:, None] // 2
    old = np.linalg.solve(basis, lab) @ index + np.array(old_shape)[:, None] // 2
    return old.reshape(3, *shape)


def _interpolate(field: FloatArray, points: NDArray[np.float64], order: int) -> FloatArray:
    return ndimage.map_coordinates(field, points, order=order, mode="grid-constant" if order == 1 else "nearest")


def _phase_factor(rho: ComplexArray, support: BoolArray, points: NDArray[np.float64]) -> ComplexArray:
    """Exp(i phase) of the crystal at fractional indices."""
    ramp = _mean_ramp(np.where(support, rho, 0))
    unit = np.exp(1j * (np.angle(rho) - np.tensordot(ramp, np.indices(rho.shape), axes=1)))
    continued = _continued(unit, support)
    smooth = _interpolate(continued.real, points, order=3) + 1j * _interpolate(continued.imag, points, order=3)
    return np.exp(1j * (np.angle(smooth) + np.tensordot(ramp, points, axes=1)))


def _continued(unit: ComplexArray, support: BoolArray) -> ComplexArray:
    """The field beyond the surface: phase 2 phi(n) - phi(m), n the nearest voxel inside and m as far behind it."""
    nearest = ndimage.distance_transform_edt(~support, return_distances=False, return_indices=True)
    last = np.array(support.shape).reshape(3, 1, 1, 1) - 1
    behind = np.clip(2 * nearest - np.indices(support.shape), 0, last)
    behind = nearest[:, *behind]  # itself, where it is inside
    return unit[tuple(nearest)] ** 2 * unit[tuple(behind)].conj()


def _mean_ramp(rho: ComplexArray) -> NDArray[np.float64]:
    """Mean turn of the phase from voxel to voxel along each axis [rad], without unwrapping."""
    turns = []
    for axis, size in enumerate(rho.shape):
        before, after = np.take(rho, range(size - 1), axis), np.take(rho, range(1, size), axis)
        turns.append(np.angle(np.vdot(before, after)))
    return np.array(turns)
