"""Define the messages of a source: `Begin`, any number of `Arrived`, then `End`; `Dropped` at any time.

A source makes these messages from the data that it receives from a detector or reads from files. It never waits for the program
that takes the messages. Received data never make a source raise an exception: unreadable data become a `Dropped` message.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from threading import Event
from typing import Protocol

from braggshot.volumes import FloatArray, Frame, Scan


@dataclass(frozen=True)
class Begin:
    """The start of a scan. If an earlier scan is still open, it ends as aborted.

    Parameters
    ----------
    scan : name of the scan; no two scans of a source have the same name
    frames : number of planned frames; None where the source does not know it
    shape : (rows, columns) of each frame; None where the source does not know it
    rocking_angle : rocking angle of every planned frame [rad]; None where the source does not know the angles
    about : a `Scan` with dark image, flat field, mask, geometry and detector, if known; its `frames` are not read
    """

    scan: str
    frames: int | None = None
    shape: tuple[int, int] | None = None
    rocking_angle: FloatArray | None = None
    about: Scan | None = None


@dataclass(frozen=True)
class Arrived:
    """A frame that has come; it belongs to the scan that is open at present."""

    scan: str
    frame: Frame


@dataclass(frozen=True)
class End:
    """The end of a scan; `aborted` holds the reason in words if the scan ended early, and is empty otherwise."""

    scan: str
    aborted: str = ""


@dataclass(frozen=True)
class Dropped:
    """Data that cannot be used: malformed, too large, a repeated frame, or a frame of a scan that is not open.

    `reason` is a short word; dropped data are counted for each reason.
    """

    reason: str
    detail: str = ""


Message = Begin | Arrived | End | Dropped


class Source(Protocol):
    """The interface of every source of frames."""

    def messages(self, stop: Event) -> Iterator[Message | None]:
        """Yield messages as they come, and None at least every 0.2 s while none comes.

        The iterator ends soon after `stop` is set, or when the source itself ends.
        """
        ...
