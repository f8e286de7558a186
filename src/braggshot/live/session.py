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
from braggshot.live.mailbox import Desk, Over, Wanted
from braggshot.live.messages import Source
from braggshot.live.preview import Picture, improved, sketch
from braggshot.live.receiver import Receiver, said
from braggshot.live.status import Board, Journal
from braggshot.nn.weights import load_network
from braggshot.output import OutputConfig, check_writable, write
from braggshot.phasing import memory
from braggshot.phasing.strategies import Trained
from braggshot.series import SeriesSettings, table
from braggshot.snapshot import Judged
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


class _Superseded(Exception):
    """Something more urgent is to be done."""


@contextmanager
def _one_thread() -> Iterator[None]:
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
        self, folder: str | Path, settings: LiveSettings | None = None, board: Board | None = None, like: Scan | None = None
    ) -> None:
        self.folder, self.settings, self.board = Path(folder), settings or LiveSettings(), board or Board()
        check_writable(self.folder)
        self.recordings = self.folder / RECORDINGS
        self.journal, self.desk, self.stop = Journal(self.folder / "events.jsonl"), Desk(), threading.Event()
        assembly = Assembly(self.recordings, like, lambda name: (self.folder / f"{name}.cxi").exists())
        self.receiver = Receiver(assembly, self.desk, self.board, self.journal, self.settings.live.every)
        self._picture: tuple[Wanted, Picture] | None = None  # the last, or as much of the next as was made
        self._rough = False  # whether that picture could still be improved
        self._making: Wanted | None = None  # the sketch that is being made
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
            if self._make_wanted():
                continue
            over = self.desk.take_over()
            if over is not None:
                self._guarded(over.name, partial(self._finish, over))
                if once:
                    return
            elif not self._improve() and not self.desk.wait(0.2):
                return

    def _make_wanted(self) -> bool:
        """Make the picture that is asked for, if one is."""
        wanted = self.desk.take_wanted()
        if wanted is None:
            return False
        # Before the peak has passed there may be nothing to see, which is no trouble.
        quiet = (_Superseded,) if wanted.whole else (_Superseded, DataError)
        self._guarded(wanted.name, partial(self._sketch, wanted), quiet)
        return True

    def _sketch(self, wanted: Wanted) -> None:
        before = self._picture[1] if self._picture is not None and self._picture[0].name == wanted.name else None

        def keep(part: Progress | Picture) -> None:
            if isinstance(part, Picture):
                self._picture = (wanted, part)
            self._unless_overtaken()

        self._rough, self._making = False, wanted
        try:
            with _one_thread():
                hypotheses, network = self.settings.live.hypotheses, self._network()
                picture = pipeline.drain(sketch(wanted, self.settings, hypotheses, network, before), keep)
                self._show(wanted, picture)
                if wanted.whole and self.settings.live.improve:
                    better = improved(picture, self.settings, hypotheses, network, whole=True)
                    self._show(wanted, pipeline.drain(better, keep))
        finally:
            self._making = None
        self._rough = self.settings.live.improve and not wanted.whole

    def _unless_overtaken(self, *_: Any) -> None:
        if self._making is not None and self.desk.overtakes(self._making):
            raise _Superseded

    def _network(self) -> Trained:
        """The network of the pictures, read once; a sketch can be given up between its layers, too."""
        if self._trained is None:
            network, card = load_network(self.settings.phasing.network)
            # What is new to the network the full job says; a picture does without the forward pass that finds out.
            self._trained = network, replace(card, familiar={})
            for layer in self._trained[0].modules():
                layer.register_forward_pre_hook(self._unless_overtaken)
        return self._trained

    def _improve(self) -> bool:
        """Refine the last picture until something else is to be done; False where there is none to refine."""
        if not self._rough or self._picture is None:
            return False
        wanted, picture = self._picture
        self._rough = False

        def refine() -> None:
            making = improved(picture, self.settings, self.settings.live.hypotheses, self._network(), whole=False)
            with _one_thread():
                self._show(wanted, pipeline.drain(making, self._unless_busy))

        self._guarded(wanted.name, refine, quiet=(_Superseded, DataError))
        return True

    def _unless_busy(self, _: Progress | Picture) -> None:
        if self.desk.busy() or self.stop.is_set():
            raise _Superseded

    def _between(self, _: Progress) -> None:
        """Called after each iteration of the full job."""
        if self.stop.is_set():
            raise _Superseded
        self._make_wanted()

    def _show(self, wanted: Wanted, picture: Picture) -> None:
        assert picture.result is not None
        self._picture = (wanted, picture)
        self._judged(picture.result, wanted)

    def _judged(self, result: Reconstruction, of: Wanted | Over) -> None:
        """Put a result on the board, if its scan is still the one that is shown, and into the journal."""
        seconds, quality = time.monotonic() - of.began, result.quality
        judged = Judged(seconds, of.frames, result.method, quality.chi2, quality.llk_free, result.verdict)
        current = self.board.latest()[1]
        if current.scan == of.name:
            self.board.change(result=result, pictures=(*current.pictures, judged))
        llk_free = quality.llk_free if np.isfinite(quality.llk_free) else None
        facts = {"method": result.method, "chi2": quality.chi2, "llk_free": llk_free, "verdict": result.verdict}
        self.journal.write("picture", of.name, of.frames, **facts, seconds=round(seconds, 3))

    def _finish(self, over: Over) -> None:
        """The full job on a scan that is over, its result on disk, and on the board."""
        row, path = self._in_series(over) if self.settings.live.series else self._alone(over)
        memory.trim_heap()  # or a session of many scans grows
        current = self.board.latest()[1]
        state = {"state": "failed" if row["verdict"] == "failed" else "done"} if current.scan == over.name else {}
        self.board.change(series=(*current.series, row), finished=(*current.finished, path), **state)
        self.journal.write("result", over.name, over.frames, file=path.name, verdict=row["verdict"], chi2=row["chi2"])
        if not self.settings.live.keep and not self.settings.live.series:
            shutil.rmtree(over.path, ignore_errors=True)

    def _alone(self, over: Over) -> tuple[table.Row, Path]:
        result = pipeline.drain(pipeline.run(over.path, self.settings), self._between)
        # The data file first: once it is there the scan counts as done.
        write(result, self.folder, tuple(dict.fromkeys(("cxi", *self.settings.output.formats))))
        self._judged(result, over)
        first = next((row["d_spacing_m"] for row in self.board.latest()[1].series if row.get("d_spacing_m")), None)
        row = {"input": str(over.path), "name": over.name, "time": None, **table.summarise_result(result, first)}
        return row, self.folder / f"{over.name}.cxi"

    def _in_series(self, over: Over) -> tuple[table.Row, Path]:
        """All scans so far as a series; rows that are there hold, so only this one is phased."""
        done = [path for path, _ in recordings_in(self.recordings) if (self.folder / f"{path.name}.cxi").exists()]
        sources = series.list_sources([*done, over.path], None, (), None, "recorded")
        quiet = replace(self.settings, series=replace(self.settings.series, movie=False))
        row: table.Row = {}
        for report in series.run(sources, self.folder, quiet, self._between):
            row = report.row
        path = self.folder / f"{row['name']}.cxi"
        if not path.exists():
            raise DataError(f"{over.name}: {row['reasons']}")
        self._judged(results.read(path), over)
        return row, path

    def _guarded(self, name: str, job: Callable[[], None], quiet: tuple[type[Exception], ...] = (_Superseded,)) -> None:
        """Do a job; what goes wrong is said, and the session goes on."""
        try:
            job()
        except quiet:
            return
        except Exception as error:
            said(self.board, self.journal, name, error)
            current = self.board.latest()[1]
            if current.scan == name and current.state == "phasing":
                self.board.change(state="failed")

    def _resume(self) -> None:
        """Scans that were over when an earlier session was killed are finished first; those that it cut off are named."""
        for path, end in recordings_in(self.recordings):
            if (self.folder / f"{path.name}.cxi").exists():
                continue
            if end is None:
                self.journal.write("scan cut off", path.name)
                self.board.trouble(f"{path.name}: cut off when an earlier session ended; its frames are in {path}")
                recorded.mark_ended(path, "the session ended")
            elif not end["aborted"]:
                self.desk.hand_in(Over(path.name, path, end["frames"], time.monotonic()))
