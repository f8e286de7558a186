"""Messages become recordings, one at a time, and a rocking curve; frames that never come stay masked and are never guessed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggshot.io.formats import recorded
from braggshot.io.formats.recorded import Plan, Recorder
from braggshot.io.frames import ArrayFrames
from braggshot.live.messages import Arrived, Begin, End, Lost, Message
from braggshot.live.sources.limits import scan_name
from braggshot.volumes import BoolArray, Scan

LIKE = ("valid", "dark", "flat", "geometry", "detector")
"""What a scan on disk knows of one that is being measured."""


@dataclass
class Growing:
    """A scan that is being measured.

    Parameters
    ----------
    name : unique in its folder
    begin : what was announced
    recorder : None before the first frame
    rocking : counts of each frame, NaN where none has come [counts]
    received : frames that came
    """

    name: str
    begin: Begin
    recorder: Recorder | None = None
    rocking: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    received: int = 0

    @property
    def expected(self) -> int | None:
        """Frames that are planned."""
        return self.begin.frames


@dataclass(frozen=True)
class Opened:
    """A scan began."""

    scan: Growing


@dataclass(frozen=True)
class Grew:
    """A frame was added to it."""

    scan: Growing


@dataclass(frozen=True)
class Closed:
    """No more will come; `aborted` says in words why before its time."""

    scan: Growing
    aborted: str = ""


Change = Opened | Grew | Closed | Lost


class Assembly:
    """Records what a source says into a folder of its own for each scan.

    Parameters
    ----------
    folder : holds the recordings
    like : a scan to take dark, flat, mask and geometry from, where the source knows none
    taken : whether a name is in use already
    """

    def __init__(self, folder: Path, like: Scan | None = None, taken: Callable[[str], bool] = lambda _: False) -> None:
        self.folder, self.taken = folder, taken
        self.like = None if like is None else replace(like, monitor=None, rocking_angle=None, arrived=None)
        self.open: Growing | None = None
        self._last: str = ""  # what the source called the scan that was closed last

    def take(self, message: Message) -> Iterator[Change]:
        """What a message changes."""
        if isinstance(message, Lost):
            yield message
        elif isinstance(message, Begin):
            yield from self._close("the next scan began")
            self.open = Growing(self._free_name(message.scan), message)
            yield Opened(self.open)
        elif self.open is None or message.scan != self.open.begin.scan:
            # The end of a scan that had all its frames is no news.
            if not (isinstance(message, End) and message.scan == self._last):
                yield Lost("no scan", f"{type(message).__name__} of {message.scan!r}, which is not open")
        elif isinstance(message, Arrived):
            yield from self._add(self.open, message)
        else:
            yield from self._close(message.aborted)

    def _add(self, scan: Growing, message: Arrived) -> Iterator[Change]:
        if scan.recorder is None:
            scan.recorder = Recorder(self.folder / scan.name, self._plan(scan, message.frame.image))
            scan.rocking = np.full(scan.expected or 0, np.nan)
        refused = scan.recorder.add(message.frame)
        if refused:
            yield Lost(refused, f"frame {message.frame.index} of {scan.name}")
            return
        index = message.frame.index
        if index >= len(scan.rocking):
            scan.rocking = np.concatenate([scan.rocking, np.full(index + 1 - len(scan.rocking), np.nan)])
        scan.rocking[index] = self._counts(scan.recorder.plan, message.frame.image)
        scan.received += 1
        yield Grew(scan)
        if scan.received == scan.expected:
            yield from self._close("")

    def _counts(self, plan: Plan, image: NDArray[Any]) -> float:
        good = _pixels(plan)
        trusted = image if good is None else image * good
        no_count = None if plan.about is None else plan.about.provenance.get("no_count")
        if no_count is not None:
            trusted = np.where(image == no_count, 0, trusted)
        return float(trusted.sum(dtype=np.float64))

    def _plan(self, scan: Growing, image: NDArray[Any]) -> Plan:
        begin, about = scan.begin, self._known(scan.begin.about, image)
        is_streamed = scan.begin.about is None or "stream" in scan.begin.about.provenance
        if is_streamed and image.dtype.kind == "u":
            # Counting detectors say "not counted" by the largest number of their type, and do not say that they do.
            never = {"no_count": int(np.iinfo(image.dtype).max)}
            about = about or Scan(frames=ArrayFrames(image[None]), name=scan.name)
            about = replace(about, provenance={**about.provenance, **never})
        rows, columns = image.shape
        return Plan(scan.name, (rows, columns), image.dtype, begin.frames, begin.rocking_angle, about)

    def _known(self, about: Scan | None, image: NDArray[Any]) -> Scan | None:
        """What a source knows of a scan, with what it does not from the scan that this one is like."""
        if about is None or self.like is None or about.prepared:
            return about or self.like
        # a detector may send a part of its pixels, of which a mask must be
        frames = about.frames if about.frames.shape[1:] == image.shape else ArrayFrames(image[None])
        return replace(about, frames=frames, **{name: getattr(self.like, name) for name in LIKE if getattr(about, name) is None})

    def _close(self, aborted: str) -> Iterator[Change]:
        scan, self.open = self.open, None
        if scan is None:
            return
        self._last = scan.begin.scan
        if scan.recorder is not None:
            scan.recorder.end(aborted)
        yield Closed(scan, aborted)

    def _free_name(self, wish: str) -> str:
        """A name that is a file name and no other scan's."""
        name = scan_name(wish)
        number, free = 1, name
        while self.taken(free) or (self.folder / free).exists():
            number += 1
            free = f"{name}-{number}"
        return free


def _pixels(plan: Plan) -> BoolArray | None:
    valid = None if plan.about is None else plan.about.valid
    return valid if valid is not None and valid.ndim == 2 else None


def recordings_in(folder: Path) -> list[tuple[Path, dict[str, Any] | None]]:
    """Recordings that are there, oldest first, and how each ended; None for one that was cut off with its program."""
    found = [path for path in folder.glob("*") if recorded.can_read(path)]
    return [(path, recorded.read_ending(path)) for path in sorted(found, key=lambda path: (path / recorded.ABOUT).stat().st_mtime)]
