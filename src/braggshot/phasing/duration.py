"""Estimate how long phasing takes on this machine: time a few iterations on the volume, and count those of the strategy."""

from __future__ import annotations

import math
import time
from dataclasses import replace

from braggshot.iterative.iterate import IterativeConfig, run_starts
from braggshot.iterative.projections import Measured
from braggshot.iterative.recipe import parse_recipe
from braggshot.iterative.spacing import widest
from braggshot.phasing.auto import searching
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.hypotheses import POLISH
from braggshot.phasing.pattern import measure_oversampling
from braggshot.phasing.problem import prepare_measured
from braggshot.phasing.rounds import TournamentConfig
from braggshot.phasing.strategies import find_strategy
from braggshot.phasing.tournament import coarse_voxels
from braggshot.volumes import DiffractionVolume

TRIED = "12*HIO+3*ER"  # recipe of the iterations that are timed
# Time of the network's predictions over that of one iteration on 64^3 voxels [1], measured with the shipped network.
NETWORK = 300
RESAMPLED = 64**3  # number of voxels of the grid on which the network sees a pattern


def estimate_duration(volume: DiffractionVolume, config: PhasingConfig) -> tuple[float, float]:
    """Estimate the time of phasing a volume on this machine [s].

    Returns
    -------
    The time where random starts confirm the first guess or nothing has to be searched for, and the time of the longest search.
    """
    data = prepare_measured(volume, config)
    trial = replace(config.iterative, recipe=TRIED)
    _time_iteration(data, trial)  # the first run makes plans of the transforms
    each = _time_iteration(data, trial)
    voxels = data.intensity.numel()
    oversampling = volume.oversampling or measure_oversampling(data)
    wide = math.prod(widest(volume.shape, oversampling, config.search_oversampling).shape) / voxels
    confirm, search, further = (
        _count_rounds(rounds, starts, wide * _coarse_share(data, rounds), wide)
        for rounds, starts in (
            (config.volume_tournament, config.confirm_starts),
            (searching(config, True), config.search_starts),
            (searching(config, False), config.further_starts),
        )
    )
    network = NETWORK * RESAMPLED / voxels if find_strategy(config.method).needs_network else 0.0
    refine = config.hypotheses * (wide * len(parse_recipe(config.refine.recipe)) + (wide < 1) * len(parse_recipe(POLISH)))
    polish = (wide < 1) * len(parse_recipe(config.volume_tournament.polish))
    deepen = config.hypotheses * (wide * len(parse_recipe(config.deepen.recipe)) + polish)
    iterative = config.starts * len(parse_recipe(config.iterative.recipe))
    shortest, longest = {
        "auto": (network + refine + confirm, network + refine + deepen + search + (config.max_tournaments - 1) * further),
        "oneshot": (network, network),
        "refine": (network + refine, network + refine + deepen),
    }.get(config.method, (iterative, iterative))
    return each * shortest, each * longest


def _time_iteration(data: Measured, config: IterativeConfig) -> float:
    """Return the time of one iteration of one start [s]."""
    began = time.perf_counter()
    for _ in run_starts(data, config, 2, 0):
        pass
    return (time.perf_counter() - began) / (2 * len(parse_recipe(config.recipe)))


def _coarse_share(data: Measured, config: TournamentConfig) -> float:
    """Return the share of all voxels that the coarse grid of a tournament holds, before it is resampled at wider spacings."""
    return min(1.0, coarse_voxels(data, config.counts_share, config.smallest_grid) ** 3 / data.intensity.numel())


def _count_rounds(config: TournamentConfig, starts: tuple[int, int, int], coarse: float, wide: float) -> float:
    """Count the iterations of a tournament, as iterations on all voxels.

    An iteration on the coarse grid counts `coarse`, one with all fringes at the wider spacings `wide`, their shares of all voxels.
    """
    rounds = zip(starts, (config.opening, config.narrowing, config.settling), strict=True)
    before = sum(number * len(parse_recipe(one.recipe)) for number, one in rounds)
    last = wide * len(parse_recipe(config.finish.recipe)) + (wide < 1) * len(parse_recipe(config.polish))
    return coarse * before + starts[-1] * last
