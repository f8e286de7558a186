"""Put the events of a transport in order: each scan begins and ends once, and no frame is passed on twice.

A transport knows scans by a key of its own (a series number, a folder, an identifier). `Ledger` gives each scan a name that no
other scan of the source has. It turns each reported frame or end of a scan into messages, in the order of
`braggshot.live.messages`: begin, frames, end.
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
"""Share of the planned frames that an ended scan must have reached to count as complete [1]; otherwise it counts as aborted."""
MAX_REMEMBERED = 64
"""Number of ended scans that are remembered, so that late frames of these scans are recognised."""


@dataclass(frozen=True)
class ScanDefaults:
    """Properties of a scan that are assumed where the source does not send them; each is an option of the source's URL.

    Parameters
    ----------
    frames : number of frames of a scan; the scan ends when so many have come; None if the number is not known
    start, step : rocking angle of the first frame, and step from frame to frame [deg]; no angles are assumed if `step` is None
    timeout : time without a new frame after which a scan is ended [s]
    """

    frames: int | None = None
    start: float = 0.0
    step: float | None = None
    timeout: float = 60.0


@dataclass
class _OpenScan:
    """The open scan: its key, its `Begin` message, shape and type of its frames, time of the last, indices received, energies."""

    key: Hashable
    begin: Begin
    shape: tuple[int, ...] | None
    last_heard: float
    received: set[int] = field(default_factory=set)
    dtype: np.dtype[Any] | None = None
    highest: int = -1
    energies: FloatArray | None = None


class Ledger:
    """A record of the scans of a source: the open scan, the indices of its frames so far, and the keys of ended scans."""

    def __init__(self, defaults: ScanDefaults, clock: Callable[[], float] = time.monotonic) -> None:
        self.defaults, self.clock = defaults, clock
        self.open: _OpenScan | None = None
        self.ended: deque[Hashable] = deque(maxlen=MAX_REMEMBERED)
        self.used_names: set[str] = set()

    def begin(
        self, key: Hashable, name: str, frames: int | None = None, shape: tuple[int, int] | None = None,
        rocking_angle: FloatArray | None = None, about: Scan | None = None, origin: str = "",
    ) -> list[Message]:  # fmt: skip
        """Return messages that end the open scan, if there is one, and then begin a new scan."""
        messages = self.end(self.open.key, next_began=True) if self.open else []
        frames = frames or self.defaults.frames
        if rocking_angle is None and frames and self.defaults.step is not None:
            rocking_angle = np.array([self._angle(index) for index in range(frames)])
        begin = Begin(self._unique_name(name), frames, shape, rocking_angle, about, origin)
        self.open = _OpenScan(key, begin, shape, self.clock())
        return [*messages, begin]

    def plan_energies(self, energies: FloatArray | None) -> None:
        """Give the frames of the open scan that come without a photon energy those that are planned [J]; None plans none."""
        if self.open is not None:
            self.open.energies = energies

    def frame(self, key: Hashable, name: str, frame: Frame) -> list[Message]:
        """Return the messages for a frame that came; the first frame of an unknown scan begins that scan."""
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
        if frame.energy is None and scan.energies is not None and frame.index < len(scan.energies):
            frame = replace(frame, energy=float(scan.energies[frame.index]))
        if frame.energy is None and frame.rocking_angle is None and (planned := self._planned_angle(frame.index)) is not None:
            frame = replace(frame, rocking_angle=planned)
        messages.append(Arrived(scan.begin.scan, frame))
        return [*messages, *(self.end(key) if len(scan.received) == scan.begin.frames else [])]

    def end(self, key: Hashable, aborted: str | None = None, next_began: bool = False) -> list[Message]:
        """End a scan, and return the message that says so; return no message if this scan is not open.

        `aborted` is the reason of an early end in words, empty if the scan ended as planned. With None, the scan counts as
        aborted if it stopped well before its last planned frame; `next_began` then says that the next scan has begun.
        """
        if self.open is None or self.open.key != key:
            return []
        scan, self.open = self.open, None
        self.ended.append(key)
        if aborted is None:
            aborted = self._describe_abort(scan, "the next scan began" if next_began else "it ended")
        return [End(scan.begin.scan, aborted)]

    def end_if_silent(self) -> list[Message]:
        """End the open scan if no frame has come for longer than `ScanDefaults.timeout`."""
        if self.open is None or self.clock() - self.open.last_heard <= self.defaults.timeout:
            return []
        return self.end(self.open.key, self._describe_abort(self.open, f"nothing came for {self.defaults.timeout:g} s"))

    def is_known(self, key: Hashable) -> bool:
        """Return True if the scan has begun before: it is open now, or it is one of the last 64 scans that ended."""
        return key in self.ended or (self.open is not None and self.open.key == key)

    def _unique_name(self, name: str) -> str:
        """Return a name that is safe in file names, and that no other scan of the source has."""
        safe_name = scan_name(name)
        candidates = (safe_name if number == 1 else f"{safe_name[: MAX_NAME - 8]}_{number}" for number in itertools.count(1))
        name = next(candidate for candidate in candidates if candidate not in self.used_names)
        self.used_names.add(name)
        return name

    @staticmethod
    def _reason_to_drop(scan: _OpenScan, frame: Frame) -> str:
        """Return the reason why a frame does not fit the scan, empty if it fits."""
        if not 0 <= frame.index < (scan.begin.frames or MAX_FRAMES):
            return "unplanned"
        if frame.index in scan.received:
            return "duplicate"
        if scan.shape is not None and frame.image.shape != scan.shape:
            return "shape"
        return "type" if scan.dtype is not None and frame.image.dtype != scan.dtype else ""

    @staticmethod
    def _describe_abort(scan: _OpenScan, why: str) -> str:
        """Return a text that tells how a scan was cut short, or an empty text if the scan counts as complete.

        It counts as complete if it reached nearly its last planned frame, or if it has frames and no number of them was planned.
        """
        if not scan.received:
            return f"{why} before any frame"
        planned = scan.begin.frames
        return (
            f"{why} after frame {scan.highest + 1} of {planned}" if planned and scan.highest + 1 < COMPLETE_SHARE * planned else ""
        )

    def _angle(self, index: int) -> float:
        """Return the rocking angle of a frame, computed from the start and step that the user gave [rad]."""
        return float(np.deg2rad(self.defaults.start + index * (self.defaults.step or 0.0)))

    def _planned_angle(self, index: int) -> float | None:
        """Return the planned rocking angle of a frame [rad]; None if none is known.

        The angle is taken from the plan of the scan. Without a plan it is computed from the start and step that the user gave.
        """
        assert self.open is not None
        planned = self.open.begin.rocking_angle
        if planned is not None:
            return float(planned[index]) if index < len(planned) else None
        return None if self.defaults.step is None else self._angle(index)
