"""A session: pictures while frames come, results when they have, and nothing that fails ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import live_runs
import numpy as np
import pytest
from live_runs import QUICK, finished, is_same_but_for_twin_and_place, messages, source_of, write_scan

from braggshot import pipeline, report
from braggshot.errors import OutputError
from braggshot.io import registry, results
from braggshot.live import session as module
from braggshot.live.config import resolve
from braggshot.live.messages import Arrived, Dropped, End
from braggshot.live.session import Session
from braggshot.live.sources.memory import MemorySource
from braggshot.live.status import Status
from braggshot.series.registration import carry_neighbour, register
from braggshot.volumes import Frame


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A prepared volume whose planes are the frames."""
    return registry.read(write_scan(tmp_path_factory.mktemp("scan") / "crystal.cxi"))


def test_the_result_is_that_of_reconstruct(scan, tmp_path):
    session = Session(tmp_path, resolve(QUICK))
    events = finished(session, source_of(messages(scan, indices=np.random.default_rng(0).permutation(32))))
    assert [event["event"] for event in events if event["event"] != "picture"] == [
        "session started", "scan started", "scan finished", "result", "session ended",
    ]  # fmt: skip
    assert {event["method"] for event in events if event["event"] == "picture"} == {"oneshot", "iterative"}
    offline = pipeline.reconstruct(replace(scan, name="s"), {name: QUICK[name] for name in ("phasing", "output")})
    live = results.read(tmp_path / "s.cxi")
    assert np.array_equal(live.volume.intensity, offline.volume.intensity)
    assert np.array_equal(live.volume.valid, offline.volume.valid)
    assert is_same_but_for_twin_and_place(live, offline)
    before, last = session.status.latest()[1].previews[-2:]
    assert (before.method, last.method) == ("oneshot", "iterative")
    assert "to be as in the picture before" in live.choices["twin"]
    assert np.array_equal(session.status.latest()[1].result.rho, live.rho)  # the page and the file hold one object
    assert not (tmp_path / ".live" / "s").exists()
    number, shown = session.status.latest()
    assert number > 0
    assert (shown.state, shown.scan, shown.received, shown.expected) == ("done", "s", 32, 32)
    assert shown.result is not None
    assert [picture.method for picture in shown.previews][-1] == "iterative"
    assert shown.finished == (tmp_path / "s.cxi",)
    assert shown.series[0]["verdict"] == shown.result.verdict
    assert np.isfinite(shown.rocking).all()


def test_pictures_form_while_frames_come_and_missing_frames_are_masked(scan, tmp_path):
    """Each batch of frames waits for the picture of the one before, so what is seen is no matter of speed."""
    status, seen = Status(), []

    class Waiting(MemorySource):
        def messages(self, stop):
            for message in messages(scan, indices=[index for index in range(32) if index != 9]):
                yield message
                if isinstance(message, Arrived) and message.frame.index % 6 == 5:
                    known = len(status.latest()[1].previews)
                    end = time.monotonic() + 60
                    while len(status.latest()[1].previews) == known and time.monotonic() < end and message.frame.index >= 17:
                        yield None
                        time.sleep(0.01)
                    seen.append(status.latest()[1])

    session = Session(tmp_path, resolve({**QUICK, "live": {"hypotheses": 1, "every": 6, "improve": False}}), status)
    finished(session, Waiting())
    with_picture = [snapshot for snapshot in seen if snapshot.result is not None]
    assert [snapshot.previews[-1].frames for snapshot in with_picture][-3:] == [12, 18, 24]
    part = next(snapshot for snapshot in with_picture if snapshot.previews[-1].frames == 18).result.volume
    assert part.valid.any(axis=(1, 2)).tolist() == [index < 19 and index != 9 for index in range(32)]
    is_complete = results.read(tmp_path / "s.cxi").volume
    assert is_complete.valid.any(axis=(1, 2)).tolist() == [index != 9 for index in range(32)]
    assert status.latest()[1].received == 31


def test_one_failure_is_said_and_the_next_scan_comes(scan, tmp_path):
    dark = replace(scan, frames=np.zeros((32, 32, 32), np.float32))
    garbage = [Dropped("malformed", "x"), Arrived("nobody", Frame(0, np.zeros((3, 3))))]
    session = Session(tmp_path, resolve(QUICK))
    events = finished(session, source_of(messages(dark, "dark"), garbage, messages(scan, "bright")))
    troubles = [event for event in events if event["event"] == "trouble"]
    assert troubles
    assert {event["scan"] for event in troubles} == {"dark"}
    assert "no counts" in troubles[0]["reason"]
    assert [event["scan"] for event in events if event["event"] == "result"] == ["bright"]
    assert events[-1]["dropped"] == {"malformed": 1, "no scan": 1}
    assert (tmp_path / ".live" / "dark" / "frames.raw").exists()  # its frames are kept
    shown = session.status.latest()[1]
    assert shown.dropped == {"malformed": 1, "no scan": 1}
    assert any("dark" in words for words in shown.trouble)


def test_the_final_crystal_has_the_twin_and_place_of_the_picture_before(scan, tmp_path, monkeypatch):
    """Whichever twin the full job finds: here it finds the other one, two voxels off."""
    real, pictures = pipeline.prepare_and_phase, []

    def other_twin(*arguments):
        found = yield from real(*arguments)
        aside = {"rho": found.rho[::-1, ::-1, ::-1].conj(), "support": found.support[::-1, ::-1, ::-1]}
        return replace(found, **{name: np.roll(array, (3, 1, 1), (0, 1, 2)) for name, array in aside.items()})

    monkeypatch.setattr(pipeline, "prepare_and_phase", other_twin)
    show = Session._show_preview
    monkeypatch.setattr(Session, "_show_preview", lambda *shown: (pictures.append(shown[2].result), show(*shown)))
    finished(Session(tmp_path, resolve(QUICK)), source_of(messages(scan)))
    live, before = results.read(tmp_path / "s.cxi"), pictures[-1]
    _, placed = register(live, carry_neighbour(before, live.volume))
    assert not placed.twin
    assert placed.shift == (0, 0, 0)
    assert placed.correlation > 0.8


def test_a_scan_that_cannot_be_phased_is_told_apart_from_a_bad_crystal(scan, tmp_path, monkeypatch):
    def fails(*_):
        raise RuntimeError("a bug")
        yield

    monkeypatch.setattr(pipeline, "prepare_and_phase", fails)
    session = Session(tmp_path, resolve(QUICK))
    finished(session, source_of(messages(scan)))
    shown = session.status.latest()[1]
    assert (shown.state, shown.reason, shown.work) == ("unphased", "RuntimeError: a bug", None)
    assert shown.trouble[-1] == "s: RuntimeError: a bug"


def test_frames_and_what_is_waited_for_are_told_from_the_first_frame_on(scan, tmp_path):
    status, seen = Status(), []

    class Slow(MemorySource):
        def messages(self, stop):
            for message in list(messages(scan))[:6]:
                yield message
                seen.append(status.latest()[1])

    finished(Session(tmp_path, resolve(QUICK), status), Slow())
    assert seen[0].images is None
    assert "first frame" in seen[0].work.words
    assert np.array_equal(seen[1].images.last, scan.frames[0])
    assert "waiting for the peak" in seen[1].work.words
    assert seen[1].received == 1


def test_an_aborted_scan_is_kept_and_said(scan, tmp_path):
    session = Session(tmp_path, resolve(QUICK))
    aborted = [*list(messages(scan, "s"))[:20], End("s", "beam lost")]
    events = finished(session, source_of(aborted, messages(scan, "s")), once=True)
    assert [(event["scan"], event["reason"]) for event in events if event["event"] == "scan aborted"] == [("s", "beam lost")]
    assert [event["scan"] for event in events if event["event"] == "result"] == ["s-2"]
    assert registry.read(tmp_path / ".live" / "s").arrived.sum() == 19
    assert "beam lost after 19 frames" in session.status.latest()[1].trouble[0]


def test_a_source_that_breaks_and_a_worker_that_fails(scan, tmp_path, monkeypatch):
    class Broken(MemorySource):
        def messages(self, stop):
            yield from messages(scan)
            raise OSError("the network is gone")

    def fails(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(module, "sketch", fails)
    session = Session(tmp_path, resolve(QUICK))
    events = finished(session, Broken())
    said = [(event["scan"], event["reason"]) for event in events if event["event"] == "trouble"]
    assert ("source", "OSError: the network is gone") in said
    assert ("s", "RuntimeError: a bug") in said
    assert (tmp_path / "s.cxi").exists()


def test_a_full_desk_never_holds_the_source_up(scan, tmp_path, monkeypatch):
    """While one picture takes its time the source is read to its end, and the newest picture is the next."""
    gate, made = threading.Event(), []

    def slow(wanted, *_):
        made.append(wanted.frames)
        gate.wait(30)
        raise RuntimeError("no picture")
        yield

    class Opening(MemorySource):
        def messages(self, stop):
            yield from messages(scan)
            gate.set()

    monkeypatch.setattr(module, "sketch", slow)
    finished(Session(tmp_path, resolve({**QUICK, "live": {"every": 1}})), Opening())
    assert made[-1] == 32
    assert len(made) <= 3


def test_series_mode_follows_one_crystal(scan, tmp_path):
    session = Session(tmp_path, resolve({**QUICK, "live": {"hypotheses": 1, "series": True}}))
    finished(session, source_of(messages(scan, "one"), messages(scan, "two")))
    shown = session.status.latest()[1]
    assert [row["name"] for row in shown.series] == ["one", "two"]
    assert shown.series[1]["correlation_to_previous"] > 0.8
    assert (tmp_path / "series.csv").exists()
    assert {file.name for file in shown.finished} == {"one.cxi", "two.cxi"}


def test_the_first_crystal_of_a_series_is_turned_as_the_pictures_before_it(scan, tmp_path):
    session = Session(tmp_path, resolve({**QUICK, "live": {"hypotheses": 1, "series": True}}))
    finished(session, source_of(messages(scan, "one")))
    assert "to be as in the picture before" in results.read(tmp_path / "one.cxi").choices["twin"]
    again = Session(tmp_path, resolve({**QUICK, "live": {"hypotheses": 1, "series": True}}))
    finished(again, source_of(messages(scan, "two")))
    assert "picture before" not in results.read(tmp_path / "two.cxi").choices["twin"]  # it is turned as the first one


KILLED = """
import os, signal, sys
from braggshot.io import registry
from braggshot.live import session as module
from braggshot.live.config import resolve
from braggshot.live.sources.memory import MemorySource
sys.path.insert(0, sys.argv[3])
from live_runs import QUICK, messages
scan = registry.read(sys.argv[1])
module.Session.make_requested_preview = lambda self: False
finish = module.Session.finish_scan

def once(self, over):
    if over.name == "two":
        os.kill(os.getpid(), signal.SIGKILL)
    finish(self, over)

module.Session.finish_scan = once
source = MemorySource([*messages(scan, "one"), *messages(scan, "two"), *list(messages(scan, "three"))[:10]])
module.Session(sys.argv[2], resolve(QUICK)).run(source)
"""


def test_killed_and_started_again_no_finished_scan_is_lost(scan, tmp_path):
    path = scan.provenance["path"]
    arguments = [sys.executable, "-c", KILLED, path, tmp_path, Path(live_runs.__file__).parent]
    done = subprocess.run(arguments, check=False, capture_output=True, text=True, env=os.environ)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / "one.cxi").exists()
    assert not (tmp_path / "two.cxi").exists()
    events = finished(Session(tmp_path, resolve(QUICK)), source_of())
    assert [event["scan"] for event in events if event["event"] == "result"] == ["one", "two"]
    cut_off = [event["scan"] for event in events if event["event"] == "scan cut off"]
    assert cut_off in ([], ["three"])  # as far as the first session had come
    offline = pipeline.reconstruct(replace(scan, name="two"), {name: QUICK[name] for name in ("phasing", "output")})
    assert np.array_equal(results.read(tmp_path / "two.cxi").rho, offline.rho)


def test_pictures_that_a_killed_session_did_not_come_to_are_made_when_it_starts_again(scan, tmp_path):
    """The crystal counts as done once its CXI file is there; its other files, and the event, must still come."""
    wanted = QUICK | {"output": {"formats": ["cxi", "vti", "png"]}, "live": QUICK["live"] | {"keep": True}}
    finished(Session(tmp_path, resolve(wanted)), source_of(messages(scan, "one")))
    crystal = (tmp_path / "one.cxi").read_bytes()
    for path in (tmp_path / "one.png", tmp_path / "one.vti", tmp_path / "events.jsonl"):
        path.unlink()
    left = tmp_path / ".one-0123abcd.cxi"  # what a write leaves that was killed
    left.write_bytes(b"half")
    events = finished(Session(tmp_path, resolve(wanted)), source_of())
    (told,) = [event for event in events if event["event"] == "result"]
    assert told["scan"] == "one"
    assert told["frames"] == scan.frames.shape[0]
    assert told["files"] == ["one.cxi", "one.vti", "one.png"]
    assert all((tmp_path / name).exists() for name in told["files"])
    assert (tmp_path / "one.cxi").read_bytes() == crystal
    assert not left.exists()
    assert not [event for event in finished(Session(tmp_path, resolve(wanted)), source_of()) if event["event"] == "result"][1:]


def test_pictures_that_could_not_be_written_are_made_when_the_session_starts_again(scan, tmp_path, monkeypatch):
    """A full disk may take the pictures of a crystal whose frames are no longer kept; those that a user deletes stay away."""
    wanted = QUICK | {"output": {"formats": ["cxi", "vti", "png"]}}

    def full(*_, **__):
        raise OutputError("cannot write one.png: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(report, "write_png", full)
        first = finished(Session(tmp_path, resolve(wanted)), source_of(messages(scan, "one")))
    assert [event["is_loss"] for event in first if event["event"] == "trouble"] == [True]
    assert not (tmp_path / "one.png").exists()
    (tmp_path / "one.vti").unlink()
    again = finished(Session(tmp_path, resolve(wanted)), source_of())
    assert [event["files"] for event in again if event["event"] == "result"][-1] == ["one.cxi", "one.vti", "one.png"]
    (tmp_path / "one.png").unlink()
    finished(Session(tmp_path, resolve(wanted)), source_of())
    assert not (tmp_path / "one.png").exists()


def test_a_recording_that_cannot_be_completed_does_not_lose_the_next_one(scan, tmp_path, monkeypatch):
    """A picture may fail for any reason; the scans behind it are still phased."""
    kept = QUICK | {"live": QUICK["live"] | {"keep": True}}
    for name in ("one", "two"):
        finished(Session(tmp_path, resolve(kept)), source_of(messages(scan, name)))
    (tmp_path / "two.cxi").unlink()
    (tmp_path / "events.jsonl").unlink()

    def broken(*_):
        raise ValueError("no picture")

    monkeypatch.setattr("braggshot.live.earlier._complete", broken)
    events = finished(Session(tmp_path, resolve(kept)), source_of())
    assert [event["scan"] for event in events if event["event"] == "trouble"] == ["one"]
    assert [event["scan"] for event in events if event["event"] == "result"] == ["two"]
