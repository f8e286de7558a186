"""Hold the settings of phasing, one record for each thing that can be chosen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from braggshot.errors import ConfigError
from braggshot.iterative.iterate import FirstSupport, IterativeConfig
from braggshot.nn.adapt import AdaptConfig
from braggshot.nn.expert_iteration import SHORT
from braggshot.nn.weights import SHIPPED
from braggshot.phasing.tournament import TournamentConfig
from braggshot.phasing.verdict import Limits

Sizes = tuple[int, int, int]


@dataclass(frozen=True)
class PhasingConfig:
    """Say how a volume is phased.

    Parameters
    ----------
    method : "auto", "oneshot", "refine", "iterative", or a strategy that another package registers
    network : name of a shipped network, or a file
    hypotheses : answers of the network that go on
    orientations : turned copies of the pattern that the network is shown; the best answers become the hypotheses
    refine : how each hypothesis, and each start that was given, is refined
    promising_excess : misfit of held-out magnitudes beyond photon noise, `metrics.excess_misfit`, up to which random starts only
        have to confirm the best hypothesis [1]
    tournament : how random starts are narrowed down on a coarse grid
    confirm_starts : random starts that open, go on and settle in the tournament that confirms a promising hypothesis
    search_starts : the same, of the tournament that searches where no hypothesis is promising
    further_starts : the same, of each further tournament, held while the verdict is not good
    max_tournaments : tournaments of "auto" at most
    starts : random starts of "iterative"
    iterative : how each random start of "iterative" is phased
    first_support : the support with which a random start begins
    seed : of the held-out voxels and, plus its number, of each start
    device : "auto", "cpu" or "cuda"
    free_fraction : share of the valid voxels that is held out [1]
    free_radius : radius of the held-out balls [voxels]
    free_exclusion : radius about the peak, as a share of each axis, where nothing is held out [1]
    partial_coherence : "auto" fits a point spread to the best start, and keeps it where it predicts the held-out voxels better;
        "on" keeps it without asking; "off" assumes full coherence
    coherence_hint : share by which llk_free must fall by the fit alone for "auto" to go on with a point spread [1]
    coherence_recipe : recipe of the iterations that refine crystal and point spread together
    coherence_gain : share by which llk_free must fall after those iterations for "auto" to keep the point spread [1]
    coherence_psf : "gaussian" or "pseudo-voigt", the shape of the point spread
    adapt : how far the network learns from this very pattern before it answers
    gap_fraction : share of voxels without valid counts from which starts end with `gap_recipe` [1]
    gap_recipe : last iterations of a start where gaps are wide: FLAT, a soft prior, settles what no count says, in a support that
        stays
    support_threshold : amplitude of a hypothesis, relative to its largest, from which a voxel belongs to the crystal at first [1]
    limits : what the verdict tolerates
    check_memory : refuse what would not fit into memory
    options : settings of a strategy that another package registers, as they stand
    """

    method: str = "auto"
    network: str = SHIPPED
    hypotheses: int = 3
    orientations: int = 15
    refine: IterativeConfig = SHORT
    promising_excess: float = 0.08
    tournament: TournamentConfig = field(default_factory=TournamentConfig)
    confirm_starts: Sizes = (6, 3, 2)
    search_starts: Sizes = (12, 6, 2)
    further_starts: Sizes = (16, 8, 3)
    max_tournaments: int = 4
    starts: int = 10
    iterative: IterativeConfig = field(default_factory=IterativeConfig)
    first_support: FirstSupport = field(default_factory=FirstSupport)
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    free_fraction: float = 0.05
    free_radius: int = 1
    free_exclusion: float = 0.1
    partial_coherence: Literal["auto", "on", "off"] = "auto"
    coherence_hint: float = 0.02
    coherence_recipe: str = "PSF+32*(10*HIO+2*ER+PSF)+60*ER+PSF+20*ER"
    coherence_gain: float = 0.2
    coherence_psf: Literal["gaussian", "pseudo-voigt"] = "gaussian"
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    gap_fraction: float = 0.02
    gap_recipe: str = "8*(10*RAAR+FLAT)+60*ER"
    support_threshold: float = 0.3
    limits: Limits = field(default_factory=Limits)
    check_memory: bool = True
    options: dict[str, Any] = field(default_factory=dict)

    RENAMED: ClassVar[dict[str, str]] = {
        "polish": "refine",
        "views": "orientations",
        "promising": "promising_excess",
        "confirm": "tournament and confirm_starts",
        "search": "tournament and search_starts",
        "further": "tournament and further_starts",
        "searches": "max_tournaments",
        "gaps": "gap_fraction",
        "filling": "gap_recipe",
        "edge": "support_threshold",
        "free": "free_fraction",
        "free_centre": "free_exclusion",
    }

    def __post_init__(self) -> None:
        for name in ("starts", "hypotheses", "orientations", "max_tournaments"):
            if getattr(self, name) < 1:
                raise ConfigError(f"phasing.{name} must be at least 1, found {getattr(self, name)}.")
        for name in ("confirm_starts", "search_starts", "further_starts"):
            opening, narrowing, settling = getattr(self, name)
            if not opening >= narrowing >= settling >= 1:
                raise ConfigError(f"phasing.{name} must fall from round to round, found {getattr(self, name)}.")
        if not 0 <= self.free_fraction < 0.5:
            raise ConfigError(f"phasing.free_fraction is a share between 0 and 0.5, found {self.free_fraction}.")
