"""The compiled passes do what their torch formulas say, on odd and unequal shapes and batches."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from braggshot.iterative import kernels

SHAPES = [(1, 8, 8, 8), (3, 5, 7, 6), (2, 1, 9, 33), (2, 16, 17, 1)]


def field(shape, seed=0):
    return torch.complex(*torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed)))


def targets(shape):
    """Magnitudes with zeros among them, a quarter of the voxels floating."""
    values = torch.rand(shape[1:], generator=torch.Generator().manual_seed(1)) * 4 - 1
    return torch.where(values < 0, -1.0, (values - 0.5).clamp_min(0))


@pytest.mark.parametrize("shape", SHAPES)
def test_magnitudes_are_imposed_where_they_were_measured(shape):
    before, target = field(shape), targets(shape)
    after = before.clone()
    kernels.impose_magnitude(after, target)
    expected = torch.where(target < 0, before, target * before / before.abs())
    assert torch.allclose(after, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_model_intensity_takes_the_place_of_the_field_s_own(shape):
    before, target = field(shape), targets(shape)
    model = torch.rand(shape, generator=torch.Generator().manual_seed(2)) + 0.1
    after = before.clone()
    kernels.impose_magnitude(after, target, model)
    assert torch.allclose(after, torch.where(target < 0, before, before * target / model.sqrt()), rtol=1e-5, atol=1e-6)


def test_a_dark_field_stays_finite():
    dark = torch.zeros(1, 4, 5, 6, dtype=torch.complex64)
    kernels.impose_magnitude(dark, torch.full((4, 5, 6), 3.0))
    assert not dark.abs().any()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("old", "new"), [(0.0, 0.0), (1.0, -0.9), (0.9, -0.8)])
def test_relaxation_and_distance(shape, old, new):
    rho, projected = field(shape), field(shape, 5)
    support = torch.rand(shape, generator=torch.Generator().manual_seed(3)) < 0.3
    expected = torch.where(support, projected, old * rho + new * projected)
    distance = (projected - rho).abs().square().sum((1, 2, 3))
    assert kernels.relax(rho.clone(), projected, support, old, new, measure=False) is None
    found = kernels.relax(rho, projected, support, old, new)
    assert torch.allclose(rho, expected, rtol=1e-5, atol=1e-6)
    assert torch.allclose(found, distance, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_powers_and_separable_scales(shape):
    values = field(shape)
    assert torch.allclose(kernels.squared_modulus(values), values.abs().square(), rtol=1e-5)
    z, y, x = (torch.rand(n, generator=torch.Generator().manual_seed(n)) for n in shape[1:])
    expected = values * torch.einsum("i,j,k->ijk", z, y, x)
    kernels.scale_separably(values, z, y, x)
    assert torch.allclose(values, expected, rtol=1e-5, atol=1e-6)


class Elsewhere(torch.Tensor):
    """A tensor that says it is not on the CPU, so that the torch formulas run."""

    is_cpu = False


def elsewhere(tensor):
    return tensor.clone().as_subclass(Elsewhere)


@pytest.mark.parametrize("shape", SHAPES)
def test_other_devices_run_the_same_formulas(shape):
    target, rho, projected = targets(shape), field(shape), field(shape, 5)
    support = torch.rand(shape, generator=torch.Generator().manual_seed(3)) < 0.3
    one, other = rho.clone(), elsewhere(rho)
    for value in (one, other):
        kernels.impose_magnitude(value, target)
        kernels.impose_magnitude(value, target, torch.rand(shape, generator=torch.Generator().manual_seed(2)) + 0.1)
        kernels.scale_separably(value, *(torch.linspace(0.5, 1, n) for n in shape[1:]))
    assert torch.allclose(one, other.as_subclass(torch.Tensor), rtol=1e-5, atol=1e-6)
    power = kernels.squared_modulus(other).as_subclass(torch.Tensor)
    assert torch.allclose(kernels.squared_modulus(one), power, rtol=1e-4)
    distances = [kernels.relax(value, projected, support, 0.9, -0.8) for value in (one, other)]
    assert torch.allclose(one, other.as_subclass(torch.Tensor), rtol=1e-5, atol=1e-6)
    assert torch.allclose(distances[0], distances[1].as_subclass(torch.Tensor), rtol=1e-5)
    assert kernels.relax(other, projected, support, 0.9, -0.8, measure=False) is None


def test_without_a_place_for_a_cache_the_kernels_still_compile(tmp_path):
    """A read-only installation and a home that cannot be written: numba refuses to cache, and that must not be the end."""
    script = (
        "import numba.core.caching as caching\n"
        "caching._CacheLocator.ensure_cache_path = lambda self: (_ for _ in ()).throw(OSError('read-only'))\n"
        "import torch\n"
        "from braggshot.iterative import kernels\n"
        "print(kernels.squared_modulus(torch.full((1, 2, 2, 2), 3 + 4j)).sum().item())"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert run.stdout.strip() == "200.0"
