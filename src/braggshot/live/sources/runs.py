"""Read what the documents of a Bluesky run say of its scan: name, planned frames, the detector, and what its motor steps.

By the event model (bluesky/event-model), the start document names the motors, and the descriptor of a stream of events describes
each data key: its shape, its unit, and whether its values lie in a file. Catalogues (Tiled) keep both as they were told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from braggshot.live.sources.limits import ELECTRON_VOLT, MAX_FRAMES, UnusableError, real_number
from braggshot.physics.geometry import KEV
from braggshot.volumes import Frame

ANGLES = {"": math.pi / 180, "deg": math.pi / 180, "degree": math.pi / 180, "degrees": math.pi / 180, "°": math.pi / 180,
          "rad": 1.0, "radian": 1.0, "radians": 1.0, "mrad": 1e-3, "urad": 1e-6}  # fmt: skip
"""Unit of an angle, in small letters -> its size [rad]; a motor without a unit turns in degrees."""
ENERGIES = {"ev": ELECTRON_VOLT, "kev": KEV, "mev": 1e3 * KEV, "j": 1.0}
"""Unit of a photon energy, in small letters -> its size [J]."""


@dataclass(frozen=True)
class Start:
    """A start document: identifier and name of the run, planned events or None, data key of the motor or an empty text."""

    uid: str
    name: str
    points: int | None
    motor: str


@dataclass(frozen=True)
class Images:
    """The frames of a stream of events: their data key, and how many of them belong to one event."""

    key: str
    per_event: int


@dataclass(frozen=True)
class Stepped:
    """What the motor of a run steps, and the size of its unit [rad or J]."""

    what: Literal["angle", "energy"] = "angle"
    size: float = math.pi / 180

    def value(self, position: Any) -> float | None:
        """Return a position in SI units, or None if it is no finite number."""
        number = real_number(position)
        return None if number is None else number * self.size

    def place(self, frame: Frame, value: float | None) -> Frame:
        """Return a frame with a value that `value` returned."""
        return replace(frame, rocking_angle=value) if self.what == "angle" else replace(frame, energy=value)


def read_start(document: Mapping[str, Any], motor: str = "") -> Start:
    """Read a start document; `motor` is the data key that the user names in place of that of the first motor.

    Raises
    ------
    UnusableError : if the document has no identifier.
    """
    uid, number, points, motors = (document.get(name) for name in ("uid", "scan_id", "num_points", "motors"))
    if not isinstance(uid, str):
        raise UnusableError("malformed", "a start document without uid")
    first = motors[0] if isinstance(motors, list) and motors and isinstance(motors[0], str) else ""
    is_number = isinstance(number, int) and not isinstance(number, bool)
    is_planned = isinstance(points, int) and not isinstance(points, bool) and 0 < points <= MAX_FRAMES
    name = f"scan_{number:04d}" if is_number else f"run_{uid[:8]}"
    return Start(uid[:200], name[:60], points if is_planned else None, motor or first)


def find_images(data_keys: Any, detector: str = "") -> Images | None:
    """Return the first data key of images that lie in files, or that of the `detector` that is named; None if there is none."""
    for key, told in data_keys.items() if isinstance(data_keys, dict) else ():
        if not isinstance(told, dict) or (detector and key != detector) or not told.get("external"):
            continue
        shape = told.get("shape")
        if isinstance(shape, list) and len(shape) in {2, 3}:
            count = shape[0] if len(shape) == 3 else 1
            is_count = isinstance(count, int) and not isinstance(count, bool) and 0 < count <= MAX_FRAMES
            return Images(key, count if is_count else 1)
    return None


def read_stepped(told: Any, motor: str, units: str = "") -> Stepped | None:
    """Return what a motor steps, by its description in the descriptor; None if events do not tell its positions.

    A motor that has no unit and whose name speaks of energy may count in eV or keV, so its unit has to be given as `units`.

    Raises
    ------
    UnusableError : if its unit is neither that of an angle nor that of an energy.
    """
    if not isinstance(told, dict) or told.get("external"):
        return None
    unit = (units or str(told.get("units") or "")).strip()[:20]
    if unit.lower() in ENERGIES:
        return Stepped("energy", ENERGIES[unit.lower()])
    if unit.lower() in ANGLES and (unit or "energy" not in motor.lower()):
        return Stepped("angle", ANGLES[unit.lower()])
    said = f"in {unit!r}, which is neither an angle nor an energy" if unit else "an energy in an unknown unit"
    raise UnusableError("unit", f"its motor {motor[:60]!r} moves {said}; name another by motor=, or give units=keV, eV or deg")
