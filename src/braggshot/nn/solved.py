r"""Patterns that iterative phasing has solved, kept to teach from again and again; no label enters.

Expert iteration (`braggshot.nn.expert`) believes few of the network's own answers: those of mild crystals, which it knows already.
Random starts of the long recipe solve strained ones too. They take several times as long as a training step, so what they find is
kept, and a pattern is shown in each of the cube's 48 orientations, with its counts thinned and other gaps: `braggshot.nn.views`.
A pattern counts as solved where two independent starts agree. Its object has its centre of mass in the middle, so only the twin
is open, and each hypothesis is taught the twin that its start is nearer to.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import torch
from torch import Generator, Tensor

from braggshot.crystals.detector import DetectorSettings, chip, frames
from braggshot.errors import DataError
from braggshot.nn import weights
from braggshot.nn.datasets import TRAINING, Batch, Source, seed_of
from braggshot.nn.expert import finish
from braggshot.nn.views import balls, orientations, thinned, turned
from braggshot.physics import metrics
from braggshot.physics.fourier import AXES, crop, frequencies, to_centre
from braggshot.refine.iterate import RefineConfig, Start, run_starts
from braggshot.refine.projections import Measured, ShrinkWrap, held_out_voxels, measured

AT_HAND = 512  # shards kept in memory


@dataclass(frozen=True)
class SolvedConfig:
    """How patterns are solved, and how they are shown.

    Parameters
    ----------
    patterns : how many the teacher is given; 0 does without it
    shard : patterns per file
    starts : random starts per pattern at most; two that agree are enough
    agreement : aligned correlation of two starts from which the pattern counts as solved [1]
    refine : how one start is phased
    faintest : photons in the brightest voxel below which counts are not thinned
    detector : gaps, dead pixels and lost frames of a presentation; its share of presentations is `damaged`
    damaged : share of the presentations that have them [1]
    """

    patterns: int = 0
    shard: int = 32
    starts: int = 4
    agreement: float = 0.97
    refine: RefineConfig = field(
        default_factory=lambda: RefineConfig(shrink_wrap=ShrinkWrap(sigma_start=1.5, sigma_end=0.7), monitor_every=1000)
    )
    faintest: float = 1e3
    detector: DetectorSettings = field(
        default_factory=lambda: DetectorSettings(gaps=0.5, gap_widths=(2, 3, 4), dead=0.002, missing=2)
    )
    damaged: float = 0.3


def solve(source: Source, folder: Path, config: SolvedConfig, seed: int) -> Iterator[tuple[int, int]]:
    """Solve patterns shard by shard into `folder`, yielding (given, solved) after each; shards that are there stay.

    Parameters
    ----------
    source : of patterns of one shape; what it knows of their truth is not looked at
    """
    given = found = 0
    for number in range(-(-config.patterns // config.shard)):
        path = folder / f"{number:05d}.safetensors"
        if not path.exists():
            batch = source(number, 0, config.shard)
            seeds = [seed_of(seed, number, k) for k in range(config.shard)]
            objects = [solution(batch.counts[k], batch.valid[k], config, seeds[k]) for k in range(config.shard)]
            keep = [k for k, rho in enumerate(objects) if rho is not None]
            boxes = [torch.view_as_real(rho) for rho in objects if rho is not None]
            half = [n // 2 for n in batch.counts.shape[1:]]
            rho = torch.stack(boxes) if boxes else torch.zeros(0, *half, 2)
            weights.write(path, {"counts": batch.counts[keep], "valid": batch.valid[keep], "rho": rho}, {"given": config.shard})
        given, found = given + config.shard, found + len(_read(path)[0])
        yield given, found


def solution(counts: Tensor, valid: Tensor, config: SolvedConfig, seed: int) -> Tensor | None:
    """The object (z / 2, y / 2, x / 2) of one pattern (z, y, x), centred at N // 2, or None where no two starts agree.

    Held-out voxels choose between the two that agree.
    """
    generator = Generator().manual_seed(seed)
    data = measured(counts, valid, held_out_voxels(valid, generator=generator))
    tried: list[Start] = []
    for number in range(config.starts):
        (start,) = finish(run_starts(data, config.refine, 1, seed + number))
        for other in tried:
            if metrics.align(start.rho, other.rho).correlation >= config.agreement:
                better = min((start, other), key=lambda s: _free_misfit(s.rho, data))
                return crop(in_the_middle(to_centre(better.rho)), [n // 2 for n in counts.shape])
        tried.append(start)
    return None


def _free_misfit(rho: Tensor, data: Measured) -> float:
    found = metrics.misfit(torch.fft.fftn(rho, norm="ortho").abs(), data.intensity, data.valid)
    model, counts = found.magnitude.square().reshape(-1), data.intensity.reshape(-1)
    return float(metrics.half_deviance(model[data.free], counts[data.free]).mean())


def in_the_middle(rho: Tensor) -> Tensor:
    r"""Shift an object (z, y, x) so that the centre of mass of \|rho\|^2, on the circle, is at N // 2 exactly."""
    power, transform = rho.abs().square(), torch.fft.fftn(rho)
    for axis, (size, frequency) in enumerate(zip(rho.shape, frequencies(rho.shape), strict=True)):
        profile = power.sum([a for a in range(3) if a != axis])
        index = torch.arange(size) - size // 2
        centre = torch.angle((profile * torch.exp(2j * math.pi * index / size)).sum()) * size / (2 * math.pi)
        transform = transform * torch.exp(2j * math.pi * frequency * centre)
    return torch.fft.ifftn(transform)


def replayed(folder: Path, config: SolvedConfig, seed: int, hidden: float = 0.05) -> Source:
    """Solved patterns, each time in another orientation, with other noise and other voxels hidden.

    Raises
    ------
    DataError : if `folder` holds no solved pattern.
    """
    shards = [path for path in sorted(folder.glob("*.safetensors")) if len(_read(path)[0])]
    if not shards:
        raise DataError(f"{folder}: no pattern was solved; ask for more of them, or for easier crystals.")

    def source(step: int, chunk: int, n: int, family: int = TRAINING) -> Batch:
        generator = Generator().manual_seed(seed_of(seed, step, chunk, family))
        counts, valid, rho = (torch.stack(column) for column in zip(*(_drawn(generator, shards) for _ in range(n)), strict=True))
        counts = thinned(generator, counts, config.faintest)
        damaged = torch.rand(n, generator=generator) < config.damaged
        rocking = frames(generator, n, counts.shape[1], config.detector.missing)[:, :, None, None]
        whole = chip(generator, counts, config.detector)[:, None] & rocking | ~damaged[:, None, None, None]
        valid = valid & whole & ~balls(generator, valid.shape, hidden)
        return Batch(counts * valid, valid, solution=torch.view_as_complex(rho.contiguous()))

    return source


def _drawn(generator: Generator, shards: Sequence[Path]) -> tuple[Tensor, Tensor, Tensor]:
    """One solved pattern in one orientation: counts, valid, and the object's parts (..., 2)."""
    counts, valid, rho = _read(shards[_below(generator, len(shards))])
    k, choices = _below(generator, len(counts)), orientations(counts.shape[1:])
    how = choices[_below(generator, len(choices))]
    parts = torch.stack([turned(rho[k, ..., part], how) for part in (0, 1)], -1)
    return turned(counts[k], how), turned(valid[k], how), parts


def taught(lessons: Source, exam: Source) -> Source:
    """Training patterns from one source and validation from another."""

    def source(step: int, chunk: int, n: int, family: int = TRAINING) -> Batch:
        return (lessons if family == TRAINING else exam)(step, chunk, n, family)

    return source


def nearer_twin(rho: Tensor, solution: Tensor) -> Tensor:
    """Of each object in `solution` and its conjugate inversion the one that correlates more with `rho`; (n, z, y, x) complex."""
    twin = torch.roll(solution.flip(AXES), [1 - n % 2 for n in solution.shape[1:]], AXES).conj().resolve_conj()
    likeness = [(rho.conj() * candidate).sum(AXES).abs() for candidate in (solution, twin)]
    return torch.where((likeness[0] >= likeness[1])[:, None, None, None], solution, twin)


def _below(generator: Generator, limit: int) -> int:
    return int(torch.randint(limit, (), generator=generator))


@lru_cache(AT_HAND)
def _read(path: Path) -> tuple[Tensor, Tensor, Tensor]:
    tensors, _ = weights.read(path)
    return tensors["counts"], tensors["valid"], tensors["rho"]
