"""Turn motor readings and values of the file into a `Geometry`, for all instrument readers; or note why that is impossible.

A diffractometer is a table of circles in the CXI laboratory frame (z downstream, y up, x outboard), outermost first. "x-" turns
left-handed about x. The zero offset of a circle is the reading of its motor when the circle is physically at zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np
from scipy.constants import elementary_charge

from braggshot.errors import ConfigError, DataError
from braggshot.volumes import BoolArray, Circle, FloatArray, Frames, Geometry

# Factors from the units that files name to SI units.
SI = {
    "m": 1.0, "mm": 1e-3, "um": 1e-6, "µm": 1e-6, "micron": 1e-6, "deg": np.pi / 180, "degree": np.pi / 180, "degrees": np.pi / 180,
    "rad": 1.0, "radian": 1.0, "eV": elementary_charge, "keV": 1e3 * elementary_charge, "J": 1.0,
}  # fmt: skip


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
    """Values that the files of a scan state; a missing value is None, a missing motor is absent.

    Motors are in degrees, the energy in J, distance and pixel size in m, and the direct beam in pixels.
    """

    motors: Mapping[str, float | FloatArray] = field(default_factory=dict)
    energy: float | None = None
    distance: float | None = None
    pixel_size: tuple[float, float] | None = None
    direct_beam: tuple[float, float] | None = None


def geometry(
    instrument: Diffractometer, readings: Readings, shape: Sequence[int], overrides: Overrides, noticed: list[str]
) -> Geometry | None:
    """Build a `Geometry` from readings of motors and values that the user states.

    None is returned, with a note in `noticed`, if a value is missing for which there is no default, or if no sample circle moved.
    The default angle of a sample circle is zero; the default direct beam hits the centre of the frame.

    Raises
    ------
    ConfigError : if an override is not a positive number.
    """
    energy = _choose_value(overrides, "energy_ev", readings.energy, elementary_charge)
    distance = _choose_value(overrides, "distance_m", readings.distance)
    pitch = _choose_value(overrides, "pixel_size_m", None)
    pixel_size = readings.pixel_size if pitch is None else (pitch, pitch)
    lost = [circle.motor for circle in instrument.detector if circle.motor not in readings.motors]
    if energy is None or distance is None or pixel_size is None or lost:
        options = {"energy_ev": energy, "distance_m": distance, "pixel_size_m": pixel_size}
        missing = [option for option, value in options.items() if value is None]
        hint = f"say {', '.join(f'{option}=...' for option in missing)}" if missing else "the detector cannot be placed"
        noticed.append(f"no geometry: the files do not give {', '.join(missing + lost)}; {hint}.")
        return None
    if not any(np.ndim(readings.motors.get(circle.motor, 0.0)) for circle in instrument.sample):
        noticed.append("no geometry: no sample circle moved.")
        return None
    assumed = [circle.motor for circle in instrument.sample if circle.motor not in readings.motors]
    if assumed:
        noticed.append(f"sample circles not in the files, taken as 0: {', '.join(assumed)}.")
    return Geometry(
        energy=energy,
        distance=distance,
        pixel_size=pixel_size,
        sample=_circles(instrument.sample, readings.motors),
        detector=_circles(instrument.detector, readings.motors),
        direct_beam=_direct_beam(readings.direct_beam, shape, overrides, noticed),
        row_axis=instrument.row_axis,
        column_axis=instrument.column_axis,
        instrument=instrument.name,
        detector_rotation=float(np.radians(overrides.get("detector_rotation_deg", 0.0))),
        tilt_azimuth=float(np.radians(overrides.get("tilt_azimuth_deg", 0.0))),
        tilt=float(np.radians(overrides.get("tilt_deg", 0.0))),
    )


def _choose_value(overrides: Overrides, name: str, from_file: float | None, unit: float = 1.0) -> float | None:
    """Return the value that the user states, converted to SI units; if the user states none, return the value of the file."""
    value: Any = overrides.get(name)
    if value is None:
        return from_file
    if not isinstance(value, (int, float)) or not value > 0:
        raise ConfigError(f"{name} must be a positive number, found {value!r}.")
    return value * unit


def _direct_beam(
    from_files: tuple[float, float] | None, shape: Sequence[int], overrides: Overrides, noticed: list[str]
) -> tuple[float, float]:
    if "direct_beam" in overrides:
        row, column = overrides["direct_beam"]
        return float(row), float(column)
    if from_files is not None:
        return from_files
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
    """Return the angle of the sample circle that moved most [rad], one per frame; None, with a note, if no circle moved."""
    moved = {
        circle.motor: np.deg2rad(np.asarray(motors[circle.motor], float) - circle.zero)
        for circle in instrument.sample
        if np.ptp(motors.get(circle.motor, 0.0)) > 0
    }
    if not moved:
        noticed.append(f"no sample circle ({', '.join(circle.motor for circle in instrument.sample)}) moved in this scan.")
        return None
    return max(moved.values(), key=np.ptp)


def match_points(
    name: str, n_frames: int, motors: Mapping[str, float | FloatArray], noticed: list[str]
) -> dict[str, float | FloatArray]:
    """Cut motor readings to the number of frames, because an interrupted scan has fewer frames than points.

    Raises
    ------
    DataError : if there are more frames than points, because the angles of the last frames are then unknown.
    """
    points = max((np.size(value) for value in motors.values() if np.ndim(value)), default=n_frames)
    if points < n_frames:
        raise DataError(f"{name}: {n_frames} frames but only {points} motor positions; the angle of the last frames is unknown.")
    if points > n_frames:
        noticed.append(f"{points - n_frames} of {points} points have no frame; the scan was interrupted or frames are missing.")
    return {motor: np.asarray(value, float)[:n_frames] if np.ndim(value) else float(value) for motor, value in motors.items()}


def to_si(value: Any, units: str | bytes | None, default: str) -> float:
    """Convert a value of a file to SI units; `default` is its unit where the file states no known unit."""
    name = units.decode() if isinstance(units, bytes) else units
    return float(np.asarray(value).ravel()[0]) * SI.get(str(name), SI[default])


def no_count(dtype: np.dtype[Any]) -> int | None:
    """Return the value that a detector writes into a pixel without a count, for pixels of the type `dtype`.

    It is the largest value of an unsigned integer type of 16 bits or more. Other types have no such value: None is returned.
    """
    return int(np.iinfo(dtype).max) if dtype.kind == "u" and dtype.itemsize >= 2 else None


def find_blind_pixels(frames: Frames) -> BoolArray:
    """Find pixels (rows, columns) without a reading: negative, or at the maximum of the data type.

    A pixel is found if it has no reading in the first frame, in the middle frame, and in the last frame.
    """
    sampled = np.stack([frames[index] for index in sorted({0, frames.shape[0] // 2, frames.shape[0] - 1})])
    sentinel = no_count(sampled.dtype)
    return np.all((sampled < 0) | (sampled == sentinel if sentinel is not None else False), axis=0)
