"""Phase scans of a folder by the order of the page, one at a time, each in a process of its own; a feed of what there is."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from braggshot.errors import BraggshotError, ConfigError
from braggshot.snapshot import Snapshot, Work
from braggshot.viewer import folder as folders
from braggshot.viewer.folder import Drawn, Order, RawScan, Summed
from braggshot.viewer.result_files import run_against, table
from braggshot.volumes import Scan

_LOOK = 1.0  # time between two looks at the folder [s]
# Environment in which a program shows its progress, though nobody looks at a terminal.
_SHOWS_PROGRESS = {"FORCE_COLOR": "1", "NO_COLOR": "1", "TTY_INTERACTIVE": "1", "TTY_COMPATIBLE": "1", "COLUMNS": "160"}
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # commands to a terminal
_BAR = re.compile("[━╸╺]+")  # a bar of progress
_PATIENCE = 10.0  # time that a phasing has to end when it is told to; then it is killed [s]


class Bench:
    """The scans of a folder and the phasing that runs on one of them; any thread may use it. It is the feed of the page."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.scans = folders.raw_scans(self.folder)
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._order: Order | None = None
        self._said, self._is_stopped, self._began = "", False, 0.0
        self._opened: dict[RawScan, tuple[Scan, Summed]] = {}
        self._seen: tuple[Any, ...] = ()
        self._latest = 1, Snapshot()
        self._ending = threading.Event()

    def latest(self) -> tuple[int, Snapshot]:
        """Return the number of changes so far, and the latest snapshot of the page's contents."""
        return self._latest

    def watch(self) -> None:
        """Look at the folder and at the phasing again and again, until `close` is called."""
        while not self._ending.is_set():
            with contextlib.suppress(OSError, BraggshotError):
                self.look()
            self._ending.wait(_LOOK)

    def look(self) -> None:
        """Look once at the results of the folder and at the phasing, and make a new snapshot if anything changed."""
        with self._lock:
            self._note_end()
            files = folders.results_of(self.folder)
            seen = tuple((path, path.stat().st_mtime_ns) for path in files), self.is_running, self._said, self.last_line()
            if seen == self._seen:
                return
            number, before = self._latest
            rows = before.series if before.finished == files and self._seen and self._seen[0] == seen[0] else tuple(table(files))
            order = self._order
            work = Work(f"phasing {order.scan.name}: {seen[3] or 'it begins'}", self._began) if self.is_running and order else None
            self._seen = seen
            self._latest = (
                number + 1,
                Snapshot(
                    scan=files[-1].stem if files else "",
                    state="done" if files else "waiting",
                    reason="" if files else "choose one below and press Run",
                    work=work,
                    trouble=(self._said,) if self._said else (),
                    finished=files,
                    series=rows,
                    against=run_against(files[-1]) if files else None,
                ),
            )

    def states(self) -> dict[str, str]:
        """Return the state of every scan: running, the verdict of its newest result, or raw."""
        with self._lock:
            verdicts = {str(row.get("name")): str(row.get("verdict")) for row in self._latest[1].series}
            found = {}
            for scan in self.scans:
                own = [verdict for name, verdict in verdicts.items() if name.rpartition("-")[0] == scan.name]
                is_running = self.is_running and self._order is not None and self._order.scan == scan
                found[scan.name] = "running" if is_running else own[-1] if own else "raw"
            return found

    @property
    def is_running(self) -> bool:
        """Tell whether a phasing runs."""
        return self._process is not None and self._process.poll() is None

    def opened(self, scan: RawScan) -> tuple[Scan, Summed]:
        """Return a scan and its summed frames; the frames are read when they are asked for first."""
        with self._lock:
            if scan not in self._opened:
                read = scan.read()
                self._opened = {scan: (read, folders.sum_frames(read))}  # the last one only, to save memory
            return self._opened[scan]

    def order(self, scan: RawScan, method: str, shapes: Any) -> Order:
        """Write what a user chose as a command."""
        read, summed = self.opened(scan)
        drawn: Drawn = folders.read_shapes(shapes, *summed.shape[1:])
        return folders.order(self.folder, scan, read, method, drawn)

    def run(self, scan: RawScan, method: str, shapes: Any) -> None:
        """Begin a phasing: write its mask and its command beside its result to come, and start the process.

        Raises
        ------
        ConfigError : if one runs already, or what was chosen is not offered.
        OSError : if nothing can be written or started.
        """
        with self._lock:
            if self.is_running:
                raise ConfigError("One phasing runs; stop it or wait for its end.")
            order = self.order(scan, method, shapes)
            order.output.parent.mkdir(exist_ok=True)
            if order.mask_file is not None and order.mask is not None:
                np.save(order.mask_file, order.mask)
            self._file(order, "command").write_text(f"{order.command}\n", encoding="utf-8")
            command = [sys.executable, "-m", "braggshot", *order.arguments]
            with self._file(order, "log").open("wb") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env={**os.environ, **_SHOWS_PROGRESS},
                )
            self._order, self._said, self._is_stopped, self._began = order, "", False, time.monotonic()
        self.look()

    def stop(self) -> None:
        """Stop the phasing that runs, if one does."""
        with self._lock:
            process, self._is_stopped = self._process, True
        if process is None or process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(_PATIENCE)
        self.look()

    def close(self) -> None:
        """Stop what runs, and end `watch`."""
        self._ending.set()
        self.stop()

    def last_line(self) -> str:
        """Return the last line that the phasing has printed."""
        if self._order is None or not self._file(self._order, "log").exists():
            return ""
        with self._file(self._order, "log").open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 4000))
            lines = _ESCAPES.sub("", log.read().decode("utf-8", "replace")).replace("\r", "\n").splitlines()
        words = (" ".join(_BAR.sub(" ", line).split()) for line in reversed(lines))
        return next((line[:200] for line in words if line), "")

    def _note_end(self) -> None:
        """Note how the phasing has ended, if it has."""
        if self._process is None or self._process.poll() is None or self._order is None:
            return
        name, status = self._order.scan.name, self._process.returncode
        if status and not self._is_stopped:
            self._said = f"{name}: {self.last_line() or f'ended with status {status}'}"
        self._process = None

    @staticmethod
    def _file(order: Order, kind: str) -> Path:
        """Return the path of a text beside the result of an order."""
        return order.output.with_name(f"{order.output.stem}-{kind}.txt")


def bench_of(given: Sequence[Path]) -> Bench | None:
    """Return the scans of a folder to phase from the page; None unless one folder is given that holds any, and no series."""
    if len(given) != 1 or not given[0].is_dir() or (given[0] / "series.csv").exists():
        return None
    bench = Bench(given[0])
    return bench if bench.scans else None
