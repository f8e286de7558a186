"""Phase with the point spread of a partially coherent beam, where the counts show that the beam is not fully coherent.

A search is the phasing that finds the crystal, by random starts or by the network. The first search assumes full coherence. If
the point spread is as wide as the speckles, that search fails, because the counts lack the sharp fringes of a coherent model. But
the wrong crystal of the first search tells the width of the point spread. A second search, on counts that are sharpened by that
width, finds the crystal, which is then refined against the measured counts. Only searches use sharpened counts: their noise is
not Poisson noise, so no start is finished or judged on them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace

from braggshot.iterative.coherence import Coherence, sharpened
from braggshot.iterative.iterate import Guess, IterativeConfig, Progress, Start
from braggshot.iterative.spacing import refine_wide
from braggshot.phasing.problem import PhasingContext
from braggshot.phasing.rounds import TournamentConfig
from braggshot.phasing.selection import best_of, score
from braggshot.phasing.surface import USUAL, fitting_rounds
from braggshot.physics.forward import PointSpread

# Width at and above which a point spread is wide [reciprocal voxels]; a search that assumed full coherence is then not trusted.
WIDE = 0.7
SHARPER = 3  # largest number of searches for the crystal on sharpened counts
SETTLED = 0.05  # change of the point spread's widths below which the search for the crystal is not repeated [reciprocal voxels]
POLISH = "PSF+20*ER"  # last iterations, on all voxels, of a start that was refined together with its point spread at wider spacings
# Recipe of the round that fits the support to the surface of the crystal (`tournament.FITTING`), together with the point spread.
FITTING_WITH_PSF = "PSF+4*(SW+3*(10*HIO+FLAT+2*ER+PSF)+20*ER+PSF+GROW+3*(10*RAAR+2*ER+PSF)+30*ER+PSF)"

Phasing = Generator[Progress, None, list[Start]]
Search = Callable[[PhasingContext], Generator[Progress, None, tuple[list[Start], str]]]


def search_with_coherence(
    context: PhasingContext, search: Search
) -> Generator[Progress, None, tuple[PhasingContext, list[Start], str]]:
    """Search for the crystal; if a point spread improves the best start, refine all starts together with their point spreads.

    If the point spread is wide, the counts are sharpened (deconvolved) by it, and the crystal is searched for again on these
    counts. A wrong crystal can give a wrong width, so this is repeated while the width changes, at most `SHARPER` times. The
    generator's value holds the state of the phasing, the starts and, in words, how the starts were found.
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
    """Compute by how much the width of the point spread of a start differs from the width known so far [reciprocal voxels].

    The difference is the largest of those on the three axes.
    """
    assert context.point_spread is not None
    return max(abs(new - old) for new, old in zip(start.sigma, context.point_spread.sigma, strict=True))


def try_point_spread(start: Start, context: PhasingContext) -> Generator[Progress, None, Start | None]:
    """Refine a start together with its point spread; return None if the beam is to be taken as fully coherent.

    With the setting `partial_coherence` at "auto", the point spread is kept only if the held-out voxels are then predicted better.
    Blur lets a wrong object fit the phased voxels better, but hardly the held-out voxels.
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
    """Take the point spread of a start as that of the beam; if it is wide, sharpen the counts by it for further searches."""
    spread = PointSpread(start.sigma, start.eta)
    wide = max(spread.sigma) >= WIDE
    return replace(context, point_spread=spread, sharpened=sharpened(context.data, spread) if wide else None)


def _fit_point_spread(start: Start, context: PhasingContext) -> Start:
    """Fit a point spread to a start whose object stays as it is; for a coherent pattern its width is nearly zero."""
    rho = start.rho.to(context.data.magnitude.device)[None]
    spread = Coherence.fitted(rho, context.data, None, context.config.coherence_psf).spreads[0]
    return replace(start, sigma=spread.sigma, eta=spread.eta)


def refit_with_psf(starts: list[Start], context: PhasingContext) -> Phasing:
    """Refine each start together with its point spread, against the counts as measured, not sharpened."""
    guesses = [Guess(start.rho, start.support, start.threshold) for start in starts]
    # The surface is fitted together with the point spread: a support fitted to blurred counts as if they were sharp ends in the
    # wrong place, and a loose support takes up part of the blur.
    rounds = fitting_rounds(context.pattern, TournamentConfig())
    fitting = [replace(one, recipe=FITTING_WITH_PSF, psf=context.config.coherence_psf) for one in rounds]
    found = yield from refine_wide(guesses, context.data, context.wide, [_refitting(context), *fitting], POLISH, 0)
    found = [replace(new, seed=old.seed) for new, old in zip(found, starts, strict=True)]
    # The threshold of the fitting is none for whoever continues these starts.
    return [replace(start, threshold=USUAL) for start in found] if fitting else found


def _refitting(context: PhasingContext) -> IterativeConfig:
    """Make the settings for `refit_with_psf`: `PhasingConfig.iterative` with the recipe `PhasingConfig.coherence_recipe`.

    Shrink-wrap here begins with the blur width with which it ends in `PhasingConfig.iterative`, because a wider blur would undo the
    support.
    """
    config = context.config
    narrow = replace(config.iterative.shrink_wrap, sigma_start=config.iterative.shrink_wrap.sigma_end)
    return replace(config.iterative, recipe=config.coherence_recipe, shrink_wrap=narrow, psf=config.coherence_psf)
