"""Hold the settings of phasing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from braggshot.config import Changes
from braggshot.errors import ConfigError
from braggshot.iterative.iterate import FirstSupport, IterativeConfig
from braggshot.nn.adapt import AdaptConfig
from braggshot.nn.expert_iteration import SHORT
from braggshot.nn.weights import SHIPPED
from braggshot.phasing.rounds import DEEPENING, KEEPING_VOLUME, Round, TournamentConfig
from braggshot.phasing.verdict import Limits

Sizes = tuple[int, int, int]


@dataclass(frozen=True, repr=False)
class PhasingConfig(Changes):
    """Settings of the phasing of a volume.

    Parameters
    ----------
    method : "auto", "oneshot", "refine", "iterative", or a strategy that another package registers
    network : name of a shipped network, or a file
    hypotheses : number of hypotheses, guesses of the crystal: the best predictions of the network are kept as hypotheses
    orientations : number of turned copies of the pattern, from each of which the network makes a prediction
    refine : settings of the iterations that refine each hypothesis of the network and each object given to begin from
    deepen : recipe and blur of a longer refinement, in which supports keep the measured volume; it follows if
        `deepen_excess` is exceeded
    deepen_excess : misfit of the held-out magnitudes, as for `promising_excess`, above which a hypothesis is refined for longer [1]
    promising_excess : largest misfit of the held-out magnitudes beyond photon noise (`metrics.excess_misfit`) with which the best
        refined hypothesis is promising; random starts then only have to confirm it [1]
    search_oversampling : a pattern that is sampled more finely is resampled at wider spacings, down to this oversampling, on which
        starts are phased in less time before they are refined on all voxels; a large number leaves patterns as they are [1]
    tournament : settings of a tournament, which phases many random starts on a coarse grid and continues the best of them
    volume_tournament : settings of the tournaments in which supports keep the measured volume of the crystal: the first where no
        hypothesis is promising, and every second of the further ones
    confirm_starts : numbers of random starts in the rounds "opening", "narrowing" and "settling" of the tournament that confirms
        a promising hypothesis
    search_starts : the same numbers for the tournament that is held where no hypothesis is promising
    further_starts : the same numbers for each further tournament, held while the verdict is not good
    search_share : share of all counts that the coarse grid of a tournament holds, instead of its `counts_share`, where it searches,
        or where it confirms and not all starts on the smaller grid are like the hypothesis: the fringes of a strongly strained
        crystal lie far out [1]
    max_tournaments : largest number of tournaments that "auto" holds
    starts : number of random starts of "iterative"
    iterative : settings of the iterations of each random start of "iterative"
    first_support : settings of the support with which a random start begins
    seed : seed for drawing the held-out voxels; start number k draws its random numbers from seed + k
    device : "auto", "cpu" or "cuda"
    free_fraction : share of the valid voxels that is held out, kept from the phasing to test it [1]
    free_radius : radius of the held-out balls [voxels]
    free_exclusion : radius about the peak, as a share of each axis, where nothing is held out [1]
    partial_coherence : "auto" fits a point spread to the best start, and keeps it where the held-out voxels are then predicted
        better; "on" always keeps it; "off" assumes full coherence
    coherence_hint : least share by which a point spread fitted to the unchanged best start must lower llk_free, the misfit of
        the held-out voxels; otherwise "auto" assumes full coherence [1]
    coherence_recipe : recipe of the iterations that refine crystal and point spread together
    coherence_gain : least share by which `coherence_recipe` must lower llk_free for "auto" to keep the point spread [1]
    coherence_psf : "gaussian" or "pseudo-voigt", the shape of the point spread
    adapt : settings of further training of the network on the measured pattern itself, before the network predicts the crystal
    gap_fraction : share of voxels without valid counts above which every start ends with `gap_recipe` [1]
    gap_recipe : recipe of the last iterations of a start where gaps are wide; the support is cut once, and the step FLAT evens out
        the amplitude, since no count determines what lies in the gaps
    support_threshold : amplitude of a hypothesis, relative to its largest, above which a voxel belongs to the first support [1]
    limits : limits between the verdicts "good", "doubtful" and "failed"
    check_memory : refuse a phasing that would not fit into memory
    options : settings of a strategy that another package registers, passed on unchanged
    """

    method: str = "auto"
    network: str = SHIPPED
    hypotheses: int = 3
    orientations: int = 15
    refine: IterativeConfig = SHORT
    deepen: Round = DEEPENING
    deepen_excess: float = 0.04
    promising_excess: float = 0.08
    search_oversampling: float = 2.4
    tournament: TournamentConfig = field(default_factory=TournamentConfig)
    volume_tournament: TournamentConfig = KEEPING_VOLUME
    confirm_starts: Sizes = (6, 3, 2)
    search_starts: Sizes = (12, 6, 2)
    further_starts: Sizes = (16, 8, 3)
    search_share: float = 0.99
    max_tournaments: int = 6
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
    gap_recipe: str = "SW+8*(10*RAAR+FLAT)+60*ER"
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
        "further_share": "search_share",
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
        if self.search_oversampling < 2:
            raise ConfigError(f"phasing.search_oversampling must be at least 2, found {self.search_oversampling}.")
        if not 0 <= self.free_fraction < 0.5:
            raise ConfigError(f"phasing.free_fraction is a share between 0 and 0.5, found {self.free_fraction}.")
