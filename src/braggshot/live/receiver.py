"""The receiver: records every frame, tells the board, and asks for pictures. Nothing here may take long, or frames are lost."""

from __future__ import annotations

import time
from threading import Event
from typing import Any

import numpy as np

from braggshot.errors import BraggshotError
from braggshot.live.assemble import Assembly, Change, Closed, Grew, Growing, Opened
from braggshot.live.mailbox import Desk, Over, Wanted
from braggshot.live.messages import Lost, Source
from braggshot.live.status import Board, Journal
from braggshot.volumes import FloatArray

BRIGHT = 1.5  # times the median frame that the brightest has before a picture is tried; all else is for `prepare` to say
PASSED = 0.5  # of the brightest frame's counts, below which the rocking curve has passed its peak
PLANNED = 240  # frames that a scan of unknown length is taken to have
PICTURES = 30  # of a scan, at most
SAID = 20  # lost messages of a kind, after which only every hundredth is written down


class Receiver:
    """Listens to a source.

    Parameters
    ----------
    assembly : records what comes
    desk : where pictures and scans that are over are asked for
    board, journal : where it is said
    every : frames between pictures; 0 takes a thirtieth of what is planned, and asks when the peak has passed
    """

    def __init__(self, assembly: Assembly, desk: Desk, board: Board, journal: Journal, every: int = 0) -> None:
        self.assembly, self.desk, self.board, self.journal, self.every = assembly, desk, board, journal, every
        self._began = 0.0
        self._asked = 0  # frames when a picture was asked for last
        self._passed = -1  # brightest frame when a picture was asked for because the rocking curve had passed it

    def run(self, source: Source, stop: Event) -> None:
        """Listen until the source ends or `stop` is set; a source that fails is said, and what came is kept."""
        try:
            for message in source.messages(stop):
                if message is not None:
                    for change in self.assembly.take(message):
                        self._changed(change)
                if stop.is_set():
                    break
        except Exception as error:
            said(self.board, self.journal, "source", error)
        finally:
            self.desk.close()

    def _changed(self, change: Change) -> None:
        if isinstance(change, Lost):
            self._lost(change)
        elif isinstance(change, Opened):
            self._began, self._asked, self._passed = time.monotonic(), 0, -1
            self.journal.write("scan started", change.scan.name, 0, expected=change.scan.expected)
            fresh: dict[str, Any] = {"result": None, "pictures": (), "rocking": np.zeros(0), "received": 0}
            self.board.change(scan=change.scan.name, state="measuring", expected=change.scan.expected, **fresh)
        elif isinstance(change, Grew):
            self._grew(change.scan)
        else:
            self._closed(change)

    def _grew(self, scan: Growing) -> None:
        if scan.received == 1:
            self._began = time.monotonic()
        every = self.every or max(1, (scan.expected or PLANNED) // PICTURES)
        peak = -1 if self.every else _passed_peak(scan.rocking)
        passes = peak not in {-1, self._passed}
        if (scan.received - self._asked < every and not passes) or scan.received == scan.expected:
            return
        self._asked, self._passed = scan.received, peak if passes else self._passed
        self.board.change(received=scan.received, rocking=scan.rocking.copy())
        if passes or _is_bright(scan.rocking):
            self._want(scan, passed=passes)

    def _closed(self, change: Closed) -> None:
        scan = change.scan
        self.board.change(received=scan.received, rocking=scan.rocking.copy())
        if change.aborted or scan.recorder is None:
            words = change.aborted or "no frame came"
            self.journal.write("scan aborted", scan.name, scan.received, reason=words)
            self.board.change(state="aborted")
            kept = f"; its frames are in {scan.recorder.folder}" if scan.recorder is not None else ""
            self.board.trouble(f"{scan.name}: {words} after {scan.received} frames{kept}")
            return
        self.journal.write("scan finished", scan.name, scan.received, expected=scan.expected)
        self.board.change(state="phasing")
        self._want(scan, whole=True)
        self.desk.hand_in(Over(scan.name, scan.recorder.folder, scan.received, self._began))

    def _want(self, scan: Growing, whole: bool = False, passed: bool = False) -> None:
        assert scan.recorder is not None
        brightest = int(np.nanargmax(scan.rocking))
        self.desk.want(Wanted(scan.name, scan.recorder.scan(), brightest, scan.received, self._began, whole, passed))

    def _lost(self, lost: Lost) -> None:
        self.journal.dropped[lost.reason] += 1
        number = self.journal.dropped[lost.reason]
        if number <= SAID or number % 100 == 0:
            self.journal.write("lost", reason=lost.reason, detail=lost.detail[:200], number=number)
        self.board.change(dropped=dict(self.journal.dropped))


def said(board: Board, journal: Journal, name: str, error: Exception) -> None:
    """Tell what went wrong with `name`."""
    words = " ".join(str(error).split()) if isinstance(error, BraggshotError) else f"{type(error).__name__}: {error}"
    journal.write("trouble", name, reason=words)
    board.trouble(f"{name}: {words}")


def _is_bright(rocking: FloatArray) -> bool:
    known = rocking[np.isfinite(rocking)]
    return len(known) >= 4 and float(known.max()) > 0 and float(known.max()) >= BRIGHT * float(np.median(known))


def _passed_peak(rocking: FloatArray) -> int:
    """The brightest frame, where the last one that is there is dark beside it; else -1."""
    last = len(rocking) - 1 - int(np.isfinite(rocking[::-1]).argmax())
    peak = int(np.nanargmax(rocking))
    return peak if last >= 4 and rocking[last] < PASSED * rocking[peak] else -1
