"""Draw random numbers, directions and rotations, on the device of their generator."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor


def uniform(generator: Generator, low: float, high: float, *shape: int) -> Tensor:
    """Draw numbers uniformly in [low, high)."""
    return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)


def log_uniform(generator: Generator, low: float, high: float, *shape: int) -> Tensor:
    """Draw numbers whose logarithm is uniform, so that every factor of ten between low and high is equally likely."""
    return torch.exp(uniform(generator, math.log(low), math.log(high), *shape))


def directions(generator: Generator, *shape: int) -> Tensor:
    """Draw unit vectors (*shape, 3) without a preferred direction."""
    return torch.nn.functional.normalize(torch.randn(*shape, 3, generator=generator, device=generator.device), dim=-1)


def rotations(generator: Generator, n: int) -> Tensor:
    """Draw orientations (n, 3, 3), uniform on the rotation group, from unit quaternions w + xi + yj + zk."""
    q = torch.nn.functional.normalize(torch.randn(n, 4, generator=generator, device=generator.device), dim=-1)
    w, x, y, z = q.unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def derive_generator(generator: Generator, device: torch.device | str) -> Generator:
    """Return a generator on `device` whose numbers follow from `generator`.

    A generator that is on that device already is returned as it is.
    """
    if torch.device(device).type == generator.device.type:
        return generator
    seed = torch.randint(2**62, (1,), generator=generator, device=generator.device)
    return torch.Generator(device).manual_seed(int(seed))
