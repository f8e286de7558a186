"""Run recipes over batches of starts, as a generator that its caller owns.

`run_starts` yields a `Progress` after each iteration and returns the finished starts. Between two iterations its caller may show
progress, draw a live picture or stop. The choice among the starts and the verdict are made in `braggshot.phasing`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from braggshot.iterative.algorithms import State, StepConfig, find_step
from braggshot.iterative.projections import Measured, autocorrelation_support
from braggshot.iterative.recipe import parse_recipe
from braggshot.iterative.side_by_side import run_side_by_side
from braggshot.physics.forward import PointSpread

# Recipe of a random start of the method "iterative", in the language of `braggshot.iterative.recipe`.
DEFAULT_RECIPE = "4*(5*(10*HIO+FLAT)+8*(10*RAAR+FLAT)+3*(10*ER+FLAT))+DETWIN+2*(50*HIO+80*RAAR+30*ER)+100*ER"


P = TypeVar("P")
T = TypeVar("T")


@dataclass(frozen=True)
class IterativeConfig(StepConfig):
    """Settings of the phasing of a start: the recipe, and the settings of its steps.

    Parameters
    ----------
    recipe : steps, left to right, as in ``3*(20*ER+180*HIO)+20*ER``
    beta : relaxation of HIO, RAAR and DM [1]
    shrink_wrap : settings of the support updates
    psf : "gaussian" or "pseudo-voigt", the shape of the point spread that PSF steps fit
    flatness : how far the step FLAT evens out the amplitude inside the support, from 0 (not at all) to 1 (one value) [1]
    monitor_every : iterations between two evaluations of the error
    batch : number of starts that run together; 0 chooses it (one on a CPU, whose caches hold one volume; all that fit on a GPU)
    """

    recipe: str = DEFAULT_RECIPE
    monitor_every: int = 5
    batch: int = 0

    def __post_init__(self) -> None:
        parse_recipe(self.recipe)


@dataclass(frozen=True)
class FirstSupport:
    """Settings of the support with which a random start begins: a part of the region where the autocorrelation is high.

    Parameters
    ----------
    threshold : bounds between which each start draws a threshold, relative to the maximum; the region is where the
        autocorrelation exceeds this threshold [1]
    extent : linear size of the support, relative to that of the region [1]
    """

    threshold: tuple[float, float] = (0.08, 0.12)
    extent: float = 0.7


@dataclass(frozen=True)
class Progress:
    """State of a run between two iterations, for its caller.

    Parameters
    ----------
    iteration, n_iterations : number of iterations that are done, and number of all iterations, summed over the batches
    step : name of the step just done
    starts : numbers of the starts in this batch
    error : (batch,) latest misfit of each start to the counts, None before the first evaluation [1]
    state : the state of this batch, to look at but not to change; it goes on meanwhile where batches run side by side. None where
        something else than starts is fitted
    """

    iteration: int
    n_iterations: int
    step: str
    starts: Sequence[int]
    error: Tensor | None
    state: State | None


@dataclass(frozen=True)
class Guess:
    """An object from which phasing begins: a finished start or a network's hypothesis; corner layout (origin at index 0).

    Parameters
    ----------
    rho : (z, y, x) complex [sqrt(photons)]
    support : (z, y, x) bool
    threshold : threshold of the shrink-wrap; None draws one at random [1]
    """

    rho: Tensor
    support: Tensor
    threshold: float | None = None


@dataclass(frozen=True)
class Start:
    """One finished start on the CPU, in corner layout (origin at index 0).

    Parameters
    ----------
    rho : (z, y, x) complex64, zero outside the support [sqrt(photons)]
    support : (z, y, x) bool
    seed : seed of the random numbers of this start
    threshold : threshold of the shrink-wrap at the end [1]
    sigma, eta : widths [reciprocal voxels] and Lorentzian share [1] of the point spread; zeros for full coherence
    history : table with the columns iteration, error and support_fraction
    """

    rho: Tensor
    support: Tensor
    seed: int
    threshold: float
    sigma: tuple[float, float, float]
    eta: float
    history: Tensor


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Flush denormal numbers to zero inside a ``with`` block; afterwards the thread has its own setting again."""
    before = sys.float_info.min / 2 == 0  # True if this thread already flushes denormal numbers to zero
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def flush_denormals(running: Generator[P, None, T]) -> Generator[P, None, T]:
    """Run a generator while denormal numbers, which slow a CPU down, are flushed to zero; the caller's own setting is kept."""
    try:
        while True:
            try:
                with flushed_denormals():
                    progress = next(running)
            except StopIteration as finished:
                value: T = finished.value
                return value
            yield progress
    finally:
        running.close()


def set_point_spread(spread: PointSpread | None, starts: list[Start]) -> list[Start]:
    """Give each start the point spread by which its intensity is blurred before a comparison with the counts.

    If `spread` is None, the starts stay as they are.
    """
    return starts if spread is None else [replace(start, sigma=spread.sigma, eta=spread.eta) for start in starts]


def run_starts(
    data: Measured,
    config: IterativeConfig,
    n_starts: int,
    seed: int = 0,
    first: Sequence[Guess] = (),
    first_support: FirstSupport | None = None,
) -> Generator[Progress, None, list[Start]]:
    """Phase `n_starts` independent starts.

    Parameters
    ----------
    data : measurement on the device to use
    seed : start k draws all its random numbers from seed + k, whatever the batching
    first : guesses with which the first starts begin instead of random phases
    first_support : settings of the support with which random starts begin
    """
    n_iterations = sum(find_step(name)[1] for name in parse_recipe(config.recipe))
    on_cpu = data.magnitude.device.type == "cpu"
    size = config.batch or (1 if on_cpu else _fitting_batch(data, n_starts))
    batches = [range(i, min(i + size, n_starts)) for i in range(0, n_starts, size)]
    runs = [_run_batch(data, config, batch, seed, first, first_support or FirstSupport()) for batch in batches]
    running, done = run_side_by_side(runs, _workers(data, len(batches)) if on_cpu else 1), 0
    while True:
        try:
            number, (name, state) = next(running)
        except StopIteration as finished:
            return [start for batch in finished.value for start in batch]
        done += 1
        yield Progress(done, len(batches) * n_iterations, name, batches[number], state.error, state)


def continue_starts(starts: Sequence[Start], data: Measured, config: IterativeConfig) -> Generator[Progress, None, list[Start]]:
    """Continue finished starts with another recipe; the starts keep their seeds, but not their point spreads."""
    guesses = [Guess(start.rho, start.support, start.threshold) for start in starts]
    found = yield from run_starts(data, config, len(starts), 0, guesses)
    return [replace(new, seed=old.seed) for new, old in zip(found, starts, strict=True)]


def iterate(data: Measured, state: State, config: IterativeConfig, steps: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Run steps on a state, yielding (iterations done, step name) after each step that counts as an iteration.

    If the recipe has ``SW`` steps, only these update the support. Otherwise the support is updated every `shrink_wrap.period`
    iterations, but not at the end of the recipe.
    """
    n_iterations = max(1, sum(find_step(name)[1] for name in steps))
    period = 0 if "SW" in steps else config.shrink_wrap.period
    update_support, _ = find_step("SW")
    done = 0
    for name in steps:
        step, counts = find_step(name)
        state.progress = done / n_iterations
        state.wants_error = counts and ((done + 1) % config.monitor_every == 0 or done + 1 == n_iterations)
        step(state, data, config)
        if not counts:
            continue
        done += 1
        # The last update comes early enough for the object to settle in its final support.
        if period and done % period == 0 and done <= n_iterations - period:
            update_support(state, data, config)
        yield done, name
    state.rho.mul_(state.support)


def _run_batch(
    data: Measured, config: IterativeConfig, batch: Sequence[int], seed: int, first: Sequence[Guess], first_support: FirstSupport
) -> Generator[tuple[str, State], None, list[Start]]:
    """Phase the starts of one batch; after each iteration, yield the name of the step and the state."""
    state = _begin(data, config, batch, seed, first, first_support)
    history: list[tuple[float, ...]] = []
    for done, name in iterate(data, state, config, parse_recipe(config.recipe)):
        if state.wants_error and state.error is not None:
            history.append((done, *state.error.tolist(), *state.support_fraction))
        yield name, state
    finished = _finish(state, torch.tensor(history).reshape(-1, 1 + 2 * len(batch)), batch, seed)
    if not all(bool(torch.isfinite(torch.view_as_real(start.rho)).all()) for start in finished):
        raise ArithmeticError("phasing produced numbers that are not finite; please report this with the data.")
    return finished


def _begin(
    data: Measured, config: IterativeConfig, batch: Sequence[int], seed: int, first: Sequence[Guess], first_support: FirstSupport
) -> State:
    """Begin each start with its guess, or with random phases inside the first support, scaled to the measured photons."""
    generators = [torch.Generator().manual_seed(seed + number) for number in batch]
    guesses = [
        first[number] if number < len(first) else _random_guess(data, first_support, generator)
        for number, generator in zip(batch, generators, strict=True)
    ]
    low, high = config.shrink_wrap.threshold
    drawn = [low + (high - low) * _uniform(generator) for generator in generators]
    device = data.magnitude.device
    rho = torch.stack([guess.rho.to(device, torch.complex64) for guess in guesses]).contiguous()
    return State(
        rho=rho,
        support=torch.stack([guess.support.to(device) for guess in guesses]),
        threshold=torch.tensor([d if g.threshold is None else g.threshold for d, g in zip(drawn, guesses, strict=True)]),
        generators=generators,
    )


def _random_guess(data: Measured, first_support: FirstSupport, generator: torch.Generator) -> Guess:
    low, high = first_support.threshold
    threshold = torch.tensor([low + (high - low) * _uniform(generator)])
    support = autocorrelation_support(data.magnitude[None], threshold, first_support.extent)[0]
    phase = 2 * math.pi * torch.rand(tuple(data.shape), generator=generator)
    rho = torch.polar(torch.ones_like(phase), phase).to(support.device) * support
    return Guess(rho * (math.sqrt(data.photons) / torch.linalg.vector_norm(torch.view_as_real(rho))), support)


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def _finish(state: State, history: Tensor, batch: Sequence[int], seed: int) -> list[Start]:
    n = len(batch)
    spreads = [None] * n if state.coherence is None else state.coherence.spreads
    return [
        Start(
            rho=state.rho[k].cpu().clone(),
            support=state.support[k].cpu().clone(),
            seed=seed + number,
            threshold=float(state.threshold[k]),
            sigma=(0.0, 0.0, 0.0) if spread is None else spread.sigma,
            eta=0.0 if spread is None else spread.eta,
            history=history[:, [0, 1 + k, 1 + n + k]],
        )
        for k, (number, spread) in enumerate(zip(batch, spreads, strict=True))
    ]


def _workers(data: Measured, batches: int) -> int:
    """Return how many batches run side by side on the CPU: as many as torch has threads, but few of large volumes."""
    return max(1, min(torch.get_num_threads(), batches, SIDE_BY_SIDE // data.magnitude.numel()))


SIDE_BY_SIDE = 2**23  # most voxels of all starts that run side by side on the CPU; they take 0.6 GB
BYTES_PER_VOXEL_AND_START = 72
"""Memory of one start on a GPU [bytes per voxel]: 8 for rho, 16 for transform and projection, 1 for the support, 47 for work."""


def _fitting_batch(data: Measured, n_starts: int) -> int:
    free, _ = torch.cuda.mem_get_info(data.magnitude.device)
    return max(1, min(n_starts, int(0.8 * free) // (BYTES_PER_VOXEL_AND_START * data.magnitude.numel())))
