"""The teacher: a short refinement of a prediction fits the counts better, where the prediction is, by its seed alone."""

from __future__ import annotations

import pytest
import torch

from braggshot.crystals.sample import CrystalSettings, random_volumes
from braggshot.iterative.iterate import IterativeConfig
from braggshot.iterative.projections import ShrinkWrap
from braggshot.nn.expert_iteration import ExpertConfig, join_patterns, refine_predictions
from braggshot.nn.losses import correlation
from braggshot.nn.network import Measurement, magnitude_of, misfit
from braggshot.physics.fourier import crop, inverted

SETTINGS = CrystalSettings(shape=(32, 32, 32), oversampling=(2.4, 3.0), phase_range=(0, 2.0), counts=(1e5, 1e6), tilt=0, shift=0)
BOX = (16, 16, 16)


@pytest.fixture(scope="module")
def solved():
    """Two crystals in their boxes, and their counts."""
    truth, counts, valid = random_volumes(torch.Generator().manual_seed(5), 2, SETTINGS)
    return crop(truth, BOX), Measurement.of(counts, valid)


def prediction(truth):
    """An answer of a network as it may be: blurred a little, of another scale, with noise."""
    noise = torch.complex(*torch.randn(2, *truth.shape, generator=torch.Generator().manual_seed(1)))
    return truth / truth.abs().amax((1, 2, 3), keepdim=True) + 0.05 * noise


def chi2_of(rho, data):
    return misfit(magnitude_of(rho, data.magnitude.shape[-3:])[1], data)


def test_a_refined_prediction_fits_the_counts_better(solved):
    truth, data = solved
    start = prediction(truth)
    refined, chi2 = refine_predictions(start, data, ExpertConfig(), seed=0)
    assert refined.shape == start.shape
    torch.testing.assert_close(chi2, chi2_of(refined, data))
    assert (chi2 < 0.2 * chi2_of(start, data)).all()
    assert (correlation(refined, truth) > correlation(start, truth)).all()


def test_it_has_the_scale_of_the_counts(solved):
    truth, data = solved
    refined, _ = refine_predictions(1e-3 * prediction(truth), data, ExpertConfig(), seed=0)
    photons = (data.magnitude**2 * data.valid).sum((1, 2, 3))
    torch.testing.assert_close(refined.abs().square().sum((1, 2, 3)), photons, rtol=0.02, atol=0)


@pytest.mark.parametrize("place", [(0, 0, 0), (2, -1, 1)])
def test_the_object_stays_where_the_prediction_is(solved, place):
    """Neither moved, nor turned into its twin, nor by another global phase than the prediction's."""
    truth, data = solved
    moved = prediction(truth).roll(place, dims=(1, 2, 3)) * torch.polar(torch.tensor(1.0), torch.tensor(0.7))
    refined, _ = refine_predictions(moved, data, ExpertConfig(), seed=0)
    there = truth.roll(place, dims=(1, 2, 3))
    assert (correlation(refined, there) > 0.97).all()
    assert (correlation(refined, inverted(there).conj().resolve_conj()) < correlation(refined, there)).all()
    phase = (there.conj() * refined).sum((1, 2, 3)).angle()
    torch.testing.assert_close(phase, torch.full_like(phase, 0.7), rtol=0, atol=0.1)


def test_an_object_that_is_centred_again_stays_in_the_middle(solved):
    truth, data = solved
    moved = prediction(truth).roll((2, 0, 0), dims=(1, 2, 3))
    centred, _ = refine_predictions(moved, data, ExpertConfig(), seed=0, is_centred=True)
    weight = centred.abs().square()
    weight = weight / weight.sum((1, 2, 3), keepdim=True)
    index = torch.arange(16.0) - 8
    for axis in (1, 2, 3):
        others = [a for a in (1, 2, 3) if a != axis]
        assert (weight.sum(others) @ index).abs().max() < 0.75


def test_its_seed_draws_the_support_threshold(solved):
    """The same seed gives the same object; another seed draws other thresholds of shrink-wrap, so another object."""
    truth, data = solved
    wide = IterativeConfig(recipe="30*RAAR+10*ER", shrink_wrap=ShrinkWrap(period=10, threshold=(0.1, 0.5)))
    config = ExpertConfig(wide)
    one, again, other = (refine_predictions(prediction(truth), data, config, seed)[0] for seed in (3, 3, 400))
    torch.testing.assert_close(one, again, rtol=0, atol=0)
    assert not torch.allclose(one, other, rtol=1e-3)


def test_no_voxel_is_held_out_of_the_refinement(solved):
    _, data = solved
    joined = join_patterns(data)
    assert joined.free.numel() == 0
    assert torch.equal(joined.valid, data.valid > 0)
    torch.testing.assert_close(joined.magnitude, data.magnitude)
