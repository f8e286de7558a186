"""Counts and a scan that every command can read."""

from __future__ import annotations

import numpy as np
import pytest

from braggshot.crystals.sample import CrystalSettings, simulate_volume


@pytest.fixture(scope="session")
def counts():
    _, volume = simulate_volume(3, CrystalSettings(shape=(24, 26, 28), phase_range=(1, 1), counts=(1e5, 1e5)))
    return volume.intensity


@pytest.fixture
def scan(tmp_path, counts):
    path = tmp_path / "scan.npz"
    np.savez(path, data=counts)
    return path
