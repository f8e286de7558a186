"""Which crystal is shown: held-out voxels choose a start, company where they can't, and the mean where starts are alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.iterative.iterate import Start
from braggshot.phasing import outcome
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.outcome import judge_starts, show_mean
from braggshot.phasing.problem import PhasingContext, prepare_measured
from braggshot.phasing.selection import choose, judge_chosen, score
from braggshot.phasing.verdict import Limits
from braggshot.physics.fourier import fourier, inverted, to_corner
from braggshot.physics.metrics import align
from braggshot.pipeline import drain

SETTINGS = CrystalSettings(
    shape=(32, 32, 32), oversampling=(2.5, 3.0), phase_range=(1, 1), counts=(1e5, 1e5), displacements=("gaussians",)
)


def start(rho, seed, noise=0.02):
    """A finished start that ended near an object."""
    generator = torch.Generator().manual_seed(seed)
    inside = to_corner(rho.abs() > 0.1 * rho.abs().max())
    wiggle = torch.randn(*rho.shape, 2, generator=generator)
    return Start(
        (to_corner(rho) + noise * rho.abs().max() * torch.view_as_complex(wiggle)) * inside,
        inside,
        seed,
        0.2,
        (0.0, 0.0, 0.0),
        0.0,
        torch.zeros(1, 3),
    )


@pytest.fixture(scope="module")
def two():
    """Two crystals of equal power that have nothing to do with each other, and a volume to be filled."""
    (one, volume), (other, _) = (simulate_volume(seed, SETTINGS) for seed in (3, 4))
    one, other = torch.from_numpy(one), torch.from_numpy(other)
    return one, other * (one.abs().square().sum() / other.abs().square().sum()).sqrt(), volume


def judged(two, weight, limits=None):
    """One start ended at the first crystal, three at the second one; the counts are a mixture of both patterns."""
    one, other, volume = two
    counts = weight * fourier(one).abs().square() + (1 - weight) * fourier(other).abs().square()
    volume = replace(volume, intensity=counts.numpy().astype(np.float32))
    data = prepare_measured(volume, PhasingConfig(device="cpu"))
    starts = [start(one, 0), *(start(other, seed) for seed in (1, 2, 3))]
    free = [score(s, data).llk_free for s in starts]
    limits = limits or Limits()
    return judge_chosen(volume, starts, choose(starts, data, limits), limits, "iterative"), free


def test_among_equals_the_one_in_company_is_shown(two):
    found, free = judged(two, 0.48)
    assert 1 < min(free[1:]) / free[0] < 1.05
    assert found.quality.llk_free == pytest.approx(min(free[1:]))
    assert sum(value >= 0.95 for value in found.quality.agreement) == 3
    assert found.choices["start"].endswith("chosen by llk_free and the agreement of the others")


def test_company_does_not_outvote_held_out_voxels(two):
    """Three that agree on what predicts worse than one."""
    found, free = judged(two, 0.52)
    assert min(free[1:]) / free[0] > 1.05
    assert found.quality.llk_free == pytest.approx(free[0])
    assert found.verdict == "failed"
    assert found.choices["start"].endswith("chosen by llk_free")


def test_no_tie_no_company(two):
    found, free = judged(two, 0.48, Limits(tie_margin=0.0))
    assert found.quality.llk_free == pytest.approx(min(free)) == pytest.approx(free[0])


@pytest.mark.parametrize(("spoilt", "spread_of"), [(0.0, 3), (0.15, None)])
def test_stuck_starts_that_come_near_do_not_widen_the_errors(two, spoilt, spread_of):
    """Two starts with a part of another crystal in them agree by more than 0.95, but miss the held-out voxels by far."""
    one, other, volume = two
    counts = torch.poisson(100 * fourier(one).abs().square(), generator=torch.Generator().manual_seed(2))
    volume = replace(volume, intensity=counts.numpy().astype(np.float32))
    data = prepare_measured(volume, PhasingConfig(device="cpu"))
    starts = [start(10 * one, 0), *(start(10 * (one + spoilt * other), seed) for seed in (1, 2))]
    found = judge_chosen(volume, starts, choose(starts, data, Limits()), Limits(), "iterative")
    assert min(found.quality.agreement) >= 0.95
    assert found.quality.agreeing.stuck == (0 if spread_of else 2)
    assert (found.uncertainty and found.uncertainty.samples) == spread_of


def shown(truth, volume, starts, limits=None, is_witnessed=True):
    """The result of a method that ended at the starts, before and after the mean of those that are alike."""
    config = PhasingConfig(device="cpu", limits=limits or Limits())
    data = prepare_measured(volume, config)
    found = judge_starts(PhasingContext(volume, data, data, config, is_witnessed=is_witnessed), starts, "iterative")
    return found.result, drain(show_mean(PhasingContext(volume, data, data, config, is_witnessed=is_witnessed), found))


def error(found, truth):
    return 1 - align(torch.from_numpy(found.rho), truth).correlation


def test_the_mean_of_starts_that_are_alike_is_nearer_to_the_crystal():
    """Three starts with errors of their own, one shifted and one turned; a fourth has the crystal but misses the counts."""
    made, volume = simulate_volume(3, SETTINGS)
    truth = torch.from_numpy(made)
    one, other, rough = start(truth, 1), start(truth, 2), start(truth, 4, noise=0.05)
    other = replace(other, rho=other.rho.roll((1, -2), (0, 2)), support=other.support.roll((1, -2), (0, 2)))
    third = start(inverted(truth).conj(), 3)
    before, after = shown(truth, volume, [one, other, third, rough])
    assert after.choices["start"].startswith("mean of 3 of 4 starts")
    assert error(after, truth) < 0.6 * error(before, truth)
    assert after.verdict == before.verdict
    assert after.reasons == before.reasons
    assert after.quality.agreement == before.quality.agreement
    # The numbers are those of the crystal that is shown, in the frame of its support.
    support = torch.from_numpy(after.support)
    inside = Start(to_corner(torch.from_numpy(after.rho)), to_corner(support), 0, 0.2, (0.0,) * 3, 0.0, torch.zeros(1, 3))
    data = prepare_measured(volume, PhasingConfig(device="cpu"))
    assert after.quality.llk_free == pytest.approx(score(inside, data).llk_free, rel=1e-4)
    assert after.quality.llk_free <= 1.05 * before.quality.llk_free
    assert not after.rho[~after.support].any()
    assert abs(np.angle(after.rho.sum())) < 1e-4


def test_a_start_stays_where_nothing_is_alike_or_no_witness_is_there():
    truth, volume = simulate_volume(3, SETTINGS)
    starts = [start(torch.from_numpy(truth), seed) for seed in (1, 2, 3)]
    for more in ({"limits": Limits(agreement=1.0)}, {"is_witnessed": False}):
        before, after = shown(truth, volume, starts, **more)
        assert after is before


def test_a_mean_that_misses_the_held_out_voxels_is_not_shown(monkeypatch):
    truth, volume = simulate_volume(3, SETTINGS)
    starts = [start(torch.from_numpy(truth), seed) for seed in (1, 2, 3)]

    def spoil(starts, data, config):
        yield from ()
        return [replace(one, rho=one.rho * one.rho.abs()) for one in starts]

    monkeypatch.setattr(outcome, "continue_starts", spoil)
    before, after = shown(truth, volume, starts)
    assert after is before
