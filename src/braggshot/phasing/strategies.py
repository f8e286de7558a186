"""Phase a diffraction volume by a strategy.

=========  ============================================================================================================
oneshot    the network's hypotheses as they are: one forward pass
refine     each hypothesis refined by 70 iterations, or 840 if needed, and its support fitted to the surface; the held-out
           voxels decide which one is chosen
iterative  many random starts, each phased by a long recipe
auto       refine, then a tournament of random starts: a small one if a hypothesis already predicts the held-out voxels,
           else a large one that the hypotheses join; while the verdict is not good, further tournaments, the first of
           them from paraboloids (`even_fields`) where the pattern is the same at q and -q; tournaments by threshold
           and with the volume kept take turns, since they find different crystals
=========  ============================================================================================================

Hypotheses of one network share the errors that it has learned, so their agreement is no evidence. When agreement was the
criterion, 5 objects on 25 test crystals were called good, and 2 of these 5 were wrong. Only random starts, which know nothing of
the network, can make a verdict good.

A tournament (`braggshot.phasing.tournament`) phases many random starts on a coarse grid and continues the best of them. A strategy
is a row of `STRATEGIES`, or an entry point of the group ``braggshot.strategies`` of another package. All strategies share the
choice among starts and the verdict (`braggshot.phasing.selection`).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import entry_points

from torch import nn

from braggshot.errors import ConfigError
from braggshot.iterative.iterate import (
    Guess,
    IterativeConfig,
    Progress,
    Start,
    continue_starts,
    flush_denormals,
    run_starts,
    set_point_spread,
)
from braggshot.iterative.projections import ShrinkWrap
from braggshot.nn.weights import Card, load_network
from braggshot.phasing import memory
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.even_fields import is_even, paraboloids
from braggshot.phasing.hypotheses import FAINT, hypotheses_of, refine_guesses, unrefined, with_network
from braggshot.phasing.outcome import Found, doubt_network_alone, judge_starts, judge_with_warm_starts
from braggshot.phasing.partial_coherence import (
    Phasing,
    adopt_point_spread,
    refit_with_psf,
    search_with_coherence,
    try_point_spread,
)
from braggshot.phasing.problem import PhasingContext, device_of, prepare_measured, to_device
from braggshot.phasing.selection import best_of, ranked, score
from braggshot.phasing.tournament import TournamentConfig, fitting_rounds, settle_guesses, surface_blur, tournament
from braggshot.phasing.verdict import Limits, is_settled
from braggshot.volumes import DiffractionVolume, Reconstruction

# Difference between the seeds of two successive tournaments on one volume, so that they draw different random starts.
APART = 1000
# Number of starts, the best so far, that are kept when further random starts are phased because the verdict is not good; each start
# takes the memory of a volume.
KEPT = 4
Trained = tuple[nn.Module, Card]
Enough = Callable[[Reconstruction], bool]
Run = Generator[Progress, None, Found]
Searched = Generator[Progress, None, tuple[list[Start], str]]
COMMON = frozenset({"method", "seed", "device", "free_fraction", "free_radius", "free_exclusion", "check_memory"}) | {
    f"limits.{limit.name}" for limit in dataclasses.fields(Limits) if limit.name != "tie_margin"
}
"""Names of the settings that every phasing strategy reads.

The setting `limits.tie_margin` is left out. It lets the agreement of starts decide between nearly equal starts, and a strategy
without random starts does not choose by agreement.
"""
# Names of the settings for the network; only strategies that use a network read these settings.
NETWORK = frozenset({"network", "hypotheses", "orientations", "adapt"})
REFINING = frozenset({"refine", "deepen", "volume_tournament", "support_threshold"})
# Names of the settings for the point spread of a partially coherent beam; only strategies that can estimate one read these.
COHERENCE = frozenset({"partial_coherence", "coherence_recipe", "coherence_psf", "search_oversampling"})
ASKED_FOR = frozenset({"coherence_hint", "coherence_gain"})  # names of the settings that decide whether a point spread is kept
GAPS = frozenset({"gap_fraction", "gap_recipe"})  # names of the settings for wide gaps of the detector


@dataclass(frozen=True)
class Strategy:
    """A method of phasing, with the memory that it takes and the settings that it reads.

    Parameters
    ----------
    run : function that phases a `PhasingContext`; a generator of progress whose value is `Found`
    needs_network : True if the context has to hold a network
    is_witnessed : True if the strategy has random starts, independent of the network; if False, the verdict is never "good"
    kept_starts : function that computes, from the settings, how many starts are kept on the whole grid
    host_bytes : main memory per voxel for the volume, and for each start that is kept [bytes]
    reads : names of the settings of `PhasingConfig` that the strategy reads besides `COMMON`; ``table`` stands for all settings
        of a table, ``table.name`` for one of them
    instead : for a setting that the strategy does not read, the setting to use in its place
    """

    run: Callable[[PhasingContext], Run]
    needs_network: bool
    is_witnessed: bool
    kept_starts: Callable[[PhasingConfig], int]
    host_bytes: tuple[int, int]
    reads: frozenset[str]
    instead: Mapping[str, str] = field(default_factory=dict)


def find_strategy(name: str) -> Strategy:
    """Return the strategy of a name.

    Raises
    ------
    ConfigError : if neither braggshot nor an installed package offers the strategy.
    """
    if name in STRATEGIES:
        return STRATEGIES[name]
    plugins = {entry.name: entry for entry in entry_points(group="braggshot.strategies")}
    if name in plugins:
        strategy: Strategy = plugins[name].load()
        return strategy
    raise ConfigError(f"unknown phasing.method {name!r}; known: {', '.join([*STRATEGIES, *plugins])}.")


def refuse_unread(method: str, names: Iterable[str], also: Iterable[str] = ()) -> None:
    """Refuse settings that a strategy does not read.

    Parameters
    ----------
    method : name of the strategy
    names : settings that were given, dotted, such as ``iterative.recipe``
    also : settings that the caller of the strategy reads itself, which are allowed

    Raises
    ------
    ConfigError : for a setting that is not read; the message names the setting to use in its place.
    """
    strategy = find_strategy(method)
    for name in names:
        if _is_in(name, strategy.reads | COMMON | set(also)):
            continue
        others = " or ".join(methods_that_read(name))
        meant = next((new + name.removeprefix(old) for old, new in strategy.instead.items() if _is_in(name, {old})), None)
        advice = f"; for {method!r} set phasing.{meant}" if meant else ""
        raise ConfigError(f"phasing.{name} is read by method {others or 'of another package'}, not by {method!r}{advice}.")


def methods_that_read(name: str) -> list[str]:
    """List the strategies of this package that read a setting of phasing."""
    return [known for known, strategy in STRATEGIES.items() if _is_in(name, strategy.reads | COMMON)]


def _is_in(name: str, tables: Iterable[str]) -> bool:
    """Return True if `tables` names the setting itself, or a table of settings that contains it."""
    return any(name == table or name.startswith(f"{table}.") for table in tables)


def phase(
    volume: DiffractionVolume,
    config: PhasingConfig | None = None,
    first: Sequence[Guess] = (),
    network: Trained | None = None,
    is_enough: Enough = lambda found: False,
) -> Generator[Progress, None, Reconstruction]:
    """Phase a volume, yielding progress; the generator's value is the reconstruction.

    Parameters
    ----------
    volume : the volume to be phased
    config : settings of phasing
    first : objects to begin from, on the volume's grid, such as the crystal of the previous scan of a series; each is refined, and
        judged together with the independent starts. The column "warm" of the ensemble's table marks the refined objects
    network : the network that `config` names, if it is in memory already
    is_enough : as in `PhasingContext`

    Raises
    ------
    DataError : if no valid voxel holds a count, or the memory is too small.
    ConfigError : if the strategy, the network or the device does not exist.
    """
    return (yield from flush_denormals(_phase(volume, config or PhasingConfig(), first, network, is_enough)))


def _phase(
    volume: DiffractionVolume, config: PhasingConfig, first: Sequence[Guess], network: Trained | None, is_enough: Enough
) -> Generator[Progress, None, Reconstruction]:
    began, strategy = time.perf_counter(), find_strategy(config.method)
    if config.check_memory:
        starts = strategy.kept_starts(config)
        memory.require(volume.name, volume.shape, strategy.host_bytes, starts, device_of(config.device))
    data = prepare_measured(volume, config)
    context = PhasingContext(volume, data, to_device(data, "cpu"), config, is_witnessed=strategy.is_witnessed, is_enough=is_enough)
    card = None
    if strategy.needs_network:
        learned, card = network or load_network(config.network)
        context = with_network(context, learned.to(data.magnitude.device), card)
    found = yield from strategy.run(context)
    result = (yield from judge_with_warm_starts(context, found, first)) if first else found.result
    seconds = {"phasing": time.perf_counter() - began}
    if card is None:
        return replace(result, seconds=seconds)
    known = "; ".join(context.out_of_distribution) or (
        "nothing, by what its card knows" if card.familiar else "not known: its card has no ranges"
    )
    choices = {**result.choices, "new to the network": known}
    return replace(result, seconds=seconds, network=f"{card.name} ({card.seen} crystals)", choices=choices)


def _iterative(context: PhasingContext) -> Run:
    context, starts, how = yield from search_with_coherence(context, _random_starts)
    return judge_starts(context, (yield from _settle_gaps(context, starts)), how)


def _random_starts(context: PhasingContext) -> Searched:
    config = context.config
    starts = yield from run_starts(
        context.search_data, config.iterative, config.starts, config.seed, first_support=config.first_support
    )
    return set_point_spread(context.point_spread, starts), "iterative"


def _oneshot(context: PhasingContext) -> Run:
    starts = [
        unrefined(guess, context.config.seed + number) for number, guess in enumerate(hypotheses_of(context, FAINT, searches=False))
    ]
    return doubt_network_alone(context, judge_starts(context, starts, "oneshot"))
    yield  # a generator like the others, though there is nothing to wait for


def _refine(context: PhasingContext) -> Run:
    if context.config.partial_coherence == "on":
        context, starts, how = yield from search_with_coherence(context, _refined_hypotheses)
    else:
        starts, how = yield from _refined_hypotheses(context)
    return doubt_network_alone(context, judge_starts(context, starts, how))


def _refined_hypotheses(context: PhasingContext) -> Searched:
    guesses = hypotheses_of(context, context.config.support_threshold)
    return (yield from refine_guesses(context, guesses, context.config.deepen_excess)), "refine"


def _auto(context: PhasingContext) -> Run:
    config, counts = context.config, context.data_cpu
    context, starts, how = yield from search_with_coherence(context, _first_search)
    starts = yield from _settle_gaps(context, starts)
    refused = score(_best(context, starts), counts).llk_free
    keeps_volume = True
    for number in range(config.max_tournaments):
        further = f", then {number} further search{'es' if number > 1 else ''}" if number else ""
        found = judge_starts(context, starts, how + further)
        if is_settled(found.result, config.limits) or context.is_enough(found.result) or number == config.max_tournaments - 1:
            break
        starts = [starts[k] for k in ranked([score(start, counts) for start in starts])[:KEPT]]
        if context.point_spread is not None:
            context = adopt_point_spread(context, starts[0])
        seed = config.seed + APART * (number + 1)
        if number == 0 and is_even(context.data_cpu):
            starts += yield from _search_even(context, seed)
        else:
            keeps_volume = not keeps_volume
            starts += yield from _further_search(context, seed, keeps_volume)
        best = _best(context, starts)
        # A point spread is tried again only with a better start than the one that did without.
        if context.point_spread is None and score(best, counts).llk_free < (1 - config.coherence_gain) * refused:
            context, starts = yield from _try_point_spread_again(context, starts)
            refused = score(best, counts).llk_free
    return found


def _try_point_spread_again(
    context: PhasingContext, starts: list[Start]
) -> Generator[Progress, None, tuple[PhasingContext, list[Start]]]:
    """Refine all starts together with their point spreads, if a point spread improves the best start.

    An earlier best start gained too little from a point spread; the present best start may gain more.
    """
    best = _best(context, starts)
    kept = yield from try_point_spread(best, context)
    if kept is None:
        return context, starts
    others = yield from refit_with_psf([start for start in starts if start is not best], context)
    return adopt_point_spread(context, kept), (yield from _settle_gaps(context, [kept, *others]))


def searching(config: PhasingConfig, keeps_volume: bool) -> TournamentConfig:
    """Make the settings of a tournament that searches and not only confirms."""
    return replace(config.volume_tournament if keeps_volume else config.tournament, counts_share=config.search_share)


def _further_search(context: PhasingContext, seed: int, keeps_volume: bool) -> Phasing:
    """Phase many new random starts and continue the best (a tournament), without the guesses of the network."""
    config, rounds = context.config, searching(context.config, keeps_volume)
    starts = yield from tournament(context.pattern, rounds, config.further_starts, seed, first_support=config.first_support)
    return (yield from _complete(context, starts))


def _search_even(context: PhasingContext, seed: int) -> Phasing:
    """Phase guesses with a phase that is even about the centre, and continue the best."""
    many, *_, kept = context.config.further_starts
    guesses = partial(paraboloids, number=many, seed=seed)
    starts = yield from settle_guesses(context.pattern, context.config.tournament, guesses, kept, seed)
    return (yield from _complete(context, starts))


def _complete(context: PhasingContext, starts: list[Start]) -> Phasing:
    """Refine new starts with the point spread, if there is one, and in wide gaps."""
    if context.point_spread is not None:
        starts = yield from refit_with_psf(starts, context)
    return (yield from _settle_gaps(context, starts))


def _settle_gaps(context: PhasingContext, starts: list[Start]) -> Phasing:
    """Continue all starts with `gap_recipe` if detector gaps are wide, since no count fixes the Fourier components in gaps."""
    config, missing = context.config, 1 - float(context.data.valid.float().mean())
    if missing <= config.gap_fraction:
        return starts
    is_blurred = any(any(start.sigma) for start in starts)
    recipe = f"PSF+{config.gap_recipe}" if is_blurred else config.gap_recipe
    blur = surface_blur(context.pattern)
    filling = IterativeConfig(recipe=recipe, shrink_wrap=ShrinkWrap(0, sigma_start=blur, sigma_end=blur), flatness=0.2)
    return (yield from continue_starts(starts, context.data, filling))


def _first_search(context: PhasingContext) -> Searched:
    """Refine the network's guesses of the crystal, then phase random starts; return the best guess and the best random starts.

    If the best guess predicts the held-out voxels, few random starts are phased, to confirm it, and so where photons are too few
    to tell. Otherwise many are phased, and the guesses further as well. The random starts never begin from a guess.
    """
    config, pattern = context.config, context.pattern
    guesses, first = hypotheses_of(context, config.support_threshold), config.first_support
    best = _best(context, (yield from refine_guesses(context, guesses, config.promising_excess)))
    if not fitting_rounds(pattern, config.volume_tournament) or score(best, context.data_cpu).unseen <= config.promising_excess:
        rounds = config.volume_tournament
        witnesses = yield from tournament(pattern, rounds, config.confirm_starts, config.seed, first_support=first)
        return [best, *witnesses], "refine and confirm"
    joined, *witnesses = yield from tournament(pattern, searching(config, True), config.search_starts, config.seed, guesses, first)
    # One start of the network's alone, for two would seem to agree.
    return [_best(context, [best, joined]), *witnesses], "search"


def _best(context: PhasingContext, starts: list[Start]) -> Start:
    return starts[best_of([score(start, context.data_cpu) for start in starts])]


def _most_starts(config: PhasingConfig) -> int:
    further = KEPT + config.further_starts[-1] if config.max_tournaments > 1 else 0
    return max(2 * config.hypotheses, 1 + config.search_starts[-1], further)


STRATEGIES: dict[str, Strategy] = {
    "auto": Strategy(
        _auto,
        needs_network=True,
        is_witnessed=True,
        kept_starts=_most_starts,
        host_bytes=(150, 75),
        reads=NETWORK | REFINING | COHERENCE | ASKED_FOR | GAPS | {
            "tournament", "promising_excess", "confirm_starts", "search_starts", "further_starts", "max_tournaments",
            "search_share", "first_support", "limits.tie_margin",
        },
        instead={"starts": "search_starts", "iterative": "refine"},
    ),
    "oneshot": Strategy(
        _oneshot,
        needs_network=True,
        is_witnessed=False,
        kept_starts=lambda config: config.hypotheses,
        host_bytes=(110, 48),
        reads=NETWORK,
        instead={"starts": "hypotheses"},
    ),
    "refine": Strategy(
        _refine,
        needs_network=True,
        is_witnessed=False,
        kept_starts=lambda config: 2 * config.hypotheses,
        host_bytes=(150, 48),
        reads=NETWORK | REFINING | COHERENCE | {"deepen_excess"},
        instead={"starts": "hypotheses", "iterative": "refine"},
    ),
    "iterative": Strategy(
        _iterative,
        needs_network=False,
        is_witnessed=True,
        kept_starts=lambda config: config.starts,
        host_bytes=(100, 48),
        reads=COHERENCE | ASKED_FOR | GAPS | {"starts", "iterative", "first_support", "limits.tie_margin"},
        instead={"hypotheses": "starts", "search_starts": "starts", "refine": "iterative"},
    ),
}  # fmt: skip
"""Strategies of this package, by the names that `PhasingConfig.method` takes."""
