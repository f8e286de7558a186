"""A network that learns from the pattern it is asked about, and says what of it is new."""

from dataclasses import replace

import pytest
import torch

from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.iterative.projections import held_out_voxels
from braggshot.nn import datasets
from braggshot.nn.adapt import AdaptConfig, adapt_network
from braggshot.nn.network import NetworkConfig, PhaseNetwork, misfit, random_start
from braggshot.nn.novelty import WORDS, find_novelties, training_ranges
from braggshot.nn.predict import network_input

CRYSTALS = CrystalSettings(shape=(32, 32, 32), oversampling=(2.1, 3.0), phase_range=(0, 3), counts=(1e5, 1e6))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return PhaseNetwork(NetworkConfig(channels=(16, 16), steps=2)).eval()


def seen(volume):
    return torch.from_numpy(volume.intensity), torch.from_numpy(volume.valid), volume.oversampling


def explains(network, volume):
    data = network_input(*seen(volume), torch.device("cpu"))
    with torch.no_grad():
        return float(misfit(network(data.magnitude, data.valid, random_start(data, torch.Generator().manual_seed(9)))[-1][1], data))


def test_adapting_explains_the_pattern_better_and_leaves_the_network_alone(network):
    _, volume = simulate_volume(3, CRYSTALS)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    settings = AdaptConfig(steps=12, starts=2, learning_rate=2e-3)
    learned = adapt_network(network, *seen(volume), settings, seed=1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not learned.training
    assert explains(learned, volume) < 0.7 * explains(network, volume)
    again = adapt_network(network, *seen(volume), settings, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(learned.state_dict().values(), again.state_dict().values(), strict=True))


def test_voxels_that_are_held_out_teach_nothing(network):
    _, volume = simulate_volume(3, CRYSTALS)
    counts, valid, oversampling = seen(volume)
    hidden = valid & (torch.rand(valid.shape, generator=torch.Generator().manual_seed(2)) > 0.05)
    settings = AdaptConfig(steps=2, starts=2, learning_rate=1e-3)
    one = adapt_network(network, counts, hidden, oversampling, settings)
    other = adapt_network(network, torch.where(hidden, counts, 1e6), hidden, oversampling, settings)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_what_is_new_is_named(network):
    known = training_ranges(network, datasets.simulated_source([CRYSTALS], seed=1), chunks=12, size=8)
    assert set(known) == set(WORDS)
    assert all(low <= high for low, high in known.values())
    common = sum(bool(find_novelties(network, _data(seed), known)) for seed in range(12))
    assert common <= 3
    assert not any("valid" in said for said in find_novelties(network, _data(1), {"valid": (0.7, 0.8)}))
    faint = find_novelties(network, _data(1, counts=(30.0, 40.0)), known)
    assert any("photons" in said for said in faint)
    fine = find_novelties(network, _data(1, oversampling=(7.0, 8.0)), known)
    assert any("crystal fills" in said for said in fine)
    assert find_novelties(network, _data(1), {}) == ()


def _data(seed, **changes):
    _, volume = simulate_volume(1000 + seed, replace(CRYSTALS, **changes))
    valid = torch.from_numpy(volume.valid)
    valid &= ~held_out_voxels(valid, generator=torch.Generator().manual_seed(seed))  # as phasing and training leave some out
    return network_input(torch.from_numpy(volume.intensity), valid, None, torch.device("cpu"))
