"""Volumes that are too large are refused in words, and odd shapes go through every method."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.errors import DataError
from braggshot.iterative.iterate import IterativeConfig
from braggshot.phasing import memory
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.rounds import Round, TournamentConfig
from braggshot.phasing.strategies import STRATEGIES, phase
from braggshot.pipeline import drain
from braggshot.volumes import DiffractionVolume

FEW = IterativeConfig(recipe="3*HIO+ER")
ROUND = Round("3*HIO+ER", 2.0, 1.0)
SEARCH = TournamentConfig(opening=ROUND, narrowing=ROUND, settling=ROUND, finish=ROUND, fitting=ROUND)
SHORT = PhasingConfig(
    starts=2,
    hypotheses=2,
    orientations=2,
    device="cpu",
    partial_coherence="off",
    refine=FEW,
    iterative=FEW,
    tournament=SEARCH,
    volume_tournament=SEARCH,
    confirm_starts=(3, 2, 1),
    search_starts=(3, 2, 1),
    further_starts=(3, 2, 1),
)


def test_what_does_not_fit_is_refused_with_a_remedy(monkeypatch):
    volume = DiffractionVolume(np.ones((8, 10, 12), np.float32), np.ones((8, 10, 12), bool), "scan")
    monkeypatch.setattr(memory, "free_memory", lambda: 100_000)
    for method in STRATEGIES:
        with pytest.raises(
            DataError, match=r"scan: to phase 8 x 10 x 12 voxels with \d+ starts .* GB are free: crop .* bin .* fewer starts"
        ):
            drain(phase(volume, replace(SHORT, method=method)))
    assert drain(phase(volume, replace(SHORT, method="iterative", check_memory=False))).rho.shape == volume.shape


def test_nothing_is_refused_where_the_system_does_not_say(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: None)
    memory.require("scan", (4096, 4096, 4096), (100, 48), 10, torch.device("cpu"))


def test_a_graphics_card_counts_too(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 10**15)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**9, 10**10))
    with pytest.raises(DataError, match=r"1.88 GB of graphics memory, and 1 GB"):
        memory.require("scan", (256, 256, 256), (100, 48), 1, torch.device("cuda"))


@pytest.mark.parametrize("method", list(STRATEGIES))
def test_odd_shapes_go_through_every_method(method):
    _, volume = simulate_volume(2, CrystalSettings(shape=(35, 50, 69), counts=(1e5, 1e5), phase_range=(1, 1)))
    found = drain(phase(volume, replace(SHORT, method=method)))
    assert found.rho.shape == found.support.shape == (35, 50, 69)
    assert np.isfinite(found.quality.chi2)
    assert found.support.any()
