"""Resample a crystal from the skewed voxels of the detector frame to a grid along the axes of laboratory, sample or crystal.

The phase is only interpolated: its ramp, offset and sign stay unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from braggshot.errors import DataError, GeometryError
from braggshot.physics.geometry import direction, rotation_onto, sample_axes
from braggshot.physics.strain import continue_beyond, on_grid
from braggshot.volumes import (
    BoolArray,
    ComplexArray,
    CoordinateFrame,
    DiffractionVolume,
    FloatArray,
    Reconstruction,
    Uncertainty,
)

LARGEST = 2**28  # largest number of voxels of a resampled grid
MARGIN = 3  # empty margin on each side of the crystal [voxels]
SEEN = 10  # margin of the crystal within which its phase is continued, for the spline through it [voxels]


def to_lab(reconstruction: Reconstruction, voxel_size: float | Sequence[float] | None = None) -> Reconstruction:
    """Resample a crystal onto voxels along the laboratory axes, z downstream, y up, x outboard.

    Amplitude and support are interpolated linearly, so that values do not overshoot at the surface. The phase is interpolated by
    cubic splines of the field exp(i phase). Before that, this field is continued beyond the surface and the mean ramp of its phase
    is taken off; afterwards the ramp is added again. So the phase does not wrap, and no amplitude is lost where the phase is steep.
    The point r = 0 stays at the voxel N // 2 of an axis of N voxels. The new array is just large enough for the crystal.

    Parameters
    ----------
    reconstruction : crystal with a voxel basis
    voxel_size : edge of the new voxels, or one per axis (z, y, x) [m]; None makes cubes of the volume of an old voxel

    Returns
    -------
    The reconstruction with rho, support, uncertainty, basis and frame on the new grid. The values of rho are not rescaled: they
    still refer to the volume of an old voxel.

    Raises
    ------
    GeometryError : if there is no voxel basis, the crystal was turned already, or the voxel size is impossible.
    DataError : if the support is empty.
    """
    return _resample(reconstruction, np.eye(3), voxel_size, "lab")


def to_crystal(
    reconstruction: Reconstruction, axis: str = "y+", voxel_size: float | Sequence[float] | None = None
) -> Reconstruction:
    """Resample a crystal onto voxels of the crystal frame.

    The smallest rotation that brings the scattering vector along `axis` turns the laboratory frame into the crystal frame. The
    vectors of `reconstruction.volume` are turned too, so that q_bragg lies along `axis`. The rotation is
    ``rotation_onto(q_bragg, direction(axis))`` of `braggshot.physics.geometry`. Values are interpolated as in `to_lab`.

    Parameters
    ----------
    reconstruction : crystal with a voxel basis and a scattering vector
    axis : axis of the crystal frame along which the scattering vector shall lie, such as "y+"
    voxel_size : edge of the new voxels, or one per axis (z, y, x) [m]; None makes cubes of the volume of an old voxel

    Raises
    ------
    GeometryError : if the scattering vector or the voxel basis is missing, the crystal was turned already, or the voxel size is
        impossible.
    DataError : if the support is empty.
    """
    volume = reconstruction.volume
    if volume.q_bragg is None:
        raise GeometryError(
            "the reconstruction has no scattering vector: its volume was prepared without geometry; give the angles."
        )
    return _turn(reconstruction, rotation_onto(volume.q_bragg, direction(axis)), voxel_size, "crystal")


def to_sample(reconstruction: Reconstruction, voxel_size: float | Sequence[float] | None = None) -> Reconstruction:
    """Resample a crystal onto voxels along the axes of its sample: those of the laboratory, with all sample circles at zero.

    In this frame a crystal keeps its orientation, wherever the motors stand. The vectors of `reconstruction.volume` are turned
    too, by ``sample_axes`` of `braggshot.physics.geometry`. Values are interpolated as in `to_lab`.

    Raises
    ------
    GeometryError : if the voxel basis or the angles of the sample are missing, the crystal was turned already, or the voxel size is
        impossible.
    DataError : if the support is empty.
    """
    return _turn(reconstruction, rotation_to_sample(reconstruction.volume), voxel_size, "sample")


def turn_onto(reconstruction: Reconstruction, rotation: FloatArray, voxel_size: float) -> Reconstruction:
    """Resample a crystal onto voxels along its own axes, to which `rotation` (3, 3) turns laboratory components; as `to_sample`."""
    return _turn(reconstruction, rotation, voxel_size, "crystal")


def rotation_to_sample(volume: DiffractionVolume) -> NDArray[np.float64]:
    """Make the rotation (3, 3) from laboratory components to those of the sample frame.

    Raises
    ------
    GeometryError : if the volume has no geometry, or does not say which part of the scan it is.
    """
    if volume.geometry is None or volume.window is None:
        raise GeometryError("the sample frame needs the angles of the sample's circles; give the geometry, or take another frame.")
    return sample_axes(volume.geometry, volume.window, volume.shape)


def _turn(
    reconstruction: Reconstruction, turn: FloatArray, voxel_size: float | Sequence[float] | None, frame: CoordinateFrame
) -> Reconstruction:
    """Resample a crystal onto turned axes, and turn the vectors of its volume."""
    volume = reconstruction.volume
    q = None if volume.q_bragg is None else turn @ volume.q_bragg
    reciprocal = None if volume.reciprocal_basis is None else turn @ volume.reciprocal_basis
    turned = replace(volume, q_bragg=q, reciprocal_basis=reciprocal)
    return replace(_resample(reconstruction, turn, voxel_size, frame), volume=turned)


def _resample(
    reconstruction: Reconstruction, turn: FloatArray, voxel_size: float | Sequence[float] | None, frame: CoordinateFrame
) -> Reconstruction:
    support = reconstruction.support
    if reconstruction.basis is None:
        raise GeometryError("the reconstruction has no voxel size: its volume was prepared without geometry; give the angles.")
    if reconstruction.frame in ("crystal", "sample"):
        frame = reconstruction.frame
        raise GeometryError(f"the reconstruction is in the {frame} frame already, and what it was turned by is not known.")
    if not support.any():
        raise DataError("the support is empty, so there is no crystal to resample.")
    basis = turn @ reconstruction.basis
    size = abs(np.linalg.det(basis)) ** (1 / 3) if voxel_size is None else voxel_size
    new = np.diag(np.broadcast_to(np.asarray(size, dtype=float), 3))
    shape = _shape(support, basis, new.diagonal())
    points = _points(shape, new, basis, support.shape)
    inside = _interpolate(support.astype(float), points, order=1) >= 0.5
    rho = np.zeros(shape, dtype=np.complex64)
    amplitude = _interpolate(np.abs(reconstruction.rho), points[:, inside], order=1)
    rho[inside] = amplitude * _phase_factor(reconstruction.rho, support, points[:, inside])
    spread = _uncertainty(reconstruction.uncertainty, support, points, inside)
    return replace(reconstruction, rho=rho, support=inside, basis=new, frame=frame, uncertainty=spread)


def _shape(support: BoolArray, basis: FloatArray, edges: FloatArray) -> tuple[int, int, int]:
    """Return the shape of the smallest array, centred at r = 0, that holds the crystal and an empty margin around it."""
    if not edges.min() > 0:
        raise GeometryError(f"expected a voxel size above 0 m, found {edges.min()}.")
    index = np.argwhere(support) - np.array(support.shape) // 2
    # Distance from r = 0 to the outermost face of the crystal's voxels along each axis [m].
    reach = np.abs(index @ basis.T).max(0) + np.abs(basis).sum(1) / 2
    z, y, x = (2 * math.ceil(r / edge) + 1 + 2 * MARGIN for r, edge in zip(reach, edges, strict=True))
    if z * y * x > LARGEST:
        raise GeometryError(f"voxels of {edges.min():.3g} m would make an array of {z} x {y} x {x}; take larger ones.")
    return z, y, x


def _points(shape: tuple[int, int, int], new: FloatArray, basis: FloatArray, old_shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return where the voxels of the resampled grid lie in the original array, as fractional indices (3, z, y, x)."""
    index = np.indices(shape).reshape(3, -1) - np.array(shape)[:, None] // 2
    old = np.linalg.solve(basis, new) @ index + np.array(old_shape)[:, None] // 2
    return old.reshape(3, *shape)


def _uncertainty(
    spread: Uncertainty | None, support: BoolArray, points: NDArray[np.float64], inside: BoolArray
) -> Uncertainty | None:
    """Resample the maps of one-sigma uncertainty by linear interpolation; None if there are no such maps.

    Before the interpolation each voxel outside the crystal's support gets the value of the nearest voxel of the support.

    Parameters
    ----------
    spread : uncertainties of phase, strain and amplitude, on the original grid
    support : mask of the crystal, on the original grid
    points : places of the new voxels, as fractional indices (3, z, y, x) of the original grid
    inside : mask of the crystal, on the new grid; outside it the new maps are 0
    """
    if spread is None:
        return None
    nearest = tuple(ndimage.distance_transform_edt(~support, return_distances=False, return_indices=True))

    def move(values: FloatArray) -> Any:
        return inside * ndimage.map_coordinates(values[nearest], points, order=1, mode="nearest")

    maps = {name: getattr(spread, name) for name in ("phase", "strain", "amplitude")}
    moved = {name: move(old) for name, old in maps.items() if old is not None}
    if spread.deviations is None:
        return replace(spread, **moved)
    deviations = np.stack([move(on_grid(one, support))[inside] for one in spread.deviations])
    moved["phase"] = on_grid(np.sqrt((deviations**2).sum(axis=0)), inside)
    return replace(spread, **moved, deviations=deviations)


def _interpolate(field: FloatArray, points: NDArray[np.float64], order: int) -> FloatArray:
    return ndimage.map_coordinates(field, points, order=order, mode="grid-constant" if order == 1 else "nearest")


def _phase_factor(rho: ComplexArray, support: BoolArray, points: NDArray[np.float64]) -> ComplexArray:
    """Interpolate exp(i phase) of the crystal at `points`, which are fractional indices of its array."""
    # Only the crystal and what a spline sees around it matter: a spline forgets 0.27 of a value with each voxel.
    around = ndimage.find_objects(support.astype(np.uint8))[0]
    box = tuple(slice(max(0, part.start - SEEN), part.stop + SEEN) for part in around)
    rho, support = rho[box], support[box]
    points = points - np.array([part.start for part in box])[:, None]
    ramp = _mean_ramp(np.where(support, rho, 0))
    unit = np.exp(1j * (np.angle(rho) - np.tensordot(ramp, np.indices(rho.shape), axes=1)))
    continued = continue_beyond(unit, support)
    smooth = _interpolate(continued.real, points, order=3) + 1j * _interpolate(continued.imag, points, order=3)
    return np.exp(1j * (np.angle(smooth) + np.tensordot(ramp, points, axes=1)))


def _mean_ramp(rho: ComplexArray) -> NDArray[np.float64]:
    """Return the mean change of the phase from voxel to voxel along each axis [rad], without unwrapping."""
    turns = []
    for axis, size in enumerate(rho.shape):
        before, after = np.take(rho, range(size - 1), axis), np.take(rho, range(1, size), axis)
        turns.append(np.angle(np.vdot(before, after)))
    return np.array(turns)
