"""Frames off their rocking angles: the sign of the deviations, what cannot be told, even scans left alone, and the way back."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.evaluation.trust import drift_curve, resample_frames
from braggshot.phasing import rocking_angles
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.rocking_angles import Drift, estimate_drift, noise_misfit, say_drift
from braggshot.physics.fourier import fourier
from braggshot.physics.scores import compare
from braggshot.physics.uneven_frames import Wander, fit_frames, intensity_at, to_even_frames, without_line
from braggshot.pipeline import drain, prepare_and_phase
from braggshot.prepare import PrepareConfig
from braggshot.volumes import Scan

SETTINGS = CrystalSettings(shape=(32, 30, 32), oversampling=(2.6, 3.0), phase_range=(1, 3), steepest=1.0, counts=(3e5, 3e5))
QUICK = PhasingConfig(device="cpu", method="refine", seed=3)


@pytest.fixture(scope="module")
def crystal():
    """A true crystal, the deviations of a drift of one step, and its noisy counts."""
    torch.set_num_threads(1)
    rho, _ = simulate_volume(7_100_003, SETTINGS)
    generator = torch.Generator().manual_seed(4)
    expected = fourier(torch.from_numpy(rho)).abs().square()
    moved = drift_curve(generator, len(rho), 1.0)
    drifted = torch.poisson(resample_frames(expected, moved), generator=generator)
    return rho, moved.numpy(), drifted.numpy()


@pytest.fixture(scope="module")
def found(crystal):
    """The crystal that is found at drifted angles as if they were even."""
    scan = Scan(crystal[2].astype(np.int32), name="drift")
    return drain(prepare_and_phase(scan, PrepareConfig(drift="off"), QUICK))


@pytest.mark.parametrize("frames", [8, 9])
def test_frames_in_place_have_the_intensity_of_the_one_transform_and_moved_ones_lie_between(frames):
    rho = torch.zeros(frames, 6, 5, dtype=torch.complex128)
    generator = torch.Generator().manual_seed(1)
    rho[3:6, 2:4, 2:4] = torch.randn(3, 2, 2, dtype=torch.complex128, generator=generator)
    even = fourier(rho).abs().square()
    torch.testing.assert_close(intensity_at(rho, torch.zeros(frames, dtype=torch.float64)), even)
    moved = torch.linspace(-1, 1, frames, dtype=torch.float64) ** 3
    torch.testing.assert_close(intensity_at(rho, moved), resample_frames(even, moved), atol=1e-9, rtol=1e-6)


def test_crystal_and_deviations_are_fitted_together_with_the_right_sign(crystal):
    rho, moved, drifted = crystal
    pauses = []
    fitting = fit_frames(drifted, np.ones(drifted.shape, bool), rho, 0 * moved, Wander(4.0, 0.1), rounds=2)
    fitted, told = drain(fitting, pauses.append)
    assert len(pauses) == 20  # a live session shows pictures meanwhile
    assert np.std(told - moved) < 0.05 < 0.5 < np.std(told + moved)
    np.testing.assert_allclose(told, without_line(told), atol=1e-9)
    assert compare(rho, fitted).correlation > 0.99


def test_counts_come_back_to_even_frames_and_not_with_the_other_sign(crystal):
    rho, moved, _ = crystal
    even = intensity_at(torch.from_numpy(rho), torch.zeros(len(rho)))
    taken = resample_frames(even, torch.from_numpy(moved)).numpy()
    seen = np.ones(taken.shape, bool)
    there, wrong = (to_even_frames(taken, seen, taken, by, extent=12)[0] for by in (moved, -moved))
    error, other = (np.abs(counts - even.numpy()).sum() / taken.sum() for counts in (there, wrong))
    assert error < 0.005
    assert other > 20 * error
    assert there.sum() == pytest.approx(float(even.sum()), rel=0.005)


def test_masked_counts_do_not_matter_and_stay_masked(crystal):
    _, moved, drifted = crystal
    seen = np.ones(drifted.shape, bool)
    seen[:, 3], seen[5, 20, 20] = False, False
    filled = np.where(seen, -1.0, drifted)
    spoilt = np.where(seen, drifted, 1e9)
    counts, valid = to_even_frames(spoilt, seen, filled, moved, extent=12)
    expected, _ = to_even_frames(drifted, np.ones(seen.shape, bool), drifted, moved, extent=12)
    np.testing.assert_allclose(counts[valid], expected[valid], rtol=1e-4, atol=1e-3)
    assert not valid[:, 3].any()
    assert not valid[5, 20, 20]
    assert valid[:, 10].all()


def test_a_plane_without_a_frame_nearby_is_masked():
    moved = np.zeros(12)
    moved[6:] = 2.5
    _, valid = to_even_frames(np.ones((12, 4, 4)), np.ones((12, 4, 4), bool), np.ones((12, 4, 4)), moved, extent=4)
    assert not valid[7].any()
    assert valid[[*range(6), 9, 10, 11]].all()


def test_an_even_scan_is_left_alone_without_another_phasing(found, monkeypatch):
    monkeypatch.setattr(rocking_angles, "fit_frames", lambda *_, **__: pytest.fail("fitted"))
    expected = intensity_at(torch.from_numpy(found.rho), torch.zeros(len(found.rho)))
    counts = torch.poisson(expected, generator=torch.Generator().manual_seed(5)).numpy()
    even = replace(found, volume=replace(found.volume, intensity=counts))
    assert drain(estimate_drift(even, PrepareConfig(), QUICK)) is None
    # Counts that are predicted leave nothing to explain.
    monkeypatch.setattr(rocking_angles, "_share_by_moves", lambda *_: (1.0, 1.0))
    assert drain(estimate_drift(even, PrepareConfig(), QUICK)) is None


@pytest.mark.parametrize(
    ("preparation", "phasing"), [({"drift": "off"}, {}), ({}, {"method": "oneshot"}), ({}, {"free_fraction": 0.0})]
)
def test_nothing_is_estimated_where_it_is_not_asked_for(found, preparation, phasing):
    assert drain(estimate_drift(found, PrepareConfig(**preparation), replace(QUICK, **phasing))) is None


def test_moves_of_a_drift_are_smooth_and_those_of_jitter_and_noise_are_not(crystal):
    """The parabola holds for small moves, so the drift is one of 0.3 steps here."""
    rho, moved, _ = crystal
    expected = fourier(torch.from_numpy(rho)).abs().square()
    generator = torch.Generator().manual_seed(6)
    jitter = 0.3 * torch.randn(len(rho), dtype=torch.float64, generator=generator)
    drifts = (0.3 * torch.from_numpy(moved), jitter, torch.zeros_like(jitter))
    drifted, jittered, even = (torch.poisson(resample_frames(expected, one), generator=generator).numpy() for one in drifts)
    seen = np.ones(rho.shape, bool)

    def share(counts):
        return rocking_angles._share_by_moves(rho, SimpleNamespace(intensity=counts), seen)

    assert share(drifted)[0] > rocking_angles.HINT
    assert share(drifted)[1] > rocking_angles.SMOOTH
    assert share(jittered)[0] > rocking_angles.HINT
    assert share(jittered)[1] < rocking_angles.SMOOTH
    assert share(even)[0] < rocking_angles.HINT


@pytest.mark.parametrize("counts", ["none", "of another crystal", "its own"])
@pytest.mark.parametrize("fill", ["box", "plane", "nothing"])
def test_a_crystal_that_does_not_fit_the_counts_gives_no_sign(counts, fill):
    """Its misfit may bend downwards in most frames, or be none at all; neither is a drift, nor an error."""
    rho = np.zeros((24, 12, 12), np.complex64)
    rho[:, :, :] = fill == "box"
    rho[12] += fill == "plane"
    drawn = np.random.default_rng(3).poisson(5, rho.shape).astype(float)
    own = fourier(torch.from_numpy(rho)).abs().square().numpy().astype(float)
    volume = SimpleNamespace(intensity={"none": 0 * own, "of another crystal": drawn, "its own": own}[counts])
    share, smooth = rocking_angles._share_by_moves(rho, volume, np.ones(rho.shape, bool))
    assert np.isfinite([share, smooth]).all()
    assert share < rocking_angles.HINT or counts != "its own"


def test_a_good_crystal_is_moved_only_where_a_short_fit_of_a_drift_helps(found, monkeypatch):
    rounds = []

    def few(counts, seen, rho, moved, wander, number):
        rounds.append(number)
        return fit_frames(counts, seen, rho, moved, wander, 1) if number == rocking_angles.TRIED else pytest.fail("estimated")

    monkeypatch.setattr(rocking_angles, "fit_frames", few)
    good = replace(found, verdict="good", reasons=("all agree.",))
    with pytest.raises(pytest.fail.Exception, match="estimated"):
        drain(estimate_drift(good, PrepareConfig(), QUICK))
    assert rounds == [rocking_angles.TRIED] * 2 + [rocking_angles.ROUNDS]
    monkeypatch.setattr(rocking_angles, "DRIFT", Wander(1e-6, 0.1))  # as if no drift could explain the counts
    assert drain(estimate_drift(good, PrepareConfig(), QUICK)) is None
    monkeypatch.setattr(rocking_angles, "FAINT", 1.0)
    assert drain(estimate_drift(good, PrepareConfig(), QUICK)) is None
    assert len(rounds) == 5, "no fit where single frames show nothing"


def test_a_large_volume_is_only_told_about_and_a_good_one_where_the_moves_are_smooth(found, monkeypatch):
    monkeypatch.setattr(rocking_angles, "fit_frames", lambda *_, **__: pytest.fail("fitted"))
    monkeypatch.setattr(rocking_angles, "MOST", 1000)
    good = replace(found, verdict="good", reasons=("all agree.",))
    for one, limit, is_told in ((found, 1.1, True), (good, 0.0, True), (good, 1.1, False)):
        monkeypatch.setattr(rocking_angles, "SMOOTH", limit)
        told = drain(estimate_drift(one, PrepareConfig(), QUICK))
        assert (told is not None) == is_told
        if told is not None:
            assert told.volume is None
            assert "prepare.drift=on" in told.said


@pytest.mark.long
def test_a_drift_is_found_and_undone(crystal, found, monkeypatch):
    monkeypatch.setattr(rocking_angles, "CYCLES", 0)
    moved = crystal[1]
    drift = drain(estimate_drift(found, PrepareConfig(), QUICK))
    assert drift is not None
    assert drift.volume is not None
    assert np.std(drift.moved - moved) < 0.1
    assert "steps off their angles" in drift.said
    assert drift.volume.shape == found.volume.shape
    told = say_drift(found, drift)
    assert "constant offset" in told.choices["rocking angles"]
    assert any("drifted" in reason for reason in told.reasons)
    np.testing.assert_allclose(told.volume.provenance["frames_off"], drift.moved)
    assert drain(estimate_drift(told, PrepareConfig(), QUICK)) is None  # frames are not moved a second time


def test_what_was_not_found_is_said_and_no_angles_are_written(found):
    told = say_drift(found, Drift(None, "not found", np.zeros(32)))
    assert "not found" in told.choices["rocking angles"]
    assert "frames_off" not in told.volume.provenance


@pytest.mark.parametrize("level", [0.01, 0.3, 3.0, 50.0])
def test_misfit_of_photon_noise_is_that_of_drawn_counts(level):
    counts = np.random.default_rng(1).poisson(level, 400_000)
    ratio = np.where(counts > 0, counts / level, 1)
    drawn = (level - counts + counts * np.log(ratio)).mean()
    assert noise_misfit(np.full(10, level)) == pytest.approx(drawn, rel=0.03)
