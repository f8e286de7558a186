"""Look at raw frames for what no file says: values that are no counts, their unit, frames without beam, a mask upside down.

Files of every format pass here, so a fault of a kind is found whatever program wrote the file. What is repaired or left out is said
in a sentence for the user.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from braggshot.errors import DataError, list_numbers
from braggshot.volumes import BoolArray, Frames

SAMPLES = 8  # number of frames that are looked at before the scan is read
IMPOSSIBLE = (2**31 - 1, 2**32 - 1)  # values that stand for "no count" in a wider type too, because no detector counts so far
STEADY = (255, 65535)  # values that stand for "no count" in a wider type where a pixel holds them in all frames
TOLERANCE = 2e-3  # largest difference between a multiple of the unit and a whole number of photons [photons]
SHARE = 0.999  # least share of the values that are multiples of a unit [1]
FEWEST = 50  # least number of values from which a unit is told
LARGEST = 10_000  # values of more photons are not looked at: 32-bit numbers do not hold them exactly enough [photons]
MISSED = (
    30.0  # counts that neighbouring frames let expect in a frame; none at all is then no chance (e^-30, e^-6 if a fifth) [counts]
)
FALL = 5.0  # largest factor by which the counts of a frame may lie below those of the last frame beside it [1]
UPSIDE_DOWN = 0.5  # share of bad pixels above which a mask is not believed [1]
BRIGHTER = 3.0  # factor by which the pattern under a mask must outshine what is left, so that the mask hides the peak [1]
CORE = 6  # width up to which a mask on the peak may cover a saturated core [pixels]
HALF_WAY = 2**15  # half of the range of a 16-bit counter [counts]
NEAR_FULL = 0.75 * 2**16  # counts above which a 16-bit counter may have begun again at 0 [counts]
AROUND = 24  # half width of the box about the peak in which wrapped counts are searched [voxels]
OUTER = 0.42  # distance from the origin of the autocorrelation from which on only noise is there [box widths]
BROKEN = 20.0  # mean square of the autocorrelation there, over the sum of the counts, above which the pattern is broken [1]


@dataclass(frozen=True)
class Readout:
    """How the values of a scan stand for photons: photons = value / unit, or value^2 / unit.

    Parameters
    ----------
    no_count : values that stand for "not counted"
    blind : (rows, columns) True on pixels without a count in any frame that was looked at
    unit : value of one photon, after squaring
    squared : whether the values are square roots of counts
    noticed : what is odd about the values, in words
    """

    no_count: tuple[int, ...]
    blind: BoolArray
    unit: float = 1.0
    squared: bool = False
    noticed: tuple[str, ...] = ()

    def photons(self, values: NDArray[np.float32], offset: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Return the photons that pixel values stand for, less the dark `offset` [values]."""
        values = values * values if self.squared else values
        values = values if offset is None else np.maximum(values - offset, 0)
        if not self.squared and self.unit == 1:
            return values
        photons = values / np.float32(self.unit)
        return np.rint(photons) if offset is None else photons


@dataclass(frozen=True)
class FrameCounts:
    """Counts of raw frames that were read.

    Parameters
    ----------
    numbers : (m,) numbers of the frames in the scan
    totals : (m,) sum of the counts on trusted voxels
    empty : (m,) True where a frame has no trusted voxel, or holds one and the same value everywhere
    """

    numbers: NDArray[np.intp]
    totals: NDArray[np.float64]
    empty: BoolArray

    @property
    def brightest(self) -> int:
        """Number of the frame with the most counts; 0 if no frame was read."""
        return int(self.numbers[int(self.totals.argmax())]) if len(self.numbers) else 0

    def mark_empty(self, n_frames: int) -> BoolArray:
        """Return (n_frames,) True for the frames of a scan that were read and are empty."""
        marked = np.zeros(n_frames, dtype=bool)
        marked[self.numbers[self.empty]] = True
        return marked


def sample_frames(frames: Frames, arrived: BoolArray | None, rows: slice, columns: slice) -> NDArray[Any]:
    """Read a few frames (m, rows, columns), evenly spread over those that have arrived."""
    there = np.arange(frames.shape[0]) if arrived is None or not arrived.any() else np.flatnonzero(arrived)
    chosen = np.unique(there[np.linspace(0, len(there) - 1, SAMPLES).astype(int)])
    return np.stack([np.asarray(frames[int(index), rows, columns]) for index in chosen])


def inspect_values(sample: NDArray[Any], known: int | None = None) -> Readout:
    """Find which values of a sample of frames are no counts, and in which unit the others count photons.

    Parameters
    ----------
    sample : (m, rows, columns) frames as they are stored
    known : value for "not counted" that the file states
    """
    values, blind = _find_no_counts(sample, known)
    noticed = [f"{int(blind.sum())} pixels hold no count in any frame: masked"] if known is None and blind.any() else []
    bad = np.isin(sample, values) | blind
    positive = np.where(bad, 0, sample)
    positive = positive[np.isfinite(positive) & (positive > 0)].astype(np.float64)
    unit, squared, said = _find_unit(positive)
    return Readout(values, blind, unit, squared, (*noticed, *said))


def _find_no_counts(sample: NDArray[Any], known: int | None) -> tuple[tuple[int, ...], BoolArray]:
    """Return the values that stand for "not counted", and the pixels without a count in any frame of the sample."""
    kind, bits = sample.dtype.kind, 8 * sample.dtype.itemsize
    ever = {known} if known is not None else set()
    if kind == "u" and bits >= 16:
        ever.add(int(np.iinfo(sample.dtype).max))
    if kind == "f" or bits >= 32:
        ever |= {*IMPOSSIBLE, 2**32}  # 32-bit floating-point numbers round 2^32 - 1 up
    blind = np.zeros(sample.shape[1:], dtype=bool)
    for value in (*ever, *STEADY):
        blind |= (sample == value).all(0)
    if kind in "if":
        blind |= ~((sample >= 0) & (sample < np.inf)).any(0)  # negative, infinite, or not a number
    return tuple(sorted(ever)), blind


def _find_unit(positive: NDArray[np.float64]) -> tuple[float, bool, tuple[str, ...]]:
    """Return the value of one photon, whether values must be squared first, and remarks in words."""
    if len(positive) < FEWEST:
        return 1.0, False, ()
    unit = _quantum(positive)
    if unit is not None:
        said = f"the values are multiples of {unit:.6g}: each {unit:.6g} is taken as one photon"
        return (1.0, False, ()) if unit == 1 else (unit, False, (said,))
    unit = _quantum(positive**2)
    if unit is not None:
        said = "the values are square roots of whole numbers: they were squared, because counts are needed, not magnitudes"
        return unit, True, (said if unit == 1 else f"{said}; each {unit:.6g} is taken as one photon",)
    low = f"; the highest is {positive.max():.3g}" if positive.max() < FEWEST else ""
    return 1.0, False, (f"the values are no whole numbers, so they were changed before; they are taken for photons{low}",)


def _quantum(values: NDArray[np.float64]) -> float | None:
    """Return the largest unit of which all values are multiples; None if there is none, or if it cannot be told."""
    whole = np.rint(values)
    if np.array_equal(whole, values) and values.max() < 2**62:
        distinct = np.unique(whole)
        return float(np.gcd.reduce(distinct.astype(np.int64))) if len(distinct) > 2 else 1.0
    distinct = np.unique(values)
    steps = np.diff(np.concatenate([[0.0], distinct[: 4 * FEWEST]]))
    steps = steps[steps > 1e-5 * distinct[: len(steps)]]
    if not len(steps):
        return None
    unit = float(steps.min())
    for reach in (10.0, 100.0, 1000.0):  # the longer the ruler, the better the unit is known
        near = distinct[distinct < reach * unit]
        n = np.rint(near / unit)
        unit = float((near * n).sum() / max((n * n).sum(), 1.0)) or unit
    photons = values[values < LARGEST * unit] / unit
    share = np.mean(np.abs(photons - np.rint(photons)) < TOLERANCE + 2e-7 * photons**1.5)
    if len(distinct) < 4 or share < SHARE:
        return None
    return 1.0 if abs(unit - 1) < 1e-4 else unit


def find_lost_frames(counts: FrameCounts, n_frames: int) -> BoolArray:
    """Find frames that the beam or the detector left out: (n_frames,) True where a frame is no measurement.

    A frame is lost if it holds nothing that can be trusted, or one and the same value everywhere. A frame of zeros is lost if its
    neighbours let expect counts: the nearest frames with counts on both sides have a geometric mean above 30 counts, or, at an end
    of the scan, the nearest one has five times as many. Where more than a third of the frames inside a scan would be lost so,
    zeros are taken for what was measured.

    Parameters
    ----------
    counts : the frames that were read, in the order of their angles
    n_frames : number of frames in the scan
    """
    lost = counts.mark_empty(n_frames)
    zero = (counts.totals == 0) & ~counts.empty
    filled = np.flatnonzero(counts.totals > 0)
    dark = np.zeros(len(zero), dtype=bool)
    for index in np.flatnonzero(zero) if len(filled) else ():
        after = int(np.searchsorted(filled, index))
        beside = [counts.totals[filled[at]] for at in (after - 1, after) if 0 <= at < len(filled)]
        expected = np.sqrt(beside[0] * beside[1]) if len(beside) == 2 else beside[0] / FALL
        dark[index] = expected > MISSED
    inside = dark[filled[0] : filled[-1] + 1] if len(filled) else dark[:0]
    if 3 * inside.sum() <= len(inside):
        lost[counts.numbers[dark]] = True
    return lost


def name_lost_frames(lost: BoolArray) -> str:
    """Say which frames hold no measurement."""
    which = list_numbers(np.flatnonzero(lost))
    return f"{int(lost.sum())} of {len(lost)} frames ({which}) hold no counts: without beam, or never written; masked"


def refuse_upside_down_mask(name: str, valid: BoolArray, readout: Readout, sample: NDArray[Any]) -> None:
    """Refuse a mask that leaves little, or that hides the Bragg peak: it may have 1 where pixels are good.

    A mask that leaves one solid box of pixels, as a region of interest, is accepted; so is one that covers a saturated core.

    Parameters
    ----------
    name : name of the scan, for the message
    valid : (rows, columns) or (n, rows, columns) True on good pixels
    readout, sample : how values stand for photons, and frames as they are stored

    Raises
    ------
    DataError : if the mask cannot be right.
    """
    good = np.asarray(valid if valid.ndim == 2 else valid.any(0))
    question = "is it the other way round? A mask is 0 where pixels are good, and 1 where they are bad"
    masked = 1 - float(valid.mean())
    bright = np.where(np.isin(sample, readout.no_count) | readout.blind | ~(sample >= 0), 0, sample).astype(np.float32)
    image = ndimage.median_filter(bright.max(0), 3)
    if masked > UPSIDE_DOWN and not _is_box(good) and not _holds_peak(good, image):
        raise DataError(f"{name}: the mask marks {100 * masked:.0f} % of the voxels as bad; {question}.")
    hidden, seen = image * ~good, image * good
    if not good.all() and seen.any() and hidden.max() > BRIGHTER * seen.max():
        patches, _ = ndimage.label(~good, np.ones((3, 3)))
        patch = np.equal(patches, patches[np.unravel_index(int(hidden.argmax()), hidden.shape)]).astype(np.uint8)
        rows, columns = ndimage.find_objects(patch)[0]
        near = ndimage.binary_dilation(patch, np.ones((5, 5)))
        if (
            near[np.unravel_index(int(seen.argmax()), seen.shape)]
            and max(rows.stop - rows.start, columns.stop - columns.start) > CORE
        ):
            raise DataError(f"{name}: the mask hides the brightest part of the pattern, the Bragg peak; {question}.")


def _is_box(good: BoolArray) -> bool:
    rows, columns = np.flatnonzero(good.any(1)), np.flatnonzero(good.any(0))
    return bool(len(rows)) and bool(good[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() > 0.9)


def _holds_peak(good: BoolArray, image: NDArray[np.float32]) -> bool:
    return bool(image.any()) and bool((image * good).max() == image.max())


def has_negative_counts(frame: NDArray[Any]) -> bool:
    """Tell whether a frame of 16-bit numbers with a sign holds counts above 32767, which look negative, amid high counts."""
    beside_high = ndimage.binary_dilation(frame > HALF_WAY // 2, np.ones((3, 3)))
    return bool((beside_high & (frame < 0)).any())


def may_have_wrapped(counts: NDArray[np.float32], valid: BoolArray) -> bool:
    """Tell whether counts of 16-bit frames may have passed 65535 and begun again at 0.

    The autocorrelation of a crystal's pattern ends at the crystal's size. A wrapped count breaks the pattern, and so adds to the
    corners of the autocorrelation, where else there is noise only: the mean square there is the sum of the counts.

    Parameters
    ----------
    counts, valid : (z, y, x) counts [counts], and the voxels that are trusted
    """
    if counts.max() < NEAR_FULL:
        return False
    middle = np.unravel_index(int(counts.argmax()), counts.shape)
    box = tuple(slice(max(0, int(at) - AROUND), int(at) + AROUND) for at in middle)
    near = counts[box].astype(np.float64)
    if not valid[box].all():
        return False
    far = [np.abs(np.fft.fftfreq(size)) >= OUTER for size in near.shape]
    corners = np.fft.fftn(near)[np.ix_(*far)]
    return bool(corners.size) and float((np.abs(corners) ** 2).mean()) > BROKEN * near.sum()
