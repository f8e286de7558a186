"""What on a detector image is not diffraction: bad pixels, zingers, blocks that were never read out.

Fringes of a crystal sampled twice per period may well be single bright voxels with zeros around them, but they come in lattices and
they come and go along the rocking curve. An artefact is what stands out from all but a few voxels of a wider neighbourhood, and a
hot pixel what does so steadily. Arrays are counts, (z, y, x) or (rows, columns); masks are True on what is found.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from braggshot.errors import DataError
from braggshot.volumes import BoolArray, FloatArray

HOT, ZINGER = 5.0, 30.0  # times the brightest few of the neighbourhood
ALWAYS = 0.75  # share of the images in which a hot pixel must stand out
STEADY = 3.0  # ratio of upper to lower quartile of its counts, at most


def flat_response(flat: FloatArray, good: BoolArray) -> tuple[NDArray[np.float32], BoolArray]:
    """Response of each pixel relative to the mean of the good ones, and which pixels respond at all.

    A pixel is dark if it lies more than three standard deviations below the mean of the good pixels (the rule of APS 34-ID-C).

    Parameters
    ----------
    flat : (rows, columns) image of uniform light [arbitrary]
    good : (rows, columns) pixels to take the mean of

    Returns
    -------
    response : to divide counts by, 1 on dark pixels
    dark : True on dark pixels

    Raises
    ------
    DataError : if no good pixel has a positive response.
    """
    finite = np.isfinite(flat) & (flat > 0)
    level = flat[good & finite]
    if not level.size:
        raise DataError("the flat field has no positive value on good pixels; leave it out or switch it off (prepare.flat=false).")
    dark = ~finite | (flat < level.mean(dtype=np.float64) - 3 * level.std(dtype=np.float64))
    mean = flat[good & ~dark].mean(dtype=np.float64)
    return np.where(dark, 1, flat / mean).astype(np.float32), dark


def dark_offset(dark: FloatArray, good: BoolArray) -> tuple[NDArray[np.float32] | None, BoolArray]:
    """Offset to subtract from every frame, if there is one, and the pixels that count without light.

    A counting detector has no offset: the median of its dark image is 0, nothing is subtracted, and a pixel with a dark value above
    1 is hot. The median of an integrating detector is above 0: the image is its offset, and a pixel is hot that lies more than 5
    robust standard deviations (at least 1) above the median.

    Parameters
    ----------
    dark : (rows, columns) counts per frame without beam [counts]
    good : (rows, columns) pixels to take the median of
    """
    sound = dark[good & np.isfinite(dark)]
    level = float(np.median(sound)) if sound.size else 0.0
    spread = 1.4826 * float(np.median(np.abs(sound - level))) if sound.size else 0.0
    hot = ~(dark <= level + max(1.0, 5 * spread))  # NaN is hot
    return (np.where(hot, 0, dark).astype(np.float32) if level > 0 else None), hot


def hot_pixels(images: Iterable[FloatArray], valid: BoolArray) -> BoolArray:
    """Pixels that stand out from their neighbourhood in nearly all of several images along the rocking curve, and steadily.

    A pixel stands out above 5 (m + 2) counts, m the fourth largest of the others in 5 x 5 pixels, so that clusters of up to four
    are found. It is hot if it does so in three quarters of the images and the upper quartile of its counts is at most three times
    the lower: the Bragg peak and its streaks pass over a pixel, or at least grow and fade.
    """
    stack = [np.where(valid, image, 0).astype(np.float32) for image in images]
    votes = np.zeros(valid.shape, dtype=int)
    for image in stack:
        for row, column in np.argwhere(image > HOT * np.maximum(2, ndimage.uniform_filter(image, 5, mode="constant"))):
            rivals = np.sort(image[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3], axis=None)[::-1]
            votes[row, column] += image[row, column] > HOT * (rivals[min(4, rivals.size - 1)] + 2)
    found = votes >= max(1, ALWAYS * len(stack))
    low, high = np.quantile([image[found] for image in stack], (0.25, 0.75), axis=0)
    found[found] = high <= STEADY * low
    return found


def dead_pixels(total: FloatArray, valid: BoolArray) -> BoolArray:
    """Pixels that count less than 5 % of the least of their eight neighbours, beyond four standard deviations of its noise.

    The neighbours must be within a factor of ten: where two lines of zeros between fringes cross, they are not.
    """
    around = np.ones((3, 3), dtype=bool)
    around[1, 1] = False
    least = ndimage.minimum_filter(np.where(valid, total, np.inf), footprint=around, mode="constant", cval=np.inf)
    most = ndimage.maximum_filter(np.where(valid, total, 0), footprint=around, mode="constant")
    least = np.where(np.isfinite(least) & (10 * least > most), least, 0)
    return valid & (total < 0.05 * (least - 4 * np.sqrt(least)))


def zingers(counts: FloatArray, valid: BoolArray) -> BoolArray:
    """Voxels above 30 (m + 1) counts, m the eighth largest of the others in 5 x 5 x 5 voxels: cosmic rays, single glitches."""
    trusted = np.where(valid, counts, 0)
    total = 125 * ndimage.uniform_filter(trusted, 5, mode="constant")
    found = np.zeros(counts.shape, dtype=bool)
    for voxel in np.argwhere((trusted > ZINGER) & (trusted > total / 8)):  # of eight alike at most, or there is no need to look
        around = trusted[tuple(slice(max(0, index - 2), index + 3) for index in voxel)]
        rivals = np.sort(around, axis=None)[::-1]
        found[tuple(voxel)] = trusted[tuple(voxel)] > ZINGER * (rivals[min(8, rivals.size - 1)] + 1)
    return found


def missing_blocks(counts: FloatArray, valid: BoolArray) -> BoolArray:
    """Solid blocks of exact zeros amid counts: data that was cut out or never read, not darkness.

    A block holds at least one voxel with nothing but zeros around it, known gaps aside, and the zeros within three voxels of it.
    It is missing if the median of the voxels within two of it is more than three times the smallest count there is (1 photon, or
    the threshold that was applied), and if so many voxels would have held at least 50 such counts together. Works on volumes, and
    on the sum of all frames for gaps and clusters of dead pixels.
    """
    trusted = np.where(valid, counts, 0).astype(np.float32)
    zero = (counts == 0) & valid
    found = np.zeros(counts.shape, dtype=bool)
    quantum = float(trusted.min(where=trusted > 0, initial=np.inf))
    solid = ndimage.maximum_filter(trusted, 3, mode="constant") == 0
    solid[solid] = ndimage.uniform_filter(zero.astype(np.float32), 3, mode="nearest")[solid] > 0.5
    box = np.ones((3,) * counts.ndim, dtype=bool)
    amid = solid & (ndimage.uniform_filter(trusted, 7, mode="nearest") >= 0.8 * quantum)  # as it is beside a wall of three quanta
    blocks, n = ndimage.label(solid, box)
    places = ndimage.find_objects(blocks, max_label=n)
    for label in np.unique(blocks[amid]):
        near = tuple(slice(max(0, part.start - 5), part.stop + 5) for part in places[label - 1])
        block = ndimage.binary_dilation(blocks[near] == label, box, iterations=3, mask=zero[near])
        shell = trusted[near][ndimage.binary_dilation(block, box, iterations=2) & ~block & valid[near]]
        level = float(np.median(shell)) if shell.size else 0.0
        if level > 3 * quantum and level * block.sum() > 50 * quantum:
            found[near] |= block
    return found
