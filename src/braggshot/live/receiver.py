"""The receiver: records every frame, tells the board, and asks for pictures. Nothing here may take long, or frames are lost."""

from __future__ import annotations

import time
from threading import Event
from typing import Any

import numpy as np

from braggshot.errors import BraggshotError
from braggshot.live.assemble import Assembly, Change, FrameAdded, OpenScan, ScanClosed, ScanOpened
from braggshot.live.mailbox import FinishedScan, Mailbox, PreviewRequest
from braggshot.live.messages import Dropped, Source
from braggshot.live.status import Journal, Status
from braggshot.volumes import FloatArray

MIN_CONTRAST = 1.5  # times the median frame that the brightest has before a picture is tried; all else is for `prepare` to say
PEAK_SHARE = 0.5  # of the brightest frame's counts, below which the rocking curve has passed its peak
ASSUMED_FRAMES = 240  # frames that a scan of unknown length is taken to have
MAX_PREVIEWS = 30  # of a scan, at most
LOGGED_DROPS = 20  # lost messages of a kind, after which only every hundredth is written down


class Receiver:
    """Listens to a source.

    Parameters
    ----------
    assembly : records what comes
    desk : where pictures and scans that are over are asked for
    board, journal : where it is said
    every : frames between pictures; 0 takes a thirtieth of what is planned, and asks when the peak has passed
    """

    def __init__(self, assembly: Assembly, mailbox: Mailbox, status: Status, journal: Journal, every: int = 0) -> None:
        self.assembly, self.mailbox, self.status, self.journal, self.every = assembly, mailbox, status, journal, every
        self._began = 0.0
        self._last_request = 0  # frames when a picture was asked for last
        self._last_peak = -1  # brightest frame when a picture was asked for because the rocking curve had passed it

    def run(self, source: Source, stop: Event) -> None:
        """Listen until the source ends or `stop` is set; a source that fails is said, and what came is kept."""
        try:
            for message in source.messages(stop):
                if message is not None:
                    for change in self.assembly.take(message):
                        self._apply(change)
                if stop.is_set():
                    break
        except Exception as error:
            report_error(self.status, self.journal, "source", error)
        finally:
            self.mailbox.close()

    def _apply(self, change: Change) -> None:
        if isinstance(change, Dropped):
            self._on_drop(change)
        elif isinstance(change, ScanOpened):
            self._began, self._last_request, self._last_peak = time.monotonic(), 0, -1
            self.journal.write("scan started", change.scan.name, 0, expected=change.scan.expected)
            fresh: dict[str, Any] = {"result": None, "previews": (), "rocking": np.zeros(0), "received": 0}
            self.status.change(scan=change.scan.name, state="measuring", expected=change.scan.expected, **fresh)
        elif isinstance(change, FrameAdded):
            self._on_frame(change.scan)
        else:
            self._on_close(change)

    def _on_frame(self, scan: OpenScan) -> None:
        if scan.received == 1:
            self._began = time.monotonic()
        every = self.every or max(1, (scan.expected or ASSUMED_FRAMES) // MAX_PREVIEWS)
        peak = -1 if self.every else _find_passed_peak(scan.rocking)
        has_passed = peak not in {-1, self._last_peak}
        if (scan.received - self._last_request < every and not has_passed) or scan.received == scan.expected:
            return
        self._last_request, self._last_peak = scan.received, peak if has_passed else self._last_peak
        self.status.change(received=scan.received, rocking=scan.rocking.copy())
        if has_passed or _is_bright(scan.rocking):
            self._request_preview(scan, has_passed_peak=has_passed)

    def _on_close(self, change: ScanClosed) -> None:
        scan = change.scan
        self.status.change(received=scan.received, rocking=scan.rocking.copy())
        if change.aborted or scan.recorder is None:
            words = change.aborted or "no frame came"
            self.journal.write("scan aborted", scan.name, scan.received, reason=words)
            self.status.change(state="aborted")
            kept = f"; its frames are in {scan.recorder.folder}" if scan.recorder is not None else ""
            self.status.add_trouble(f"{scan.name}: {words} after {scan.received} frames{kept}")
            return
        self.journal.write("scan finished", scan.name, scan.received, expected=scan.expected)
        self.status.change(state="phasing")
        self._request_preview(scan, is_complete=True)
        self.mailbox.submit(FinishedScan(scan.name, scan.recorder.folder, scan.received, self._began))

    def _request_preview(self, scan: OpenScan, is_complete: bool = False, has_passed_peak: bool = False) -> None:
        assert scan.recorder is not None
        brightest = int(np.nanargmax(scan.rocking))
        self.mailbox.request(
            PreviewRequest(scan.name, scan.recorder.scan(), brightest, scan.received, self._began, is_complete, has_passed_peak)
        )

    def _on_drop(self, dropped: Dropped) -> None:
        self.journal.dropped[dropped.reason] += 1
        number = self.journal.dropped[dropped.reason]
        if number <= LOGGED_DROPS or number % 100 == 0:
            self.journal.write("lost", reason=dropped.reason, detail=dropped.detail[:200], number=number)
        self.status.change(dropped=dict(self.journal.dropped))


def report_error(status: Status, journal: Journal, name: str, error: Exception) -> None:
    """Tell what went wrong with `name`."""
    words = " ".join(str(error).split()) if isinstance(error, BraggshotError) else f"{type(error).__name__}: {error}"
    journal.write("trouble", name, reason=words)
    status.add_trouble(f"{name}: {words}")


def _is_bright(rocking: FloatArray) -> bool:
    known = rocking[np.isfinite(rocking)]
    return len(known) >= 4 and float(known.max()) > 0 and float(known.max()) >= MIN_CONTRAST * float(np.median(known))


def _find_passed_peak(rocking: FloatArray) -> int:
    """The brightest frame, where the last one that is there is dark beside it; else -1."""
    last = len(rocking) - 1 - int(np.isfinite(rocking[::-1]).argmax())
    peak = int(np.nanargmax(rocking))
    return peak if last >= 4 and rocking[last] < PEAK_SHARE * rocking[peak] else -1
