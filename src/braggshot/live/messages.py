"""Define the messages of a source: `Begin`, any number of `Arrived`, then `End`; `Dropped` and `Trouble` at any time.

A source makes these messages from the data that it receives from a detector or reads from files. It never waits for the program
that takes the messages. Received data never make a source raise an exception: unreadable data become a `Dropped` message.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from threading import Event
from typing import Protocol, runtime_checkable

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
    origin : where its frames lie, for a source that would find them again in a later session; else empty
    """

    scan: str
    frames: int | None = None
    shape: tuple[int, int] | None = None
    rocking_angle: FloatArray | None = None
    about: Scan | None = None
    origin: str = ""


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


@dataclass(frozen=True)
class Trouble:
    """A fault that the user is told at once; the session goes on.

    Parameters
    ----------
    scan : scan, or part of the program, that it concerns
    reason : what happened, in words
    is_loss : whether frames, or the result of a scan, are lost; False if what comes is only worse than it could be
    """

    scan: str
    reason: str
    is_loss: bool = True


Message = Begin | Arrived | End | Dropped | Trouble


class Source(Protocol):
    """The interface of every source of frames."""

    def messages(self, stop: Event) -> Iterator[Message | None]:
        """Yield messages as they come, and None at least every 0.2 s while none comes.

        The iterator ends soon after `stop` is set, or when the source itself ends.
        """
        ...


@runtime_checkable
class Findable(Protocol):
    """A source that can find scans again that an earlier session has taken."""

    def leave_out(self, taken: Mapping[str, float]) -> None:
        """Leave out scans, by the `Begin.origin` of each, unless their data changed after a time [s since the epoch]."""
        ...
