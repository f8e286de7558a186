"""Run a live session: read frames, make previews, and write a result for each scan, until the source ends.

::

    source --> receiver thread (`receiver`): records every frame, updates the status, requests previews, submits finished scans
           --> worker thread (this module):  makes the newest preview, else reconstructs a finished scan, else improves a preview

The mailbox between the two threads holds only the newest preview request. So a slow worker makes fewer previews, and never delays
the source. After each iteration of a full reconstruction the worker makes a preview if one is requested. So previews of the next
scan are shown while the scan before is still being reconstructed. Errors are reported in the status and in the journal. The frames
of each scan stay in a folder ``.live/NAME``, which ``braggshot reconstruct`` can read.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from braggshot import pipeline, series
from braggshot.errors import DataError
from braggshot.io import registry, results
from braggshot.iterative.iterate import Progress
from braggshot.live.advice import tell
from braggshot.live.assemble import Assembly, recordings_in
from braggshot.live.config import LiveSettings
from braggshot.live.earlier import Places, resume, taken_before
from braggshot.live.given import GivenImage
from braggshot.live.mailbox import FinishedScan, Mailbox, PreviewRequest
from braggshot.live.messages import Findable, Source
from braggshot.live.preview import Preview, align_with, improve, rehearse, sketch, use_one_thread
from braggshot.live.receiver import Receiver
from braggshot.live.status import Event, Journal, Status
from braggshot.nn.weights import load_network
from braggshot.output import OutputFormat, check_writable, targets_of, write
from braggshot.phasing import memory
from braggshot.phasing.strategies import Trained
from braggshot.series import table
from braggshot.snapshot import PreviewRecord, Work
from braggshot.volumes import Reconstruction, Scan

RECORDINGS = ".live"
"""Folder of the recordings, inside the folder of the results."""


class Superseded(Exception):
    """Signal that the present work is given up, because more urgent work waits or the session stops."""


class Session:
    """A live session: it receives scans, and writes a result of each scan into one folder.

    Parameters
    ----------
    folder : output folder: a result of each scan, ``events.jsonl``, and the recorded frames in ``.live``
    settings : settings of the session; None takes the defaults
    status : state of the session that the browser page shows; None makes a new one
    like : example scan; its dark image, flat field, mask and geometry are used where the source sends none
    images : dark image, flat field and mask that the user gives; they replace all others
    on_event : called with each event of the session, in the thread where it happens
    """

    def __init__(
        self,
        folder: str | Path,
        settings: LiveSettings | None = None,
        status: Status | None = None,
        like: Scan | None = None,
        images: Sequence[GivenImage] = (),
        on_event: Callable[[Event], None] = lambda _: None,
    ) -> None:
        self.folder, self.settings, self.status = Path(folder), settings or LiveSettings(), status or Status()
        check_writable(self.folder)
        self.recordings = self.folder / RECORDINGS
        self._on_event = on_event
        self.journal, self.mailbox, self.stop = Journal(self.folder / "events.jsonl", self._tell), Mailbox(), threading.Event()
        assembly = Assembly(self.recordings, like, images, self._is_taken)
        self.receiver = Receiver(assembly, self.mailbox, self.status, self.journal, self.settings.live.every)
        self._preview: tuple[PreviewRequest, Preview] | None = None  # last request with its preview, which may be unfinished
        # Newest picture of each scan whose full reconstruction is not done; the full result is turned as this picture is.
        self._pictures: dict[str, Reconstruction] = {}
        self._can_improve = False  # whether the last preview could still be improved
        self.current_request: PreviewRequest | None = None  # request whose preview is being made
        self._trained: Trained | None = None
        self._sketch_seconds: float | None = None  # time that the last picture took [s]

    @property
    def losses(self) -> int:
        """Number of troubles so far by which frames, or the result of a scan, were lost."""
        return self.journal.losses

    def _tell(self, event: Event) -> None:
        """Show trouble on the page, and pass an event on."""
        if event["event"] == "trouble":
            self.status.add_trouble(f"{event['scan']}: {event['reason']}")
        self._on_event(event)

    def _is_taken(self, name: str) -> bool:
        """Tell whether a file of a result has a name already."""
        return any(file.exists() for file in targets_of(self.folder, name, self._formats()).values())

    def run(self, source: Source, once: bool = False) -> None:
        """Run the session until the source ends or `stop` is set; with `once`, end it after the first scan.

        A scan that cannot be recorded or phased counts. When the source ends, finished scans that still wait are reconstructed
        before the session ends. Scans that an earlier session in the same folder has taken are not taken again, if the source can
        find them.
        """
        if isinstance(source, Findable):
            source.leave_out(taken_before(self.folder, self.recordings, self.journal.path))
        self.journal.write("session started", source=type(source).__name__)
        self.status.change(work=Work("waiting for the first scan", time.monotonic()))
        places = Places(self.folder, self.recordings, self._formats())
        self._run_guarded("recordings", partial(resume, places, self.status, self.journal, self.mailbox))
        receiver = threading.Thread(target=self.receiver.run, args=(source, self.stop), name="receiver", daemon=True)
        receiver.start()
        try:
            self._run_guarded("rehearsal", self._rehearse)
            self._work(once)
        finally:
            self.stop.set()
            receiver.join(timeout=5)
            self.journal.write("session ended", dropped=dict(self.journal.dropped))
            self.journal.close()

    def _work(self, once: bool) -> None:
        """Do the work that waits in the mailbox, the most urgent first, until the session ends."""
        while not self.stop.is_set():
            if self.make_requested_preview():
                continue
            finished = self.mailbox.take_finished()
            if finished is not None:
                self._finish_guarded(finished)
                if once:
                    return
            elif (once and self.receiver.gave_up) or not (self._improve_preview() or self.mailbox.wait(0.2)):
                return

    def _rehearse(self) -> None:
        """Load and compile what previews need, while the first frames are still to come."""
        with use_one_thread():
            rehearse(self.settings, self.settings.live.hypotheses, self.load_preview_network())

    def make_requested_preview(self) -> bool:
        """Make the requested preview; return False if none is requested."""
        request = self.mailbox.take_request()
        if request is None:
            return False
        began = time.monotonic()
        kind = "the first picture" if self.status.latest()[1].result is None else "a new picture"
        self._tell_work(request.name, f"making {kind} from {request.frames} frames", self._sketch_seconds)
        # Before the peak has passed there may be no crystal to see; that is no error.
        quiet = (Superseded,) if request.is_complete else (Superseded, DataError)
        if self._run_guarded(request.name, partial(self._sketch, request), quiet):
            self._sketch_seconds = time.monotonic() - began
            self._tell_work(request.name)
        elif not request.is_complete:
            self._tell_work(request.name, f"waiting for more frames: the first {request.frames} show no crystal yet")
        return True

    def _tell_work(self, name: str, words: str = "", expected: float | None = None) -> None:
        """Show on the page what is done for a scan, if it is the current one; no words mean that nothing is done."""
        if self.status.latest()[1].scan == name:
            self.status.change(work=Work(words, time.monotonic(), expected) if words else None)

    def _sketch(self, request: PreviewRequest) -> None:
        """Make and show a preview; if the scan is complete, also make and show an improved one right afterwards."""
        previous = self._preview[1] if self._preview is not None and self._preview[0].name == request.name else None

        def keep(preview: Progress | Preview) -> None:
            """Store the preview as it is after a stage; then raise `Superseded` if a more urgent preview request waits."""
            if isinstance(preview, Preview):
                if self._preview is None or self._preview[0] is not request:
                    self._run_guarded(request.name, partial(tell, self.status, self.journal, request, preview))
                self._preview = (request, preview)
            self._stop_if_overtaken()

        self._can_improve, self.current_request = False, request
        try:
            with use_one_thread():
                hypotheses, network = self.settings.live.hypotheses, self.load_preview_network()
                steps = sketch(request, self.settings, hypotheses, network, previous, self._stop_if_overtaken)
                preview = pipeline.drain(steps, keep)
                self._show_preview(request, preview)
                if request.is_complete and self.settings.live.improve:
                    steps = improve(preview, self.settings, hypotheses, network, is_complete=True)
                    self._show_preview(request, pipeline.drain(steps, keep))
        finally:
            self.current_request = None
        self._can_improve = self.settings.live.improve and not request.is_complete

    def _stop_if_overtaken(self) -> None:
        """Give up the present preview by raising `Superseded`, if a more urgent preview request waits.

        The first picture of a scan is given up for the complete scan alone, so that a slow machine shows one before the scan ends.
        """
        current = self.current_request
        if current is None or not self.mailbox.is_overtaken(current):
            return
        if current.name in self._pictures or self.mailbox.is_complete_waiting():
            raise Superseded

    def load_preview_network(self) -> Trained:
        """Return the network that makes previews; the network is read from disk only once.

        Before each layer of the network a hook checks whether what waits is more urgent, and if so stops the preview.
        """
        if self._trained is None:
            network, card = load_network(self.settings.phasing.network)
            # The novelty check of the full job needs a forward pass of its own; a preview skips it, for want of ranges.
            self._trained = network, replace(card, familiar={})
            for layer in self._trained[0].modules():
                layer.register_forward_pre_hook(self._give_way)
        return self._trained

    def _improve_preview(self) -> bool:
        """Improve the last preview, but stop when other work comes; return False if there is no preview to improve."""
        if not self._can_improve or self._preview is None:
            return False
        request, preview = self._preview
        self._can_improve = False

        def refine() -> None:
            """Refine the preview with one thread, and show it."""
            steps = improve(preview, self.settings, self.settings.live.hypotheses, self.load_preview_network(), is_complete=False)
            with use_one_thread():
                self._show_preview(request, pipeline.drain(steps, self._stop_if_busy))

        self._run_guarded(request.name, refine, quiet=(Superseded, DataError))
        return True

    def _give_way(self, *_: Any) -> None:
        """Give up a requested preview for a more urgent one; give up an improvement, or the rehearsal, for any work that waits."""
        if self.current_request is None:
            self._stop_if_busy()
        else:
            self._stop_if_overtaken()

    def _stop_if_busy(self, *_: Any) -> None:
        """Raise `Superseded` if other work waits or the session stops."""
        if self.mailbox.has_work() or self.stop.is_set():
            raise Superseded

    def _serve_previews(self, _: Progress) -> None:
        """Make a requested preview between two iterations of a full reconstruction."""
        if self.stop.is_set():
            raise Superseded
        self.make_requested_preview()

    def _show_preview(self, request: PreviewRequest, preview: Preview) -> None:
        """Keep a finished preview, and show it on the browser page."""
        assert preview.result is not None
        self._preview = (request, preview)
        self._pictures[request.name] = preview.result
        self._publish(preview.result, request)

    def _publish(self, result: Reconstruction, source_scan: PreviewRequest | FinishedScan) -> None:
        """Write the quality of a result to the file of events; show the result on the browser page if no later scan has begun."""
        seconds, quality = time.monotonic() - source_scan.began, result.quality
        record = PreviewRecord(seconds, source_scan.frames, result.method, quality.chi2, quality.llk_free, result.verdict)
        current = self.status.latest()[1]
        if current.scan == source_scan.name:
            self.status.change(result=result, previews=(*current.previews, record))
        llk_free = quality.llk_free if np.isfinite(quality.llk_free) else None
        facts = {"method": result.method, "chi2": quality.chi2, "llk_free": llk_free, "verdict": result.verdict}
        self.journal.write("picture", source_scan.name, source_scan.frames, **facts, seconds=round(seconds, 3))

    def finish_scan(self, finished: FinishedScan) -> None:
        """Reconstruct a finished scan in full, write its result to disk and update the status."""
        self._tell_work(finished.name, "phasing the whole scan, with all checks")
        row, files = self._extend_series(finished) if self.settings.live.series else self._reconstruct(finished)
        self._pictures.pop(finished.name, None)
        memory.trim_heap()  # without this the memory of a session grows with every scan
        current = self.status.latest()[1]
        state: dict[str, Any] = {}
        if current.scan == finished.name:
            state = {"state": "failed" if row["verdict"] == "failed" else "done", "work": None}
        self.status.change(series=(*current.series, row), finished=(*current.finished, files[0]), **state)
        facts = {name: row[name] for name in ("verdict", "reasons", "chi2")} | {"files": [file.name for file in files]}
        self.journal.write("result", finished.name, finished.frames, file=files[0].name, **facts)
        if not self.settings.live.keep and not self.settings.live.series:
            shutil.rmtree(finished.path, ignore_errors=True)

    def _reconstruct(self, finished: FinishedScan) -> tuple[table.Row, list[Path]]:
        """Reconstruct a scan that belongs to no series; return its line in the results table, and its files, the CXI first."""
        result = pipeline.drain(self._phase_as_shown(finished), self._serve_previews)
        files = self._write(finished.name, result)
        self._publish(result, finished)
        first = next((row["d_spacing_m"] for row in self.status.latest()[1].series if row.get("d_spacing_m")), None)
        row = {"input": str(finished.path), "name": finished.name, "time": None, **table.summarise_result(result, first)}
        return row, files

    def _write(self, name: str, result: Reconstruction) -> list[Path]:
        """Write the files of a result, and return their paths; a picture that cannot be made does not lose the crystal."""
        try:
            return write(result, self.folder, self._formats())
        except Exception as error:
            files = [file for file in targets_of(self.folder, result.volume.name, self._formats()).values() if file.exists()]
            if not files or files[0].suffix != ".cxi":
                raise
            self.journal.trouble(name, error)
            return files

    def _phase_as_shown(self, finished: FinishedScan) -> Generator[Progress, None, Reconstruction]:
        """Reconstruct a scan as `pipeline.run` does, and give the crystal the twin and the origin of the last picture."""
        began = time.perf_counter()
        scan = registry.read(finished.path, None, **self.settings.input)
        read = time.perf_counter() - began
        phased = yield from pipeline.prepare_and_phase(scan, self.settings.prepare, self.settings.phasing)
        aligned = align_with(phased, self._pictures.get(finished.name))
        return (yield from pipeline.finish_result(aligned, self.settings, {"read": read}))

    def _formats(self) -> tuple[OutputFormat, ...]:
        """Return the formats of a result; CXI is always written, and first, because once it is there the scan counts as done."""
        return tuple(dict.fromkeys(("cxi", *self.settings.output.formats)))

    def _extend_series(self, finished: FinishedScan) -> tuple[table.Row, list[Path]]:
        """Reconstruct a scan as the next of its series; return its line in the results table, and its files, the CXI first.

        The lines of earlier scans are kept, so that only this scan is phased.
        """
        done = [path for path, _ in recordings_in(self.recordings) if (self.folder / f"{path.name}.cxi").exists()]
        sources = series.list_sources([*done, finished.path], None, (), None, "recorded")
        quiet = replace(self.settings, series=replace(self.settings.series, movie=False))
        row: table.Row = {}
        place = partial(align_with, previous=self._pictures.get(finished.name))
        for report in series.run(sources, self.folder, quiet, self._serve_previews, place=place):
            row = report.row
        files = list(targets_of(self.folder, row["name"], self._formats()).values())
        if not files[0].exists():
            raise DataError(f"{finished.name}: {row['reasons']}")
        self._publish(results.read(files[0]), finished)
        return row, files

    def _run_guarded(self, name: str, job: Callable[[], None], quiet: tuple[type[Exception], ...] = (Superseded,)) -> bool:
        """Call the function `job`, and return whether it came to its end.

        Its errors are reported without ending the session; errors of the types `quiet` are ignored.
        """
        try:
            job()
        except quiet:
            return False
        except Exception as error:
            self.journal.trouble(name, error)
            return False
        return True

    def _finish_guarded(self, finished: FinishedScan) -> None:
        """Reconstruct a finished scan; if that cannot be done, say so on the page, so that nobody takes the crystal for bad."""
        troubles = self.status.latest()[1].trouble
        if self._run_guarded(finished.name, partial(self.finish_scan, finished)):
            return
        self._pictures.pop(finished.name, None)
        current = self.status.latest()[1]
        if current.scan == finished.name and current.trouble != troubles:
            reason = current.trouble[-1].removeprefix(f"{finished.name}: ")
            self.status.change(state="unphased", reason=reason, work=None)
