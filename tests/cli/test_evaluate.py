from __future__ import annotations

import pytest
from command_line import run

from braggshot.cli import evaluate
from braggshot.crystals.sample import CrystalSettings
from braggshot.evaluation import rows, suites
from braggshot.evaluation.methods import METHODS
from braggshot.iterative.iterate import IterativeConfig


@pytest.fixture
def quick(monkeypatch):
    """A method and a suite that take no time."""
    small = CrystalSettings(shape=(24, 24, 24), phase_range=(1, 1), counts=(1e5, 1e5))
    monkeypatch.setitem(METHODS, "quick", {"method": "iterative", "starts": 1, "iterative": IterativeConfig(recipe="12*HIO+8*ER")})
    monkeypatch.setitem(suites.SUITES, "tiny", suites.Suite("tiny ones", {"one": small}))
    monkeypatch.setattr(evaluate, "METHODS", ("quick",))
    monkeypatch.setattr(evaluate, "SUITES", ("tiny",))


def test_the_command(quick, tmp_path, capsys):
    assert run("evaluate", "--suite", "tiny", "--method", "quick", "--crystals", "1", "-o", tmp_path) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "table.md"), str(tmp_path / "tiny.png")]
    text = (tmp_path / "table.md").read_text()
    assert "## tiny\n\ntiny ones\n" in text
    assert "| one | quick | 1 |" in text
    assert (tmp_path / "tiny.png").stat().st_size > 10_000


def test_parts_run_apart_and_are_joined(quick, tmp_path, capsys):
    """Two parts have one crystal each; the whole makes the third, and its table holds all."""
    common = ("evaluate", "--suite", "tiny", "--method", "quick")
    for first in (0, 1):
        assert run(*common, "--first", str(first), "--crystals", "1", "-o", tmp_path / f"part{first}") == 0
    capsys.readouterr()
    parts = ("--part", tmp_path / "part0", "--part", tmp_path / "part1")
    assert run(*common, "--crystals", "3", *parts, "-o", tmp_path / "all") == 0
    assert [row["crystal"] for row in rows.read(tmp_path / "all" / "results.json")] == ["one #0", "one #1", "one #2"]
    said = capsys.readouterr().err
    assert "one #2" in said
    assert "one #1" not in said
    assert "| one | quick | 3 |" in (tmp_path / "all" / "table.md").read_text()
    assert run(*common, *parts[:1], tmp_path / "nothing", "-o", tmp_path / "all") != 0
    assert "no results.json" in capsys.readouterr().err
