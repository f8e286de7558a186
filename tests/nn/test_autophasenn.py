"""The published networks: their counts and layers, their support, their losses."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from braggshot.crystals.sample import CrystalSettings, random_crystals
from braggshot.nn.autophasenn import AutoPhaseNN, AutoPhaseNN2024, unit_scale
from braggshot.nn.losses import LossConfig, data_term
from braggshot.nn.network import Measurement, magnitude_of
from braggshot.physics.fourier import AXES, fourier, pad

BOTH = pytest.mark.parametrize("network", [AutoPhaseNN(), AutoPhaseNN2024()], ids=["paper", "2024"])


@pytest.fixture(scope="module")
def simulated():
    """Crystals of amplitude about one at most, and bright patterns of them."""
    settings = CrystalSettings(shape=(32, 32, 32), oversampling=(2.1, 3.5), phase_range=(0, 4), counts=(1e5, 1e6))
    rho = random_crystals(torch.Generator().manual_seed(3), 8, settings)
    counts = torch.poisson(fourier(rho).abs().square(), generator=torch.Generator().manual_seed(4))
    return rho, Measurement.of(counts, torch.ones_like(counts, dtype=torch.bool))


@pytest.mark.parametrize(("kind", "count"), [(AutoPhaseNN, 24_703_202), (AutoPhaseNN2024, 6_975_362)])
def test_the_published_numbers_of_parameters(kind, count):
    """24.7 million and 6 975 362 are published; the first, by its layers, is this."""
    assert sum(p.numel() for p in kind().parameters()) == count


def test_the_layers_of_the_paper():
    network = AutoPhaseNN()
    shapes = {}

    def note(module, _inputs, output):
        shapes[names[module]] = tuple(output.shape[1:])

    names = {module: name for name, module in network.named_modules() if isinstance(module, nn.Sequential)}
    for module in names:
        module.register_forward_hook(note)
    with torch.no_grad():
        network.eval()(torch.rand(1, 32, 32, 32), torch.ones(1, 32, 32, 32))
    widths = dict(enumerate([(32, 32), (64, 16), (128, 8), (256, 4), (512, 2)]))  # half of the paper's 64 to 4
    assert [shapes[f"encoder.{k}"] for k in widths] == [(c, n, n, n) for c, n in widths.values()]
    for decoder, channels in (("amplitude", (256, 128, 64)), ("phase", (128, 128, 64))):
        found = [shapes[f"{decoder}.{k}"] for k in range(4)]
        assert found[:3] == [(c, n, n, n) for c, n in zip(channels, (4, 8, 16), strict=True)]
        assert found[3] == (1, 32, 32, 32)  # padded before the last convolutions, not after


@BOTH
def test_any_multiple_of_the_stride_fits(network):
    found = network.eval()(torch.rand(2, 48, 16, 32), torch.ones(2, 48, 16, 32))
    assert len(found) == 1
    rho, magnitude = found[0]
    assert rho.shape in {(2, 48, 16, 32), (2, 24, 8, 16)}
    torch.testing.assert_close(magnitude, magnitude_of(rho, magnitude.shape[-3:])[1])


@BOTH
def test_the_support_is_a_hard_mask(network):
    """Nothing between zero and the threshold; and no gradient where nothing is left."""
    magnitude, valid = torch.rand(2, 16, 16, 16), torch.ones(2, 16, 16, 16)
    network.train()
    network.threshold.fill_(0.5)
    amplitude = network(magnitude, valid)[0][0].abs()
    assert ((amplitude == 0) | (amplitude > 0.499)).all()
    assert (amplitude == 0).any()
    network.threshold.fill_(1.1)
    network.zero_grad()
    rho, _ = network(magnitude, valid)[0]
    assert not rho.any()
    rho.abs().sum().backward()
    assert not any(p.grad.any() for p in network.parameters() if p.grad is not None)
    network.anneal(1.0)
    network.eval()


def test_the_threshold_rises_as_published():
    network = AutoPhaseNN2024()
    for share, threshold in ((0, 0.07), (0.5, 0.085), (1, 0.1), (2, 0.1)):
        network.anneal(share)
        assert network.threshold.item() == pytest.approx(threshold)
    paper = AutoPhaseNN()
    paper.anneal(0)
    assert paper.threshold.item() == pytest.approx(0.1)
    assert "threshold" in paper.state_dict()


@BOTH
def test_exposure_is_forgotten(network, simulated):
    """Four times as many photons are the same crystal."""
    _, data = simulated
    brighter = Measurement(2 * data.magnitude, data.valid)
    torch.testing.assert_close(network.scale(brighter), network.scale(data), rtol=0.05, atol=0.05)


def test_the_scale_of_a_crystal_of_amplitude_one(simulated):
    rho, data = simulated
    amplitude = (rho.abs().square().sum(AXES) / rho.abs().sum(AXES)) * unit_scale(data).flatten()
    assert (amplitude > 0.7).all()
    assert (amplitude < 1.3).all()


def test_the_published_losses(simulated):
    rho, data = simulated
    exact = data.magnitude
    assert data_term(3 * exact, data, LossConfig(data="max-l1")) < 1e-6
    scaled = exact * unit_scale(data)
    assert data_term(scaled, data, LossConfig(data="mae")) < 1e-4
    assert data_term(3 * scaled, data, LossConfig(data="mae")) > 1  # no factor is fitted
    # The mean absolute error of transforms without the factor 1 / sqrt(N), as their code takes it.
    wrong = magnitude_of(pad(rho, (32, 32, 32)).flip(1), torch.Size((32, 32, 32)))[1]
    expected = ((wrong - scaled).abs() * 32**1.5).mean()
    torch.testing.assert_close(data_term(wrong, data, LossConfig(data="mae")), expected)


@pytest.mark.parametrize("data", ["ours", "mae", "max-l1"])
def test_masked_voxels_are_not_charged(simulated, data):
    _, full = simulated
    valid = full.valid.clone()
    valid[..., 9:13] = 0
    masked = Measurement(full.magnitude * valid, valid)
    model = full.magnitude + 1
    junk = torch.where(valid > 0, model, 1e4)
    torch.testing.assert_close(data_term(junk, masked, LossConfig(data=data)), data_term(model, masked, LossConfig(data=data)))
