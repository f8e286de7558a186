"""Read a raw scan as far as needed to find its Bragg peak, and mask what is no diffraction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from braggshot.errors import DataError
from braggshot.prepare.clean import find_dead_pixels, find_hot_pixels, find_missing_blocks, find_zingers
from braggshot.prepare.config import PrepareConfig
from braggshot.prepare.counts import Block, CorrectedFrames, refuse_untrusted
from braggshot.prepare.inspection import may_have_wrapped
from braggshot.prepare.survey import (
    Survey,
    centre_of_mass,
    locate_maximum,
    locate_peak,
    require_peak,
    signal_reach,
    sub_voxel_offset,
    survey,
)
from braggshot.prepare.window import raw_extent, window_about
from braggshot.volumes import FloatArray, Scan

Triple = tuple[int, int, int]

WHOLE = 8_000_000  # largest scan, or part of one, that is read in one step [voxels]
MARGIN = 12  # margin that is read around the cropped region, so that artefacts on its edge are seen whole [raw voxels]
SPECKLE = 200.0  # volume of a speckle, assumed until it is measured; set large, so that the region read is not too small [voxels]
WRAPPING = (np.dtype(np.uint16), np.dtype(np.int16))  # types of pixels in which counts beyond 65535 begin again at 0
GROUPS = 8  # number of parts into which a rocking curve is split to find the pixels that are hot in nearly all parts


def known_pixels(scan: Scan, config: PrepareConfig) -> tuple[slice, slice]:
    """Return the rows and columns that are read: all, unless the settings give both position and shape of the region."""
    frames, rows, columns = scan.frames.shape
    if not isinstance(config.centre, tuple) or config.shape is None:
        return slice(0, rows), slice(0, columns)
    start, stop = _known_region(config.centre, config.shape, (frames, rows, columns), config)
    return slice(max(0, start[1]), min(rows, stop[1])), slice(max(0, start[2]), min(columns, stop[2]))


def _known_region(centre: Triple, shape: Triple, raw_shape: Triple, config: PrepareConfig) -> tuple[list[int], list[int]]:
    """Return the first voxel of the region about a given peak, and the one after its last voxel, with the margin."""
    binning = (1, 1, 1) if config.binning == "auto" else config.binning
    start, stop = raw_extent(window_about(centre, raw_shape, binning, shape), shape)
    return [index - MARGIN for index in start], [index + MARGIN for index in stop]


def read_first(scan: Scan, source: CorrectedFrames, config: PrepareConfig) -> Block | Survey:
    """Read what is needed to find the peak.

    This is the region around the peak if the settings give its position and the shape, else the whole scan. A scan of many voxels
    is surveyed: its counts are summed over cubes.
    """
    if isinstance(config.centre, tuple) and config.shape is not None:
        return source.read(*_known_region(config.centre, config.shape, source.shape, config))
    if scan.prepared or np.prod(source.shape) <= WHOLE:
        return source.read((0, 0, 0), source.shape)
    return survey(source)


def find_peak(
    scan: Scan, source: CorrectedFrames, read: Block | Survey, config: PrepareConfig
) -> tuple[Block, Survey, Triple]:  # fmt: skip
    """Return counts around the peak, a survey of the scan (its counts summed over cubes), and the peak's rough position."""
    given = config.centre if isinstance(config.centre, tuple) else None
    if isinstance(read, Block):
        block = _mask_artefacts(scan, read, config)
        view = _survey_of(block)
        return block, view, given or locate_peak(view)
    view = read
    refuse_untrusted(scan.name, view.untrusted, int(np.prod(source.shape)))
    _require_counts(scan.name, view.counts)
    peak = given or locate_peak(view)
    size = 2 * np.array(signal_reach(view, peak, SPECKLE)) + 2 * MARGIN
    while np.prod(np.minimum(size, source.shape)) > WHOLE:
        size[int(np.argmax(np.minimum(size, source.shape)))] *= 0.9
    start = np.array(peak) - size // 2
    return load_region(scan, source, start.tolist(), (start + size).tolist(), config), view, peak


def _survey_of(block: Block) -> Survey:
    measured = block.valid.any((1, 2)).astype(float)
    return Survey(block.counts, np.sqrt(block.counts), 1, block.untrusted, measured, block.frames)


def load_region(
    scan: Scan, source: CorrectedFrames, start: Sequence[int], stop: Sequence[int], config: PrepareConfig
) -> Block:  # fmt: skip
    """Read the counts of a region, and mask artefacts."""
    return _mask_artefacts(scan, source.read(start, stop), config)


def _mask_artefacts(scan: Scan, block: Block, config: PrepareConfig) -> Block:
    """Mask what is no diffraction: hot and dead pixels, zingers, blocks that were cut out."""
    refuse_untrusted(scan.name, block.untrusted, block.counts.size)
    _require_counts(scan.name, block.counts)
    steps = [f"{block.untrusted} voxels negative or not a number masked"] if block.untrusted else []
    if scan.prepared or not config.bad_pixels:
        return replace(block, steps=tuple(steps))
    valid, pixels, total = block.valid, np.asarray(block.valid.any(0)), block.counts.sum(0)
    there = block.counts[valid.any((1, 2))]  # in frames that have not come no pixel is hot
    groups = (part.sum(0) for part in np.array_split(there, min(GROUPS, len(there))))
    artefacts = {
        "hot pixels": find_hot_pixels(groups, pixels),
        "dead pixels": find_dead_pixels(total, pixels),
        "pixels without counts amid counts": find_missing_blocks(total, pixels),
    }
    valid = valid & ~np.logical_or.reduce(list(artefacts.values()))
    artefacts["zingers"] = find_zingers(block.counts * valid, valid)
    valid &= ~artefacts["zingers"]
    blocks = find_missing_blocks(block.counts, valid)
    artefacts["voxels cut out of the pattern (a block of exact zeros amid counts)"] = blocks
    valid &= ~blocks
    steps += [f"{int(mask.sum())} {name} masked" for name, mask in artefacts.items() if mask.any()]
    noticed = [f"{block.full} voxels hold the largest value of their type: saturated, or not counted; masked"] if block.full else []
    if scan.frames.dtype in WRAPPING and may_have_wrapped(block.counts, valid):
        noticed.append("the pattern breaks off near its peak: counts beyond 65535 may have begun again at 0; 16 bits hold no more")
    return replace(block, counts=block.counts * valid, valid=valid, steps=tuple(steps), noticed=tuple(noticed))


def _require_counts(name: str, counts: FloatArray) -> None:
    if not counts.any():
        raise DataError(
            f"{name}: there are no counts: every voxel is zero or masked. Check the data set, the mask and the scan number."
        )


def centre_peak(name: str, block: Block, peak: Triple, side: int, config: PrepareConfig) -> tuple[Triple, NDArray[np.float64]]:
    """Return the raw voxel of the peak, and the offset of the peak from the middle of that voxel [voxels].

    Raises
    ------
    DataError : if no peak stands out from the noise.
    """
    smooth = ndimage.gaussian_filter(block.counts, 1)
    local = np.subtract(peak, block.start)
    if isinstance(config.centre, str):
        local = locate_maximum(smooth, local, 2 * side + 8)
        if config.centre == "com":
            local = np.rint(local + centre_of_mass(block.counts, local, 8)).astype(int)
    require_peak(name, block.counts, locate_maximum(smooth, local, 8))
    z, y, x = (int(index) for index in local + block.start)
    return (z, y, x), sub_voxel_offset(block.counts, local)
