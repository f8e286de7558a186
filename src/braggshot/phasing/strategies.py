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
Tournaments: `braggshot.phasing.tournament`. Selection and verdict are the same for all strategies: `braggshot.phasing.selection`.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from braggshot.iterative.iterate import Guess, Progress, RefineConfig, Start, assuming, continued, run_starts
from braggshot.iterative.projections import Measured
from braggshot.nn.adapt import adapted
from braggshot.nn.novelty import unfamiliar
from braggshot.nn.predict import Hypothesis, predict, shown
from braggshot.nn.weights import Card, load_network
from braggshot.phasing import memory
from braggshot.phasing.partial_coherence import WIDE, Phasing, knowing, searched, second_round, with_point_spread
from braggshot.phasing.problem import PhasingConfig, Problem, device_of, prepare_measured
from braggshot.phasing.selection import assemble, best_of, ranked, score
from braggshot.phasing.tournament import blurred, narrowing, tournament
from braggshot.physics.fourier import to_centre, to_corner
from braggshot.volumes import DiffractionVolume, Reconstruction

__all__ = ["PhasingConfig", "Problem", "device_of", "most_starts", "phase", "prepare_measured"]

APART = 1000  # seeds between two tournaments of one phasing
FAINT = 0.1  # of the largest amplitude, what a hypothesis as it is may lose: cut at where others begin to be polished, chi2 doubles
KEPT = 4  # starts of earlier searches, the best: each of all would be a volume more to hold
Trained = tuple[nn.Module, Card]


@dataclass(frozen=True)
class Found:
    """All starts of a strategy, and what was made of them."""

    starts: list[Start]
    result: Reconstruction


Strategy = Generator[Progress, None, Found]
Searched = Generator[Progress, None, tuple[list[Start], str]]


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
    result = _widely_spread((yield from _with_warm_starts(problem, found, first)) if first else found.result)
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
    problem, starts, how = yield from searched(problem, _random)
    return _judged(problem, (yield from _filled(problem, starts)), how)


def _random(problem: Problem) -> Searched:
    config = problem.config
    starts = yield from run_starts(problem.sharp, config.refine, config.starts, config.seed)
    return assuming(problem.known, starts), "iterative"


def _oneshot(problem: Problem) -> Strategy:
    starts = [_as_it_is(guess, problem.config.seed + number) for number, guess in enumerate(_guesses(problem))]
    return _without_witness(problem, _judged(problem, starts, "oneshot"))
    yield  # a generator like the others, though there is nothing to wait for


def _refine(problem: Problem) -> Strategy:
    if problem.config.partial_coherence == "on":
        problem, starts, how = yield from searched(problem, _hypotheses)
    else:
        starts, how = yield from _hypotheses(problem)
    return _without_witness(problem, _judged(problem, starts, how))


def _hypotheses(problem: Problem) -> Searched:
    return (yield from _refined(problem, _guesses(problem))), "refine"


def _auto(problem: Problem) -> Strategy:
    config, host = problem.config, problem.host
    problem, starts, how = yield from searched(problem, _first_search)
    starts = yield from _filled(problem, starts)
    refused = score(_best(problem, starts), host).llk_free
    for number in range(config.searches):
        further = f", then {number} further search{'es' if number > 1 else ''}" if number else ""
        found = _judged(problem, starts, how + further)
        if found.result.verdict == "good" or number == config.searches - 1:
            break
        starts = [starts[k] for k in ranked([score(start, host) for start in starts])[:KEPT]]
        if problem.known is not None:
            problem = knowing(problem, starts[0])
        starts += yield from _further_search(problem, config.seed + APART * (number + 1))
        best = _best(problem, starts)
        if (
            problem.known is None and score(best, host).llk_free < (1 - config.coherence_gain) * refused
        ):  # only a better start is asked again
            problem, starts = yield from _reconsidered(problem, starts)
            refused = score(best, host).llk_free
    return found


def _reconsidered(problem: Problem, starts: list[Start]) -> Generator[Progress, None, tuple[Problem, list[Start]]]:
    """All starts with a point spread, if the best one asks for it now."""
    best = _best(problem, starts)
    kept = yield from with_point_spread(best, problem)
    if kept is None:
        return problem, starts
    others = yield from second_round([start for start in starts if start is not best], problem)
    return knowing(problem, kept), (yield from _filled(problem, [kept, *others]))


def _further_search(problem: Problem, seed: int) -> Phasing:
    """Random starts alone."""
    found = yield from tournament(problem.sharp, problem.host, problem.config.further, seed, known=problem.known)
    return (yield from _filled(problem, found if problem.known is None else (yield from second_round(found, problem))))


def _filled(problem: Problem, starts: list[Start]) -> Phasing:
    """Gone on to where the counts leave the crystal open: the long waves and directions that lie in gaps of the detector."""
    config, missing = problem.config, 1 - float(problem.data.valid.float().mean())
    if missing <= config.gaps:
        return starts
    blurred = any(any(start.sigma) for start in starts)
    recipe = f"PSF+{config.filling.recipe}" if blurred else config.filling.recipe
    return (yield from continued(starts, problem.data, replace(config.filling, recipe=recipe)))


def _first_search(problem: Problem) -> Searched:
    """The best hypothesis and random starts, which know nothing of it; few of them where it is as good as an answer."""
    data, host, config, known = problem.sharp, problem.host, problem.config, problem.known
    guesses = _guesses(problem)
    best = _best(problem, (yield from _refined(problem, guesses)))
    if score(best, host).unseen <= config.promising:
        witnesses = yield from tournament(data, host, config.confirm, config.seed, known=known)
        return [best, *witnesses], "refine and confirm"
    found, *witnesses = yield from tournament(data, host, config.search, config.seed, guesses, known)
    # One alone of the network's, for two would seem to agree.
    return [_best(problem, [best, found]), *witnesses], "search"


def _guesses(problem: Problem) -> list[Guess]:
    """What the network makes of the voxels that phasing may see."""
    assert problem.network is not None
    config, oversampling = problem.config, problem.volume.oversampling
    searches = config.method != "oneshot"
    hypotheses = predict(
        problem.network, *_shown(problem.sharp), oversampling, config.hypotheses, config.seed, config.views, searches
    )
    return [_guess(hypothesis, problem) for hypothesis in hypotheses]


def _refined(problem: Problem, guesses: Sequence[Guess]) -> Phasing:
    """Each guess polished, and the best one as it is: where photons are few iterations fit noise, and the network knows better."""
    config = problem.config
    polished = yield from run_starts(problem.sharp, _polish(problem), len(guesses), config.seed, guesses)
    return assuming(problem.known, [*polished, _as_it_is(guesses[0], config.seed + len(guesses))])


def _polish(problem: Problem) -> RefineConfig:
    return blurred(problem.config.polish, narrowing(problem.volume.oversampling))


def _as_it_is(guess: Guess, seed: int) -> Start:
    amplitude = guess.rho.abs()
    inside = amplitude > FAINT * amplitude.max()
    return Start((guess.rho * inside).cpu(), inside.cpu(), seed, 0.0, (0.0, 0.0, 0.0), 0.0, torch.zeros(0, 3))


def _best(problem: Problem, starts: list[Start]) -> Start:
    return starts[best_of([score(start, problem.host) for start in starts])]


def _widely_spread(result: Reconstruction) -> Reconstruction:
    """Never good: all starts share an estimate that hides much of the crystal, and agree on what is only near to it."""
    if result.psf is None or result.verdict != "good" or max(result.psf["sigma"]) < WIDE:
        return result
    width = max(result.psf["sigma"])
    reason = (
        f"starts agree, but share a point spread of {width:.1f} voxels, as wide as the speckles, which hides much of the crystal: "
        "surface and strain may be off; close the slits, or take a smaller crystal."
    )
    return replace(result, verdict="doubtful", reasons=(reason,))


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
    warm = yield from run_starts(problem.data, _polish(problem), len(first), config.seed, first)
    if cold.result.psf is not None:
        warm = yield from second_round(warm, problem)
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


def _on_cpu(data: Measured) -> Measured:
    return Measured(*(getattr(data, name).cpu() for name in Measured.__dataclass_fields__))
