"""What a source of frames says, in this order: `Begin`, any number of `Arrived`, `End`; and `Lost` at any time.

A source makes them of whatever a transport carries. It never blocks on its consumer, and it never raises for what came over the
wire: what cannot be read is a `Lost`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from threading import Event
from typing import Protocol

from braggshot.volumes import FloatArray, Frame, Scan


@dataclass(frozen=True)
class Begin:
    """A scan begins. One that is still open ends with it, as aborted.

    Parameters
    ----------
    scan : its name, new for every scan of a source
    frames : how many are planned, None where nobody said
    shape : (rows, columns) of each, None where nobody said
    rocking_angle : of every planned frame, None where nobody said [rad]
    about : what is known of it but its frames (dark, flat, mask, geometry, detector); its `frames` are not read
    """

    scan: str
    frames: int | None = None
    shape: tuple[int, int] | None = None
    rocking_angle: FloatArray | None = None
    about: Scan | None = None


@dataclass(frozen=True)
class Arrived:
    """A frame of the scan that is open."""

    scan: str
    frame: Frame


@dataclass(frozen=True)
class End:
    """The scan is over; `aborted` says in words why before its time, and is empty where it was not."""

    scan: str
    aborted: str = ""


@dataclass(frozen=True)
class Dropped:
    """Something came that was of no use: malformed, too large, a frame twice, of no scan; `reason` is a short word to count by."""

    reason: str
    detail: str = ""


Message = Begin | Arrived | End | Dropped


class Source(Protocol):
    """Where frames come from."""

    def messages(self, stop: Event) -> Iterator[Message | None]:
        """Messages as they come; None at least every 0.2 s while nothing does. Ends soon after `stop`, or with the source."""
        ...
