"""What waits for the worker: one picture, the newest, and every scan that is over."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path

from braggshot.volumes import Scan


@dataclass(frozen=True)
class Wanted:
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
    whole: bool
    passed: bool = False

    @property
    def weight(self) -> int:
        """What it overtakes: a picture of less weight."""
        return 2 if self.whole else int(self.passed)


@dataclass(frozen=True)
class Over:
    """A scan that is over and wants the full job; `path` is its recording."""

    name: str
    path: Path
    frames: int
    began: float


class Desk:
    """A mailbox of one picture, where the newest wins, and a queue of scans, where none is lost."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._wanted: Wanted | None = None
        self._over: deque[Over] = deque()
        self._closed = False

    def want(self, wanted: Wanted) -> None:
        """Ask for a picture; one that was asked for before and has not been begun is not made."""
        with self._news:
            before = self._wanted
            if before is not None and before.name == wanted.name and before.passed:
                wanted = replace(wanted, passed=True)
            self._wanted = wanted
            self._news.notify_all()

    def hand_in(self, over: Over) -> None:
        """Ask for the full job on a scan."""
        with self._news:
            self._over.append(over)
            self._news.notify_all()

    def close(self) -> None:
        """Nothing more will be asked for."""
        with self._news:
            self._closed = True
            self._news.notify_all()

    def take_wanted(self) -> Wanted | None:
        """The picture to be made next, if there is one."""
        with self._news:
            wanted, self._wanted = self._wanted, None
            return wanted

    def take_over(self) -> Over | None:
        """The scan to be finished next, if there is one."""
        with self._news:
            return self._over.popleft() if self._over else None

    def overtakes(self, begun: Wanted) -> bool:
        """Whether a picture waits for which one that was begun is to be given up."""
        waiting = self._wanted
        return waiting is not None and waiting.weight > begun.weight

    def busy(self) -> bool:
        """Whether something waits."""
        return self._wanted is not None or bool(self._over)

    def wait(self, longest: float) -> bool:
        """Wait for something to do, `longest` seconds at most; False where nothing will ever come."""
        with self._news:
            if not self.busy() and not self._closed:
                self._news.wait(longest)
            return self.busy() or not self._closed
