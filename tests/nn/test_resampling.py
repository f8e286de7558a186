"""Any volume to the network's grid and back: what a crystal is must survive both ways."""

from __future__ import annotations

import math

import pytest
import torch

from braggshot.crystals.sample import simulate_volume
from braggshot.evaluation.suites import SUITES
from braggshot.iterative.projections import held_out_voxels
from braggshot.iterative.spacing import Spacing, resample
from braggshot.nn.resampling import sampling, to_original_grid
from braggshot.physics.fourier import crop, fourier


def blob(shape, width, offset=(0.0, 0.0, 0.0)):
    """A smooth bent crystal about N // 2, band-limited in both spaces."""
    axes = [torch.arange(n) - n // 2 - o for n, o in zip(shape, offset, strict=True)]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    r = (z**2 + (1.3 * y) ** 2 + (0.8 * x) ** 2) / width**2
    return torch.exp(-r) * torch.exp(1j * (0.3 * z - 0.02 * y * x / width))


@pytest.mark.parametrize(
    ("shape", "oversampling", "spacing", "seen"),
    [
        ((64, 64, 64), (3.3125, 3.3125, 3.3125), (1.25, 1.25, 1.25), (32, 32, 32)),
        ((160, 128, 128), (2.2, 7.95, 13.25), (1, 3, 5), (32, 32, 32)),
        ((51, 160, 33), (5.3, 26.5, 2.0), (2, 10, 1), (32, 16, 32)),
        ((12, 30, 40), None, (1, 1, 1), (16, 32, 32)),
    ],
)
def test_the_sampling_is_brought_to_what_fills_the_box(shape, oversampling, spacing, seen):
    how = sampling(shape, oversampling)
    assert how.spacing == pytest.approx(spacing)
    assert how.shape == seen


@pytest.mark.parametrize("shape", [(64, 64, 64), (61, 70, 52)])
def test_the_same_grid_comes_back_unchanged(shape):
    """Padding to the network's shape and cropping back lose nothing."""
    rho = blob(shape, 5)
    seen = tuple(16 * -(-n // 16) for n in shape)
    how = Spacing(shape, (1, 1, 1), seen, (2.65,) * 3)
    # What the network would answer is the crystal on its own grid: the same voxels of reciprocal space, padded.
    field = torch.zeros(seen, dtype=rho.dtype)
    inner = tuple(slice(m // 2 - n // 2, m // 2 - n // 2 + n) for n, m in zip(shape, seen, strict=True))
    field[inner] = fourier(rho)
    answer = torch.fft.fftshift(torch.fft.ifftn(torch.fft.ifftshift(field), norm="ortho"))
    back = to_original_grid(crop(answer, [m // 2 for m in seen]), how)
    assert torch.linalg.vector_norm(back - rho) < 1e-2 * torch.linalg.vector_norm(rho)


def seen_by(rho, how):
    """The transform of a crystal at the samples, by the definition of the transform (unitary on its own grid)."""
    field = rho.to(torch.complex128)
    for n, samples, w in zip(how.original, how.shape, how.spacing, strict=True):
        r = torch.arange(n, dtype=torch.float64) - n // 2
        k = w * (torch.arange(samples, dtype=torch.float64) - samples // 2)
        # Each turn transforms the first axis and brings the next one to the front.
        field = torch.tensordot(field, torch.exp(-2j * torch.pi * k[:, None] * r[None] / n) / n**0.5, dims=([0], [1]))
    return field


@pytest.mark.parametrize("spacing", [(2, 2, 2), (3, 1, 1.7), (1, 1.3, 1)])
@pytest.mark.parametrize("shape", [(96, 96, 96), (75, 97, 88)])
def test_wider_samples_and_cropped_fringes_come_back_in_place(shape, spacing):
    """A coarser, cropped view of the same transform gives the same crystal, phase ramp and modulus included."""
    how = Spacing(shape, spacing, (48, 48, 48), (2.65,) * 3)
    rho = blob(shape, 4)
    answer = torch.fft.fftshift(torch.fft.ifftn(torch.fft.ifftshift(seen_by(rho, how)), norm="ortho"))
    back = to_original_grid(crop(answer, (24, 24, 24)), how).to(torch.complex128)
    overlap = torch.vdot(rho.to(torch.complex128).flatten(), back.flatten())
    assert overlap.abs() > 0.995 * torch.linalg.vector_norm(rho) * torch.linalg.vector_norm(back)
    assert overlap.angle().abs() < 5e-3


@pytest.mark.parametrize("shape", [(64, 64, 64), (61, 70, 55)])
@pytest.mark.parametrize("spacing", [(1.4, 2, 1), (2.6, 1, 3.3)])
def test_a_finite_crystal_is_known_between_the_voxels(shape, spacing):
    """Samples are the intensity where they lie, times the voxels that each stands for: the crystal is sampled finely enough."""
    how = Spacing(shape, spacing, (32, 32, 32), (2.65,) * 3)
    rho = blob(shape, 5)
    z, y, x = torch.meshgrid(*(torch.arange(n) - n // 2 for n in shape), indexing="ij")
    sizes = [n / w / 2.8 for n, w in zip(shape, spacing, strict=True)]  # what an oversampling of 2.8 at the samples leaves
    rho = rho * (abs(z) <= sizes[0] / 2) * (abs(y) <= sizes[1] / 2) * (abs(x) <= sizes[2] / 2)
    counts = fourier(rho).abs().square().float()
    brought, good = resample(counts, torch.ones(shape, dtype=torch.bool), how)
    expected = seen_by(rho, how).abs().square() * math.prod(spacing)
    error = (brought.clamp_min(0).sqrt() - expected.sqrt())[good]
    assert good.float().mean() > 0.3  # beyond the volume they are not valid
    assert error.square().sum() < 1e-3 * expected[good].sum()


def test_hidden_voxels_of_a_strained_crystal_are_not_those_of_the_other_side():
    """Between the voxels a pattern is known in spite of them: by its band, for I(-q) is another number."""
    _, volume = simulate_volume(60854, SUITES["strain"].groups["4 pi"])
    counts, everything = torch.from_numpy(volume.intensity), torch.from_numpy(volume.valid)
    seen = ~held_out_voxels(everything, generator=torch.Generator().manual_seed(0))
    how = Spacing((64, 64, 64), (1.5, 1.5, 1.5), (32, 32, 32), (2.65,) * 3)
    whole, _ = resample(counts, everything, how)
    part, good = resample(counts * seen, seen, how)
    error = (part.sqrt() - whole.sqrt())[good]
    assert error.square().sum() < 1e-3 * whole[good].sum()


def test_samples_are_as_noisy_as_their_counts():
    """A flat pattern: variance near the mean, as photons have it, and a mean of so many voxels."""
    counts = torch.poisson(torch.full((48, 48, 48), 100.0), generator=torch.Generator().manual_seed(0))
    how = Spacing((48, 48, 48), (1.5, 1.5, 1.5), (32, 32, 32), (2.65,) * 3)
    brought, good = resample(counts, torch.ones(48, 48, 48, dtype=torch.bool), how)
    inner = brought[6:-6, 6:-6, 6:-6]
    assert good.all()
    assert inner.mean() == pytest.approx(337.5, rel=0.01)
    assert inner.var() == pytest.approx(337.5, rel=0.25)


def test_masked_counts_never_arrive():
    counts = torch.full((32, 32, 32), 5.0)
    valid = torch.ones(32, 32, 32, dtype=torch.bool)
    valid[:, 9:15] = False  # about the sample 6 of 16, whose mirror image is measured; sample 8 is the voxel 16
    how = Spacing((32, 32, 32), (1, 2, 1), (32, 16, 32), (2.65,) * 3)
    one = resample(counts, valid, how)
    other = resample(torch.where(valid, counts, 1e9), valid, how)
    assert torch.equal(one[0], other[0])
    assert not one[1][:, 5:7].any()
    assert one[1][:, :4].all()
    assert one[1][:, 8:].all()
    torch.testing.assert_close(one[0][one[1]], torch.full((), 10.0).expand(int(one[1].sum())), rtol=0.02, atol=0)


def test_one_spacing_and_shape_change_nothing():
    counts = torch.poisson(torch.full((32, 16, 48), 3.0), generator=torch.Generator().manual_seed(0))
    valid = torch.rand(32, 16, 48, generator=torch.Generator().manual_seed(1)) > 0.1
    brought, good = resample(counts, valid, Spacing((32, 16, 48), (1, 1, 1), (32, 16, 48), (2.65,) * 3))
    assert torch.equal(good, valid)
    torch.testing.assert_close(brought, counts * valid, rtol=1e-6, atol=1e-6)
