"""Partial coherence as strategies meet it: do the counts ask for a point spread, and the search with one.

Where the point spread is as wide as the speckles, a search among coherent models fails: the sharp fringes that they predict were
not measured. But what it finds, wrong as it is, tells the width; and a network and random starts that search on counts which are
sharpened by it find the crystal, which then goes on with the counts as they are. Sharpened counts only search: their noise is no
longer that of photons, so nothing is finished on them or judged by them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace

from braggshot.iterative.coherence import Coherence, sharpened
from braggshot.iterative.iterate import Progress, Start, continued
from braggshot.iterative.projections import Measured, ShrinkWrap
from braggshot.phasing.problem import PhasingConfig, Problem
from braggshot.phasing.selection import best_of, score
from braggshot.physics.forward import PointSpread

WIDE = 0.7  # largest width from which a search among coherent models is not trusted [reciprocal voxels]
SHARPER = 3  # searches on sharpened counts, at most
SETTLED = 0.05  # change of a width that asks for no other one [reciprocal voxels]

Phasing = Generator[Progress, None, list[Start]]
Search = Callable[[Problem], Generator[Progress, None, tuple[list[Start], str]]]


def searched(problem: Problem, search: Search) -> Generator[Progress, None, tuple[Problem, list[Start], str]]:
    """The starts of a search, and how they were found; where the best one asks for a point spread all go on with one.

    If it is a wide one the search is held again, on counts that are sharpened by it. What a wrong object says of the widths can be
    wrong too: where a search changes them, another one is held with the new ones.
    """
    starts, how = yield from search(problem)
    best = starts[best_of([score(start, problem.host) for start in starts])]
    kept = yield from with_point_spread(best, problem)
    if kept is None:
        return problem, starts, how
    problem = knowing(problem, kept)
    if problem.sought is None:
        others = yield from second_round([start for start in starts if start is not best], problem)
        return problem, [kept, *others], how
    for _ in range(SHARPER):
        starts, how = yield from search(problem)
        first, *others = yield from second_round(starts, problem)
        better = score(kept, problem.host).llk_free < score(first, problem.host).llk_free
        starts, before = [kept if better else first, *others], kept
        kept = starts[best_of([score(start, problem.host) for start in starts])]
        if kept is before or _width_error(problem, kept) < SETTLED:
            break
        problem = knowing(problem, kept)
    return problem, starts, f"{how} on sharpened counts"


def _width_error(problem: Problem, start: Start) -> float:
    """Largest change of a width from what was known [reciprocal voxels]."""
    assert problem.known is not None
    return max(abs(new - old) for new, old in zip(start.sigma, problem.known.sigma, strict=True))


def with_point_spread(start: Start, problem: Problem) -> Generator[Progress, None, Start | None]:
    """The start after going on while its point spread is estimated, or None where that is not asked for.

    For "auto" the held-out voxels have to gain from it: a wrong object gains from blur too, but hardly on what it has not seen.
    """
    config, host = problem.config, problem.host
    if config.partial_coherence == "off":
        return None
    before, asked = score(start, host).llk_free, config.partial_coherence == "auto"
    # Not a number, where nothing was held out, is no gain.
    if asked and not score(_blurred(start, problem.data, config), host).llk_free < (1 - config.coherence_hint) * before:
        return None
    (found,) = yield from second_round([start], problem)
    if asked and not score(found, host).llk_free < (1 - config.coherence_gain) * before:
        return None
    return found


def knowing(problem: Problem, start: Start) -> Problem:
    """With the point spread of a start; if it is wide to be searched on the counts that are sharpened by it."""
    spread = PointSpread(start.sigma, start.eta)
    wide = max(spread.sigma) >= WIDE
    return replace(problem, known=spread, sought=sharpened(problem.data, spread) if wide else None)


def _blurred(start: Start, data: Measured, config: PhasingConfig) -> Start:
    """As it is, with the point spread that fits it best: of a coherent pattern next to none."""
    rho = start.rho.to(data.magnitude.device)[None]
    found = Coherence.fitted(rho, data, None, config.refine.psf).spreads[0]
    return replace(start, sigma=found.sigma, eta=found.eta)


def second_round(starts: list[Start], problem: Problem) -> Phasing:
    """Each start goes on with the counts as they are, while its point spread is estimated."""
    config = problem.config
    recipe = replace(config.refine, recipe=config.coherence_recipe, shrink_wrap=_settled(config.refine.shrink_wrap))
    return (yield from continued(starts, problem.data, recipe))


def _settled(shrink_wrap: ShrinkWrap) -> ShrinkWrap:
    """The width that the first round ended with; a wide blur would undo its support."""
    return replace(shrink_wrap, sigma_start=shrink_wrap.sigma_end)
