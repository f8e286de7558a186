"""Objects from one program to another on the command line, and one line for what cannot be converted."""

from __future__ import annotations

import numpy as np
import pytest
from command_line import run
from sample_reconstruction import sample_reconstruction

from braggshot.io import results


@pytest.fixture
def ours(tmp_path):
    path = tmp_path / "crystal.cxi"
    results.write(path, sample_reconstruction())
    return path


def test_there_and_back(ours, tmp_path, capsys):
    assert run("convert", ours, "--to", "cohere", "-o", tmp_path / "exp_54") == 0
    told = capsys.readouterr()
    assert "image.npy" in told.out
    assert "hold no geometry" in told.err
    assert run("convert", tmp_path / "exp_54", "-o", tmp_path / "back.cxi") == 0
    assert run("convert", tmp_path / "back.cxi", "--to", "cdiutils", "--scan", "54", "-o", tmp_path / "dump") == 0
    assert run("convert", tmp_path / "dump", "-o", tmp_path / "end.cxi") == 0
    first, last = results.read(ours), results.read(tmp_path / "end.cxi")
    np.testing.assert_allclose(last.rho, first.rho, rtol=1e-4, atol=1e-4)
    assert "no counts" in capsys.readouterr().err


def test_what_cannot_be_converted_is_said_in_a_line(ours, tmp_path, capsys):
    before = ours.read_bytes()
    for arguments, said in (
        (["-o", tmp_path / "out"], "say by --to"),
        (["-o", tmp_path / "out.cxi", "--to", "cohere"], "writes a folder"),
        (["-o", tmp_path / "out", "--to", "npz"], "writes a .npz file"),
        (["-o", ours], "which is read here"),
    ):
        assert run("convert", ours, *arguments) == 1
        error = capsys.readouterr().err
        assert said in error
        assert "Traceback" not in error
    assert ours.read_bytes() == before
