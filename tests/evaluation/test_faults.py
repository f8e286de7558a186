"""Scans with faults come out as the same scans masked by hand, and what was done about the fault is said."""

from __future__ import annotations

import numpy as np
import pytest

from braggshot.crystals.sample import CrystalSettings
from braggshot.evaluation import faults
from braggshot.evaluation.rows import on_window
from braggshot.volumes import Window

SETTINGS = CrystalSettings(shape=(32, 32, 32), oversampling=(2.1, 3.0), counts=(5e4, 5e4), phase_range=(3.1, 3.1))


@pytest.mark.parametrize("group", faults.FAULTS)
def test_a_fault_is_masked_as_by_hand_and_said(group):
    truth, faulty = faults.draw(group, 7, SETTINGS)()
    _, clean = faults.draw(faults.reference(group), 7, SETTINGS)()
    np.testing.assert_array_equal(faulty.valid, clean.valid)
    np.testing.assert_array_equal(faulty.intensity, clean.intensity)
    assert faulty.provenance["noticed"]
    assert not clean.provenance["noticed"]
    assert on_window(truth, faulty).shape == faulty.shape


def test_a_window_beyond_the_scan_has_a_truth_too():
    truth, clean = faults.draw(faults.CLEAN, 7, SETTINGS)()
    assert clean.window == Window((0, 0, 0), (1, 1, 1), (32, 32, 32))
    assert np.array_equal(on_window(truth, clean), truth)
