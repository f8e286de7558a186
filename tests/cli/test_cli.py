"""The program itself: what it does before any command."""

from __future__ import annotations

import gc

import pytest
from command_line import run


def test_bad_usage_is_status_two(capsys):
    assert run("reconstruct") == 2
    assert run("reconstruct", "--nonsense") == 2
    assert run("frobnicate") == 2
    assert run("--help") == 0
    assert run("reconstruct", "--help") == 0
    assert "braggshot reconstruct example.spec" in capsys.readouterr().out


def test_debug_shows_the_traceback(tmp_path):
    from braggshot.errors import FormatError

    with pytest.raises(FormatError):
        run("reconstruct", tmp_path / "none.cxi", "--debug", "-o", tmp_path / "out")


def test_garbage_is_looked_for_seldom_while_a_command_runs(monkeypatch):
    """Imports make a million objects and no garbage; who calls `main` from Python gets the old thresholds back."""
    from braggshot import cli

    seen = []
    monkeypatch.setattr(cli.typer.main, "get_command", lambda _: Noting(seen))
    before = gc.get_threshold()
    assert run("settings") == 0
    assert seen[0][0] > 10 * 700
    assert gc.get_threshold() == before


class Noting:
    """A command that notes the thresholds of the search for garbage."""

    def __init__(self, seen):
        self.main = lambda *_, **__: seen.append(gc.get_threshold())
