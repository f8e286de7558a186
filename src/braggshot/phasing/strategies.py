"""Phase a diffraction volume by a strategy.

=========  ============================================================================================================
oneshot    the network's hypotheses as they are: one forward pass
refine     each hypothesis refined by 70 iterations, or 840 if needed, and its support fitted to the surface; the held-out
           voxels decide which one is chosen
iterative  many random starts, each phased by a long recipe
auto       refine, then tournaments of random starts until the verdict is good (`braggshot.phasing.auto`)
=========  ============================================================================================================

Hypotheses of one network share the errors that it has learned, so their agreement is no evidence. When agreement was the
criterion, 5 objects on 25 test crystals were called good, and 2 of these 5 were wrong. So a verdict is good only where random
starts, which know nothing of the network, agree, or where held-out voxels are predicted to photon noise and other guesses are stuck
(`braggshot.phasing.verdict.is_alone`).

A tournament (`braggshot.phasing.tournament`) phases many random starts on a coarse grid and continues the best of them. A strategy
is a row of `STRATEGIES`, or an entry point of the group ``braggshot.strategies`` of another package. All strategies share the
choice among starts and the verdict (`braggshot.phasing.selection`).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points

from torch import nn

from braggshot.errors import ConfigError
from braggshot.iterative.iterate import Guess, Progress, flush_denormals, run_starts, set_point_spread
from braggshot.nn.weights import Card, load_network
from braggshot.phasing import memory
from braggshot.phasing.auto import KEPT, Run, Searched, phase_by_auto, settle_gaps
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.hypotheses import FAINT, hypotheses_of, refine_guesses, refine_longer, unrefined, with_network
from braggshot.phasing.outcome import doubt_network_alone, judge_starts, judge_with_warm_starts, show_mean
from braggshot.phasing.partial_coherence import search_with_coherence
from braggshot.phasing.problem import PhasingContext, device_of, prepare_measured, to_device
from braggshot.phasing.selection import score
from braggshot.phasing.verdict import Limits
from braggshot.volumes import DiffractionVolume, Reconstruction

Trained = tuple[nn.Module, Card]
Enough = Callable[[Reconstruction], bool] | None
COMMON = frozenset({"method", "seed", "device", "free_fraction", "free_radius", "free_exclusion", "check_memory"}) | {
    f"limits.{limit.name}" for limit in dataclasses.fields(Limits) if limit.name != "tie_margin"
}
"""Names of the settings that every phasing strategy reads.

The setting `limits.tie_margin` is left out. It lets the agreement of starts decide between nearly equal starts, and a strategy
without random starts does not choose by agreement.
"""
# Names of the settings for the network; only strategies that use a network read these settings.
NETWORK = frozenset({"network", "hypotheses", "orientations", "adapt"})
REFINING = frozenset({"refine", "deepen", "deepen_excess", "promising_excess", "volume_tournament", "support_threshold"})
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
    is_enough: Enough = None,
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
    if first:
        found = yield from judge_with_warm_starts(context, found, first)
    result = yield from show_mean(context, found)
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
    return judge_starts(context, (yield from settle_gaps(context, starts)), how)


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
    config = context.config
    guesses = hypotheses_of(context, config.support_threshold)
    refined = yield from refine_guesses(context, guesses, is_last=True)
    if min(score(start, context.data_cpu).unseen for start in refined[:-1]) > config.deepen_excess:
        refined = yield from refine_longer(context, guesses, refined)
    return refined, "refine"


def _most_starts(config: PhasingConfig) -> int:
    further = KEPT + config.further_starts[-1] if config.max_tournaments > 1 else 0
    return max(2 * config.hypotheses, 1 + config.search_starts[-1], further)


STRATEGIES: dict[str, Strategy] = {
    "auto": Strategy(
        phase_by_auto,
        needs_network=True,
        is_witnessed=True,
        kept_starts=_most_starts,
        host_bytes=(150, 75),
        reads=NETWORK | REFINING | COHERENCE | ASKED_FOR | GAPS | {
            "tournament", "confirm_starts", "search_starts", "further_starts", "max_tournaments",
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
        reads=NETWORK | REFINING | COHERENCE,
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
