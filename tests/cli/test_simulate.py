from __future__ import annotations

import h5py
import numpy as np
import pytest
from command_line import run


def test_the_truth_lies_beside_the_counts(tmp_path):
    target = tmp_path / "crystal.cxi"
    assert run("simulate", "-o", target, "--seed", "4", "--shape", "24", "26", "28", "--counts", "1e4") == 0
    with h5py.File(target) as file:
        truth = file["entry_1/truth_1/data"][()]
        data = file["entry_1/instrument_1/detector_1/data"][()]
    assert np.iscomplexobj(truth)
    assert truth.shape == data.shape == (24, 26, 28)
    magnitude = np.abs(np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(truth), norm="ortho")))
    assert (magnitude**2).max() == pytest.approx(1e4, rel=0.2)


def test_every_setting_of_a_simulated_crystal_can_be_set(tmp_path, capsys):
    target = tmp_path / "crystal.cxi"
    assert run("simulate", "-o", target, "--shape", "24", "24", "24", "--set", "detector.dead=0.2") == 0
    with h5py.File(target) as file:
        assert 0.1 < file["entry_1/instrument_1/detector_1/mask"][()].mean() < 0.3
    assert run("simulate", "-o", target, "--set", "detector.ded=0.2") == 1
    assert "detector.dead" in capsys.readouterr().err
