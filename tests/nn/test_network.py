"""The unrolled network: its physics against the engine's, what it must not see, and that it learns."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from braggshot.iterative.projections import measured, project_modulus
from braggshot.nn.autophasenn import SameConvolution
from braggshot.nn.losses import r_factor
from braggshot.nn.network import (
    Block,
    Convolution,
    Measurement,
    NetworkConfig,
    PhaseNetwork,
    magnitude_of,
    misfit,
    modulus_projection,
    random_start,
    scale_to,
    unshuffle,
)
from braggshot.physics.fourier import crop, fourier, pad, to_centre, to_corner

TINY = NetworkConfig(channels=(8, 8, 8), steps=2)


def crystal(shape, seed=0):
    """A brick with a bent phase, in the central half, and its counts."""
    z, y, x = torch.meshgrid(*(torch.arange(n) - n // 2 for n in shape), indexing="ij")
    inside = (z.abs() < shape[0] / 7) & (y.abs() < shape[1] / 6) & ((x + 0.4 * z).abs() < shape[2] / 8)
    rho = 12 * inside * torch.exp(1j * (0.2 * z + 0.05 * y * x))
    return rho, torch.poisson(fourier(rho).abs().square(), generator=torch.Generator().manual_seed(seed))


def start_of(data, seed=0):
    return random_start(data, torch.Generator().manual_seed(seed))


def trained_a_little(config=TINY, seed=0):
    """A network whose last layer is no longer zero."""
    torch.manual_seed(seed)
    network = PhaseNetwork(config)
    nn.init.normal_(network.exit.weight, std=0.05)
    return network.eval()


@pytest.mark.parametrize("shape", [(32, 32, 32), (48, 16, 80)])
def test_any_multiple_of_the_stride_fits(shape):
    counts = torch.poisson(torch.rand(2, *shape) * 3)
    data = Measurement.of(counts, torch.ones(2, *shape, dtype=torch.bool))
    found = trained_a_little()(data.magnitude, data.valid, start_of(data))
    assert len(found) == TINY.steps
    for rho, magnitude in found:
        assert rho.shape == (2, *(n // 2 for n in shape))
        assert rho.dtype == torch.complex64
        assert magnitude.shape == (2, *shape)
        assert rho.abs().max() < 1


def test_the_flagship_stays_small():
    assert sum(p.numel() for p in PhaseNetwork().parameters()) <= 8_000_000


def test_space_to_channels():
    x = torch.randn(2, 3, 4, 8, 12)
    folded = unshuffle(x, 2)
    assert folded.shape == (2, 24, 2, 4, 6)
    assert folded.square().sum() == pytest.approx(x.square().sum().item(), rel=1e-5)
    # Channel c f^3 + (i f + j) f + k holds the voxels (i, j, k) of the cells of channel c.
    assert torch.equal(folded[:, 1 * 8 + 5], x[:, 1, 1::2, 0::2, 1::2])


def test_the_projection_is_the_engines():
    """Where every voxel is valid, P_M in the box is the engine's on the whole array, at the best scale."""
    shape = torch.Size((32, 48, 16))
    _, counts = crystal(shape)
    counts = counts + 1  # the two treat voxels without counts differently
    everywhere = torch.ones(shape, dtype=torch.bool)
    data = Measurement.of(counts[None], everywhere[None])
    generator = torch.Generator().manual_seed(1)
    box = torch.complex(*torch.randn(2, 1, *(n // 2 for n in shape), generator=generator))
    field, magnitude = magnitude_of(box, shape)
    found = modulus_projection(field, magnitude, data, box.shape[-3:]) * scale_to(magnitude, data)

    whole = project_modulus(to_corner(pad(box, shape)), measured(counts, everywhere, ~everywhere))
    expected = crop(to_centre(whole), box.shape[-3:])
    assert torch.linalg.vector_norm(found - expected) < 1e-4 * torch.linalg.vector_norm(expected)


def test_voxels_that_are_not_valid_float():
    shape = torch.Size((16, 16, 16))
    _, counts = crystal(shape)
    nowhere = torch.zeros(1, *shape, dtype=torch.bool)
    box = torch.complex(*torch.randn(2, 1, 8, 8, 8, generator=torch.Generator().manual_seed(1)))
    field, magnitude = magnitude_of(box, shape)
    found = modulus_projection(field, magnitude, Measurement.of(counts[None], nowhere), box.shape[-3:])
    torch.testing.assert_close(found, box)


def test_junk_behind_the_mask_changes_nothing():
    _, counts = crystal((32, 32, 32))
    valid = torch.ones(32, 32, 32, dtype=torch.bool)
    valid[:, 12:15] = False
    valid[3] = False
    network, found = trained_a_little(), []
    for junk in (0.0, 1e8):
        data = Measurement.of(torch.where(valid, counts, junk)[None], valid[None])
        with torch.no_grad():
            rho, magnitude = network(data.magnitude, data.valid, start_of(data))[-1]
        found.append((rho, misfit(magnitude, data), r_factor(magnitude, data)))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_the_global_phase_of_the_start_is_free():
    _, counts = crystal((32, 32, 32))
    data = Measurement.of(counts[None], torch.ones(1, 32, 32, 32, dtype=torch.bool))
    network, start = trained_a_little(), start_of(data)
    with torch.no_grad():
        one = network(data.magnitude, data.valid, start)[-1][0]
        other = network(data.magnitude, data.valid, start * torch.exp(torch.tensor(2.1j)))[-1][0]
    overlap = (one.conj() * other).sum().abs() / torch.linalg.vector_norm(one) / torch.linalg.vector_norm(other)
    assert overlap > 1 - 1e-4


def test_hypotheses_differ_and_repeat():
    _, counts = crystal((32, 32, 32))
    data = Measurement.of(counts[None], torch.ones(1, 32, 32, 32, dtype=torch.bool)).repeat(3)
    starts = start_of(data)
    assert torch.equal(starts, start_of(data))
    assert not torch.allclose(starts[0], starts[1])


def test_the_misfit_is_chi2_at_the_best_scale():
    _, counts = crystal((16, 16, 16))
    data = Measurement.of(counts[None], torch.rand(1, 16, 16, 16) > 0.2)
    magnitude = torch.rand(1, 16, 16, 16)
    scaled = magnitude * scale_to(magnitude, data)
    chi2 = ((scaled - data.magnitude).square() * data.valid).sum() / data.magnitude.square().sum()
    torch.testing.assert_close(misfit(magnitude, data), chi2[None])


def test_it_learns_one_crystal_from_its_diffraction():
    """What is left of the misfit after sixty steps, where the network starts from error reduction."""
    _, counts = crystal((16, 16, 16))
    data = Measurement.of(counts[None], torch.ones(1, 16, 16, 16, dtype=torch.bool))
    torch.manual_seed(0)
    network, start = PhaseNetwork(TINY), start_of(data)
    optimiser = torch.optim.Adam(network.parameters(), betas=(0.9, 0.99))
    losses = []
    for step in range(60):
        optimiser.param_groups[0]["lr"] = 3e-3 * min(1, (step + 1) / 40)
        loss = torch.stack([misfit(m, data).sqrt().mean() for _, m in network(data.magnitude, data.valid, start)]).mean()
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_sixteen_bits_give_the_gradient_on_small_grids(size, stride):
    """Where oneDNN's own would be infinite or not a number."""
    torch.manual_seed(0)
    x = torch.randn(2, 16, size, size, size)
    modules = [(SameConvolution(16, 16, stride), lambda m: m.weight)]
    if stride == 1:
        block = Block(16)
        nn.init.normal_(block.convolutions[1].weight, std=0.05)
        modules.append((block, lambda m: m.convolutions[0].weight))
    for module, weight in modules:
        gradients = []
        for half in (False, True):
            module.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                module(x).float().square().sum().backward()
            gradients.append(weight(module).grad.clone())
        assert torch.linalg.vector_norm(gradients[1] - gradients[0]) < 0.03 * torch.linalg.vector_norm(gradients[0])


def test_one_pattern_with_many_starts_is_the_pattern_repeated():
    torch.manual_seed(2)
    network = PhaseNetwork(NetworkConfig(channels=(16, 16), steps=2)).eval()
    torch.nn.init.normal_(network.exit.weight, std=0.05)
    counts = torch.poisson(torch.rand(1, 32, 32, 32, generator=torch.Generator().manual_seed(0)) * 20)
    data = Measurement.of(counts, torch.ones(1, 32, 32, 32, dtype=torch.bool))
    start = random_start(data, torch.Generator().manual_seed(3), 3)
    assert start.shape == (3, 16, 16, 16)
    assert not torch.allclose(start[0], start[1])
    repeated = data.repeat(3)
    torch.testing.assert_close(random_start(repeated, torch.Generator().manual_seed(3)), start)
    with torch.no_grad():
        one, many = network(data.magnitude, data.valid, start), network(repeated.magnitude, repeated.valid, start)
    for (rho, magnitude), (expected, of_it) in zip(one, many, strict=True):
        torch.testing.assert_close(rho, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(magnitude, of_it, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("patterns", [1, 2])
@pytest.mark.parametrize(("width", "settings"), [(3, {"padding": 1}), (2, {"stride": 2}), (1, {})])
def test_a_convolution_is_that_of_torch_whichever_kernel_takes_it(patterns, width, settings):
    ours = Convolution(6, 5, width, **settings)
    torchs = nn.Conv3d(6, 5, width, **settings)
    torchs.load_state_dict(ours.state_dict())
    answers = []
    for module in (ours, torchs):
        x = torch.randn(patterns, 6, 8, 10, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
        y = module(x)
        y.square().sum().backward()
        answers.append((y, x.grad, module.weight.grad, module.bias.grad))
    for one, other in zip(*answers, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_lone_pattern_takes_part_in_mixed_precision():
    with torch.autocast("cpu", torch.bfloat16):
        assert Convolution(4, 4, 3, padding=1)(torch.randn(1, 4, 8, 8, 8)).dtype == torch.bfloat16
