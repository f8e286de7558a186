"""The network's strategies end to end, with the network that is shipped: what it may see, how far it goes, when it gives way."""

from __future__ import annotations

import functools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.errors import ConfigError
from braggshot.iterative.iterate import Guess, IterativeConfig, Start
from braggshot.nn.adapt import AdaptConfig
from braggshot.nn.network import NetworkConfig, PhaseNetwork
from braggshot.nn.weights import Card, load_network
from braggshot.phasing import auto, hypotheses, outcome
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.problem import PhasingContext, prepare_measured
from braggshot.phasing.rounds import Round, TournamentConfig
from braggshot.phasing.strategies import phase
from braggshot.phasing.surface import MOST_FITS
from braggshot.phasing.verdict import Limits
from braggshot.physics.fourier import to_centre, to_corner
from braggshot.physics.metrics import align
from braggshot.pipeline import drain

SETTINGS = CrystalSettings(
    shape=(32, 36, 28),
    oversampling=(2.3, 3.0),
    phase_range=(1, 1),
    counts=(1e6, 1e6),
    shapes=("fcc",),
    displacements=("gaussians",),
)
CONFIG = PhasingConfig(
    hypotheses=3,
    confirm_starts=(3, 2, 1),
    search_starts=(5, 3, 2),
    further_starts=(2, 1, 1),
    device="cpu",
    partial_coherence="off",
)
NOT_PROMISING = {"promising_excess": 0.0, "limits": Limits(one_witness=0.4)}  # no guess is, since photon noise leaves 0.5
REFINE, OPENING, NARROWING, SETTLING, FINISH = 70, 160, 480, 380, 360  # iterations
DEEPER = 840  # iterations in which supports keep the measured volume
MEAN = 40  # iterations from the mean of nearly equal starts
GROWING = 30  # iterations in a support that a layer of voxels was added to
FITTING = 330  # iterations that fit a support to the surface
CONFIRM = 3 * REFINE + FITTING + 3 * OPENING + 2 * NARROWING + SETTLING + FINISH + FITTING
# No guess is fitted to the surface after the short refinement, and after the longer one only the best. The best hypothesis of the
# search is finished too.
SEARCH = 3 * (REFINE + DEEPER) + FITTING + 5 * OPENING + 3 * NARROWING + (2 + 3) * SETTLING + (2 + 1) * (FINISH + FITTING)
FURTHER = 2 * OPENING + NARROWING + SETTLING + FINISH + FITTING


def more_fits(steps, expected):
    """Return how many times supports were fitted again, beyond the expected iterations; starts that are alike may be averaged."""
    fits, rest = divmod(len(steps) - expected, FITTING)
    assert rest in (0, MEAN)
    return fits


def finish(volume, config, network=None):
    """The result, and the names of the iterations that it took."""
    running, steps = phase(volume, config, network=network), []
    try:
        while True:
            steps.append(next(running).step)
    except StopIteration as finished:
        return finished.value, steps


@pytest.fixture(scope="module")
def sample():
    return simulate_volume(4, SETTINGS)


@pytest.fixture(scope="module")
def found(sample):
    """The result of a method with the settings of these tests, and the names of its iterations; each is phased once."""
    return functools.cache(lambda method: finish(sample[1], replace(CONFIG, method=method)))


def test_one_shot_is_one_pass(sample, found):
    truth, volume = sample
    result, steps = found("oneshot")
    assert steps == []
    assert result.method == "oneshot"
    assert result.network.startswith("flagship")
    assert result.rho.shape == volume.shape
    assert not result.rho[~result.support].any()
    assert align(torch.from_numpy(result.rho), torch.from_numpy(truth)).correlation > 0.95


def test_refine_takes_its_iterations_and_finds_the_crystal(sample, found):
    truth, _ = sample
    result, steps = found("refine")
    assert 0 <= more_fits(steps, 3 * (REFINE + FITTING)) < MOST_FITS, "of the best hypothesis alone"
    assert result.method == "refine"
    assert len(result.ensemble.table["start"]) == 4, "three hypotheses refined, and the best of them as it is"
    assert align(torch.from_numpy(result.rho), torch.from_numpy(truth)).correlation > 0.95
    blind, _ = found("oneshot")
    assert result.quality.chi2 < blind.quality.chi2


def test_guesses_are_refined_for_longer_if_the_short_refinement_leaves_misfit(sample, found):
    result, steps = finish(sample[1], replace(CONFIG, method="refine", deepen_excess=0.0))
    further, growing = divmod(len(steps) - 3 * (REFINE + DEEPER + 2 * FITTING), FITTING)
    assert 0 <= further < 4 * MOST_FITS
    assert growing in (0, GROWING, 2 * GROWING), "a tighter fit is compared at like size"
    assert len(result.ensemble.table["start"]) == 4, "of the two refinements of a guess only the better is kept"
    assert (result.ensemble.table["llk_free"] <= found("refine")[0].ensemble.table["llk_free"]).all()
    assert (result.ensemble.table["threshold"] < 1).all(), "a volume is no threshold"


def test_hypotheses_are_refined_with_a_blur_that_suits_the_size_of_the_crystal(sample, monkeypatch):
    """Twice the oversampling that the widths are meant for halves them; none, or little of it, leaves them."""
    widths = []

    def spy(guesses, data, wide, rounds, *rest):
        widths.append((rounds[0].shrink_wrap.sigma_start, rounds[0].shrink_wrap.sigma_end))
        return (yield from refine_wide(guesses, data, wide, rounds, *rest))

    refine_wide = hypotheses.refine_wide
    monkeypatch.setattr(hypotheses, "refine_wide", spy)
    for oversampling in ((8.0, 8.0, 8.0), (3.0, 3.0, 3.0), None):
        finish(replace(sample[1], oversampling=oversampling), replace(CONFIG, method="refine", hypotheses=1, orientations=1))
    (small, *others), asked = widths, CONFIG.refine.shrink_wrap
    assert small == pytest.approx((asked.sigma_start / 2, asked.sigma_end / 2))
    assert others == [(asked.sigma_start, asked.sigma_end)] * 2


def test_auto_stops_where_the_verdict_is_good(found):
    result, steps = found("auto")
    assert result.verdict == "good"
    assert result.method == "refine and confirm"
    assert len(result.ensemble.table["start"]) == 2, "an answer and a witness"
    assert 0 <= more_fits(steps, CONFIRM) < 2 * MOST_FITS


def test_auto_searches_where_no_hypothesis_is_an_answer(sample):
    result, steps = finish(sample[1], replace(CONFIG, method="auto", **NOT_PROMISING))
    assert result.method == "search"
    assert len(result.ensemble.table["start"]) == 3
    assert 0 <= more_fits(steps, SEARCH) < 7 * MOST_FITS


def test_the_network_alone_is_never_called_good(found):
    """Hypotheses of one network share its errors, so their agreement is no evidence."""
    for method in ("oneshot", "refine"):
        result, _ = found(method)
        assert result.verdict != "good"
    sure = replace(result, verdict="good", reasons=("all agree.",))
    context = SimpleNamespace(out_of_distribution=("the counts.",))
    doubted = outcome.doubt_network_alone(context, outcome.Found([], sure, None)).result
    assert doubted.verdict == "doubtful"
    assert "no random start" in doubted.reasons[0]
    assert "nothing like it: the counts." in doubted.reasons[1]


def test_auto_goes_on_where_it_is_not_sure(sample):
    """Counts without any object behind them: nothing agrees, so every search is held, and the verdict stays bad."""
    volume = sample[1]
    noise = np.random.default_rng(0).permutation(volume.intensity.reshape(-1)).reshape(volume.shape)
    short, one = IterativeConfig(recipe="10*RAAR+5*ER"), Round("10*RAAR+5*ER", 2.0, 1.0)
    quick = TournamentConfig(opening=one, narrowing=one, settling=one, finish=one, fitting=one)
    config = replace(CONFIG, method="auto", max_tournaments=4, refine=short, deepen=one)
    config = replace(config, tournament=quick, volume_tournament=quick)
    result, steps = finish(replace(volume, intensity=noise), config)
    assert result.method == "search, then 3 further searches"
    assert result.verdict == "failed"
    assert len(result.quality.agreement) == auto.KEPT + 1, "of five starts the best four stay beside the last search"
    assert len(steps) == 15 * (3 + 3 + 1 + 5 + 3 + 2 + 3 + 3 + 3) + 3 * 15 * (2 + 1 + 1 + 1 + 1)
    asked: list[str] = []
    enough = phase(replace(volume, intensity=noise), config, is_enough=lambda found: not asked.append(found.verdict))
    assert drain(enough).method == "search", "no further search where the caller says so"
    assert asked == ["failed"]
    near = replace(config, limits=Limits(one_witness=1e9))  # as if held-out voxels were predicted to photon noise
    early = phase(replace(volume, intensity=noise), near, is_enough=lambda found: True)
    assert drain(early).method == "refine", "no search at all"


def test_auto_does_not_search_on_for_what_only_another_measurement_can_mend(sample):
    coarse = replace(sample[1], oversampling=(1.9, 2.5, 2.5))
    result, _ = finish(coarse, replace(CONFIG, method="auto", max_tournaments=3))
    assert result.verdict == "doubtful"
    assert [reason for reason in result.reasons if "oversampling is 1.9 along rocking" not in reason] == []
    assert "further" not in result.method


def test_auto_may_be_sure_after_a_further_search(sample, monkeypatch):
    """A verdict that is only good with four starts ends what the next searches would cost."""
    asked = []

    def strict(volume, starts, chosen, limits, method):
        result = judge_chosen(volume, starts, chosen, limits, method)
        asked.append([start.seed for start in starts])
        return result if len(starts) > 3 else replace(result, verdict="doubtful")

    judge_chosen = outcome.judge_chosen
    monkeypatch.setattr(outcome, "judge_chosen", strict)
    result, steps = finish(sample[1], replace(CONFIG, method="auto", **NOT_PROMISING))
    assert [len(seeds) for seeds in asked] == [3, 4]
    assert sorted(asked[1][:3]) == sorted(asked[0]), "what was found before stays among the starts"
    assert asked[1][3] in {auto.APART, auto.APART + 1}, "each search has seeds of its own"
    assert result.method == "search, then 1 further search"
    assert 0 <= more_fits(steps, SEARCH + FURTHER) < 8 * MOST_FITS


def test_held_out_counts_never_reach_the_network(sample):
    volume = sample[1]
    data = prepare_measured(volume, CONFIG)
    free = torch.zeros(volume.shape, dtype=torch.bool).view(-1).index_fill(0, data.free, True).view(volume.shape)
    config = replace(CONFIG, method="oneshot", hypotheses=1, orientations=1)  # among several, held-out counts are meant to choose
    changed = np.where(to_centre(free).numpy(), 1e4, volume.intensity).astype(np.float32)
    one, other = (finish(replace(volume, intensity=i), config)[0] for i in (volume.intensity, changed))
    # The scale is that of all counts, so only the direction in the space of objects can be compared.
    overlap = abs(np.vdot(one.rho, other.rho)) / np.linalg.norm(one.rho) / np.linalg.norm(other.rho)
    assert overlap == pytest.approx(1, abs=1e-5)


def test_hypotheses_repeat_with_the_seed(sample):
    config = replace(CONFIG, method="oneshot", hypotheses=1, orientations=1)
    one, same, other = (finish(sample[1], replace(config, seed=seed))[0].rho for seed in (5, 5, 6))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_network_that_is_not_there(sample):
    with pytest.raises(ConfigError, match="no network 'nothing'"):
        finish(sample[1], replace(CONFIG, network="nothing"))
    with pytest.raises(ConfigError, match="at least 1"):
        PhasingConfig(hypotheses=0)


def test_what_is_new_to_the_network_is_said(sample):
    _, volume = sample
    network, card = load_network()
    card = replace(card, familiar={"brightest": (8.0, 9.0)})
    result, _ = finish(volume, replace(CONFIG, method="oneshot", hypotheses=1, orientations=1), network=(network, card))
    assert "10^6.0 photons (in training 8 to 9)" in result.choices["new to the network"]
    assert any("seen nothing like it" in reason for reason in result.reasons)


def test_the_network_may_learn_from_the_pattern_first(sample):
    """What it minimises, the misfit, falls by far where it knows nothing yet; the shipped one is another one then, and no worse."""
    truth, volume = sample
    config = replace(CONFIG, method="oneshot", hypotheses=1, orientations=1)
    torch.manual_seed(1)  # of eight first weights two learn too slowly for these eight steps
    untrained = PhaseNetwork(NetworkConfig(channels=(16, 16), steps=2)).eval(), Card("untrained")
    much = replace(config, adapt=AdaptConfig(steps=8, starts=2, learning_rate=2e-3))
    knows_nothing, taught = (finish(volume, chosen, network=untrained)[0] for chosen in (config, much))
    assert taught.quality.chi2 < 0.6 * knows_nothing.quality.chi2
    plain, learned = (finish(volume, replace(config, adapt=AdaptConfig(steps=n, starts=2)))[0] for n in (0, 2))
    assert not np.array_equal(plain.rho, learned.rho)
    assert align(torch.from_numpy(learned.rho), torch.from_numpy(truth)).correlation > 0.95


def near(free):
    """A start with a misfit of held-out voxels, for a spy on `score`; nothing else is looked at."""
    return SimpleNamespace(llk_free=free, unseen=free / 100)


def refine_as(monkeypatch, finished):
    """Let `finished` give what a guess becomes, and leave supports as they are."""

    def fitted(starts, *rest):
        return starts
        yield

    monkeypatch.setattr(hypotheses, "finish_guesses", finished)
    monkeypatch.setattr(hypotheses, "fit_surface", fitted)
    monkeypatch.setattr(hypotheses, "score", lambda start, data: start)


def test_guesses_are_refined_for_longer_until_one_is_found(monkeypatch):
    """The second of three is found beside others that are stuck: the third is left as it was, and nothing is refined once more."""
    asked = []

    def finished(pattern, rounds, guesses, seed):
        asked.append((seed, rounds.volume))
        return [near({0: 9.0, 1: 0.6, 2: 0.6, 3: 2.0}[seed])]
        yield

    refine_as(monkeypatch, finished)
    context = SimpleNamespace(config=replace(CONFIG, promising_excess=0.05), data_cpu=None, pattern=None)
    guess = Guess(torch.ones(1), torch.ones(1))
    before = [near(10.0), near(11.0), near(12.0), near(50.0)]
    after = drain(hypotheses.refine_longer(context, [guess] * 3, before))
    assert [start.llk_free for start in after] == [9.0, 0.6, 12.0, 50.0]
    assert [seed for seed, _ in asked] == [0, 1]


def test_what_is_nearly_found_is_refined_once_more(monkeypatch):
    """By a threshold, without a kept volume; and kept only if it predicts better."""
    asked, again = [], [0.0]

    def finished(pattern, rounds, guesses, seed):
        asked.append(rounds.volume)
        return [SimpleNamespace(llk_free=2.0, unseen=0.02, rho=None, support=None) if seed < 2 else near(again[0])]
        yield

    refine_as(monkeypatch, finished)
    context = SimpleNamespace(config=CONFIG, data_cpu=None, pattern=None)
    guess = Guess(torch.ones(1), torch.ones(1))
    for again[0], kept in ((0.6, 0.6), (2.5, 2.0)):
        asked.clear()
        found = drain(hypotheses.refine_longer(context, [guess] * 2, [near(10.0), near(11.0), near(50.0)]))
        assert [start.llk_free for start in found] == [kept, 2.0, 50.0]
        assert asked == [CONFIG.volume_tournament.volume] * 2 + [None]


def test_a_crystal_that_predicts_to_noise_beside_stuck_guesses_needs_no_random_start(sample, monkeypatch):
    """Of the network's guesses one is right, and two are wrong and known to be; a guess that agrees is no evidence."""
    truth, volume = sample
    data = prepare_measured(volume, CONFIG)
    context = PhasingContext(volume, data, data, replace(CONFIG, method="auto"))
    inside = to_corner(torch.from_numpy(np.abs(truth) > 0.3 * np.abs(truth).max()))
    rho = to_corner(torch.from_numpy(truth))
    noise = torch.randn(rho.shape, generator=torch.Generator().manual_seed(0)) * inside * rho.abs().max()
    right, wrong = (Start(rho + error * noise, inside, 0, 0.2, (0.0,) * 3, 0.0, torch.zeros(1, 3)) for error in (0.0, 0.5))
    asked = [right, replace(right, seed=1), wrong, replace(wrong, seed=2)]
    starts, how = drain(auto._first_search(context, ([], asked)))
    assert how == auto.REFINED
    assert starts == [right, wrong, asked[3]]
    judged = outcome.judge_starts(context, starts, how).result
    assert (judged.verdict, judged.quality.agreeing.stuck) == ("good", 2)
    monkeypatch.setattr(auto, "confirm", lambda *args: (yield from ()) or [])
    assert drain(auto._first_search(context, ([], asked[:3])))[1] == "refine and confirm", "one that is stuck is not enough"


def test_filled_gaps_keep_the_evidence_of_before_and_pass_all_other_checks(sample):
    """The crystal predicted the held-out voxels to noise, and no longer does; a fault that filling brings is still a fault."""
    truth, volume = sample
    data = prepare_measured(volume, CONFIG)
    context = PhasingContext(volume, data, data, replace(CONFIG, method="auto"))
    inside = to_corner(torch.from_numpy(np.abs(truth) > 0.3 * np.abs(truth).max()))
    rho = to_corner(torch.from_numpy(truth))
    noise = torch.randn(rho.shape, generator=torch.Generator().manual_seed(0)) * inside * rho.abs().max()

    def found(*errors):
        starts = [Start(rho + error * noise, inside, k, 0.2, (0.0,) * 3, 0.0, torch.zeros(1, 3)) for k, error in enumerate(errors)]
        return outcome.judge_starts(context, starts, "refine")

    before, filled, other = found(0.0, 0.5, 0.6), found(0.04, 0.5, 0.6), found(0.5, 2.0, 3.0)
    assert (before.result.verdict, filled.result.verdict) == ("good", "doubtful")
    kept = outcome.keep_verdict(before, filled, Limits()).result
    assert kept.verdict == "good"
    assert "before the gaps were filled" in kept.reasons[0]
    assert kept.quality == filled.result.quality
    assert outcome.keep_verdict(before, other, Limits()) is other, "another crystal"
    assert outcome.keep_verdict(filled, before, Limits()) is before, "nothing good to keep"
    empty = replace(filled, result=replace(filled.result, support=np.zeros_like(filled.result.support)))
    assert outcome.keep_verdict(before, empty, Limits()).result.verdict == "failed"
