"""Crop a measurement to its central voxels, from which the crystal is phased at a lower resolution, for a fraction of the cost.

The crystal found from the cropped pattern serves as a guess for the whole pattern, whose outer fringes a few iterations then fit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from braggshot.iterative.iterate import Guess
from braggshot.iterative.projections import Measured, measured
from braggshot.physics.fourier import AXES, crop, pad, to_centre, to_corner


def crop_to_centre(data: Measured, largest: int) -> Measured:
    """Crop a measurement to at most `largest` central voxels per axis; held-out voxels stay held out."""
    shape = [min(n, largest) for n in data.shape]
    held_out = torch.zeros_like(data.valid).view(-1).index_fill_(0, data.free, True).view(data.shape)
    return measured(*(crop(to_centre(field), shape) for field in (data.intensity, data.valid, held_out)))


def resample_guess(guess: Guess, shape: Sequence[int], threshold: float) -> Guess:
    """Bring a guess to a grid of the same extent with voxels of another size: crop its transform, or pad it with zeros.

    Parameters
    ----------
    shape : (z, y, x) of the new grid
    threshold : amplitude, relative to the largest, above which a voxel belongs to the support [1]
    """
    field = to_centre(torch.fft.fftn(guess.rho, dim=AXES, norm="ortho"))
    smaller = [min(a, b) for a, b in zip(field.shape, shape, strict=True)]
    rho = torch.fft.ifftn(to_corner(pad(crop(field, smaller), shape)), dim=AXES, norm="ortho")
    amplitude = rho.abs()
    return Guess(rho, amplitude > threshold * amplitude.max(), guess.threshold)
