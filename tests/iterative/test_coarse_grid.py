"""Fewer voxels of the same measurement: the same crystal, coarser, in the same place."""

import pytest
import torch

from braggshot.iterative.coarse_grid import crop_to_centre, resample_guess
from braggshot.iterative.iterate import Guess
from braggshot.iterative.projections import held_out_voxels, measured
from braggshot.physics.fourier import crop, fourier, to_centre, to_corner


def crystal(shape):
    axes = [torch.arange(n) - n // 2 for n in shape]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    r = ((z - 1) / 5) ** 2 + (y / 4) ** 2 + ((x + 2) / 6) ** 2
    return torch.exp(-(r**2)) * torch.exp(0.2j * z - 0.03j * x * y)


@pytest.mark.parametrize("shape", [(48, 40, 44), (47, 41, 20)])
def test_the_central_voxels_are_those_of_the_whole(shape):
    counts = torch.poisson(fourier(crystal(shape)).abs().square() * 1e4, generator=torch.Generator().manual_seed(0))
    valid = torch.rand(shape, generator=torch.Generator().manual_seed(1)) > 0.03
    held = held_out_voxels(valid, generator=torch.Generator().manual_seed(2))
    small = crop_to_centre(measured(counts, valid, held), 24)
    size = [min(n, 24) for n in shape]
    assert torch.equal(to_centre(small.intensity), crop(counts, size))
    assert torch.equal(to_centre(small.valid), crop(valid, size))
    assert len(small.free) == int(crop(held, size).sum())
    assert not small.magnitude.view(-1)[small.free].any()


@pytest.mark.parametrize(("shape", "small"), [((48, 40, 44), (24, 24, 24)), ((47, 41, 45), (25, 24, 23))])
def test_a_crystal_keeps_its_place_and_its_central_fringes(shape, small):
    rho = crystal(shape).to(torch.complex64)
    whole = Guess(to_corner(rho), to_corner(rho.abs() > 0.3), 0.29)
    down = resample_guess(whole, small, 0.3)
    torch.testing.assert_close(fourier(to_centre(down.rho)), crop(fourier(rho), small), rtol=1e-4, atol=1e-5)
    up = resample_guess(down, shape, 0.3)
    assert up.threshold == 0.29
    overlap = torch.vdot(to_centre(up.rho).flatten(), rho.flatten())
    assert overlap.abs() > 0.99 * torch.linalg.vector_norm(up.rho) * torch.linalg.vector_norm(rho)
    assert overlap.angle().abs() < 1e-3
    both = (to_centre(up.support) & (rho.abs() > 0.3)).sum() / (to_centre(up.support) | (rho.abs() > 0.3)).sum()
    assert both > 0.9
