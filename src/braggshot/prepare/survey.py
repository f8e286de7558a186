"""Find the Bragg peak and the reach of its fringes in a whole scan, reading a few frames at a time.

A scan of billions of voxels is summed into cubes until some millions of cubes are left. Square roots of counts are summed as well.
Their noise is the same everywhere, so a single faulty voxel does not outweigh a peak that is bright in thousands of voxels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from braggshot.errors import DataError
from braggshot.prepare.clean import find_hot_pixels
from braggshot.prepare.counts import CorrectedFrames
from braggshot.prepare.inspection import FrameCounts
from braggshot.volumes import FloatArray

MEMORY = 64 * 2**20  # memory for the group of frames that is read in one step [bytes]
BYTES_PER_VOXEL = 16  # memory per voxel while frames are read: raw value, count, mask and square root [bytes]
CUBES = 4_000_000  # largest number of cubes into which a scan is divided; the voxels of each cube are summed
SAMPLES = 8  # number of frames in which hot pixels are searched
CONTRAST = 10.0  # least height of a Bragg peak above the median, both as sums over 3 x 3 x 3 voxels [robust standard deviations]
# Least signal-to-noise ratio of an average speckle on the faces of the box that holds the signal [1]. Planes with less are cut off.
SIGNAL_TO_NOISE = 3.0


@dataclass(frozen=True)
class Survey:
    """Counts of a scan, and their square roots, summed over cubes with edges of `side` voxels.

    Parameters
    ----------
    counts, roots : sums of counts and of their square roots
    side : edge of a cube [voxels]
    untrusted : number of voxels that were negative or not a number
    measured : share of the frames of each plane of cubes that have come [1]; below 1 while a scan is measured
    frames : counts of each raw frame
    """

    counts: NDArray[np.float32]
    roots: NDArray[np.float32]
    side: int
    untrusted: int
    measured: NDArray[np.float64]
    frames: FrameCounts

    @property
    def background(self) -> float:
        """Median count of the measured cubes; frames that have not come would make it 0."""
        return float(np.median(self.counts[self.measured > 0]))


def survey(source: CorrectedFrames) -> Survey:
    """Read all frames, a few at a time, leave hot pixels out, and sum the counts and their square roots over cubes."""
    n, rows, columns = source.shape
    side = int(np.ceil((n * rows * columns / CUBES) ** (1 / 3)))
    shape = tuple(-(-size // side) for size in source.shape)
    counts, roots = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    there = source.grid.weight > 0
    sampled = np.unique(np.flatnonzero(there)[np.linspace(0, there.sum() - 1, SAMPLES).astype(int)])
    blocks = (source.read((index, 0, 0), (index + 1, rows, columns)) for index in sampled)
    cold = ~find_hot_pixels((block.counts[0] for block in blocks), source.good)
    untrusted, seen = 0, []
    chunk = max(1, MEMORY // (rows * columns * BYTES_PER_VOXEL))
    for first in range(0, n, chunk):
        block = source.read((first, 0, 0), (first + chunk, rows, columns))
        untrusted += block.untrusted
        seen.append(block.frames)
        block.counts[:] *= cold
        for total, values in ((counts, block.counts), (roots, np.sqrt(block.counts))):
            binned = sum_bins(values, (1, side, side))
            np.add.at(total, (np.arange(first, first + len(binned)) // side,), binned)
    measured = np.array([there[first : first + side].mean() for first in range(0, n, side)])
    frames = FrameCounts(*(np.concatenate([getattr(part, name) for part in seen]) for name in ("numbers", "totals", "empty")))
    return Survey(counts, roots, side, untrusted, measured, frames)


def sum_bins(volume: NDArray[np.float32], binning: tuple[int, int, int]) -> NDArray[np.float32]:
    """Sum a volume over bins; the last bin of an axis may hold fewer voxels."""
    for axis, size in enumerate(binning):
        if size > 1:
            short = -volume.shape[axis] % size
            if short:
                volume = np.pad(volume, [(0, short if other == axis else 0) for other in range(3)])
            every = [np.take(volume, range(first, volume.shape[axis], size), axis) for first in range(size)]
            volume = np.add.reduce(every)
    return volume


def locate_peak(view: Survey) -> tuple[int, int, int]:
    """Return the raw voxel in the middle of the cube where the smoothed pattern is brightest."""
    level = np.median(view.roots[view.measured > 0])
    above = np.where((view.measured > 0)[:, None, None], view.roots - level, 0)
    smooth = ndimage.gaussian_filter(above, 1 if view.side > 1 else 2)
    z, y, x = (int((index + 0.5) * view.side) for index in np.unravel_index(int(smooth.argmax()), smooth.shape))
    return z, y, x


def signal_reach(view: Survey, peak: tuple[int, int, int], speckle: float) -> tuple[int, int, int]:
    """Return the half widths of the box around `peak` in which speckles stand out from noise [voxels].

    The box shrinks from the whole scan, plane by plane. It stops when on all its faces a speckle has, on average, a signal-to-noise
    ratio of 3. The signal is the mean excess over the background, which is the median of the scan. Frames that have not come count
    as unknown: a face is judged by its measured part, so part of a scan has nearly the reach of the whole.

    Parameters
    ----------
    view : counts of the scan, summed over cubes
    peak : raw voxel of the peak
    speckle : voxels per speckle, the product of the oversampling along the axes
    """
    centre = [index // view.side for index in peak]
    background = view.background / view.side**3
    half = [max(index, size - 1 - index) for index, size in zip(centre, view.counts.shape, strict=True)]
    while True:
        ratios = []
        for axis in range(3):
            excess = _face_mean(view, centre, half, axis) / view.side**3 - background
            ratios.append(excess * speckle / np.sqrt(max(excess + background, 1e-12) * speckle))
        weakest = min((axis for axis in range(3) if half[axis] > 1), key=lambda axis: ratios[axis], default=0)
        if ratios[weakest] >= SIGNAL_TO_NOISE or half[weakest] <= 1:
            z, y, x = (width * view.side + view.side // 2 for width in half)
            return z, y, x
        half[weakest] -= 1


def _face_mean(view: Survey, centre: list[int], half: list[int], axis: int) -> float:
    """Return the mean count on two faces of a box, those perpendicular to `axis`; parts that were not measured are left out."""
    box = [slice(max(0, c - h), c + h + 1) for c, h in zip(centre, half, strict=True)]
    total, number = 0.0, 0.0
    for plane in {centre[axis] - half[axis], centre[axis] + half[axis]}:
        if 0 <= plane < view.counts.shape[axis]:
            box[axis] = slice(plane, plane + 1)
            face = view.counts[tuple(box)]
            total += float(face.sum(dtype=np.float64))
            number += float(view.measured[box[0]].sum()) * face[0].size
    return total / max(number, 1e-30)


def _box(counts: FloatArray, middle: NDArray[np.int_], half: int) -> tuple[slice, ...]:
    return tuple(slice(max(0, int(c) - half), min(n, int(c) + half + 1)) for c, n in zip(middle, counts.shape, strict=True))


def locate_maximum(smooth: FloatArray, middle: NDArray[np.int_], half: int) -> NDArray[np.int_]:
    """Return the voxel with the largest value in a cube; its middle is the voxel `middle`, and its edge is 2 `half` + 1 voxels."""
    box = _box(smooth, middle, half)
    return np.array(np.unravel_index(int(smooth[box].argmax()), smooth[box].shape)) + [part.start for part in box]


def centre_of_mass(counts: FloatArray, middle: NDArray[np.int_], half: int) -> NDArray[np.float64]:
    """Return the centre of mass of the counts in a cube, relative to the voxel `middle` at the middle of the cube [voxels].

    The weight of a voxel is its count minus a tenth of the cube's largest count, or 0 if that is negative.
    """
    box = _box(counts, middle, half)
    weight = np.maximum(counts[box] - 0.1 * counts[box].max(), 0)
    if not weight.any():
        return np.zeros(3)
    return np.array(ndimage.center_of_mass(weight)) + [part.start for part in box] - middle


def sub_voxel_offset(counts: FloatArray, middle: NDArray[np.int_]) -> NDArray[np.float64]:
    """Return the offset of a peak from the voxel `middle` [voxels].

    Along each axis, counts are summed over three adjacent planes of 3 x 3 voxels. The offset is the vertex of the parabola through
    the logarithms of these sums.
    """
    cube = counts[_box(counts, middle, 1)]
    if cube.shape != (3, 3, 3):
        return np.zeros(3)
    offset = []
    for axis in range(3):
        before, here, after = np.log(cube.sum(axis=tuple(other for other in range(3) if other != axis), dtype=float) + 0.5)
        bend = 2 * here - before - after
        offset.append(np.clip((after - before) / (2 * bend), -1, 1) if bend > 0 else 0.0)
    return np.array(offset)


def require_peak(name: str, counts: FloatArray, local: NDArray[np.int_]) -> None:
    """Refuse counts without a Bragg peak at voxel `local`.

    At a peak, the sum over 3 x 3 x 3 voxels lies at least ten robust standard deviations above the median of all such sums.

    Raises
    ------
    DataError : if there is no such peak.
    """
    sums = 27 * ndimage.uniform_filter(counts, 3)[::3, ::3, ::3]
    level = float(np.median(sums))
    spread = max(1.4826 * float(np.median(np.abs(sums - level))), np.sqrt(level + 1))
    best = float(counts[_box(counts, local, 1)].sum(dtype=np.float64))
    if best - level < CONTRAST * spread:
        raise DataError(
            f"{name}: no Bragg peak: the brightest 3 x 3 x 3 voxels hold {best:.4g} counts, others {level:.4g} +- {spread:.3g}. "
            "Check the scan number and the detector region, or point to the peak with prepare.centre."
        )
