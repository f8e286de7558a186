r"""Measure how far the pattern of one scan lies from that of another, and how much the two differ.

The shift maximises the correlation of magnitudes over the voxels that are valid in both,

.. math:: \varrho(u) = \frac{\sum_x \sqrt{I(x+u)\,R(x)}}{\sqrt{\sum_x I(x+u) \sum_x R(x)}},

each sum over x with x + u valid in I and x valid in R. A mask that stays on the detector while the pattern moves draws the shift
nowhere. The best whole shift is refined by least squares between whole voxels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from braggshot.prepare.window import cut
from braggshot.volumes import BoolArray, FloatArray

REACH = 16  # largest shift that is looked for [voxels]
BRIGHT = 4.0  # expected counts from which a voxel is compared [photons]
FAR = 12  # voxels to either side that take part in an interpolation [voxels]
FEWEST = 30  # least number of bright voxels that are compared
SMOOTHED = 0.8  # width of the Gaussian by which both are smoothed before a shift is refined [voxels]
FAINT = 0.3  # smoothed counts from which a voxel takes part in that [photons]
STEPS = 8  # largest number of Gauss-Newton steps
OVERLAP = 0.5  # least share of the counts of both scans that must lie on voxels valid in both, for a shift to be considered [1]


@dataclass(frozen=True)
class Difference:
    """How much the counts of a scan differ from those that another lets expect.

    Parameters
    ----------
    scale : counts of the scan over counts of the other, on voxels valid in both [1]
    chi2 : mean over bright voxels of the squared difference over its variance by photon noise [1]
    unlike : root of the squared difference of magnitudes beyond photon noise, over the counts [1]
    voxels : number of bright voxels
    """

    scale: float
    chi2: float
    unlike: float
    voxels: int


def interpolate(counts: FloatArray, shift: NDArray[np.float64]) -> NDArray[np.float32]:
    """Move counts by `shift` voxels along each axis, by splines of the fifth order; beyond the edges there are none.

    A shift is the same everywhere, so each axis is a convolution with the spline's answer to one count.
    """
    moved = np.asarray(_roll(counts, shift), np.float32)
    for axis, kernel in enumerate(_kernels(shift)):
        moved = ndimage.convolve1d(moved, kernel, axis, mode="constant") if len(kernel) > 1 else moved
    return moved


def _kernels(shift: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return, for each axis, what a fifth-order spline makes of one count that is moved by the fraction of the shift."""
    one = np.eye(1, 2 * FAR + 1, FAR)[0]
    return [ndimage.shift(one, part, order=5) if abs(part) > 1e-3 else np.ones(1) for part in shift - np.rint(shift)]


def _roll(part: NDArray[Any], shift: NDArray[np.float64]) -> NDArray[Any]:
    """Move an array by the whole voxels of a shift; what comes in from outside is 0 or False."""
    return cut(part, (-np.rint(shift).astype(int)).tolist(), part.shape)


def measure_shift(counts: FloatArray, valid: BoolArray, other: FloatArray, other_valid: BoolArray) -> NDArray[np.float64]:
    """Measure where the pattern of `counts` lies relative to that of `other`, to a fraction of a voxel.

    Parameters
    ----------
    counts, other : (z, y, x), 0 where not valid [photons]
    valid, other_valid : (z, y, x), True on valid voxels

    Returns
    -------
    (3,) shift u: counts(x + u) resembles other(x) [voxels]
    """
    return _refine(counts, valid, other, other_valid, _whole_shift(counts, valid, other, other_valid))


def _whole_shift(counts: FloatArray, valid: BoolArray, other: FloatArray, other_valid: BoolArray) -> NDArray[np.float64]:
    """Return the shift in whole voxels at which the magnitudes correlate most."""
    shape = [fft.next_fast_len(size + REACH, real=True) for size in counts.shape]
    reach = [min(REACH, size // 4) for size in counts.shape]
    fields = (np.sqrt(counts), np.sqrt(other), valid, other_valid, counts, other)
    one, two, mask, other_mask, squared, other_squared = (fft.rfftn(np.asarray(part, np.float32), shape) for part in fields)
    products = one * two.conj(), squared * other_mask.conj(), mask * other_squared.conj()
    both, of_one, of_other = (_about_zero(fft.irfftn(product, shape), reach) for product in products)
    enough = (of_one > OVERLAP * counts.sum()) & (of_other > OVERLAP * other.sum())
    alike = np.where(enough, both / np.sqrt(np.maximum(of_one * of_other, 1e-12)), 0)
    return np.subtract(np.unravel_index(int(alike.argmax()), alike.shape), reach).astype(float)


def _about_zero(correlation: FloatArray, reach: Sequence[int]) -> NDArray[np.float64]:
    """Cut the shifts from -reach to +reach out of a correlation whose shift 0 is at index 0."""
    for axis, far in enumerate(reach):
        correlation = np.take(correlation, np.arange(-far, far + 1), axis=axis)
    return correlation.astype(np.float64)


def _refine(
    counts: FloatArray, valid: BoolArray, other: FloatArray, other_valid: BoolArray, shift: NDArray[np.float64]
) -> NDArray[np.float64]:  # fmt: skip
    """Refine a shift by Gauss-Newton steps on the squared difference over its variance by photon noise.

    Both are smoothed alike, so that the noise of `other` does not weaken its slopes.
    """
    smooth, reference = (ndimage.gaussian_filter(np.asarray(part, np.float32), SMOOTHED) for part in (counts, other))
    inner, known = (ndimage.binary_erosion(part, np.ones((3, 3, 3)), iterations=2, border_value=0) for part in (valid, other_valid))
    began = shift
    for _ in range(STEPS):
        moved = interpolate(reference, shift)
        chosen = inner & _roll(known, shift) & (moved > FAINT)
        if chosen.sum() < FEWEST:
            return began
        here, there = smooth[chosen].astype(float), moved[chosen].astype(float)
        scale = here.sum() / there.sum()
        slopes = np.stack([-scale * np.gradient(moved, axis=axis)[chosen] for axis in range(3)] + [there], axis=1)
        weight = 1 / np.sqrt(scale * there + scale**2 * there)
        step = np.linalg.lstsq(slopes * weight[:, None], (here - scale * there) * weight, rcond=None)[0][:3]
        shift = shift + np.clip(step, -1, 1)
        if np.abs(step).max() < 0.005:
            break
    return shift if np.abs(shift - began).max() <= 2 else began


def compare(
    counts: FloatArray, valid: BoolArray, other: FloatArray, other_valid: BoolArray, shift: NDArray[np.float64]
) -> Difference:  # fmt: skip
    r"""Compare the counts I of a scan with those of another, R, moved by `shift` onto it.

    With the scale s, the ratio of their counts, and the share g of the noise of R that interpolation leaves,

    .. math:: \chi^2 = \left\langle \frac{(I - sR)^2}{sR\,(1 + sg)} \right\rangle, \quad
        \mathrm{unlike}^2 = \frac{\sum ((I - sR)^2 - sR\,(1 + sg)) / 4sR}{\sum I},

    over voxels that expect at least four photons. Without enough of them chi2 and unlike are not numbers.
    """
    share = math.prod(float((kernel**2).sum()) for kernel in _kernels(shift))
    moved, known = interpolate(other, shift), _roll(ndimage.binary_erosion(other_valid), shift)
    both = valid & known
    scale = float(counts[both].sum()) / max(float(moved[both].sum()), 1e-9)
    bright = both & (scale * moved >= BRIGHT)
    voxels = int(bright.sum())
    if voxels < FEWEST:
        return Difference(scale, np.nan, np.nan, voxels)
    here, there = counts[bright].astype(float), scale * moved[bright].astype(float)
    squared, variance = (here - there) ** 2, there * (1 + scale * share)
    beyond = ((squared - variance) / (4 * there)).sum() / here.sum()
    return Difference(scale, float((squared / variance).mean()), float(np.sqrt(max(beyond, 0))), voxels)
