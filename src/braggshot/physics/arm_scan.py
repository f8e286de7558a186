r"""Find distance, direct beam, rotation and tilt of a detector from where the direct beam meets it while its arm moves.

A detector circle turns the detector by R_d. The direct beam, along z in the laboratory, then comes along R_d^-1 z in the frame of
the detector. It meets the pixel (row, column) that solves

.. math:: s\,R_d^{-1} \hat z = D \hat z + (row - row_0)\, e_{row} + (column - column_0)\, e_{column}

with the distance D, the direct beam (row_0, column_0) and the pixel edges e (`braggshot.physics.geometry.pixel_edges`), which
contain rotation and tilt. These six values are fitted to the measured places by least squares. xrayutilities
(`analysis.sample_align.area_detector_calib`; Kriegner et al., J. Appl. Cryst. 46, 1162 (2013)) and the notebook
``detector_calibration`` of cdiutils (clatlan/cdiutils) do the same, by the same conventions of rotation and tilt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import polar
from scipy.optimize import OptimizeResult, least_squares
from scipy.spatial.transform import Rotation

from braggshot.errors import GeometryError
from braggshot.physics.geometry import arm_rotation, direction, pixel_edges, reciprocal_basis
from braggshot.volumes import BoolArray, FloatArray, Geometry, Window

PARAMETERS = ("distance", "row", "column", "rotation", "tilt_row", "tilt_column")
"""Order of the parameters: distance [m], direct beam [pixel], rotation [rad], tilt times cosine and sine of its azimuth [rad]."""
TILT = float(np.radians(1.0))
"""Tilt that a detector may have, as far as the angles of the scan do not tell it: its standard deviation [rad]."""
FEWEST = 5
"""Least number of frames with a beam; two coordinates of each against six parameters leave four to tell the errors from."""
LOOSEST = 0.02
"""Largest error of the distance that is still a calibration, relative to the distance [1]."""
OUTLIER = 6.0
"""A place is left out if it lies farther from the fit than so many standard deviations of the others [1]."""
UNLIKELY = 0.01
"""A solution of less probability is not considered [1]."""
LEAST_SPREAD = 1e-5
"""Least standard deviation of a place that is assumed; only simulated beams are so sharp [pixel]."""


@dataclass(frozen=True)
class ArmFit:
    """A detector whose place was found from a scan of its arm.

    Parameters
    ----------
    geometry : the geometry of the scan, with the distance, direct beam, rotation and tilt that were found
    covariance : (6, 6) covariance of the values that `PARAMETERS` names, in their units
    used : (n,) True for a frame that was used
    spread : standard deviation of a coordinate of a place about the fit [pixel]
    """

    geometry: Geometry
    covariance: FloatArray
    used: BoolArray
    spread: float

    @property
    def sigma(self) -> dict[str, float]:
        """Standard deviation of each value that `PARAMETERS` names."""
        return dict(zip(PARAMETERS, np.sqrt(np.diag(self.covariance)).tolist(), strict=True))

    @property
    def is_tilt_known(self) -> bool:
        """Whether the angles of the scan told the tilt in both directions, rather than the expectation that it is small."""
        return max(self.sigma["tilt_row"], self.sigma["tilt_column"]) < TILT / 2


@dataclass(frozen=True)
class Effect:
    """Errors of a reflection: of its d relative to d [1], of the volume of a voxel relative to it [1], of the orientation [rad]."""

    spacing: float
    volume: float
    orientation: float


def beam_places(geometry: Geometry) -> NDArray[np.float64]:
    """Compute the pixel (row, column), shape (..., 2), that the direct beam meets at the angles of the detector circles.

    It is nan where the detector is turned so far that the beam does not come from its front.
    """
    return _meet(geometry, _incoming(geometry))


def _incoming(geometry: Geometry) -> NDArray[np.float64]:
    """Compute the direction (..., 3) of the direct beam in the frame of the detector, at the angles of its circles."""
    return np.asarray(np.swapaxes(arm_rotation(geometry), -1, -2) @ direction("z+"))


def _meet(geometry: Geometry, beam: FloatArray) -> NDArray[np.float64]:
    """Compute the pixel that a beam of a direction in the frame of the detector meets; nan if it comes from behind."""
    row_edge, column_edge = pixel_edges(geometry)
    edges = np.broadcast_to(np.stack([-row_edge, -column_edge], axis=1), (*beam.shape[:-1], 3, 2))
    way = np.broadcast_to(geometry.distance * direction("z+"), beam.shape)[..., None]
    solved = np.linalg.solve(np.concatenate([beam[..., None], edges], axis=-1), way)[..., 0]
    return np.where(solved[..., :1] > 0, solved[..., 1:] + np.asarray(geometry.direct_beam), np.nan)


def fit_arm_scan(geometry: Geometry, places: FloatArray) -> ArmFit:
    """Fit distance, direct beam, rotation and tilt of a detector to the places of the direct beam.

    A tilt that the angles do not tell counts as zero within `TILT`; its error then enters the errors of the other values.

    Parameters
    ----------
    geometry : geometry of the scan; its distance, direct beam, rotation and tilt are not used
    places : (n, 2) row and column of the direct beam in each frame [pixel]; nan in a frame without one

    Raises
    ------
    GeometryError : if no detector circle moves, or too few frames or angles determine the distance, or the beam does not move as
        the row and column axes say.
    """
    moving = [circle.name or circle.axis for circle in geometry.detector if np.ndim(circle.angle)]
    if not moving:
        raise GeometryError("no detector circle moves in this scan; a calibration needs a scan of the detector's arm.")
    used = np.asarray(np.isfinite(places).all(axis=1))
    start, spread, beam = _first_guess(geometry, places, used), 0.1, _incoming(geometry)
    for _ in range(10):
        _require_frames(used, moving)
        solution = _solve(geometry, beam[used], places[used], start, spread)
        apart = np.linalg.norm(_meet(_place(geometry, solution.x), beam) - places, axis=1)
        spread_now = max(LEAST_SPREAD, float(np.sqrt(np.sum(apart[used] ** 2) / (2 * used.sum() - 4))))
        typical = max(LEAST_SPREAD, float(np.median(apart[used])) / 1.18)  # the median distance of a 2D Gaussian is 1.18 sigma
        kept = np.isfinite(apart) & (apart < OUTLIER * typical)
        is_settled = bool((kept == used).all()) and abs(spread_now - spread) < 0.01 * spread
        used, start, spread = kept, solution.x, spread_now
        if is_settled:
            break
    mirrored = start * np.array([1.0, 1.0, 1.0, 1.0, -1.0, -1.0])
    values, covariance = _merge([solution, _solve(geometry, beam[used], places[used], mirrored, spread)])
    fit = ArmFit(_place(geometry, values), covariance, used, spread)
    _require_plausible(fit, places, moving)
    return fit


def find_effects(fit: ArmFit, geometry: Geometry, window: Window, shape: Sequence[int]) -> dict[str, Effect]:
    """Compute what the error of each value, and all errors together, do to a reflection.

    Parameters
    ----------
    fit : the calibration
    geometry : geometry of a rocking scan of the reflection; its detector is placed as in `fit`
    window, shape : part of the scan about the peak, as in `braggshot.physics.geometry.reciprocal_basis`

    Returns
    -------
    The name of each value, and "together" -> the effect of one standard deviation

    Raises
    ------
    GeometryError : as `braggshot.physics.geometry.reciprocal_basis`.
    """
    centre, sigmas = _values(fit.geometry), np.sqrt(np.diag(fit.covariance))

    def bases(values: FloatArray) -> tuple[FloatArray, FloatArray]:
        return reciprocal_basis(_place(geometry, values), window, shape)

    basis, q = bases(centre)
    slopes = np.zeros((len(PARAMETERS), 5))  # of ln d, ln volume, and the three components of the turn, per standard deviation
    for index, sigma in enumerate(sigmas):
        step = np.zeros(len(PARAMETERS))
        step[index] = sigma
        other, moved = bases(centre + step)
        turn = Rotation.from_matrix(polar(other @ np.linalg.inv(basis))[0]).as_rotvec()
        volume = np.linalg.det(basis) / np.linalg.det(other)
        slopes[index] = [np.log(np.linalg.norm(q) / np.linalg.norm(moved)), np.log(volume), *turn]
    correlation = fit.covariance / np.outer(sigmas, sigmas)
    together = np.einsum("ia,ij,ja->a", slopes, correlation, slopes)
    squares = {**dict(zip(PARAMETERS, slopes**2, strict=True)), "together": together}
    return {name: Effect(*np.sqrt([each[0], each[1], each[2:].sum()]).tolist()) for name, each in squares.items()}


def _place(geometry: Geometry, values: FloatArray) -> Geometry:
    """Return the geometry with the values that `PARAMETERS` names."""
    distance, row, column, turn, tilt_row, tilt_column = (float(value) for value in values)
    return replace(
        geometry,
        distance=distance,
        direct_beam=(row, column),
        detector_rotation=turn,
        tilt_azimuth=float(np.arctan2(tilt_column, tilt_row)),
        tilt=float(np.hypot(tilt_row, tilt_column)),
    )


def _values(geometry: Geometry) -> NDArray[np.float64]:
    """Return the values of a geometry that `PARAMETERS` names."""
    tilt = geometry.tilt * np.array([np.cos(geometry.tilt_azimuth), np.sin(geometry.tilt_azimuth)])
    return np.array([geometry.distance, *geometry.direct_beam, geometry.detector_rotation, *tilt])


def _require_frames(used: BoolArray, moving: list[str]) -> None:
    """Refuse fewer frames than tell the place of the detector."""
    if used.sum() < FEWEST:
        raise GeometryError(
            f"too few angles: {int(used.sum())} of {len(used)} frames hold the direct beam, expected at least {FEWEST} angles of "
            f"{' and '.join(moving)}."
        )


def _first_guess(geometry: Geometry, places: FloatArray, used: BoolArray) -> NDArray[np.float64]:
    """Guess the values from small angles, at which the places are a linear function of the directions of the beam."""
    _require_frames(used, [circle.name for circle in geometry.detector if np.ndim(circle.angle)])
    flat = replace(geometry, distance=1.0, direct_beam=(0.0, 0.0), detector_rotation=0.0, tilt=0.0)
    ideal = beam_places(flat)[used]  # places at a distance of 1 m, without rotation
    known = np.isfinite(ideal).all(axis=1)
    pitch = np.asarray(geometry.pixel_size)
    there, here = ideal[known] * pitch, places[used][known] * pitch  # [m]
    start, end = there - there.mean(axis=0), here - here.mean(axis=0)
    if not np.ptp(there, axis=0).max() > 0 or not np.ptp(here, axis=0).max() > 0:
        raise GeometryError("too few angles: the direct beam does not move on the detector; scan the arm over more of it.")
    # As complex numbers (row + i column), a rotation and a scale are one factor.
    factor = np.vdot(start @ [1, 1j], end @ [1, 1j]) / np.vdot(start @ [1, 1j], start @ [1, 1j])
    moved = np.stack([(factor * (there @ [1, 1j])).real, (factor * (there @ [1, 1j])).imag], axis=1)
    beam = np.mean(here - moved, axis=0) / pitch
    row, column = direction(geometry.row_axis), direction(geometry.column_axis)
    handed = float(np.cross(row[::-1], column[::-1]) @ direction("z+")[::-1])  # whether rows turn onto columns about z
    return np.array([abs(factor), *beam, handed * np.angle(factor), 0.0, 0.0])


def _solve(geometry: Geometry, beam: FloatArray, places: FloatArray, start: FloatArray, spread: float) -> OptimizeResult:
    """Fit the values to places with a standard deviation of `spread` [pixel], and the tilt also to zero within `TILT`.

    `beam` holds the direction of the beam in the frame of the detector for each place.
    """

    def residuals(values: FloatArray) -> NDArray[np.float64]:
        apart = np.nan_to_num(_meet(_place(geometry, values), beam) - places, nan=1e6)
        return np.concatenate([apart.ravel() / spread, values[4:] / TILT])

    scale = np.array([start[0], 100.0, 100.0, 0.1, 0.1, 0.1])
    return least_squares(residuals, start, x_scale=scale, jac="3-point", xtol=1e-10, ftol=1e-12, gtol=1e-12)


def _merge(solutions: Sequence[OptimizeResult]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean and the covariance of the values, if each solution is as probable as its misfit says.

    Small angles tell how much a detector is tilted, by the ratio of its scales, but hardly to which side: there are two solutions.
    Where both are probable the tilt may point anywhere.
    """
    costs = np.array([solution.cost for solution in solutions])  # half the sum of squares
    weights = np.exp(costs.min() - costs) / np.exp(costs.min() - costs).sum()
    values = np.stack([solution.x for solution in solutions])
    mean = weights @ values
    inner = [np.linalg.inv(solution.jac.T @ solution.jac) for solution in solutions]
    apart = values - mean
    covariance = np.einsum("s,sij->ij", weights, inner) + np.einsum("s,si,sj->ij", weights, apart, apart)
    if weights.min() > UNLIKELY and np.linalg.norm(values[0, 4:] - values[-1, 4:]) > 1e-6:
        covariance[4:, 4:] += np.eye(2) * np.square(values[:, 4:]).sum(axis=1).max() / 2
    return mean, covariance


def _require_plausible(fit: ArmFit, places: FloatArray, moving: list[str]) -> None:
    """Refuse a fit that does not tell the distance, or whose beam moves otherwise than the geometry says."""
    turned = abs(np.degrees(np.angle(np.exp(1j * fit.geometry.detector_rotation))))
    reach = float(np.linalg.norm(np.ptp(places[fit.used], axis=0)))
    if turned > 45.0 or fit.spread > 0.1 * reach:
        raise GeometryError(
            f"the direct beam does not move as {' and '.join(moving)} say: rotated by {turned:.0f} degrees, {fit.spread:.2g} "
            f"pixels off the fit; expected rows along {fit.geometry.row_axis} and columns along {fit.geometry.column_axis}."
        )
    if fit.sigma["distance"] > LOOSEST * fit.geometry.distance:
        raise GeometryError(
            f"too few angles: the distance is {fit.geometry.distance:.3g} m within {fit.sigma['distance']:.2g} m; scan "
            f"{' and '.join(moving)} over more of the detector, in more steps."
        )
