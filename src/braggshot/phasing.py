"""DiffractionVolume to Reconstruction: which strategy.

=========  ============================================================================================================
oneshot    the network's hypotheses as they are: one forward pass
refine     each of them refined by 70 iterations on the whole; held-out voxels choose
iterative  many random starts through a long recipe
auto       refine; a tournament of random starts, a small one where a hypothesis has become an answer that only wants a witness,
           else a large one that the hypotheses join; and while the verdict is not good further tournaments
=========  ============================================================================================================

Hypotheses of one network share what it has learned wrong, so their agreement is no evidence: of 5 objects that it called good on 25
test crystals 2 were wrong. Only random starts, which know nothing of the network, can make a verdict good.
Tournaments: `braggshot.tournament`. Selection and verdict are the same for all strategies: `braggshot.selection`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import nn

from braggshot import memory
from braggshot.errors import ConfigError, DataError
from braggshot.nn.adapt import AdaptConfig, adapted
from braggshot.nn.expert import SHORT
from braggshot.nn.familiar import unfamiliar
from braggshot.nn.predict import Hypothesis, predict, shown
from braggshot.nn.weights import SHIPPED, Card, load_network
from braggshot.physics.fourier import to_centre, to_corner
from braggshot.refine.coherence import Coherence
from braggshot.refine.iterate import Guess, Progress, RefineConfig, Start, run_starts
from braggshot.refine.projections import Measured, ShrinkWrap, held_out_voxels, measured
from braggshot.selection import assemble, best_of, ranked, score
from braggshot.tournament import TournamentConfig, tournament
from braggshot.verdict import Limits
from braggshot.volumes import DiffractionVolume, Reconstruction

APART = 1000  # seeds between two tournaments of one phasing
CLEARLY = 0.9  # of another's llk_free
KEPT = 4  # starts of earlier searches, the best: each of all would be a volume more to hold
CONFIRM, SEARCH, FURTHER = (TournamentConfig(starts=starts) for starts in ((6, 3, 2), (12, 6, 2), (16, 8, 3)))
Trained = tuple[nn.Module, Card]


@dataclass(frozen=True)
class PhasingConfig:
    """How a volume is phased.

    Parameters
    ----------
    method : "auto", "oneshot", "refine" or "iterative", as above
    network : name of a shipped network, or a file
    hypotheses : of the network
    polish : how each of them is refined, and a start that was given
    promising : misfit of held-out magnitudes beyond photon noise, `metrics.excess`, up to which the best of them is taken for an
        answer that random starts need only confirm [1]
    confirm : the tournament of those
    search : the first one of "auto" where no hypothesis is promising
    further : each of those with which it goes on, among random starts alone
    searches : tournaments of "auto", at most
    starts : random starts of "iterative"
    seed : of the held-out voxels and, plus its number, of each start
    device : "auto", "cpu" or "cuda"
    free : share of the valid voxels that is held out [1]
    free_radius : radius of the held-out balls [voxels]
    free_centre : radius about the peak, as a share of each axis, where nothing is held out [1]
    partial_coherence : "auto" fits a point spread to the best start; where that hints at one it goes on while it is estimated, and
        where that predicts the held-out voxels better all starts follow; "on" asks no voxels; "off"
    coherence_hint : share by which llk_free must fall by the fit alone [1]
    coherence_recipe : the second round
    coherence_gain : share by which llk_free must fall for "auto" to keep it [1]
    refine : how one random start is phased
    adapt : how far the network learns from this very pattern before it answers
    edge : amplitude of a hypothesis, relative to its largest, from which a voxel belongs to the crystal at first [1]
    limits : what the verdict tolerates
    check_memory : refuse what would not fit into memory
    """

    method: Literal["auto", "oneshot", "refine", "iterative"] = "auto"
    network: str = SHIPPED
    hypotheses: int = 5
    polish: RefineConfig = SHORT
    promising: float = 0.08
    confirm: TournamentConfig = CONFIRM
    search: TournamentConfig = SEARCH
    further: TournamentConfig = FURTHER
    searches: int = 4
    starts: int = 10
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    free: float = 0.05
    free_radius: int = 1
    free_centre: float = 0.1
    partial_coherence: Literal["auto", "on", "off"] = "auto"
    coherence_hint: float = 0.02
    coherence_recipe: str = "PSF+32*(10*HIO+2*ER+PSF)+60*ER+PSF+20*ER"
    coherence_gain: float = 0.2
    refine: RefineConfig = field(default_factory=RefineConfig)
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    edge: float = 0.3
    limits: Limits = field(default_factory=Limits)
    check_memory: bool = True

    def __post_init__(self) -> None:
        if self.starts < 1:
            raise ConfigError(f"phasing.starts must be at least 1, found {self.starts}.")
        for name in ("hypotheses", "searches"):
            if getattr(self, name) < 1:
                raise ConfigError(f"phasing.{name} must be at least 1, found {getattr(self, name)}.")
        if not 0 <= self.free < 0.5:
            raise ConfigError(f"phasing.free is a share between 0 and 0.5, found {self.free}.")


@dataclass(frozen=True)
class Problem:
    """One volume on its way through a strategy: on the device to use, and on the CPU, where starts are scored.

    `unfamiliar` says in what the counts are unlike those that the network was trained on.
    """

    volume: DiffractionVolume
    data: Measured
    host: Measured
    config: PhasingConfig
    network: nn.Module | None = None
    unfamiliar: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """All starts of a strategy, and what was made of them."""

    starts: list[Start]
    result: Reconstruction


Phasing = Generator[Progress, None, list[Start]]
Strategy = Generator[Progress, None, Found]


def phase(
    volume: DiffractionVolume,
    config: PhasingConfig | None = None,
    first: Sequence[Guess] = (),
    network: Trained | None = None,
) -> Generator[Progress, None, Reconstruction]:
    """Phase a volume, yielding progress; the generator's value is the reconstruction.

    Parameters
    ----------
    volume : counts
    config : settings
    first : objects on the volume's grid, such as a neighbour's in a series, each polished and judged beside the starts that know
        nothing of them; the column "warm" of the ensemble's table then tells the two kinds apart
    network : the one that `config` names, where it is in memory already

    Raises
    ------
    DataError : if no valid voxel holds a count, or the memory is too small.
    ConfigError : for a network or a device that is not there.
    """
    config = config or PhasingConfig()
    torch.set_flush_denormal(True)  # denormal numbers make a CPU crawl
    began = time.perf_counter()
    if config.check_memory:
        starts = most_starts(config)
        memory.require(volume.name, volume.shape, config.method, starts, device_of(config.device))
    data = prepare_measured(volume, config)
    problem, card = Problem(volume, data, _on_cpu(data), config), None
    if config.method != "iterative":
        learned, card = _ready(network, config.network, data.magnitude.device)
        problem = _informed(replace(problem, network=learned), card)
    found = yield from _STRATEGIES[config.method](problem)
    result = (yield from _with_warm_starts(problem, found, first)) if first else found.result
    seconds = {"phasing": time.perf_counter() - began}
    if card is None:
        return replace(result, seconds=seconds)
    known = "; ".join(problem.unfamiliar) or (
        "nothing, by what its card knows" if card.familiar else "not known: its card has no ranges"
    )
    choices = {**result.choices, "new to the network": known}
    return replace(result, seconds=seconds, network=f"{card.name} ({card.seen} crystals)", choices=choices)


def most_starts(config: PhasingConfig) -> int:
    """That are kept on the whole grid, with a network's hypothesis."""
    more = KEPT + config.further.starts[-1] if config.searches > 1 else 0
    most = max(config.hypotheses + 1, 1 + config.search.starts[-1], more)
    return {"iterative": config.starts, "oneshot": config.hypotheses, "refine": config.hypotheses + 1, "auto": most}[config.method]


def _ready(loaded: Trained | None, name: str, device: torch.device) -> Trained:
    network, card = loaded or load_network(name)
    return network.to(device), card


def _informed(problem: Problem, card: Card) -> Problem:
    """With a network that has learned from these counts where that is asked for, and what of them is new to it."""
    config, oversampling = problem.config, problem.volume.oversampling
    assert problem.network is not None
    counts, seen = _shown(problem.data)
    said = unfamiliar(problem.network, shown(counts, seen, oversampling, counts.device), card.familiar, config.seed)
    if not config.adapt.steps:
        return replace(problem, unfamiliar=said)
    network = adapted(problem.network, counts, seen, oversampling, config.adapt, config.seed)
    return replace(problem, unfamiliar=said, network=network)


def _iterative(problem: Problem) -> Strategy:
    config = problem.config
    starts = yield from run_starts(problem.data, config.refine, config.starts, config.seed)
    return _judged(problem, (yield from _with_point_spread(starts, problem)), "iterative")


def _oneshot(problem: Problem) -> Strategy:
    starts = [_as_it_is(guess, problem.config.seed + number) for number, guess in enumerate(_guesses(problem))]
    return _without_witness(problem, _judged(problem, starts, "oneshot"))
    yield  # a generator like the others, though there is nothing to wait for


def _refine(problem: Problem) -> Strategy:
    starts = yield from _refined(problem, _guesses(problem))
    if problem.config.partial_coherence == "on":
        starts = yield from _with_point_spread(starts, problem)
    return _without_witness(problem, _judged(problem, starts, "refine"))


def _auto(problem: Problem) -> Strategy:
    config = problem.config
    starts, method = yield from _first_search(problem)
    refused = math.inf  # llk_free of the best start where a point spread was no gain: asked again only of a better one
    for number in range(config.searches):
        lowest, spread = score(_best(problem, starts), problem.host).llk_free, starts
        if not lowest >= (1 - config.coherence_gain) * refused:
            spread = yield from _with_point_spread(starts, problem)
            refused = lowest if spread is starts else math.inf
        further = f", then {number} further search{'es' if number > 1 else ''}" if number else ""
        found = _judged(problem, spread, method + further)
        if found.result.verdict == "good" or number == config.searches - 1:
            break
        starts = [starts[k] for k in ranked([score(start, problem.host) for start in starts])[:KEPT]]
        starts += yield from tournament(problem.data, problem.host, config.further, config.seed + APART * (number + 1))
    return found


def _first_search(problem: Problem) -> Generator[Progress, None, tuple[list[Start], str]]:
    """The best hypothesis and random starts, which know nothing of it; few of them where it is as good as an answer."""
    data, host, config = problem.data, problem.host, problem.config
    guesses = _guesses(problem)
    best = _best(problem, (yield from _refined(problem, guesses)))
    if score(best, host).unseen <= config.promising:
        witnesses = yield from tournament(data, host, config.confirm, config.seed)
        return [best, *witnesses], "refine and confirm"
    searched, *witnesses = yield from tournament(data, host, config.search, config.seed, guesses)
    # One alone of the network's, for two would seem to agree; if neither is clearly better the one that ended as the witnesses did.
    clearly = score(best, host).llk_free < CLEARLY * score(searched, host).llk_free
    return [best if clearly else searched, *witnesses], "search"


def _guesses(problem: Problem) -> list[Guess]:
    """What the network makes of the voxels that phasing may see."""
    assert problem.network is not None
    config, oversampling = problem.config, problem.volume.oversampling
    hypotheses = predict(problem.network, *_shown(problem.data), oversampling, config.hypotheses, config.seed)
    return [_guess(hypothesis, problem) for hypothesis in hypotheses]


def _refined(problem: Problem, guesses: Sequence[Guess]) -> Phasing:
    """Each guess polished, and the best one as it is: where photons are few iterations fit noise, and the network knows better."""
    config = problem.config
    polished = yield from run_starts(problem.data, config.polish, len(guesses), config.seed, guesses)
    return [*polished, _as_it_is(guesses[0], config.seed + len(guesses))]


def _as_it_is(guess: Guess, seed: int) -> Start:
    rho, inside = (guess.rho * guess.support).cpu(), guess.support.cpu()
    return Start(rho, inside, seed, 0.0, (0.0, 0.0, 0.0), 0.0, torch.zeros(0, 3))


def _best(problem: Problem, starts: list[Start]) -> Start:
    return starts[best_of([score(start, problem.host) for start in starts])]


def _without_witness(problem: Problem, found: Found) -> Found:
    """Never good, and with what of the counts is new to the network among the reasons."""
    new = tuple(f"the network has seen nothing like it: {said}." for said in problem.unfamiliar)
    if found.result.verdict != "good":
        return replace(found, result=replace(found.result, reasons=found.result.reasons + new))
    reason = (
        "the network's hypotheses agree and fit the counts, but they would share an error of the network, and no random start was "
        "asked; --method auto asks some."
    )
    return replace(found, result=replace(found.result, verdict="doubtful", reasons=(reason, *new)))


_ALONE = ("oneshot", "refine")
_STRATEGIES = {"auto": _auto, "oneshot": _oneshot, "refine": _refine, "iterative": _iterative}


def _judged(problem: Problem, starts: list[Start], method: str) -> Found:
    limits = problem.config.limits
    apart = replace(limits, tie=0.0)  # hypotheses of one network agree for its reasons: their company is no argument
    return Found(starts, assemble(problem.volume, problem.host, starts, apart if method in _ALONE else limits, method))


def _with_warm_starts(problem: Problem, cold: Found, first: Sequence[Guess]) -> Generator[Progress, None, Reconstruction]:
    """All starts judged again with the given ones among them; held-out voxels choose, so a warm start has to earn it."""
    config = problem.config
    warm = yield from run_starts(problem.data, config.polish, len(first), config.seed, first)
    if cold.result.psf is not None:
        warm = yield from _second_round(warm, problem.data, config, config.seed)
    result = _judged(problem, [*cold.starts, *warm], cold.result.method).result
    assert result.ensemble is not None
    is_warm = np.array([0.0] * len(cold.starts) + [1.0] * len(warm))
    return replace(result, ensemble=replace(result.ensemble, table={**result.ensemble.table, "warm": is_warm}))


def _shown(data: Measured) -> tuple[torch.Tensor, torch.Tensor]:
    """Counts and trust, centred at N // 2, with the held-out voxels marked not valid."""
    seen = data.valid.clone().view(-1).index_fill_(0, data.free, False).view(data.shape)
    return to_centre(data.intensity), to_centre(seen)


def _guess(hypothesis: Hypothesis, problem: Problem) -> Guess:
    rho = to_corner(hypothesis.rho)
    amplitude = rho.abs()
    return Guess(rho, amplitude > problem.config.edge * amplitude.max())


def _with_point_spread(starts: list[Start], problem: Problem) -> Phasing:
    """Go on from the starts while estimating the point spread; "auto" keeps that only where held-out voxels gain from it.

    A wrong object also gains from blur, so the question is put to the best start alone, and by the voxels it has not seen.
    """
    data, host, config = problem.data, problem.host, problem.config
    if config.partial_coherence == "off":
        return starts
    scores = [score(start, host) for start in starts]
    best = best_of(scores)
    before, asked = scores[best].llk_free, config.partial_coherence == "auto"
    # Not a number, where nothing was held out, is no gain.
    if asked and not score(_blurred(starts[best], data, config), host).llk_free < (1 - config.coherence_hint) * before:
        return starts
    tried = yield from _second_round([starts[best]], data, config, starts[best].seed)
    if asked and not score(tried[0], host).llk_free < (1 - config.coherence_gain) * before:
        return starts
    rest = yield from _second_round(starts[:best] + starts[best + 1 :], data, config, config.seed)
    return [*rest[:best], tried[0], *rest[best:]]


def _blurred(start: Start, data: Measured, config: PhasingConfig) -> Start:
    """As it is, with the point spread that fits it best: of a coherent pattern next to none."""
    rho = start.rho.to(data.magnitude.device)[None]
    found = Coherence.fitted(rho, data, None, config.refine.psf).spreads[0]
    return replace(start, sigma=found.sigma, eta=found.eta)


def _second_round(starts: list[Start], data: Measured, config: PhasingConfig, seed: int) -> Phasing:
    recipe = replace(config.refine, recipe=config.coherence_recipe, shrink_wrap=_settled(config.refine.shrink_wrap))
    first = [Guess(start.rho, start.support, start.threshold) for start in starts]
    return (yield from run_starts(data, recipe, len(starts), seed, first))


def _settled(shrink_wrap: ShrinkWrap) -> ShrinkWrap:
    """The width that the first round ended with; a wide blur would undo its support."""
    return replace(shrink_wrap, sigma_start=shrink_wrap.sigma_end)


def prepare_measured(volume: DiffractionVolume, config: PhasingConfig) -> Measured:
    """The volume on the device to use, its held-out voxels drawn."""
    if not (volume.intensity[volume.valid] > 0).any():
        raise DataError(f"{volume.name}: no valid voxel holds a count; check the mask and the threshold.")
    valid = torch.from_numpy(np.ascontiguousarray(volume.valid))
    generator = torch.Generator().manual_seed(config.seed)
    held_out = held_out_voxels(valid, config.free, config.free_radius, config.free_centre, generator=generator)
    data = measured(torch.from_numpy(np.ascontiguousarray(volume.intensity, dtype=np.float32)), valid, held_out)
    device = device_of(config.device)
    return Measured(*(getattr(data, name).to(device) for name in Measured.__dataclass_fields__))


def device_of(wish: str) -> torch.device:
    """The device of a setting; "auto" takes CUDA where it is.

    Raises
    ------
    ConfigError : if CUDA is asked for and not there.
    """
    if wish == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device 'cuda' was asked for, but no CUDA device is there; use --device cpu.")
    return torch.device("cuda" if wish != "cpu" and torch.cuda.is_available() else "cpu")


def _on_cpu(data: Measured) -> Measured:
    return Measured(*(getattr(data, name).cpu() for name in Measured.__dataclass_fields__))
