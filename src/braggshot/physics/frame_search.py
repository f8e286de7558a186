r"""Find the voxel size of an object, and along which axes it is mirrored, from the counts that it scatters into.

An object of another program does not tell the window of the scan in which it was phased. If the window is E raw voxels wide, the
voxel n of the object scatters into the raw voxel k by

.. math:: F_k = \sum_n \rho_n \, e^{-2\pi i\, k \cdot n / E}

Cropping the object to its support, and binning the counts, both leave E larger than the array. So one number per axis says how
large a voxel is. If an even number of voxels was binned, k lies between two raw voxels. E is found where \|F\| correlates best with
the measured magnitudes. E need not be the length of any array, so F is computed as a product with one matrix per axis.

A mirrored object scatters into the mirrored pattern. The conjugate object scatters into the inverted pattern, as does the object
mirrored along all three axes: no intensity tells these two apart. So there are eight patterns, one per set of mirrored axes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from braggshot.physics.fourier import AXES, crop

Extents = tuple[float, float, float]
MIRRORS: tuple[tuple[int, ...], ...] = tuple(axes for n in range(4) for axes in itertools.combinations(range(3), n))
# The search begins with few speckles about the peak, because their places are known even with a wrong extent.
FEW_SPECKLES = 9  # width of the part of the pattern that is used first [speckles]
SIZES = np.geomspace(0.7, 1.4, 9)  # factors of all extents that are tried first, about those from the size of the crystal [1]
# Factors of each extent in turn, in steps that become finer [1].
COARSE, FINE, FINEST = np.linspace(0.85, 1.18, 9), np.linspace(0.96, 1.04, 7), np.linspace(0.99, 1.01, 5)
EVEN = 1.15  # an even extent is preferred to an odd one if the misfit is at most this times as large [1]
KEPT = 2  # number of mirrorings that are searched finely


@dataclass(frozen=True)
class Placement:
    """Where an object belongs: the window in which it was phased, and how it is mirrored.

    Parameters
    ----------
    extents : width of the window per axis [raw voxels]
    mirrored : axes along which the object has to be mirrored; all three stand for its complex conjugate
    correlation : correlation of the magnitudes of the object with the measured ones [1]
    between : by how much the raw voxels lie beyond the whole k of the object, 0 or 0.5 per axis [raw voxels]
    """

    extents: Extents
    mirrored: tuple[int, ...]
    correlation: float
    between: tuple[float, float, float] = (0.0, 0.0, 0.0)


def find_placement(rho: Tensor, magnitude: Tensor, speckle: Sequence[float], size: Sequence[float]) -> Placement:
    """Find the window in which an object was phased, from the magnitudes of a scan that is not binned.

    Parameters
    ----------
    rho : (z, y, x) complex object, zero outside its support
    magnitude : (z, y, x) measured magnitudes, 0 where not valid, the peak near N // 2 [sqrt(photons)]
    speckle : size of a speckle per axis, which is the oversampling of the scan [raw voxels]
    size : size of the crystal per axis [voxels of the object]
    """
    inside = rho[tuple(slice(int(at.min()), int(at.max()) + 1) for at in torch.nonzero(rho, as_tuple=True))]
    few = [min(full, 2 * math.ceil(FEW_SPECKLES * width / 2)) for full, width in zip(magnitude.shape, speckle, strict=True)]
    first, whole = _Pattern.of(inside, crop(magnitude, few)), _Pattern.of(inside, magnitude)
    guess = [voxels * width for voxels, width in zip(size, speckle, strict=True)]
    found = []
    for mirrored in MIRRORS:
        score = _scorer(first, mirrored)
        scale = max(SIZES, key=lambda factor: score([factor * extent for extent in guess]))
        extents = _refine(score, [scale * extent for extent in guess], [COARSE, COARSE, FINE])
        found.append(Placement(extents, mirrored, score(extents)))
    best = sorted(found, key=lambda one: -one.correlation)[:KEPT]
    return max((_finish(whole, one) for one in best), key=lambda one: one.correlation)


def _finish(pattern: _Pattern, rough: Placement) -> Placement:
    """Refine a placement by all measured magnitudes, to whole extents, and to raw voxels on or between those of the object."""
    score = _scorer(pattern, rough.mirrored)
    extents, between = np.rint(_refine(score, rough.extents, [FINE, FINEST])), np.zeros(3)

    def fit(tried: tuple[NDArray[np.float64], NDArray[np.float64]]) -> float:
        return score(tried[0].tolist(), tried[1].tolist())

    for _ in range(3):
        before = extents, between
        for axis in range(3):
            unit = np.eye(3)[axis]
            steps = [(extents + step * unit, np.where(unit, half, between)) for step in (-2, -1, 0, 1, 2) for half in (0.0, 0.5)]
            extents, between = max(steps, key=fit)
        if np.array_equal(before, (extents, between)):
            break
    for axis in range(3):  # windows are even almost always, and one voxel more or less is hardly seen
        if extents[axis] % 2:
            odd = fit((extents, between))
            even = max((extents + step * np.eye(3)[axis] for step in (-1, 1)), key=lambda one: fit((one, between)))
            extents = even if 1 - fit((even, between)) ** 2 < EVEN**2 * (1 - odd**2) else extents
    z, y, x = extents.tolist()
    half_z, half_y, half_x = between.tolist()
    return Placement((z, y, x), rough.mirrored, fit((extents, between)), (half_z, half_y, half_x))


def _refine(score: Callable[[Sequence[float]], float], extents: Sequence[float], rounds: Sequence[np.ndarray]) -> Extents:
    """Vary one extent after the other by the factors of each round, and keep the best."""
    best = list(extents)
    for factors in rounds:
        for axis in range(3):
            tried = [[*best[:axis], factor * best[axis], *best[axis + 1 :]] for factor in factors]
            best = max(tried, key=score)
    return best[0], best[1], best[2]


@dataclass(frozen=True)
class _Pattern:
    """An object, the place of its strongest scattering [1/voxel], and the measured magnitudes with their transform."""

    rho: Tensor
    peak: tuple[float, ...]
    magnitude: Tensor
    transform: Tensor

    @classmethod
    def of(cls, rho: Tensor, magnitude: Tensor) -> _Pattern:
        """Prepare the comparison of an object with magnitudes."""
        padded = [2 * n for n in rho.shape]
        place = np.unravel_index(int(torch.fft.fftn(rho, s=padded).abs().argmax()), padded)
        peak = tuple(float(np.fft.fftfreq(n)[index]) for n, index in zip(padded, place, strict=True))
        return cls(rho, peak, magnitude.float(), torch.fft.rfftn(magnitude.float()))


def _scorer(pattern: _Pattern, mirrored: Sequence[int]) -> Callable[..., float]:
    """Return the function from extents, and places between voxels, to the highest correlation over all whole shifts.

    Only the window that was phased is compared.
    """
    shape = pattern.magnitude.shape

    def score(extents: Sequence[float], between: Sequence[float] = (0.0, 0.0, 0.0)) -> float:
        model = _scattered(pattern, extents, between)
        model = model.flip([AXES[axis] for axis in mirrored]) if mirrored else model
        product = torch.fft.rfftn(model, s=shape).conj() * pattern.transform
        overlap = torch.fft.irfftn(product, s=shape)
        place = [int(index) for index in np.unravel_index(int(overlap.argmax()), shape)]
        below = torch.roll(pattern.magnitude, [-index for index in place], AXES)[tuple(slice(n) for n in model.shape)]
        return float(overlap.max() / (torch.linalg.vector_norm(below) * torch.linalg.vector_norm(model)).clamp_min(1e-30))

    return score


def _scattered(pattern: _Pattern, extents: Sequence[float], between: Sequence[float]) -> Tensor:
    """Compute |F| in the raw voxels of the window that was phased; of one beyond the scan, about the strongest scattering."""
    field = pattern.rho
    for axis, (extent, peak, width) in enumerate(zip(extents, pattern.peak, pattern.magnitude.shape, strict=True)):
        middle, width = (0, round(extent)) if round(extent) <= width else (round(extent * peak), width)
        k = middle + between[axis] + torch.arange(width) - width // 2
        turns = torch.outer(k, torch.arange(field.shape[axis])).double() / extent
        waves = torch.exp(-2j * math.pi * turns).to(torch.complex64)
        field = torch.movedim(torch.tensordot(waves, field, dims=([1], [axis])), 0, axis)
    return field.abs()
