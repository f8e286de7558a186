"""Read the messages of a source: record every frame, update the status, and request previews.

Each message must be handled quickly: while it is handled, the source may lose further frames.
"""

from __future__ import annotations

import time
from threading import Event
from typing import Any

import numpy as np

from braggshot.live.assemble import TOO_FEW, UNRECORDED, Assembly, Change, FrameAdded, OpenScan, ScanClosed, ScanOpened
from braggshot.live.mailbox import FinishedScan, Mailbox, PreviewRequest
from braggshot.live.messages import Dropped, Message, Source, Trouble
from braggshot.live.status import Journal, Status
from braggshot.snapshot import Images, Work
from braggshot.volumes import FloatArray

# previews at regular intervals begin when the brightest frame has so many times the counts of the median frame [1]
MIN_CONTRAST = 1.5
PEAK_SHARE = 0.5  # limit for the ratio of the last frame's counts to the brightest frame's [1]; below it the Bragg peak has passed
ASSUMED_FRAMES = 240  # number of frames assumed for a scan of unknown length
MAX_PREVIEWS = 30  # approximate number of previews that are requested at regular intervals during one scan
TELL_EVERY = 0.2  # shortest time between two updates of the status for the sake of the page alone [s]
LOGGED_DROPS = 20  # number of losses logged for each reason why data are dropped; of later losses only every hundredth is logged


class Receiver:
    """The reader of a source: it records frames, and passes preview requests and finished scans on to the worker thread.

    Parameters
    ----------
    assembly : recorder of the frames
    mailbox : store from which the worker thread takes preview requests and finished scans
    status, journal : present state of the session, and file of its events; the receiver updates both
    every : number of frames between two preview requests; with 0, about 30 previews are requested during a scan, and one more once
        the Bragg peak has passed
    """

    def __init__(self, assembly: Assembly, mailbox: Mailbox, status: Status, journal: Journal, every: int = 0) -> None:
        self.assembly, self.mailbox, self.status, self.journal, self.every = assembly, mailbox, status, journal, every
        self.gave_up = False  # True once a scan was lost: it could not be recorded, or no volume can be made of it
        self._began = 0.0
        self._told = 0.0  # when the status was last updated, on the monotonic clock [s]
        self._last_request = 0  # number of frames that had come at the last preview request
        self._last_fault = ("", "")  # scan and words of the last fault that was reported
        self._last_peak = -1  # index of the brightest frame when a passed peak last led to a preview request; -1 before the first

    def run(self, source: Source, stop: Event) -> None:
        """Read messages until the source ends or `stop` is set; report an error of the source, and keep the frames that came."""
        try:
            for message in source.messages(stop):
                if message is not None:
                    self._take(message)
                if stop.is_set():
                    break
        except Exception as error:
            self.journal.trouble("source", error)
        finally:
            self.mailbox.close()

    def _take(self, message: Message) -> None:
        """Take a message; if its scan cannot be recorded, give that scan up, so that the next one is recorded."""
        try:
            for change in self.assembly.take(message):
                self._apply_guarded(change)
        except Exception as error:
            name = self.assembly.open.name if self.assembly.open is not None else "receiver"
            self.journal.trouble(name, error)
            for change in self.assembly.give_up():
                self._apply_guarded(change)

    def _apply_guarded(self, change: Change) -> None:
        """Apply a change; what cannot be shown is reported once for each scan, and loses no frame."""
        try:
            self._apply(change)
        except Exception as error:
            fault = (self.status.latest()[1].scan, str(error))
            if fault != self._last_fault:
                self._last_fault = fault
                self.journal.trouble(fault[0] or "receiver", error, is_loss=False)

    def _apply(self, change: Change) -> None:
        """Update the status, the file of events and the mailbox after a change.

        A change is that a scan began, a frame was added, a scan ended, or data were dropped.
        """
        if isinstance(change, Dropped):
            self._on_drop(change)
        elif isinstance(change, Trouble):
            self.journal.trouble(change.scan, change.reason, change.is_loss)
        elif isinstance(change, ScanOpened):
            self._began, self._last_request, self._last_peak = time.monotonic(), 0, -1
            self.journal.write("scan started", change.scan.name, 0, expected=change.scan.expected)
            fresh: dict[str, Any] = {"result": None, "previews": (), "rocking": np.zeros(0), "received": 0, "images": None}
            fresh |= {"advice": (), "reason": "", "work": Work("waiting for the first frame", time.monotonic())}
            self.status.change(scan=change.scan.name, state="measuring", expected=change.scan.expected, **fresh)
        elif isinstance(change, FrameAdded):
            self._on_frame(change.scan)
        else:
            self._on_close(change)

    def _on_frame(self, scan: OpenScan) -> None:
        """Update the status and request a preview, but only if the peak has passed or many frames came since the last request."""
        if scan.received == 1:
            self._began = time.monotonic()
        every = self.every or max(1, (scan.expected or ASSUMED_FRAMES) // MAX_PREVIEWS)
        peak = find_passed_peak(scan.rocking)
        has_passed = not self.every and peak not in {-1, self._last_peak}
        is_due = scan.received - self._last_request >= every or has_passed
        is_bright = _is_bright(scan.rocking)
        if scan.received == 1 or is_due or time.monotonic() - self._told >= TELL_EVERY:
            self._tell(scan, is_bright)
        if is_due and scan.received != scan.expected and not scan.refused:
            self._last_request, self._last_peak = scan.received, peak if has_passed else self._last_peak
            if has_passed or is_bright:
                self._request_preview(scan, has_passed_peak=has_passed)

    def _tell(self, scan: OpenScan, is_bright: bool) -> None:
        """Put the frames so far into the status, and, until a preview is made, what is being waited for."""
        self._told = time.monotonic()
        fields: dict[str, Any] = {"received": scan.received, "rocking": scan.rocking.copy()}
        fields["images"] = Images(scan.last, scan.total)
        if not is_bright and self.status.latest()[1].result is None:
            fields["work"] = Work("waiting for the peak: the brightest frame does not yet stand out", self._began)
        self.status.change(**fields)

    def _on_close(self, change: ScanClosed) -> None:
        """Ask for a preview and the full reconstruction of a scan that has ended.

        Ask for neither if the scan was aborted or no frame came; only report this.
        """
        scan = change.scan
        if change.aborted or scan.recorder is None:
            words = change.aborted or "no frame came"
            self.gave_up |= words in {UNRECORDED, scan.refused}
            self.journal.write("scan aborted", scan.name, scan.received, reason=words)
            self.status.change(state="aborted", reason=words, work=None)
            kept = f"; its frames are in {scan.recorder.folder}" if scan.recorder is not None else ""
            # A single frame is often a picture for alignment, and no fault; why a scan is not recorded is told already.
            if words not in {TOO_FEW, UNRECORDED, scan.refused}:
                self.status.add_trouble(f"{scan.name}: {words} after {scan.received} frames{kept}")
            if scan.recorder is not None:
                self._tell(scan, True)
            return
        self.journal.write("scan finished", scan.name, scan.received, expected=scan.expected, origin=scan.begin.origin)
        try:
            self._tell(scan, True)
            self.status.change(state="phasing")
            self._request_preview(scan, is_complete=True)
        finally:
            self.mailbox.submit(FinishedScan(scan.name, scan.recorder.folder, scan.received, self._began))

    def _request_preview(self, scan: OpenScan, is_complete: bool = False, has_passed_peak: bool = False) -> None:
        """Request a preview of the open scan as far as it is recorded."""
        assert scan.recorder is not None
        brightest = int(np.nanargmax(scan.rocking))
        frames, is_past_peak = scan.recorder.scan(), is_complete or find_passed_peak(scan.rocking) != -1
        state = (is_complete, has_passed_peak, is_past_peak, scan.expected, time.monotonic())
        self.mailbox.request(PreviewRequest(scan.name, frames, brightest, scan.received, self._began, *state))

    def _on_drop(self, dropped: Dropped) -> None:
        """Count dropped data by reason; log the first 20 events of each reason, and later every hundredth."""
        self.journal.dropped[dropped.reason] += 1
        number = self.journal.dropped[dropped.reason]
        if number <= LOGGED_DROPS or number % 100 == 0:
            self.journal.write("lost", reason=dropped.reason, detail=dropped.detail[:200], number=number)
        self.status.change(dropped=dict(self.journal.dropped))


def _is_bright(rocking: FloatArray) -> bool:
    """Tell whether the brightest frame has clearly more counts than the median frame."""
    known = rocking[np.isfinite(rocking)]
    return len(known) >= 4 and float(known.max()) > 0 and float(known.max()) >= MIN_CONTRAST * float(np.median(known))


def find_passed_peak(rocking: FloatArray) -> int:
    """Return the index of the brightest frame if the Bragg peak has passed, and -1 otherwise.

    The peak has passed if the last frame has less than half of the counts of the brightest frame.
    """
    last = len(rocking) - 1 - int(np.isfinite(rocking[::-1]).argmax())
    peak = int(np.nanargmax(rocking))
    return peak if last >= 4 and rocking[last] < PEAK_SHARE * rocking[peak] else -1
