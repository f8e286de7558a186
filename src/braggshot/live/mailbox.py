"""What waits for the worker: one picture, the newest, and every scan that is over."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path

from braggshot.volumes import Scan


@dataclass(frozen=True)
class PreviewRequest:
    """A picture to be made.

    Parameters
    ----------
    name : of the scan
    scan : as far as it is measured
    brightest : frame with the most counts
    frames : that have come
    began : when its first frame came, on the monotonic clock [s]
    whole : whether it is over
    passed : whether it is the first since the rocking curve has passed its peak, from when on there is a crystal to be seen
    """

    name: str
    scan: Scan
    brightest: int
    frames: int
    began: float
    is_complete: bool
    has_passed_peak: bool = False

    @property
    def urgency(self) -> int:
        """What it overtakes: a picture of less weight."""
        return 2 if self.is_complete else int(self.has_passed_peak)


@dataclass(frozen=True)
class FinishedScan:
    """A scan that is over and wants the full job; `path` is its recording."""

    name: str
    path: Path
    frames: int
    began: float


class Mailbox:
    """A mailbox of one picture, where the newest wins, and a queue of scans, where none is lost."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._request: PreviewRequest | None = None
        self._finished: deque[FinishedScan] = deque()
        self._closed = False

    def request(self, request: PreviewRequest) -> None:
        """Ask for a picture; one that was asked for before and has not been begun is not made."""
        with self._condition:
            previous = self._request
            if previous is not None and previous.name == request.name and previous.has_passed_peak:
                request = replace(request, has_passed_peak=True)
            self._request = request
            self._condition.notify_all()

    def submit(self, finished: FinishedScan) -> None:
        """Ask for the full job on a scan."""
        with self._condition:
            self._finished.append(finished)
            self._condition.notify_all()

    def close(self) -> None:
        """Nothing more will be asked for."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def take_request(self) -> PreviewRequest | None:
        """The picture to be made next, if there is one."""
        with self._condition:
            request, self._request = self._request, None
            return request

    def take_finished(self) -> FinishedScan | None:
        """The scan to be finished next, if there is one."""
        with self._condition:
            return self._finished.popleft() if self._finished else None

    def is_overtaken(self, current: PreviewRequest) -> bool:
        """Whether a picture waits for which one that was begun is to be given up."""
        waiting = self._request
        return waiting is not None and waiting.urgency > current.urgency

    def has_work(self) -> bool:
        """Whether something waits."""
        return self._request is not None or bool(self._finished)

    def wait(self, longest: float) -> bool:
        """Wait for something to do, `longest` seconds at most; False where nothing will ever come."""
        with self._condition:
            if not self.has_work() and not self._closed:
                self._condition.wait(longest)
            return self.has_work() or not self._closed
