"""Hold the settings of a tournament (`braggshot.phasing.tournament`), round by round."""

from __future__ import annotations

from dataclasses import dataclass

from braggshot.iterative.iterate import IterativeConfig
from braggshot.iterative.projections import ShrinkWrap
from braggshot.iterative.recipe import parse_recipe

# Recipe of the first of four rounds, the opening, in which all random starts are phased; the second round, the narrowing, runs it
# three times, on the best starts.
_CYCLE = "5*(10*HIO+FLAT)+8*(10*RAAR+FLAT)+3*(10*ER+FLAT)"
_SETTLING = "2*(5*(10*HIO+FLAT)+8*(10*RAAR+FLAT)+30*ER)+60*ER"


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


def iterations_of(one: Round, factor: float, least: float, settle: float) -> IterativeConfig:
    """Make the settings of one round of a tournament; its blur widths are multiplied by `factor`, down to `least` [voxels]."""
    start, end = (max(factor * width, least) for width in (one.blur_start, one.blur_end))
    wrap = ShrinkWrap(sigma_start=start, sigma_end=end, sigma_settle=settle, threshold=one.threshold)
    return IterativeConfig(recipe=one.recipe, shrink_wrap=wrap, flatness=one.flatness)
