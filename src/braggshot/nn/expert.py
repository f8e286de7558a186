"""The teacher of expert iteration: the engine of iterative phasing takes a prediction a short way further, without any label."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from braggshot.nn.network import Measurement, magnitude_of, misfit, scale_to
from braggshot.physics.fourier import crop, pad, to_centre, to_corner
from braggshot.refine.iterate import Guess, Progress, RefineConfig, Start, run_starts
from braggshot.refine.projections import Measured, ShrinkWrap

SHORT = RefineConfig(
    "5*(10*RAAR+FLAT)+20*ER", shrink_wrap=ShrinkWrap(period=10, sigma_start=1.5, sigma_end=1.0, sigma_settle=0.5), monitor_every=10
)
"""A prediction needs little more than a settled support: RAAR to get out of a blend, FLAT to keep it open, ER to settle."""


# Teaching goes a little further than phasing: a pattern that is solved teaches, one that is not costs the same and does not.
TEACHING = replace(SHORT, recipe="8*(10*RAAR+FLAT)+20*ER", monitor_every=1000)


@dataclass(frozen=True)
class ExpertConfig:
    """How far the teacher goes.

    Parameters
    ----------
    refine : recipe and shrink-wrap
    support : amplitude of the prediction, between 0 and 1, from which a voxel belongs to the crystal at first [1]
    """

    refine: RefineConfig = TEACHING
    support: float = 0.3


def guess_of(rho: Tensor, shape: torch.Size, support: float, scale: float = 1.0) -> Guess:
    """A box (z / 2, y / 2, x / 2) with amplitudes in (0, 1) as a start for the engine, in photons after `scale`."""
    whole = pad(rho, shape)
    inside = to_corner(whole.abs() > support * rho.abs().max())
    return Guess(to_corner(whole) * scale, inside)


@torch.no_grad()
def refined(rho: Tensor, data: Measurement, config: ExpertConfig, seed: int) -> tuple[Tensor, Tensor]:
    """Refine each prediction (n, z / 2, y / 2, x / 2) against its pattern; the same frame, so nothing has to be aligned.

    Returns
    -------
    rho : refined, same box
    chi2 : of the refined objects (n,) [1]
    """
    shape, box, n = data.magnitude.shape[-3:], rho.shape[-3:], len(rho)
    _, magnitude = magnitude_of(rho, shape)
    scale = scale_to(magnitude, data).flatten().tolist()
    guesses = [guess_of(rho[k], shape, config.support, scale[k]) for k in range(n)]
    starts = finish(run_starts(together(data), replace(config.refine, batch=n), n, seed, guesses))
    better = crop(to_centre(torch.stack([start.rho for start in starts])), box).to(rho.device)
    return better, misfit(magnitude_of(better, shape)[1], data)


def together(data: Measurement) -> Measured:
    """The patterns as the engine wants them, one for each of its starts; nothing is held out."""
    valid = data.valid > 0
    floating = (~valid).reshape(-1).nonzero().squeeze(1)
    return Measured(data.magnitude, floating, floating[:0], data.magnitude.square(), valid)


def finish(running: Generator[Progress, None, list[Start]]) -> list[Start]:
    """Run starts to their end, when nobody looks at them between iterations."""
    while True:
        try:
            next(running)
        except StopIteration as finished:
            return finished.value
