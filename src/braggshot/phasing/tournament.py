"""Many starts on a coarse grid, of which fewer and fewer go on: those that predict the held-out voxels.

Where the phase of a crystal turns strongly, often one or two of 24 starts find it, and which ones shows early: after a seventh
of a recipe the good ones stand among the first. So many starts take a short first round, half of them a longer second
one, and the best few are finished, for the price of phasing a handful to the end.

The grid holds the central fringes, as many as the counts ask for: a strained crystal scatters further out, and cropped too much
it is another object.

==========  ===============================================  =====================  ========================================
round       what it does                                     who                    on
==========  ===============================================  =====================  ========================================
open        modulus, support and FLAT, from a wide blur      random starts          the coarse grid
go on       the same, longer, the blur narrowing             the best of them       the coarse grid
settle      ends with error reduction                        the best, and guesses  the coarse grid
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

from braggshot.errors import ConfigError
from braggshot.iterative.coarse_grid import coarse, resampled
from braggshot.iterative.iterate import Guess, Progress, RefineConfig, Start, assuming, continued, run_starts
from braggshot.iterative.projections import Measured, ShrinkWrap
from braggshot.phasing.selection import ranked, score
from braggshot.physics import sampling
from braggshot.physics.forward import PointSpread
from braggshot.physics.fourier import frequencies, to_centre

_CYCLE = "5*(10*HIO+FLAT)+8*(10*RAAR+FLAT)+3*(10*ER+FLAT)"

SHELLS = 50  # up to one cycle per voxel
SAMPLED = 4.0  # oversampling up to which a blur of so many voxels suits a crystal


def _round(recipe: str, wide: float, narrow: float) -> RefineConfig:
    return RefineConfig(recipe, shrink_wrap=ShrinkWrap(sigma_start=wide, sigma_end=narrow, sigma_settle=1.0), flatness=0.6)


OPENING = _round(_CYCLE, 2.0, 1.7)
GOING_ON = _round(f"3*({_CYCLE})", 1.7, 1.2)
SETTLING = _round("2*(5*(10*HIO+FLAT)+8*(10*RAAR+FLAT)+30*ER)+60*ER", 1.2, 1.0)
FINISH = RefineConfig(
    "100*HIO+130*RAAR+60*ER",  # the rounds before leave the support loose: FLAT brings up what lies at its rim
    shrink_wrap=ShrinkWrap(sigma_start=1.5, sigma_end=1.0, sigma_settle=0.5),
)


@dataclass(frozen=True)
class TournamentConfig:
    """How many go how far.

    Parameters
    ----------
    starts : random ones that open, that go on, and that settle
    counts : share of the counts that the coarse grid holds at least, on its central voxels [1]
    smallest : voxels of the coarse grid per axis, at least
    reference : voxels per axis of the grid that the widths of the rounds are meant for; on a smaller one they shrink as its root
    blur : widths of all rounds, at least, in periods of the finest frequency at which a voxel counts a photon: a support that
        follows noise closes in on it [1]
    opening, going_on, settling : of the three rounds on the coarse grid
    finish : on the whole
    edge : amplitude, relative to the largest, from which a voxel belongs to the crystal at first on the whole [1]
    """

    starts: tuple[int, int, int] = (12, 6, 2)
    counts: float = 0.975
    smallest: int = 32
    reference: int = 64
    blur: float = 0.45
    opening: RefineConfig = OPENING
    going_on: RefineConfig = GOING_ON
    settling: RefineConfig = SETTLING
    finish: RefineConfig = FINISH
    edge: float = 0.3

    def __post_init__(self) -> None:
        if not self.starts[0] >= self.starts[1] >= self.starts[2] >= 1:
            raise ConfigError(f"the starts of a tournament become fewer from round to round, found {self.starts}.")


def tournament(
    data: Measured,
    host: Measured,
    config: TournamentConfig,
    seed: int,
    first: Sequence[Guess] = (),
    known: PointSpread | None = None,
) -> Generator[Progress, None, list[Start]]:
    """The random starts that are left, the best first, and before them the best guess.

    Parameters
    ----------
    data, host : the measurement on the device to use, and on the CPU
    seed : random start k draws its numbers from seed + k
    first : guesses on the grid of the data
    known : point spread with which starts are compared to the counts of `host`; `data` may be sharpened by it
    """
    voxels = coarse_voxels(host, config.counts, config.smallest)
    small, judge = coarse(data, voxels), coarse(host, voxels)
    narrow = min(1.0, voxels / config.reference) ** 0.5 * narrowing(_oversampling(judge))
    widest = config.blur / finest_frequency(judge)
    opening, going_on, settling = (blurred(r, narrow, widest) for r in (config.opening, config.going_on, config.settling))
    left = assuming(known, (yield from run_starts(small, opening, config.starts[0], seed)))
    left = yield from _continued(_best(left, judge)[: config.starts[1]], small, going_on)
    left = yield from _continued(_best(left, judge)[: config.starts[2]], small, settling)
    left = _best(left, judge)
    if first:
        guesses = [resampled(guess, small.shape, config.edge) for guess in first]
        seeded = assuming(known, (yield from run_starts(small, settling, len(guesses), seed, guesses)))
        left = [_best(seeded, judge)[0], *left]
    finish = blurred(config.finish, 1.0, config.blur / finest_frequency(host))
    left = yield from _continued(left, data, finish, config.edge)
    return [*left[: bool(first)], *_best(left[bool(first) :], host)]


def coarse_voxels(data: Measured, share: float, smallest: int) -> int:
    """Voxels per axis, a multiple of 8, whose centre holds a share of all counts; no more than the longest axis."""
    total, longest = float(data.intensity.sum()), max(data.shape)
    for voxels in range(smallest, longest, 8):
        if float(coarse(data, voxels).intensity.sum()) >= share * total:
            return voxels
    return longest


def narrowing(oversampling: Sequence[float] | None) -> float:
    """Factor by which the blur of a support narrows as its crystal is of fewer voxels than up to an oversampling of `SAMPLED`."""
    return 1.0 if oversampling is None else min(1.0, SAMPLED / math.prod(oversampling) ** (1 / 3))


def _oversampling(data: Measured) -> tuple[float, float, float]:
    return sampling.oversampling(to_centre(data.intensity).numpy(), to_centre(data.valid).numpy())


def finest_frequency(data: Measured) -> float:
    """Where the mean count of a shell about the peak first falls below one photon [1/voxel]; the corner if it never does."""
    radius = sum((f.square() for f in frequencies(tuple(data.shape))), torch.zeros(())).sqrt()
    shell = (SHELLS * radius).long()
    held = torch.zeros(SHELLS).index_add_(0, shell[data.valid], torch.ones(int(data.valid.sum())))
    mean = torch.zeros(SHELLS).index_add_(0, shell[data.valid], data.intensity[data.valid].float()) / held.clamp_min(1)
    dark = ((mean < 1) & (held > 0)).nonzero()
    return (float(dark[0]) + 0.5) / SHELLS if len(dark) else float(radius.max())


def _continued(
    starts: list[Start], data: Measured, refine: RefineConfig, edge: float | None = None
) -> Generator[Progress, None, list[Start]]:
    """As `continued`, with the point spread that they began with; with an `edge` on another grid."""
    here = starts if edge is None else [_moved(start, data.shape, edge) for start in starts]
    found = yield from continued(here, data, refine)
    return [replace(start, sigma=old.sigma, eta=old.eta) for start, old in zip(found, starts, strict=True)]


def _moved(start: Start, shape: torch.Size, edge: float) -> Start:
    guess = resampled(Guess(start.rho, start.support), shape, edge)
    return replace(start, rho=guess.rho, support=guess.support)


def _best(starts: list[Start], judge: Measured) -> list[Start]:
    return [starts[k] for k in ranked([score(start, judge) for start in starts])]


def blurred(refine: RefineConfig, factor: float, least: float = 0.0) -> RefineConfig:
    """With the widths of its blur times a factor, and at least so many voxels."""
    old = refine.shrink_wrap
    new = replace(old, sigma_start=max(factor * old.sigma_start, least), sigma_end=max(factor * old.sigma_end, least))
    return replace(refine, shrink_wrap=new)
