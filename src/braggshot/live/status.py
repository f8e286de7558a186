"""Hold the present state of a live session for all threads, and write its events to a file."""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from braggshot.errors import BraggshotError, OutputError
from braggshot.io.atomic import refuse_target
from braggshot.snapshot import Snapshot

MAX_TROUBLES = 20  # largest number of error messages kept for the browser page; older messages are dropped
MAX_WAITING = 10_000  # largest number of lines that wait until the disk takes them; older ones are dropped
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
    """The file ``events.jsonl`` with one line for each event, and counts of what was dropped and of what was lost.

    Nothing that happens to the file ends a session: lines that cannot be written wait, and a file that was removed is made anew.

    Parameters
    ----------
    path : the file; events are added at its end
    on_event : called with each event after it is written, in the thread that wrote it

    Attributes
    ----------
    dropped : number of dropped data for each reason
    losses : number of troubles by which frames, or the result of a scan, were lost

    Raises
    ------
    OutputError : if the file cannot be opened, or another session writes it.
    """

    def __init__(self, path: Path, on_event: Callable[[Event], None] = lambda _: None) -> None:
        self.path, self._on_event = path, on_event
        self._lock, self._waiting, self._has_failed = threading.Lock(), deque[bytes](maxlen=MAX_WAITING), False
        self._is_closed = False
        self.dropped: Counter[str] = Counter()
        self.losses = 0
        try:
            self._descriptor: int | None = _open_locked(path)
        except BlockingIOError as error:
            raise OutputError(f"{path.parent}: another live session writes there; choose another folder.") from error
        except OSError as error:
            raise OutputError(f"{path}: cannot write there ({error.strerror or error}); choose another folder.") from error

    def __del__(self) -> None:
        self.close()

    def write(self, event: str, scan: str = "", frames: int = 0, **more: Any) -> None:
        """Add a line ``{"time": ..., "event": ..., "scan": ..., "frames": ..., ...}``; the time is in seconds since the epoch."""
        entry = {"time": round(time.time(), 3), "event": event, "scan": scan, "frames": frames, **more}
        with self._lock:
            self._waiting.append(json.dumps(entry, default=str).encode() + b"\n")
            failure = self._write_waiting()
            is_new, self._has_failed = failure is not None and not self._has_failed, failure is not None
        with suppress(OSError, ValueError):  # a terminal that is gone, or a full disk behind it
            self._on_event(entry)
        if is_new:
            self.trouble(self.path.name, f"{failure}; its lines wait", is_loss=False)

    def trouble(self, name: str, reason: str | Exception, is_loss: bool = True) -> None:
        """Write that something went wrong with the scan, or the part of the program, `name`; the reason is put in one line."""
        if isinstance(reason, Exception) and not isinstance(reason, BraggshotError):
            reason = f"{type(reason).__name__}: {reason}"
        words = "".join(char if char.isprintable() else "?" for char in " ".join(str(reason).split()))
        self.losses += is_loss
        self.write("trouble", name, reason=words, is_loss=is_loss)

    def _write_waiting(self) -> Exception | None:
        """Write the lines that wait; return why they cannot be written."""
        try:
            if self._is_closed:  # a receiver that did not end in time may still speak
                return None
            if self._descriptor is not None and not self.path.exists():
                self._close_file()
            if self._descriptor is None:
                self._descriptor = _open_locked(self.path)
            while self._waiting:
                written = os.write(self._descriptor, self._waiting[0])
                self._waiting[0] = self._waiting[0][written:]
                if not self._waiting[0]:
                    self._waiting.popleft()
        except (OSError, OutputError) as error:
            return error
        return None

    def close(self) -> None:
        """Close the file; later events are told and not written."""
        self._is_closed = True
        self._close_file()

    def _close_file(self) -> None:
        descriptor, self._descriptor = getattr(self, "_descriptor", None), None
        if descriptor is not None:
            os.close(descriptor)


def _open_locked(path: Path) -> int:
    """Open a file of events at its end, and lock it against other sessions; folders that are missing are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    refuse_target(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:  # a file system without locks
        pass
    return descriptor


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of earlier sessions; lines that cannot be read are left out."""
    try:
        with path.open("rb") as stream:
            for line in stream:
                with suppress(ValueError, RecursionError):
                    event = json.loads(line)
                    if isinstance(event, dict):
                        yield event
    except OSError:
        return
