"""Hold the present state of a live session for all threads, and write its events to a file."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from braggshot.snapshot import Snapshot

MAX_TROUBLES = 20  # largest number of error messages kept for the browser page; older messages are dropped
Event = Mapping[str, Any]
"""An event of a session: its time, what happened, the scan, the number of frames, and what else there is to say."""


class Status:
    """The present state of a live session, a `Snapshot` that the browser page shows; any thread may change or read it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._number, self._snapshot = 0, Snapshot()

    def latest(self) -> tuple[int, Snapshot]:
        """Return the version and the content of the latest snapshot; each change of the status adds 1 to the version."""
        with self._lock:
            return self._number, self._snapshot

    def change(self, **fields: Any) -> Snapshot:
        """Replace fields of the snapshot, and return the new snapshot."""
        with self._lock:
            self._number, self._snapshot = self._number + 1, replace(self._snapshot, **fields)
            return self._snapshot

    def add_trouble(self, words: str) -> None:
        """Add an error message to the snapshot."""
        with self._lock:
            troubles = (*self._snapshot.trouble, words)[-MAX_TROUBLES:]
            self._number, self._snapshot = self._number + 1, replace(self._snapshot, trouble=troubles)


class Journal:
    """The file ``events.jsonl`` with one line for each event, and a count of dropped data for each reason.

    Parameters
    ----------
    path : the file; events are added at its end
    on_event : called with each event after it is written, in the thread that wrote it
    """

    def __init__(self, path: Path, on_event: Callable[[Event], None] = lambda _: None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock, self._on_event = threading.Lock(), on_event
        self._stream = path.open("a", buffering=1, encoding="utf-8")
        self.dropped: Counter[str] = Counter()

    def write(self, event: str, scan: str = "", frames: int = 0, **more: Any) -> None:
        """Add a line ``{"time": ..., "event": ..., "scan": ..., "frames": ..., ...}``; the time is in seconds since the epoch."""
        entry = {"time": round(time.time(), 3), "event": event, "scan": scan, "frames": frames, **more}
        line = json.dumps(entry, default=str)
        with self._lock:
            self._stream.write(line + "\n")
        self._on_event(entry)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
