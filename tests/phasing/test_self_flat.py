"""A flat field from the scan itself: where it is estimated, judged on voxels it has not seen, and kept in its place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.phasing import self_flat
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.self_flat import estimate_flat, say_flat
from braggshot.phasing.strategies import phase
from braggshot.physics.forward import intensity
from braggshot.pipeline import drain
from braggshot.prepare import PrepareConfig, prepare
from braggshot.volumes import Reconstruction, Scan

SETTINGS = CrystalSettings(shape=(48, 40, 40), oversampling=(2.8, 3.2), counts=(1e6, 1e6), phase_range=(1, 1), shapes=("fcc",))
QUICK = PhasingConfig(method="refine", hypotheses=1, orientations=1, partial_coherence="off", device="cpu", seed=3)
TRUTH = simulate_volume(11, SETTINGS)[0]
GAIN = np.maximum(1 + 0.2 * np.random.default_rng(1).normal(size=SETTINGS.shape[1:]), 0.3)


def a_scan(gain, **known):
    expected = intensity(torch.from_numpy(TRUTH)).numpy()
    return Scan(np.random.default_rng(2).poisson(gain * expected).astype(np.int32), "s", **known)


def crystal_of(scan, config=PrepareConfig()):  # noqa: B008  # frozen
    """Return the true crystal as if it had been found; it spares the tests a search."""
    volume = prepare(scan, config)
    assert volume.shape == TRUTH.shape
    found = drain(phase(volume, replace(QUICK, method="iterative", starts=1, iterative=replace(QUICK.iterative, recipe="2*ER"))))
    return replace(found, rho=TRUTH, support=TRUTH != 0, volume=volume)


def test_gains_are_found_kept_and_said(monkeypatch):
    monkeypatch.setattr(self_flat, "ROUNDS", 2)
    scan = a_scan(GAIN)
    flat = drain(estimate_flat(scan, crystal_of(scan), PrepareConfig(), QUICK))
    assert flat.volume is not None
    assert flat.is_uneven
    bright = np.asarray(scan.frames).sum(0) > 1000
    assert np.corrcoef(flat.volume.gain[bright], GAIN[bright])[0, 1] > 0.9
    window = flat.volume.window
    rows, columns = (slice(max(0, a), max(0, a) + n) for a, n in zip(window.start[1:], flat.volume.shape[1:], strict=True))
    raw = prepare(scan, PrepareConfig())
    assert flat.volume.intensity * flat.volume.gain[rows, columns] == pytest.approx(raw.intensity, rel=1e-4)
    told = say_flat(replace(crystal_of(scan), volume=flat.volume, verdict="doubtful", reasons=("so",)), flat)
    assert "estimated from the scan itself" in told.choices["flat field"]
    assert "counts unevenly" in told.volume.provenance["noticed"][-1]
    assert told.reasons[0] == "so"
    assert "no flat field was given" in told.reasons[1]


def test_an_even_detector_and_a_good_crystal_cost_nothing(monkeypatch):
    monkeypatch.setattr(self_flat, "phase", lambda *_, **__: pytest.fail("phased again"))
    scan = a_scan(1.0)
    flat = drain(estimate_flat(scan, crystal_of(scan), PrepareConfig(), QUICK))
    assert flat.volume is None
    assert not flat.is_uneven
    assert "do not seem to need one" in flat.said
    uneven = a_scan(GAIN)
    good = drain(estimate_flat(uneven, replace(crystal_of(uneven), verdict="good"), PrepareConfig(), QUICK))
    assert good.volume is None
    assert good.is_uneven
    assert "good without one" in good.said


@pytest.mark.parametrize(
    ("scan", "preparation", "phasing"),
    [
        ({"flat": GAIN}, {}, {}),
        ({"prepared": True}, {}, {}),
        ({}, {"self_flat": "off"}, {}),
        ({}, {}, {"method": "oneshot"}),
        ({}, {}, {"free_fraction": 0.0}),
    ],
)
def test_it_is_not_estimated_where_a_flat_is_given_or_nothing_can_judge_it(scan, preparation, phasing):
    measured, config = a_scan(GAIN, **scan), PrepareConfig(**preparation)
    found = crystal_of(a_scan(GAIN))
    assert drain(estimate_flat(measured, found, config, replace(QUICK, **phasing))) is None


def test_binned_pixels_are_said_to_tell_no_gain():
    scan, config = a_scan(GAIN), PrepareConfig(binning=(1, 2, 2))
    volume = prepare(scan, config)
    rho = np.ones(volume.shape, np.complex64)
    found = replace(crystal_of(scan), rho=rho, support=rho != 0, volume=volume)
    flat = drain(estimate_flat(scan, found, config, QUICK))
    assert flat.volume is None
    assert "pixels are binned" in flat.said


def test_held_out_voxels_have_no_part_in_the_gains():
    """Where they had, the judge would have seen the answer."""
    found = crystal_of(a_scan(GAIN))
    held = self_flat.held_out(found.volume.valid, QUICK)
    changed = replace(found.volume, intensity=np.where(held, 50 * found.volume.intensity, found.volume.intensity))
    before, after = (self_flat._judge_round(found, volume, QUICK) for volume in (found.volume, changed))
    assert 0.02 < held.mean() < 0.06
    assert (before.gain == after.gain).all()
    assert before.misfit < 0.8 * before.plain
    assert after.misfit > 2 * before.misfit


def test_the_voxels_held_out_are_those_of_the_phasing():
    volume = crystal_of(a_scan(1.0)).volume
    held = self_flat.held_out(volume.valid, QUICK)
    from braggshot.phasing.problem import prepare_measured

    free = np.zeros(held.size, bool)
    free[prepare_measured(volume, QUICK).free.numpy()] = True
    assert (np.fft.fftshift(free.reshape(held.shape)) == held).all()


def test_a_window_that_moves_leaves_the_gains_on_their_pixels():
    """A window moved by a pixel once took the gains with it."""
    scan = a_scan(GAIN)
    here, there = (prepare(scan, PrepareConfig(shape=(32, 32, 32), centre=(24, 20 + shift, 20 - shift))) for shift in (0, 3))
    row, column = here.window.start[1:]
    gain = self_flat._on_detector(GAIN[row : row + 32, column : column + 32], here)
    assert gain[row : row + 32, column : column + 32] == pytest.approx(GAIN[row : row + 32, column : column + 32])
    assert gain[0, 0] == 1
    moved = PrepareConfig(shape=(32, 32, 32), centre=(24, 23, 17))
    again, cut = self_flat._prepare_with(scan, moved, gain)
    assert again.window == there.window
    assert again.intensity * cut == pytest.approx(there.intensity, rel=1e-4)


def test_a_result_without_gains_is_not_changed_by_saying_so():
    found = crystal_of(a_scan(1.0))
    told = say_flat(found, self_flat.SelfFlat(None, "none was given"))
    assert isinstance(told, Reconstruction)
    assert told.reasons == found.reasons
    assert told.volume == found.volume or told.volume is found.volume
    refused = self_flat.SelfFlat(found.volume, "so", True).refuse("it is worse")
    assert refused.volume is None
    assert refused.said == "so; not used, because it is worse"
