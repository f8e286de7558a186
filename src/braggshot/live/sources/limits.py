"""Check sizes, names and numbers in received data, before any memory is allocated for the data.

Every source of frames reads its data with these checks. A check raises `UnusableError`, and the source turns the error into a
`Dropped` message. No received data can raise another error, take more than `MAX_BYTES` for one image, or choose the path of a
file. No received data are unpickled.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggshot.errors import BraggshotError
from braggshot.physics.geometry import KEV
from braggshot.volumes import FloatArray

MAX_SIDE = 16384
"""Largest number of rows or columns of an image [pixels]."""
MAX_BYTES = 2**28
"""Largest size of an image after decompression [bytes]; the largest detectors of today need a quarter of it."""
MAX_TEXT = 2**20
"""Longest JSON text that is read [bytes]."""
MAX_PARTS = 16
"""Largest number of parts of one ZeroMQ message."""
MAX_FRAMES = 10**6
"""Largest number of frames of one scan."""
MAX_NAME = 100
"""Longest name of a scan [characters]."""

ELECTRON_VOLT = KEV / 1e3
"""An electronvolt [J]."""

COUNT_TYPES = frozenset(f"{kind}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32, 64)) | {"float32", "float64"}
"""Names of the number types that a pixel may have."""


class UnusableError(BraggshotError):
    """Signal data that cannot be used.

    Parameters
    ----------
    reason : short word by which dropped data are counted, such as "malformed", "oversized", "truncated", "shape" or "damaged"
    detail : one line of text for the log, cut after 300 characters
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}"[:300])
        self.reason, self.detail = reason, detail[:300]


def image_shape(rows: Any, columns: Any) -> tuple[int, int]:
    """Return (rows, columns) as integers; raise if a side is no integer or out of bounds."""
    sides = (whole_number(rows, "rows"), whole_number(columns, "columns"))
    if min(sides) < 1:
        raise UnusableError("shape", f"{sides[0]} x {sides[1]} pixels")
    if max(sides) > MAX_SIDE:
        raise UnusableError("oversized", f"{sides[0]} x {sides[1]} pixels, at most {MAX_SIDE} a side")
    return sides


def counts_type(name: Any) -> np.dtype[Any]:
    """Return the numpy type with this name; raise if pixels cannot have this type."""
    if not isinstance(name, str) or name not in COUNT_TYPES:
        raise UnusableError("type", f"pixels of type {str(name)[:40]!r}")
    return np.dtype(name)


def image_bytes(shape: tuple[int, int], dtype: np.dtype[Any]) -> int:
    """Return the size of an image [bytes]; raise if it is larger than allowed."""
    size = shape[0] * shape[1] * dtype.itemsize
    if size > MAX_BYTES:
        raise UnusableError("oversized", f"{shape[0]} x {shape[1]} pixels of {dtype} are {size} bytes, at most {MAX_BYTES}")
    return size


def whole_number(value: Any, what: str, low: int = 0, high: int = 2**63 - 1) -> int:
    """Return a received value as an integer; raise if it is out of bounds or no integer (True and 3.0 are refused)."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise UnusableError("malformed", f"{what} is {type(value).__name__}, expected an integer")
    if not low <= int(value) <= high:
        raise UnusableError("malformed", f"{what} is out of bounds")
    return int(value)


def real_number(value: Any) -> float | None:
    """Return a received value as a float if it is a finite number, or None for anything else."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def scan_name(text: Any) -> str:
    """Turn any text into a name for files: letters, digits and ``. _ -``, not beginning with a dot."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", str(text)[: 4 * MAX_NAME]).strip("._-")
    return safe[:MAX_NAME] or "scan"


def json_object(part: Any, most: int = MAX_TEXT) -> dict[str, Any]:
    """Parse a JSON object; raise if the text is longer than `most` bytes, or holds anything but a JSON object."""
    if len(part) > most:
        raise UnusableError("oversized", f"a JSON text of {len(part)} bytes, at most {most}")
    try:
        parsed = json.loads(bytes(part))
    except (ValueError, RecursionError) as error:
        raise UnusableError("malformed", f"not JSON ({type(error).__name__})") from error
    if not isinstance(parsed, dict):
        raise UnusableError("malformed", f"JSON {type(parsed).__name__}, expected an object")
    return parsed


def appended_object(parts: Sequence[bytes | memoryview], place: int) -> dict[str, Any]:
    """Return the JSON object that a user or a beamline appended to a message as part `place`; empty if there is none."""
    try:
        return json_object(parts[place]) if len(parts) > place else {}
    except UnusableError:
        return {}


def angles(value: Any, frames: int | None) -> FloatArray | None:
    """Convert a list of rocking angles from degrees to radians; return None if it does not hold one number for each frame."""
    numbers = _numbers(value, frames)
    return None if numbers is None else np.deg2rad(numbers)


def energies(value: Any, frames: int | None) -> FloatArray | None:
    """Convert a list of photon energies from eV to J; return None if it does not hold one number for each frame."""
    numbers = _numbers(value, frames)
    return None if numbers is None else numbers * ELECTRON_VOLT


def _numbers(value: Any, frames: int | None) -> NDArray[np.float64] | None:
    if not isinstance(value, list) or len(value) > MAX_FRAMES or (frames is not None and len(value) != frames):
        return None
    numbers = [real_number(item) for item in value]
    return None if not numbers or None in numbers else np.asarray(numbers, dtype=np.float64)
