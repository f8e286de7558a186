"""Frames in, pictures and results out, for as long as a source lives.

::

    source --> receiver thread (receive): records every frame, tells the board, asks for a picture, hands in scans that are over
           --> worker thread (here):      makes the newest picture; else the full job on a scan that is over; else improves one

The desk between them holds one picture, the newest, so a slow worker makes fewer pictures and never delays the source. The full job
looks onto the desk after each iteration, so the next scan is seen while the one before is still being finished. What fails is said
on the board and in the journal; its frames stay in ``.live/NAME``, which ``braggshot reconstruct`` reads.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from braggshot import config, pipeline, series
from braggshot.errors import ConfigError, DataError
from braggshot.io import results
from braggshot.io.formats import recorded
from braggshot.iterative.iterate import Progress
from braggshot.live.assemble import Assembly, recordings_in
from braggshot.live.mailbox import FinishedScan, Mailbox, PreviewRequest
from braggshot.live.messages import Source
from braggshot.live.preview import Preview, improve, sketch
from braggshot.live.receiver import Receiver, report_error
from braggshot.live.status import Journal, Status
from braggshot.nn.weights import load_network
from braggshot.output import OutputConfig, check_writable, write
from braggshot.phasing import memory
from braggshot.phasing.strategies import Trained
from braggshot.series import SeriesSettings, table
from braggshot.snapshot import PreviewRecord
from braggshot.volumes import Reconstruction, Scan

RECORDINGS = ".live"
LIVE_READS = {"network", "refine", "support_threshold"}
"""Settings of phasing that pictures read, whatever the method of the full job."""


@dataclass(frozen=True)
class LiveConfig:
    """How a scan is shown while it is measured.

    Parameters
    ----------
    every : frames between pictures; 0 takes a thirtieth of what is planned, and asks when the peak has passed
    hypotheses : of the network in a picture
    improve : refine a picture while nothing else is to be done, and show the network's whole pass of a scan before the full job
    series : one crystal, many scans: the twin, origin and grid of the first, as ``braggshot series`` does
    keep : keep the frames of scans that are done
    """

    every: int = 0
    hypotheses: int = 2
    improve: bool = True
    series: bool = False
    keep: bool = False

    def __post_init__(self) -> None:
        if self.every < 0 or self.hypotheses < 1:
            raise ConfigError("live.every must not be negative, live.hypotheses at least 1.")


@dataclass(frozen=True)
class LiveSettings(SeriesSettings):
    """The settings of the main job and of a series, and those of looking at it."""

    output: OutputConfig = field(default_factory=OutputConfig)
    live: LiveConfig = field(default_factory=LiveConfig)


class Superseded(Exception):
    """Something more urgent is to be done."""


@contextmanager
def use_one_thread() -> Iterator[None]:
    """A picture is small: more threads make it no sooner, and take the processor from the receiver and the page."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def resolve(settings: Mapping[str, Any]) -> LiveSettings:
    """Nested settings to `LiveSettings`, every name and value checked."""
    resolved = config.resolve(LiveSettings, settings)
    pipeline.refuse_unread_settings(resolved, settings, LIVE_READS)
    return resolved


class Session:
    """One folder of results, and what is being measured into it.

    Parameters
    ----------
    folder : gets a result per scan, ``events.jsonl``, and recordings in ``.live``
    settings : resolved
    board : what is shown
    like : a scan to take dark, flat, mask and geometry from, where the source knows none
    """

    def __init__(
        self, folder: str | Path, settings: LiveSettings | None = None, status: Status | None = None, like: Scan | None = None
    ) -> None:
        self.folder, self.settings, self.status = Path(folder), settings or LiveSettings(), status or Status()
        check_writable(self.folder)
        self.recordings = self.folder / RECORDINGS
        self.journal, self.mailbox, self.stop = Journal(self.folder / "events.jsonl"), Mailbox(), threading.Event()
        assembly = Assembly(self.recordings, like, lambda name: (self.folder / f"{name}.cxi").exists())
        self.receiver = Receiver(assembly, self.mailbox, self.status, self.journal, self.settings.live.every)
        self._preview: tuple[PreviewRequest, Preview] | None = None  # the last, or as much of the next as was made
        self._can_improve = False  # whether that picture could still be improved
        self.current_request: PreviewRequest | None = None  # the sketch that is being made
        self._trained: Trained | None = None

    def run(self, source: Source, once: bool = False) -> None:
        """Work until the source ends or `stop` is set, or after the first scan; every scan that is over is finished before."""
        self.journal.write("session started", source=type(source).__name__)
        self._resume()
        receiver = threading.Thread(target=self.receiver.run, args=(source, self.stop), name="receiver", daemon=True)
        receiver.start()
        try:
            self._work(once)
        finally:
            self.stop.set()
            receiver.join(timeout=5)
            self.journal.write("session ended", dropped=dict(self.journal.dropped))
            self.journal.close()

    def _work(self, once: bool) -> None:
        while not self.stop.is_set():
            if self.make_requested_preview():
                continue
            finished = self.mailbox.take_finished()
            if finished is not None:
                self._run_guarded(finished.name, partial(self.finish_scan, finished))
                if once:
                    return
            elif not self._improve_preview() and not self.mailbox.wait(0.2):
                return

    def make_requested_preview(self) -> bool:
        """Make the picture that is asked for, if one is."""
        request = self.mailbox.take_request()
        if request is None:
            return False
        # Before the peak has passed there may be nothing to see, which is no trouble.
        quiet = (Superseded,) if request.is_complete else (Superseded, DataError)
        self._run_guarded(request.name, partial(self._sketch, request), quiet)
        return True

    def _sketch(self, request: PreviewRequest) -> None:
        previous = self._preview[1] if self._preview is not None and self._preview[0].name == request.name else None

        def keep(preview: Progress | Preview) -> None:
            if isinstance(preview, Preview):
                self._preview = (request, preview)
            self._stop_if_overtaken()

        self._can_improve, self.current_request = False, request
        try:
            with use_one_thread():
                hypotheses, network = self.settings.live.hypotheses, self.load_preview_network()
                preview = pipeline.drain(sketch(request, self.settings, hypotheses, network, previous), keep)
                self._show_preview(request, preview)
                if request.is_complete and self.settings.live.improve:
                    steps = improve(preview, self.settings, hypotheses, network, is_complete=True)
                    self._show_preview(request, pipeline.drain(steps, keep))
        finally:
            self.current_request = None
        self._can_improve = self.settings.live.improve and not request.is_complete

    def _stop_if_overtaken(self, *_: Any) -> None:
        if self.current_request is not None and self.mailbox.is_overtaken(self.current_request):
            raise Superseded

    def load_preview_network(self) -> Trained:
        """The network of the pictures, read once; a sketch can be given up between its layers, too."""
        if self._trained is None:
            network, card = load_network(self.settings.phasing.network)
            # What is new to the network the full job says; a picture does without the forward pass that finds out.
            self._trained = network, replace(card, familiar={})
            for layer in self._trained[0].modules():
                layer.register_forward_pre_hook(self._stop_if_overtaken)
        return self._trained

    def _improve_preview(self) -> bool:
        """Refine the last picture until something else is to be done; False where there is none to refine."""
        if not self._can_improve or self._preview is None:
            return False
        request, preview = self._preview
        self._can_improve = False

        def refine() -> None:
            steps = improve(preview, self.settings, self.settings.live.hypotheses, self.load_preview_network(), is_complete=False)
            with use_one_thread():
                self._show_preview(request, pipeline.drain(steps, self._stop_if_busy))

        self._run_guarded(request.name, refine, quiet=(Superseded, DataError))
        return True

    def _stop_if_busy(self, _: Progress | Preview) -> None:
        if self.mailbox.has_work() or self.stop.is_set():
            raise Superseded

    def _serve_previews(self, _: Progress) -> None:
        """Called after each iteration of the full job."""
        if self.stop.is_set():
            raise Superseded
        self.make_requested_preview()

    def _show_preview(self, request: PreviewRequest, preview: Preview) -> None:
        assert preview.result is not None
        self._preview = (request, preview)
        self._publish(preview.result, request)

    def _publish(self, result: Reconstruction, source_scan: PreviewRequest | FinishedScan) -> None:
        """Put a result on the board, if its scan is still the one that is shown, and into the journal."""
        seconds, quality = time.monotonic() - source_scan.began, result.quality
        record = PreviewRecord(seconds, source_scan.frames, result.method, quality.chi2, quality.llk_free, result.verdict)
        current = self.status.latest()[1]
        if current.scan == source_scan.name:
            self.status.change(result=result, previews=(*current.previews, record))
        llk_free = quality.llk_free if np.isfinite(quality.llk_free) else None
        facts = {"method": result.method, "chi2": quality.chi2, "llk_free": llk_free, "verdict": result.verdict}
        self.journal.write("picture", source_scan.name, source_scan.frames, **facts, seconds=round(seconds, 3))

    def finish_scan(self, finished: FinishedScan) -> None:
        """The full job on a scan that is over, its result on disk, and on the board."""
        row, path = self._extend_series(finished) if self.settings.live.series else self._reconstruct(finished)
        memory.trim_heap()  # or a session of many scans grows
        current = self.status.latest()[1]
        state = {"state": "failed" if row["verdict"] == "failed" else "done"} if current.scan == finished.name else {}
        self.status.change(series=(*current.series, row), finished=(*current.finished, path), **state)
        self.journal.write("result", finished.name, finished.frames, file=path.name, verdict=row["verdict"], chi2=row["chi2"])
        if not self.settings.live.keep and not self.settings.live.series:
            shutil.rmtree(finished.path, ignore_errors=True)

    def _reconstruct(self, finished: FinishedScan) -> tuple[table.Row, Path]:
        result = pipeline.drain(pipeline.run(finished.path, self.settings), self._serve_previews)
        # The data file first: once it is there the scan counts as done.
        write(result, self.folder, tuple(dict.fromkeys(("cxi", *self.settings.output.formats))))
        self._publish(result, finished)
        first = next((row["d_spacing_m"] for row in self.status.latest()[1].series if row.get("d_spacing_m")), None)
        row = {"input": str(finished.path), "name": finished.name, "time": None, **table.measured(result, first)}
        return row, self.folder / f"{finished.name}.cxi"

    def _extend_series(self, finished: FinishedScan) -> tuple[table.Row, Path]:
        """All scans so far as a series; rows that are there hold, so only this one is phased."""
        done = [path for path, _ in recordings_in(self.recordings) if (self.folder / f"{path.name}.cxi").exists()]
        sources = series.sources([*done, finished.path], None, (), None, "recorded")
        quiet = replace(self.settings, series=replace(self.settings.series, movie=False))
        row: table.Row = {}
        for report in series.run(sources, self.folder, quiet, self._serve_previews):
            row = report.row
        path = self.folder / f"{row['name']}.cxi"
        if not path.exists():
            raise DataError(f"{finished.name}: {row['reasons']}")
        self._publish(results.read(path), finished)
        return row, path

    def _run_guarded(self, name: str, job: Callable[[], None], quiet: tuple[type[Exception], ...] = (Superseded,)) -> None:
        """Do a job; what goes wrong is said, and the session goes on."""
        try:
            job()
        except quiet:
            return
        except Exception as error:
            report_error(self.status, self.journal, name, error)
            current = self.status.latest()[1]
            if current.scan == name and current.state == "phasing":
                self.status.change(state="failed")

    def _resume(self) -> None:
        """Scans that were over when an earlier session was killed are finished first; those that it cut off are named."""
        for path, end in recordings_in(self.recordings):
            if (self.folder / f"{path.name}.cxi").exists():
                continue
            if end is None:
                self.journal.write("scan cut off", path.name)
                self.status.add_trouble(f"{path.name}: cut off when an earlier session ended; its frames are in {path}")
                recorded.mark(path, "the session ended")
            elif not end["aborted"]:
                self.mailbox.submit(FinishedScan(path.name, path, end["frames"], time.monotonic()))
