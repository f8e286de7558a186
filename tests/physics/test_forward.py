"""The forward model: form factors, invariances, partial coherence, gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from braggshot.physics.forward import PointSpread, central_weight, convolve_psf, intensity, mutual_coherence
from braggshot.physics.fourier import inverse_fourier, to_centre, to_corner


def crystal(shape=(9, 10, 7), seed=0):
    generator = torch.Generator().manual_seed(seed)
    rho = torch.zeros(shape, dtype=torch.complex128)
    inner = tuple(slice(n // 4, n // 4 + n // 2) for n in shape)
    rho[inner] = torch.complex(*torch.randn(2, *(n // 2 for n in shape), generator=generator, dtype=torch.float64))
    return rho


def test_sphere_follows_its_form_factor():
    """|F| of a sphere is 3 (sin x - x cos x) / x^3 along each axis, x = q R."""
    n, radius = 64, 9.0
    r = torch.arange(n, dtype=torch.float64) - n // 2
    distance = (r[:, None, None] ** 2 + r[None, :, None] ** 2 + r[None, None, :] ** 2).sqrt()
    rho = torch.clamp(radius + 0.5 - distance, 0, 1).to(torch.complex128)
    measured = intensity(rho).sqrt().numpy()
    k = np.arange(1, 8)
    x = 2 * np.pi * k / n * radius
    expected = 3 * (np.sin(x) - x * np.cos(x)) / x**3
    for axis in range(3):
        line = np.moveaxis(measured, axis, 0)[n // 2 + k, n // 2, n // 2] / measured[n // 2, n // 2, n // 2]
        assert np.abs(line - np.abs(expected)).max() < 0.02


def test_gaussian_gives_a_gaussian():
    n, sigma = 32, 2.5
    r = torch.arange(n, dtype=torch.float64) - n // 2
    squared = r[:, None, None] ** 2 + r[None, :, None] ** 2 + r[None, None, :] ** 2
    measured = intensity(torch.exp(-squared / (2 * sigma**2)).to(torch.complex128))
    expected = torch.exp(-squared * (2 * math.pi * sigma / n) ** 2)
    assert torch.allclose(measured / measured.max(), expected, atol=1e-9)


@pytest.mark.parametrize("shape", [(9, 10, 7), (8, 6, 5)])
def test_trivial_ambiguities_leave_the_intensity(shape):
    rho = crystal(shape)
    twin = torch.roll(rho.conj().flip(0, 1, 2), tuple(1 - n % 2 for n in shape), (0, 1, 2))
    for other in (rho * np.exp(1.3j), torch.roll(rho, (2, -1, 3), (0, 1, 2)), twin):
        assert torch.allclose(intensity(other), intensity(rho))


def test_a_strained_crystal_is_not_its_own_mirror():
    rho = crystal()
    assert not torch.allclose(intensity(rho.conj()), intensity(rho))


def test_point_spread_is_a_convolution():
    """A Gaussian point spread in reciprocal space, against the sum written out along one axis."""
    shape, sigma = (9, 1, 1), 1.5
    pattern = torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    transfer = mutual_coherence(torch.tensor([sigma, 1e-9, 1e-9], dtype=torch.float64), torch.zeros((), dtype=torch.float64), shape)
    k = np.arange(9)
    kernel = sum(np.exp(-((k + 9 * m) ** 2) / (2 * sigma**2)) for m in range(-3, 4)) / (sigma * math.sqrt(2 * math.pi))
    expected = [sum(kernel[(a - b) % 9] * pattern[b, 0, 0].item() for b in range(9)) for a in range(9)]
    assert convolve_psf(pattern, transfer).flatten().tolist() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("shape", [(6, 5, 4), (5, 6, 7)])
@pytest.mark.parametrize("eta", [0.0, 0.6])
def test_point_spread_keeps_photons_and_its_central_weight(shape, eta):
    transfer = mutual_coherence(torch.tensor([0.5, 0.3, 0.7]), torch.tensor(eta), shape)
    delta = torch.zeros(shape)
    delta[0, 0, 0] = 1
    blurred = torch.fft.irfftn(torch.fft.rfftn(delta) * transfer, s=shape)
    assert central_weight(transfer, shape).item() == pytest.approx(blurred[0, 0, 0].item(), rel=1e-4)
    pattern = torch.rand(shape)
    assert convolve_psf(pattern, transfer).sum().item() == pytest.approx(pattern.sum().item(), rel=1e-3)


def test_partial_coherence_multiplies_the_autocorrelation():
    rho = crystal()
    psf = PointSpread((0.4, 0.7, 0.2))
    ratio = inverse_fourier(intensity(rho, psf).to(torch.complex128)) / inverse_fourier(intensity(rho).to(torch.complex128))
    f = (torch.arange(10) - 5) / 10
    expected = torch.exp(-2 * math.pi**2 * 0.7**2 * f**2)
    assert torch.allclose(ratio[4, 3:8, 3].real, expected[3:8].double(), atol=1e-6)


def test_layouts_agree():
    rho = crystal()
    coherent = intensity(rho)
    assert torch.allclose(to_centre(to_corner(coherent)), coherent)
    assert np.unravel_index(intensity(rho.abs().to(torch.complex128)).argmax().item(), rho.shape) == (4, 5, 3)


def test_gradcheck():
    parts = torch.view_as_real(crystal((6, 5, 4))).clone().requires_grad_()
    psf = PointSpread((0.4, 0.3, 0.5), 0.3)
    assert torch.autograd.gradcheck(lambda p: intensity(torch.view_as_complex(p)), (parts,))
    assert torch.autograd.gradcheck(lambda p: intensity(torch.view_as_complex(p), psf), (parts,))
