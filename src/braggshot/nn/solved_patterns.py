"""Solve patterns by iterative phasing, keep the solutions, and train a network on them repeatedly; no label is used.

Expert iteration (`braggshot.nn.expert_iteration`) trusts only few of the network's own predictions: those of weakly strained
crystals, which the network knows already. Long iterative phasing from random starts also solves strained crystals. Such phasing
takes several times as long as a training step, so its solutions are stored in files. A pattern counts as solved if the objects of
two independent starts agree. The sum of the two objects is kept, with its centre of mass in the middle of the array. Only the
choice between crystal and twin is then open: the network is taught the one that is nearer to the network's start. Each pattern is
shown in the 48 orientations of the cube, with thinned counts and with other detector gaps (`braggshot.nn.augmentation`). On a GPU
all patterns of a file are phased together, and solved patterns stay in the GPU's memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Generator, Tensor

from braggshot.crystals.detector import DetectorSettings, draw_chip, draw_frames
from braggshot.crystals.random import derive_generator, uniform
from braggshot.errors import DataError
from braggshot.iterative.algorithms import State
from braggshot.iterative.iterate import FirstSupport, IterativeConfig, iterate
from braggshot.iterative.projections import ShrinkWrap, autocorrelation_support
from braggshot.iterative.recipe import parse_recipe
from braggshot.nn import weights
from braggshot.nn.augmentation import Orientation, draw_balls, orientations, thin_counts, turn
from braggshot.nn.datasets import TRAINING, Batch, Source, seed_of
from braggshot.nn.expert_iteration import join_patterns
from braggshot.nn.losses import correlation
from braggshot.nn.network import Measurement
from braggshot.physics.fourier import AXES, crop, in_the_middle, inverted, to_centre

HIDDEN = -1.0  # value of voxels that are not valid, in arrays of counts without a mask [photons]


@dataclass(frozen=True)
class SolvedConfig:
    """Settings of two steps: patterns are solved by iterative phasing, then shown to a network in training.

    Parameters
    ----------
    patterns : number of patterns to solve; 0 trains without solved patterns
    shard : number of patterns per file; a GPU phases the patterns of a file together
    starts : largest number of random starts per pattern; phasing stops once two agree
    agreement : correlation of the objects of two starts, after alignment, above which a pattern counts as solved [1]
    refine : recipe and settings of the phasing of one start
    first_support : settings of the support with which a start begins
    faintest : lowest number of photons that thinning leaves in the brightest voxel
    detector : faults, such as gaps, dead pixels and lost frames, that are added to a part of the patterns shown to the network
    damaged : share of the patterns shown to which such faults are added [1]
    """

    patterns: int = 0
    shard: int = 32
    starts: int = 4
    agreement: float = 0.97
    refine: IterativeConfig = field(
        default_factory=lambda: IterativeConfig(shrink_wrap=ShrinkWrap(sigma_start=1.5, sigma_end=0.7), monitor_every=1000)
    )
    first_support: FirstSupport = field(default_factory=FirstSupport)
    faintest: float = 1e3
    detector: DetectorSettings = field(
        default_factory=lambda: DetectorSettings(gaps=0.5, gap_widths=(2, 3, 4), dead=0.002, missing=2)
    )
    damaged: float = 0.3


def solve(source: Source, folder: Path, config: SolvedConfig, seed: int) -> Iterator[tuple[int, int]]:
    """Solve patterns and write them to `folder`, file by file; yield the numbers of patterns (tried, solved) after each file.

    The patterns of a file that exists are not solved again.

    Parameters
    ----------
    source : source of patterns of one shape, on the device to use; their truth is not used
    """
    given = solved = 0
    for number in range(-(-config.patterns // config.shard)):
        path = folder / f"{number:05d}.safetensors"
        if not path.exists():
            batch = source(number, 0, config.shard)
            counts, valid = batch.counts, batch.valid
            # A CPU solves one pattern at a time, because its cache holds only one.
            size = 1 if counts.device.type == "cpu" else len(counts)
            parts = enumerate(zip(torch.split(counts, size), torch.split(valid, size), strict=True))
            answers = [solve_batch(*part, config, seed_of(seed, number, k)) for k, part in parts]
            rho, known = (torch.cat(column) for column in zip(*answers, strict=True))
            tensors = {"counts": counts[known], "valid": valid[known], "rho": torch.view_as_real(rho[known])}
            weights.write(path, tensors, {"given": config.shard})
        given, solved = given + config.shard, solved + len(weights.read(path)[0]["rho"])
        yield given, solved


def solve_batch(counts: Tensor, valid: Tensor, config: SolvedConfig, seed: int) -> tuple[Tensor, Tensor]:
    """Phase n patterns (n, z, y, x), each until the objects of two random starts agree, or all starts are used.

    Returns
    -------
    rho : (n, z / 2, y / 2, x / 2) complex, sum of the two objects that agree, centred at N // 2; zero for a pattern not solved
    known : (n,) True for a solved pattern
    """
    n, box = len(counts), [size // 2 for size in counts.shape[1:]]
    host = Generator().manual_seed(seed)
    generator = derive_generator(host, counts.device)
    answers = torch.zeros(n, *box, dtype=torch.complex64, device=counts.device)
    known = torch.zeros(n, dtype=torch.bool, device=counts.device)
    tried: list[Tensor] = []
    for _ in range(config.starts):
        left = (~known).nonzero().squeeze(1)
        if not len(left):
            break
        rho = _run_start(Measurement.of(counts[left], valid[left]), config, generator, host)
        objects = torch.zeros_like(answers).index_copy_(0, left, crop(in_the_middle(to_centre(rho)), box))
        for earlier in tried:
            other = nearer_twin(objects, earlier)
            agree = ~known & (correlation(objects, other) >= config.agreement)
            overlap = (other.conj() * objects).sum(AXES, keepdim=True)
            mean = objects + other * overlap / overlap.abs().clamp_min(1e-30)
            answers, known = torch.where(agree[:, None, None, None], mean, answers), known | agree
        tried.append(objects)
    return in_the_middle(answers), known


def _run_start(data: Measurement, config: SolvedConfig, generator: Generator, host: Generator) -> Tensor:
    """Phase each pattern from one random start by the whole recipe; return objects (n, z, y, x), origin at the first voxel."""
    n = len(data.magnitude)
    drawn, refine = uniform(generator, *config.first_support.threshold, n), config.refine
    support = autocorrelation_support(data.magnitude, drawn, config.first_support.extent)
    rho = torch.polar(support.float(), uniform(generator, 0, 2 * math.pi, *support.shape))
    photons, power = data.magnitude.square().sum(AXES, keepdim=True), support.sum(AXES, keepdim=True).clamp_min(1)
    threshold = uniform(generator, *refine.shrink_wrap.threshold, n)
    state = State(rho * (photons / power).sqrt(), support, threshold, generators=[host] * n)
    for _ in iterate(join_patterns(data), state, refine, parse_recipe(refine.recipe)):
        pass
    return state.rho


def replay_source(
    folder: Path, config: SolvedConfig, seed: int, hidden: float = 0.05, device: torch.device | str = "cpu"
) -> Source:
    """Return a source that shows solved patterns repeatedly, each time turned, with other noise and other hidden voxels.

    Raises
    ------
    DataError : if `folder` holds no solved pattern.
    """
    pool, objects = (tensor.to(device) for tensor in read_solved(folder))
    if not len(pool):
        raise DataError(f"{folder}: no pattern was solved; ask for more of them, or for easier crystals.")
    shape, ways = pool.shape[1:], orientations(pool.shape[1:])
    turns, half = (turn_indices(size, ways).to(device) for size in (shape, objects.shape[1:4]))

    def source(step: int, chunk: int, n: int, family: int = TRAINING) -> Batch:
        generator = derive_generator(Generator().manual_seed(seed_of(seed, step, chunk, family)), device)
        chosen = torch.randint(len(pool), (n,), generator=generator, device=pool.device)
        how = torch.randint(len(ways), (n,), generator=generator, device=pool.device)
        seen = pool[chosen].flatten(1).gather(1, turns[how]).view(n, *shape)
        parts = objects[chosen].flatten(1, 3).gather(1, half[how][..., None].expand(-1, -1, 2))
        solution = torch.view_as_complex(parts.view(n, *objects.shape[1:]))
        counts = thin_counts(generator, seen.clamp_min(0), config.faintest)
        damaged = uniform(generator, 0, 1, n) < config.damaged
        rocking = draw_frames(generator, n, shape[0], config.detector.missing)[:, :, None, None]
        whole = draw_chip(generator, counts, config.detector)[:, None] & rocking | ~damaged[:, None, None, None]
        valid = (seen != HIDDEN) & whole & ~draw_balls(generator, seen.shape, hidden)
        return Batch(counts * valid, valid, solution=solution)

    return source


def read_solved(folder: Path) -> tuple[Tensor, Tensor]:
    """Read all solved patterns of a folder: counts (m, z, y, x), `HIDDEN` (-1) where not valid, and objects (m, ..., 2).

    The last axis of the objects is (real part, imaginary part).
    """
    shards = [weights.read(path)[0] for path in sorted(folder.glob("*.safetensors"))]
    if not shards:
        return torch.empty(0), torch.empty(0)
    counts = torch.cat([shard["counts"].masked_fill(~shard["valid"], HIDDEN) for shard in shards])
    return counts, torch.cat([shard["rho"] for shard in shards])


def turn_indices(shape: torch.Size, ways: list[Orientation]) -> Tensor:
    """Return a table of flat voxel indices (orientations, voxels) by which a gather operation turns arrays.

    The entry (k, j) is the index of the voxel that orientation k moves to the voxel j.
    """
    index = torch.arange(shape.numel()).view(shape)
    return torch.stack([turn(index, way).reshape(-1) for way in ways])


def split_source(lessons: Source, exam: Source) -> Source:
    """Return a source that takes training patterns from one source and validation patterns from another."""

    def source(step: int, chunk: int, n: int, family: int = TRAINING) -> Batch:
        return (lessons if family == TRAINING else exam)(step, chunk, n, family)

    return source


def nearer_twin(rho: Tensor, solution: Tensor) -> Tensor:
    """Return each object of `solution` (n, z, y, x) or its conjugate inversion, whichever correlates more with `rho`."""
    twin = inverted(solution).conj().resolve_conj()
    likeness = [(rho.conj() * candidate).sum(AXES).abs() for candidate in (solution, twin)]
    return torch.where((likeness[0] >= likeness[1])[:, None, None, None], solution, twin)
