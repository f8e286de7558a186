"""Search with the point spread that the counts ask for.

Where the point spread is as wide as the speckles, a search among coherent models fails: the sharp fringes that they predict were
not measured. But the wrong crystal that it finds tells the width. A network and random starts that search on counts sharpened by
that width find the crystal, which then goes on with the counts as they are. Sharpened counts only search: their noise is no
longer that of photons, so nothing is finished on them or judged by them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace

from braggshot.iterative.coherence import Coherence, sharpened
from braggshot.iterative.iterate import IterativeConfig, Progress, Start, continue_starts
from braggshot.phasing.problem import PhasingContext
from braggshot.phasing.selection import best_of, score
from braggshot.physics.forward import PointSpread

WIDE = 0.7  # width from which a search among coherent models is not trusted [reciprocal voxels]
SHARPER = 3  # most searches on sharpened counts
SETTLED = 0.05  # change of a width below which no other search is held [reciprocal voxels]

Phasing = Generator[Progress, None, list[Start]]
Search = Callable[[PhasingContext], Generator[Progress, None, tuple[list[Start], str]]]


def search_with_coherence(
    context: PhasingContext, search: Search
) -> Generator[Progress, None, tuple[PhasingContext, list[Start], str]]:
    """Search; where the best start asks for a point spread, go on with it. The value: context, starts, how they were found.

    Where the point spread is wide the search is held again, on counts that are sharpened by it. A wrong crystal can give a wrong
    width: where a search changes the width, another search is held with the new one.
    """
    starts, how = yield from search(context)
    best = starts[best_of([score(start, context.data_cpu) for start in starts])]
    kept = yield from try_point_spread(best, context)
    if kept is None:
        return context, starts, how
    context = adopt_point_spread(context, kept)
    if context.sharpened is None:
        others = yield from refit_with_psf([start for start in starts if start is not best], context)
        return context, [kept, *others], how
    for _ in range(SHARPER):
        starts, how = yield from search(context)
        first, *others = yield from refit_with_psf(starts, context)
        better = score(kept, context.data_cpu).llk_free < score(first, context.data_cpu).llk_free
        starts, before = [kept if better else first, *others], kept
        kept = starts[best_of([score(start, context.data_cpu) for start in starts])]
        if kept is before or _width_change(context, kept) < SETTLED:
            break
        context = adopt_point_spread(context, kept)
    return context, starts, f"{how} on sharpened counts"


def _width_change(context: PhasingContext, start: Start) -> float:
    """Compute the largest change of a width from the known one [reciprocal voxels]."""
    assert context.point_spread is not None
    return max(abs(new - old) for new, old in zip(start.sigma, context.point_spread.sigma, strict=True))


def try_point_spread(start: Start, context: PhasingContext) -> Generator[Progress, None, Start | None]:
    """Go on from a start while its point spread is estimated; None where the counts do not ask for one.

    For "auto" the held-out voxels have to gain from it: a wrong object gains from blur too, but hardly on what it has not seen.
    """
    config, counts = context.config, context.data_cpu
    if config.partial_coherence == "off":
        return None
    before, asked = score(start, counts).llk_free, config.partial_coherence == "auto"
    # A llk_free that is no number, where nothing was held out, is no gain.
    if asked and not score(_fit_point_spread(start, context), counts).llk_free < (1 - config.coherence_hint) * before:
        return None
    (refitted,) = yield from refit_with_psf([start], context)
    if asked and not score(refitted, counts).llk_free < (1 - config.coherence_gain) * before:
        return None
    return refitted


def adopt_point_spread(context: PhasingContext, start: Start) -> PhasingContext:
    """Keep the point spread of a start; where it is wide, sharpen the counts that searches work on."""
    spread = PointSpread(start.sigma, start.eta)
    wide = max(spread.sigma) >= WIDE
    return replace(context, point_spread=spread, sharpened=sharpened(context.data, spread) if wide else None)


def _fit_point_spread(start: Start, context: PhasingContext) -> Start:
    """Give a start, as it is, the point spread that fits it best; for a coherent pattern that is next to none."""
    rho = start.rho.to(context.data.magnitude.device)[None]
    spread = Coherence.fitted(rho, context.data, None, context.config.coherence_psf).spreads[0]
    return replace(start, sigma=spread.sigma, eta=spread.eta)


def refit_with_psf(starts: list[Start], context: PhasingContext) -> Phasing:
    """Go on from each start with the counts as they are, while its point spread is estimated."""
    return (yield from continue_starts(starts, context.data, _refitting(context)))


def _refitting(context: PhasingContext) -> IterativeConfig:
    """Make the settings of refitting: those of "iterative", which other methods leave at their defaults, with another recipe.

    The blur begins with the width that the first iterations ended with, since a wide one would undo the support.
    """
    config = context.config
    narrow = replace(config.iterative.shrink_wrap, sigma_start=config.iterative.shrink_wrap.sigma_end)
    return replace(config.iterative, recipe=config.coherence_recipe, shrink_wrap=narrow, psf=config.coherence_psf)
