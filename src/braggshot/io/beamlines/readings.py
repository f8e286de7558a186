"""What the instrument readers share: readings in degrees and in the beamline's units become a `Geometry`, or a note why not.

A diffractometer is a table of circles in the CXI laboratory frame (z downstream, y up, x outboard), outermost first; "x-" turns
left-handed about x. Zero offsets are what the instrument's motor says when the circle is physically at zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np
from scipy.constants import elementary_charge

from braggshot.errors import ConfigError, DataError
from braggshot.volumes import BoolArray, Circle, FloatArray, Frames, Geometry

SI = {
    "m": 1.0, "mm": 1e-3, "um": 1e-6, "µm": 1e-6, "micron": 1e-6, "deg": np.pi / 180, "degree": np.pi / 180, "degrees": np.pi / 180,
    "rad": 1.0, "radian": 1.0, "eV": elementary_charge, "keV": 1e3 * elementary_charge, "J": 1.0,
}  # fmt: skip


class Overrides(TypedDict, total=False):
    """What a user may say in place of the files; `direct_beam` is (row, column) of the pixel it hits, detector circles at zero.

    Rotation and tilt of the detector are its calibration, as xrayutilities defines it.
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
    """One circle: the motor's name, the laboratory axis it turns about, and the motor's reading at its physical zero [deg]."""

    motor: str
    axis: str
    zero: float = 0.0


@dataclass(frozen=True)
class Diffractometer:
    """Circles outermost first, and where the rows and columns of the detector point with all its circles at zero."""

    name: str
    sample: tuple[Axis, ...]
    detector: tuple[Axis, ...]
    row_axis: str
    column_axis: str


@dataclass(frozen=True)
class Readings:
    """What the files say, SI except the motors [deg]; None where they are silent."""

    motors: Mapping[str, float | FloatArray] = field(default_factory=dict)
    energy: float | None = None
    distance: float | None = None
    pixel_size: tuple[float, float] | None = None
    direct_beam: tuple[float, float] | None = None


def geometry(
    instrument: Diffractometer, readings: Readings, shape: Sequence[int], overrides: Overrides, noticed: list[str]
) -> Geometry | None:
    """Readings and overrides as a `Geometry`; None, with a note in `noticed`, where something indispensable is not known.

    Sample circles that the files do not name stand at zero. The direct beam is the centre of the frame if nobody says otherwise.

    Raises
    ------
    ConfigError : if an override is not a positive number.
    """
    energy = _stated(overrides, "energy_ev", readings.energy, elementary_charge)
    distance = _stated(overrides, "distance_m", readings.distance)
    pitch = _stated(overrides, "pixel_size_m", None)
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


def _stated(overrides: Overrides, name: str, found: float | None, unit: float = 1.0) -> float | None:
    """What the user said, in SI units, else what was found."""
    value: Any = overrides.get(name)
    if value is None:
        return found
    if not isinstance(value, (int, float)) or not value > 0:
        raise ConfigError(f"{name} must be a positive number, found {value!r}.")
    return value * unit


def _direct_beam(
    found: tuple[float, float] | None, shape: Sequence[int], overrides: Overrides, noticed: list[str]
) -> tuple[float, float]:
    if "direct_beam" in overrides:
        row, column = overrides["direct_beam"]
        return float(row), float(column)
    if found is not None:
        return found
    noticed.append("the files do not say where the direct beam meets the detector: the frame's centre is assumed.")
    return (shape[1] - 1) / 2, (shape[2] - 1) / 2


def _circles(axes: tuple[Axis, ...], motors: Mapping[str, float | FloatArray]) -> tuple[Circle, ...]:
    """Angles in radians; readings that wander by less than a rocking step are a motor at rest, so they become their mean."""
    angles = [np.deg2rad(np.asarray(motors.get(circle.motor, circle.zero), float) - circle.zero) for circle in axes]
    step = max((float(np.median(np.abs(np.diff(angle)))) for angle in angles if angle.size > 1), default=0.0)
    settled = [float(np.mean(angle)) if angle.ndim == 0 or np.ptp(angle) < step or step == 0 else angle for angle in angles]
    return tuple(Circle(circle.axis, angle, circle.motor) for circle, angle in zip(axes, settled, strict=True))


def rocking_angle(instrument: Diffractometer, motors: Mapping[str, float | FloatArray], noticed: list[str]) -> FloatArray | None:
    """Angle of the sample circle that moved most [rad], one per frame; None, with a note, if none moved."""
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
    """Motor readings cut to the frames that exist; an interrupted scan has fewer frames than points.

    Raises
    ------
    DataError : if there are more frames than points, so that the angle of some is not known.
    """
    points = max((np.size(value) for value in motors.values() if np.ndim(value)), default=n_frames)
    if points < n_frames:
        raise DataError(f"{name}: {n_frames} frames but only {points} motor positions; the angle of the last frames is unknown.")
    if points > n_frames:
        noticed.append(f"{points - n_frames} of {points} points have no frame; the scan was interrupted or frames are missing.")
    return {motor: np.asarray(value, float)[:n_frames] if np.ndim(value) else float(value) for motor, value in motors.items()}


def to_si(value: Any, units: str | bytes | None, default: str) -> float:
    """A reading in SI units, by its `units` attribute or, without one, in the instrument's usual unit."""
    name = units.decode() if isinstance(units, bytes) else units
    return float(np.asarray(value).ravel()[0]) * SI.get(str(name), SI[default])


def no_count(dtype: np.dtype[Any]) -> int | None:
    """The largest value of an unsigned integer type: photon-counting detectors write it where they have no count."""
    return int(np.iinfo(dtype).max) if dtype.kind == "u" and dtype.itemsize >= 2 else None


def never_counts(frames: Frames) -> BoolArray:
    """(rows, columns) True where the first, the middle and the last frame all hold no count (the type's maximum, or below 0)."""
    sampled = np.stack([frames[index] for index in sorted({0, frames.shape[0] // 2, frames.shape[0] - 1})])
    sentinel = no_count(sampled.dtype)
    return np.all((sampled < 0) | (sampled == sentinel if sentinel is not None else False), axis=0)
