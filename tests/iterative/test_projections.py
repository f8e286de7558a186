"""The projections are projections, masked voxels float, the support follows the object."""

from __future__ import annotations

import math

import pytest
import torch

from braggshot.iterative.projections import (
    ShrinkWrap,
    autocorrelation_support,
    blur,
    held_out_voxels,
    measured,
    project_modulus,
    shrink_wrap,
)
from braggshot.physics.fourier import to_centre, to_corner

SHAPE = (7, 6, 9)


def noise(shape=SHAPE, seed=0, batch=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.complex(*torch.randn(2, batch, *shape, generator=generator))


def counts(shape=SHAPE, seed=3):
    return torch.poisson(torch.full(shape, 20.0), generator=torch.Generator().manual_seed(seed))


def setup(held=0.2, masked=0.1):
    generator = torch.Generator().manual_seed(5)
    valid = torch.rand(SHAPE, generator=generator) > masked
    held_out = (torch.rand(SHAPE, generator=generator) < held) & valid
    return measured(counts(), valid, held_out), valid, held_out


def test_modulus_projection_is_the_formula_and_leaves_floating_voxels():
    data, valid, held_out = setup()
    rho = noise()
    projected = project_modulus(rho, data)
    before, after = torch.fft.fftn(rho, dim=(1, 2, 3), norm="ortho"), torch.fft.fftn(projected, dim=(1, 2, 3), norm="ortho")
    seen = to_corner(valid & ~held_out)
    magnitude = to_corner(counts()).sqrt()
    assert torch.allclose(after.abs()[:, seen], magnitude[seen].expand(2, -1), atol=1e-4)
    assert torch.allclose(after[:, ~seen], before[:, ~seen], atol=1e-4)
    bright = seen & (magnitude > 0)
    assert torch.allclose(torch.angle(after / before)[:, bright], torch.zeros(1), atol=1e-3)


def test_projecting_twice_changes_nothing_and_the_input_survives():
    data, _, _ = setup()
    rho = noise()
    kept = rho.clone()
    once = project_modulus(rho, data).clone()
    assert torch.equal(rho, kept)
    assert torch.allclose(project_modulus(once, data), once, atol=1e-4)


def test_modulus_projection_is_the_nearest_point():
    """No other field with these magnitudes is nearer: in particular none with rotated phases."""
    data, _, _ = setup(held=0)
    rho = noise(batch=1)
    nearest = project_modulus(rho, data).clone()
    field = torch.fft.fftn(nearest, dim=(1, 2, 3), norm="ortho")
    generator = torch.Generator().manual_seed(9)
    for size in (0.05, 0.5, 3.0):
        turned = torch.fft.ifftn(
            field * torch.exp(1j * size * torch.randn(SHAPE, generator=generator)), dim=(1, 2, 3), norm="ortho"
        )
        assert torch.linalg.vector_norm(turned - rho) > torch.linalg.vector_norm(nearest - rho)


def test_zero_field_and_zero_counts_stay_finite():
    data = measured(torch.zeros(SHAPE), torch.ones(SHAPE, dtype=torch.bool), torch.zeros(SHAPE, dtype=torch.bool))
    rho = torch.zeros(1, *SHAPE, dtype=torch.complex64)
    assert torch.isfinite(torch.view_as_real(project_modulus(rho, data))).all()


@pytest.mark.parametrize("shape", [(20, 21, 19), (16, 24, 22)])
def test_autocorrelation_support_holds_the_object(shape):
    """A box of 5 x 7 x 6: at extent 0.5 the support is the box's size, centred; at 1 twice that."""
    box = torch.zeros(shape, dtype=torch.complex64)
    box[7:12, 8:15, 8:14] = 1
    intensity = to_centre(torch.fft.fftn(box, norm="ortho").abs().square())
    data = measured(intensity, torch.ones(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool))
    patterns, threshold = torch.stack([torch.ones(shape), data.magnitude]), torch.tensor([0.5, 0.001])
    whole = to_centre(autocorrelation_support(patterns, threshold, 1.0))[1].nonzero()
    assert (whole.amax(0) - whole.amin(0) + 1).tolist() == [9, 13, 11]
    half = to_centre(autocorrelation_support(patterns, threshold, 0.5))[1].nonzero()
    assert (half.amax(0) - half.amin(0) + 1).tolist() == [5, 7, 5]
    assert ((half.amax(0) + half.amin(0)) / 2).tolist() == [n // 2 for n in shape]


def test_blur_is_a_gaussian_of_that_width():
    point = torch.zeros(21, 20, 19)
    point[0, 0, 0] = 1
    line = blur(point, 1.5)[:, 0, 0]
    n = torch.arange(4)
    assert (line[:4] / line[0]).tolist() == pytest.approx(torch.exp(-(n**2) / (2 * 1.5**2)).tolist(), rel=1e-3)
    assert blur(point, 1.5).sum().item() == pytest.approx(1, rel=1e-4)
    assert torch.equal(blur(point, 0), point)


@pytest.mark.parametrize(("relative_to", "threshold"), [("max", 0.5), ("rms", 0.5), ("average", 0.5)])
def test_shrink_wrap_finds_the_body(relative_to, threshold):
    rho = torch.zeros(1, 16, 16, 16, dtype=torch.complex64)
    rho[0, 4:10, 5:9, 3:12] = 2j
    settings = ShrinkWrap(sigma_start=0.6, sigma_end=0.6, relative_to=relative_to)
    inside = rho.abs() > 0
    support, _ = shrink_wrap(rho, inside, torch.tensor([threshold]), settings, 0.5)
    assert (support & ~inside).sum() == 0
    assert (inside & ~support).sum() <= 8  # the eight corners, where blur takes most


def test_shrink_wrap_can_keep_the_volume():
    rho = torch.rand(2, 10, 12, 14, generator=torch.Generator().manual_seed(0)).to(torch.complex64)
    settings = ShrinkWrap(sigma_start=1e-3, sigma_end=1e-3, relative_to="volume", largest=0.25)
    shares = torch.tensor([0.1, 0.9])
    support, kept = shrink_wrap(rho, torch.ones(2, 10, 12, 14, dtype=torch.bool), shares, settings, 0.5)
    assert support.sum((1, 2, 3)).tolist() == [168, 420], "a share of the array, at most the largest one"
    assert torch.equal(kept, shares)
    for field, inside in zip(rho.abs(), support, strict=True):
        assert field[inside].min() > field[~inside].max()


def test_shrink_wrap_retries_a_threshold_that_leaves_the_bounds():
    rho = torch.zeros(1, 12, 12, 12, dtype=torch.complex64)
    rho[0, 3:9, 3:9, 3:9] = 1
    everything = torch.ones(1, 12, 12, 12, dtype=torch.bool)
    settings = ShrinkWrap(sigma_start=0.5, sigma_end=0.5, relative_to="max", largest=0.2, smallest=0.05, retries=40)
    low, adapted = shrink_wrap(rho, everything, torch.tensor([0.02]), settings, 0)
    assert 0.05 <= low.float().mean() <= 0.2
    assert adapted.item() > 0.02
    hopeless = ShrinkWrap(sigma_start=0.5, sigma_end=0.5, relative_to="max", smallest=0.9, largest=0.95, retries=2)
    kept, _ = shrink_wrap(rho, everything, torch.tensor([0.5]), hopeless, 0)
    assert torch.equal(kept, everything)


def test_width_schedule_ends_where_it_says():
    settings = ShrinkWrap(sigma_start=2, sigma_end=0.5, sigma_settle=0.5)
    assert settings.sigma(0) == pytest.approx(2)
    assert settings.sigma(0.25) == pytest.approx(1)
    assert settings.sigma(0.5) == settings.sigma(1) == pytest.approx(0.5)


def test_held_out_voxels_are_valid_islands_away_from_the_peak():
    shape = (32, 30, 35)
    valid = torch.ones(shape, dtype=torch.bool)
    valid[:, 10:13] = False
    held = held_out_voxels(valid, 0.05, 2, 0.1, generator=torch.Generator().manual_seed(1))
    assert not (held & ~valid).any()
    assert held.sum().item() / valid.sum().item() == pytest.approx(0.05, rel=0.2)
    z, y, x = held.nonzero().T
    near = ((z - 16) / 32) ** 2 + ((y - 15) / 30) ** 2 + ((x - 17) / 35) ** 2
    assert near.min().item() >= 0.1**2
    neighbours = torch.nn.functional.conv3d(held.float()[None, None], torch.ones(1, 1, 3, 3, 3), padding=1)[0, 0]
    assert (neighbours[held] > 5).float().mean() > 0.8
    again = held_out_voxels(valid, 0.05, 2, 0.1, generator=torch.Generator().manual_seed(1))
    assert torch.equal(held, again)
    assert not held_out_voxels(valid, 0.0, 2, 0.1, generator=torch.Generator()).any()
    assert math.prod(shape) == held.numel()
