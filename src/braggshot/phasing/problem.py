"""What is to be phased, and how: settings, and one volume on its way through a strategy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import nn

from braggshot.errors import ConfigError, DataError
from braggshot.iterative.iterate import RefineConfig
from braggshot.iterative.projections import Measured, ShrinkWrap, held_out_voxels, measured
from braggshot.nn.adapt import AdaptConfig
from braggshot.nn.expert_iteration import SHORT
from braggshot.nn.weights import SHIPPED
from braggshot.phasing.tournament import TournamentConfig
from braggshot.phasing.verdict import Limits
from braggshot.physics.forward import PointSpread
from braggshot.volumes import DiffractionVolume

CONFIRM, SEARCH, FURTHER = (TournamentConfig(starts=starts) for starts in ((6, 3, 2), (12, 6, 2), (16, 8, 3)))
FILLING = RefineConfig("8*(10*RAAR+FLAT)+60*ER", shrink_wrap=ShrinkWrap(period=0), flatness=0.2)


@dataclass(frozen=True)
class PhasingConfig:
    """How a volume is phased.

    Parameters
    ----------
    method : "auto", "oneshot", "refine" or "iterative", as above
    network : name of a shipped network, or a file
    hypotheses : of the network
    views : orientations in which the pattern is shown to it; the best answers are its hypotheses
    polish : how each of them is refined, and a start that was given
    promising : misfit of held-out magnitudes beyond photon noise, `metrics.excess`, up to which the best of them is taken for an
        answer that random starts need only confirm [1]
    confirm : the tournament of those
    search : the first one of "auto" where no hypothesis is promising
    further : each of those with which it goes on, among random starts alone
    searches : tournaments of "auto", at most
    starts : random starts of "iterative"
    seed : of the held-out voxels and, plus its number, of each start
    device : "auto", "cpu" or "cuda"
    free : share of the valid voxels that is held out [1]
    free_radius : radius of the held-out balls [voxels]
    free_centre : radius about the peak, as a share of each axis, where nothing is held out [1]
    partial_coherence : "auto" fits a point spread to the best start; where that hints at one it goes on while it is estimated, and
        where that predicts the held-out voxels better all starts follow, of a wide one on sharpened counts; "on" doesn't ask; "off"
    coherence_hint : share by which llk_free must fall by the fit alone [1]
    coherence_recipe : the second round
    coherence_gain : share by which llk_free must fall for "auto" to keep it [1]
    refine : how one random start is phased
    adapt : how far the network learns from this very pattern before it answers
    gaps : share of voxels that are not valid from which starts end with `filling` [1]
    filling : settles what no count says of the crystal, as its voxels are not valid, by a soft prior: FLAT, in the support it has;
        held-out voxels, which lie elsewhere, can't choose here
    edge : amplitude of a hypothesis, relative to its largest, from which a voxel belongs to the crystal at first [1]
    limits : what the verdict tolerates
    check_memory : refuse what would not fit into memory
    """

    method: Literal["auto", "oneshot", "refine", "iterative"] = "auto"
    network: str = SHIPPED
    hypotheses: int = 3
    views: int = 15
    polish: RefineConfig = SHORT
    promising: float = 0.08
    confirm: TournamentConfig = CONFIRM
    search: TournamentConfig = SEARCH
    further: TournamentConfig = FURTHER
    searches: int = 4
    starts: int = 10
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    free: float = 0.05
    free_radius: int = 1
    free_centre: float = 0.1
    partial_coherence: Literal["auto", "on", "off"] = "auto"
    coherence_hint: float = 0.02
    coherence_recipe: str = "PSF+32*(10*HIO+2*ER+PSF)+60*ER+PSF+20*ER"
    coherence_gain: float = 0.2
    refine: RefineConfig = field(default_factory=RefineConfig)
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    gaps: float = 0.02
    filling: RefineConfig = FILLING
    edge: float = 0.3
    limits: Limits = field(default_factory=Limits)
    check_memory: bool = True

    def __post_init__(self) -> None:
        if self.starts < 1:
            raise ConfigError(f"phasing.starts must be at least 1, found {self.starts}.")
        for name in ("hypotheses", "views", "searches"):
            if getattr(self, name) < 1:
                raise ConfigError(f"phasing.{name} must be at least 1, found {getattr(self, name)}.")
        if not 0 <= self.free < 0.5:
            raise ConfigError(f"phasing.free is a share between 0 and 0.5, found {self.free}.")


@dataclass(frozen=True)
class Problem:
    """One volume on its way through a strategy.

    Parameters
    ----------
    volume : counts
    data, host : the measurement on the device to use, and on the CPU, where starts are scored
    config : settings
    network : if the strategy has one
    unfamiliar : in what the counts are unlike those that the network was trained on
    known : point spread of the beam, once it has been estimated
    sought : the counts sharpened by it, to be searched on, where it is wide
    """

    volume: DiffractionVolume
    data: Measured
    host: Measured
    config: PhasingConfig
    network: nn.Module | None = None
    unfamiliar: tuple[str, ...] = ()
    known: PointSpread | None = None
    sought: Measured | None = None

    @property
    def sharp(self) -> Measured:
        """What a search works on: the counts, or what a coherent beam might have given."""
        return self.data if self.sought is None else self.sought


def prepare_measured(volume: DiffractionVolume, config: PhasingConfig) -> Measured:
    """The volume on the device to use, its held-out voxels drawn."""
    if not (volume.intensity[volume.valid] > 0).any():
        raise DataError(f"{volume.name}: no valid voxel holds a count; check the mask and the threshold.")
    valid = torch.from_numpy(np.ascontiguousarray(volume.valid))
    generator = torch.Generator().manual_seed(config.seed)
    held_out = held_out_voxels(valid, config.free, config.free_radius, config.free_centre, generator=generator)
    data = measured(torch.from_numpy(np.ascontiguousarray(volume.intensity, dtype=np.float32)), valid, held_out)
    device = device_of(config.device)
    return Measured(*(getattr(data, name).to(device) for name in Measured.__dataclass_fields__))


def device_of(wish: str) -> torch.device:
    """The device of a setting; "auto" takes CUDA where it is.

    Raises
    ------
    ConfigError : if CUDA is asked for and not there.
    """
    if wish == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device 'cuda' was asked for, but no CUDA device is there; use --device cpu.")
    return torch.device("cuda" if wish != "cpu" and torch.cuda.is_available() else "cpu")
