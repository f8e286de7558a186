r"""The flagship's whole forward pass: learned steps at a low resolution, projections there, learned steps at the full one.

::

    counts ----------------------------+-------------------------------------+
      | central fringes                | the same                            | all
      v                                v                                     v
    learned steps (`coarse`)  ->  projections, shrink-wrap (`between`)  ->  learned steps (`fine`)  ->  object
      16^3 voxels of 32^3              a hundred                             32^3 voxels of 64^3

The central fringes hold the crystal at half the resolution and an eighth of the cost, so that is where it is found: what the first
steps leave undecided, mostly how much of an answer is its twin, projections settle. The outer fringes say how sharp its surface is
and how its phase turns from voxel to voxel: few learned steps add that, each with one modulus projection, where error reduction
takes dozens of iterations. No weight is fitted to the pattern at hand: the pass is the same operations for each.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor, nn

from braggshot.nn.expert import ExpertConfig, refined
from braggshot.nn.network import Measurement, NetworkConfig, PhaseNetwork, normalised, random_start
from braggshot.physics.fourier import crop, fourier, in_the_middle, inverse_fourier, pad, to_centre, to_corner

CENTRAL = 32  # voxels per axis of the low resolution
FINE = NetworkConfig((16, 32, 48), 2)


@dataclass(frozen=True)
class TwoScaleConfig:
    """What the pass is made of.

    Parameters
    ----------
    coarse, fine : the learned steps at the low resolution and at the full one
    between : projections at the low resolution
    """

    coarse: NetworkConfig = field(default_factory=lambda: NetworkConfig(steps=4))
    fine: NetworkConfig = FINE
    between: ExpertConfig = field(default_factory=ExpertConfig)


class TwoScaleNetwork(nn.Module):
    """Both scales; `forward` as that of `PhaseNetwork`, from a start at the low resolution. Only the fine steps learn here."""

    def __init__(self, config: TwoScaleConfig | None = None, coarse: PhaseNetwork | None = None) -> None:
        super().__init__()
        self.config = config or TwoScaleConfig()
        self.coarse = (coarse or PhaseNetwork(self.config.coarse)).requires_grad_(False)
        self.fine = PhaseNetwork(self.config.fine)

    def forward(self, magnitude: Tensor, valid: Tensor, rho: Tensor, steps: int | None = None) -> list[tuple[Tensor, Tensor]]:
        """The object and the modulus of its transform after every fine step, the last one being the prediction.

        Parameters
        ----------
        magnitude, valid : as in `Measurement`, (n, z, y, x), or (1, z, y, x) for one pattern and n starts
        rho : start on the central voxels, from `start`
        steps : how many fine ones; None is as in the configuration
        """
        data = Measurement(magnitude, valid)
        found: list[tuple[Tensor, Tensor]] = self.fine(magnitude, valid, self.found(data, rho), steps)
        return found

    @torch.no_grad()
    def found(self, data: Measurement, start: Tensor) -> Tensor:
        """What the low resolution says, in the box of the full one (n, z / 2, y / 2, x / 2), of a typical amplitude of one."""
        small = central(data)
        boxes = self.coarse(small.magnitude, small.valid, start)[-1][0]
        better, _ = refined(boxes, small.repeated(len(boxes) // len(small.magnitude)), self.config.between, 0)
        return enlarged(better, small.magnitude.shape[-3:], data.magnitude.shape[-3:])


def central(data: Measurement) -> Measurement:
    """The central fringes: at most `CENTRAL` voxels per axis."""
    shape = [min(n, CENTRAL) for n in data.magnitude.shape[-3:]]
    return Measurement(*(to_corner(crop(to_centre(part), shape)).contiguous() for part in (data.magnitude, data.valid)))


def enlarged(rho: Tensor, shape: torch.Size, whole: torch.Size) -> Tensor:
    """Boxes of the grid `shape` as boxes of the grid `whole`, which has the same extent and finer voxels; centred by mass.

    Projections let an object drift, and the finer box ends where the coarser one does.
    """
    transform = pad(fourier(in_the_middle(pad(rho, shape))), whole)
    return normalised(crop(inverse_fourier(transform), [n // 2 for n in whole]))


def start(network: nn.Module, data: Measurement, generator: Generator, times: int = 1) -> Tensor:
    """A random start for a network, on the voxels where it begins."""
    return random_start(central(data) if isinstance(network, TwoScaleNetwork) else data, generator, times)


def beginning(network: nn.Module) -> nn.Module:
    """The part of a network that finds the object; of one with a single scale, the network."""
    return network.coarse if isinstance(network, TwoScaleNetwork) else network


def rejoined(part: nn.Module, whole: nn.Module | None) -> nn.Module:
    """A network after `part` of it has learned alone: with the fine steps of the one that it was taken from, if that has any."""
    if not isinstance(whole, TwoScaleNetwork) or not isinstance(part, PhaseNetwork):
        return part
    both = TwoScaleNetwork(whole.config, part)
    both.fine = whole.fine
    return both
