"""Find voxels of a detector image that hold no diffraction: bad pixels, zingers, blocks that were never read out.

Fringes of a crystal sampled twice per period may well be single bright voxels with zeros around them. But fringes form lattices,
and they appear and vanish along the rocking curve. A voxel is an artefact if it stands out from all but a few voxels of a wider
neighbourhood; a hot pixel does so steadily. Arrays are counts, (z, y, x) or (rows, columns); masks are True on artefacts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from braggshot.errors import DataError
from braggshot.volumes import BoolArray, FloatArray

# Least ratio of a hot pixel's count to the fourth largest count among the pixels around it, and least ratio of the count of a
# zinger (a single voxel that is far too bright) to the eighth largest count among the voxels around it [1].
HOT, ZINGER = 5.0, 30.0
UNKNOWN = 0.1  # least share of pixels of exactly 1 in a flat field that was estimated from a scan [1]
ALWAYS = 0.75  # least share of the images in which a hot pixel stands out [1]
STEADY = 3.0  # largest ratio of the upper to the lower quartile of a hot pixel's counts [1]


def flat_response(flat: FloatArray, good: BoolArray) -> tuple[NDArray[np.float32], BoolArray]:
    """Return the response of each pixel relative to the mean of the good pixels, and a mask of the dark pixels.

    A pixel is dark if it lies more than three standard deviations below the mean of the good pixels (the rule of APS 34-ID-C). No
    pixel with a value is dark where a tenth of them are exactly 1: that field was estimated from a scan, 1 stands for not known,
    and the standard deviation says nothing.

    Parameters
    ----------
    flat : (rows, columns) image under uniform illumination [arbitrary]
    good : (rows, columns) pixels that the mean is taken over

    Returns
    -------
    response : (rows, columns) divisor of the counts, 1 on dark pixels
    dark : True on dark pixels

    Raises
    ------
    DataError : if no good pixel has a positive response.
    """
    finite = np.isfinite(flat) & (flat > 0)
    level = flat[good & finite]
    if not level.size:
        raise DataError("the flat field has no positive value on good pixels; leave it out or switch it off (prepare.flat=false).")
    deviation = math.inf if (level == 1).mean() >= UNKNOWN else level.std(dtype=np.float64)
    dark = ~finite | (flat < level.mean(dtype=np.float64) - 3 * deviation)
    mean = flat[good & ~dark].mean(dtype=np.float64)
    return np.where(dark, 1, flat / mean).astype(np.float32), dark


def dark_offset(dark: FloatArray, good: BoolArray) -> tuple[NDArray[np.float32] | None, BoolArray]:
    """Return the offset to subtract from every frame, None if there is none, and a mask of the hot pixels.

    A counting detector has no offset: the median of its dark image is 0, and a pixel with a dark value above 1 is hot. An
    integrating detector has a median above 0: the dark image is the offset, and a pixel is hot if it lies more than 5 robust
    standard deviations (at least 1) above the median.

    Parameters
    ----------
    dark : (rows, columns) counts per frame without beam [counts]
    good : (rows, columns) pixels that the median is taken over
    """
    sound = dark[good & np.isfinite(dark)]
    level = float(np.median(sound)) if sound.size else 0.0
    spread = 1.4826 * float(np.median(np.abs(sound - level))) if sound.size else 0.0
    hot = ~(dark <= level + max(1.0, 5 * spread))  # mask of the hot pixels; a pixel with NaN is hot, too
    return (np.where(hot, 0, dark).astype(np.float32) if level > 0 else None), hot


def find_hot_pixels(images: Iterable[FloatArray], valid: BoolArray) -> BoolArray:
    """Find pixels that stand out from their neighbourhood steadily, in nearly all of several images along the rocking curve.

    A pixel stands out if it is above 5 (m + 2) counts, where m is the fourth largest of the other values in 5 x 5 pixels; so
    clusters of up to four hot pixels are found. A pixel is hot if it stands out in three quarters of the images, and if the upper
    quartile of its counts is at most three times the lower quartile. The second condition spares the Bragg peak and its streaks:
    they pass over a pixel, or at least grow and fade.
    """
    stack = [np.where(valid, image, 0).astype(np.float32) for image in images]
    votes = np.zeros(valid.shape, dtype=int)
    for image in stack:
        for row, column in np.argwhere(image > HOT * np.maximum(2, ndimage.uniform_filter(image, 5, mode="constant"))):
            rivals = np.sort(image[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3], axis=None)[::-1]
            votes[row, column] += image[row, column] > HOT * (rivals[min(4, rivals.size - 1)] + 2)
    hot = votes >= max(1, ALWAYS * len(stack))
    low, high = np.quantile([image[hot] for image in stack], (0.25, 0.75), axis=0)
    hot[hot] = high <= STEADY * low
    return hot


def find_dead_pixels(total: FloatArray, valid: BoolArray) -> BoolArray:
    """Find pixels that count too little beside their neighbours.

    The smallest count among a pixel's eight neighbours is reduced by four standard deviations of its photon noise. The pixel is
    dead if it holds less than 5 % of the result. It is not called dead if its neighbours differ by a factor of ten or more, as they
    do where two dark lines between fringes cross.
    """
    around = np.ones((3, 3), dtype=bool)
    around[1, 1] = False
    least = ndimage.minimum_filter(np.where(valid, total, np.inf), footprint=around, mode="constant", cval=np.inf)
    most = ndimage.maximum_filter(np.where(valid, total, 0), footprint=around, mode="constant")
    least = np.where(np.isfinite(least) & (10 * least > most), least, 0)
    return valid & (total < 0.05 * (least - 4 * np.sqrt(least)))


def find_zingers(counts: FloatArray, valid: BoolArray) -> BoolArray:
    """Find single voxels that are far too bright: cosmic rays and glitches.

    A voxel is a zinger above 30 (m + 1) counts, where m is the eighth largest of the other values in 5 x 5 x 5 voxels.
    """
    trusted = np.where(valid, counts, 0)
    total = 125 * ndimage.uniform_filter(trusted, 5, mode="constant")
    mask = np.zeros(counts.shape, dtype=bool)
    for voxel in np.argwhere((trusted > ZINGER) & (trusted > total / 8)):  # of eight alike at most, or there is no need to look
        around = trusted[tuple(slice(max(0, index - 2), index + 3) for index in voxel)]
        rivals = np.sort(around, axis=None)[::-1]
        mask[tuple(voxel)] = trusted[tuple(voxel)] > ZINGER * (rivals[min(8, rivals.size - 1)] + 1)
    return mask


def find_missing_blocks(counts: FloatArray, valid: BoolArray) -> BoolArray:
    """Find solid blocks of exact zeros among counts: data that was cut out or never read, not darkness.

    In a volume the function finds blocks that were cut out; in the sum of all frames it finds gaps and clusters of dead pixels.
    The core of a block consists of voxels that are zero and have only zeros, or known gaps, as neighbours. The block is the core
    and the zeros within three voxels of it. Its surroundings are the valid voxels within two voxels of the block. The quantum is
    the smallest positive count in the data: 1 photon, or a threshold that was applied earlier. A block is masked if the median
    count of its surroundings exceeds three quanta, and if this median times the number of voxels in the block exceeds 50 quanta.
    """
    trusted = np.where(valid, counts, 0).astype(np.float32)
    zero = (counts == 0) & valid
    missing = np.zeros(counts.shape, dtype=bool)
    quantum = float(trusted.min(where=trusted > 0, initial=np.inf))
    solid = ndimage.maximum_filter(trusted, 3, mode="constant") == 0
    solid[solid] = ndimage.uniform_filter(zero.astype(np.float32), 3, mode="nearest")[solid] > 0.5
    box = np.ones((3,) * counts.ndim, dtype=bool)
    # At the edge of a block, two of the seven planes of the window hold counts; with three quanta each, the mean is 0.86 quanta.
    amid = solid & (ndimage.uniform_filter(trusted, 7, mode="nearest") >= 0.8 * quantum)
    blocks, n = ndimage.label(solid, box)
    places = ndimage.find_objects(blocks, max_label=n)
    for label in np.unique(blocks[amid]):
        near = tuple(slice(max(0, part.start - 5), part.stop + 5) for part in places[label - 1])
        block = ndimage.binary_dilation(blocks[near] == label, box, iterations=3, mask=zero[near])
        shell = trusted[near][ndimage.binary_dilation(block, box, iterations=2) & ~block & valid[near]]
        level = float(np.median(shell)) if shell.size else 0.0
        if level > 3 * quantum and level * block.sum() > 50 * quantum:
            missing[near] |= block
    return missing
