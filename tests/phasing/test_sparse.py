"""A scan of few frames: the shape of a crystal that is nearly the same is enough, and its phase is only one start of many."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from braggshot.iterative.iterate import IterativeConfig, run_starts
from braggshot.phasing import PhasingConfig
from braggshot.phasing.problem import prepare_measured
from braggshot.phasing.sparse import average, phase_sparse, starting_fields
from braggshot.physics import metrics
from braggshot.physics.forward import intensity
from braggshot.physics.fourier import to_centre
from braggshot.pipeline import drain
from braggshot.volumes import DiffractionVolume

SHAPE = (44, 25, 28)
CONFIG = PhasingConfig(device="cpu")
STILL = np.zeros(3)


def crystal(bend, cut=0.9):
    """An octahedron with cut corners, as strongly strained as `bend` [rad]."""
    places = np.indices(SHAPE) - np.array(SHAPE)[:, None, None, None] // 2
    z, y, x = (place / half for place, half in zip(places, (4.2, 5.0, 5.5), strict=True))
    inside = (
        (np.abs(z) + np.abs(y) + np.abs(x) < 1.7) & (np.maximum(np.abs(z), np.maximum(np.abs(y), np.abs(x))) < 1) & (z + y < cut)
    )
    return np.where(inside, np.exp(1j * bend * (x**2 - 0.8 * y + 0.6 * z * x + 0.5 * y * z)), 0).astype(np.complex64)


def measure(rho, every, first=1):
    expected = intensity(torch.from_numpy(rho))
    counts = torch.poisson(expected * (3e4 / expected.max()), generator=torch.Generator().manual_seed(7)).numpy()
    valid = np.zeros(SHAPE, dtype=bool)
    valid[first::every] = True
    return DiffractionVolume(counts * valid, valid)


def alike(found, true):
    return metrics.align(torch.from_numpy(np.where(found.support, found.rho, 0)), torch.from_numpy(true)).correlation


def test_a_quarter_of_the_frames_is_enough_beside_a_neighbour():
    true, before = crystal(2.0), crystal(0.8, cut=1.1)
    volume = measure(true, 4)
    assert metrics.align(torch.from_numpy(before), torch.from_numpy(true)).correlation < 0.9
    found = drain(phase_sparse(volume, before, STILL, CONFIG, smooth=2))
    assert alike(found, true) > 0.97
    assert found.verdict == "good"
    assert "One plane of 4 was measured" in found.reasons[0]
    assert found.ensemble.table["warm"].sum() <= 2  # the neighbour's, and the mean if it is made of this one alone
    alone = drain(run_starts(prepare_measured(volume, CONFIG), IterativeConfig(recipe="60*HIO+60*RAAR+20*ER"), 1))
    assert max(metrics.align(to_centre(start.rho), torch.from_numpy(true)).correlation for start in alone) < 0.8


def test_a_wrong_guess_loses():
    """The neighbour has strain of the other sign, and another one: the counts are followed, not the neighbour."""
    true, wrong = crystal(2.0), crystal(-3.0)
    found = drain(phase_sparse(measure(true, 4), wrong, STILL, CONFIG, smooth=3))
    assert metrics.align(torch.from_numpy(wrong), torch.from_numpy(true), allow_twin=False).correlation < 0.7
    assert alike(found, true) > 0.97


def test_planes_too_far_apart_for_the_crystal_are_said():
    found = drain(phase_sparse(measure(crystal(1.0), 6), crystal(1.0), STILL, CONFIG, smooth=1))
    assert found.verdict != "good"
    assert "planes 6 apart determine 7.3" in " ".join(found.reasons)


def test_the_starts_share_the_shape_and_not_the_phase():
    before = crystal(2.0)
    turn = np.array([0.1, -0.2, 0.05])
    warm, flat, one, other = starting_fields(before, turn, 2, 5)
    for field in (warm, flat, one, other):
        assert np.abs(field) == pytest.approx(np.abs(before), abs=1e-6)
    assert abs(np.vdot(one, other)) < 0.9 * np.vdot(one, one).real
    inside = np.abs(before[1:]) * np.abs(before[:-1]) > 0
    assert np.angle(flat[1:] * flat[:-1].conj())[inside] == pytest.approx(turn[0])
    again = starting_fields(before, turn, 2, 5)
    assert all(np.array_equal(a, b) for a, b in zip(again, (warm, flat, one, other), strict=True))


def test_the_mean_leaves_other_crystals_out():
    volume = measure(crystal(2.0), 1, 0)
    data = prepare_measured(volume, CONFIG)
    (start,) = drain(run_starts(data, IterativeConfig(recipe="1*ER"), 1))
    near, far = (replace(start, rho=torch.fft.ifftshift(torch.from_numpy(rho))) for rho in (crystal(2.0), crystal(-3.0)))
    turned = replace(near, rho=torch.roll(near.rho, (1, 2, -1), (0, 1, 2)) * 1j)
    mean, members = average([far, near, turned], data)
    assert members == [1, 2]
    assert metrics.align(mean.rho, near.rho).correlation > 0.999
