"""What ends a live session, tried: each scan or picture may be lost, that is said, and the next scan comes."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from braggshot.cli import main
from braggshot.errors import OutputError
from braggshot.io.formats import recorded
from braggshot.io.formats.recorded import Plan, Recorder
from braggshot.io.frames import ArrayFrames
from braggshot.live import session as module
from braggshot.live.messages import Arrived, Begin, End
from braggshot.live.preview import prepare_part
from braggshot.live.session import Session
from braggshot.live.sources.folder import source as folder_source
from braggshot.live.sources.memory import MemorySource
from braggshot.live.sources.registry import open_source
from braggshot.live.status import Journal
from braggshot.prepare import PrepareConfig, prepare
from braggshot.volumes import Frame, Scan

FRAMES, SIDE = 6, 16


def images(kind="u2", side=SIDE, frames=FRAMES):
    z, y, x = np.ogrid[:frames, :side, :side]
    shape = (z - frames // 2) ** 2 + (y - side // 2) ** 2 + (x - side // 2) ** 2
    return (1e4 * np.exp(-shape / 8)).astype(kind)


def scan_of(name, pictures):
    yield Begin(name, len(pictures), pictures.shape[1:])
    for index, image in enumerate(pictures):
        yield Arrived(name, Frame(index, image))
    yield End(name)


@pytest.fixture(autouse=True)
def _no_phasing(monkeypatch):
    """Phase nothing: a result is an empty file, so that what is tested here takes no time."""

    def finish(self, finished):
        recorded.read(finished.path)
        (self.folder / f"{finished.name}.cxi").write_bytes(b"braggshot")
        files = {"file": f"{finished.name}.cxi", "files": [f"{finished.name}.cxi"]}
        self.journal.write("result", finished.name, finished.frames, **files, verdict="good", reasons="")

    monkeypatch.setattr(Session, "_rehearse", lambda _: None)
    monkeypatch.setattr(Session, "make_requested_preview", lambda self: self.mailbox.take_request() is not None)
    monkeypatch.setattr(Session, "finish_scan", finish)


def run(folder, source, **how):
    """Run a session to the end of its source; return it, its results and its troubles."""
    heard = []
    session = Session(folder, on_event=heard.append, **how)
    session.run(source)
    results = [event["scan"] for event in heard if event["event"] == "result"]
    troubles = [(event["scan"], event["reason"]) for event in heard if event["event"] == "trouble"]
    for name, reason in troubles:
        assert f"{name}: {reason}" in session.status.latest()[1].trouble
        assert "\n" not in reason
    return session, results, troubles


def source_of(*groups):
    source = MemorySource([message for group in groups for message in group])
    source.close()
    return source


def events(folder):
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


class During(MemorySource):
    """Messages, between which something happens: functions among them are called when the frames before them are recorded."""

    def __init__(self, *steps):
        self.steps = steps

    def messages(self, stop):
        for step in self.steps:
            if callable(step):
                step()
            else:
                yield from step


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 1e300])
def test_pixels_that_hold_no_counts(tmp_path, odd):
    bad = images("f8")
    bad[0, 3, 3] = odd
    bad[3, 8, 8] = odd
    every = np.full_like(bad, odd)
    session, results, troubles = run(tmp_path, source_of(scan_of("bad", bad), scan_of("every", every), scan_of("good", images())))
    assert results == ["bad", "every", "good"]
    assert [name for name, reason in troubles if "hold no counts" in reason] == ["bad", "every"]
    assert session.losses == 0
    assert np.isfinite(session.status.latest()[1].rocking).all()


def test_a_picture_of_odd_pixels(tmp_path):
    bad = images("f4", 32, 32)
    bad[:, 3, 3], bad[16, 16, 15], bad[4, 5, 6] = np.nan, np.inf, -np.inf
    volume = prepare(Scan(ArrayFrames(bad), name="s"), PrepareConfig(aliens="off"))
    assert np.isfinite(volume.intensity).all()
    request = SimpleNamespace(scan=Scan(ArrayFrames(bad), name="s"), brightest=16, frames=32, is_past_peak=True, is_complete=True)
    assert np.isfinite(prepare_part(request, PrepareConfig(shape=(16, 16, 16)), None).volume.intensity).all()


def test_an_example_scan_of_another_detector(tmp_path):
    like = Scan(
        ArrayFrames(images(side=20)), "like", valid=np.ones((20, 20), bool), dark=np.zeros((20, 20)), flat=np.ones((20, 20))
    )
    session, results, troubles = run(tmp_path, source_of(scan_of("a", images()), scan_of("b", images(side=20))), like=like)
    assert results == ["a", "b"]
    assert [name for name, _ in troubles] == ["a"]
    assert "another shape" in troubles[0][1] or "have shape (16, 16)" in troubles[0][1]
    assert session.losses == 0


def test_a_full_disk_that_empties_again(tmp_path, monkeypatch):
    full = threading.Event()
    real = os.pwrite

    def pwrite(*arguments):
        if full.is_set():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    monkeypatch.setattr(os, "pwrite", pwrite)
    messages = list(scan_of("a", images()))
    source = During(
        *(messages[:3], full.set, messages[3:5], full.clear, messages[5:]),  # frames 2 and 3 are lost
        *(full.set, scan_of("b", images()), full.clear, scan_of("c", images())),
    )
    session, results, troubles = run(tmp_path, source)
    assert results == ["a", "c"]
    assert session.losses == 2
    assert [name for name, _ in troubles] == ["a", "b"]
    assert all("No space left on device" in reason for _, reason in troubles)
    assert session.status.latest()[1].dropped["not recorded"] == 2 + 5


class Waiting:
    """A source that has one scan, and waits for the next."""

    def __init__(self, messages):
        self.first = messages

    def messages(self, stop):
        yield from self.first
        while not stop.wait(0.01):
            yield None


def test_a_session_of_one_scan_ends_if_that_cannot_be_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "pwrite", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
    session = Session(tmp_path)
    session.run(Waiting(scan_of("a", images())), once=True)
    assert session.losses == 1
    assert not (tmp_path / "a.cxi").exists()


def test_a_session_of_one_scan_ends_if_no_volume_can_be_made_of_it(tmp_path):
    """A scan whose energy changes needs a geometry, and nothing gives one."""
    messages = [
        replace(message, frame=replace(message.frame, energy=1e-15 * (1 + message.frame.index)))
        if isinstance(message, Arrived)
        else message
        for message in scan_of("a", images())
    ]
    session = Session(tmp_path)
    session.run(Waiting(messages), once=True)
    assert session.losses == 1
    assert not (tmp_path / "a.cxi").exists()


def test_no_room_is_said_before_frames_come(tmp_path, monkeypatch):
    session_at = Session(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(total=10**9, free=2**24 + 100))
    (opened, said) = list(session_at.receiver.assembly.take(Begin("s", 100, (100, 100))))
    assert "are free" in said.reason
    session_at.journal.close()
    assert opened.scan.received == 0


def test_a_recording_on_a_full_disk_is_an_error_and_no_signal(tmp_path, monkeypatch):
    """Nothing is mapped into memory, where a full disk is a SIGBUS."""
    recorder = Recorder(tmp_path / "r", Plan("s", (SIDE, SIDE), np.dtype("u2"), FRAMES))
    monkeypatch.setattr(os, "pwrite", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(OutputError, match="No space left"):
        recorder.add(Frame(0, images()[0]))
    monkeypatch.undo()
    assert recorder.add(Frame(0, images()[0])) == ""
    assert np.array_equal(recorder.scan().frames[0, 2:9, 3:5], images()[0, 2:9, 3:5])
    for found in (recorder.scan(), recorded.read(tmp_path / "r")):
        assert not isinstance(found.frames, np.memmap)
        assert not found.frames[1:].any()
        assert "mmap" not in type(found.frames).__name__


@pytest.mark.parametrize("gone", ["recordings", "all"])
def test_folders_that_are_removed(tmp_path, gone):
    out = tmp_path / "out"
    messages = list(scan_of("a", images()))
    source = During(messages[:4], lambda: shutil.rmtree(out / ".live" if gone == "recordings" else out), messages[4:],
                    scan_of("b", images()))  # fmt: skip
    session, results, troubles = run(out, source)
    assert results == ["b"]
    assert session.losses >= 1
    assert {name for name, _ in troubles} == {"a"}
    assert {"scan finished", "result"} <= {event["event"] for event in events(out) if event["scan"] == "b"}


def test_whatever_a_source_does(tmp_path):
    class Broken(MemorySource):
        def messages(self, stop):
            yield from scan_of("a", images())
            yield Begin("odd", 2**70)
            yield Arrived("odd", Frame(0, SimpleNamespace(shape=None, dtype=None)))
            yield from scan_of("b", images())
            raise RuntimeError("a bug\x1b[2J\nof many lines")

    session, results, troubles = run(tmp_path, Broken())
    assert results == ["a", "b"]
    assert session.losses >= 1
    assert ("source", "RuntimeError: a bug?[2J of many lines") in troubles


def test_whatever_the_page_does(tmp_path, monkeypatch):
    """What cannot be shown costs no frame."""
    monkeypatch.setattr(module.Receiver, "_tell", lambda *_: 1 / 0)
    session, results, troubles = run(tmp_path, source_of(scan_of("a", images()), scan_of("b", images())))
    assert results == ["a", "b"]
    assert session.losses == 0
    assert [name for name, _ in troubles] == ["a", "b"]


def test_whatever_phasing_and_writing_do(tmp_path, monkeypatch):
    real = Session.finish_scan
    failures = {"a": MemoryError("no memory"), "b": OutputError("No space left on device"), "c": RuntimeError("a bug")}

    def finish(self, finished):
        if finished.name in failures:
            raise failures[finished.name]
        real(self, finished)

    monkeypatch.setattr(Session, "finish_scan", finish)
    session, results, troubles = run(tmp_path, source_of(*(scan_of(name, images()) for name in "abcd")))
    assert results == ["d"]
    assert session.losses == 3
    assert [name for name, _ in troubles] == ["a", "b", "c"]
    monkeypatch.setattr(Session, "finish_scan", real)
    assert run(tmp_path, source_of())[1] == ["a", "b", "c"]  # started again it takes what is unfinished


def test_a_picture_that_cannot_be_written_does_not_lose_the_crystal(tmp_path, monkeypatch):
    from sample_reconstruction import sample_reconstruction

    found = sample_reconstruction()

    def write(result, folder, formats):
        (folder / f"{result.volume.name}.cxi").write_bytes(b"")
        raise ValueError("no picture")

    monkeypatch.setattr(module, "write", write)
    session = Session(tmp_path)
    assert session._write("s", found) == [tmp_path / f"{found.volume.name}.cxi"]
    assert session.losses == 1
    session.journal.close()


def test_a_journal_on_a_full_disk_or_without_its_folder(tmp_path, monkeypatch):
    heard = []
    journal = Journal(tmp_path / "out" / "events.jsonl", heard.append)
    journal.write("one")
    real = os.write
    monkeypatch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
    journal.write("two")
    journal.write("three")
    assert [event["event"] for event in heard] == ["one", "two", "trouble", "three"]
    monkeypatch.setattr(os, "write", lambda descriptor, text: real(descriptor, text[:7]))  # the disk takes a part of a line
    journal.write("four")
    assert [event["event"] for event in events(tmp_path / "out")] == ["one", "two", "trouble", "three", "four"]
    shutil.rmtree(tmp_path / "out")
    journal.write("five")
    assert [event["event"] for event in events(tmp_path / "out")] == ["five"]
    journal.close()


def test_a_terminal_that_is_gone(tmp_path):
    def gone(_):
        raise BrokenPipeError

    session = Session(tmp_path, on_event=gone)
    session.run(source_of(scan_of("a", images())))
    assert (tmp_path / "a.cxi").exists()


def test_two_sessions_in_one_folder(tmp_path):
    first = Session(tmp_path)
    with pytest.raises(OutputError, match="another live session"):
        Session(tmp_path)
    first.journal.close()
    Session(tmp_path).journal.close()


@pytest.mark.parametrize("ending", [b"", b"{", b"[]", b"null", b'{"aborted": 1}', b"\xff\xfe", b"[" * 5000])
def test_a_damaged_ending(tmp_path, ending):
    for name in ("a", "b"):
        recorder = Recorder(tmp_path / ".live" / name, Plan(name, (SIDE, SIDE), np.dtype("u2"), FRAMES))
        for index, image in enumerate(images()):
            recorder.add(Frame(index, image))
    (tmp_path / ".live" / "a" / "ended.json").write_bytes(ending)
    _, results, troubles = run(tmp_path, source_of())
    assert sorted(results) == ["a", "b"]  # all frames of b came, although nothing says that it ended
    assert not troubles


def test_recordings_that_are_damaged_hold_no_other_up(tmp_path):
    for name in "abcd":
        recorder = Recorder(tmp_path / ".live" / name, Plan(name, (SIDE, SIDE), np.dtype("u2"), FRAMES))
        for index, image in enumerate(images()):
            recorder.add(Frame(index, image))
    (tmp_path / ".live" / "a" / "about.h5").write_bytes(b"")
    (tmp_path / ".live" / "b" / "frames.raw").write_bytes(b"")
    (tmp_path / ".live" / "c" / "arrived.raw").write_bytes(b"x")
    session, results, _ = run(tmp_path, source_of(scan_of("e", images())))
    assert sorted(results) == ["d", "e"]
    assert session.losses >= 2


def test_a_flood_of_single_frames(tmp_path):
    flood = [scan_of(f"series_{number}", images(frames=1)) for number in range(40)]
    session, results, troubles = run(tmp_path, source_of(*flood[:20], scan_of("true", images()), *flood[20:]))
    assert results == ["true"]
    assert not troubles
    assert session.losses == 0
    assert session.status.latest()[1].dropped["single frame"] == 40
    assert run(tmp_path, source_of())[1] == []  # nor are they taken up again


def write_frames(folder, name, frames=FRAMES):
    folder.mkdir(exist_ok=True)
    for index, image in enumerate(images(frames=frames)):
        np.save(folder / f"{name}_{index:05d}.npy", image)
    (folder / f"{name}.done").touch()


class Watching:
    """A source that ends after the scan `last`; without one, or if it does not come, when the folder has been quiet for a while."""

    def __init__(self, folder, last="", **options):
        self.source, self.last = folder_source.connect(str(folder), folder_source.Options(**options)), last
        self.quiet = 20.0 if last else 0.8  # [s]
        self.leave_out = self.source.leave_out

    def messages(self, stop):
        heard = time.monotonic()
        for message in self.source.messages(stop):
            heard = time.monotonic() if message is not None else heard
            if time.monotonic() - heard > self.quiet:
                return
            yield message
            if isinstance(message, End) and message.scan == self.last:
                return


def test_what_may_lie_in_a_watched_folder(tmp_path):
    watched = tmp_path / "frames"
    write_frames(watched, "a")
    os.mkfifo(watched / "b_00000.npy")
    os.mkfifo(watched / "c.h5")
    os.mkfifo(watched / "d_master.h5")
    (watched / "loop_00000.tif").symlink_to(watched / "loop_00000.tif")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(watched / "e_00000.tif"))
        (watched / "f_00000.npy").write_bytes(b"no numpy")
        Path(os.fsdecode(os.fsencode(watched) + b"/\xff\xfe_00000.npy")).write_bytes((watched / "a_00000.npy").read_bytes())
        threading.Timer(0.5, write_frames, (watched, "z")).start()
        session, results, _ = run(tmp_path / "out", Watching(watched, last="z"))
    assert [name for name in results if name in "az"] == ["a", "z"]
    assert session.status.latest()[1].dropped["no file"] >= 3
    assert all("\x1b" not in line and line.isascii() for line in (tmp_path / "out" / "events.jsonl").read_text().splitlines())


def test_a_watch_that_fails(tmp_path, monkeypatch):
    import watchfiles

    def fails(*_, **__):
        raise watchfiles._rust_notify.WatchfilesRustInternalError("no UTF-8")
        yield

    monkeypatch.setattr(watchfiles, "watch", fails)
    write_frames(tmp_path / "frames", "a")
    threading.Timer(0.3, write_frames, (tmp_path / "frames", "b")).start()
    assert run(tmp_path / "out", Watching(tmp_path / "frames", last="b"))[1] == ["a", "b"]


def test_a_file_whose_reader_fails(tmp_path, monkeypatch):
    real = folder_source.read_image

    def fails(path):
        if path.name == "a_00003.npy":
            raise MemoryError("no memory")
        return real(path)

    monkeypatch.setattr(folder_source, "read_image", fails)
    write_frames(tmp_path / "frames", "a")
    write_frames(tmp_path / "frames", "b")
    session, results, troubles = run(tmp_path / "out", Watching(tmp_path / "frames", last="b"))
    assert results == ["a", "b"]
    assert session.losses == 1
    assert troubles[0][0] == "a"


def test_started_again_it_takes_what_is_unfinished_and_not_what_is_done(tmp_path):
    watched, out = tmp_path / "frames", tmp_path / "out"
    write_frames(watched, "a")
    assert run(out, Watching(watched, last="a"))[1] == ["a"]
    write_frames(watched, "b")
    assert run(out, Watching(watched, last="b"))[1] == ["b"]
    assert run(out, Watching(watched))[1] == []
    time.sleep(0.05)
    write_frames(watched, "a")  # measured again, by the same name
    assert run(out, Watching(watched, last="a"))[1] == ["a-2"]


def test_a_message_that_libzmq_gives_the_connection_up_for(tmp_path):
    """A part of a declared 300 MB; the detector listens all the time, and its next series comes."""
    pytest.importorskip("zmq")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        source, stop = open_source(f"zmq:tcp://127.0.0.1:{server.getsockname()[1]}"), threading.Event()
        found = []

        def listen():
            for message in source.messages(stop):
                if message is not None:
                    found.append(message)
                if stop.is_set():
                    return

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            for number in range(2):
                connection, _ = server.accept()
                with connection:
                    connection.sendall(b"\xff" + b"\0" * 8 + b"\x7f" + b"\x03\0NULL" + b"\0" * 16 + b"\0" * 32)
                    connection.recv(64)
                    connection.recv(64)
                    ready = b"\x05READY" + b"\x0bSocket-Type\0\0\0\x04PUSH"
                    connection.sendall(b"\x04" + bytes([len(ready)]) + ready)
                    if number == 0:
                        connection.sendall(b"\x02" + (300 * 10**6).to_bytes(8, "big") + b"\0" * 1000)
                    else:
                        end = b'{"htype": "dheader-1.0", "series": 7, "header_detail": "none"}'
                        connection.sendall(bytes([0, len(end)]) + end)
                    until = time.monotonic() + 8
                    while time.monotonic() < until and len(found) <= number:
                        time.sleep(0.05)
        finally:
            stop.set()
            listener.join(10)
    assert "too large or damaged" in found[0].reason
    assert found[1] == replace(found[1], scan="series_7")


def test_lost_frames_are_the_exit_status(tmp_path, monkeypatch, capsys):
    np.savez(tmp_path / "s.npz", data=images())
    words = ["live", f"replay:{tmp_path / 's.npz'}", "--once", "--no-browser", "--no-token", "-o"]
    assert main([*words, str(tmp_path / "good")]) == 0
    monkeypatch.setattr(os, "pwrite", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
    assert main([*words, str(tmp_path / "full")]) == 1
    assert "events.jsonl" in capsys.readouterr().err


def test_angles_that_cannot_be(recwarn):
    from braggshot.live.sources.dectris.series import goniometer_angles

    assert goniometer_angles({"omega_start": 1e308, "omega_increment": 1e308}, 100) is None
    assert goniometer_angles({"omega_start": -180.0, "omega_increment": 0.01}, 100) is not None
    assert not recwarn.list
