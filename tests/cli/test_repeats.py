"""Repeats of one scan on the command line: one result that names them, and one clear line for what cannot be added."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import QUICK, run


@pytest.fixture
def repeats(tmp_path, counts):
    half = np.random.default_rng(1).binomial(np.asarray(counts).astype(int), 0.5)
    paths = [tmp_path / "first.npz", tmp_path / "second.npz"]
    for path, data in zip(paths, (half, counts - half), strict=True):
        np.savez(path, data=data.astype(np.int32))
    return paths


def test_the_result_names_the_scans_that_were_added(repeats, tmp_path, capsys):
    from braggshot import load_result
    from braggshot.output import inputs_of

    target = tmp_path / "out.cxi"
    assert run("reconstruct", *repeats, "--sum", "-o", target, "--json", *QUICK) == 0
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert record["input"] == ", ".join(map(str, repeats))
    found = load_result(target).reconstruction
    assert "sum of 2 of 2 scans" in found.choices["repeats"]
    assert {path.name for path in inputs_of(found.volume.provenance)} >= {"first.npz", "second.npz"}


def test_what_cannot_be_added_is_refused_in_a_line(repeats, tmp_path, capsys):
    for given, words in (
        (repeats[:1], "a sum needs two scans or more"),
        ([repeats[0], repeats[0]], "the same scan is given twice"),
    ):
        assert run("reconstruct", *given, "--sum", "-o", tmp_path / "out", *QUICK) == 1
        error = capsys.readouterr().err
        assert words in error
        assert "Traceback" not in error
    assert not list((tmp_path / "out").glob("*"))


def test_no_input_of_a_sum_is_replaced(repeats, capsys):
    before = repeats[1].read_bytes()
    assert run("reconstruct", *repeats, "--sum", "-o", repeats[1], "--force", *QUICK) == 1
    assert repeats[1].read_bytes() == before
