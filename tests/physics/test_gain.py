"""The gain of pixels from counts and a model: what all frames share is gain, what one speckle has is the model's fault."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from braggshot.physics.gain import GainSpread, far_gains, measure_spread, pixel_gains

SHAPE, SPECKLE = (96, 64, 64), 4.0
ALL = np.ones(SHAPE, bool)


def speckles(seed=0, mean=200.0):
    """Draw intensities of speckles some four voxels wide."""
    random = np.random.default_rng(seed)
    field = [ndimage.gaussian_filter(random.normal(size=SHAPE), SPECKLE / 2.5) for _ in range(2)]
    power = field[0] ** 2 + field[1] ** 2
    return mean * power / power.mean()


def measure(gain, model, seed=1):
    return np.random.default_rng(seed).poisson(gain * model).astype(float)


@pytest.mark.parametrize("spread", [0.0, 0.1, 0.2])
def test_the_spread_of_the_gains_is_measured(spread):
    gain = np.exp(spread * np.random.default_rng(2).normal(size=SHAPE[1:]))
    found = measure_spread(measure(gain, speckles()), speckles(), ALL, SPECKLE)
    assert found.fixed == pytest.approx(spread, abs=0.02)
    assert found.pixels == SHAPE[1] * SHAPE[2]


def test_a_fault_of_the_model_that_differs_from_speckle_to_speckle_is_no_gain():
    """Taken for a gain, it would be 10 %: counts and model differ as much as with a fixed pattern of that spread."""
    fault = 0.5 + speckles(5, 0.5)
    counts = measure(1.0, speckles() * fault)
    found = measure_spread(counts, speckles(), ALL, SPECKLE)
    assert found.fixed < 0.08
    assert np.log(counts.sum(0) / speckles().sum(0)).std() > 0.1
    gains = pixel_gains(counts, speckles(), ALL, found)
    assert np.log(gains).std() < 0.03


def test_gains_are_found_and_unknown_pixels_keep_one():
    gain = np.exp(0.2 * np.random.default_rng(2).normal(size=SHAPE[1:]))
    seen = ALL.copy()
    seen[:, :, 50:] = False
    found = pixel_gains(measure(gain, speckles()), speckles(), seen, GainSpread(0.2, 0.02, 1000))
    known = np.log(found[:, :40] / gain[:, :40])
    assert (known - ndimage.gaussian_filter(known, 3)).std() < 0.02
    assert np.corrcoef(np.log(found[:, :40]).ravel(), np.log(gain[:, :40]).ravel())[0, 1] > 0.95
    assert (found[:, 50:] == 1).all()


def test_few_counts_tell_little():
    """Without shrinking, noise would be taken for gain: at ten photons a pixel it is 30 %."""
    gain = np.exp(0.2 * np.random.default_rng(2).normal(size=SHAPE[1:]))
    faint = speckles(mean=10 / SHAPE[0])
    counts = measure(gain, faint)
    found = pixel_gains(counts, faint, ALL, GainSpread(0.2, 0.02, 1000))
    plain = (counts.sum(0) + 1) / (faint.sum(0) + 1)
    assert np.log(found / gain).std() < 0.2 < np.log(plain / gain).std()


def test_frames_within_a_speckle_do_not_predict_a_voxel():
    """A gain that makes up for a fault of the model in one speckle must not help to predict that speckle."""
    model = speckles()
    counts = model.copy()
    counts[40:43, ::8, ::8] *= 5
    spread = GainSpread(0.2, 0.02, 1000)
    far = far_gains(counts, model, ALL, spread, SPECKLE)
    here = far[:, ::8, ::8]
    assert here[41] == pytest.approx(1, abs=0.02)
    assert here[60].max() > 1.2  # elsewhere the brighter frames are seen
    assert pixel_gains(counts, model, ALL, spread)[::8, ::8].max() > 1.2


def test_too_few_bright_pixels_tell_no_spread():
    faint = speckles(mean=0.1)
    found = measure_spread(measure(1.0, faint), faint, ALL, SPECKLE)
    assert found.fixed == 0
    assert (pixel_gains(faint, faint, ALL, found) == 1).all()
