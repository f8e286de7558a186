from __future__ import annotations

import subprocess
import sys
from threading import Event
from types import SimpleNamespace

import numpy as np
import pytest
from played import assert_equal, listen, toy_scan

from braggshot.errors import ConfigError, OutputError
from braggshot.live.simulator import player as emitting
from braggshot.live.simulator.tiled import TiledSink
from braggshot.live.sources.registry import open_source


@pytest.fixture
def saved(tmp_path):
    np.savez(tmp_path / "toy.npz", data=toy_scan().frames[:])
    return tmp_path / "toy.npz"


@pytest.mark.parametrize("options", [["--hdf5"], ["--hdf5", "--compress", "bslz4"]])
def test_a_file_that_another_process_writes_is_followed(saved, tmp_path, options):
    """SWMR for real: the reader has the file open while the writer of another process appends."""
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-m", "braggshot", "emit", str(saved), "--to", f"folder:{out}", "--rate", "40", *options]
    scan = toy_scan()

    def play():
        subprocess.run(command, check=True, capture_output=True)

    heard = listen(open_source(f"folder:{out}?start=10&step=0.1"), play)
    assert not heard.lost
    for frame in heard.frames("toy_0001").values():
        np.testing.assert_allclose(frame.rocking_angle, scan.rocking_angle[frame.index])
    assert_equal(heard, scan, "toy_0001")


class Counting:
    """A sink that only counts."""

    url = "nowhere:"

    def __init__(self):
        self.sent = []

    def wait(self, stop):
        pass

    def begin(self, scan):
        self.sent.append(scan.name)

    def frame(self, index, image, is_whole):
        self.sent.append(int(image[0, 0]))

    def end(self, is_aborted):
        self.sent.append("end")

    def close(self):
        pass


def test_a_large_scan_is_read_frame_by_frame(monkeypatch):
    monkeypatch.setattr(emitting, "MAX_BYTES_IN_MEMORY", 100)
    sink = Counting()
    assert list(emitting.emit(toy_scan(3), sink, Event())) == [emitting.EmitProgress(1, n) for n in (1, 2, 3)]
    assert sink.sent == ["toy_0001", 0, 1, 2, "end"]


def test_playing_stops_when_told():
    sink, stop = Counting(), Event()
    for sent in emitting.emit(toy_scan(), sink, stop, rate=1000.0):
        if sent.frames == 2:
            stop.set()
    assert sink.sent == ["toy_0001", 0, 1]


def test_a_missing_library_says_what_to_install(monkeypatch):
    def without(name):
        raise ModuleNotFoundError("No module named 'zmq'", name="zmq")

    monkeypatch.setattr(emitting.importlib, "import_module", without)
    with pytest.raises(ConfigError, match=r"needs zmq.*pip install 'braggshot\[live\]'"):
        emitting.open_sink("zmq:tcp://127.0.0.1:*")


def test_a_catalogue_that_does_not_take_a_run_says_what_it_needs(tmp_path):
    def refuse(name, document):
        raise RuntimeError("500 Internal Server Error")

    closed = []
    client = SimpleNamespace(context=SimpleNamespace(http_client=SimpleNamespace(close=lambda: closed.append(True))))
    sink = TiledSink("http://127.0.0.1:1/raw", client, refuse, tmp_path, is_compressed=False)
    with pytest.raises(OutputError, match=r"tiled:.* does not take the start document .*500 Internal.*--write sqlite"):
        list(emitting.emit(toy_scan(), sink, Event()))
    sink.close()
    assert closed == [True]
