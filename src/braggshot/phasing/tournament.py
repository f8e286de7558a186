"""Phase many random starts on a coarse grid, and continue only those that predict the held-out voxels best.

Where the phase of a crystal varies strongly, often only one or two of 24 random starts find the crystal. After a seventh of a
recipe these already rank among the best. So many starts run through a short first round, half of them through a longer second
round, and only the best few are finished. This costs no more than phasing a handful of starts to the end.

The coarse grid is the central part of the pattern, large enough to hold most counts. A strained crystal scatters further out, and
a pattern that is cropped too much belongs to another object. A pattern that is sampled finely is also resampled at wider spacings
(`braggshot.iterative.spacing`): the crystal keeps its voxels, with less empty space around it. Starts are always compared on the
voxels as measured.

==========  ===============================================  =====================  ========================================
round       what it does                                     who                    on
==========  ===============================================  =====================  ========================================
opening     modulus, support and FLAT, from a wide blur      random starts          the coarse grid
narrowing   the same, longer, the blur narrowing             the best of them       the coarse grid
settling    ends with error reduction                        the best, and guesses  the coarse grid
finish      the outer fringes                                these, the best guess  all fringes, at wider spacings
polish      error reduction in a support that stays          the same               all voxels
fitting     supports that end at the surface, where better   the same               all fringes, then all voxels
==========  ===============================================  =====================  ========================================

FLAT is a step that evens out the amplitude, and the blur is that of the shrink-wrap. Without wider spacings there is no polish.
A guess, such as a network's hypothesis, joins at the settling, because the wide blur of the earlier rounds would undo the guess.

While the phases of a strongly strained crystal are still wrong, a threshold on the amplitude often gives a support of half to two
and a half times the crystal's volume, and the search then fails. So a tournament may keep the volume of the supports, which is
measured from the pattern (`braggshot.physics.sampling.filled_share`), until the polish. The two kinds find different crystals.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace

from braggshot.iterative.coarse_grid import crop_to_centre, resample_guess
from braggshot.iterative.iterate import (
    FirstSupport,
    Guess,
    IterativeConfig,
    Progress,
    Start,
    continue_starts,
    run_starts,
    set_point_spread,
)
from braggshot.iterative.projections import Measured
from braggshot.iterative.spacing import refine_wide, reshape_guess, reshape_start
from braggshot.phasing.pattern import Pattern, blur_factor
from braggshot.phasing.rounds import TournamentConfig, iterations_of
from braggshot.phasing.selection import ranked, score
from braggshot.phasing.surface import USUAL, fit_surface
from braggshot.physics.fourier import to_centre
from braggshot.physics.metrics import align

# Fraction of the recipe after which the blur width of the shrink-wrap stays constant, while starts are phased on the coarse grid;
# 1 lets the width change until the end [1].
SETTLED = 1.0
# Fraction of the recipe after which the blur width of the shrink-wrap stays constant, when the best starts are finished on the
# whole grid; the object then has time to adapt to the final width [1].
FINISHED = 0.5


def tournament(
    pattern: Pattern,
    config: TournamentConfig,
    starts: tuple[int, int, int],
    seed: int,
    first: Sequence[Guess] = (),
    first_support: FirstSupport | None = None,
) -> Generator[Progress, None, list[Start]]:
    """Phase many random starts in rounds, after each of which only the best go on; guesses of the crystal may join.

    The generator's value lists the phased starts: the best that began from a guess, if guesses were given, then the random starts
    that are left, best first.

    Parameters
    ----------
    starts : numbers of random starts in the rounds "opening", "narrowing" and "settling"
    seed : random start k draws its numbers from seed + k
    first : guesses, on the grid of the pattern
    first_support : settings of the support with which random starts begin
    """
    small, settling, left = yield from _narrow(pattern, config, starts, seed, first_support)
    if first:
        guesses = [resample_guess(guess, small.data.shape, config.support_threshold) for guess in first]
        seeded = yield from _settle(small.wide, settling, seed, guesses)
        left = [_rank(set_point_spread(pattern.point_spread, seeded), small)[0], *left]
    left = yield from _finish(left, pattern, small, config)
    return [*left[: bool(first)], *_rank(left[bool(first) :], pattern)]


def confirm(
    pattern: Pattern,
    config: TournamentConfig,
    wider: TournamentConfig,
    starts: tuple[int, int, int],
    seed: int,
    known: Start,
    agreement: float,
    first_support: FirstSupport | None = None,
) -> Generator[Progress, None, list[Start]]:
    """Phase few random starts, to see whether they come to a crystal that is known; none begins from it.

    The generator's value lists the starts, best first. Where not all of them are like the known crystal once they are settled, the
    coarse grid may have cut off fringes that they need, and random starts are phased again on a larger one.

    Parameters
    ----------
    pattern, config, starts, seed, first_support : as in `tournament`
    wider : the same settings with a larger coarse grid
    known : the crystal, on the grid of the pattern
    agreement : correlation with the known crystal from which on a start is like it [1]
    """
    small, _, left = yield from _narrow(pattern, config, starts, seed, first_support)
    if _likeness(left, known, small, config) < agreement:
        small, _, left = yield from _narrow(pattern, wider, starts, seed, first_support)
    return _rank((yield from _finish(left, pattern, small, config)), pattern)


def settle_guesses(
    pattern: Pattern,
    config: TournamentConfig,
    guesses: Callable[[Measured, tuple[float, float, float]], Sequence[Guess]],
    kept: int,
    seed: int,
) -> Generator[Progress, None, list[Start]]:
    """Phase independent guesses on the coarse grid by the settling alone, and finish the best of them on the whole grid.

    The generator's value lists these, best first.

    Parameters
    ----------
    pattern, config : as in `tournament`
    guesses : function that makes the guesses on the grid of a measurement, given its oversampling per axis
    kept : number of guesses that are finished
    seed : guess k draws its random numbers from seed + k
    """
    small, (_, _, settling) = _coarse_rounds(pattern, config)
    found = yield from _settle(small.wide, settling, seed, guesses(small.data, small.oversampling))
    left = _rank(set_point_spread(pattern.point_spread, found), small)[:kept]
    return _rank((yield from _finish(left, pattern, small, config)), pattern)


def _narrow(
    pattern: Pattern,
    config: TournamentConfig,
    starts: tuple[int, int, int],
    seed: int,
    first_support: FirstSupport | None,
) -> Generator[Progress, None, tuple[Pattern, IterativeConfig, list[Start]]]:
    """Phase random starts on the coarse grid; return the pattern on it, the settings of the settling, and the starts left."""
    small, (opening, narrowing, settling) = _coarse_rounds(pattern, config)
    random = yield from run_starts(small.wide, opening, starts[0], seed, first_support=first_support)
    left = set_point_spread(pattern.point_spread, random)
    left = yield from _continue(_rank(left, small)[: starts[1]], small.wide, narrowing)
    left = yield from _continue(_rank(left, small)[: starts[2]], small.wide, settling)
    return small, settling, _rank(left, small)


def _likeness(starts: list[Start], known: Start, small: Pattern, config: TournamentConfig) -> float:
    """Return the correlation of a crystal with the start on the coarse grid that is least like it."""
    cut = resample_guess(Guess(known.rho, known.support), small.data.shape, config.support_threshold).rho
    settled = [reshape_start(start, small.data.shape).rho for start in starts]
    return min(align(to_centre(rho), to_centre(cut.to(rho.device))).correlation for rho in settled)


def _settle(wide: Measured, config: IterativeConfig, seed: int, guesses: Sequence[Guess]) -> Generator[Progress, None, list[Start]]:
    """Phase guesses on the coarse grid at the wider spacings."""
    return run_starts(wide, config, len(guesses), seed, [reshape_guess(guess, wide.shape) for guess in guesses])


def _coarse_rounds(pattern: Pattern, config: TournamentConfig) -> tuple[Pattern, list[IterativeConfig]]:
    """Return the pattern on the coarse grid, and the settings of the opening, the narrowing and the settling on it."""
    voxels = coarse_voxels(pattern.host, config.counts_share, config.smallest_grid)
    small = replace(pattern, data=crop_to_centre(pattern.data, voxels), host=crop_to_centre(pattern.host, voxels))
    factor = min(1.0, voxels / config.reference_grid) ** 0.5 * blur_factor(small.oversampling)
    least = config.min_blur / small.finest
    rounds = [iterations_of(one, factor, least, SETTLED) for one in (config.opening, config.narrowing, config.settling)]
    return small, [_keep_volume(one, pattern, small, config) for one in rounds]


def _keep_volume(one: IterativeConfig, pattern: Pattern, grid: Pattern, config: TournamentConfig) -> IterativeConfig:
    """Return the settings of a round on `grid` at its wider spacings in which supports keep the volume, if `config` says so."""
    if config.volume is None:
        return one
    # Wider spacings cut the space around the crystal, which then fills more of the array.
    filled = pattern.filled * grid.data.magnitude.numel() / grid.wide.magnitude.numel()
    bounds = (config.volume[0] * filled, config.volume[1] * filled)
    return replace(one, shrink_wrap=replace(one.shrink_wrap, relative_to="volume", threshold=bounds))


def _finish(
    starts: list[Start], pattern: Pattern, small: Pattern, config: TournamentConfig
) -> Generator[Progress, None, list[Start]]:
    """Continue starts of the coarse grid with all fringes: at the wider spacings, then on all voxels."""
    loose = [reshape_start(start, small.data.shape) for start in starts]
    # A volume that was kept is a share of the coarse grid: each start draws a new one.
    passed_on = [Guess(start.rho, start.support, start.threshold if config.volume is None else None) for start in loose]
    guesses = [resample_guess(guess, pattern.data.shape, config.support_threshold) for guess in passed_on]
    finished = yield from finish_guesses(pattern, config, guesses, 0)
    finished = yield from fit_surface(finished, pattern, config, config.polish, 0, (len(finished), len(finished)))
    return [replace(new, seed=old.seed, sigma=old.sigma, eta=old.eta) for new, old in zip(finished, starts, strict=True)]


def finish_guesses(
    pattern: Pattern, config: TournamentConfig, guesses: Sequence[Guess], seed: int
) -> Generator[Progress, None, list[Start]]:
    """Phase guesses with all fringes by the rounds "finish", at the wider spacings, and "polish", on all voxels, without a fit.

    Parameters
    ----------
    pattern, config : as in `tournament`
    guesses : guesses on the grid of the pattern
    seed : guess k draws its random numbers from seed + k
    """
    finish = iterations_of(config.finish, 1.0, config.min_blur / pattern.finest, FINISHED)
    settings = _keep_volume(finish, pattern, pattern, config)
    finished = yield from refine_wide(guesses, pattern.data, pattern.wide, [settings], config.polish, seed)
    # A volume is no threshold for whoever continues these starts.
    finished = [replace(start, threshold=USUAL) if config.volume else start for start in finished]
    return set_point_spread(pattern.point_spread, finished)


def coarse_voxels(data: Measured, share: float, smallest: int) -> int:
    """Find how many central voxels per axis hold at least the fraction `share` of all counts.

    The numbers `smallest`, `smallest` + 8, `smallest` + 16, ... are tried in turn.
    """
    total, longest = float(data.intensity.sum()), max(data.shape)
    for voxels in range(smallest, longest, 8):
        if float(crop_to_centre(data, voxels).intensity.sum()) >= share * total:
            return voxels
    return longest


def _continue(starts: list[Start], data: Measured, config: IterativeConfig) -> Generator[Progress, None, list[Start]]:
    """Continue starts with another recipe, but keep their point spreads."""
    finished = yield from continue_starts(starts, data, config)
    return [replace(start, sigma=old.sigma, eta=old.eta) for start, old in zip(finished, starts, strict=True)]


def _rank(starts: list[Start], pattern: Pattern) -> list[Start]:
    """Sort starts, best first; starts at wider spacings are compared on all voxels of the pattern, the held-out ones included."""
    scores = [score(reshape_start(start, pattern.host.shape), pattern.host) for start in starts]
    return [starts[k] for k in ranked(scores)]
