"""A small facetted crystal with a strain phase and its exact pattern."""

from __future__ import annotations

import pytest
import torch

from braggshot.iterative.projections import measured
from braggshot.physics.fourier import fourier

SHAPE = (24, 27, 26)


def facetted(shape=SHAPE, seed=1):
    """An octahedron cut by random planes, with a bent phase; asymmetric on purpose."""
    z, y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) - n // 2 for n in shape), indexing="ij")
    generator = torch.Generator().manual_seed(seed)
    normals = torch.nn.functional.normalize(torch.randn(9, 3, generator=generator, dtype=torch.float64), dim=1)
    distances = 4.5 + 1.5 * torch.rand(9, generator=generator, dtype=torch.float64)
    height = normals[:, 0, None, None, None] * z + normals[:, 1, None, None, None] * y + normals[:, 2, None, None, None] * x
    amplitude = torch.clamp(distances[:, None, None, None] - height + 0.5, 0, 1).amin(0)
    amplitude = amplitude * (z**2 + y**2 + x**2 < 49)
    phase = 0.02 * (z * y + 0.5 * x**2) + 0.05 * x
    return torch.polar(amplitude, phase).to(torch.complex64)


@pytest.fixture(scope="session")
def crystal():
    return facetted()


@pytest.fixture(scope="session")
def pattern(crystal):
    """Noise-free intensity with the brightest voxel at 1e6 photons, and the crystal that gives it."""
    intensity = fourier(crystal).abs().square()
    scale = 1e6 / intensity.max()
    return intensity * scale, crystal * scale.sqrt()


@pytest.fixture(scope="session")
def data(pattern):
    valid = torch.ones(SHAPE, dtype=torch.bool)
    return measured(pattern[0], valid, torch.zeros_like(valid))
