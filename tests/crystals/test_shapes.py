"""Bodies: volume, place, orientation and bounds on skewed voxels."""

import math

import pytest
import torch

from braggshot.crystals import shapes
from braggshot.crystals.grid import Grid, centred_grid
from braggshot.crystals.random import rotations

SKEWED = torch.tensor([[[0.09, 0.0, 0.0], [0.03, 0.07, 0.0], [-0.02, 0.0, 0.05]]])


def centre_of_mass(density, grid):
    """In the units of r."""
    z, y, x = torch.meshgrid(*[torch.arange(n, dtype=torch.float32) for n in grid.shape], indexing="ij")
    index = torch.stack([z, y, x], dim=-1) - grid.origin[0]
    return torch.einsum("zyx,zyxa->a", density[0], index @ grid.basis[0].T) / density.sum()


@pytest.mark.parametrize("shape", [(30, 40, 53), (31, 41, 54)])
def test_an_ellipsoid_has_its_volume_and_place_on_any_voxels(shape):
    axes, place = torch.tensor([[1.0, 0.7, 0.9]]), torch.tensor([[0.033, -0.051, 0.02]])
    grid = centred_grid(SKEWED, shape)
    density = shapes.amplitude(shapes.ellipsoid(axes)(grid.shift_origin(place)))
    volume = density.sum() * torch.linalg.det(SKEWED[0]).abs()
    assert volume == pytest.approx(4 / 3 * math.pi * 0.63, rel=3e-3)
    torch.testing.assert_close(centre_of_mass(density, grid), place[0], atol=1e-3, rtol=0)


def test_depth_counts_voxels_along_the_normal():
    normals = torch.eye(3)[None]
    slab = shapes.polyhedron(normals[:, :1], torch.tensor([[1.0]]))
    grid = Grid(torch.diag(torch.tensor([0.25, 1.0, 1.0]))[None], torch.zeros(1, 3), (8, 2, 2))
    torch.testing.assert_close(slab(grid)[0, :, 0, 0], 4.0 - torch.arange(8.0))
    assert shapes.amplitude(slab(grid))[0, :, 0, 0].tolist() == [1, 1, 1, 1, 0.5, 0, 0, 0]


def test_edges_are_smooth_below_the_voxel():
    grid = centred_grid(torch.eye(3)[None], (30, 30, 30))
    radii = torch.tensor([10.0, 10.1])
    small, large = (shapes.amplitude(shapes.ellipsoid(r.expand(1, 3))(grid)).sum() for r in radii)
    assert float(large - small) == pytest.approx(4 / 3 * math.pi * (10.1**3 - 10**3), rel=0.06)


def test_a_body_turns_with_its_rotation():
    needle = shapes.ellipsoid(torch.tensor([[1.0, 0.2, 0.2]]))
    rotation = rotations(torch.Generator().manual_seed(3), 1)
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3)[None])
    assert float(torch.linalg.det(rotation)) == pytest.approx(1)
    density = shapes.amplitude(shapes.rotate_body(needle, rotation)(centred_grid(0.05 * torch.eye(3)[None], (48, 48, 48))))[0]
    index = density.nonzero().float() - 24
    spread = torch.linalg.eigh(index.T @ index)[1][:, -1]
    assert abs(float(spread @ rotation[0, :, 0])) == pytest.approx(1, abs=1e-3)


def test_facets_of_fcc_are_cubic_planes():
    body = shapes.facetted(torch.Generator().manual_seed(0), 1, "fcc", cuts=0)
    grid = centred_grid(0.04 * torch.eye(3)[None], (96, 96, 96))
    gradient = torch.stack(torch.gradient(body(grid)[0]), dim=-1)[5:-5, 5:-5, 5:-5].reshape(-1, 3)
    flat = gradient[(torch.linalg.vector_norm(gradient, dim=1) - 1).abs() < 1e-3]  # off the edges between two facets
    squared = (flat**2).sort(dim=1)[0]
    families = torch.tensor([[1 / 3, 1 / 3, 1 / 3], [0, 0, 1], [0, 0.5, 0.5]])
    assert (torch.cdist(squared, families).amin(1) < 1e-2).float().mean() > 0.999
    assert len(flat) > 0.8 * len(gradient)


def test_halves_of_a_twin_mirror_each_other():
    body = shapes.twinned(torch.Generator().manual_seed(5), 1)
    along = torch.ones(3) / math.sqrt(3)
    across = torch.linalg.svd(along[None])[2][1:]
    basis = 0.04 * torch.stack([along, *across], dim=1)[None]
    depth = body(centred_grid(basis, (101, 40, 40)))[0]
    mismatch = [(depth[c - 30 : c + 31] - depth[c - 30 : c + 31].flip(0)).abs().mean() for c in range(35, 66)]
    assert min(mismatch) < 0.6  # the mirror lies up to half a sample off one of these
    assert min(mismatch[:8] + mismatch[-8:]) > 2 * min(mismatch)


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_extent_holds_every_body_closely(name):
    generator = torch.Generator().manual_seed(11)
    n, samples = 8, 80
    transform = torch.eye(3).repeat(n, 1, 1)
    transform[:, 1:, 0] = torch.tensor([0.4, -0.3])
    body = shapes.rotate_body(shapes.SHAPES[name](generator, n), rotations(generator, n))
    low, high = shapes.extent(body, transform)
    step = 1.2 * (high - low) / samples
    inside = body(Grid(transform * step[:, None, :], -(1.1 * low - 0.1 * high) / step, (samples,) * 3)) > 0
    for axis in range(3):
        seen = inside.amax([1 + other for other in range(3) if other != axis]).float()
        width = (samples - seen.argmax(1) - seen.flip(1).argmax(1)) * step[:, axis]
        assert (width / (high - low)[:, axis]).max() < 1.03
        assert (width / (high - low)[:, axis]).min() > 0.85
