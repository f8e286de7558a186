"""Random numbers, directions and rotations, on the device of their generator."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor


def uniform(generator: Generator, low: float, high: float, *shape: int) -> Tensor:
    """Uniform in [low, high)."""
    return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)


def log_uniform(generator: Generator, low: float, high: float, *shape: int) -> Tensor:
    """Every factor of ten between low and high is as likely as any other."""
    return torch.exp(uniform(generator, math.log(low), math.log(high), *shape))


def directions(generator: Generator, *shape: int) -> Tensor:
    """Unit vectors (*shape, 3) without a preferred direction."""
    return torch.nn.functional.normalize(torch.randn(*shape, 3, generator=generator, device=generator.device), dim=-1)


def rotations(generator: Generator, n: int) -> Tensor:
    """Orientations (n, 3, 3), uniform on the rotation group: unit quaternions w + xi + yj + zk."""
    q = torch.nn.functional.normalize(torch.randn(n, 4, generator=generator, device=generator.device), dim=-1)
    w, x, y, z = q.unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def derived(generator: Generator, device: torch.device | str) -> Generator:
    """A generator on `device` whose numbers follow from `generator`; that one itself where it already lives there."""
    if torch.device(device).type == generator.device.type:
        return generator
    seed = torch.randint(2**62, (1,), generator=generator, device=generator.device)
    return torch.Generator(device).manual_seed(int(seed))
