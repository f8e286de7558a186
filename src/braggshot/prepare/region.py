"""Read the corrected counts of a scan on its raw voxels, in a region about the Bragg peak that is the same for all repeats."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from braggshot.physics.plausibility import check_counts
from braggshot.prepare.config import PrepareConfig
from braggshot.prepare.counts import Block, CorrectedFrames, Corrections, correct_frames
from braggshot.prepare.inspection import find_lost_frames, has_negative_counts
from braggshot.prepare.peak import find_peak, known_pixels, load_region, read_first
from braggshot.prepare.rocking import regular_geometry
from braggshot.prepare.same_setup import runs_down
from braggshot.prepare.volume import leave_out
from braggshot.volumes import BoolArray, FloatArray, Geometry, Scan

LARGEST = 64_000_000  # voxels of a sum; of a larger detector a square about the peak is kept


@dataclass(frozen=True)
class Region:
    """Rows and columns of the detector that are read in all frames, and where the peak lies in them (plane, row, column)."""

    rows: slice
    columns: slice
    peak: tuple[int, int, int]


@dataclass(frozen=True)
class CorrectedScan:
    """Corrected counts of a scan in a region, by rising angle or energy; its geometry there, and what is odd, in words."""

    counts: FloatArray
    valid: BoolArray
    geometry: Geometry | None
    noticed: tuple[str, ...]


def region_about_peak(scan: Scan, preparation: PrepareConfig) -> Region:
    """Return the region about the peak of a scan; it is the whole detector, unless the scan is too large."""
    scan, source, _ = _open(scan, preparation)
    _, _, (plane, row, column) = find_peak(scan, source, read_first(scan, source, preparation), preparation)
    planes, rows, columns = source.shape
    edge = int(np.sqrt(LARGEST / planes))
    if planes * rows * columns <= LARGEST:
        edge = max(rows, columns)
    top, left = (min(max(0, index - edge // 2), max(0, size - edge)) for index, size in ((row, rows), (column, columns)))
    return Region(
        slice(top, min(rows, top + edge)),
        slice(left, min(columns, left + edge)),
        (planes - 1 - plane if runs_down(scan) else plane, row - top, column - left),
    )  # fmt: skip


def read_corrected(scan: Scan, preparation: PrepareConfig, region: Region) -> CorrectedScan:
    """Read the corrected counts of a region, with what the detector's faults hide masked.

    Raises
    ------
    DataError : if there are no counts, or a dark field, flat field or monitor does not fit the frames.
    """
    scan, source, block = _open(scan, preparation, region)
    brightest = block.frames.brightest
    plane = np.asarray(scan.frames[brightest, region.rows, region.columns])
    odd = () if scan.prepared else (*source.noticed, *block.noticed, *check_counts(plane))
    back = slice(None, None, -1 if runs_down(scan) else 1)
    geometry = regular_geometry(scan.geometry, source.grid)
    if geometry is not None:
        row, column = geometry.direct_beam
        geometry = replace(_turn(geometry, back), direct_beam=(row - region.rows.start, column - region.columns.start))
    noticed = (*scan.provenance.get("noticed", ()), *odd)
    return CorrectedScan(block.counts[back], block.valid[back], geometry, noticed)


def _open(scan: Scan, preparation: PrepareConfig, region: Region | None = None) -> tuple[Scan, CorrectedFrames, Block]:
    """Return a scan without its lost frames, its corrections, and the counts of a region (by default of one pixel)."""
    corrections = Corrections(preparation.monitor, preparation.flat, preparation.dark, preparation.detector, step=preparation.step)
    source = correct_frames(scan, corrections, *known_pixels(scan, preparation))
    if region is None:
        return scan, source, Block(np.zeros((1, 1, 1), np.float32), np.zeros((1, 1, 1), dtype=bool), (0, 0, 0))
    start, stop = (0, region.rows.start, region.columns.start), (source.shape[0], region.rows.stop, region.columns.stop)
    block = load_region(scan, source, start, stop, preparation)
    lost = find_lost_frames(block.frames, scan.frames.shape[0])
    if lost.any() and not scan.prepared:
        return _open(leave_out(scan, lost, block.frames.mark_empty(lost.size)), preparation, region)
    if scan.frames.dtype == np.int16 and has_negative_counts(np.asarray(scan.frames[block.frames.brightest])):
        source = replace(source, unsigned=True)
        block = load_region(scan, source, start, stop, preparation)
    return scan, source, block


def _turn(geometry: Geometry, back: slice) -> Geometry:
    """Return a geometry whose angles or energies run in the other direction if `back` does."""
    sample = tuple(
        replace(circle, angle=np.asarray(circle.angle)[back]) if np.ndim(circle.angle) else circle for circle in geometry.sample
    )
    energy = np.asarray(geometry.energy)[back] if np.ndim(geometry.energy) else geometry.energy
    return replace(geometry, sample=sample, energy=energy)
