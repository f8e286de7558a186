"""Find foreign peaks: diffraction of another crystal that fell on the detector during the scan.

The pattern of one crystal, once its fringes are smoothed away, falls from the Bragg peak along every streak. It is nearly the same
on opposite sides, I(q) = I(-q), except for strain. A foreign peak (alien) is separated from the Bragg peak by a valley, and the
opposite side is empty.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from braggshot.physics.autocorrelation import mirror
from braggshot.physics.loops import compiled
from braggshot.volumes import BoolArray, FloatArray

# A foreign peak must be so many times brighter than the valley between it and the Bragg peak, and than the point on the other
# side of the Bragg peak [1].
PROMINENCE = 5.0
FADED = 0.05  # least brightness of a voxel that is masked with a foreign peak, as a share of the peak's brightness [1]
SIGNIFICANT = 6.0  # height of the noise floor, which peaks must exceed, above the background [noise standard deviations]


def find_aliens(
    counts: FloatArray, valid: BoolArray, oversampling: tuple[float, float, float]
) -> tuple[BoolArray, list[tuple[int, int, int]]]:
    """Return a mask of the foreign peaks, and their centres.

    Counts are smoothed over half a fringe. A local maximum that lies wholly inside the array is a foreign peak (alien) if it is
    five times as bright as the saddle towards the Bragg peak, as the noise floor, and as the mirror point at -q. The mask of a
    foreign peak holds voxels on the peak's side of the saddle. Each of them is brighter than 1.5 times the noise floor, than a
    twentieth of the peak, and than twice the voxel's own mirror point. The mask is widened by half a fringe.

    Parameters
    ----------
    counts : (z, y, x); the Bragg peak must be the brightest voxel after smoothing [photons]
    valid : (z, y, x), True on trusted voxels
    oversampling : period of the crystal's fringes along each axis [voxels]

    Returns
    -------
    mask : True on aliens
    centres : voxels (z, y, x) of their centres, brightest first
    """
    sigma = np.clip(0.45 * np.array(oversampling), 1, 4)
    stride = sigma.astype(int)
    offset = np.array(counts.shape) // 2 % stride
    coarse = tuple(slice(int(first), None, int(step)) for first, step in zip(offset, stride, strict=True))
    blurred = _smooth(counts, valid, sigma)[coarse]
    background = float(np.median(blurred))
    # Effective number of voxels in a Gaussian average: the plain mean of so many voxels has the same noise.
    effective = float((4 * np.pi) ** 1.5 * sigma.prod())
    floor = background + SIGNIFICANT * np.sqrt((background + 1 / effective) / effective)
    level = np.log(np.maximum(blurred, floor)).astype(np.float32)
    tops = _find_prominent(level, float(np.log(PROMINENCE)))
    peak = tuple(int(index) for index in np.unravel_index(int(blurred.argmax()), blurred.shape))
    opposite = mirror(ndimage.maximum_filter(blurred, 5), peak)
    blobs = [
        (float(blurred[top]), label, top)
        for label, top in enumerate(map(tuple, np.argwhere(tops).tolist()), start=1)
        if label != tops[peak] and _is_inside(top, stride, sigma, blurred.shape) and 0 < opposite[top] * PROMINENCE < blurred[top]
    ]
    mask = np.zeros(blurred.shape, dtype=bool)
    if blobs:
        from skimage.segmentation import watershed  # here, because it takes long to import and few scans have aliens

        basins = watershed(-level, tops, mask=blurred > np.maximum(1.5 * floor, 2 * mirror(blurred, peak)))  # type: ignore[no-untyped-call]
        for brightness, label, top in blobs:
            parts, _ = ndimage.label((basins == label) & (blurred > FADED * brightness))
            mask |= parts == parts[top]
    centres = [tuple(int(index) for index in offset + stride * top) for _, _, top in sorted(blobs, reverse=True)]
    return _refine(mask, counts.shape, stride, offset) & valid, [(z, y, x) for z, y, x in centres]


def _smooth(counts: FloatArray, valid: BoolArray, sigma: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the Gaussian average of valid voxels about each voxel; deep inside a gap, repeat the nearest known average."""
    total = ndimage.gaussian_filter(np.where(valid, counts, 0).astype(np.float32), sigma)
    if valid.all():
        return total
    share = ndimage.gaussian_filter(valid.astype(np.float32), sigma)
    unknown = share < 0.2
    average = total / np.maximum(share, 0.2)
    if unknown.any() and not unknown.all():
        average = average[tuple(ndimage.distance_transform_edt(unknown, return_distances=False, return_indices=True))]
    return average


def _find_prominent(level: NDArray[np.float32], height: float) -> NDArray[np.int32]:
    """Return the numbers, in array order, of maxima that stand `height` above the saddle to any higher one; 0 elsewhere."""
    padded = np.pad(level, 1, constant_values=level.min())
    flat = padded.ravel()
    order = np.flatnonzero(flat > flat.min())
    order = order[np.argsort(flat[order], kind="stable")[::-1]]
    steps = np.array([np.ravel_multi_index(tuple(np.add(shift, 1)), padded.shape) for shift in np.ndindex(3, 3, 3)])
    found = np.zeros(padded.shape, np.int32)
    _mark_prominent(found.ravel(), flat, order, np.delete(steps - steps[13], 13), height)
    tops = found[1:-1, 1:-1, 1:-1]
    return np.cumsum(tops, dtype=np.int32).reshape(tops.shape) * tops


@compiled
def _mark_prominent(
    found: NDArray[np.int32], level: NDArray[np.float32], order: NDArray[np.intp], steps: NDArray[np.intp], height: float
) -> None:  # fmt: skip
    """Mark maxima in `found` as a falling water level lays them bare: where two islands meet, the lower one's summit is judged.

    Voxels come in the `order` of falling level. Each joins the islands beside it (`steps` away). `summit` holds the highest voxel
    of an island, and `owner` leads from a voxel to the one that stands for its island.
    """
    owner = np.full(level.size, -1, np.int64)
    summit = np.empty(level.size, np.int64)
    for voxel in order:
        owner[voxel] = summit[voxel] = voxel
        mine = voxel
        for step in steps:
            other = voxel + step
            if owner[other] < 0:
                continue
            while owner[other] != other:
                owner[other] = owner[owner[other]]
                other = owner[other]
            if other == mine:
                continue
            low, high = (mine, other) if level[summit[mine]] <= level[summit[other]] else (other, mine)
            if level[summit[low]] - level[voxel] >= height:
                found[summit[low]] = 1
            owner[low] = mine = high
    ground = level.min()
    for voxel in order:
        if owner[voxel] == voxel and level[summit[voxel]] - ground >= height:
            found[summit[voxel]] = 1


def _is_inside(top: tuple[int, ...], stride: NDArray[np.int_], sigma: NDArray[np.float64], shape: tuple[int, ...]) -> bool:
    """Tell whether a local maximum lies at least two standard deviations of the smoothing Gaussian from every face of the array.

    Maxima nearer to a face may be streaks of the Bragg peak that the array cuts off.
    """
    margin = np.ceil(2 * sigma / stride)
    return bool(np.all((np.array(top) >= margin) & (np.array(top) < np.array(shape) - margin)))


def _refine(mask: BoolArray, shape: tuple[int, ...], stride: NDArray[np.int_], offset: NDArray[np.int_]) -> BoolArray:
    """Widen a mask on a coarse grid by one of its voxels, and expand it to the full grid of `shape`.

    Along each axis, the coarse grid consists of every `stride`-th voxel of the full grid.
    """
    nearest = [
        np.clip((np.arange(size) - first + step // 2) // step, 0, coarse - 1)
        for size, first, step, coarse in zip(shape, offset, stride, mask.shape, strict=True)
    ]
    wider: BoolArray = ndimage.binary_dilation(mask, np.ones((3, 3, 3), dtype=bool))
    return wider[np.ix_(*nearest)]
