"""Identities of the transform pair, on odd and unequal shapes always."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from braggshot.physics.fourier import crop, fourier, frequencies, inverse_fourier, pad, to_centre, to_corner

SHAPES = [(6, 5, 4), (7, 9, 5), (8, 8, 8), (1, 3, 2)]


def field(shape, seed=0, batch=()):
    generator = torch.Generator().manual_seed(seed)
    return torch.complex(*torch.randn(2, *batch, *shape, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("shape", SHAPES)
def test_matches_the_written_sum(shape):
    """The sign of the exponent and the origin at N // 2, against the formula spelled out."""
    rho = field(shape).numpy()
    n = np.meshgrid(*(np.arange(s) - s // 2 for s in shape), indexing="ij")
    k = (min(1, shape[0] - 1), shape[1] - 1, 0)
    centred = [i - s // 2 for i, s in zip(k, shape, strict=True)]
    turns = sum(c * grid / s for c, grid, s in zip(centred, n, shape, strict=True))
    expected = (rho * np.exp(-2j * np.pi * turns)).sum() / np.sqrt(np.prod(shape))
    assert fourier(torch.from_numpy(rho))[k].item() == pytest.approx(expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_unitary_and_inverse(shape):
    rho = field(shape, batch=(2,))
    assert torch.allclose(inverse_fourier(fourier(rho)), rho)
    assert fourier(rho).abs().square().sum().item() == pytest.approx(rho.abs().square().sum().item())


@pytest.mark.parametrize("shape", SHAPES)
def test_inverse_is_the_adjoint(shape):
    a, b = field(shape, 1), field(shape, 2)
    left = torch.vdot(b.reshape(-1), fourier(a).reshape(-1))
    right = torch.vdot(inverse_fourier(b).reshape(-1), a.reshape(-1))
    assert left.item() == pytest.approx(right.item())


@pytest.mark.parametrize("shape", SHAPES)
def test_centring_round_trip_on_odd_sizes(shape):
    rho = field(shape)
    assert torch.equal(to_centre(to_corner(rho)), rho)
    centre = tuple(n // 2 for n in shape)
    assert to_corner(rho)[0, 0, 0] == rho[centre]


@pytest.mark.parametrize("shape", [(7, 9, 5), (8, 6, 5)])
def test_a_linear_phase_moves_the_peak_the_right_way(shape):
    """Phase +2 pi n k0 / N puts the peak at +k0: each axis alone, so that a flipped sign or axis fails."""
    for axis in range(3):
        n = torch.arange(shape[axis], dtype=torch.float64) - shape[axis] // 2
        view = [1, 1, 1]
        view[axis] = -1
        rho = torch.exp(2j * np.pi * n / shape[axis]).reshape(view).expand(shape)
        peak = np.unravel_index(fourier(rho).abs().argmax().item(), shape)
        assert peak == tuple(s // 2 + (a == axis) for a, s in enumerate(shape))


@pytest.mark.parametrize(("small", "large"), [((4, 5, 3), (7, 5, 6)), ((5, 4, 2), (8, 9, 3))])
def test_crop_and_pad_are_adjoint_and_keep_the_centre(small, large):
    a, b = field(small, 1), field(large, 2)
    left = torch.vdot(b.reshape(-1), pad(a, large).reshape(-1))
    right = torch.vdot(crop(b, small).reshape(-1), a.reshape(-1))
    assert left.item() == pytest.approx(right.item())
    assert torch.equal(crop(pad(a, large), small), a)
    assert pad(a, large)[tuple(n // 2 for n in large)] == a[tuple(n // 2 for n in small)]


def test_crop_and_pad_refuse_the_wrong_way_round():
    with pytest.raises(ValueError, match="does not fit"):
        crop(field((4, 4, 4)), (5, 4, 4))
    with pytest.raises(ValueError, match="does not fit"):
        pad(field((5, 4, 4)), (4, 4, 4))


def test_frequencies_are_cycles_per_voxel():
    z, _, x = frequencies((4, 5, 3))
    assert z.flatten().tolist() == [0, 0.25, -0.5, -0.25]
    assert x.shape == (1, 1, 3)


@pytest.mark.parametrize("width", [3, 4])
def test_box_gives_the_dirichlet_kernel(width):
    """A box of w voxels has the form factor sin(pi k w / N) / sin(pi k / N)."""
    n = 15
    rho = torch.zeros(n, 3, 3, dtype=torch.complex128)
    rho[n // 2 - width // 2 : n // 2 - width // 2 + width, 1, 1] = 1
    k = np.arange(n) - n // 2
    with np.errstate(invalid="ignore"):
        expected = np.where(k == 0, width, np.sin(np.pi * k * width / n) / np.sin(np.pi * k / n)) / np.sqrt(n * 9)
    assert np.allclose(fourier(rho).abs().numpy()[:, 0, 0], np.abs(expected))
