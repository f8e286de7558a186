"""What the flags of training mean; training itself: tests/nn/test_training.py."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from command_line import run

import braggshot.train


@pytest.fixture
def learned(monkeypatch):
    """Calls of `braggshot.train.train_network`, which takes a step and ends."""
    calls = []

    def learn(*arguments):
        calls.append(arguments)
        values = {"per_second": 3.0, "loss": 0.5, "val_correlation": 0.9, "val_success_refined": 1.0}
        yield SimpleNamespace(step=1, steps=2, values=values)

    monkeypatch.setattr(braggshot.train, "train_network", learn)
    return calls


def test_flags_overrule_the_preset_and_set_overrules_flags(learned, tmp_path, capsys):
    assert run("train", "-o", tmp_path, "--preset", "autophasenn", "--steps", "7", "--set", "train.batch=16") == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "best.safetensors")
    settings, output, data, init, device = learned[0]
    assert (settings.train.kind, settings.train.steps, settings.train.batch) == ("autophasenn", 7, 16)
    assert (output, tuple(data), init, device) == (tmp_path, (), None, "auto")


def test_a_preset_is_chosen_from_those_that_are_there(learned, tmp_path):
    assert run("train", "-o", tmp_path, "--preset", "autophasen") == 2
    assert learned == []
