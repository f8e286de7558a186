from __future__ import annotations

import pytest
from command_line import run

from braggshot.cli import evaluate
from braggshot.crystals.sample import CrystalSettings
from braggshot.evaluation import suites
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
