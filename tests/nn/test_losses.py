"""Every term of the loss against its formula, written out in numpy over the valid voxels."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from braggshot.nn.autophasenn import unit_scale
from braggshot.nn.losses import (
    LossConfig,
    correlation,
    data_term,
    quarter_photon_floor,
    r_factor,
    step_weights,
    trust,
)
from braggshot.nn.network import Measurement, misfit

SHAPE = (3, 6, 7, 8)


@pytest.fixture
def data():
    """Three patterns of Poisson counts; a tenth of the voxels is not valid and holds no magnitude."""
    generator = torch.Generator().manual_seed(0)
    counts = torch.poisson(torch.rand(SHAPE, generator=generator) * 30, generator=generator)
    valid = (torch.rand(SHAPE, generator=generator) > 0.1).float()
    return Measurement(counts.sqrt() * valid, valid)


@pytest.fixture
def modulus():
    """|F| of a network, on a scale of its own."""
    return 0.2 + 3 * torch.rand(SHAPE, generator=torch.Generator().manual_seed(1))


def patterns(modulus, data):
    """(|F|, m) of every pattern, valid voxels alone."""
    arrays = (tensor.double().numpy() for tensor in (modulus, data.magnitude, data.valid))
    return [(f[v > 0], m[v > 0]) for f, m, v in zip(*arrays, strict=True)]


def scale(f, m):
    return (f * m).sum() / (f**2).sum()


def test_chi2_is_the_squared_difference_at_the_best_scale(modulus, data):
    """1 - (sum m|F|)^2 / (sum m^2 sum |F|^2) is sum (c|F| - m)^2 / sum m^2 at the c that makes it least."""
    expected = [((scale(f, m) * f - m) ** 2).sum() / (m**2).sum() for f, m in patterns(modulus, data)]
    np.testing.assert_allclose(misfit(modulus, data).numpy(), expected, rtol=1e-4)


def test_r_factor(modulus, data):
    expected = [np.abs(scale(f, m) * f - m).sum() / m.sum() for f, m in patterns(modulus, data)]
    np.testing.assert_allclose(r_factor(modulus, data).numpy(), expected, rtol=1e-5)


def test_voxels_that_are_not_valid_and_the_scale_change_no_term(modulus, data):
    hidden = torch.where(data.valid > 0, modulus, 100 * modulus)
    for config in (LossConfig(data="ours"), LossConfig(data="max-l1")):
        expected = data_term(modulus, data, config)
        torch.testing.assert_close(data_term(hidden, data, config), expected)
        torch.testing.assert_close(data_term(7 * modulus, data, config), expected)
    torch.testing.assert_close(data_term(hidden, data, LossConfig(data="mae")), data_term(modulus, data, LossConfig(data="mae")))
    torch.testing.assert_close(r_factor(7 * hidden, data), r_factor(modulus, data))


def test_our_data_term_is_the_mean_of_both_misfits(modulus, data):
    chi2 = [((scale(f, m) * f - m) ** 2).sum() / (m**2).sum() for f, m in patterns(modulus, data)]
    r = [np.abs(scale(f, m) * f - m).sum() / m.sum() for f, m in patterns(modulus, data)]
    assert data_term(modulus, data, LossConfig()).item() == pytest.approx(np.mean(np.sqrt(chi2)) + np.mean(r), rel=1e-4)


def test_the_published_loss_compares_magnitudes_over_their_largest(modulus, data):
    differences = np.concatenate([np.abs(f / f.max() - m / m.max()) for f, m in patterns(modulus, data)])
    assert data_term(modulus, data, LossConfig(data="max-l1")).item() == pytest.approx(differences.mean(), rel=1e-5)


def test_the_first_published_loss_fits_no_factor():
    """Magnitudes are brought to those of a crystal of amplitude one and to a transform without 1 / sqrt(N), whatever |F| is."""
    rho = torch.zeros(1, 16, 16, 16, dtype=torch.complex64)
    rho[:, 5:11, 5:11, 5:11] = 1
    modulus = torch.fft.fftn(rho, dim=(-3, -2, -1), norm="ortho").abs()
    valid = (torch.rand(modulus.shape, generator=torch.Generator().manual_seed(4)) > 0.05).float()
    data, config = Measurement(300 * modulus * valid, valid), LossConfig(data="mae")
    unit, terms = unit_scale(data).item(), {}
    for factor in (0.0, 1.0, 2.0):
        ((f, m),) = patterns(factor * modulus, data)
        terms[factor] = data_term(factor * modulus, data, config).item()
        assert terms[factor] == pytest.approx(math.sqrt(16**3) * np.abs(f - unit * m).mean(), rel=1e-4)
    # The crystal itself costs least; its scale is estimated from its autocorrelation, so not nothing.
    assert terms[1.0] < 0.25 * min(terms[0.0], terms[2.0])


def test_correlation_is_that_of_complex_vectors():
    generator = torch.Generator().manual_seed(2)
    one, other = (torch.complex(*torch.randn(2, *SHAPE, generator=generator)) for _ in range(2))
    pairs = zip(one.flatten(1).numpy(), other.flatten(1).numpy(), strict=True)
    expected = [abs(np.vdot(a, b)) / (np.linalg.norm(a) * np.linalg.norm(b)) for a, b in pairs]
    np.testing.assert_allclose(correlation(one, other).numpy(), expected, rtol=1e-4)
    torch.testing.assert_close(correlation(one, one * torch.polar(torch.tensor(3.0), torch.tensor(2.0))), torch.ones(3))


def test_floor_is_the_chi2_of_poisson_noise():
    """Counts drawn from |F|^2 leave a quarter photon for each voxel that counted any: that is what the estimate says."""
    generator = torch.Generator().manual_seed(3)
    expected = 20 + 30 * torch.rand(2, 24, 24, 24, generator=generator)
    counts = torch.poisson(expected, generator=generator)
    data = Measurement(counts.sqrt(), torch.ones_like(counts))
    floor = quarter_photon_floor(data)
    torch.testing.assert_close(floor, 0.25 * (counts > 0).sum((1, 2, 3)) / counts.sum((1, 2, 3)))
    torch.testing.assert_close(misfit(expected.sqrt(), data), floor, rtol=0.05, atol=0)


@pytest.mark.parametrize("width", [0.04, 0.2])
def test_trust_falls_as_a_gaussian_of_the_excess(data, width):
    config, floor = LossConfig(trust=width), quarter_photon_floor(data)
    for excess in (0.0, 0.5, 1.0, 2.0):
        found = trust(floor + (excess * width) ** 2, data, config)
        torch.testing.assert_close(found, torch.full((3,), math.exp(-(excess**2))), rtol=1e-3, atol=1e-6)
    assert (trust(0.5 * floor, data, config) == 1).all()


def test_weights_of_the_steps_grow_by_one_ratio_and_sum_to_one():
    weights = step_weights(4, LossConfig(growth=1.5))
    assert sum(weights) == pytest.approx(1)
    assert [b / a for a, b in pairwise(weights)] == pytest.approx([1.5] * 3)
    assert step_weights(1, LossConfig()) == [1.0]
