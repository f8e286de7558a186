"""Choose the part of the raw grid that becomes a volume: binning, lengths that transform quickly, crop and padding.

Voxel i of an axis covers the raw indices ``start + i * binning`` and the ``binning - 1`` that follow (`braggshot.volumes.Window`).
Of the N voxels of an axis, voxel N // 2 holds the peak.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from braggshot.volumes import FloatArray, Window

Triple = tuple[int, int, int]
Number = TypeVar("Number", bound=np.generic)

FAST_PRIMES = (2, 3, 5, 7)
BIN_FROM, BIN_TO = 6.0, 3.0  # least oversampling of an axis that is binned, and least oversampling after binning [1]
AVERAGED = 0.1  # misfit that averaging in bins may add: `averaged_misfit` [1]
LOOKED_AT = 128  # length of an axis of the part about the peak in which that is estimated [voxels]
ACROSS = 20  # least number of voxels across the crystal, where the scan is large enough


def is_fast(length: int) -> bool:
    """Tell whether the Fourier transform of an axis of this length is quick: the length has no prime factor above 7."""
    for prime in FAST_PRIMES:
        while length > 1 and length % prime == 0:
            length //= prime
    return length == 1


def fast_length(limit: int) -> int:
    """Return the largest even length up to `limit` whose Fourier transform is quick; at least 2."""
    return next((length for length in range(limit - limit % 2, 2, -2) if is_fast(length)), 2)


def choose_binning(counts: FloatArray, oversampling: Sequence[float], certain: Sequence[bool] = (True, True, True)) -> Triple:
    """Choose the binning of each axis.

    An axis with an oversampling of six or more is binned, if the oversampling is certain; it stays at least three. Bins become
    smaller where there are so many photons that what a bin averages would be seen: see `averaged_misfit`.
    """
    ratios = zip(oversampling, certain, strict=True)
    bins = [int(ratio // BIN_TO) if known and ratio >= BIN_FROM else 1 for ratio, known in ratios]
    while max(bins) > 1 and averaged_misfit(counts, (bins[0], bins[1], bins[2]), oversampling) > AVERAGED:
        bins[bins.index(max(bins))] -= 1
    return bins[0], bins[1], bins[2]


def averaged_misfit(counts: FloatArray, binning: Triple, oversampling: Sequence[float]) -> float:
    r"""Estimate by how much bins miss the pattern at their middles, because they average it.

    .. math:: \Bigl\langle \frac{b (m^2 - \sigma^2)}{2 \max(\bar I, 1/b)} \Bigr\rangle, \qquad
        m = \sum_i (a_i - c_i) I_i, \qquad \sigma^2 = \sum_i (a_i - c_i)^2 I_i

    with the mean :math:`a` over the b voxels of a bin, the cubic interpolation :math:`c` at its middle, and the mean counts nearby
    :math:`\bar I`. Photon noise adds :math:`\sigma^2` to the square of m, so it is taken off. Each m is made of the voxels in and
    beside a bin, so that a fault of the detector in a bright speckle does not reach voxels with few photons. The result is some
    tenth of half the deviance per bin of a pattern with dark fringes, of which photon noise makes 0.5.

    Parameters
    ----------
    counts : (z, y, x), the peak near the middle; up to 128 voxels of each axis about the middle are looked at [counts]
    binning : voxels per bin (z, y, x)
    oversampling : oversampling of the counts, per axis
    """
    half = [fast_length(min(size, LOOKED_AT)) // 2 for size in counts.shape]
    part = tuple(slice(size // 2 - h, size // 2 + h) for size, h in zip(counts.shape, half, strict=True))
    counts, voxels = np.asarray(counts[part], np.float32), math.prod(binning)
    mean, middle = zip(*(_bin_weights(bins) for bins in binning), strict=True)
    missed = _weigh(counts, mean) - _weigh(counts, middle)
    products = ((mean, mean, 1), (mean, middle, -2), (middle, middle, 1))
    noise = sum(sign * _weigh(counts, [a * c for a, c in zip(one, other, strict=True)]) for one, other, sign in products)
    nearby = ndimage.gaussian_filter(counts, [ratio / 8 for ratio in oversampling])
    return float((voxels * (missed**2 - noise) / (2 * np.maximum(nearby, 1 / voxels))).mean())


def _bin_weights(bins: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the weights of voxels in the mean over a bin, and in the cubic interpolation at its middle."""
    if bins % 2:
        size, middle = bins, np.ones(1)
    else:
        size, middle = max(bins, 4), np.array([-1, 9, 9, -1]) / 16
    mean = np.full(bins, 1 / bins)
    padded = [np.pad(one, (size - len(one)) // 2).astype(np.float32) for one in (mean, middle)]
    return padded[0], padded[1]


def _weigh(counts: NDArray[np.float32], weights: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return weighted sums over neighbours, axis by axis."""
    for axis, weight in enumerate(weights):
        counts = ndimage.correlate1d(counts, weight, axis, mode="constant")
    return counts


def choose_shape(
    raw_shape: Triple, reach: Triple, oversampling: Sequence[float], binning: Triple, max_shape: Triple
) -> Triple:  # fmt: skip
    """Choose the shape of a volume that holds the signal, with at least 20 voxels across the crystal.

    The Fourier transforms of the lengths are quick. No length exceeds that of the scan or `max_shape`.

    Parameters
    ----------
    raw_shape : shape of the scan [raw voxels]
    reach : half widths of the box that holds the signal [raw voxels]
    oversampling : oversampling of the raw grid, per axis
    binning : raw voxels per voxel of the volume, per axis
    max_shape : largest shape that may be chosen [voxels]
    """
    z, y, x = (
        fast_length(min(max(2 * half, math.ceil(ACROSS * ratio)) // bins, size // bins, limit))
        for half, ratio, bins, size, limit in zip(reach, oversampling, binning, raw_shape, max_shape, strict=True)
    )
    return z, y, x


def window_about(peak: Sequence[float], raw_shape: Triple, binning: Triple, shape: Triple) -> Window:
    """Return the part of the raw scan (window) whose centre voxel, N // 2 on each axis, lies closest to `peak`.

    The position `peak` is an index of the raw scan, and may have a fractional part.
    """
    z, y, x = (
        int(np.rint(index - (bins - 1) / 2)) - bins * (size // 2) for index, bins, size in zip(peak, binning, shape, strict=True)
    )
    return Window((z, y, x), binning, raw_shape)


def grow(window: Window, shape: Triple, margin: Triple) -> tuple[Window, Triple]:
    """Return a window with `margin` voxels more on each side, and the shape of its volume; the voxel N // 2 stays."""
    start = [first - bins * more for first, bins, more in zip(window.start, window.binning, margin, strict=True)]
    size = [full + 2 * more for full, more in zip(shape, margin, strict=True)]
    return replace(window, start=(start[0], start[1], start[2])), (size[0], size[1], size[2])


def raw_extent(window: Window, shape: Triple) -> tuple[Triple, Triple]:
    """Return, for each axis of a window, its first raw index and the one after its last; both may lie outside the scan."""
    z, y, x = (first + bins * size for first, bins, size in zip(window.start, window.binning, shape, strict=True))
    return window.start, (z, y, x)


def raw_centre(window: Window, shape: Triple) -> NDArray[np.float64]:
    """Return where the centre voxel N // 2 of the prepared volume lies in the raw scan, as a fractional index of raw voxels."""
    bins = np.asarray(window.binning)
    return np.asarray(window.start) + bins * (np.asarray(shape) // 2) + (bins - 1) / 2


def cut(volume: NDArray[Number], start: Sequence[int], shape: Sequence[int]) -> NDArray[Number]:
    """Cut a region of `shape` that begins at index `start` out of a volume; voxels beyond the volume are 0 (or False)."""
    part = np.zeros(tuple(shape), volume.dtype)
    source = tuple(slice(max(0, first), max(0, first + size)) for first, size in zip(start, shape, strict=True))
    found = volume[source]
    place = tuple(slice(max(0, -first), max(0, -first) + size) for first, size in zip(start, found.shape, strict=True))
    part[place] = found
    return part


def compose_windows(window: Window, outer: Window) -> Window:
    """Convert a window on a volume to a window on the raw scan.

    `outer` is the window through which the volume was cut from the scan.
    """
    z, y, x = (first + bins * offset for first, bins, offset in zip(outer.start, outer.binning, window.start, strict=True))
    bins_z, bins_y, bins_x = (a * b for a, b in zip(outer.binning, window.binning, strict=True))
    return Window((z, y, x), (bins_z, bins_y, bins_x), outer.raw_shape, outer.straight)


def window_basis(
    basis: FloatArray, q_bragg: FloatArray, window: Window, shape: Triple
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the voxel edges and the scattering vector at the centre of a window on a volume [1/m].

    `basis` and `q_bragg` are the voxel edges and the scattering vector at the centre of the whole volume.
    """
    offset = raw_centre(window, shape) - np.asarray(window.raw_shape) // 2
    return np.asarray(basis, float) * np.asarray(window.binning), np.asarray(q_bragg, float) + np.asarray(basis, float) @ offset
