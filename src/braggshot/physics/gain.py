r"""Estimate the gain of each detector pixel from a rocking scan and a model of its intensities.

A pixel that counts too little does so in every frame, while a fault of the model changes from speckle to speckle as the crystal
rocks. So the ratio of a pixel's counts to the model's, over many frames, tells its gain, and what frames further apart than a
speckle have in common tells how much of that ratio is to be believed:

.. math::
    x_p = \log\frac{\sum_z I_{zp}}{\sum_z M_{zp}} - \text{its mean near } p, \qquad
    \log g_p = \frac{\tau^2}{\tau^2 + \epsilon^2 + 1 / \sum_z M_{zp}} \, x_p

with the counts I and the model M of the frames z, the standard deviation :math:`\tau` of the gains, and the error :math:`\epsilon`
that the model leaves in x. The mean near a pixel is taken off, because what changes slowly across the detector is the model's fault
at least as often as the detector's, and hardly changes the crystal: a slow factor on the pattern blurs it by less than a voxel.

Arrays are numpy, (z, y, x) = (frames, rows, columns).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from braggshot.volumes import BoolArray, FloatArray

Floats = NDArray[np.float64]

TOLD = 30.0  # least model counts of a pixel in one half of the frames, from which it is compared with the other half [photons]
FEWEST = 100  # least number of such pixels; with fewer, no spread is measured
FURTHEST = 1.5  # largest |x| that is believed; beyond it the model is wrong, not the gain [1]
NEAR = 3.0  # standard deviation of the Gaussian mean near a pixel [pixels]
TILE = 8  # edge of a tile of the detector, wider than a speckle [pixels]
SIGNIFICANT = 3.0  # least variance of the gains over its standard error [1]
VARIANCE = 0.04  # variance of x, besides photon noise, by which pixels are weighted in means [1]


@dataclass(frozen=True)
class GainSpread:
    """How far the gains of pixels differ.

    Parameters
    ----------
    fixed : standard deviation of the gains [1]
    error : standard deviation of the model's error in the ratio of a pixel's counts to the model's [1]
    pixels : number of pixels that were compared
    """

    fixed: float
    error: float
    pixels: int


def measure_spread(counts: FloatArray, model: FloatArray, seen: BoolArray, speckle: float) -> GainSpread:
    r"""Measure the spread of the gains by what two sets of frames, apart by a speckle or more, have in common.

    .. math:: \tau^2 = \langle a_p b_p \rangle, \qquad \epsilon^2 = (\langle a_p^2 + b_p^2 \rangle / 2 - \tau^2 - 1/M) / 2

    a and b are x of the two sets. The rocking curve is cut into pieces of one speckle; of every four, the first belongs to one set,
    the third to the other.

    Parameters
    ----------
    counts, model : measured and calculated intensities [photons]
    seen : True on the voxels to be used
    speckle : width of a speckle along the rocking curve, which is the oversampling of that axis [voxels]
    """
    quarter = np.arange(len(counts)) // math.ceil(speckle) % 4
    sets = (quarter == 0, quarter == 2)
    (a, told_a), (b, told_b) = (_log_ratio(counts[part], model[part], seen[part]) for part in sets)
    both = (told_a > TOLD) & (told_b > TOLD)
    if both.sum() < FEWEST:
        return GainSpread(0.0, math.inf, int(both.sum()))
    a, b, noise_a, noise_b = a[both], b[both], 1 / told_a[both], 1 / told_b[both]
    weight = np.sqrt(_weight(told_a[both]) * _weight(told_b[both]))
    common = _significant_mean(a * b, weight, np.argwhere(both) // TILE)
    rest = float(np.average((a**2 + b**2 - noise_a - noise_b) / 2, weights=weight)) - common
    return GainSpread(math.sqrt(common), math.sqrt(max(rest, 0.0) / 2), int(both.sum()))


def _significant_mean(values: Floats, weight: Floats, tile: NDArray[np.intp]) -> float:
    """Return the weighted mean of values, or 0 if it is below three standard errors, which are told by tiles of the detector.

    The pixels of a speckle share the model's fault there, so that they are not independent; tiles are.
    """
    mean = float(np.average(values, weights=weight))
    number = np.ravel_multi_index((tile[:, 0], tile[:, 1]), tuple(tile.max(0) + 1))
    error = math.sqrt(float((np.bincount(number, weight * (values - mean)) ** 2).sum())) / float(weight.sum())
    return mean if mean > SIGNIFICANT * error else 0.0


def pixel_gains(counts: FloatArray, model: FloatArray, seen: BoolArray, spread: GainSpread) -> Floats:
    """Return the gain (y, x) of each pixel; it is 1 where nothing is known.

    Parameters
    ----------
    counts, model : measured and calculated intensities [photons]
    seen : True on the voxels to be used
    spread : spread of the gains, and error of the model
    """
    return np.exp(_shrink(*_log_ratio(counts, model, seen), spread))


def far_gains(counts: FloatArray, model: FloatArray, seen: BoolArray, spread: GainSpread, speckle: float) -> Floats:
    """Return for each voxel (z, y, x) the gain of its pixel, by the frames that are more than a speckle away from the voxel.

    Frames within a speckle share the model's faults, so that a gain that they tell may predict the voxel without any gain in the
    detector.
    """
    reach = math.ceil(speckle)
    far_counts, told = (_without_near(np.where(seen, values, 0.0), reach) for values in (counts, model))
    return np.exp(_shrink(_without_slow(far_counts, told), told, spread))


def _log_ratio(counts: FloatArray, model: FloatArray, seen: BoolArray) -> tuple[Floats, Floats]:
    """Return x of each pixel, and the sum of its model [photons]."""
    summed, told = (np.where(seen, values, 0).sum(0, dtype=np.float64) for values in (counts, model))
    return _without_slow(summed, told), told


def _without_slow(counts: Floats, told: Floats) -> Floats:
    """Return x of pixels (..., y, x) from their summed counts and model."""
    ratio, weight = np.log((counts + 1) / (told + 1)), _weight(told)
    sigma = (*(0.0,) * (ratio.ndim - 2), NEAR, NEAR)
    mean = ndimage.gaussian_filter(ratio * weight, sigma) / np.maximum(ndimage.gaussian_filter(weight, sigma), 1e-12)
    return np.asarray(np.clip(ratio - mean, -FURTHEST, FURTHEST))


def _weight(told: Floats) -> Floats:
    return np.asarray(1 / (VARIANCE + 1 / np.maximum(told, 1e-3)))


def _shrink(ratio: Floats, told: Floats, spread: GainSpread) -> Floats:
    if spread.fixed == 0:
        return np.zeros_like(ratio)
    share = spread.fixed**2 / (spread.fixed**2 + spread.error**2 + 1 / np.maximum(told, 1e-3))
    return np.where(told < 1, 0, ratio * share)


def _without_near(values: Floats, reach: int) -> Floats:
    """Return for each voxel the sum over the frames of its pixel that are more than `reach` away."""
    running = np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(values, axis=0)])
    index = np.arange(len(values))
    first, last = np.maximum(index - reach, 0), np.minimum(index + reach + 1, len(values))
    return np.asarray(np.maximum(running[-1] - (running[last] - running[first]), 0.0))
