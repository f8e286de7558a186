"""Any volume to the network's grid and back: what a crystal is must survive both ways."""

from __future__ import annotations

import pytest
import torch

from braggshot.nn.predict import Sampling, bring, give_back, sampling
from braggshot.physics.fourier import crop, fourier


def blob(shape, width, offset=(0.0, 0.0, 0.0)):
    """A smooth bent crystal about N // 2, band-limited in both spaces."""
    axes = [torch.arange(n) - n // 2 - o for n, o in zip(shape, offset, strict=True)]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    r = (z**2 + (1.3 * y) ** 2 + (0.8 * x) ** 2) / width**2
    return torch.exp(-r) * torch.exp(1j * (0.3 * z - 0.02 * y * x / width))


@pytest.mark.parametrize(
    ("shape", "oversampling", "binning", "seen"),
    [
        ((64, 64, 64), (3.0, 3.0, 3.0), (1, 1, 1), (32, 32, 32)),
        ((160, 128, 128), (2.5, 8.0, 5.0), (1, 2, 2), (32, 32, 32)),
        ((51, 96, 33), (4.5, 13.0, 2.0), (2, 4, 1), (32, 32, 32)),
        ((12, 30, 40), None, (1, 1, 1), (16, 32, 32)),
    ],
)
def test_the_sampling_is_brought_into_the_trained_range(shape, oversampling, binning, seen):
    how = sampling(shape, oversampling)
    assert how.binning == binning
    assert how.shape == seen


@pytest.mark.parametrize("shape", [(64, 64, 64), (61, 70, 52)])
def test_the_same_grid_comes_back_unchanged(shape):
    """Padding to the network's shape and cropping back lose nothing."""
    rho = blob(shape, 5)
    seen = tuple(16 * -(-n // 16) for n in shape)
    how = Sampling(shape, (1, 1, 1), seen)
    # What the network would answer is the crystal on its own grid: the same voxels of reciprocal space, padded.
    field = torch.zeros(seen, dtype=rho.dtype)
    inner = tuple(slice(m // 2 - n // 2, m // 2 - n // 2 + n) for n, m in zip(shape, seen, strict=True))
    field[inner] = fourier(rho)
    answer = torch.fft.fftshift(torch.fft.ifftn(torch.fft.ifftshift(field), norm="ortho"))
    back = give_back(crop(answer, [m // 2 for m in seen]), how)
    assert torch.linalg.vector_norm(back - rho) < 1e-2 * torch.linalg.vector_norm(rho)


@pytest.mark.parametrize("binning", [(2, 2, 2), (3, 1, 2), (1, 4, 1)])
@pytest.mark.parametrize("shape", [(96, 96, 96), (75, 97, 88)])
def test_bins_and_cropped_fringes_come_back_in_place(shape, binning):
    """A coarser, cropped view of the same transform, at the centres of the bins, gives the same crystal, phase ramp included."""
    how = Sampling(shape, binning, (48, 48, 48))
    z, y, x = (torch.arange(n, dtype=torch.float64) - n // 2 for n in shape)
    rho = blob(shape, 4)
    # The transform of the crystal at the (fractional) centres of the bins, by the definition of the transform.
    factors = []
    for axis, n, b, o in zip((z, y, x), shape, how.binning, how.offset, strict=True):
        k = b * (torch.arange(48) - 24) + o
        factors.append(torch.exp(-2j * torch.pi * k[:, None] * axis[None] / n))
    field = rho.to(torch.complex128)
    for factor in factors:  # each turn transforms the first axis and brings the next one to the front
        field = torch.tensordot(field, factor, dims=([0], [1]))
    answer = torch.fft.fftshift(torch.fft.ifftn(torch.fft.ifftshift(field), norm="ortho"))
    back = give_back(crop(answer, (24, 24, 24)), how)
    overlap = torch.vdot(rho.to(torch.complex128).flatten(), back.flatten())
    assert overlap.abs() > 0.995 * torch.linalg.vector_norm(rho) * torch.linalg.vector_norm(back)
    assert overlap.angle().abs() < 5e-3


@pytest.mark.parametrize("shape", [(40, 41, 38)])
@pytest.mark.parametrize("binning", [(2, 2, 2), (3, 4, 1)])
def test_counts_are_summed_about_the_peak(shape, binning):
    counts = torch.poisson(torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 9)
    valid = torch.ones(shape, dtype=torch.bool)
    how = Sampling(shape, binning, tuple(16 * -(-(n // b + 2) // 16) for n, b in zip(shape, binning, strict=True)))
    brought, good = bring(counts, valid, how)
    middle = tuple(n // 2 for n in how.shape)
    first = [n // 2 - b // 2 for n, b in zip(shape, binning, strict=True)]
    window = counts[tuple(slice(f, f + b) for f, b in zip(first, binning, strict=True))]
    assert brought[middle] == pytest.approx(window.sum().item())
    assert good[middle]
    # A bin that is half masked is scaled up; one that is masked more is not trusted.
    assert brought[good].sum() <= counts.sum() * 1.3


def test_masked_counts_never_arrive():
    counts = torch.full((32, 32, 32), 5.0)
    valid = torch.ones(32, 32, 32, dtype=torch.bool)
    valid[:, 9:15] = False  # the bins 5 to 7 of 16: the middle one, 8, holds the voxels 15 and 16
    one = bring(counts, valid, Sampling((32, 32, 32), (1, 2, 1), (32, 16, 32)))
    other = bring(torch.where(valid, counts, 1e9), valid, Sampling((32, 32, 32), (1, 2, 1), (32, 16, 32)))
    assert torch.equal(one[0], other[0])
    assert not one[1][:, 5:8].any()
    assert one[1][:, :5].all()
