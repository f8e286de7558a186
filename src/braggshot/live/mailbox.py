"""Hold the work that waits for the worker thread: the newest request for a preview, and every finished scan."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path

from braggshot.volumes import Scan


@dataclass(frozen=True)
class PreviewRequest:
    """A request to make a preview of a scan.

    Parameters
    ----------
    name : name of the scan
    scan : the scan as far as it is measured
    brightest : index of the frame with the most counts
    frames : number of frames that have come so far
    began : time when the first frame came, on the monotonic clock [s]
    is_complete : whether the scan is over
    has_passed_peak : whether the rocking curve has just passed its maximum; from then on the crystal is seen well
    is_past_peak : whether the rocking curve has passed its maximum, now or earlier
    expected : number of planned frames, None if it is not known
    asked : time of the request, on the monotonic clock [s]
    """

    name: str
    scan: Scan
    brightest: int
    frames: int
    began: float
    is_complete: bool
    has_passed_peak: bool = False
    is_past_peak: bool = False
    expected: int | None = None
    asked: float | None = None

    @property
    def urgency(self) -> int:
        """Urgency of the request: 2 if the scan is complete, 1 if the rocking curve has just passed its peak, else 0.

        A preview that is being made is given up for a request of higher urgency.
        """
        return 2 if self.is_complete else int(self.has_passed_peak)


@dataclass(frozen=True)
class FinishedScan:
    """A finished scan that waits for its full reconstruction.

    Parameters
    ----------
    name : name of the scan
    path : folder of its recording
    frames : number of frames that came
    began : time when the first frame came, on the monotonic clock [s]
    """

    name: str
    path: Path
    frames: int
    began: float


class Mailbox:
    """A store for the newest preview request, and a queue for all finished scans."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._request: PreviewRequest | None = None
        self._finished: deque[FinishedScan] = deque()
        self._closed = False

    def request(self, request: PreviewRequest) -> None:
        """Ask for a preview; this request replaces an earlier request that still waits."""
        with self._condition:
            previous = self._request
            if previous is not None and previous.name == request.name and previous.has_passed_peak:
                request = replace(request, has_passed_peak=True)
            self._request = request
            self._condition.notify_all()

    def submit(self, finished: FinishedScan) -> None:
        """Ask for the full reconstruction of a finished scan."""
        with self._condition:
            self._finished.append(finished)
            self._condition.notify_all()

    def close(self) -> None:
        """Tell the worker thread that no more requests or scans will come."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def take_request(self) -> PreviewRequest | None:
        """Remove the waiting preview request from the store and return it; return None if no request waits."""
        with self._condition:
            request, self._request = self._request, None
            return request

    def take_finished(self) -> FinishedScan | None:
        """Remove the finished scan that has waited longest from the queue and return it; return None if no scan waits."""
        with self._condition:
            return self._finished.popleft() if self._finished else None

    def is_overtaken(self, current: PreviewRequest) -> bool:
        """Tell whether a waiting request is more urgent than `current`, the request whose preview is being made."""
        waiting = self._request
        return waiting is not None and waiting.urgency > current.urgency

    def is_complete_waiting(self) -> bool:
        """Tell whether a preview of a complete scan is requested."""
        waiting = self._request
        return waiting is not None and waiting.is_complete

    def has_work(self) -> bool:
        """Tell whether a preview request or a finished scan waits."""
        return self._request is not None or bool(self._finished)

    def wait(self, longest: float) -> bool:
        """Wait at most `longest` [s] for a preview request or a finished scan.

        Return False if neither waits and none can come any more.
        """
        with self._condition:
            if not self.has_work() and not self._closed:
                self._condition.wait(longest)
            return self.has_work() or not self._closed
