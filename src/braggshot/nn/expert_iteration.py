"""The teacher of expert iteration: the engine of iterative phasing takes a prediction a short way further, without any label."""

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
"""A prediction needs little more than a settled support: RAAR to get out of a blend, FLAT to keep it open, ER to settle."""


# Teaching goes a little further than phasing: a pattern that is solved teaches, one that is not costs the same and does not.
TEACHING = replace(SHORT, recipe="8*(10*RAAR+FLAT)+20*ER", monitor_every=1000)

SHARPENING = replace(SHORT, recipe="3*(10*RAAR+FLAT)+30*ER", monitor_every=1000)
"""What teaches a network's steps at the full resolution, which begin with an object that is found."""


@dataclass(frozen=True)
class ExpertConfig:
    """How far the teacher goes.

    Parameters
    ----------
    refine : recipe and shrink-wrap
    support : amplitude of the prediction, between 0 and 1, from which a voxel belongs to the crystal at first [1]
    """

    refine: IterativeConfig = TEACHING
    support: float = 0.3


@torch.no_grad()
def refined(rho: Tensor, data: Measurement, config: ExpertConfig, seed: int, is_centred: bool = False) -> tuple[Tensor, Tensor]:
    """Refine each prediction (n, z / 2, y / 2, x / 2) against its pattern; the same frame, so nothing has to be aligned.

    Long recipes let an object drift out of its box: it stays whole where it `is_centred` by its mass before.

    Returns
    -------
    rho : refined, same box [sqrt(photons)]
    chi2 : of the refined objects (n,) [1]
    """
    shape, box, n = data.magnitude.shape[-3:], rho.shape[-3:], len(rho)
    scale = scale_to(magnitude_of(rho, shape)[1], data)
    inside = rho.abs() > config.support * rho.abs().amax(AXES, keepdim=True)
    generators = [Generator().manual_seed(seed + k) for k in range(n)]  # of its own each, so that company changes nothing
    threshold = torch.cat([uniform(generator, *config.refine.shrink_wrap.threshold, 1) for generator in generators])
    start = to_corner(pad(rho * scale, shape)).contiguous()
    state = State(start, to_corner(pad(inside, shape)).contiguous(), threshold, generators=generators)
    for _ in iterate(together(data), state, config.refine, parse_recipe(config.refine.recipe)):
        pass
    better = to_centre(state.rho)
    better = crop(in_the_middle(better) if is_centred else better, box)
    return better, misfit(magnitude_of(better, shape)[1], data)


def together(data: Measurement) -> Measured:
    """The patterns as the engine wants them, one for each of its starts; nothing is held out."""
    valid = data.valid > 0
    floating = (~valid).reshape(-1).nonzero().squeeze(1)
    return Measured(data.magnitude, floating, floating[:0], data.magnitude.square(), valid)
