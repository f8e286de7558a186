"""Narrow many starts down on a coarse grid: those that predict the held-out voxels go on.

Where the phase of a crystal turns strongly, often one or two of 24 starts find it, and which ones shows early: after a seventh
of a recipe the good ones stand among the first. So many starts take a short first round, half of them a longer second
one, and the best few are finished, for the price of phasing a handful to the end.

The grid holds the central fringes, as many as the counts ask for: a strained crystal scatters further out, and cropped too much
it is another object.

==========  ===============================================  =====================  ========================================
round       what it does                                     who                    on
==========  ===============================================  =====================  ========================================
opening     modulus, support and FLAT, from a wide blur      random starts          the coarse grid
narrowing   the same, longer, the blur narrowing             the best of them       the coarse grid
settling    ends with error reduction                        the best, and guesses  the coarse grid
finish      the outer fringes, without FLAT                  the best, and the      the whole
                                                             best guess
==========  ===============================================  =====================  ========================================

A guess, such as a network's hypothesis, joins where its quality would not be undone by a wide blur.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

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
from braggshot.phasing.selection import ranked, score
from braggshot.physics import sampling
from braggshot.physics.forward import PointSpread
from braggshot.physics.fourier import frequencies, to_centre

_CYCLE = "5*(10*HIO+FLAT)+8*(10*RAAR+FLAT)+3*(10*ER+FLAT)"

SHELLS = 50  # number of shells of equal width up to one cycle per voxel
SAMPLED = 4.0  # oversampling that the widths of the blur are meant for [1]
SETTLED = 1.0  # fraction of a round on the coarse grid after which its blur stays [1]
FINISHED = 0.5  # fraction of the last round after which its blur stays, early enough for the object to follow [1]


@dataclass(frozen=True)
class Round:
    """Say how one round of a tournament goes.

    Parameters
    ----------
    recipe : steps, as in `braggshot.iterative.recipe`
    blur_start, blur_end : Gaussian width of the shrink-wrap at the beginning and at the end [voxels]
    flatness : how far FLAT brings the amplitude inside the support to one value [1]
    """

    recipe: str
    blur_start: float
    blur_end: float
    flatness: float = 0.6

    def __post_init__(self) -> None:
        parse_recipe(self.recipe)


@dataclass(frozen=True)
class TournamentConfig:
    """Say how a tournament goes.

    Parameters
    ----------
    counts_share : share of the counts that the coarse grid holds at least, on its central voxels [1]
    smallest_grid : voxels of the coarse grid per axis, at least
    reference_grid : voxels per axis of the grid that the widths of the rounds are meant for; on a smaller one they shrink as its
        root
    min_blur : widths of all rounds, at least, in periods of the finest frequency at which a voxel counts a photon: a support that
        follows noise closes in on it [1]
    opening, narrowing, settling : the three rounds on the coarse grid
    finish : the round on the whole grid
    support_threshold : amplitude, relative to the largest, from which a voxel belongs to the crystal at first on the whole grid [1]
    """

    counts_share: float = 0.975
    smallest_grid: int = 32
    reference_grid: int = 64
    min_blur: float = 0.45
    opening: Round = Round(_CYCLE, 2.0, 1.7)
    narrowing: Round = Round(f"3*({_CYCLE})", 1.7, 1.2)
    settling: Round = Round("2*(5*(10*HIO+FLAT)+8*(10*RAAR+FLAT)+30*ER)+60*ER", 1.2, 1.0)
    # The rounds before leave the support loose, and this one brings up what lies at its rim without FLAT.
    finish: Round = Round("100*HIO+130*RAAR+60*ER", 1.5, 1.0)
    support_threshold: float = 0.3


def tournament(
    data: Measured,
    host: Measured,
    config: TournamentConfig,
    starts: tuple[int, int, int],
    seed: int,
    first: Sequence[Guess] = (),
    known: PointSpread | None = None,
    first_support: FirstSupport | None = None,
) -> Generator[Progress, None, list[Start]]:
    """Hold a tournament; its value is the random starts that are left, the best first, and before them the best guess.

    Parameters
    ----------
    data, host : the measurement on the device to use, and on the CPU
    starts : random ones that open, that go on, and that settle
    seed : random start k draws its numbers from seed + k
    first : guesses on the grid of the data
    known : point spread with which starts are compared to the counts of `host`; `data` may be sharpened by it
    first_support : of the random starts
    """
    voxels = coarse_voxels(host, config.counts_share, config.smallest_grid)
    small, judge = crop_to_centre(data, voxels), crop_to_centre(host, voxels)
    factor = min(1.0, voxels / config.reference_grid) ** 0.5 * blur_factor(_oversampling(judge))
    least = config.min_blur / finest_frequency(judge)
    opening, narrowing, settling = (
        _iterations(one, factor, least, SETTLED) for one in (config.opening, config.narrowing, config.settling)
    )
    random = yield from run_starts(small, opening, starts[0], seed, first_support=first_support)
    left = set_point_spread(known, random)
    left = yield from _continue(_rank(left, judge)[: starts[1]], small, narrowing)
    left = yield from _continue(_rank(left, judge)[: starts[2]], small, settling)
    left = _rank(left, judge)
    if first:
        guesses = [resample_guess(guess, small.shape, config.support_threshold) for guess in first]
        seeded = set_point_spread(known, (yield from run_starts(small, settling, len(guesses), seed, guesses)))
        left = [_rank(seeded, judge)[0], *left]
    finish = _iterations(config.finish, 1.0, config.min_blur / finest_frequency(host), FINISHED)
    left = yield from _continue(left, data, finish, config.support_threshold)
    return [*left[: bool(first)], *_rank(left[bool(first) :], host)]


def _iterations(one: Round, factor: float, least: float, settle: float) -> IterativeConfig:
    """Make the settings of a round: multiply the widths of its blur by a factor, and keep them above `least` [voxels]."""
    start, end = (max(factor * width, least) for width in (one.blur_start, one.blur_end))
    return IterativeConfig(
        recipe=one.recipe, shrink_wrap=ShrinkWrap(sigma_start=start, sigma_end=end, sigma_settle=settle), flatness=one.flatness
    )


def coarse_voxels(data: Measured, share: float, smallest: int) -> int:
    """Count the voxels per axis, a multiple of 8, whose centre holds a share of all counts; no more than the longest axis."""
    total, longest = float(data.intensity.sum()), max(data.shape)
    for voxels in range(smallest, longest, 8):
        if float(crop_to_centre(data, voxels).intensity.sum()) >= share * total:
            return voxels
    return longest


def blur_factor(oversampling: Sequence[float] | None) -> float:
    """Compute the factor by which the blur shrinks where the crystal has fewer voxels than at an oversampling of `SAMPLED`."""
    return 1.0 if oversampling is None else min(1.0, SAMPLED / math.prod(oversampling) ** (1 / 3))


def _oversampling(data: Measured) -> tuple[float, float, float]:
    return sampling.oversampling(to_centre(data.intensity).numpy(), to_centre(data.valid).numpy())


def finest_frequency(data: Measured) -> float:
    """Find where the mean count of a shell about the peak first falls below one photon [1/voxel]; the corner if it never does."""
    radius = sum((f.square() for f in frequencies(tuple(data.shape))), torch.zeros(())).sqrt()
    shell = (SHELLS * radius).long()
    held = torch.zeros(SHELLS).index_add_(0, shell[data.valid], torch.ones(int(data.valid.sum())))
    mean = torch.zeros(SHELLS).index_add_(0, shell[data.valid], data.intensity[data.valid].float()) / held.clamp_min(1)
    dark = ((mean < 1) & (held > 0)).nonzero()
    return (float(dark[0]) + 0.5) / SHELLS if len(dark) else float(radius.max())


def _continue(
    starts: list[Start], data: Measured, config: IterativeConfig, threshold: float | None = None
) -> Generator[Progress, None, list[Start]]:
    """Go on as `continue_starts`, and keep the point spreads; with a `threshold` on another grid."""
    here = starts if threshold is None else [_resample(start, data.shape, threshold) for start in starts]
    finished = yield from continue_starts(here, data, config)
    return [replace(start, sigma=old.sigma, eta=old.eta) for start, old in zip(finished, starts, strict=True)]


def _resample(start: Start, shape: torch.Size, threshold: float) -> Start:
    guess = resample_guess(Guess(start.rho, start.support), shape, threshold)
    return replace(start, rho=guess.rho, support=guess.support)


def _rank(starts: list[Start], judge: Measured) -> list[Start]:
    return [starts[k] for k in ranked([score(start, judge) for start in starts])]
