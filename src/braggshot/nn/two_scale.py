r"""The flagship's whole forward pass: learned steps at a low resolution and at the full one, projections after each.

::

    counts ----------------------------+-------------------------------------+
      | central fringes                | the same                            | all
      v                                v                                     v
    learned steps (`coarse`)  ->  projections, shrink-wrap (`between`)  ->  learned steps (`fine`)  ->  projections (`after`)
      16^3 voxels of 32^3              a hundred                             32^3 voxels of 64^3           ten, then the object

The central fringes hold the crystal at half the resolution and an eighth of the cost, so that is where it is found: what the first
steps leave undecided, mostly how much of an answer is its twin, projections settle. The outer fringes say how sharp its surface is
and how its phase turns from voxel to voxel: few learned steps add that, each with one modulus projection, where error reduction
takes dozens of iterations; ten of those then bring the object to the counts. No weight is fitted to the pattern at hand: the pass
is the same operations for each.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor, nn

from braggshot.iterative.iterate import IterativeConfig
from braggshot.iterative.projections import ShrinkWrap
from braggshot.nn.expert_iteration import ExpertConfig, refined
from braggshot.nn.network import Measurement, NetworkConfig, PhaseNetwork, magnitude_of, normalised, random_start
from braggshot.physics.fourier import crop, fourier, in_the_middle, inverse_fourier, pad, to_centre, to_corner

CENTRAL = 32  # voxels per axis of the low resolution
FINE = NetworkConfig((16, 32, 48), 2)
# The support is wide, since where photons are few a tight one cuts the crystal.
ENDING = ExpertConfig(IterativeConfig(recipe="10*ER", shrink_wrap=ShrinkWrap(period=0), monitor_every=1000), support=0.2)
_CYCLE = "5*(10*HIO+FLAT)+8*(10*RAAR+FLAT)+30*ER"
# Where answers differ the low resolution is searched on: a wide blur that narrows lets go of a wrong object.
LONG = ExpertConfig(
    IterativeConfig(
        recipe=f"4*({_CYCLE})", shrink_wrap=ShrinkWrap(sigma_start=2.0, sigma_end=1.0), flatness=0.5, monitor_every=1000
    )
)


@dataclass(frozen=True)
class TwoScaleConfig:
    """What the pass is made of.

    Parameters
    ----------
    coarse, fine : the learned steps at the low resolution and at the full one
    between, after : projections at the low resolution, and at the end of the pass; training knows nothing of the latter
    """

    coarse: NetworkConfig = field(default_factory=lambda: NetworkConfig(steps=4))
    fine: NetworkConfig = FINE
    between: ExpertConfig = field(default_factory=ExpertConfig)
    after: ExpertConfig = ENDING


class TwoScaleNetwork(nn.Module):
    """Both scales; `forward` as that of `PhaseNetwork`, from a start at the low resolution. Only the fine steps learn here."""

    def __init__(self, config: TwoScaleConfig | None = None, coarse: PhaseNetwork | None = None) -> None:
        super().__init__()
        self.config = config or TwoScaleConfig()
        self.coarse = (coarse or PhaseNetwork(self.config.coarse)).requires_grad_(False)
        self.fine = PhaseNetwork(self.config.fine)

    def forward(self, magnitude: Tensor, valid: Tensor, rho: Tensor, steps: int | None = None) -> list[tuple[Tensor, Tensor]]:
        """The object and the modulus of its transform after every fine step and, but in training, after the projections at the end.

        The last one is the prediction.

        Parameters
        ----------
        magnitude, valid : as in `Measurement`, (n, z, y, x), or (1, z, y, x) for one pattern and n starts
        rho : start on the central voxels, from `start`
        steps : how many fine ones; None is as in the configuration
        """
        data = Measurement(magnitude, valid)
        return self.sharpened(data, self.found(data, rho)[0], steps)

    def sharpened(self, data: Measurement, found: Tensor, steps: int | None = None) -> list[tuple[Tensor, Tensor]]:
        """The whole from what the low resolution found."""
        shape = data.magnitude.shape[-3:]
        begin = enlarged(found, central(data).magnitude.shape[-3:], shape)
        better: list[tuple[Tensor, Tensor]] = self.fine(data.magnitude, data.valid, begin, steps)
        return better if self.training else [*better, self._ended(data, better[-1][0])]

    def _ended(self, data: Measurement, rho: Tensor) -> tuple[Tensor, Tensor]:
        better, _ = refined(rho, data.repeated(len(rho) // len(data.magnitude)), self.config.after, 0)
        better = normalised(better)
        return better, magnitude_of(better, data.magnitude.shape[-3:])[1]

    @torch.no_grad()
    def found(self, data: Measurement, start: Tensor) -> tuple[Tensor, Tensor]:
        """What the low resolution says, boxes of half of its voxels per axis, and its chi2 (n,)."""
        small = central(data)
        boxes = self.coarse(small.magnitude, small.valid, start)[-1][0]
        return refined(boxes, small.repeated(len(boxes) // len(small.magnitude)), self.config.between, 0)


@torch.no_grad()
def gone_on(data: Measurement, found: Tensor) -> tuple[Tensor, Tensor]:
    """As `TwoScaleNetwork.found`, after a long recipe from there, one pattern for each box."""
    return refined(found, central(data), LONG, 0, is_centred=True)


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
