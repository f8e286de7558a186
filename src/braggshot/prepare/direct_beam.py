"""Find the direct beam on the frames of a scan of the detector's arm, and where the detector is from that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from braggshot.errors import DataError
from braggshot.physics.arm_scan import ArmFit, fit_arm_scan
from braggshot.prepare.detectors import find_gaps
from braggshot.volumes import BoolArray, FloatArray, Scan

MOST_SAMPLES = 9
"""Largest number of frames from which the counts that do not move with the arm are found."""
FAINTEST = 0.05
"""A frame holds the beam if its brightest spot reaches this share of that of the bright frames [1]."""
LOWEST = 0.01
"""Pixels belong to the beam down to this share of its brightest pixel [1]."""
MOST_COVERED = 0.01
"""Share of the pixels that the beam may cover without raising the noise that is taken for the background's [1]."""
NOISE = 5.0
"""Pixels belong to the beam if they exceed the background by so many standard deviations [1]."""


@dataclass(frozen=True)
class Calibration:
    """The place of a detector, found from a scan of its arm.

    Parameters
    ----------
    fit : the detector's place with its errors
    left_out : index of a frame that was not used -> why
    """

    fit: ArmFit
    left_out: Mapping[int, str]


def calibrate(scan: Scan) -> Calibration:
    """Find distance, direct beam, rotation and tilt of a detector from a scan of its arm through the direct beam.

    Parameters
    ----------
    scan : frames of the direct beam, with a geometry whose detector circles move; its distance, direct beam, rotation and tilt
        are not used

    Raises
    ------
    DataError : if the scan has no geometry.
    GeometryError : if no detector circle moves, or if frames and angles do not determine the place of the detector.
    """
    if scan.geometry is None:
        reasons = [note for note in scan.provenance.get("noticed", ()) if "no geometry" in note]
        raise DataError(f"{scan.name}: {reasons[0] if reasons else 'no geometry: say geometry=...'}")
    places, left_out = find_direct_beam(scan)
    fit = fit_arm_scan(scan.geometry, places)
    astray = np.flatnonzero(np.isfinite(places).all(axis=1) & ~fit.used).tolist()
    return Calibration(fit, dict(sorted({**left_out, **dict.fromkeys(astray, "the beam does not follow the arm")}.items())))


def find_direct_beam(scan: Scan) -> tuple[NDArray[np.float64], dict[int, str]]:
    """Find the centre of mass of the direct beam on each frame.

    Counts that stay where they are while the arm moves, such as those of hot pixels, are taken off first: the median of some
    frames, pixel by pixel.

    Returns
    -------
    places : (n, 2) row and column [pixel], nan where the beam is not whole
    left_out : index of such a frame -> why
    """
    number, valid = scan.frames.shape[0], _valid(scan)
    samples = np.unique(np.linspace(0, number - 1, min(number, MOST_SAMPLES)).astype(int))
    steady = np.median([_read(scan, valid, index)[0] for index in samples], axis=0)
    spots = [_brightest(_read(scan, valid, index)[0] - steady) for index in range(number)]
    bright = float(np.quantile([height for _, height in spots], 0.9))
    places, left_out = np.full((number, 2), np.nan), {}
    for index, (spot, height) in enumerate(spots):
        if not height > FAINTEST * bright:
            left_out[index] = "no beam"
            continue
        counts, good = _read(scan, valid, index)
        found = _centre(counts - steady, good, spot)
        if isinstance(found, str):
            left_out[index] = found
        else:
            places[index] = found
    return places, left_out


def _valid(scan: Scan) -> BoolArray:
    """Return the pixels that count: those of the mask of the scan that lie in no gap of the detector."""
    rows, columns = scan.frames.shape[1:]
    valid = np.ones((rows, columns), dtype=bool) if scan.valid is None else scan.valid
    gaps = None if scan.detector is None else find_gaps(scan.detector, (rows, columns))
    return valid if gaps is None else valid & ~gaps


def _read(scan: Scan, valid: BoolArray, index: int) -> tuple[FloatArray, BoolArray]:
    """Return the counts of a frame, 0 where a pixel does not count, and the pixels that count.

    A pixel that holds the largest value of its integer type is saturated, or did not count.
    """
    frame = np.asarray(scan.frames[index])
    good = np.isfinite(frame) & (valid if valid.ndim == 2 else valid[index])
    if frame.dtype.kind in "iu":
        good &= frame != np.iinfo(frame.dtype).max
    return np.where(good, frame, 0).astype(np.float32), good


def _brightest(counts: FloatArray) -> tuple[tuple[int, int], float]:
    """Return the middle of the brightest spot of 3 x 3 pixels, and its mean."""
    smooth = ndimage.uniform_filter(counts, 3, mode="constant")
    row, column = np.unravel_index(int(np.argmax(smooth)), smooth.shape)
    return (int(row), int(column)), float(smooth[row, column])


def _centre(counts: FloatArray, good: BoolArray, spot: tuple[int, int]) -> tuple[float, float] | str:
    """Return the centre of mass of the beam about a spot, or why the beam is not whole there."""
    values = counts[good]
    background = np.median(values)
    noise = float(np.std(np.minimum(values, np.quantile(values, 1 - MOST_COVERED))))
    height = counts[max(0, spot[0] - 1) : spot[0] + 2, max(0, spot[1] - 1) : spot[1] + 2].max() - background
    labels, _ = ndimage.label(counts - background > max(LOWEST * height, NOISE * noise), np.ones((3, 3)))
    near = labels[max(0, spot[0] - 1) : spot[0] + 2, max(0, spot[1] - 1) : spot[1] + 2]
    beam = labels == near[near > 0][0] if near.any() else np.zeros_like(good)
    around = ndimage.binary_dilation(beam, np.ones((3, 3)))
    if not beam.any() or beam.sum() > beam.size / 4:
        return "no beam"
    if beam[[0, -1]].any() or beam[:, [0, -1]].any():
        return "the beam is cut by the edge of the detector"
    if (around & ~good).any():
        return "the beam lies on pixels that are masked or saturated"
    weights = np.where(around, counts - background, 0.0)
    row, column = ndimage.center_of_mass(weights)
    return float(row), float(column)
