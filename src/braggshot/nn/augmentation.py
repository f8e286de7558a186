r"""Augment patterns: turn a pattern as if the crystal were turned, thin its counts as in a shorter exposure, or hide voxels.

.. math:: \rho'(r) = \rho(M r) \;\Rightarrow\; I'(q) = I(M q), \qquad M \text{ a signed permutation of the axes}

rho is the crystal at the position r, and I its pattern at the point q of reciprocal space. The primes mark the turned crystal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle, islice, permutations, product

import torch
from torch import Generator, Tensor

from braggshot.physics.fourier import AXES, inverted

# Turn of an array: the new order of its axes (z, y, x), and for each axis in that order whether it is flipped.
Orientation = tuple[tuple[int, ...], tuple[bool, ...]]


def orientations(shape: Sequence[int]) -> list[Orientation]:
    """List the combinations of a permutation and flips of the axes that keep the shape of an array: 48 for a cube."""
    allowed = [p for p in permutations(range(3)) if tuple(shape[a] for a in p) == tuple(shape)]
    return list(product(allowed, product((False, True), repeat=3)))


def choose_orientations(shape: Sequence[int], n: int) -> list[Orientation]:
    """List `n` orientations, the identity first; the list repeats itself if the shape of the array allows fewer.

    Of two orientations that differ by an inversion, one is left out, because the inversion only shows the twin.
    """
    asis, *others = (way for way in orientations(shape) if not way[1][0])
    # In no order that goes through one permutation of the axes after the other: few have to be as different as many.
    order = torch.randperm(len(others), generator=Generator().manual_seed(0)).tolist()
    return list(islice(cycle([asis, *(others[k] for k in order)]), n))


def turn(field: Tensor, orientation: Orientation) -> Tensor:
    """Permute the axes of a field (z, y, x), then flip some of the axes about the voxel N // 2, which stays in place."""
    order, flips = orientation
    field = field.permute(*order)
    return inverted(field, [axis for axis, flip in enumerate(flips) if flip])


def turn_back(field: Tensor, orientation: Orientation) -> Tensor:
    """Turn a field (z, y, x) back: flip its axes about the voxel N // 2, then restore their order; this undoes `turn`."""
    order, flips = orientation
    return inverted(field, [axis for axis, flip in enumerate(flips) if flip]).permute(*map(order.index, range(3)))


def thin_counts(generator: Generator, counts: Tensor, faintest: float) -> Tensor:
    """Keep a random share of the photons of each pattern (n, z, y, x).

    The share is drawn on a logarithmic scale, between 1 and the share that leaves about `faintest` photons in the brightest voxel.
    Binomial thinning of Poisson counts gives Poisson counts.
    """
    lowest = (faintest / counts.amax(AXES, keepdim=True).clamp_min(1)).clamp_max(1)
    keep = lowest ** torch.rand((len(counts), 1, 1, 1), generator=generator, device=counts.device)
    return torch.binomial(counts.round(), keep.expand_as(counts).contiguous(), generator=generator)


def draw_balls(generator: Generator, shape: torch.Size, share: float) -> Tensor:
    """Draw a mask (n, z, y, x) that is True in small balls at random places; a ball is a voxel and its six neighbours.

    The balls fill about the part `share` of the volume. A box around the peak, which reaches a tenth of each axis to either side,
    stays free of balls.
    """
    device = generator.device
    centres = torch.rand(shape, generator=generator, device=device) < share / 7
    outside = torch.zeros((), dtype=torch.bool, device=device)
    for axis, size in enumerate(shape[1:], start=1):
        near = (torch.arange(size, device=device) - size // 2).abs() <= math.ceil(size / 10) + 1
        far = (~near).reshape([-1 if other == axis else 1 for other in range(4)])
        outside = outside | far
    centres &= outside
    grown = centres.clone()
    for axis in (1, 2, 3):
        grown |= centres.roll(1, axis) | centres.roll(-1, axis)
    return grown
