"""Refine a prediction of the network by a few iterations of phasing; the network learns from the result (expert iteration).

No label is used.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from braggshot.crystals.random import uniform
from braggshot.iterative.algorithms import State
from braggshot.iterative.iterate import IterativeConfig, iterate
from braggshot.iterative.projections import Measured, ShrinkWrap
from braggshot.iterative.recipe import parse_recipe
from braggshot.nn.network import Measurement, magnitude_of, misfit, scale_to
from braggshot.physics.fourier import AXES, crop, in_the_middle, pad, to_centre, to_corner

SHORT = IterativeConfig(
    recipe="5*(10*RAAR+FLAT)+20*ER",
    shrink_wrap=ShrinkWrap(period=10, sigma_start=1.5, sigma_end=1.0, sigma_settle=0.5),
    monitor_every=10,
)
"""Settings of the refinement of a prediction.

The support of a prediction mostly needs improvement. RAAR iterations get away from a blend of the crystal with its twin, FLAT
steps keep the amplitude even, and error reduction (ER) converges.
"""


# Settings with which predictions are refined in training, as targets to learn from. There are more iterations than for a final
# prediction, because more iterations solve more patterns, and a network learns only from solved patterns.
TEACHING = replace(SHORT, recipe="8*(10*RAAR+FLAT)+20*ER", monitor_every=1000)

SHARPENING = replace(SHORT, recipe="3*(10*RAAR+FLAT)+30*ER", monitor_every=1000)
"""Settings with which predictions at the full resolution are refined in training, as targets for a two-scale network."""


@dataclass(frozen=True)
class ExpertConfig:
    """Settings of the refinement of a network's predictions by iterations of phasing.

    Parameters
    ----------
    refine : recipe and settings of the iterations
    support : amplitude above which a voxel is in the first support, relative to the largest amplitude of the prediction [1]
    """

    refine: IterativeConfig = TEACHING
    support: float = 0.3


@torch.no_grad()
def refine_predictions(
    rho: Tensor, data: Measurement, config: ExpertConfig, seed: int, is_centred: bool = False
) -> tuple[Tensor, Tensor]:
    """Refine each prediction (n, z / 2, y / 2, x / 2) against its pattern.

    The refined object stays where the prediction is, so the two need no alignment. During a long recipe an object may drift out of
    the central half of the array. If `is_centred` is true, the refined object's centre of mass is moved to the middle before the
    object is cropped. Then the prediction must be centred in the same way.

    Returns
    -------
    rho : refined objects, (n, z / 2, y / 2, x / 2) [sqrt(photons)]
    chi2 : misfits of the refined objects (n,) [1]
    """
    shape, box, n = data.magnitude.shape[-3:], rho.shape[-3:], len(rho)
    scale = scale_to(magnitude_of(rho, shape)[1], data)
    inside = rho.abs() > config.support * rho.abs().amax(AXES, keepdim=True)
    # Random numbers of each prediction, which do not depend on the size of the batch.
    generators = [Generator().manual_seed(seed + k) for k in range(n)]
    threshold = torch.cat([uniform(generator, *config.refine.shrink_wrap.threshold, 1) for generator in generators])
    start = to_corner(pad(rho * scale, shape)).contiguous()
    state = State(start, to_corner(pad(inside, shape)).contiguous(), threshold, generators=generators)
    for _ in iterate(join_patterns(data), state, config.refine, parse_recipe(config.refine.recipe)):
        pass
    better = to_centre(state.rho)
    better = crop(in_the_middle(better) if is_centred else better, box)
    return better, misfit(magnitude_of(better, shape)[1], data)


def join_patterns(data: Measurement) -> Measured:
    """Turn patterns into the input of iterative phasing: one start for each pattern, and no voxel held out to judge the result."""
    valid = data.valid > 0
    floating = (~valid).reshape(-1).nonzero().squeeze(1)
    return Measured(data.magnitude, floating, floating[:0], data.magnitude.square(), valid)
