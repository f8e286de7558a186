"""The sum over atoms: against the sum itself, in braggshot's convention, and on the right side of the peak."""

import math

import numpy as np
import pytest
import torch

from braggshot.crystals import kinematic
from braggshot.crystals.kinematic import diffract_atoms, sum_on_grid
from braggshot.physics.fourier import fourier, inverse_fourier

A = 4e-10
SHAPE = (30, 33, 36)
G = 2 * math.pi / A * torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
DIRECT = A * torch.tensor([[1.5, 0.0, 0.0], [0.3, 1.3, 0.0], [-0.4, 0.0, 1.2]], dtype=torch.float64)
BASIS = 2 * math.pi * torch.linalg.inv(DIRECT).T / torch.tensor(SHAPE, dtype=torch.float64)


def block(cells=12, lattice=A):
    """Lopsided block of an fcc lattice (nothing that equals its own inverse)."""
    cell = torch.cartesian_prod(*[torch.arange(-cells // 2, cells // 2, dtype=torch.float64)] * 3)
    basis = torch.tensor([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]], dtype=torch.float64)
    sites = (cell[:, None] + basis).reshape(-1, 3)
    return sites[(sites.sum(1) < 5) & (sites[:, 0] > -5)] * lattice


@pytest.mark.parametrize("shape", [(5, 6, 7), (4, 1, 3)])
def test_it_is_the_sum_over_atoms(shape, monkeypatch):
    monkeypatch.setattr(kinematic, "ELEMENTS_PER_CHUNK", 200)
    rng = np.random.default_rng(0)
    r, q, basis = rng.normal(size=(33, 3)) * 1e-8, rng.normal(size=3) * 1e10, rng.normal(size=(3, 3)) * 1e8
    expected = np.zeros(shape, complex)
    for k in np.ndindex(shape):
        expected[k] = np.exp(-1j * r @ (q + basis @ (np.array(k) - np.array(shape) // 2))).sum()
    found = diffract_atoms(*(torch.from_numpy(array) for array in (r, q, basis)), shape)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)


def test_far_from_the_origin_only_the_phase_changes():
    sites = block()
    here, there = (diffract_atoms(r, G, BASIS, SHAPE) for r in (sites, sites + 1e-6))
    torch.testing.assert_close(here.abs(), there.abs(), atol=1e-4 * len(sites), rtol=0)


def test_it_is_the_transform_of_the_density_with_the_phase_minus_g_u():
    sites = block()
    u = 0.15 * A * torch.sin(2 * math.pi * sites / (14 * A)).roll(1, dims=1) + 0.02 * sites.square() / A
    amplitudes = diffract_atoms(sites + u, G, BASIS, SHAPE)
    phase = -u @ G
    crystal = sum_on_grid(sites + u, torch.polar(torch.ones_like(phase), phase), DIRECT, SHAPE).to(torch.complex64)
    scale = math.sqrt(math.prod(SHAPE))  # of the unitary transform
    for sign, lowest, highest in ((1, 0.94, 1.0), (-1, 0.0, 0.8)):
        model = scale * fourier(crystal if sign > 0 else crystal.conj())
        overlap = (model.conj() * amplitudes).sum().abs() / (model.norm() * amplitudes.norm())
        assert lowest < float(overlap) < highest
    middle = tuple(slice(n // 2 - 6, n // 2 + 7) for n in SHAPE)
    one, other = amplitudes.abs().square()[middle].flatten(), (scale * fourier(crystal)).abs().square()[middle].flatten()
    assert float(torch.corrcoef(torch.stack([one, other]))[0, 1]) > 0.99


def test_the_density_has_the_atoms_of_a_voxel():
    rho = inverse_fourier(diffract_atoms(block(), G, BASIS, SHAPE)) / math.sqrt(math.prod(SHAPE))
    inside = sum_on_grid(block(), torch.ones(len(block())), DIRECT, SHAPE) > 0
    for _ in range(2):  # two voxels below the surface
        inside = -torch.nn.functional.max_pool3d(-inside[None].float(), 3, 1, 1)[0] > 0
    assert float(rho.abs()[inside].mean()) == pytest.approx(4 * float(torch.linalg.det(DIRECT)) / A**3, rel=0.02)
    assert rho.angle()[inside].abs().max() < 0.1
    assert float(rho.abs().square().sum()) == pytest.approx(float(fourier(rho).abs().square().sum()), rel=1e-4)


@pytest.mark.parametrize("strain", [0.02, -0.02])
def test_a_larger_lattice_scatters_closer_to_the_origin(strain):
    amplitudes = diffract_atoms(block() * (1 + strain), G, BASIS, SHAPE).abs().square()
    index = torch.stack(torch.meshgrid(*(torch.arange(n) - n // 2 for n in SHAPE), indexing="ij")).double()
    centre = (amplitudes.double() * index).sum((1, 2, 3)) / amplitudes.sum()
    torch.testing.assert_close(BASIS @ centre, G * (1 / (1 + strain) - 1), atol=0.15 * abs(strain) * float(G.norm()), rtol=0)
