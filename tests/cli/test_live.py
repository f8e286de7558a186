"""What cannot be watched is said in one line; the command at work: tests/live/test_end_to_end.py."""

from __future__ import annotations

import pytest
from command_line import run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["kafka:x"], "kafka"),
        (["folder:frames", "--set", "live.evry=1"], "did you mean"),
        (["folder:frames", "--like", "none.cxi"], "no such file"),
    ],
)
def test_what_cannot_be_watched_is_said_in_one_line(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("braggshot.cli.live.end_as_by_ctrl_c", lambda: None)
    assert run("live", *arguments, "-o", "out", "--no-browser") == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
