r"""Compute scattering vectors and voxel edges from pixels and the angles of a diffractometer's circles; numpy, float64, SI.

.. math:: q = R_s(t_0)\, R_s(t)^{-1} (k_f - k_i), \qquad
          k_i = k\,\hat z, \quad k_f = k\, R_d\, p / |p|, \quad k = 2\pi / \lambda = E / \hbar c

k_i and k_f are the wave vectors of the incoming and the scattered beam. p is the position of the pixel with all detector circles
at zero, R_d and R_s are the products of the circles' rotations, outermost first, and t is the rocking angle. Turning the sample
back to the reference angle t_0 makes q a vector of the laboratory frame in which the crystal stands still. In an energy scan no
circle moves: k changes from frame to frame, so q moves along itself, and frames fan out. Vectors and matrices list their components
as (z, y, x): z downstream, y up, x outboard (`braggshot.volumes`).

Sources: Busing & Levy, Acta Cryst. 22, 457 (1967); Maddali et al. and Li et al., J. Appl. Cryst. 53, 393 and 404 (2020), for the
bases. The tests compare with xrayutilities: Kriegner et al., J. Appl. Cryst. 46, 1162 (2013).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import constants

from braggshot.errors import GeometryError
from braggshot.volumes import Circle, FloatArray, Geometry, Window

AXES = "zyx"  # the three axes of the laboratory, in the order in which vectors list their components
KEV = 1e3 * constants.electron_volt  # one kiloelectronvolt [J]
SAME_STEP = 2e-3  # largest difference of two rocking steps, relative to one, that are taken for the same [1]
LEAST = 1e-5  # least range of the energies of an energy scan, as a share of their mean [1]


def wavelength(energy: float) -> float:
    """Compute the wavelength [m] of a photon of `energy` [J]: h c / E."""
    return constants.h * constants.c / energy


def photon_energy(wavelength: float) -> float:
    """Compute the energy [J] of a photon of `wavelength` [m]: h c / lambda."""
    return constants.h * constants.c / wavelength


def direction(axis: str) -> NDArray[np.float64]:
    """Return the unit vector (z, y, x) of a signed laboratory axis such as "y-".

    Raises
    ------
    GeometryError : if the name is not a letter of "xyz" and a sign.
    """
    if len(axis) != 2 or axis[0] not in AXES or axis[1] not in "+-":
        raise GeometryError(f"expected an axis such as 'x+' or 'y-', found {axis!r}.")
    unit = np.zeros(3)
    unit[AXES.index(axis[0])] = 1.0 if axis[1] == "+" else -1.0
    return unit


def rotation(axis: str, angle: ArrayLike) -> NDArray[np.float64]:
    """Make the matrix that turns by `angle` [rad] about `axis`, right-handed for "+", left-handed for "-".

    Shape (..., 3, 3) for angles (...), components (z, y, x).

    Raises
    ------
    GeometryError : if `axis` is not a letter of "xyz" and a sign.
    """
    vector = np.asarray(angle, dtype=float)[..., None] * direction(axis)[::-1]
    matrices = _turn(vector.reshape(-1, 3)).reshape(*vector.shape[:-1], 3, 3)
    return matrices[..., ::-1, ::-1]


def rotation_onto(vector: ArrayLike, target: ArrayLike) -> NDArray[np.float64]:
    """Find the smallest rotation (3, 3) that turns the direction of `vector` into that of `target`, components (z, y, x)."""
    # Unit vectors along `vector` and `target` with components (x, y, z).
    start, end = (np.asarray(v, dtype=float)[::-1] / np.linalg.norm(v) for v in (vector, target))
    axis = np.cross(start, end)
    angle = np.arctan2(np.linalg.norm(axis), start @ end)
    if not np.linalg.norm(axis) > 1e-12:  # along it already, or against it: then any axis across will do
        axis = np.cross(start, np.eye(3)[np.abs(start).argmin()])
    return _turn(angle * axis / np.linalg.norm(axis))[::-1, ::-1]


def _turn(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """Make the matrix (..., 3, 3) of a rotation vector (..., 3), components (x, y, z), the order that scipy expects."""
    from scipy.spatial.transform import Rotation  # here, because it takes long to import and not every scan needs it

    return np.asarray(Rotation.from_rotvec(vector).as_matrix())


def mean_energy(geometry: Geometry) -> float:
    """Return the photon energy [J]; of an energy scan, the mean over its frames."""
    return float(np.nanmean(geometry.energy)) if steps_energy(geometry) else float(geometry.energy)


def steps_energy(geometry: Geometry) -> bool:
    """Tell whether the frames are taken at different photon energies, and not at different angles."""
    return np.ndim(geometry.energy) > 0


def scanned_values(geometry: Geometry) -> NDArray[np.float64]:
    """Return what changes from frame to frame: the photon energy [J] in an energy scan, else the rocking angle [rad].

    Raises
    ------
    GeometryError : unless either the energy changes or exactly one circle, and this circle carries the sample.
    """
    if not steps_energy(geometry):
        return rocking_angle(geometry)
    moving = [_name(circle) for circle in (*geometry.sample, *geometry.detector) if np.ndim(circle.angle)]
    if moving:
        raise GeometryError(f"the photon energy and {', '.join(moving)} both move during the scan; one of them should stand still.")
    energies = np.asarray(geometry.energy, dtype=float)
    if not np.nanmax(energies) - np.nanmin(energies) > LEAST * mean_energy(geometry):
        raise GeometryError(f"all {energies.size} photon energies are alike, and no circle moves: no scan through the peak.")
    return energies


def rocking_angle(geometry: Geometry) -> NDArray[np.float64]:
    """Return the angles of the sample circle that is rocked, one per frame [rad].

    Raises
    ------
    GeometryError : unless exactly one circle moves, and it carries the sample.
    """
    if steps_energy(geometry):
        raise GeometryError("the photon energy changes from frame to frame; expected a scan that rocks the sample at one energy.")
    for circle in geometry.detector:
        if np.ndim(circle.angle):
            raise GeometryError(f"the detector circle {_name(circle)} moves during the scan; braggshot expects the sample to rock.")
    moving = [circle for circle in geometry.sample if np.ndim(circle.angle)]
    if len(moving) != 1:
        found = ", ".join(_name(circle) for circle in moving) or "none"
        raise GeometryError(f"expected one sample circle with an angle per frame, found {found}; check the scanned motor.")
    return np.asarray(moving[0].angle, dtype=float)


def follow_angles(geometry: Geometry, angles: FloatArray) -> Geometry:
    """Put the rocking circle at other angles [rad], one per frame, about the middle of its own.

    Angles of a stream may count from anywhere, so only their differences are believed. The geometry stays as it is if it has as
    many angles of the same step (to `SAME_STEP`), or is not that of a rocking scan.
    """
    try:
        own = rocking_angle(geometry)
    except GeometryError:
        return geometry
    step, expected = (np.polyfit(np.arange(values.size), values, 1)[0] if values.size > 1 else 0.0 for values in (angles, own))
    if angles.size == own.size and abs(step - expected) <= SAME_STEP * abs(expected):
        return geometry
    moved = angles - angles.mean() + own.mean()
    return replace(geometry, sample=tuple(replace(c, angle=moved) if np.ndim(c.angle) else c for c in geometry.sample))


def sample_rotation(geometry: Geometry, frame: ArrayLike) -> NDArray[np.float64]:
    """Make the matrix (..., 3, 3) that turns vectors from the sample's axes to the laboratory's, at a (fractional) frame index.

    Raises
    ------
    GeometryError : unless exactly one circle moves during the scan, and it carries the sample.
    """
    if steps_energy(geometry):
        return _sample_rotation(geometry, 0.0)
    return _sample_rotation(geometry, _value_at(rocking_angle(geometry), frame))


def arm_rotation(geometry: Geometry) -> NDArray[np.float64]:
    """Make the matrix that turns vectors from the axes of the detector to the laboratory's.

    The shape is (3, 3), or (n, 3, 3) if a detector circle has one angle per frame.
    """
    return _product(geometry.detector, [circle.angle for circle in geometry.detector])


def pixel_edges(geometry: Geometry) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the vectors from a pixel to the next row and to the next column [m], with all detector circles at zero.

    The vectors contain the calibrated rotation and tilt of the detector, as xrayutilities defines them (`detrot`, `tiltazimuth`,
    `tilt`). The tilt axis lies in the plane of the detector, at `tilt_azimuth` + 90 degrees from the direction of growing row
    index towards that of growing column index. The tilt about this axis is left-handed.
    """
    turn = rotation("z+", geometry.detector_rotation)
    row, column = turn @ direction(geometry.row_axis), turn @ direction(geometry.column_axis)
    axis = -np.sin(geometry.tilt_azimuth) * row + np.cos(geometry.tilt_azimuth) * column
    lean = _turn(-geometry.tilt * axis[::-1])[::-1, ::-1]
    return geometry.pixel_size[0] * (lean @ row), geometry.pixel_size[1] * (lean @ column)


def scattering_vector(
    geometry: Geometry, frame: ArrayLike, row: ArrayLike, column: ArrayLike, reference: float | None = None
) -> NDArray[np.float64]:
    """Compute the scattering vector q [1/m] of raw pixels in the laboratory frame, the sample oriented as at frame `reference`.

    Parameters
    ----------
    geometry : circles, distance and pixels
    frame, row, column : indices into the raw scan, which may be fractional; arrays that broadcast to the shape (...)
    reference : index of the frame whose sample orientation q refers to; None is the middle of the scan

    Returns
    -------
    Vectors (..., 3) with components (z, y, x) [1/m]

    Raises
    ------
    GeometryError : unless exactly one circle moves during the scan, and it carries the sample.
    """
    values = scanned_values(geometry)
    middle = (values.size - 1) / 2 if reference is None else reference
    return _scattering_vector(geometry, _value_at(values, frame), row, column, float(_value_at(values, middle)))


def reciprocal_basis(geometry: Geometry, window: Window, shape: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the voxel edges of a cropped and binned volume and its scattering vector, both at its centre voxel N // 2.

    The curved (frame, row, column) coordinates are linearised by central differences over one voxel, in the laboratory frame with
    the sample as it stood at the centre voxel. The rocking step, or the step of the energy, is that of a straight line through all
    angles or energies, so that the jitter of a motor does not enter.

    Parameters
    ----------
    geometry : circles, distance and pixels
    window : voxel i of axis a covers the raw indices start[a] + i * binning[a] and the binning[a] - 1 that follow
    shape : shape (z, y, x) of the volume

    Returns
    -------
    basis : (3, 3), columns are the voxel edges [1/m]
    q_bragg : (3,) [1/m]

    Raises
    ------
    GeometryError : unless the energy moves during the scan, or exactly one circle, which carries the sample; or if the angles are
        not evenly spaced, or not as many as frames.
    """
    zero = np.zeros(3)
    edges = [_voxel_q(geometry, window, shape, half) - _voxel_q(geometry, window, shape, -half) for half in np.eye(3) / 2]
    return np.stack(edges, axis=1), _voxel_q(geometry, window, shape, zero)


def sample_axes(geometry: Geometry, window: Window, shape: Sequence[int]) -> NDArray[np.float64]:
    """Make the rotation (3, 3) from the laboratory's components of a volume's vectors to those with all sample circles at zero.

    The vectors of a volume refer to the sample as it stood at the centre voxel. Components with all circles at zero are the same in
    every scan of a crystal, wherever its motors stand.

    Raises
    ------
    GeometryError : as `reciprocal_basis`.
    """
    offset, step = scanned_line(geometry, window)
    return _sample_rotation(geometry, offset + step * _raw_centre(window, shape)[0]).T


def curvature(geometry: Geometry, window: Window, shape: Sequence[int]) -> NDArray[np.float64]:
    """Find where on the curved grid of frames and pixels the scattering vectors of the straight grid were measured.

    Energies count as evenly spaced here, as angles do.

    Returns
    -------
    Coefficients (4, 4, 4, 3) of polynomials in the offsets from the centre voxel N // 2, in units of N / 2, along (z, y, x). Their
    values are the three distances from a voxel of the straight grid to its place on the measured grid [voxels].

    Raises
    ------
    GeometryError : as `reciprocal_basis`.
    """
    basis, q_bragg = reciprocal_basis(geometry, window, shape)
    line = np.linspace(-1, 1, 7)
    nodes = np.stack(np.meshgrid(line, line, line, indexing="ij"), axis=-1).reshape(-1, 3)
    straight = nodes * np.asarray(shape) / 2
    place = straight
    for _ in range(6):  # each round gains a factor of about ten
        place = place + straight - np.linalg.solve(basis, (_voxel_q(geometry, window, shape, place) - q_bragg).T).T
    # On a grid the least squares of products of polynomials are those along one line, axis by axis.
    fit = np.linalg.pinv(np.polynomial.polynomial.polyvander(line, 3))
    moved = (place - straight).reshape(7, 7, 7, 3)
    return np.asarray(np.einsum("ai,bj,ck,ijkd->abcd", fit, fit, fit, moved, optimize=True))


def direct_basis(reciprocal_basis: FloatArray, shape: Sequence[int]) -> NDArray[np.float64]:
    r"""Compute the voxel edges [m] of the direct space that the discrete Fourier transform pairs with a reciprocal grid.

    .. math:: A = 2\pi\,(B\,\mathrm{diag}(N))^{-T}, \qquad\text{so that}\quad (B k) \cdot (A n) = 2\pi \sum_a k_a n_a / N_a

    The columns of A and B are the direct and the reciprocal voxel edges, n and k the voxel indices, N is the shape of the grid.

    Raises
    ------
    GeometryError : if the edges lie in a plane.
    """
    scaled = np.asarray(reciprocal_basis, dtype=float) * np.asarray(shape, dtype=float)
    lengths = np.linalg.norm(scaled, axis=0)
    if not lengths.all() or abs(np.linalg.det(scaled / lengths)) < 1e-6:
        raise GeometryError("the voxel edges in reciprocal space lie in a plane: the sample does not rock through the peak.")
    return 2 * np.pi * np.linalg.inv(scaled).T


def _raw_centre(window: Window, shape: Sequence[int]) -> NDArray[np.float64]:
    """Return the raw (frame, row, column) of the centre voxel N // 2, which are fractional where voxels are binned."""
    return np.asarray(window.start) + (np.asarray(shape) // 2 + 0.5) * np.asarray(window.binning) - 0.5


def _voxel_q(geometry: Geometry, window: Window, shape: Sequence[int], offset: FloatArray) -> NDArray[np.float64]:
    """Compute q [1/m] of voxels that lie `offset` (..., 3) voxels off the centre voxel, the sample as it stood there."""
    start, step = scanned_line(geometry, window)
    centre = _raw_centre(window, shape)
    frame, row, column = np.moveaxis(centre + offset * np.asarray(window.binning), -1, 0)
    return _scattering_vector(geometry, start + step * frame, row, column, start + step * float(centre[0]))


def scanned_line(geometry: Geometry, window: Window) -> tuple[float, float]:
    """Return the offset and the step of the straight line through what changes from frame to frame [rad, or J for energies].

    Raises
    ------
    GeometryError : as `reciprocal_basis`.
    """
    values = scanned_values(geometry)
    if values.size != window.raw_shape[0]:
        what = "photon energies" if steps_energy(geometry) else "rocking angles"
        raise GeometryError(f"the geometry has {values.size} {what}, the scan {window.raw_shape[0]} frames.")
    if steps_energy(geometry):  # energies need not be even: preparation brings the counts onto the straight grid
        step, offset = np.polyfit(np.arange(values.size), values, 1)
        return float(offset), float(step)
    return _straight_line(values)


def _name(circle: Circle) -> str:
    return circle.name or f"about {circle.axis}"


def _value_at(values: FloatArray, frame: ArrayLike) -> NDArray[np.float64]:
    """Interpolate an angle or energy at a fractional frame index; beyond the ends (padding) the last step is continued."""
    frame = np.asarray(frame, dtype=float)
    if values.size < 2:
        return np.full(frame.shape, values[0])
    below = np.clip(np.floor(frame).astype(int), 0, values.size - 2)
    return values[below] + (frame - below) * (values[below + 1] - values[below])


def _straight_line(angles: FloatArray) -> tuple[float, float]:
    """Fit the offset and the step [rad] of evenly spaced angles by least squares."""
    if angles.size < 2:
        raise GeometryError(f"a rocking scan needs at least two angles, found {angles.size}.")
    index = np.arange(angles.size)
    step, offset = np.polyfit(index, angles, 1)
    worst = np.abs(offset + step * index - angles).max()
    if not worst < abs(step):
        raise GeometryError(
            f"the rocking angles are not evenly spaced: one lies {np.degrees(worst):.4g} degrees off a line of "
            f"{np.degrees(step):.4g} degrees per frame; leave out the frames that do not belong to the scan."
        )
    return float(offset), float(step)


def _product(circles: Sequence[Circle], angles: Sequence[ArrayLike]) -> NDArray[np.float64]:
    total: NDArray[np.float64] = np.eye(3)
    for circle, angle in zip(circles, angles, strict=True):
        total = total @ rotation(circle.axis, angle)
    return total


def _sample_rotation(geometry: Geometry, angle: ArrayLike) -> NDArray[np.float64]:
    """Compute the rotation of the sample with the rocking circle at `angle`."""
    return _product(geometry.sample, [angle if np.ndim(circle.angle) else circle.angle for circle in geometry.sample])


def _scattering_vector(
    geometry: Geometry, value: ArrayLike, row: ArrayLike, column: ArrayLike, reference: float
) -> NDArray[np.float64]:
    """Compute the scattering vectors q of pixels at what is scanned, a rocking angle [rad] or a photon energy [J].

    The sample is turned to the rocking angle `reference`; in an energy scan it stands still.
    """
    row_edge, column_edge = pixel_edges(geometry)
    position = (
        geometry.distance * direction("z+")
        + (np.asarray(row) - geometry.direct_beam[0])[..., None] * row_edge
        + (np.asarray(column) - geometry.direct_beam[1])[..., None] * column_edge
    )
    outgoing = position / np.linalg.norm(position, axis=-1, keepdims=True)
    outgoing = outgoing @ arm_rotation(geometry).T
    energy = np.asarray(value if steps_energy(geometry) else geometry.energy, dtype=float)
    transfer: NDArray[Any] = (outgoing - direction("z+")) * (2 * np.pi / (constants.h * constants.c) * energy)[..., None]
    if steps_energy(geometry):
        return transfer
    turned = _sample_rotation(geometry, reference) @ np.swapaxes(_sample_rotation(geometry, value), -1, -2)
    return (turned @ transfer[..., None])[..., 0]
