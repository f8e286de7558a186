"""Scores against crystals whose errors are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from braggshot.physics import scores
from braggshot.physics.scores import STRAIN_PER_TURN, THRESHOLDS, compare


def crystal(shape=(32, 30, 33)):
    """A wedge, which is no inversion of itself, with a bent phase."""
    z, y, x = np.meshgrid(*(np.arange(n) - n // 2 for n in shape), indexing="ij")
    body = (z > -6) & (y > -6) & (x > -7) & (z + y + x < 4)
    return 40 * body * np.exp(1j * (0.15 * z + 0.02 * y**2 + 0.01 * x * z)).astype(np.complex64)


def twin(rho):
    return np.roll(np.conj(np.flip(rho)), (1, 3, -2), (0, 1, 2))


@pytest.mark.parametrize("change", [lambda r: r, twin, lambda r: 0.02j * np.roll(r, 3, 1)])
def test_what_intensities_cannot_tell_costs_nothing(change):
    truth = crystal()
    found = compare(truth, change(truth))
    assert found.success
    assert found.correlation == pytest.approx(1, abs=1e-4)
    assert found.ssim == pytest.approx(1, abs=1e-3)
    assert found.iou[-1] == 1
    assert found.phase_mae < 0.01
    assert found.gradient_rmse < 0.01
    assert found.twin == (change is twin)


def test_a_known_gradient_is_its_error_and_its_strain():
    """0.027 rad per voxel on one axis of three: the strain of 1e-4 that the field speaks of."""
    truth = crystal()
    slope = np.arange(truth.shape[2]) * 0.027
    error = scores.gradient_rmse(truth, truth * np.exp(1j * slope), np.abs(truth) > 0)
    assert error == pytest.approx(0.027 / math.sqrt(3), rel=0.05)
    assert math.isclose(STRAIN_PER_TURN, 1e-4 / 0.027, rel_tol=0.02)


def test_wraps_are_no_errors():
    truth = crystal()
    steep = truth * np.exp(1j * 2.9 * np.arange(truth.shape[0]))[:, None, None]
    assert scores.gradient_rmse(steep, steep * np.exp(2j), np.abs(truth) > 0) < 1e-5
    assert scores.phase_mae(steep, steep * np.exp(2j), np.abs(truth) > 0) < 1e-5


def test_what_was_not_found_is_not_right():
    truth = crystal()
    body = np.abs(truth) > 0
    half = truth.copy()
    half[: truth.shape[0] // 2] = 0
    missing = 1 - (np.abs(half) > 0).sum() / body.sum()
    assert scores.phase_mae(truth, half, body) == pytest.approx(missing * math.pi / 2)
    assert scores.overlap(body, np.abs(half) > 0) == pytest.approx(1 - missing)
    assert math.isnan(scores.gradient_rmse(truth, 0 * truth, body))
    with pytest.raises(ValueError, match="zero"):
        compare(truth, 0 * truth)


def test_thresholds_are_on_the_found_amplitude():
    """A halo of a quarter of the amplitude is crystal below that, and none above."""
    truth = crystal()
    halo = truth + np.where(np.abs(truth) == 0, 10, 0) * (np.abs(np.arange(truth.shape[0]) - 16) < 8)[:, None, None]
    iou = dict(zip(THRESHOLDS, compare(truth, halo.astype(np.complex64)).iou, strict=True))
    assert iou[0.1] < 0.5
    assert iou[0.4] > 0.95


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0, 0.3), (0.6, 0.8, 1)])
def test_a_blend_with_the_twin_is_told_from_noise(share, low, high):
    truth = crystal()
    noise = np.random.default_rng(0).normal(size=(*truth.shape, 2)) @ np.array([1, 1j])
    found = compare(truth, (truth + share * np.conj(np.flip(truth)) + noise).astype(np.complex64))
    assert low <= found.blend <= high
    assert found.success == (share == 0)
