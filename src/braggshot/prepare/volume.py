"""Prepare a diffraction volume from a raw scan: the whole chain, and its settings."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from braggshot.errors import ConfigError, DataError, GeometryError
from braggshot.gate import refuse_oversized
from braggshot.physics.geometry import reciprocal_basis
from braggshot.physics.plausibility import check_counts, check_spacing, refuse_impossible_geometry
from braggshot.physics.sampling import Extent, object_extent, oversampling
from braggshot.prepare.aliens import find_aliens
from braggshot.prepare.config import DEFAULTS, PrepareConfig
from braggshot.prepare.counts import Block, CorrectedFrames, Corrections, correct_frames
from braggshot.prepare.inspection import find_lost_frames, has_negative_counts, name_lost_frames
from braggshot.prepare.peak import MARGIN, Triple, centre_peak, find_peak, known_pixels, load_region, read_first
from braggshot.prepare.rocking import regular_geometry
from braggshot.prepare.straight import Bend, find_bend, straighten
from braggshot.prepare.surplus import count_measured, take_first
from braggshot.prepare.survey import Survey, signal_reach, sum_bins
from braggshot.prepare.window import (
    choose_binning,
    choose_shape,
    compose_windows,
    cut,
    grow,
    is_fast,
    raw_centre,
    raw_extent,
    window_about,
    window_basis,
)  # fmt: skip
from braggshot.volumes import BoolArray, DiffractionVolume, FloatArray, Scan, Window

SMALL = 128  # greatest axis length of a stack of frames that is kept whole, because cropping it would save little [voxels]
CENTRED = 0.1  # share of an axis by which a peak may be off the middle and still count as centred [1]
FIELDS = {
    "steps",
    "window",
    "reciprocal_basis",
    "q_bragg",
    "oversampling",
    "provenance",
    "gain",
}  # names of the provenance entries that an earlier preparation of the scan has written


def prepare(
    scan: Scan, config: PrepareConfig = DEFAULTS, gain: FloatArray | None = None, pause: Callable[[], None] = lambda: None
) -> DiffractionVolume:
    """Prepare a scan: corrected counts around its Bragg peak.

    Parameters
    ----------
    scan : raw frames and metadata
    config : settings
    gain : (rows, columns) gain of each pixel that was estimated from the scan, used where the scan has no flat field [1]
    pause : function that is called between the stages that take longest; its errors end the preparation

    Returns
    -------
    The volume, with everything that was done to it in `steps`, `window`, `reciprocal_basis`, `q_bragg` and `oversampling`.

    Raises
    ------
    DataError : if there are no counts, no peak, or more than a tenth of the voxels are negative or not numbers; or if a dark field,
        flat field or monitor does not fit the frames.
    ConfigError : if a setting does not fit the scan.
    GeometryError : if the photon energy, the distance or the pixel size of the geometry cannot be true.
    """
    if scan.geometry is not None:
        refuse_impossible_geometry(scan.geometry, scan.name)
    corrections = Corrections(config.monitor, config.flat, config.dark, config.detector, gain, config.step)
    source = correct_frames(scan, corrections, *known_pixels(scan, config))
    _check(scan, source.shape, config)
    read = read_first(scan, source, config)
    lost = find_lost_frames(read.frames, scan.frames.shape[0])
    if lost.any() and not scan.prepared:
        return prepare(leave_out(scan, lost, read.frames.mark_empty(lost.size)), config, gain, pause)
    if scan.frames.dtype == np.int16 and has_negative_counts(np.asarray(scan.frames[read.frames.brightest])):
        source = replace(source, unsigned=True)
        read = read_first(scan, source, config)
    pause()
    block, view, peak = find_peak(scan, source, read, config)
    pause()
    peak, offset = centre_peak(scan.name, block, peak, view.side, config)
    centred = _recentre(block, peak)
    # Where the window is given, and no foreign peak is looked for, nothing depends on the size of the crystal.
    is_size_needed = config.shape is None or "auto" in (config.binning, config.aliens)
    crystal = object_extent(*centred) if is_size_needed else None
    pause()
    known = replace(config, binning=_binning(scan, centred[0], crystal, config))
    window, shape, remarks = _choose_window(scan, source.shape, view, peak, offset, crystal, known)
    bend = None if scan.prepared or not config.straight else _find_bend(scan, source, window, shape)
    wide = (window, shape) if bend is None else grow(window, shape, bend.margin)
    start, stop = raw_extent(*wide)
    if not _covers(block, start, stop, source.shape):
        block = load_region(scan, source, [index - MARGIN for index in start], [index + MARGIN for index in stop], config)
    if config.aliens == "auto" and crystal is not None and not scan.prepared:
        block = _mask_aliens(block, crystal.oversampling)
    moved = np.add(peak, offset) - raw_centre(window, shape) if config.subvoxel else np.zeros(3)
    volume, window = _straighten(_cut(block, *wide, moved, config), window, bend)
    pause()
    volume = replace(volume, oversampling=oversampling(volume.intensity, volume.valid))
    volume = replace(volume, name=scan.name, steps=(*source.steps, *block.steps, *remarks, *volume.steps))
    odd = () if scan.prepared else (*source.noticed, *block.noticed, *check_counts(_raw_plane(scan, source, block, peak[0])))
    return _describe(scan, source, replace(volume, provenance={"noticed": odd}, gain=gain), window, moved)


def _binning(scan: Scan, counts: FloatArray, crystal: Extent | None, config: PrepareConfig) -> tuple[int, int, int]:
    """Return the binning that is set, or the one that leaves enough oversampling for a crystal of the measured extent."""
    if config.binning != "auto":
        return config.binning
    if crystal is None or scan.prepared:
        return (1, 1, 1)
    return choose_binning(counts, crystal.oversampling, crystal.certain)


def leave_out(scan: Scan, lost: BoolArray, empty: BoolArray) -> Scan:
    """Return the scan without the frames that hold no measurement, and say so.

    Frames are masked at their place; empty ones behind the last measured frame belong to no angle and are cut off.
    """
    noticed, number = [], count_measured(empty)
    if number < len(lost):
        noticed.append(f"the last {len(lost) - number} of {len(lost)} frames hold no counts: surplus, left out")
        scan, lost = take_first(scan, number), lost[:number]
    arrived = ~lost if scan.arrived is None else scan.arrived & ~lost
    if not arrived.any():
        raise DataError(f"{scan.name}: no Bragg peak: every frame is empty, or holds one and the same value everywhere.")
    noticed += [name_lost_frames(lost)] if lost.any() else []
    said = (*scan.provenance.get("noticed", ()), *noticed)
    return replace(scan, arrived=arrived, provenance={**scan.provenance, "noticed": said})


def _check(scan: Scan, shape: Triple, config: PrepareConfig) -> None:
    if min(shape) < 4:
        raise DataError(
            f"{scan.name}: {shape} (frames, rows, columns) is too little for a 3D pattern; expected 4 of each at least."
        )
    for name, values in (("shape", config.shape), ("binning", config.binning), ("max_shape", config.max_shape)):
        if isinstance(values, tuple) and min(values) < 1:
            raise ConfigError(f"prepare.{name} must be positive on every axis, found {values}.")
    if isinstance(config.binning, tuple) and any(bins > size for bins, size in zip(config.binning, shape, strict=True)):
        raise ConfigError(f"prepare.binning {config.binning} joins more voxels than the scan of shape {shape} has.")
    if config.shape is not None:
        refuse_oversized(
            f"a volume of prepare.shape {config.shape}", 5 * math.prod(config.shape), error=ConfigError
        )  # float32 and mask
    if isinstance(config.centre, tuple) and not all(0 <= index < size for index, size in zip(config.centre, shape, strict=True)):
        raise ConfigError(f"prepare.centre {config.centre} lies outside the scan of shape {shape}.")


def _recentre(block: Block, peak: Triple) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return counts and mask with the peak near the middle, so that the oversampling can be measured from them.

    If the peak is more than 10 % of an axis off the middle, counts and mask are shifted, and padded with zeros.
    """
    shape = np.array(block.counts.shape)
    start = np.subtract(peak, block.start) - shape // 2
    if np.all(np.abs(start) <= CENTRED * shape):
        return block.counts, block.valid
    return cut(block.counts, start.tolist(), shape.tolist()), cut(block.valid, start.tolist(), shape.tolist())


def _raw_plane(scan: Scan, source: CorrectedFrames, block: Block, plane: int) -> NDArray[Any]:
    """Return the trusted values of the first frame of a plane, cut to what a block covers, as they were counted."""
    rows, columns = (
        slice(max(0, first), first + size) for first, size in zip(block.start[1:], block.counts.shape[1:], strict=True)
    )
    frames = source.grid.frames[plane]
    if not frames:
        return np.zeros(0)
    return np.asarray(scan.frames[frames[0], rows, columns])[block.valid[plane - block.start[0]]]


def _choose_window(
    scan: Scan, raw_shape: Triple, view: Survey, peak: Triple, offset: NDArray[np.float64], crystal: Extent | None,
    config: PrepareConfig,
) -> tuple[Window, Triple, tuple[str, ...]]:  # fmt: skip
    """Choose the part of the raw scan that becomes the volume (its window) and its shape; add remarks in words.

    The binning of `config` is chosen already. Where the size of the crystal is not certain, nothing that depends on it is cropped.
    Without a size (None) the shape is that of `config`.
    """
    binning = (1, 1, 1) if config.binning == "auto" else config.binning
    middle = [size // 2 for size in raw_shape]
    # The brightest speckle of a strongly strained crystal may lie far from the middle of its pattern.
    mass = ndimage.center_of_mass(np.maximum(view.counts - view.background, 0))
    centred = any(
        all(abs(a - b) <= CENTRED * size for a, b, size in zip(place, middle, raw_shape, strict=True))
        for place in (peak, np.multiply(mass, view.side))
    )
    small = max(raw_shape) <= SMALL and all(map(is_fast, raw_shape)) and binning == (1, 1, 1)
    # If an even number of raw voxels is binned, none is in the middle; the sub-voxel offset then selects the nearer window.
    target = peak + np.clip(offset, -0.49, 0.49)
    if config.shape is None and config.centre == "max" and (scan.prepared or (small and centred)):
        z, y, x = (size // bins for size, bins in zip(raw_shape, binning, strict=True))
        shape, target = (z, y, x), np.add(middle, (np.array(binning) - 1) / 2)
    elif config.shape is not None or crystal is None:  # without a size the shape is given
        shape = config.shape or raw_shape
    else:
        sampling = crystal.oversampling
        reach = signal_reach(view, peak, float(np.prod(sampling))) if all(crystal.certain) else raw_shape
        shape = choose_shape(raw_shape, reach, sampling, binning, config.max_shape)
    window = window_about(target.tolist(), raw_shape, binning, shape)
    if scan.prepared and shape == raw_shape and window.start == (0, 0, 0):
        return window, shape, ()
    off = np.add(peak, offset) - raw_centre(window, shape)
    certain = (True, True, True) if crystal is None else crystal.certain
    unsure = [name for name, known in zip(("rocking", "row", "column"), certain, strict=True) if not known]
    sampled = "" if crystal is None else ", oversampled " + " x ".join(f"{ratio:.2f}" for ratio in crystal.oversampling)
    remarks = [f"size of the crystal not certain along {', '.join(unsure)}: not binned there, nothing cropped"] if unsure else []
    return window, shape, (
        f"peak at {peak} in {raw_shape}{sampled}",
        *remarks,
        f"{shape} voxels, each of {binning}, from {window.start} on; the peak is {_text(off)} off the centre voxel's middle",
    )  # fmt: skip


def _covers(block: Block, start: Triple, stop: Triple, raw_shape: Triple) -> bool:
    """Tell whether a block contains a region completely, apart from the parts of the region that lie outside the scan."""
    return all(
        have <= max(0, first) and min(size, last) <= end
        for have, end, first, last, size in zip(block.start, block.stop, start, stop, raw_shape, strict=True)
    )


def _mask_aliens(block: Block, sampling: tuple[float, float, float]) -> Block:
    mask, centres = find_aliens(block.counts, block.valid, sampling)
    if not centres:
        return block
    places = ", ".join(str(tuple(int(index) for index in np.add(centre, block.start))) for centre in centres)
    step = f"{len(centres)} aliens masked at {places}: {int(mask.sum())} voxels, {float(block.counts[mask].sum()):.4g} counts"
    return replace(block, counts=block.counts * ~mask, valid=block.valid & ~mask, steps=(*block.steps, step))


def _cut(
    block: Block, window: Window, shape: Triple, moved: NDArray[np.float64], config: PrepareConfig
) -> DiffractionVolume:  # fmt: skip
    """Crop, pad and bin counts, and apply the background and the threshold.

    If `config.subvoxel` is set, the counts are shifted by -`moved` raw voxels before they are binned.
    """
    start, stop = raw_extent(window, shape)
    place, size = np.subtract(start, block.start).tolist(), np.subtract(stop, start).tolist()
    counts, valid, steps = cut(block.counts, place, size), cut(block.valid, place, size), []
    if config.subvoxel:
        counts = ndimage.shift(counts, -moved, order=1)
        valid = ndimage.shift(valid.astype(np.float32), -moved, order=1) > 0.999
        steps.append(f"shifted by linear interpolation by {_text(-moved)} raw voxels")
    if config.background != "off":
        level = _frame_level(counts, valid) if config.background == "frame" else np.float32(config.background)
        counts = np.maximum(counts - level, 0)
        steps.append(f"background of {float(np.mean(level)):.4g} photons per voxel subtracted")
    counts = sum_bins(counts * valid, window.binning)
    valid = sum_bins(valid.astype(np.float32), window.binning) > np.prod(window.binning) - 0.5
    counts *= valid
    if config.threshold > 0:
        counts[counts < config.threshold] = 0
        steps.append(f"counts below {config.threshold:g} set to 0")
    return DiffractionVolume(counts, valid, steps=tuple(steps))


def _straighten(volume: DiffractionVolume, window: Window, bend: Bend | None) -> tuple[DiffractionVolume, Window]:
    """Bring counts onto the straight grid, if it is known how theirs bends; return them with a window that says so."""
    if bend is None:
        return volume, window
    counts, valid, said = straighten(volume.intensity, volume.valid, bend)
    steps = (*volume.steps, *([said] if said else []))
    return replace(volume, intensity=counts, valid=valid, steps=steps), replace(window, straight=said is not None)


def _find_bend(scan: Scan, source: CorrectedFrames, window: Window, shape: Triple) -> Bend | None:
    """Find how far the grid of frames and pixels bends; None if nowhere enough to matter, or if the geometry does not tell."""
    geometry = regular_geometry(scan.geometry, source.grid)
    if geometry is None:
        return None
    try:
        bend = find_bend(geometry, window, shape)
    except GeometryError:  # said by `_describe`
        return None
    return bend if np.abs(bend.moved).max() >= bend.limit else None


def _text(values: NDArray[np.float64]) -> str:
    return f"({', '.join(f'{value:+.2f}' for value in values)})"


def _frame_level(counts: FloatArray, valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the background level of every frame, as an array (n, 1, 1).

    The valid counts of each tile of 8 x 8 pixels are averaged; the level of a frame is the median of these averages.
    """
    total, number = (sum_bins(array.astype(np.float32), (1, 8, 8)) for array in (counts * valid, valid))
    means = np.where(number > 0, total / np.maximum(number, 1), np.nan)
    levels = [float(np.nanmedian(tile)) if np.isfinite(tile).any() else 0.0 for tile in means]
    return np.array(levels, np.float32)[:, None, None]


def _describe(
    scan: Scan, source: CorrectedFrames, volume: DiffractionVolume, window: Window, moved: NDArray[np.float64]
) -> DiffractionVolume:
    """Return the volume with its voxel basis, geometry and provenance.

    If the scan was prepared before, its own voxel basis is adapted. The counts were shifted by -`moved` raw voxels before binning.
    """
    before = scan.provenance if scan.prepared else {}
    geometry = regular_geometry(scan.geometry, source.grid)
    outer = before.get("window")
    raw_window = window if outer is None else compose_windows(window, outer)
    basis, q_bragg, steps = before.get("reciprocal_basis"), before.get("q_bragg"), volume.steps
    if basis is not None and q_bragg is not None:
        basis, q_bragg = window_basis(basis, q_bragg, window, volume.shape)
    elif geometry is not None:
        try:
            basis, q_bragg = reciprocal_basis(geometry, raw_window, volume.shape)
        except GeometryError as error:
            basis = q_bragg = None
            steps = (*steps, f"no voxel size: {error}")
    noticed = volume.provenance["noticed"]
    if basis is not None and q_bragg is not None:
        q_bragg = q_bragg + basis @ (moved / np.asarray(window.binning))
        wrong = check_spacing(q_bragg)
        if wrong is not None:
            basis, q_bragg, noticed = None, None, (*noticed, wrong)
    carried = {name: value for name, value in scan.provenance.items() if not (scan.prepared and name in FIELDS)}
    provenance = {**(before.get("provenance") or {}), **carried}
    return replace(
        volume,
        window=raw_window,
        reciprocal_basis=basis,
        q_bragg=q_bragg,
        geometry=geometry,
        gain=before.get("gain", volume.gain),
        steps=(*before.get("steps", ()), *steps),
        provenance={**provenance, "noticed": (*provenance.get("noticed", ()), *noticed)},
    )
