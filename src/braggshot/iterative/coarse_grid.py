"""The same measurement with fewer voxels: the central fringes hold the crystal at a lower resolution, at a fraction of the cost.

What is found there is a start for the whole: the outer fringes are then for a few iterations to add.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from braggshot.iterative.iterate import Guess
from braggshot.iterative.projections import Measured, measured
from braggshot.physics.fourier import AXES, crop, pad, to_centre, to_corner


def coarse(data: Measured, largest: int) -> Measured:
    """Of every axis the `largest` central voxels, the held-out ones among them still held out."""
    shape = [min(n, largest) for n in data.shape]
    held_out = torch.zeros_like(data.valid).view(-1).index_fill_(0, data.free, True).view(data.shape)
    return measured(*(crop(to_centre(field), shape) for field in (data.intensity, data.valid, held_out)))


def resampled(guess: Guess, shape: Sequence[int], edge: float) -> Guess:
    """A guess on a grid with other voxels and the same extent, its transform cropped or padded with zeros.

    Parameters
    ----------
    shape : (z, y, x) of the new grid
    edge : amplitude, relative to the largest, from which a voxel belongs to the crystal [1]
    """
    field = to_centre(torch.fft.fftn(guess.rho, dim=AXES, norm="ortho"))
    smaller = [min(a, b) for a, b in zip(field.shape, shape, strict=True)]
    rho = torch.fft.ifftn(to_corner(pad(crop(field, smaller), shape)), dim=AXES, norm="ortho")
    amplitude = rho.abs()
    return Guess(rho, amplitude > edge * amplitude.max(), guess.threshold)
