"""Refuse an HDF5 file whose text would hold up its reader for ever.

Text of any length lies in a heap of the file. HDF5 (2.0) reads a damaged heap in a loop without end, inside C, where nothing of
this process can stop it. So another process reads the text first, and is stopped when it takes too long. It is started once, since
its start takes a quarter of a second, and reads one file after the other.
"""

from __future__ import annotations

import atexit
import json
import select
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from threading import Lock

from braggshot.live.sources.limits import UnusableError

PATIENCE = 15.0
"""Time that the other process may take for a file, on a busy machine and with its start [s]."""
MOST_NODES = 10_000
"""Number of groups and datasets whose attributes are read."""
_READ = """
import contextlib, json, sys, h5py
from braggshot.io.swmr import open_swmr
def look(name, node):
    for attribute in node.attrs:
        with contextlib.suppress(Exception):
            node.attrs[attribute]
    seen.append(name)
    return len(seen) >= most or None
for line in sys.stdin:
    path, is_swmr, most = json.loads(line)
    seen = []
    with contextlib.suppress(Exception), open_swmr(path) if is_swmr else h5py.File(path, "r", locking=False) as file:
        look("/", file)
        file.visititems(look)
    print("read", flush=True)
"""


class _OtherProcess:
    """A process that reads the text of files; it ends with this one, which holds its input."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._process: subprocess.Popen[str] | None = None

    def read(self, path: Path, is_swmr: bool) -> str | None:
        """Let it read the text of a file; return why it cannot be read here, in words, or None."""
        with self._lock:
            process = self._started()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(json.dumps([str(path), is_swmr, MOST_NODES]) + "\n")
                process.stdin.flush()
                if not select.select([process.stdout], [], [], PATIENCE)[0]:
                    self.stop()
                    return f"HDF5 reads its text without an end (stopped after {PATIENCE:g} s)"
                if process.stdout.readline():
                    return None
            except BrokenPipeError:
                pass
            is_crash = process.wait() < 0
            self.stop()
            return "HDF5 crashes on its text" if is_crash else None

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self.stop()
            self._process = subprocess.Popen(
                [sys.executable, "-c", _READ], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                text=True, start_new_session=True,  # an interrupt from the keyboard is not for it
            )  # fmt: skip
        return self._process

    def stop(self) -> None:
        """Stop the process; the next file starts another one."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


_other_process = _OtherProcess()
atexit.register(_other_process.stop)


def refuse_endless_text(path: Path, is_swmr: bool) -> None:
    """Read all attributes of a file in another process; an error there is left to the one who reads the file here.

    Parameters
    ----------
    is_swmr : True to open the file in SWMR mode

    Raises
    ------
    UnusableError : if reading does not end, or ends the process.
    """
    if not path.exists():
        return
    known = path.stat()
    fault = _find_fault(path, is_swmr, (known.st_mtime_ns, known.st_size))
    if fault is not None:
        raise UnusableError("damaged", fault)


@lru_cache(maxsize=256)
def _find_fault(path: Path, is_swmr: bool, state: tuple[int, int]) -> str | None:
    """Return why the attributes of a file cannot be read, in a state given by time [ns] and size [bytes]; None if they can."""
    return _other_process.read(path, is_swmr)
