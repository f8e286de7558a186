"""Misfits against their written sums; alignment against shifts, phases and twins that were put in."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.stats import poisson

from braggshot.physics.fourier import fourier, frequencies
from braggshot.physics.metrics import align, excess_misfit, half_deviance, magnitude_noise_floor, misfit, modes, prtf, shells


def body(shape, seed=0):
    """A smooth, asymmetric complex body well inside the array, so that sub-voxel shifts are exact."""
    generator = torch.Generator().manual_seed(seed)
    grids = torch.meshgrid(*((torch.arange(n, dtype=torch.float64) - n // 2) / (0.16 * n) for n in shape), indexing="ij")
    noise = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    blobs = sum(
        torch.exp(-sum((g - 0.6 * c) ** 2 for g, c in zip(grids, centre, strict=True)) * 2 + 1j * k)
        for k, centre in enumerate(noise)
    )
    return blobs


def moved(field, shift):
    phase = sum(-2 * math.pi * s * f for s, f in zip(shift, frequencies(field.shape), strict=True))
    return torch.fft.ifftn(torch.fft.fftn(field) * torch.exp(1j * phase))


def test_misfit_is_the_written_sum():
    generator = torch.Generator().manual_seed(3)
    magnitude, counts = torch.rand(5, 4, 3, generator=generator), 9 * torch.rand(5, 4, 3, generator=generator)
    valid = torch.rand(5, 4, 3, generator=generator) > 0.3
    found = misfit(magnitude, counts, valid)
    f, m = magnitude[valid].numpy().astype(float), np.sqrt(counts[valid].numpy().astype(float))
    c = (m * f).sum() / (f * f).sum()
    assert found.scale == pytest.approx(c)
    assert found.chi2 == pytest.approx(((c * f - m) ** 2).sum() / (m * m).sum())
    assert found.r_factor == pytest.approx(np.abs(c * f - m).sum() / m.sum())
    assert misfit(2 * magnitude, counts, valid).chi2 == pytest.approx(found.chi2)


def test_misfit_refuses_emptiness():
    with pytest.raises(ValueError, match="no counts"):
        misfit(torch.ones(2, 2, 2), torch.zeros(2, 2, 2), torch.ones(2, 2, 2, dtype=torch.bool))


def test_half_deviance_is_half_at_the_noise_floor():
    """Poisson counts about their true mean give 0.5 at high counts; sqrt-counts (noise on the magnitude) would not."""
    rate = torch.full((60_000,), 400.0, dtype=torch.float64)
    counts = torch.poisson(rate, generator=torch.Generator().manual_seed(0))
    assert half_deviance(rate, counts).mean().item() == pytest.approx(0.5, abs=0.01)
    assert half_deviance(torch.tensor([2.0]), torch.tensor([0.0])).item() == pytest.approx(2.0)
    assert half_deviance(counts, counts).abs().max().item() < 1e-9


@pytest.mark.parametrize("shape", [(15, 18, 13), (16, 16, 16)])
@pytest.mark.parametrize("shift", [(2, -3, 1), (0.37, -1.62, 2.45)])
@pytest.mark.parametrize("twin", [False, True])
def test_align_undoes_what_was_done(shape, shift, twin):
    reference = body(shape)
    other = moved(reference, shift) * np.exp(0.9j) * 3
    if twin:
        other = other.conj().flip(0, 1, 2)
    found = align(other, reference)
    assert found.twin is twin
    assert found.correlation > 1 - 1e-6
    assert torch.allclose(found.field / 3, reference, atol=2e-3)
    if not twin:
        assert [round(s, 2) for s in found.shift] == [-s for s in shift]


def test_align_without_the_twin_does_not_find_it():
    reference = body((15, 18, 13))
    found = align(reference.conj().flip(0, 1, 2), reference, allow_twin=False)
    assert not found.twin
    assert found.correlation < 0.98


def test_align_refuses_other_shapes_and_nothing():
    with pytest.raises(ValueError, match="cannot align"):
        align(body((5, 5, 5)), body((5, 5, 6)))
    with pytest.raises(ValueError, match="zero everywhere"):
        align(torch.zeros(4, 4, 4, dtype=torch.complex64), torch.ones(4, 4, 4, dtype=torch.complex64))


def test_modes_of_equal_and_of_unrelated_starts():
    one = body((7, 8, 9)).reshape(1, 7, 8, 9)
    same, weights = modes(one.repeat(3, 1, 1, 1))
    assert weights.tolist() == pytest.approx([1, 0, 0], abs=1e-9)
    overlap = torch.vdot(same[0].reshape(-1), one.reshape(-1)).abs() / (torch.linalg.norm(same[0]) * torch.linalg.norm(one))
    assert overlap.item() == pytest.approx(1)
    orthogonal = torch.eye(2, 24, dtype=torch.complex128).reshape(2, 2, 3, 4)
    found, weights = modes(orthogonal)
    assert weights.tolist() == pytest.approx([0.5, 0.5])
    assert torch.vdot(found[0].reshape(-1), found[1].reshape(-1)).abs().item() < 1e-9


def test_shells_count_in_nyquist_or_in_inverse_metres():
    number, radii = shells(torch.Size((8, 10, 12)), 4)
    assert number[0, 0, 0] == 0
    assert number[0, 0, 5] == 3
    assert number[4, 5, 6] == -1
    assert radii.tolist() == pytest.approx([0.125, 0.375, 0.625, 0.875])
    basis = torch.diag(torch.tensor([1e6, 2e6, 3e6], dtype=torch.float64))
    number, radii = shells(torch.Size((8, 10, 12)), 4, basis)
    assert radii[-1].item() == pytest.approx(3.5e6)
    assert number[0, 1, 0] == 2
    assert number[0, 0, 1] == 3


def test_prtf_is_one_for_a_perfect_start_and_falls_where_phases_differ():
    rho = body((16, 16, 16))
    counts = fourier(rho).abs().square()
    valid = torch.ones(rho.shape, dtype=torch.bool)
    number, _ = shells(rho.shape, 8)
    assert prtf(rho, counts, valid, number).numpy() == pytest.approx(1, abs=1e-5)
    unphased = fourier(rho) * torch.sign(torch.fft.fftshift(number) < 3)
    half = torch.fft.fftshift(torch.fft.ifftn(torch.fft.ifftshift(unphased), norm="ortho"))
    curve = prtf(half, counts, valid, number)
    assert curve[:3].numpy() == pytest.approx(1, abs=1e-5)
    assert curve[4:].max().item() < 1e-5


def test_aligning_imports_no_algebra():
    """Some functions of torch import sympy when they are called first; the first picture of a session would wait for that."""
    script = (
        "import sys, torch; from braggshot.physics.metrics import align; "
        "field = torch.randn(8, 8, 8, dtype=torch.complex64); align(field, field); sys.exit('sympy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_noise_floor_is_the_sum_over_poisson_counts():
    rates = np.array([0.0, 1e-3, 0.05, 0.4, 1.0, 3.0, 12.0, 40.0, 1e4])
    k = np.arange(200)[:, None]
    summed = (poisson.pmf(k, rates[:-1]) * (np.sqrt(k) - np.sqrt(rates[:-1])) ** 2).sum(0)
    assert magnitude_noise_floor(rates)[:-1] == pytest.approx(summed, rel=2e-3)
    assert magnitude_noise_floor(rates)[-1] == pytest.approx(0.25, rel=1e-2)  # of high counts


def test_excess_misfit_is_what_photon_noise_does_not_explain():
    """Of a model that is the mean of the counts nothing is left; of one that is wrong by a factor, the expected sum is."""
    rates = torch.from_numpy(np.random.default_rng(5).uniform(0.2, 30, 40_000))
    counts = torch.from_numpy(np.random.default_rng(6).poisson(rates.numpy()).astype(float))
    assert excess_misfit(rates, counts) < 0.02
    factor = 1.3
    k = np.arange(200)[:, None]
    expected = 0.0
    for part in np.array_split(rates.numpy(), 40):
        chance = poisson.pmf(k, part)
        expected += (chance * (np.sqrt(k) - np.sqrt(factor * part)) ** 2).sum()
        expected -= (poisson.pmf(k, factor * part) * (np.sqrt(k) - np.sqrt(factor * part)) ** 2).sum()
    assert excess_misfit(factor * rates, counts) == pytest.approx(math.sqrt(expected / rates.sum().item()), rel=0.05)


def test_excess_misfit_of_no_photons_is_not_a_number():
    nothing = torch.zeros(4)
    assert math.isnan(excess_misfit(torch.ones(4), nothing))
    assert math.isnan(excess_misfit(nothing[:0], nothing[:0]))
