"""Resolution against what is put in: blurred edges, known curves, noise that drowns one half of the transform."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from braggshot.physics import metrics, resolution
from braggshot.physics.fourier import inverse_fourier, to_centre


def test_equal_fields_correlate_and_independent_ones_do_not():
    generator = torch.Generator().manual_seed(1)
    first, second = (torch.randn(20, 24, 21, dtype=torch.complex64, generator=generator) for _ in range(2))
    number, _ = metrics.shells(first.shape, 8)
    np.testing.assert_allclose(resolution.shell_correlation(first, 2j * first, number), 1, rtol=1e-5)
    assert (resolution.shell_correlation(first, second, number)[3:] < 0.15).all()


def test_correlation_falls_where_noise_begins():
    """The same field below half of the Nyquist frequency, other noise above: the cut-off is there."""
    shape = (32, 36, 33)
    generator = torch.Generator().manual_seed(2)
    basis = 3e6 * torch.eye(3, dtype=torch.float64)
    number, radii = metrics.shells(torch.Size(shape), 16, basis)
    same, one, other = (torch.randn(shape, dtype=torch.complex64, generator=generator) for _ in range(3))
    low = (number >= 0) & (number < 8)
    fields = [inverse_fourier(to_centre(torch.where(low, same, noise))) for noise in (one, other)]
    curve = resolution.shell_correlation(*fields, number)
    found = resolution.cutoff(curve.numpy(), radii.numpy(), resolution.HALF)
    assert found == pytest.approx(2 * np.pi / (8 * float(radii[0]) * 2), rel=0.07)


def test_cutoff_lies_between_shells():
    frequency = np.array([1e8, 2e8, 3e8])
    assert resolution.cutoff(np.array([1.0, 0.7, 0.3]), frequency, 0.5) == pytest.approx(2 * np.pi / 2.5e8)
    assert resolution.cutoff(np.array([1.0, 0.9, 0.8]), frequency, 0.5) == pytest.approx(2 * np.pi / 3e8)
    assert resolution.cutoff(np.array([0.1, 0.9, 0.8]), frequency, 0.5) == pytest.approx(2 * np.pi / 1e8)


@pytest.mark.parametrize("sigma", [1.5, 2.5])
def test_edge_of_a_blurred_ball(sigma):
    basis = np.diag([4e-9, 5e-9, 6e-9])
    fine = np.indices((60, 50, 44)) - np.array((60, 50, 44)).reshape(3, 1, 1, 1) // 2
    inside = np.linalg.norm(np.tensordot(basis, fine, axes=1), axis=0) < 75e-9
    amplitude = ndimage.gaussian_filter(7.0 * inside, sigma * 5e-9 / basis.diagonal())
    bulk = ndimage.binary_erosion(inside, iterations=4)
    found = resolution.edge_width(amplitude, bulk, basis, 3.5)
    assert found == pytest.approx(2.563 * sigma * 5e-9, rel=0.1)


def test_no_edge_no_number():
    assert resolution.edge_width(np.ones((5, 5, 5)), np.ones((5, 5, 5), bool), np.eye(3), 0.5) is None
    assert resolution.edge_width(np.ones((5, 5, 5)), np.zeros((5, 5, 5), bool), np.eye(3), 0.5) is None
