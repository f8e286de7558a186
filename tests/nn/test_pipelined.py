"""Pattern after pattern: the same answers as one by one, whatever the batches, and every copy on its own stream."""

from __future__ import annotations

import itertools

import pytest
import torch

from braggshot.crystals.sample import CrystalSettings, random_volumes
from braggshot.iterative.spacing import Spacing, resample
from braggshot.nn import pipelined
from braggshot.nn.pipelined import Stream, one_shot
from braggshot.nn.predict import input_size, predict
from braggshot.nn.resampling import sampling
from braggshot.nn.weights import load_network
from braggshot.physics.fourier import crop


@pytest.fixture(scope="module")
def network():
    return load_network()[0]


@pytest.fixture(scope="module")
def crystals():
    settings = CrystalSettings(shape=(40, 33, 48), oversampling=(2.1, 3.0), phase_range=(1, 3))
    return random_volumes(torch.Generator().manual_seed(0), 3, settings)


def test_a_batch_is_what_a_prediction_is(network, crystals):
    _, counts, valid = crystals
    expected = predict(network, counts[0], valid[0])[0]
    how = sampling(counts.shape[1:], None, input_size(network))
    rho, chi2 = one_shot(network, counts[:1], valid[:1], how, torch.Generator().manual_seed(0))
    wanted = crop(expected.rho, (20, 17, 24))
    assert rho[0].shape == wanted.shape
    assert float((rho[0] - wanted).norm() / wanted.norm()) < 1e-4
    assert float(chi2) == pytest.approx(expected.chi2, rel=1e-4)


def test_of_several_starts_the_best_is_kept(network, crystals):
    _, counts, valid = crystals
    how = sampling(counts.shape[1:], None, input_size(network))
    found = [hypothesis.chi2 for hypothesis in predict(network, counts[0], valid[0], n=4, seed=2)]
    _, chi2 = one_shot(network, counts[:1], valid[:1], how, torch.Generator().manual_seed(2), 4)
    assert float(chi2) == pytest.approx(min(found), rel=0.02)
    assert max(found) > 1.05 * min(found), "starts that are all alike would hide which one was taken"


def test_the_transform_of_each_object_has_the_scale_of_its_own_counts(network, crystals):
    _, counts, valid = crystals
    counts = counts * torch.tensor([1.0, 100.0, 1e4]).reshape(3, 1, 1, 1)
    rho, _ = one_shot(
        network, counts, valid, sampling(counts.shape[1:], None, input_size(network)), torch.Generator().manual_seed(0)
    )
    ratio = rho.abs().square().sum((1, 2, 3)) / counts.sum((1, 2, 3))
    assert ((ratio > 0.8) & (ratio < 1.2)).all(), ratio


def test_bad_counts_are_not_seen(network, crystals):
    counts = crystals[1].clone()
    counts[:, 3:6] = 0
    mask = torch.ones(counts.shape[1:], dtype=torch.bool)
    mask[3:6] = False
    how = sampling(counts.shape[1:], None, input_size(network))
    expected = next(Stream(network, how, mask).answers([counts]))
    for bad in (-1.0, float("nan"), float("inf")):
        spoilt = counts.clone()
        spoilt[:, 3:6] = bad
        found = next(Stream(network, how, torch.ones_like(mask)).answers([spoilt]))
        assert torch.equal(found[0], expected[0])


def test_binning_a_batch_is_binning_each(crystals):
    _, counts, valid = crystals
    how = Spacing((40, 33, 48), (2, 3, 1), (32, 16, 32), (2.65,) * 3)
    together = resample(counts, valid, how)
    for k, pair in enumerate(zip(counts, valid, strict=True)):
        alone = resample(*pair, how)
        assert torch.equal(together[0][k], alone[0])
        assert torch.equal(together[1][k], alone[1])


class Card:
    """Streams and events that write down who waits for whom, on a machine without a graphics card."""

    def __init__(self):
        self.log = []
        self.names = itertools.count()

    def current_stream(self, device):
        return Line(self, "here")

    def Stream(self, device):
        return Line(self, f"side {next(self.names)}")

    def stream(self, line):
        return line


class Line:
    def __init__(self, card, name):
        self.card, self.name = card, name

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def record_event(self):
        return Event(self.card, self.name)

    def wait_event(self, event):
        self.card.log.append(f"{self.name} waits for {event.name}")

    def wait_stream(self, other):
        self.card.log.append(f"{self.name} waits for {other.name}")


class Event:
    def __init__(self, card, name):
        self.card, self.name = card, name

    def synchronize(self):
        self.card.log.append(f"CPU waits for {self.name}")


class Travelling(torch.Tensor):
    """Says that it travels, and who still needs it."""

    def to(self, *_, non_blocking):
        assert non_blocking
        self.card.log.append(f"send {int(self[0])}")
        return self

    def record_stream(self, line):
        self.card.log.append(f"{line.name} keeps {int(self[0])}")


def travelling(card, number):
    tensor = torch.tensor([number]).as_subclass(Travelling)
    tensor.card = card
    return tensor


@pytest.fixture
def card(monkeypatch):
    card = Card()
    for name in ("current_stream", "Stream", "stream"):
        monkeypatch.setattr(torch.cuda, name, getattr(card, name))
    monkeypatch.setattr(pipelined, "copy_to_host", lambda part, side: part.record_stream(side) or part)
    return card


def test_the_next_batch_is_on_its_way_before_one_is_worked_on(card):
    for batch in pipelined.upload([travelling(card, k) for k in range(3)], torch.device("cuda")):
        card.log.append(f"work {int(batch[0])}")
    order = [line for line in card.log if line.startswith(("send", "work"))]
    assert order == ["send 0", "send 1", "work 0", "send 2", "work 1", "work 2"]
    before = card.log[: card.log.index("work 0")]
    assert "here waits for side 0" in before, "a batch must have arrived"
    assert "here keeps 0" in before, "its memory must not be given away while it is worked on"


def test_an_answer_is_given_when_it_has_arrived_and_the_next_one_is_asked_for(card):
    def answers():
        for k in range(3):
            card.log.append(f"ask {k}")
            yield (travelling(card, k),)

    for (answer,) in pipelined.download(answers(), torch.device("cuda")):
        card.log.append(f"give {int(answer[0])}")
    order = [line for line in card.log if line.startswith(("ask", "give"))]
    assert order == ["ask 0", "ask 1", "give 0", "ask 2", "give 1", "give 2"]
    assert card.log.index("side 0 waits for here") < card.log.index("side 0 keeps 0"), "a copy begins when its answer is there"
    assert card.log[card.log.index("give 0") - 1] == "CPU waits for side 0", "and is read when it has come"
    assert card.log.count("CPU waits for side 0") == 3
