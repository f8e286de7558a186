"""Hold one volume on its way through a strategy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from braggshot.errors import ConfigError, DataError
from braggshot.iterative.projections import Measured, held_out_voxels, measured
from braggshot.phasing.config import PhasingConfig
from braggshot.physics.forward import PointSpread
from braggshot.volumes import DiffractionVolume


@dataclass(frozen=True)
class PhasingContext:
    """One volume on its way through a strategy: the counts, the settings, and what is known so far.

    Parameters
    ----------
    volume : counts
    data, data_cpu : the measurement on the device to use, and on the CPU, where starts are scored
    config : settings
    network : trained network, if the strategy needs one
    out_of_distribution : in what the counts are unlike those of the training
    point_spread : of the beam, once it has been estimated
    sharpened : the counts sharpened by a wide point spread, to be searched on
    is_witnessed : random starts confirm the answer; else the agreement of starts is no argument
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

    @property
    def search_data(self) -> Measured:
        """The counts that a search works on: as measured, or as a coherent beam might have given them."""
        return self.data if self.sharpened is None else self.sharpened


def prepare_measured(volume: DiffractionVolume, config: PhasingConfig) -> Measured:
    """Bring the volume to the device to use, and draw its held-out voxels.

    Raises
    ------
    DataError : if no valid voxel holds a count.
    ConfigError : if the device is not there.
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
    """Choose the device of a setting; "auto" takes CUDA where it is.

    Raises
    ------
    ConfigError : if CUDA is asked for and not there.
    """
    if wish == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device 'cuda' was asked for, but no CUDA device is there; use --device cpu.")
    return torch.device("cuda" if wish != "cpu" and torch.cuda.is_available() else "cpu")
