"""Both scales of the flagship: the change of grid between them, what they must not see, and that only the fine steps learn."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest
import tiny_run
import torch
from tiny_run import TINY, TWO_PROCESSES, WHOLE

from braggshot.errors import ConfigError
from braggshot.iterative.iterate import IterativeConfig
from braggshot.nn import predict as prediction
from braggshot.nn import weights
from braggshot.nn.expert_iteration import ExpertConfig
from braggshot.nn.network import Measurement, NetworkConfig, PhaseNetwork, misfit
from braggshot.nn.novelty import features
from braggshot.nn.predict import input_size, predict
from braggshot.nn.two_scale import (
    TwoScaleConfig,
    TwoScaleNetwork,
    central_fringes,
    coarse_network,
    draw_start,
    enlarge,
    search_coarse,
)
from braggshot.physics.fourier import crop, fourier, in_the_middle, inverse_fourier, inverted, pad
from braggshot.physics.metrics import align
from braggshot.train import LOW, resolve, train_network

CONFIG = TwoScaleConfig(NetworkConfig((8, 8), 1), NetworkConfig((8, 8), 2), ExpertConfig(IterativeConfig(recipe="4*RAAR+2*ER")))


def crystal(shape):
    """A bent brick, off the middle, and its counts."""
    z, y, x = torch.meshgrid(*(torch.arange(n) - n // 2 for n in shape), indexing="ij")
    inside = ((z - 2).abs() < shape[0] / 8) & (y.abs() < shape[1] / 7) & ((x + 0.4 * z + 1).abs() < shape[2] / 9)
    rho = inside * torch.exp(1j * (0.2 * z + 0.02 * y * x))
    return rho, torch.poisson(1e3 * fourier(rho).abs().square(), generator=torch.Generator().manual_seed(0))


def untrained(seed=0):
    torch.manual_seed(seed)
    return TwoScaleNetwork(CONFIG).eval()


@pytest.mark.parametrize("shape", [(64, 64, 64), (48, 32, 64)])
def test_the_crystal_at_the_low_resolution_is_the_crystal_on_finer_voxels(shape):
    """No voxel astray, no phase turned: what the central fringes hold, moved to where its centre of mass is the middle."""
    rho, _ = crystal(shape)
    small = [min(n, 32) for n in shape]
    coarse = inverse_fourier(crop(fourier(rho), small))
    box = crop(coarse, [n // 2 for n in small])
    found = pad(enlarge(box[None], torch.Size(small), torch.Size(shape)), shape)[0]
    blurred = inverse_fourier(pad(crop(fourier(in_the_middle(rho)), small), shape))
    overlap = (found.conj() * blurred).sum() / (torch.linalg.vector_norm(found) * torch.linalg.vector_norm(blurred))
    assert overlap.abs() > 0.985  # what the boxes cut off, the fringes of a sharp surface, is missing
    assert abs(float(overlap.angle())) < 0.02
    typical = found.abs().pow(3).sum() / found.abs().pow(2).sum()
    assert float(typical) == pytest.approx(1, abs=0.02)


def test_the_central_fringes_are_those_about_the_peak():
    _, counts = crystal((64, 48, 32))
    valid = torch.rand(64, 48, 32) > 0.1
    small = central_fringes(Measurement.of(counts[None], valid[None]))
    expected = Measurement.of(crop(counts, (32, 32, 32))[None], crop(valid, (32, 32, 32))[None])
    assert torch.equal(small.magnitude, expected.magnitude)
    assert torch.equal(small.valid, expected.valid)


def test_a_voxel_that_is_not_valid_is_not_seen():
    _, counts = crystal((48, 48, 48))
    valid = torch.rand(48, 48, 48, generator=torch.Generator().manual_seed(1)) > 0.1
    network = untrained()
    one, other = (predict(network, torch.where(valid, counts, junk), valid, n=2)[0].rho for junk in (0.0, 1e4))
    assert torch.equal(one, other)


def test_one_pattern_with_many_starts_is_many_patterns():
    _, counts = crystal((48, 48, 48))
    data = Measurement.of(counts[None], torch.ones(1, 48, 48, 48, dtype=torch.bool))
    network = untrained()
    begin = draw_start(network, data, torch.Generator().manual_seed(3), 2)
    assert begin.shape == (2, 16, 16, 16)
    repeated = data.repeat(2)
    one, other = (network(d.magnitude, d.valid, begin) for d in (data, repeated))
    assert len(one) == 3, "two steps, and what the projections at the end make of the second"
    assert one[-1][0].shape == (2, 24, 24, 24)
    torch.testing.assert_close(one[-1], other[-1], rtol=1e-4, atol=1e-5)


def test_projections_at_the_end_bring_the_pass_to_the_counts_but_not_in_training():
    _, counts = crystal((48, 48, 48))
    data = Measurement.of(counts[None], torch.ones(1, 48, 48, 48, dtype=torch.bool))
    network, _ = weights.load_network()
    begin = draw_start(network, data, torch.Generator().manual_seed(3), 2)
    *_, last, ended = network(data.magnitude, data.valid, begin)
    assert (misfit(ended[1], data) < misfit(last[1], data)).all()
    inside = last[0].abs() > network.config.after.support * last[0].abs().amax((1, 2, 3), keepdim=True)
    assert not ended[0][~inside].any()
    assert len(network.train()(data.magnitude, data.valid, begin)) == 2


def test_answers_to_turned_patterns_are_of_the_pattern_as_it_is():
    """Each in another orientation, turned back: the same crystal or its twin, that which explains the counts best first."""
    rho, counts = crystal((64, 64, 64))
    network, _ = weights.load_network()
    found = predict(network, counts, torch.ones(64, 64, 64, dtype=torch.bool), n=4, orientations=6)
    assert [answer.chi2 for answer in found] == sorted(answer.chi2 for answer in found)
    likeness = [align(answer.rho, rho.to(torch.complex64)).correlation for answer in found]
    assert min(likeness) > 0.9


def test_the_best_answers_of_the_low_resolution_go_to_the_full_one():
    _, counts = crystal((48, 48, 48))
    valid = torch.ones(48, 48, 48, dtype=torch.bool)
    network = untrained()
    shown = []
    network.apply_fine = lambda data, found, steps=None: (shown.append(found), TwoScaleNetwork.apply_fine(network, data, found))[1]
    tried = []
    network.apply_coarse = lambda data, begin: tried.append(TwoScaleNetwork.apply_coarse(network, data, begin)) or tried[-1]
    assert len(predict(network, counts, valid, n=2, orientations=5)) == 2
    boxes, chi2 = tried[0]
    assert len(chi2) == 5
    torch.testing.assert_close(shown[0], boxes[chi2.argsort()[:2]])


def test_a_search_goes_on_where_answers_are_different_crystals(monkeypatch):
    """And what it finds competes with what was there: it may be worse."""
    _, counts = crystal((48, 48, 48))
    valid = torch.ones(48, 48, 48, dtype=torch.bool)
    network, went_on = untrained(), []

    def spy(data, found):
        went_on.append(len(found))
        return torch.zeros_like(found), torch.full((len(found),), 2.0)

    monkeypatch.setattr(prediction, "search_coarse", spy)
    asked = {"n": 2, "orientations": 9}
    plain = predict(network, counts, valid, **asked)
    assert not went_on
    searched = predict(network, counts, valid, search=True, **asked)
    assert went_on == [prediction.LEFT]
    assert all(torch.equal(one.rho, other.rho) for one, other in zip(plain, searched, strict=True))
    monkeypatch.setattr(prediction, "is_one_crystal", lambda rho: True)
    predict(network, counts, valid, search=True, **asked)
    assert len(went_on) == 1


def test_a_crystal_and_its_twin_are_one_crystal():
    rho, _ = crystal((32, 32, 32))
    moved = inverted(rho).conj().roll((2, -1, 1), (0, 1, 2)) * 1j
    assert prediction.is_one_crystal(torch.stack([rho, moved]))
    bent = rho * torch.exp(0.1j * (torch.arange(32) - 16) ** 2)
    assert not prediction.is_one_crystal(torch.stack([rho, moved, bent]))


def test_a_long_recipe_finds_what_is_near_and_keeps_it_in_its_box():
    rho, counts = crystal((32, 32, 32))
    data = Measurement.of(counts[None], torch.ones(1, 32, 32, 32, dtype=torch.bool))
    off = rho.roll((5, 5, -5), (0, 1, 2))  # as far as an object drifts
    found_again = []
    for seed in range(3):  # half a radian off; from a whole one a search succeeds or not by the last bits of a processor
        noise = torch.randn(32, 32, 32, generator=torch.Generator().manual_seed(seed))
        box = crop(off * torch.exp(0.5j * noise), (16, 16, 16))
        found, chi2 = search_coarse(data, box[None].to(torch.complex64))
        assert float(chi2) < 0.02
        found_again.append(align(pad(found[0], (32, 32, 32)), rho.to(torch.complex64)).correlation)
    assert sorted(found_again)[1] > 0.95


def test_each_network_is_shown_its_own_grid():
    network = untrained()
    assert input_size(network) == 64
    assert input_size(network.coarse) == 32
    assert coarse_network(network) is network.coarse
    assert coarse_network(network.coarse) is network.coarse


def test_what_is_new_is_asked_of_the_central_fringes():
    """Training shows both scales the whole; the question is put with the central fringes alone."""
    _, counts = crystal((48, 48, 48))
    data = Measurement.of(counts[None], torch.ones(1, 48, 48, 48, dtype=torch.bool))
    network = untrained()
    whole, small = (features(network, d, torch.Generator().manual_seed(0)) for d in (data, central_fringes(data)))
    assert all(torch.equal(whole[name], small[name]) for name in small)


def test_only_the_fine_steps_learn(tmp_path):
    torch.manual_seed(4)
    finished = PhaseNetwork(TINY.train.network)
    weights.save_network(tmp_path / "coarse.safetensors", finished, weights.Card("coarse", *weights.kind_of(finished)))
    settings = replace(TINY, train=replace(TINY.train, kind="two-scale", fine=CONFIG.fine, between=CONFIG.between))
    reports = list(train_network(settings, tmp_path / "run", initial=tmp_path / "coarse.safetensors", device="cpu"))
    assert reports[-1].step == 6
    network, card = weights.load_network(tmp_path / "run" / "best.safetensors")
    assert isinstance(network, TwoScaleNetwork)
    assert card.kind == "two-scale"
    assert network.config == TwoScaleConfig(TINY.train.network, CONFIG.fine, CONFIG.between)
    for name, tensor in finished.state_dict().items():
        assert torch.equal(network.coarse.state_dict()[name], tensor)
    assert float(network.fine.exit.weight.detach().abs().max()) > 0  # began at zero
    more = replace(settings, train=replace(settings.train, steps=8))
    assert [report.step for report in train_network(more, tmp_path / "run", device="cpu")] == [7, 8]

    # The other way round: the low resolution learns, and keeps the fine steps.
    tuned = replace(TINY, train=replace(TINY.train, steps=3))
    assert len(list(train_network(tuned, tmp_path / "tuned", initial=tmp_path / "run" / "best.safetensors", device="cpu"))) == 3
    before, _ = weights.load_network(tmp_path / "run" / "best.safetensors")
    both, card = weights.load_network(tmp_path / "tuned" / "best.safetensors")
    assert card.kind == "two-scale"
    same = {part: all(torch.equal(a, b) for a, b in pairs(both, before, part)) for part in ("coarse", "fine")}
    assert same == {"coarse": False, "fine": True}


def pairs(one, other, part):
    first, second = (getattr(network, part).state_dict() for network in (one, other))
    return [(first[name], second[name]) for name in first]


def test_what_two_scales_cannot_begin_with_is_said(tmp_path):
    settings = replace(TINY, train=replace(TINY.train, kind="two-scale"))
    with pytest.raises(ConfigError, match="solved"):
        next(train_network(replace(settings, solved=replace(settings.solved, patterns=2)), tmp_path, device="cpu"))
    with pytest.raises(ConfigError, match="name it as init"):
        next(train_network(settings, tmp_path, device="cpu"))


def test_from_nothing_to_both_scales_and_on_where_it_stopped(tmp_path):
    reports = train_network(WHOLE, tmp_path, device="cpu")
    for report in reports:
        if "solved" not in report.values and report.steps == 3:
            break  # after the first step at the low resolution
    reports.close()
    later = list(train_network(WHOLE, tmp_path, device="cpu"))
    assert [(r.step, r.steps) for r in later if "solved" not in r.values][-2:] == [(3, 3), (1, 1)]
    assert [r.values["solved"] for r in later if "solved" in r.values] == [2, 4]
    low, _ = weights.load_network(tmp_path / LOW / "best.safetensors")
    both, card = weights.load_network(tmp_path / "best.safetensors")
    assert card.kind == "two-scale"
    assert isinstance(low, PhaseNetwork)
    assert isinstance(both, TwoScaleNetwork)
    for name, tensor in low.state_dict().items():
        assert torch.equal(both.coarse.state_dict()[name], tensor)
    assert not [r for r in train_network(WHOLE, tmp_path, device="cpu") if "solved" not in r.values]


def test_the_whole_way_is_that_of_the_flagship_alone(tmp_path):
    assert resolve({}, from_nothing=True).whole > 0
    assert resolve({}, from_nothing=True).solved.patterns > 0
    assert resolve({}).whole == resolve({}, "autophasenn", from_nothing=True).whole == 0
    assert resolve({"whole": 7, "data": {"crop": None}}, from_nothing=True).data.crop is None
    with pytest.raises(ConfigError, match="over 32 voxels"):
        next(train_network(replace(WHOLE, data=TINY.data), tmp_path, device="cpu"))
    with pytest.raises(ConfigError, match="autophasenn"):
        next(train_network(replace(WHOLE, train=replace(WHOLE.train, kind="autophasenn")), tmp_path, device="cpu"))


@pytest.mark.long
def test_the_whole_way_over_two_processes(tmp_path):
    done = subprocess.run([*TWO_PROCESSES, tiny_run.__file__, tmp_path, "whole"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert isinstance(weights.load_network(tmp_path / "best.safetensors")[0], TwoScaleNetwork)
