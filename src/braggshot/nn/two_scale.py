"""Define the whole forward pass of the shipped network: learned steps at low and at full resolution, projections after each.

::

    counts ----------------------------+-------------------------------------+
      | central fringes                | the same                            | all
      v                                v                                     v
    learned steps (`coarse`)  ->  projections, shrink-wrap (`between`)  ->  learned steps (`fine`)  ->  projections (`after`)
      32^3 counts,                     100 iterations                        64^3 counts,                 10 iterations,
      object of 16^3 voxels                                                  object of 32^3 voxels        then the object

The crystal is found from the central fringes, which show it at half the resolution for an eighth of the cost. The first learned
steps often end in a blend of the crystal with its twin; the projections after them resolve the blend. The outer fringes say how
sharp the surface is and how the phase turns from voxel to voxel. A few learned steps, with one modulus projection each, add these
details; error reduction would take dozens of iterations. Ten iterations of error reduction then fit the object to the counts. No
weight is fitted to the measured pattern: the pass applies the same operations to every pattern.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor, nn

from braggshot.iterative.iterate import IterativeConfig
from braggshot.iterative.projections import ShrinkWrap
from braggshot.nn.expert_iteration import ExpertConfig, refine_predictions
from braggshot.nn.network import Measurement, NetworkConfig, PhaseNetwork, magnitude_of, normalise, random_start
from braggshot.physics.fourier import crop, fourier, in_the_middle, inverse_fourier, pad, to_centre, to_corner

CENTRAL = 32  # largest number of voxels per axis of a pattern at the low resolution
# Size of the network at the full resolution: the channels of the levels of its U-Net, and the number of learned steps.
FINE = NetworkConfig((16, 32, 48), 2)
# Settings of the projections at the end of the pass. The first support is wide, because with few photons a tight support cuts the
# crystal.
ENDING = ExpertConfig(IterativeConfig(recipe="10*ER", shrink_wrap=ShrinkWrap(period=0), monitor_every=1000), support=0.2)
# Iterations that the recipe of long phasing at the low resolution repeats four times.
_CYCLE = "5*(10*HIO+FLAT)+8*(10*RAAR+FLAT)+30*ER"
# Settings of long phasing at the low resolution, for patterns whose predictions differ. The support comes from a blur of the
# object; the blur is wide at first, so that phasing can get away from a wrong object.
LONG = ExpertConfig(
    IterativeConfig(
        recipe=f"4*({_CYCLE})", shrink_wrap=ShrinkWrap(sigma_start=2.0, sigma_end=1.0), flatness=0.5, monitor_every=1000
    )
)


@dataclass(frozen=True)
class TwoScaleConfig:
    """Settings of the forward pass at two resolutions.

    Parameters
    ----------
    coarse, fine : settings of the learned steps at the low resolution, and at the full resolution
    between, after : settings of the projections at the low resolution, and of the projections at the end, which training leaves out
    """

    coarse: NetworkConfig = field(default_factory=lambda: NetworkConfig(steps=4))
    fine: NetworkConfig = FINE
    between: ExpertConfig = field(default_factory=ExpertConfig)
    after: ExpertConfig = ENDING


class TwoScaleNetwork(nn.Module):
    """Network that predicts a crystal at a low resolution and then at the full resolution.

    Its forward pass takes the same arguments as `PhaseNetwork`, with a start at the low resolution. Training changes only the steps
    at the full resolution; the low-resolution network is trained before.
    """

    def __init__(self, config: TwoScaleConfig | None = None, coarse: PhaseNetwork | None = None) -> None:
        super().__init__()
        self.config = config or TwoScaleConfig()
        self.coarse = (coarse or PhaseNetwork(self.config.coarse)).requires_grad_(False)
        self.fine = PhaseNetwork(self.config.fine)

    def forward(self, magnitude: Tensor, valid: Tensor, rho: Tensor, steps: int | None = None) -> list[tuple[Tensor, Tensor]]:
        """Return the object and the modulus of its transform after every step at the full resolution.

        The last object is the prediction. Outside of training, the list ends with the object after the final projections.

        Parameters
        ----------
        magnitude, valid : square root of the counts, and mask of the trusted voxels, as in `Measurement`: (n, z, y, x), or
            (1, z, y, x) for one pattern and n starts
        rho : start at the low resolution, from `draw_start`
        steps : number of steps at the full resolution; None takes the number of the configuration
        """
        data = Measurement(magnitude, valid)
        return self.apply_fine(data, self.apply_coarse(data, rho)[0], steps)

    def apply_fine(self, data: Measurement, boxes: Tensor, steps: int | None = None) -> list[tuple[Tensor, Tensor]]:
        """Apply the learned steps at the full resolution to low-resolution objects; return the objects after every step."""
        shape = data.magnitude.shape[-3:]
        begin = enlarge(boxes, central_fringes(data).magnitude.shape[-3:], shape)
        better: list[tuple[Tensor, Tensor]] = self.fine(data.magnitude, data.valid, begin, steps)
        return better if self.training else [*better, self._apply_projections(data, better[-1][0])]

    def _apply_projections(self, data: Measurement, rho: Tensor) -> tuple[Tensor, Tensor]:
        better, _ = refine_predictions(rho, data.repeat(len(rho) // len(data.magnitude)), self.config.after, 0)
        better = normalise(better)
        return better, magnitude_of(better, data.magnitude.shape[-3:])[1]

    @torch.no_grad()
    def apply_coarse(self, data: Measurement, start: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the low-resolution network and the projections after it.

        Returns objects in the central half of the array per axis, and their chi2 (n,).
        """
        small = central_fringes(data)
        boxes = self.coarse(small.magnitude, small.valid, start)[-1][0]
        return refine_predictions(boxes, small.repeat(len(boxes) // len(small.magnitude)), self.config.between, 0)


@torch.no_grad()
def search_coarse(data: Measurement, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Continue each low-resolution object by long phasing of its own pattern; return the objects and their chi2 (n,)."""
    return refine_predictions(boxes, central_fringes(data), LONG, 0, is_centred=True)


def central_fringes(data: Measurement) -> Measurement:
    """Crop patterns to their central fringes, at most `CENTRAL` (32) voxels per axis."""
    shape = [min(n, CENTRAL) for n in data.magnitude.shape[-3:]]
    return Measurement(*(to_corner(crop(to_centre(part), shape)).contiguous() for part in (data.magnitude, data.valid)))


def enlarge(rho: Tensor, shape: torch.Size, whole: torch.Size) -> Tensor:
    """Move the centre of mass of low-resolution objects to the middle, and interpolate the objects to a finer grid.

    `rho` holds the central half, per axis, of arrays of `shape`. The result holds the central half of arrays of `whole`, which have
    the same width in metres. Objects are moved because projections let them drift, and what lies outside that half is lost.
    """
    transform = pad(fourier(in_the_middle(pad(rho, shape))), whole)
    return normalise(crop(inverse_fourier(transform), [n // 2 for n in whole]))


def draw_start(network: nn.Module, data: Measurement, generator: Generator, times: int = 1) -> Tensor:
    """Draw random starts for a network: at the low resolution for a two-scale network, else on the grid of the data."""
    return random_start(central_fringes(data) if isinstance(network, TwoScaleNetwork) else data, generator, times)


def coarse_network(network: nn.Module) -> nn.Module:
    """Return the low-resolution part of a two-scale network; for a network of one resolution, the network itself."""
    return network.coarse if isinstance(network, TwoScaleNetwork) else network


def with_fine_steps(part: nn.Module, whole: nn.Module | None) -> nn.Module:
    """Return the network to save after `part` was trained.

    If `whole` is a two-scale network and `part` a network of one resolution, the result is a two-scale network: `part` at the low
    resolution, then the full-resolution steps of `whole`. Else the result is `part`.
    """
    if not isinstance(whole, TwoScaleNetwork) or not isinstance(part, PhaseNetwork):
        return part
    both = TwoScaleNetwork(whole.config, part)
    both.fine = whole.fine
    return both
