"""Make the records of a DECTRIS series (header, images, end) from the messages of either version of the stream."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggshot.io.frames import ArrayFrames
from braggshot.live.sources.limits import (
    ELECTRON_VOLT,
    MAX_FRAMES,
    UnusableError,
    angles,
    energies,
    image_shape,
    real_number,
    whole_number,
)
from braggshot.volumes import BoolArray, FloatArray, Frame, Scan

AXES = ("omega", "phi", "chi", "kappa")
"""Names of the goniometer axes, in the order of search; the first axis that turns during the scan gives the rocking angles."""
MAX_TURN = 36_000.0
"""Angles beyond are no angles of a goniometer [deg]."""
KEPT_NUMBERS = (
    "photon_energy", "wavelength", "detector_distance", "beam_center_x", "beam_center_y", "x_pixel_size", "y_pixel_size",
    "saturation_value",
)  # fmt: skip
"""Names of the numbers in the detector's configuration that are kept with the scan, in the detector's units."""


@dataclass(frozen=True)
class Header:
    """The start of a series of images."""

    series: int
    name: str
    frames: int | None
    rocking_angle: FloatArray | None
    about: Scan | None
    energy: FloatArray | None = None


@dataclass(frozen=True)
class Image:
    """An image of a series, with its index and angle."""

    series: int
    frame: Frame


@dataclass(frozen=True)
class SeriesEnd:
    """The end of a series, whether complete or aborted."""

    series: int


def make_header(series: int, user_data: Mapping[str, Any], config: Mapping[str, Any], valid: BoolArray | None) -> Header:
    """Make the header of a series.

    Parameters
    ----------
    series : number of the series
    user_data : values that the user of the detector appended: ``scan``, ``frames``, ``rocking_angle_deg``, ``energy_ev``
    config : the detector's configuration, with the field names of version 1 of the stream
    valid : (rows, columns) True where the detector's own pixel mask is 0; None if no mask was sent
    """
    frames = planned_frames(user_data.get("frames")) or planned_frames(config.get("nimages"), config.get("ntrigger", 1))
    rocking = angles(user_data.get("rocking_angle_deg"), frames)
    if rocking is None and frames is not None:
        rocking = goniometer_angles(config, frames)
    name = user_data["scan"] if isinstance(user_data.get("scan"), str) else f"series_{series}"
    about = describe_detector(name, frames or 1, valid, config)
    return Header(series, name, frames, rocking, about, energies(user_data.get("energy_ev"), frames))


def make_image(series: int, index: int, counts: NDArray[Any], user_data: Mapping[str, Any]) -> Image:
    """Return the `Image` for an image that has just come; `user_data` may hold ``rocking_angle_deg`` or ``energy_ev``."""
    angle, energy = (real_number(user_data.get(name)) for name in ("rocking_angle_deg", "energy_ev"))
    in_radians, in_joules = None if angle is None else float(np.deg2rad(angle)), None if energy is None else energy * ELECTRON_VOLT
    return Image(series, Frame(index, counts, in_radians, time.time(), in_joules))


def planned_frames(images: Any, triggers: Any = 1) -> int | None:
    """Return the number of planned frames, images times triggers; None if one of the numbers is not usable."""
    try:
        frames = whole_number(images, "nimages", 1, MAX_FRAMES) * whole_number(triggers, "ntrigger", 1, MAX_FRAMES)
    except UnusableError:
        return None
    return frames if frames <= MAX_FRAMES else None


def goniometer_angles(config: Mapping[str, Any], frames: int) -> FloatArray | None:
    """Return the angles of the first goniometer axis whose step in the detector's configuration is not zero [rad].

    The result is None if no axis turns.
    """
    for axis in AXES:
        start, step = real_number(config.get(f"{axis}_start")), real_number(config.get(f"{axis}_increment"))
        if start is not None and step and abs(start) + abs(step) * frames < MAX_TURN:
            return np.deg2rad(start + step * np.arange(frames))
    return None


def describe_detector(name: str, frames: int, valid: BoolArray | None, config: Mapping[str, Any]) -> Scan | None:
    """Return a `Scan` without counts that holds the detector's mask and configuration; None if the image size is not known."""
    try:
        sides = (
            image_shape(config.get("y_pixels_in_detector"), config.get("x_pixels_in_detector")) if valid is None else valid.shape
        )
    except UnusableError:
        return None
    numbers = {key: number for key in KEPT_NUMBERS if (number := real_number(config.get(key))) is not None}
    described = {"description": str(config.get("description", ""))[:100], **numbers}
    nothing: NDArray[Any] = np.broadcast_to(np.zeros((), np.uint32), (frames, *sides))
    return Scan(ArrayFrames(nothing), name, valid=valid, provenance={"stream": described})
