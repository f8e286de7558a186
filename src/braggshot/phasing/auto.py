"""Phase by the method auto: ask the network, search among random starts, and go on until the verdict is good.

The network's guesses are refined. If one of them predicts the held-out voxels to photon noise where others are stuck, it is the
answer. Else a tournament of random starts is held: a small one if a guess predicts these voxels nearly so well, or a large one that
the guesses join. While the verdict is not good, further tournaments are held. The first of them
begins from paraboloids (`even_fields`) where the pattern is the same at q and -q, and the first ones are small where a crystal
predicts the held-out voxels nearly to photon noise, and only lacks company. Tournaments by threshold and with the volume kept take
turns, since they find different crystals.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import partial

from braggshot.iterative.iterate import Guess, IterativeConfig, Progress, Start, continue_starts
from braggshot.iterative.projections import ShrinkWrap
from braggshot.phasing.config import PhasingConfig, Sizes
from braggshot.phasing.even_fields import is_even, paraboloids
from braggshot.phasing.hypotheses import hypotheses_of, is_promising, refine_guesses, refine_longer
from braggshot.phasing.outcome import Found, judge_starts, keep_verdict
from braggshot.phasing.partial_coherence import (
    Phasing,
    adopt_point_spread,
    refit_with_psf,
    search_with_coherence,
    try_point_spread,
)
from braggshot.phasing.problem import PhasingContext
from braggshot.phasing.rounds import TournamentConfig
from braggshot.phasing.selection import best_of, ranked, score
from braggshot.phasing.surface import fitting_rounds, surface_blur
from braggshot.phasing.tournament import confirm, settle_guesses, tournament
from braggshot.phasing.verdict import is_alone, is_settled

# Difference between the seeds of two successive tournaments on one volume, so that they draw different random starts.
APART = 1000
# Number of starts, the best so far, that are kept when further random starts are phased because the verdict is not good; each start
# takes the memory of a volume.
KEPT = 4
REFINED = "refine"  # what the result says of how a crystal was found, where no random start was phased
CONFIRMED = 2  # largest number of further tournaments that are small, because a crystal near photon noise only lacks company
Run = Generator[Progress, None, Found]
Searched = Generator[Progress, None, tuple[list[Start], str]]
Asked = tuple[list[Guess], list[Start]]


def phase_by_auto(context: PhasingContext) -> Run:
    """Phase a volume by the method auto."""
    config, counts = context.config, context.data_cpu
    _, refined = asked = yield from _ask_network(context)
    # The gains of pixels are told by a crystal that is nearly right; a wrong one may seem to show some.
    is_early = _is_near_noise(context, refined) and score(_best(context, refined), counts).unseen > config.promising_excess
    if context.is_enough and is_early:
        alone = judge_starts(context, [_best(context, refined)], REFINED)
        if context.is_enough(alone.result):
            return judge_starts(context, refined, REFINED)
    context, starts, how = yield from search_with_coherence(context, partial(_first_search, asked=asked))
    measured = starts
    starts = yield from settle_gaps(context, measured)
    refused = score(_best(context, starts), counts).llk_free
    keeps_volume = True
    for number in range(config.max_tournaments):
        further = f", then {number} further search{'es' if number > 1 else ''}" if number else ""
        found = judge_starts(context, starts, how + further)
        if number == 0 and how == REFINED and starts is not measured:
            found = keep_verdict(judge_starts(context, measured, how), found, config.limits)
        if context.is_enough and context.is_enough(found.result):
            break
        if is_settled(found.result, config.limits) or number == config.max_tournaments - 1:
            break
        starts = [starts[k] for k in ranked([score(start, counts) for start in starts])[:KEPT]]
        if context.point_spread is not None:
            context = adopt_point_spread(context, starts[0])
        seed = config.seed + APART * (number + 1)
        if number == 0 and is_even(context.data_cpu):
            starts += yield from _search_even(context, seed)
        else:
            keeps_volume = not keeps_volume
            is_small = number < CONFIRMED and _is_near_noise(context, starts)
            sizes = config.confirm_starts if is_small else config.further_starts
            starts += yield from _further_search(context, sizes, seed, keeps_volume)
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
    return adopt_point_spread(context, kept), (yield from settle_gaps(context, [kept, *others]))


def _ask_network(context: PhasingContext) -> Generator[Progress, None, Asked]:
    """Return the network's guesses, and what a short refinement makes of them."""
    guesses = hypotheses_of(context, context.config.support_threshold)
    return guesses, (yield from refine_guesses(context, guesses, is_last=False))


def _is_near_noise(context: PhasingContext, starts: Sequence[Start]) -> bool:
    """Tell whether the best of the starts predicts the held-out voxels nearly to photon noise, as the verdict has it."""
    return score(_best(context, starts), context.data_cpu).llk_free <= context.config.limits.one_witness


def _first_search(context: PhasingContext, asked: Asked) -> Searched:
    """Phase random starts; return the network's best guess, refined for longer where needed, and the best random starts.

    None is phased if the guess predicts the held-out voxels to photon noise where others are stuck (`verdict.is_alone`); these are
    returned with it. If it predicts them nearly as well, or photons are too few to tell, few random starts are phased, to confirm
    it. Otherwise many are phased, and the guesses further as well. The random starts never begin from a guess.

    Parameters
    ----------
    asked : the network's answers to the counts as measured; to sharpened counts they are asked for anew
    """
    config, counts, pattern = context.config, context.data_cpu, context.pattern
    guesses, refined = asked if context.sharpened is None else (yield from _ask_network(context))
    shortly = refined
    if not (score(_best(context, refined), counts).unseen <= config.deepen_excess or _is_near_noise(context, refined)):
        refined = yield from refine_longer(context, guesses, refined)
    best, first = _best(context, refined), config.first_support
    stuck = _stuck_beside(context, best, [*refined, *shortly])
    if is_alone(score(best, counts).llk_free, len(stuck), config.limits):
        return [best, *stuck[:KEPT]], REFINED
    is_near = is_promising(context, best) or _is_near_noise(context, refined)
    if not fitting_rounds(pattern, config.volume_tournament) or is_near:
        narrow, wide, sizes = config.volume_tournament, searching(config, True), config.confirm_starts
        witnesses = yield from confirm(pattern, narrow, wide, sizes, config.seed, best, config.limits.agreement, first)
        return [best, *witnesses], "refine and confirm"
    joined, *witnesses = yield from tournament(pattern, searching(config, True), config.search_starts, config.seed, guesses, first)
    # One start of the network's alone, for two would seem to agree.
    return [_best(context, [best, joined]), *witnesses], "search"


def searching(config: PhasingConfig, keeps_volume: bool) -> TournamentConfig:
    """Make the settings of a tournament that searches and not only confirms."""
    return replace(config.volume_tournament if keeps_volume else config.tournament, counts_share=config.search_share)


def _further_search(context: PhasingContext, sizes: Sizes, seed: int, keeps_volume: bool) -> Phasing:
    """Phase new random starts and continue the best (a tournament), without the guesses of the network."""
    config, rounds = context.config, searching(context.config, keeps_volume)
    starts = yield from tournament(context.pattern, rounds, sizes, seed, first_support=config.first_support)
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
    return (yield from settle_gaps(context, starts))


def settle_gaps(context: PhasingContext, starts: list[Start]) -> Phasing:
    """Continue starts with `gap_recipe` if detector gaps are wide, since no count fixes the Fourier components in gaps.

    Starts that are stuck beside the best (`Limits.stuck_ratio`) stay as they are.
    """
    config, missing = context.config, 1 - float(context.data.valid.float().mean())
    if missing <= config.gap_fraction:
        return starts
    is_blurred = any(any(start.sigma) for start in starts)
    recipe = f"PSF+{config.gap_recipe}" if is_blurred else config.gap_recipe
    blur = surface_blur(context.pattern)
    filling = IterativeConfig(recipe=recipe, shrink_wrap=ShrinkWrap(0, sigma_start=blur, sigma_end=blur), flatness=0.2)
    stuck = {id(start) for start in _stuck_beside(context, _best(context, starts), starts)}
    filled = iter((yield from continue_starts([start for start in starts if id(start) not in stuck], context.data, filling)))
    return [start if id(start) in stuck else next(filled) for start in starts]


def _stuck_beside(context: PhasingContext, best: Start, others: Sequence[Start]) -> list[Start]:
    """List the others that are stuck beside the best (`Limits.stuck_ratio`), each once."""
    most = context.config.limits.stuck_ratio * score(best, context.data_cpu).llk_free
    once = {id(start): start for start in others}.values()
    return [start for start in once if score(start, context.data_cpu).llk_free > most]


def _best(context: PhasingContext, starts: Sequence[Start]) -> Start:
    return starts[best_of([score(start, context.data_cpu) for start in starts])]
