from __future__ import annotations

import numpy as np
import pytest
from command_line import run

from braggshot import batch_predict
from braggshot.batch_predict import StackConfig


@pytest.fixture
def asked(monkeypatch):
    """Settings with which `one_shot_stack` is called; it answers at once."""
    calls = []

    def one_shot_stack(patterns, output, settings, show, force):
        calls.append(settings)
        show(1, 2)
        return output

    monkeypatch.setattr(batch_predict, "one_shot_stack", one_shot_stack)
    return calls


def test_flags_that_are_not_given_leave_the_defaults(asked, tmp_path, capsys):
    assert run("stack", "p.h5", "-o", tmp_path / "o.h5") == 0
    assert run("stack", "p.h5", "-o", tmp_path / "o.h5", "--starts", "4", "--quick", "--dataset", "a", "--device", "cpu") == 0
    assert asked == [StackConfig(), StackConfig(dataset="a", starts=4, quick=True, device="cpu")]
    assert capsys.readouterr().out.split() == 2 * [str(tmp_path / "o.h5")]


def test_what_holds_no_patterns_is_said_in_one_line(tmp_path, capsys):
    np.save(tmp_path / "p.npy", np.ones((4, 4)))
    assert run("stack", tmp_path / "p.npy", "-o", tmp_path / "o.h5") == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "o.h5").exists()
