"""Turn motor readings and values of the file into a `Geometry`, for all instrument readers; or note why that is impossible.

A diffractometer is a table of circles in the CXI laboratory frame (z downstream, y up, x outboard), outermost first. "x-" turns
left-handed about x. The zero offset of a circle is the reading of its motor when the circle is physically at zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from braggshot.errors import ConfigError, DataError, list_numbers
from braggshot.io.beamlines.values import Value, explain_contradiction
from braggshot.physics.plausibility import DISTANCE, ENERGY, PIXEL, Range
from braggshot.volumes import Circle, FloatArray, Geometry

PHOTONS = "photon energy"  # name under which energies that move are matched with frames, beside the motors
UNSTATED = Value()  # what the files say of a value that they do not hold
STILL = 0.002  # how far the readings of a circle may vary in an energy scan, in which it stands still [deg]
MOSTLY = 0.5  # least share of the points at which a motor must have a reading, for the others to be left out [1]


class Overrides(TypedDict, total=False):
    """Values that a user states in place of those in the files.

    Parameters
    ----------
    energy_ev : photon energy [eV]
    distance_m : distance from the sample to the detector [m]
    pixel_size_m : edge of a pixel [m]
    direct_beam : (row, column) of the pixel that the direct beam hits with all detector circles at zero
    detector_rotation_deg, tilt_azimuth_deg, tilt_deg : calibration of the detector, as xrayutilities defines it [degrees]
    """

    energy_ev: float
    distance_m: float
    pixel_size_m: float
    direct_beam: Sequence[float]
    detector_rotation_deg: float
    tilt_azimuth_deg: float
    tilt_deg: float


@dataclass(frozen=True)
class Axis:
    """Circle of a diffractometer: name of its motor, laboratory axis of its rotation, motor reading at the physical zero [deg]."""

    motor: str
    axis: str
    zero: float = 0.0


@dataclass(frozen=True)
class Diffractometer:
    """Diffractometer: its circles, outermost first, and the orientation of its detector.

    `row_axis` and `column_axis` are the laboratory axes along which the row number and the column number of a pixel grow when all
    detector circles are at zero.
    """

    name: str
    sample: tuple[Axis, ...]
    detector: tuple[Axis, ...]
    row_axis: str
    column_axis: str


@dataclass(frozen=True)
class Readings:
    """Values that the files of a scan state.

    Parameters
    ----------
    motors : positions [deg], one or one for each frame; a missing motor is absent. Energies that move are `PHOTONS` [J]
    energy, distance, pixel_size : values in SI units, the pixel size of rows and of columns
    direct_beam : (row, column) [pixel]; None where the files do not tell it
    direct_beam_notes : where it comes from, or why it is not known, in words
    """

    motors: Mapping[str, float | FloatArray] = field(default_factory=dict)
    energy: Value = UNSTATED
    distance: Value = UNSTATED
    pixel_size: tuple[Value, Value] = (UNSTATED, UNSTATED)
    direct_beam: tuple[float, float] | None = None
    direct_beam_notes: tuple[str, ...] = ()


def geometry(
    instrument: Diffractometer, readings: Readings, shape: Sequence[int], overrides: Overrides, noticed: list[str]
) -> Geometry | None:
    """Build a `Geometry` from readings of motors and values that the user states.

    None is returned, with a note in `noticed`, if a value is missing for which there is no default, or if no circle moved.
    The default angle of a sample circle is zero; the default direct beam hits the centre of the frame.

    Raises
    ------
    ConfigError : if an override is not a positive number.
    """
    energy = _choose_value(ENERGY, overrides.get("energy_ev"), "energy_ev", readings.energy, noticed)
    distance = _choose_value(DISTANCE, overrides.get("distance_m"), "distance_m", readings.distance, noticed)
    pitches = [_choose_value(PIXEL, overrides.get("pixel_size_m"), "pixel_size_m", pitch, noticed) for pitch in readings.pixel_size]
    noticed[:] = dict.fromkeys(noticed)  # both edges of a pixel have the same to say
    lost = [circle.motor for circle in instrument.detector if circle.motor not in readings.motors]
    if energy is None or distance is None or None in pitches or lost:
        options = {"energy_ev": energy, "distance_m": distance, "pixel_size_m": None if None in pitches else pitches}
        missing = [option for option, value in options.items() if value is None]
        hints = [f"say {', '.join(f'{option}=...' for option in missing)}"] if missing else []
        hints += ["the detector cannot be placed: say geometry=..."] if lost else []
        given = _list_given(instrument, readings.motors, ((ENERGY, energy), (DISTANCE, distance), (PIXEL, pitches[0])))
        noticed.append(f"no geometry: the files do not give {', '.join(missing + lost)}; {'; '.join(hints)}. There is {given}.")
        return None
    energies = readings.motors.get(PHOTONS)
    motors = readings.motors if energies is None else _settle(readings.motors)
    sample, detector = (_circles(axes, motors) for axes in (instrument.sample, instrument.detector))
    moved = [circle.name for circle in (*sample, *detector) if np.ndim(circle.angle)]
    if energies is not None and "energy_ev" in overrides:
        noticed.append(f"the files say that the photon energy moves {_range(energies)}, and you state one energy: yours is taken.")
        energies = None
    if moved and energies is not None:
        noticed.append(
            f"no geometry: the photon energy moves {_range(energies)}, and so does {', '.join(moved)}; a scan moves one of them. "
            "If the energy stands still, state it with energy_ev=..."
        )
        return None
    if not moved and energies is None:
        noticed.append("no geometry: no circle moved, and the photon energy stands still or is not there at each point.")
        return None
    assumed = [circle.motor for circle in instrument.sample if circle.motor not in readings.motors]
    if assumed:
        noticed.append(f"sample circles not in the files, taken as 0: {', '.join(assumed)}.")
    return Geometry(
        energy=energy if energies is None else np.asarray(energies, dtype=float),
        distance=distance,
        pixel_size=(pitches[0] or 0.0, pitches[1] or 0.0),
        sample=sample,
        detector=detector,
        direct_beam=_direct_beam(readings, shape, overrides, noticed),
        row_axis=instrument.row_axis,
        column_axis=instrument.column_axis,
        instrument=instrument.name,
        detector_rotation=float(np.radians(overrides.get("detector_rotation_deg", 0.0))),
        tilt_azimuth=float(np.radians(overrides.get("tilt_azimuth_deg", 0.0))),
        tilt=float(np.radians(overrides.get("tilt_deg", 0.0))),
    )


def _list_given(
    instrument: Diffractometer, motors: Mapping[str, float | FloatArray], values: Sequence[tuple[Range, float | None]]
) -> str:  # fmt: skip
    """List the values that are there [SI], and the positions of circles as their motors read, for a user to check."""
    words = [f"{known.name} {value / known.si:.6g} {known.unit}" for known, value in values if value is not None]
    for circle in (*instrument.sample, *instrument.detector):
        if circle.motor in motors:
            ends = dict.fromkeys(f"{float(np.ravel(motors[circle.motor])[index]):.6g}" for index in (0, -1))
            words.append(f"{circle.motor} {' to '.join(ends)}")
    return ", ".join(words) or "nothing else"


def _choose_value(known: Range, stated: Any, option: str, found: Value, noticed: list[str]) -> float | None:
    """Return the value that the user states, in SI units; if the user states none, return that of the files."""
    if stated is None:
        noticed += found.notes
        return found.amount
    if not isinstance(stated, (int, float)) or not stated > 0:
        raise ConfigError(f"{option} must be a positive number, found {stated!r}.")
    contradiction = explain_contradiction(known, stated * known.si, found)
    noticed += [contradiction] if contradiction else []
    return stated * known.si


def _direct_beam(readings: Readings, shape: Sequence[int], overrides: Overrides, noticed: list[str]) -> tuple[float, float]:
    if "direct_beam" in overrides:
        row, column = overrides["direct_beam"]
        return float(row), float(column)
    noticed += readings.direct_beam_notes
    if readings.direct_beam is not None:
        return readings.direct_beam
    noticed.append("the files do not say where the direct beam meets the detector: the frame's centre is assumed.")
    return (shape[1] - 1) / 2, (shape[2] - 1) / 2


def _circles(axes: tuple[Axis, ...], motors: Mapping[str, float | FloatArray]) -> tuple[Circle, ...]:
    """Return the circles of a diffractometer with their angles [rad], one angle for a circle at rest, else one per frame.

    A circle counts as at rest if its readings vary by less than one step of the scan; their mean is then its angle.
    """
    angles = [np.deg2rad(np.asarray(motors.get(circle.motor, circle.zero), float) - circle.zero) for circle in axes]
    step = max((float(np.median(np.abs(np.diff(angle)))) for angle in angles if angle.size > 1), default=0.0)
    settled = [float(np.mean(angle)) if angle.ndim == 0 or np.ptp(angle) < step or step == 0 else angle for angle in angles]
    return tuple(Circle(circle.axis, angle, circle.motor) for circle, angle in zip(axes, settled, strict=True))


def rocking_angle(instrument: Diffractometer, motors: Mapping[str, float | FloatArray], noticed: list[str]) -> FloatArray | None:
    """Return the angle of the sample circle that moved most [rad], one per frame; None, with a note, if no circle moved.

    An energy scan has no rocking angle, and no note says so.
    """
    if PHOTONS in motors and not any(np.ndim(_settle(motors).get(circle.motor, 0.0)) for circle in instrument.sample):
        return None
    moved = {
        circle.motor: np.deg2rad(np.asarray(motors[circle.motor], float) - circle.zero)
        for circle in instrument.sample
        if np.ptp(motors.get(circle.motor, 0.0)) > 0
    }
    if not moved:
        noticed.append(f"no sample circle ({', '.join(circle.motor for circle in instrument.sample)}) moved in this scan.")
        return None
    return max(moved.values(), key=np.ptp)


def add_energies(motors: Mapping[str, float | FloatArray], energy: Value) -> dict[str, float | FloatArray]:
    """Return positions of motors with the photon energy at each point [J] as `PHOTONS`, if it moves during the scan."""
    return {**motors} if energy.points is None else {**motors, PHOTONS: energy.points}


def _settle(motors: Mapping[str, float | FloatArray]) -> dict[str, float | FloatArray]:
    """Return positions [deg] with one for each motor that only jittered while the energy was stepped."""
    return {name: float(np.mean(value)) if np.ptp(value) < STILL else value for name, value in motors.items() if name != PHOTONS}


def _range(energies: float | FloatArray) -> str:
    """Say from where to where energies [J] go."""
    first, last = (float(np.ravel(energies)[index]) / ENERGY.si for index in (0, -1))
    return f"from {first:.6g} to {last:.6g} {ENERGY.unit}"


def match_points(
    n_frames: int, motors: Mapping[str, float | FloatArray], noticed: list[str]
) -> tuple[NDArray[np.intp], dict[str, float | FloatArray]]:
    """Match frames with motor readings, one after the other; return the frames that have an angle, and the readings of these.

    An interrupted scan has fewer frames than readings, or fewer readings than frames. A frame whose reading is no number is left
    out, because its angle is not known. So is a frame of an energy scan whose energy is no number.

    Raises
    ------
    DataError : if fewer than two frames have an angle.
    """
    scalars = {name: float(np.ravel(value)[0]) for name, value in motors.items() if np.size(value) == 1}
    arrays = {name: np.asarray(value, float) for name, value in motors.items() if np.size(value) > 1}
    for name in [name for name, values in arrays.items() if np.isfinite(values).mean() < MOSTLY]:
        noticed.append(f"{name} is no number at most of its {arrays.pop(name).size} points, and is left out.")
    points = min((values.size for values in arrays.values()), default=n_frames)
    if points < n_frames:
        noticed.append(f"{n_frames} frames but {points} motor positions: {_leave_out(range(points, n_frames))}")
    if points > n_frames:
        noticed.append(f"{points - n_frames} of {points} points have no frame; the scan was interrupted or frames are missing.")
    known = np.ones(min(points, n_frames), dtype=bool)
    for values in arrays.values():
        known &= np.isfinite(values[: known.size])
    if not known.all():
        noticed.append(_leave_out(np.flatnonzero(~known).tolist()))
    kept = np.flatnonzero(known)
    if len(kept) < 2:
        raise DataError(f"{len(kept)} of {n_frames} frames have an angle; a rocking curve has many.")
    return kept, scalars | {name: values[kept] for name, values in arrays.items()}


def per_frame(flux: FloatArray | None, kept: NDArray[np.intp], name: str, noticed: list[str]) -> FloatArray | None:
    """Return the flux at the frames `kept`; None if there is none, or, with a note, if it has fewer values than frames."""
    if flux is None or flux.size > kept[-1]:
        return None if flux is None else flux[kept]
    noticed.append(f"the monitor {name} has {flux.size} values for {kept[-1] + 1} frames, and is not used.")
    return None


def _leave_out(frames: Sequence[int]) -> str:
    """Say that the frames of these numbers are left out, because their angle is not known."""
    if len(frames) == 1:
        return f"frame {frames[0]} (counted from 0) has no angle and is left out."
    return f"frames {list_numbers(frames)} (counted from 0) have no angle and are left out."


def no_count(dtype: np.dtype[Any]) -> int | None:
    """Return the value that a detector writes into a pixel without a count, for pixels of the type `dtype`.

    It is the largest value of an unsigned integer type of 16 bits or more. Other types have no such value: None is returned.
    """
    return int(np.iinfo(dtype).max) if dtype.kind == "u" and dtype.itemsize >= 2 else None
