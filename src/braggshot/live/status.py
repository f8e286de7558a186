"""Hold the present state of a live session for all threads, and write its events to a file."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from braggshot.snapshot import Snapshot

MAX_TROUBLES = 20  # largest number of error messages kept for the browser page; older messages are dropped


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
    """The file ``events.jsonl`` with one line for each event, and a count of dropped data for each reason."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._stream = path.open("a", buffering=1, encoding="utf-8")
        self.dropped: Counter[str] = Counter()

    def write(self, event: str, scan: str = "", frames: int = 0, **more: Any) -> None:
        """Add a line ``{"time": ..., "event": ..., "scan": ..., "frames": ..., ...}``; the time is in seconds since the epoch."""
        line = json.dumps({"time": round(time.time(), 3), "event": event, "scan": scan, "frames": frames, **more}, default=str)
        with self._lock:
            self._stream.write(line + "\n")

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
