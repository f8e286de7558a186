"""What on a detector image is not diffraction: bad pixels, zingers, blocks that were never read out.

A crystal is finite, so its pattern cannot vary faster than its oversampling allows: a voxel at the very top of a fringe sampled
twice per period holds 6 times the median of its 3 x 3 x 3 neighbourhood (2.5 times that of its 3 x 3 pixels), at 1.5 samples 35
times. What stands out more is an artefact. Arrays are counts, (z, y, x) or (rows, columns); masks are True on what is found.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from braggshot.errors import DataError
from braggshot.volumes import BoolArray, FloatArray

HOT, ZINGER = 5.0, 30.0  # times the median of the neighbourhood
ALWAYS = 0.75  # share of the images in which a hot pixel must stand out


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
    level = float(np.median(dark[good])) if good.any() else 0.0
    spread = 1.4826 * float(np.median(np.abs(dark[good] - level))) if good.any() else 0.0
    hot = ~(dark <= level + max(1.0, 5 * spread))  # NaN is hot
    return (np.where(hot, 0, dark).astype(np.float32) if level > 0 else None), hot


def hot_pixels(images: Iterable[FloatArray], valid: BoolArray) -> BoolArray:
    """Pixels that stand out from their 3 x 3 neighbourhood in nearly all of several images along the rocking curve.

    The Bragg peak passes over a pixel in few of them. Hot is a pixel above 5 (m + 2) counts, m the median of its neighbours, in at
    least three quarters of the images.
    """
    votes, n_images = np.zeros(valid.shape, dtype=int), 0
    for image in images:
        votes += image > HOT * (_ring_median(image, valid) + 2)
        n_images += 1
    return valid & (votes >= max(1, ALWAYS * n_images))


def dead_pixels(total: FloatArray, valid: BoolArray) -> BoolArray:
    """Pixels that count less than 5 % of the least of their eight neighbours, beyond four standard deviations of its noise."""
    around = np.ones((3, 3), dtype=bool)
    around[1, 1] = False
    least = ndimage.minimum_filter(np.where(valid, total, np.inf), footprint=around, mode="constant", cval=np.inf)
    least = np.where(np.isfinite(least), least, 0)
    return valid & (total < 0.05 * (least - 4 * np.sqrt(least)))


def zingers(counts: FloatArray, valid: BoolArray) -> BoolArray:
    """Voxels above 30 (m + 1) counts, m the median of their 3 x 3 x 3 neighbourhood: cosmic rays, single glitches."""
    mean = ndimage.uniform_filter(counts, 3, mode="nearest")
    candidates = np.argwhere(valid & (counts > ZINGER) & (counts > 4 * mean))
    found = np.zeros(counts.shape, dtype=bool)
    if candidates.size:
        steps = np.stack(np.meshgrid(*[(-1, 0, 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
        inside = np.clip(candidates[:, None] + steps, 0, np.array(counts.shape) - 1)
        place = tuple(np.moveaxis(inside, -1, 0))
        neighbours = np.where(valid[place], counts[place], np.nan)
        here = tuple(candidates.T)
        found[here] = counts[here] > ZINGER * (np.nanmedian(neighbours, axis=1) + 1)
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


def _ring_median(image: FloatArray, valid: BoolArray) -> NDArray[np.float32]:
    """Median of the valid ones of eight neighbours, 0 where there is none."""
    padded = np.pad(np.where(valid, image, np.nan).astype(np.float32), 1, constant_values=np.nan)
    rows, columns = image.shape
    steps = [(dy, dx) for dy in range(3) for dx in range(3) if (dy, dx) != (1, 1)]
    ring = np.sort(np.stack([padded[dy : dy + rows, dx : dx + columns] for dy, dx in steps]), axis=0)  # NaN comes last
    middle = np.maximum(np.isfinite(ring).sum(0) - 1, 0) // 2
    return np.nan_to_num(np.take_along_axis(ring, middle[None], axis=0)[0])
