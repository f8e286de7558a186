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

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

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
from braggshot.iterative.projections import Measured, ShrinkWrap
from braggshot.iterative.recipe import parse_recipe
from braggshot.iterative.spacing import refine_wide, reshape_guess, reshape_start, widen
from braggshot.phasing.selection import ranked, score
from braggshot.physics import sampling
from braggshot.physics.forward import PointSpread
from braggshot.physics.fourier import frequencies, to_centre

# Recipe of the first of four rounds, the opening, in which all random starts are phased; the second round, the narrowing, runs it
# three times, on the best starts.
_CYCLE = "5*(10*HIO+FLAT)+8*(10*RAAR+FLAT)+3*(10*ER+FLAT)"
_SETTLING = "2*(5*(10*HIO+FLAT)+8*(10*RAAR+FLAT)+30*ER)+60*ER"

SEEN = 0.75  # least blur up to which photons show the surface of a crystal [voxels]
# A support is fitted up to `MOST_FITS` times while llk_free falls by more than the share `GAIN`, and is above `AT_NOISE` [1].
MOST_FITS, GAIN, AT_NOISE = 5, 0.1, 0.6
USUAL = sum(ShrinkWrap.threshold) / 2  # threshold for whoever continues a start that had a threshold of its own [1]
SHELLS = 50  # number of frequency shells, of equal width from 0 to 1 cycle per voxel, in each of which counts are averaged
SAMPLED = 4.0  # oversampling above which the blur of the shrink-wrap is reduced, because the crystal has fewer voxels [1]
# Fraction of the recipe after which the blur width of the shrink-wrap stays constant, while starts are phased on the coarse grid;
# 1 lets the width change until the end [1].
SETTLED = 1.0
# Fraction of the recipe after which the blur width of the shrink-wrap stays constant, when the best starts are finished on the
# whole grid; the object then has time to adapt to the final width [1].
FINISHED = 0.5


@dataclass(frozen=True)
class Round:
    """Settings of one round of phasing; after each round only the best random starts go on to the next.

    Parameters
    ----------
    recipe : steps, as in `braggshot.iterative.recipe`
    blur_start, blur_end : Gaussian width of the shrink-wrap's blur at the beginning and at the end of the round [voxels]
    flatness : how far the step FLAT evens out the amplitude inside the support, from 0 (not at all) to 1 (one value) [1]
    threshold : bounds between which each start draws the threshold of the shrink-wrap, where no volume is kept [1]
    """

    recipe: str
    blur_start: float
    blur_end: float
    flatness: float = 0.6
    threshold: tuple[float, float] = ShrinkWrap.threshold

    def __post_init__(self) -> None:
        parse_recipe(self.recipe)


FITTING = Round("3*(SW+3*(10*HIO+FLAT)+20*ER+GROW+30*RAAR+30*ER)", 0.7, 0.7, threshold=(0.34, 0.36))
"""Settings of the round that fits a support to the surface of the crystal.

In a loose support a crystal comes out a little larger and less strained, with a bright rim, and predicts the held-out voxels nearly
as well. So the support is cut where the amplitude falls to about a third, and the crystal made even; then a layer of voxels is
added, for the partly filled ones at the surface, and the crystal made free. This is done three times.
"""


@dataclass(frozen=True)
class TournamentConfig:
    """Settings of a tournament: rounds of phasing after each of which only the best random starts are continued.

    Parameters
    ----------
    counts_share : least share of all counts that the coarse grid, the central voxels of the pattern, holds [1]
    smallest_grid : least number of voxels of the coarse grid per axis
    reference_grid : number of voxels per axis for which the blur widths of the coarse rounds are meant; on a smaller grid they
        shrink as the square root of the number of voxels per axis
    min_blur : least blur width of all rounds, in periods of the frequency at which the mean count falls below one photon; with
        less blur the support shrinks onto noise [1]
    opening, narrowing, settling : the three rounds on the coarse grid
    finish : the round with all fringes, at the wider spacings
    fitting : the round that fits the supports to the surface of the crystal
    polish : recipe of the last iterations, on all voxels of the whole grid, in a support that stays
    support_threshold : amplitude, relative to the largest, above which a voxel belongs to the first support on the whole grid [1]
    volume : bounds between which each start draws the volume that its support keeps, relative to the measured volume of the
        crystal [1]; if None, the threshold of the shrink-wrap decides
    """

    counts_share: float = 0.975
    smallest_grid: int = 32
    reference_grid: int = 64
    min_blur: float = 0.45
    opening: Round = Round(_CYCLE, 2.0, 1.7)
    narrowing: Round = Round(f"3*({_CYCLE})", 1.7, 1.2)
    settling: Round = Round(_SETTLING, 1.2, 1.0)
    finish: Round = Round("24*(10*RAAR+FLAT)+60*RAAR+60*ER", 1.5, 1.0)
    fitting: Round = FITTING
    polish: str = "40*ER"
    support_threshold: float = 0.3
    volume: tuple[float, float] | None = None


KEEPING_VOLUME = TournamentConfig(
    opening=Round(_CYCLE, 2.8, 2.4, 0.8),
    narrowing=Round(f"3*({_CYCLE})", 2.4, 1.7, 0.8),
    settling=Round(_SETTLING, 1.7, 1.4, 0.8),
    volume=(1.05, 1.45),
)
"""Settings of a tournament in which supports keep the measured volume: its coarse rounds want a wider blur, a flatter amplitude."""

DEEPENING = Round("4*(6*(10*HIO+FLAT)+12*(10*RAAR+FLAT))+60*RAAR+60*ER", 2.0, 1.0)
"""Settings of the longer refinement of a network's guess, in place of the finish."""


@dataclass(frozen=True)
class Pattern:
    """A measurement in which a tournament searches for the crystal.

    Parameters
    ----------
    data, host : the measurement on the device to use, and on the CPU
    oversampling : array size over crystal size, per axis
    wanted : oversampling down to which starts are phased at wider spacings [1]
    point_spread : point spread with which starts are compared to the counts of `host`; `data` may be sharpened by it
    """

    data: Measured
    host: Measured
    oversampling: tuple[float, float, float]
    wanted: float
    point_spread: PointSpread | None = None

    @cached_property
    def wide(self) -> Measured:
        """The measurement `data` at the wider spacings, without held-out voxels."""
        return widen(self.data, self.oversampling, self.wanted)

    @cached_property
    def finest(self) -> float:
        """Frequency up to which there is a photon per voxel [cycles per voxel], see `finest_frequency`."""
        return finest_frequency(self.host)

    @cached_property
    def filled(self) -> float:
        """Share of the array that the crystal fills."""
        return sampling.filled_share(to_centre(self.host.intensity).numpy(), to_centre(self.host.valid).numpy(), self.oversampling)


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
    small, (opening, narrowing, settling) = _coarse_rounds(pattern, config)
    random = yield from run_starts(small.wide, opening, starts[0], seed, first_support=first_support)
    left = set_point_spread(pattern.point_spread, random)
    left = yield from _continue(_rank(left, small)[: starts[1]], small.wide, narrowing)
    left = yield from _continue(_rank(left, small)[: starts[2]], small.wide, settling)
    left = _rank(left, small)
    if first:
        guesses = [resample_guess(guess, small.data.shape, config.support_threshold) for guess in first]
        seeded = yield from _settle(small.wide, settling, seed, guesses)
        left = [_rank(set_point_spread(pattern.point_spread, seeded), small)[0], *left]
    left = yield from _finish(left, pattern, small, config)
    return [*left[: bool(first)], *_rank(left[bool(first) :], pattern)]


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


def _settle(wide: Measured, config: IterativeConfig, seed: int, guesses: Sequence[Guess]) -> Generator[Progress, None, list[Start]]:
    """Phase guesses on the coarse grid at the wider spacings."""
    return run_starts(wide, config, len(guesses), seed, [reshape_guess(guess, wide.shape) for guess in guesses])


def _coarse_rounds(pattern: Pattern, config: TournamentConfig) -> tuple[Pattern, list[IterativeConfig]]:
    """Return the pattern on the coarse grid, and the settings of the opening, the narrowing and the settling on it."""
    voxels = coarse_voxels(pattern.host, config.counts_share, config.smallest_grid)
    small = replace(pattern, data=crop_to_centre(pattern.data, voxels), host=crop_to_centre(pattern.host, voxels))
    factor = min(1.0, voxels / config.reference_grid) ** 0.5 * blur_factor(small.oversampling)
    least = config.min_blur / small.finest
    rounds = [_iterations(one, factor, least, SETTLED) for one in (config.opening, config.narrowing, config.settling)]
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
    return [replace(new, seed=old.seed, sigma=old.sigma, eta=old.eta) for new, old in zip(finished, starts, strict=True)]


def finish_guesses(
    pattern: Pattern, config: TournamentConfig, guesses: Sequence[Guess], seed: int
) -> Generator[Progress, None, list[Start]]:
    """Phase guesses with all fringes by the rounds "finish", at the wider spacings, and "polish", on all voxels.

    Parameters
    ----------
    pattern, config : as in `tournament`
    guesses : guesses on the grid of the pattern
    seed : guess k draws its random numbers from seed + k
    """
    finish = _iterations(config.finish, 1.0, config.min_blur / pattern.finest, FINISHED)
    settings = _keep_volume(finish, pattern, pattern, config)
    finished = yield from refine_wide(guesses, pattern.data, pattern.wide, [settings], config.polish, seed)
    finished = set_point_spread(pattern.point_spread, finished)
    fitted = yield from fit_surface(finished, pattern, config, config.polish, seed, (len(finished), len(finished)))
    # A volume is no threshold for whoever continues these starts.
    return [replace(start, threshold=USUAL) if config.volume else start for start in fitted]


def fit_surface(
    starts: list[Start], pattern: Pattern, config: TournamentConfig, polish: str, seed: int, fits: tuple[int, int]
) -> Generator[Progress, None, list[Start]]:
    """Fit the supports of starts to the surface of the crystal (`FITTING`); keep a fit if it predicts the held-out voxels better.

    The best `fits[0]` are fitted; of those that gain much, and are not yet at photon noise, the best `fits[1]` are fitted again.
    """
    best, fitting = list(starts), fitting_rounds(pattern, config)
    free = [score(start, pattern.host).llk_free for start in starts]
    left = sorted(sorted(range(len(starts)), key=lambda k: free[k])[: fits[0]])
    for _ in range(MOST_FITS if fitting else 0):
        guesses = [Guess(best[k].rho, best[k].support) for k in left]
        tried = yield from refine_wide(guesses, pattern.data, pattern.wide, fitting, polish, seed)
        gaining = []
        for k, start in zip(left, set_point_spread(pattern.point_spread, tried), strict=True):
            before, after = free[k], score(start, pattern.host).llk_free
            if not after >= before:
                best[k], free[k] = replace(start, seed=starts[k].seed, threshold=USUAL), after
            if AT_NOISE < after < (1 - GAIN) * before:
                gaining.append(k)
        if not (left := sorted(gaining, key=lambda k: free[k])[: fits[1]]):
            break
    return best


def fitting_rounds(pattern: Pattern, config: TournamentConfig) -> list[IterativeConfig]:
    """List the rounds that fit supports to the surface: one, or none where the least blur is over `SEEN`, which would fit noise."""
    least = config.min_blur / pattern.finest
    return [_iterations(config.fitting, blur_factor(pattern.oversampling), least, 1.0)] if least <= SEEN else []


def _iterations(one: Round, factor: float, least: float, settle: float) -> IterativeConfig:
    """Make the settings of one round of a tournament; its blur widths are multiplied by `factor`, down to `least` [voxels]."""
    start, end = (max(factor * width, least) for width in (one.blur_start, one.blur_end))
    wrap = ShrinkWrap(sigma_start=start, sigma_end=end, sigma_settle=settle, threshold=one.threshold)
    return IterativeConfig(recipe=one.recipe, shrink_wrap=wrap, flatness=one.flatness)


def surface_blur(pattern: Pattern) -> float:
    """Return the width of the blur with which a support is cut at the surface of a finished crystal [voxels].

    It is a voxel, less where the crystal has few voxels, and more where photons are few. It does not depend on the settings of
    tournaments, because strategies without one use it too.
    """
    return max(blur_factor(pattern.oversampling), TournamentConfig.min_blur / pattern.finest)


def coarse_voxels(data: Measured, share: float, smallest: int) -> int:
    """Find how many central voxels per axis hold at least the fraction `share` of all counts.

    The numbers `smallest`, `smallest` + 8, `smallest` + 16, ... are tried in turn.
    """
    total, longest = float(data.intensity.sum()), max(data.shape)
    for voxels in range(smallest, longest, 8):
        if float(crop_to_centre(data, voxels).intensity.sum()) >= share * total:
            return voxels
    return longest


def blur_factor(oversampling: Sequence[float] | None) -> float:
    """Compute the factor by which the blur width of the shrink-wrap is multiplied.

    The factor is 1 up to a mean oversampling of `SAMPLED`, and falls as its inverse above, where the crystal has fewer voxels.
    """
    return 1.0 if oversampling is None else min(1.0, SAMPLED / math.prod(oversampling) ** (1 / 3))


def measure_oversampling(data: Measured) -> tuple[float, float, float]:
    """Measure the oversampling of a pattern from its counts, per axis."""
    return sampling.oversampling(to_centre(data.intensity).numpy(), to_centre(data.valid).numpy())


def finest_frequency(data: Measured) -> float:
    """Find the frequency at which the mean count of a frequency shell first falls below one photon [cycles per voxel].

    If it is one photon or more in all shells, the highest frequency of the array is returned, that of its corner.
    """
    radius = sum((f.square() for f in frequencies(tuple(data.shape))), torch.zeros(())).sqrt()
    shell = (SHELLS * radius).long()
    held = torch.zeros(SHELLS).index_add_(0, shell[data.valid], torch.ones(int(data.valid.sum())))
    mean = torch.zeros(SHELLS).index_add_(0, shell[data.valid], data.intensity[data.valid].float()) / held.clamp_min(1)
    dark = ((mean < 1) & (held > 0)).nonzero()
    return (float(dark[0]) + 0.5) / SHELLS if len(dark) else float(radius.max())


def _continue(starts: list[Start], data: Measured, config: IterativeConfig) -> Generator[Progress, None, list[Start]]:
    """Continue starts with another recipe, but keep their point spreads."""
    finished = yield from continue_starts(starts, data, config)
    return [replace(start, sigma=old.sigma, eta=old.eta) for start, old in zip(finished, starts, strict=True)]


def _rank(starts: list[Start], pattern: Pattern) -> list[Start]:
    """Sort starts, best first; starts at wider spacings are compared on all voxels of the pattern, the held-out ones included."""
    scores = [score(reshape_start(start, pattern.host.shape), pattern.host) for start in starts]
    return [starts[k] for k in ranked(scores)]
