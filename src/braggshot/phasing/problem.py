"""Hold the counts of one volume, the settings, and what is known so far while it is phased."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import nn

from braggshot.errors import ConfigError, DataError
from braggshot.iterative.projections import Measured, held_out_voxels, measured
from braggshot.iterative.spacing import widen
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.pattern import Pattern, measure_oversampling
from braggshot.physics.forward import PointSpread
from braggshot.volumes import DiffractionVolume, Reconstruction


@dataclass(frozen=True)
class PhasingContext:
    """State of the phasing of one volume: the counts, the settings, and what is known so far.

    Parameters
    ----------
    volume : the volume to be phased
    data, data_cpu : the measurement on the device to use, and on the CPU, where starts are scored
    config : settings of phasing
    network : trained network, if the strategy needs one
    out_of_distribution : in which ways the counts are unlike those that the network was trained on, in words
    point_spread : point spread of the beam, once it has been estimated
    sharpened : counts sharpened by the point spread, on which only the search for the crystal works; None if the point spread is
        narrow
    is_enough : function that tells of a result that is not good whether no further search is to be held yet; None to hold all
    is_witnessed : True if the strategy has random starts, which are independent of the network; if False, the agreement of starts
        does not influence which start is chosen
    """

    volume: DiffractionVolume
    data: Measured
    data_cpu: Measured
    config: PhasingConfig
    network: nn.Module | None = None
    out_of_distribution: tuple[str, ...] = ()
    point_spread: PointSpread | None = None
    sharpened: Measured | None = None
    is_witnessed: bool = True
    is_enough: Callable[[Reconstruction], bool] | None = None

    @property
    def search_data(self) -> Measured:
        """Counts for the search for the crystal: as measured, or sharpened to what a coherent beam might have given."""
        return self.data if self.sharpened is None else self.sharpened

    @cached_property
    def pattern(self) -> Pattern:
        """What a tournament needs of this: the counts for the search, and the counts by which starts are compared."""
        known = self.volume.oversampling or measure_oversampling(self.data_cpu)
        return Pattern(self.search_data, self.data_cpu, known, self.config.search_oversampling, self.point_spread)

    @cached_property
    def wide(self) -> Measured:
        """The counts as measured, never sharpened, at the wider spacings."""
        if self.sharpened is None:
            return self.pattern.wide
        return widen(self.data, self.pattern.oversampling, self.pattern.wanted)


def prepare_measured(volume: DiffractionVolume, config: PhasingConfig) -> Measured:
    """Copy the counts of a volume to the device that phases them, and draw the held-out voxels.

    Raises
    ------
    DataError : if no valid voxel holds a count.
    ConfigError : if the settings name a device that the machine does not have.
    """
    if not (volume.intensity[volume.valid] > 0).any():
        raise DataError(f"{volume.name}: no valid voxel holds a count; check the mask and the threshold.")
    valid = torch.from_numpy(np.ascontiguousarray(volume.valid))
    generator = torch.Generator().manual_seed(config.seed)
    held_out = held_out_voxels(valid, config.free_fraction, config.free_radius, config.free_exclusion, generator=generator)
    data = measured(torch.from_numpy(np.ascontiguousarray(volume.intensity, dtype=np.float32)), valid, held_out)
    return to_device(data, device_of(config.device))


def to_device(data: Measured, device: torch.device | str) -> Measured:
    """Copy a measurement to a device."""
    return Measured(*(getattr(data, name).to(device) for name in Measured.__dataclass_fields__))


def device_of(wish: str) -> torch.device:
    """Return the device for a setting "auto", "cpu" or "cuda"; "auto" takes CUDA if there is a CUDA device.

    Raises
    ------
    ConfigError : if CUDA is asked for and there is no CUDA device.
    """
    if wish == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device 'cuda' was asked for, but no CUDA device is there; choose the device 'cpu'.")
    return torch.device("cuda" if wish != "cpu" and torch.cuda.is_available() else "cpu")
