from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import run
from played import toy_scan

from braggshot.io.registry import read


@pytest.fixture
def saved(tmp_path):
    np.savez(tmp_path / "toy.npz", data=toy_scan().frames[:])
    return tmp_path / "toy.npz"


def test_the_command_plays_into_a_folder(saved, tmp_path, capsys):
    arguments = ["emit", str(saved), "--to", f"folder:{tmp_path}/out", "--rate", "0", "--faults", "abort=at:3"]
    assert run(*arguments) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"to": f"folder:{tmp_path}/out", "scans": 2, "frames": 15}
    assert (tmp_path / "out/toy_0001/toy_0001.aborted").is_file()
    assert (tmp_path / "out/toy_0002/toy_0002.done").is_file()
    whole = read(tmp_path / "out/toy_0002")
    np.testing.assert_array_equal(whole.frames[:], toy_scan().frames[:])


@pytest.mark.parametrize(
    ("to", "faults", "said"),
    [
        ("kafka:x", "", "cannot emit to 'kafka:x'; known: folder:, pva:, zmq:, stins:, bluesky:"),
        ("folder", "", "SCHEME:TARGET"),
        ("folder:out?colour=red", "", "an option is unknown"),
        ("folder:out?compress=bslz4", "", "or eiger= there is bslz4"),
        ("folder:out", "drop=2", "a share lies between 0 and 1"),
    ],
)
def test_what_cannot_be_played_is_said_in_one_line(saved, capsys, monkeypatch, to, faults, said):
    monkeypatch.chdir(saved.parent)
    assert run("emit", saved, "--to", to, "--faults", faults) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
