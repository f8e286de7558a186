"""The program itself: what it does before any command."""

from __future__ import annotations

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
