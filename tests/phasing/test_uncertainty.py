"""One-sigma that can be held against errors: those of many noisy measurements of one known crystal."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from braggshot.crystal_frame import strain_map
from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.errors import DataError
from braggshot.iterative.iterate import IterativeConfig
from braggshot.phasing.calibration import CALIBRATION
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.strategies import phase
from braggshot.phasing.uncertainty import halves, with_half_data, with_photon_noise
from braggshot.physics.fourier import fourier
from braggshot.physics.metrics import align
from braggshot.physics.strain import amplitude_spread, standard_deviation
from braggshot.pipeline import REDRAWS, Settings, drain, finish_result
from braggshot.volumes import DiffractionVolume, Ensemble, Quality, Reconstruction, Uncertainty

SHAPE = (24, 28, 26)
BASIS = np.array([[9e-9, 1.5e-9, 0.0], [0.0, 8e-9, 1e-9], [1e-9, 0.0, 7e-9]])
Q = np.array([4e9, 1.8e10, 1.2e10])


def crystal(peak=3e4):
    z, y, x = np.indices(SHAPE) - np.array(SHAPE).reshape(3, 1, 1, 1) // 2
    support = (abs(z) < 5) & (abs(y) < 6) & (abs(x + 0.3 * y) < 5)
    rho = torch.from_numpy(support * np.exp(0.4j * np.sin(z / 3) * (y / 4)))
    rho = (rho * (peak**0.5 / fourier(rho).abs().max())).to(torch.complex64)
    counts = torch.poisson(fourier(rho).abs().square(), generator=torch.Generator().manual_seed(3)).numpy()
    reciprocal = 2 * np.pi * np.linalg.inv(BASIS).T / np.array(SHAPE)
    volume = DiffractionVolume(counts, np.ones(SHAPE, bool), reciprocal_basis=reciprocal, q_bragg=Q)
    return Reconstruction(rho.numpy(), support, volume, Quality(0, 0, 0, 0), basis=BASIS)


def test_photon_noise_falls_as_the_square_root_of_many_counts():
    medians = []
    for peak in (3e6, 3e8):
        found = drain(with_photon_noise(crystal(peak), 10)).uncertainty
        assert found.samples == 10
        assert not found.phase[~crystal().support].any()
        medians.append((np.median(found.phase[crystal().support]), np.median(found.strain[crystal().support])))
    np.testing.assert_allclose(np.divide(*medians), 10, rtol=0.25)


def test_photon_noise_is_the_error_of_a_fresh_measurement():
    """Counts drawn from the truth and refined from it scatter about the truth as the one-sigma says."""
    truth = crystal()
    sigma = drain(with_photon_noise(truth, 16)).uncertainty.phase[truth.support]
    expected = replace(truth, volume=replace(truth.volume, intensity=fourier(torch.from_numpy(truth.rho)).abs().square().numpy()))
    again = drain(with_photon_noise(expected, 16, seed=100)).uncertainty.phase[truth.support]
    assert np.median(sigma) == pytest.approx(np.median(again), rel=0.25)
    assert 0.001 < np.median(sigma) / CALIBRATION["photons"]["phase"] < 0.03


def test_starts_and_photons_add_in_quadrature():
    truth = crystal()
    flat = np.where(truth.support, 0.3, 0).astype(np.float32)
    both = drain(with_photon_noise(replace(truth, uncertainty=Uncertainty(flat, flat / 100, 5, "starts")), 6)).uncertainty
    noise = drain(with_photon_noise(truth, 6)).uncertainty
    factor = CALIBRATION
    for name, from_starts in (("phase", 0.3), ("strain", 0.003)):
        plain = from_starts / factor["starts"][name], getattr(noise, name)[truth.support] / factor["photons"][name]
        expected = factor["both"][name] * np.hypot(*plain)
        np.testing.assert_allclose(getattr(both, name)[truth.support], expected, rtol=1e-5)


def test_spread_of_fields_with_known_scatter():
    """Independent phases: sigma of the strain along q is that of a central difference, per axis."""
    truth = crystal()
    random = np.random.default_rng(0)
    fields = truth.rho * np.exp(1j * random.normal(0, 0.05, (300, *SHAPE)))
    phase, strain = standard_deviation(fields, truth.support, 8e-9 * np.eye(3), np.array([0, 2e10, 0]))
    inside = truth.support & np.roll(truth.support, 1, 1) & np.roll(truth.support, -1, 1)
    assert np.median(phase[truth.support]) == pytest.approx(0.05, rel=0.03)
    assert np.median(strain[inside]) == pytest.approx(0.05 / np.sqrt(2) / 8e-9 / 2e10, rel=0.05)
    assert standard_deviation(fields[:2], truth.support)[1] is None


def test_the_scatter_of_the_amplitude_is_relative_and_knows_no_scale():
    truth = crystal()
    random = np.random.default_rng(0)
    scales = random.uniform(0.5, 2, (300, 1, 1, 1))
    fields = truth.rho * scales * random.normal(1, 0.04, (300, *SHAPE))
    found = amplitude_spread(fields, truth.support)
    assert np.median(found[truth.support]) == pytest.approx(0.04, rel=0.03)
    assert not found[~truth.support].any()


def test_the_strain_map_carries_them_in_metres():
    truth = crystal()
    flat = np.where(truth.support, 0.3, 0).astype(np.float32)
    found = strain_map(replace(truth, uncertainty=Uncertainty(flat, flat / 100, 5, "starts")))
    np.testing.assert_allclose(found.displacement_sigma[found.support], 0.3 / np.linalg.norm(found.q_bragg), rtol=1e-5)
    np.testing.assert_allclose(found.strain_sigma[found.support], 0.003, rtol=1e-5)
    assert np.isnan(found.strain_sigma[~found.support]).all()


def test_a_good_crystal_that_one_start_has_found_has_errors_all_the_same():
    """A spread of starts is kept where there is one, and only a good crystal's errors are worth the time."""
    alone = replace(crystal(), verdict="good", uncertainty=None)
    found = drain(finish_result(alone, Settings(), {})).uncertainty
    assert found.samples == REDRAWS
    assert "redraws" in found.source
    flat = np.where(alone.support, 0.3, 0).astype(np.float32)
    spread = Uncertainty(flat, flat / 100, 5, "starts")
    assert drain(finish_result(replace(alone, uncertainty=spread), Settings(), {})).uncertainty is spread
    assert drain(finish_result(replace(alone, verdict="doubtful"), Settings(), {})).uncertainty is None


def test_what_cannot_be_redrawn_says_why():
    truth = crystal()
    with pytest.raises(DataError, match="at least two"):
        drain(with_photon_noise(truth, 1))
    with pytest.raises(DataError, match="detector frame"):
        drain(with_photon_noise(replace(truth, frame="lab"), 3))


def test_halves_are_independent_and_whole_together():
    counts = np.random.default_rng(0).poisson(40.0, (30, 30, 30)).astype(np.float32)
    first, second = halves(counts, 1)
    np.testing.assert_array_equal(first + second, counts)
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] == pytest.approx(0, abs=0.03)
    assert first.var() == pytest.approx(20, rel=0.05)


def test_half_data_correlation_of_a_phased_crystal():
    """Many photons, a loose task: the halves agree to the last shells; the result says which curve it holds."""
    truth = crystal(1e7)
    config = PhasingConfig(
        method="iterative",
        starts=1,
        device="cpu",
        partial_coherence="off",
        iterative=IterativeConfig(recipe="2*(40*HIO+20*ER)+30*ER"),
    )
    prtf = Ensemble({}, np.ones(1), np.ones(8), np.linspace(1e7, 1e8, 8))
    found = drain(with_half_data(replace(truth, ensemble=prtf), config)).ensemble
    assert found.fsc_between == "half data"
    assert found.fsc.shape == (8,)
    assert found.fsc[0] > 0.95
    with pytest.raises(DataError, match="counts"):
        drain(with_half_data(truth, config))


def test_one_sigma_of_starts_covers_two_thirds_of_the_errors():
    """Of a crystal that is known, phased from its counts; the share varies from crystal to crystal."""
    truth, volume = simulate_volume(61_007, CrystalSettings((32, 32, 32), (2.2, 2.6), phase_range=(2, 3), counts=(1e5, 1e5)))
    config = PhasingConfig(method="iterative", starts=5, device="cpu", partial_coherence="off")
    found = drain(phase(volume, config))
    bulk = ndimage.binary_erosion(found.support)
    aligned = align(torch.from_numpy(truth), torch.from_numpy(found.rho)).field.numpy()
    error = np.angle(found.rho * aligned.conj())[bulk]
    covered = np.abs(error - error.mean()) <= found.uncertainty.phase[bulk]
    assert 0.5 < covered.mean() < 0.85
    one, other = (np.abs(field[bulk]) / np.abs(field[bulk]).mean() for field in (found.rho, aligned))
    assert 0.4 < (np.abs(other / one - 1) <= found.uncertainty.amplitude[bulk]).mean() < 0.9
