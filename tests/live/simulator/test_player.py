from __future__ import annotations

import json
import subprocess
import sys
from threading import Event

import numpy as np
import pytest
from played import assert_equal, listen, toy_scan

from braggshot.cli import main
from braggshot.errors import ConfigError
from braggshot.io.registry import read
from braggshot.live.simulator import player as emitting
from braggshot.live.sources.registry import open_source


@pytest.fixture
def saved(tmp_path):
    np.savez(tmp_path / "toy.npz", data=toy_scan().frames[:])
    return tmp_path / "toy.npz"


def test_the_command_plays_into_a_folder(saved, tmp_path, capsys):
    arguments = ["emit", str(saved), "--to", f"folder:{tmp_path}/out", "--rate", "0", "--faults", "abort=at:3"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"to": f"folder:{tmp_path}/out", "scans": 2, "frames": 15}
    assert (tmp_path / "out/toy_0001/toy_0001.aborted").is_file()
    assert (tmp_path / "out/toy_0002/toy_0002.done").is_file()
    whole = read(tmp_path / "out/toy_0002")
    np.testing.assert_array_equal(whole.frames[:], toy_scan().frames[:])


@pytest.mark.parametrize(
    ("to", "faults", "said"),
    [
        ("kafka:x", "", "cannot emit to 'kafka:x'; known: folder:, pva:, zmq:"),
        ("folder", "", "SCHEME:TARGET"),
        ("folder:out?colour=red", "", "an option is unknown"),
        ("folder:out?compress=bslz4", "", "or eiger= there is bslz4"),
        ("folder:out", "drop=2", "a share lies between 0 and 1"),
    ],
)
def test_what_cannot_be_played_is_said_in_one_line(saved, capsys, monkeypatch, to, faults, said):
    monkeypatch.chdir(saved.parent)
    assert main(["emit", str(saved), "--to", to, "--faults", faults]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


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
