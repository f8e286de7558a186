"""What is no series is said in one line; the command at work: tests/series/test_run.py."""

from __future__ import annotations

import pytest
from command_line import run


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--column", "V"], "V"),
        (["--column", "V=1,2,3"], "3"),
        (["--set", "series.cold=0"], "cold starts"),
        (["--scans", "x"], "x"),
    ],
)
def test_what_is_no_series_is_said_in_one_line(scan, tmp_path, capsys, options, said):
    assert run("series", scan, scan, "-o", tmp_path / "out", *options) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
