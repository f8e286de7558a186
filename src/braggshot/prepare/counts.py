"""Read a raw scan as corrected counts on a regular rocking grid, one region at a time.

::

    counts = sum over the frames of a plane of (frame - offset) / response,  divided by their summed relative flux

A plane holds the frames at one rocking angle. The offset is the dark field, the response is the flat field, and the flux of a
frame is relative to the median flux. Only the region that is asked for is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggshot.errors import ConfigError, DataError
from braggshot.prepare.clean import dark_offset, flat_response
from braggshot.prepare.detectors import find_gaps
from braggshot.prepare.inspection import FrameCounts, Readout, inspect_values, refuse_upside_down_mask, sample_frames
from braggshot.prepare.rocking import ANGLE, RockingGrid, rocking_grid, stepped_values
from braggshot.volumes import BoolArray, FloatArray, Frames, Scan

UNTRUSTED = 0.1  # largest share of a scan's voxels that may be negative or not a number; else the scan is refused [1]


NO_FRAMES = FrameCounts(np.zeros(0, np.intp), np.zeros(0), np.zeros(0, dtype=bool))
THIN = 8  # every so many rows and columns are looked at to tell whether a frame is the same everywhere [pixels]


@dataclass(frozen=True)
class Block:
    """Counts of one region of a raw scan, and a mask of the region's valid voxels.

    The region begins at the voxel `start` of the scan. Counts are 0 where not valid. `untrusted` is the number of voxels
    that should have held counts but were negative or not a number; `full` is the number of those that held a value for "not
    counted". `steps` describes in words how bad voxels were masked, and `noticed` what the user should know. `frames` holds the
    counts of each raw frame of the region.
    """

    counts: NDArray[np.float32]
    valid: BoolArray
    start: tuple[int, int, int]
    untrusted: int = 0
    steps: tuple[str, ...] = ()
    frames: FrameCounts = NO_FRAMES
    full: int = 0
    noticed: tuple[str, ...] = ()

    @property
    def stop(self) -> tuple[int, int, int]:
        """On each axis, the index in the raw scan that follows the last voxel of this region."""
        z, y, x = (first + size for first, size in zip(self.start, self.counts.shape, strict=True))
        return z, y, x


@dataclass(frozen=True)
class Corrections:
    """Choice of the corrections that every frame gets.

    Parameters
    ----------
    monitor, flat, dark : whether to use the monitor, flat field and dark field of the scan
    detector : name of the detector whose gaps are masked; None takes the name in the scan
    gain : (rows, columns) gain of each pixel that was estimated from the scan, in place of a flat field [1]
    step : step of the grid of angles or energies, as `rocking_grid` takes it
    """

    monitor: bool = True
    flat: bool = True
    dark: bool = True
    detector: str | None = None
    gain: FloatArray | None = None
    step: float | None = None


@dataclass(frozen=True)
class CorrectedFrames:
    """Frames on a regular rocking grid, corrected when they are read.

    Parameters
    ----------
    frames : raw frames
    grid : planes of the rocking curve, and the frames of each
    good : (rows, columns) True on pixels that can be trusted
    readout : how pixel values stand for photons
    valid : (n, rows, columns) True on valid voxels of the raw frames; None if `good` alone masks all frames
    offset, response : (rows, columns) dark offset [counts] and flat-field response [1]; None for no correction
    unsigned : read 16-bit numbers as unsigned, because counts above 32767 were stored as negative numbers
    steps : corrections, in words
    """

    frames: Frames
    grid: RockingGrid
    good: BoolArray
    readout: Readout
    valid: BoolArray | None = None
    offset: NDArray[np.float32] | None = None
    response: NDArray[np.float32] | None = None
    unsigned: bool = False
    steps: tuple[str, ...] = ()

    @property
    def noticed(self) -> tuple[str, ...]:
        """What is odd about the values, in words."""
        wide = "counts above 32767 were stored as negative numbers: they were read as numbers without a sign"
        return (*self.readout.noticed, wide) if self.unsigned else self.readout.noticed

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (planes, rows, columns) of the grid."""
        return len(self.grid.frames), self.good.shape[0], self.good.shape[1]

    def read(self, start: Sequence[int], stop: Sequence[int]) -> Block:
        """Read the corrected counts from the index `start` to the one before `stop`; what lies outside the grid is left out."""
        first = [max(0, int(index)) for index in start]
        last = [min(size, int(index)) for size, index in zip(self.shape, stop, strict=True)]
        rows, columns = (slice(a, b) for a, b in zip(first[1:], last[1:], strict=True))
        planes = self.grid.frames[first[0] : last[0]]
        wanted = [frame for plane in planes for frame in plane]
        raw, trusted = self._raw(wanted, rows, columns)
        asked = trusted.any((1, 2))  # a frame that the mask leaves out whole tells nothing
        counted = np.logical_and.reduce([raw != value for value in self.readout.no_count]) if self.readout.no_count else None
        full = 0 if counted is None else int((trusted & ~counted).sum())
        trusted &= True if counted is None else counted
        untrusted = 0
        if raw.dtype.kind in "if":
            sound = raw >= 0 if raw.dtype.kind == "i" else np.isfinite(raw) & (raw >= 0)
            untrusted = int((trusted & ~sound).sum())
            trusted &= sound
        offset = None if self.offset is None else self.offset[rows, columns]
        counts = self.readout.photons(np.where(trusted, raw, 0).astype(np.float32, copy=False), offset)
        if offset is not None:
            counts *= trusted
        totals, empty = counts.sum((1, 2), dtype=np.float64), _find_empty(raw, trusted)
        frames = FrameCounts(np.asarray(wanted, np.intp)[asked], totals[asked], empty[asked])
        if len(wanted) != len(planes):
            counts, trusted = _gather(counts, trusted, [len(plane) for plane in planes])
        weight = self.grid.weight[first[0] : last[0], None, None]
        if self.response is not None:
            counts /= self.response[rows, columns]
        if (weight != 1).any():
            counts /= np.where(weight > 0, weight, 1).astype(np.float32)
            trusted &= weight > 0
        return Block(counts * trusted, trusted, (first[0], first[1], first[2]), untrusted, frames=frames, full=full)

    def _raw(self, wanted: list[int], rows: slice, columns: slice) -> tuple[NDArray[Any], BoolArray]:
        """Read raw frames by their numbers, and a mask of the voxels that may be trusted."""
        if not wanted:
            shape = (0, rows.stop - rows.start, columns.stop - columns.start)
            return np.zeros(shape, np.float32), np.zeros(shape, dtype=bool)
        consecutive = wanted == list(range(wanted[0], wanted[-1] + 1))
        run = slice(wanted[0], wanted[-1] + 1)
        if consecutive:
            raw = np.asarray(self.frames[run, rows, columns])
        else:
            raw = np.stack([np.asarray(self.frames[frame : frame + 1, rows, columns])[0] for frame in wanted])
        if self.unsigned:
            raw = raw.view(np.uint16)
        trusted = np.repeat(self.good[None, rows, columns], len(wanted), axis=0)
        if self.valid is not None:
            trusted &= self.valid[run if consecutive else wanted, rows, columns]
        return raw, trusted


def correct_frames(
    scan: Scan, corrections: Corrections, across: slice = slice(None), along: slice = slice(None)
) -> CorrectedFrames:  # fmt: skip
    """Collect the corrections of a scan; a few frames, cut to the rows `across` and the columns `along`, are looked at.

    For a scan that was prepared already, the only correction is its mask.

    Raises
    ------
    DataError : if a dark or flat field, monitor or angle does not fit the frames, if the mask seems to be the other way round, or
        if no pixel is left.
    ConfigError : if `corrections.detector` is unknown or has frames of another shape.
    """
    n_frames, rows, columns = scan.frames.shape
    if scan.prepared:
        corrections = Corrections(monitor=False, flat=False, dark=False)
    monitor = scan.monitor if corrections.monitor else None
    values, scanned = (None, ANGLE) if scan.prepared else stepped_values(scan)
    grid = rocking_grid(n_frames, values, monitor, scan.arrived, scanned, corrections.step)
    steps = list(grid.steps)
    whole = scan.valid is not None and scan.valid.ndim == 3
    good = np.ones((rows, columns), dtype=bool) if scan.valid is None or whole else scan.valid.copy()
    readout = Readout((), np.zeros((rows, columns), dtype=bool))
    if not (scan.prepared or scan.provenance.get("corrected")):  # of a sum of repeats, each scan was looked at
        sample = sample_frames(scan.frames, scan.arrived, across, along)
        readout = inspect_values(sample, scan.provenance.get("no_count"))
        if readout.blind.all():
            raise DataError(f"{scan.name}: every voxel is negative, not a number, or the value for no count; expected counts.")
        if readout.blind.any():
            steps.append(f"{int(readout.blind.sum())} pixels without a count in any frame masked")
        if scan.valid is not None:
            refuse_upside_down_mask(scan.name, scan.valid[..., across, along], readout, sample)
        good[across, along] &= ~readout.blind
        good &= ~_gaps(scan, corrections, steps)
    offset = response = None
    if scan.dark is not None and corrections.dark:
        offset, hot = dark_offset(_of_shape(scan.dark, (rows, columns), "dark field"), good)
        good &= ~hot
        subtracted = " and subtracted" if offset is not None else ""
        steps.append(f"dark field{subtracted}: {int(hot.sum())} hot pixels masked")
    if scan.flat is not None and corrections.flat:
        response, unlit = flat_response(_of_shape(scan.flat, (rows, columns), "flat field"), good)
        spread = 100 * float(response[good & ~unlit].std())
        good &= ~unlit
        steps.append(f"divided by the flat field (spread {spread:.2g} %): {int(unlit.sum())} pixels below mean - 3 sigma masked")
    elif corrections.gain is not None:  # where pixels are 1 because nothing is known, sigma means nothing: none is masked
        response = _of_shape(corrections.gain, (rows, columns), "gain").astype(np.float32)
        steps.append("divided by the gain of each pixel, which was estimated from the scan itself")
    if not good.any():
        raise DataError(f"{scan.name}: no pixel is left once the mask, dark and flat field are applied; check them.")
    valid = scan.valid if whole else None
    return CorrectedFrames(scan.frames, grid, good, readout, valid, offset, response, steps=tuple(steps))


def _find_empty(raw: NDArray[Any], trusted: BoolArray) -> BoolArray:
    """Find frames (m,) without a trusted voxel, or with one and the same value, not zero, everywhere."""
    thin = raw[:, ::THIN, ::THIN]
    first = thin[:, :1, :1]
    same = (thin == first).all((1, 2)) & (first[:, 0, 0] != 0) & (thin.shape[1] * thin.shape[2] > THIN)
    return np.asarray(same | ~trusted.any((1, 2)))


def refuse_untrusted(name: str, untrusted: int, total: int) -> None:
    """Refuse a scan in which too many voxels are negative or not a number.

    Raises
    ------
    DataError : if more than a tenth of all voxels are negative or not a number.
    """
    if untrusted > UNTRUSTED * total:
        raise DataError(
            f"{name}: {100 * untrusted / total:.0f} % of the voxels are negative or not a number; expected counts. "
            "Give raw intensities, not magnitudes with a background subtracted, or a mask of the voxels to leave out."
        )


def _gaps(scan: Scan, corrections: Corrections, steps: list[str]) -> BoolArray:
    _, rows, columns = scan.frames.shape
    name = corrections.detector or scan.detector
    mask = None if name is None else find_gaps(name, (rows, columns))
    if mask is not None:
        steps.append(f"gaps of the detector {name}: {int(mask.sum())} pixels masked")
        return mask
    if corrections.detector is not None:
        raise ConfigError(f"{scan.name}: frames of {rows} x {columns} pixels are not those of a whole {name}; give a mask instead.")
    if name is not None:
        steps.append(f"gaps of the detector {name} not masked: the frames are {rows} x {columns} pixels of it")
    return np.zeros((rows, columns), dtype=bool)


def _of_shape(image: FloatArray, shape: tuple[int, int], what: str) -> FloatArray:
    if image.shape != shape:
        raise DataError(f"the {what} has shape {image.shape}, the frames {shape}; cut it to the same region of the detector.")
    return image


def _gather(counts: NDArray[np.float32], trusted: BoolArray, sizes: list[int]) -> tuple[NDArray[np.float32], BoolArray]:
    """Sum the frames of each plane.

    A voxel is trusted where it is trusted in all frames of its plane; an empty plane has no trusted voxel.
    """
    summed = np.zeros((len(sizes), *counts.shape[1:]), np.float32)
    together = np.zeros(summed.shape, dtype=bool)
    last = 0
    for plane, size in enumerate(sizes):
        first, last = last, last + size
        if size:
            summed[plane] = counts[first:last].sum(0)
            together[plane] = trusted[first:last].all(0)
    return summed, together
