"""Order in what transports say: scans begin and end once, frames come once, within what was planned.

A transport knows scans by a key of its own (a series number, a folder, an identifier); `Ledger` gives each a name that is new to
the source, and turns "this frame came", "this scan ended" into messages in the order that `braggshot.live.messages` promises.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from braggshot.live.messages import Arrived, Begin, Dropped, End, Message
from braggshot.live.sources.limits import MAX_FRAMES, MAX_NAME, scan_name
from braggshot.volumes import FloatArray, Frame, Scan

COMPLETE_SHARE = 0.95
"""A scan that came this far was not aborted: networks lose single frames, operators stop scans."""
MAX_REMEMBERED = 64
"""Scans that have ended whose late frames are still recognised."""


@dataclass(frozen=True)
class ScanDefaults:
    """What the user says about every scan where the stream does not; each is an option of the source's URL.

    Parameters
    ----------
    frames : how many a scan has; with them all a scan ends
    start, step : rocking angle of the first frame, and from frame to frame [deg]
    timeout : silence that ends a scan [s]
    """

    frames: int | None = None
    start: float = 0.0
    step: float | None = None
    timeout: float = 60.0


@dataclass
class _OpenScan:
    key: Hashable
    begin: Begin
    shape: tuple[int, ...] | None
    last_heard: float
    received: set[int] = field(default_factory=set)
    dtype: np.dtype[Any] | None = None
    highest: int = -1


class Ledger:
    """Which scan is open, and what came of it."""

    def __init__(self, defaults: ScanDefaults, clock: Callable[[], float] = time.monotonic) -> None:
        self.defaults, self.clock = defaults, clock
        self.open: _OpenScan | None = None
        self.ended: deque[Hashable] = deque(maxlen=MAX_REMEMBERED)
        self.used_names: set[str] = set()

    def begin(
        self, key: Hashable, name: str, frames: int | None = None, shape: tuple[int, int] | None = None,
        rocking_angle: FloatArray | None = None, about: Scan | None = None,
    ) -> list[Message]:  # fmt: skip
        """A scan begins, which ends the one before it."""
        messages = self.end(self.open.key, next_began=True) if self.open else []
        frames = frames or self.defaults.frames
        if rocking_angle is None and frames and self.defaults.step is not None:
            rocking_angle = np.array([self._angle(index) for index in range(frames)])
        begin = Begin(self._unique_name(name), frames, shape, rocking_angle, about)
        self.open = _OpenScan(key, begin, shape, self.clock())
        return [*messages, begin]

    def frame(self, key: Hashable, name: str, frame: Frame) -> list[Message]:
        """A frame came; the first of an unknown scan begins it."""
        messages: list[Message] = []
        if self.open is None or self.open.key != key:
            if key in self.ended:
                return [Dropped("late", f"frame {frame.index} of {name}, which has ended")]
            messages = self.begin(key, name, shape=(frame.image.shape[0], frame.image.shape[1]))
        assert self.open is not None
        if reason := self._reason_to_drop(self.open, frame):
            return [*messages, Dropped(reason, f"frame {frame.index} of {self.open.begin.scan}")]
        scan = self.open
        scan.shape, scan.dtype = frame.image.shape, frame.image.dtype
        scan.last_heard, scan.highest = self.clock(), max(scan.highest, frame.index)
        scan.received.add(frame.index)
        if frame.rocking_angle is None and (planned := self._planned_angle(frame.index)) is not None:
            frame = replace(frame, rocking_angle=planned)
        messages.append(Arrived(scan.begin.scan, frame))
        return [*messages, *(self.end(key) if len(scan.received) == scan.begin.frames else [])]

    def end(self, key: Hashable, aborted: str | None = None, next_began: bool = False) -> list[Message]:
        """The scan ended; nothing where it is not the open one. `aborted` in words; None leaves that to what has come."""
        if self.open is None or self.open.key != key:
            return []
        scan, self.open = self.open, None
        self.ended.append(key)
        if aborted is None:
            aborted = self._describe_abort(scan, "the next scan began" if next_began else "it ended")
        return [End(scan.begin.scan, aborted)]

    def end_if_silent(self) -> list[Message]:
        """Nothing comes: after the time that is allowed the scan ends."""
        if self.open is None or self.clock() - self.open.last_heard <= self.defaults.timeout:
            return []
        return self.end(self.open.key, self._describe_abort(self.open, f"nothing came for {self.defaults.timeout:g} s"))

    def is_known(self, key: Hashable) -> bool:
        """Whether the scan is open or has ended."""
        return key in self.ended or (self.open is not None and self.open.key == key)

    def _unique_name(self, name: str) -> str:
        safe_name = scan_name(name)
        candidates = (safe_name if number == 1 else f"{safe_name[: MAX_NAME - 8]}_{number}" for number in itertools.count(1))
        name = next(candidate for candidate in candidates if candidate not in self.used_names)
        self.used_names.add(name)
        return name

    @staticmethod
    def _reason_to_drop(scan: _OpenScan, frame: Frame) -> str:
        if not 0 <= frame.index < (scan.begin.frames or MAX_FRAMES):
            return "unplanned"
        if frame.index in scan.received:
            return "duplicate"
        if scan.shape is not None and frame.image.shape != scan.shape:
            return "shape"
        return "type" if scan.dtype is not None and frame.image.dtype != scan.dtype else ""

    @staticmethod
    def _describe_abort(scan: _OpenScan, why: str) -> str:
        if not scan.received:
            return f"{why} before any frame"
        planned = scan.begin.frames
        return (
            f"{why} after frame {scan.highest + 1} of {planned}" if planned and scan.highest + 1 < COMPLETE_SHARE * planned else ""
        )

    def _angle(self, index: int) -> float:
        return float(np.deg2rad(self.defaults.start + index * (self.defaults.step or 0.0)))

    def _planned_angle(self, index: int) -> float | None:
        assert self.open is not None
        planned = self.open.begin.rocking_angle
        if planned is not None:
            return float(planned[index]) if index < len(planned) else None
        return None if self.defaults.step is None else self._angle(index)
