"""From a prepared volume to a judged crystal: the truth comes back, seeds hold, masks float, blur is noticed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.errors import ConfigError, DataError
from braggshot.evaluation.suites import SUITES
from braggshot.iterative.iterate import IterativeConfig
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.problem import prepare_measured
from braggshot.phasing.strategies import phase
from braggshot.physics.forward import PointSpread, intensity
from braggshot.physics.fourier import fourier
from braggshot.physics.metrics import align, half_deviance, misfit
from braggshot.physics.scores import compare
from braggshot.volumes import DiffractionVolume

SETTINGS = CrystalSettings(
    shape=(36, 40, 32),
    oversampling=(2.5, 3.0),
    phase_range=(1, 1),
    counts=(1e5, 1e5),
    shapes=("fcc",),
    displacements=("gaussians",),
)
CONFIG = PhasingConfig(
    method="iterative", starts=4, seed=2, device="cpu", iterative=IterativeConfig(recipe="3*(50*HIO+60*RAAR+20*ER)+60*ER")
)


def finish(volume, config):
    running = phase(volume, config)
    try:
        while True:
            next(running)
    except StopIteration as finished:
        return finished.value


@pytest.fixture(scope="module")
def sample():
    return simulate_volume(11, SETTINGS)


@pytest.fixture(scope="module")
def result(sample):
    return finish(sample[1], CONFIG)


def test_the_crystal_comes_back_and_is_called_good(sample, result):
    truth, volume = sample
    found = align(torch.from_numpy(result.rho), torch.from_numpy(truth))
    assert found.correlation > 0.98
    assert result.verdict == "good"
    assert result.psf is None
    assert result.rho.shape == volume.shape
    assert result.rho.dtype == np.complex64
    assert not result.rho[~result.support].any()


def test_the_numbers_are_those_of_the_object_in_the_result(sample, result):
    """chi2, R and llk_free recomputed from rho, the counts and the held-out voxels, by the definitions of DESIGN."""
    volume = sample[1]
    magnitude = fourier(torch.from_numpy(result.rho)).abs()
    again = misfit(magnitude, torch.from_numpy(volume.intensity), torch.from_numpy(volume.valid))
    assert again.scale == pytest.approx(1, abs=1e-4)
    assert result.quality.chi2 == pytest.approx(again.chi2, rel=1e-4)
    assert result.quality.r_factor == pytest.approx(again.r_factor, rel=1e-4)
    assert result.quality.chi2_coherent == result.quality.chi2
    data = prepare_measured(volume, CONFIG)
    free = torch.zeros(volume.shape, dtype=torch.bool)
    free.view(-1)[data.free] = True
    held_out = torch.fft.fftshift(free)
    counts = torch.from_numpy(volume.intensity)[held_out]
    llk_free = half_deviance(again.magnitude[held_out].square(), counts).mean().item()
    assert result.quality.llk_free == pytest.approx(llk_free, rel=1e-3)
    assert held_out.float().mean().item() == pytest.approx(0.05, rel=0.2)


def test_what_the_starts_say_together(result):
    ensemble = result.ensemble
    assert set(result.quality.agreement) == set(ensemble.table["correlation"])
    assert max(result.quality.agreement) == 1.0
    assert ensemble.mode_weights.sum() == pytest.approx(1)
    assert (np.diff(ensemble.mode_weights) <= 1e-9).all()
    # What all starts share is nearly the chosen one, in phase with it, and holds its weight's part of the mean start's energy.
    overlap = np.vdot(result.rho, ensemble.mode) / np.linalg.norm(result.rho) / np.linalg.norm(ensemble.mode)
    assert overlap.real > 0.97
    assert abs(overlap.imag) < 0.01
    energy = np.linalg.norm(ensemble.mode) ** 2 / np.linalg.norm(result.rho) ** 2
    assert energy == pytest.approx(ensemble.mode_weights[0], rel=0.02)
    assert ensemble.prtf[:3] == pytest.approx(1, abs=0.15)
    chosen = int(np.argmax(ensemble.table["correlation"]))
    assert ensemble.table["llk_free"][chosen] == min(ensemble.table["llk_free"])


def test_the_crystal_stands_in_the_middle_with_mean_phase_zero(result):
    middle = np.array([np.mean(np.nonzero(result.support)[axis]) for axis in range(3)])
    assert np.abs(middle - np.array(result.rho.shape) // 2).max() < 1.5
    assert np.angle(result.rho.sum()) == pytest.approx(0, abs=1e-4)


def test_progress_is_told_and_seeds_hold(sample):
    quick = replace(CONFIG, starts=2, iterative=IterativeConfig(recipe="20*HIO+10*ER"), partial_coherence="off")
    running = phase(sample[1], quick)
    first = next(running)
    assert (first.iteration, first.n_iterations) == (1, 60)
    one, other = finish(sample[1], quick), finish(sample[1], quick)
    assert np.array_equal(one.rho, other.rho)
    assert not np.array_equal(one.rho, finish(sample[1], replace(quick, seed=3)).rho)


def test_masked_voxels_do_not_matter(sample):
    """Whatever stands in them, the result is the same to the last bit."""
    quick = replace(CONFIG, starts=1, iterative=IterativeConfig(recipe="20*HIO+10*ER"), partial_coherence="off")
    volume = sample[1]
    valid = volume.valid.copy()
    valid[5:9] = False
    results = [
        finish(replace(volume, valid=valid, intensity=np.where(valid, volume.intensity, junk).astype(np.float32)), quick).rho
        for junk in (0, 1e7)
    ]
    assert np.array_equal(*results)


def test_partial_coherence_is_found_where_it_is():
    """Its widths come back, it predicts unseen counts better, and the object is far nearer the truth than without it."""
    truth, volume = simulate_volume(20, SETTINGS)
    sigma, reference = (0.45, 0.6, 0.5), torch.from_numpy(truth)
    counts = torch.poisson(intensity(reference, PointSpread(sigma)), generator=torch.Generator().manual_seed(1)).numpy()
    blurred = replace(volume, intensity=counts)
    result = finish(blurred, replace(CONFIG, starts=3))
    assert result.psf is not None
    assert result.psf["sigma"] == pytest.approx(sigma, rel=0.25)
    coherent = finish(blurred, replace(CONFIG, starts=3, partial_coherence="off"))
    assert result.quality.llk_free < 0.7 * coherent.quality.llk_free
    assert result.quality.chi2 < coherent.quality.chi2
    right, blind = (align(torch.from_numpy(r.rho), reference).correlation for r in (result, coherent))
    assert right > 0.97 > 0.95 > blind


def test_a_coherent_pattern_costs_no_second_round(sample):
    """The fit to the best start hints at no point spread, so nothing goes on: only the recipe of each start is run."""
    running = phase(sample[1], replace(CONFIG, starts=2, iterative=IterativeConfig(recipe="50*HIO+60*RAAR+20*ER")))
    assert len(list(running)) == 2 * 130


def test_gaps_are_filled_by_a_soft_prior():
    """What no count says of the crystal is left to chance by projections; a crystal scatters alike all over."""
    truth, volume = simulate_volume(60_403, SUITES["gaps"].groups["12"])  # which no test set holds
    recipe = "4*(5*(10*HIO+FLAT)+8*(10*RAAR+FLAT)+3*(10*ER+FLAT))+DETWIN+50*HIO+80*RAAR+50*ER"
    config = replace(CONFIG, starts=1, seed=0, partial_coherence="off", iterative=IterativeConfig(recipe=recipe))
    filled, left = (compare(truth, finish(volume, replace(config, gap_fraction=share)).rho) for share in (config.gap_fraction, 1.0))
    assert filled.strain_rmse < 0.75 * left.strain_rmse
    assert filled.correlation > left.correlation > 0.95


def test_only_gaps_are_filled(sample):
    """A few dead pixels leave nothing open, and cost no iterations."""
    dead = sample[1].valid.copy()
    dead[::9, ::9, ::9] = False
    quick = replace(CONFIG, starts=2, iterative=IterativeConfig(recipe="20*HIO+10*ER"), partial_coherence="off")
    assert len(list(phase(replace(sample[1], valid=dead), quick))) == 2 * 30
    dead[:2] = False
    assert len(list(phase(replace(sample[1], valid=dead), quick))) == 2 * (30 + 140)


def test_empty_and_impossible():
    nothing = DiffractionVolume(np.zeros((8, 8, 8), np.float32), np.ones((8, 8, 8), bool))
    with pytest.raises(DataError, match="no valid voxel holds a count"):
        finish(nothing, CONFIG)
    with pytest.raises(ConfigError, match="at least 1"):
        PhasingConfig(starts=0)
    with pytest.raises(ConfigError, match="free"):
        PhasingConfig(free_fraction=0.9)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_asking_for_a_missing_device(sample):
    with pytest.raises(ConfigError, match="no CUDA device"):
        finish(sample[1], replace(CONFIG, device="cuda"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_same_crystal_on_a_gpu(sample, result):
    found = finish(sample[1], replace(CONFIG, device="cuda"))
    assert align(torch.from_numpy(found.rho), torch.from_numpy(result.rho)).correlation > 0.99
