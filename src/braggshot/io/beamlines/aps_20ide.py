"""Read scans of APS 20-ID-E: one HDF5 file for each scan.

::

    <name>_054.Lambda.h5
        exchange/{data,data_dark,data_white}    frames, dark and white fields
        SMS/E/HR/samRy                          angle of the sample at each point [deg]
        DMS/{DetX,DetY,DetZ}                    place of the detector [mm]
        HEM/Energy                              [keV]

Source: cohere_beamlines 4.5.6 (pypi.org/project/cohere-beamlines, `aps_20ide`). One circle, samRy "y+", carries the sample. The
detector stands across the beam at DetZ, moved outboard by DetX and up by DetY; cohere counts DetZ twice, as the distance and as a
translation. Rows grow downwards ("y-"), columns outboard ("x+").
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import h5py
import numpy as np

from braggshot.io.beamlines.instruments import APS_20IDE
from braggshot.io.beamlines.layouts import Layout, build_scan, find_datasets, outline, read_contents
from braggshot.io.beamlines.readings import Overrides
from braggshot.io.beamlines.values import read_numbers
from braggshot.io.chunks import read_region
from braggshot.io.files import open_hdf5
from braggshot.io.frames import HDF5Frames
from braggshot.volumes import FloatArray, Scan

# Name of a more general format: its reader can read these files too, but the reader in this module takes precedence.
PARENT = "nexus"
LAYOUT = Layout(
    instrument=APS_20IDE,
    frames=("exchange/data",),
    motors={"samRy": ("SMS/E/HR/samRy",)},
    energy={"HEM/Energy": "keV"},
    distance={"DMS/DetZ": "mm"},
    pitch=55e-6,
)
PITCHES = {"bse": 7.8e-6}  # detectors whose pixels are not those of `LAYOUT` [m]


def can_read(path: str | Path) -> bool:
    """Tell whether an HDF5 file holds frames and the devices of 20-ID-E."""
    known = outline(path)
    return "data" in known.get("exchange", ()) and {"SMS", "DMS"} & {*known} != set()


def read(path: str | Path, **overrides: Unpack[Overrides]) -> Scan:
    """Read the scan of one file.

    Parameters
    ----------
    path : the HDF5 file; its name tells the detector, as in ``name_054.Lambda.h5``
    overrides : energy_ev, distance_m, pixel_size_m, direct_beam, which replace the values in the file

    Raises
    ------
    FormatError : if the frames are missing, or the file is damaged.
    DataError : if fewer than two frames have an angle.
    """
    noticed: list[str] = []
    with open_hdf5(path) as file:
        contents = read_contents(file["/"], LAYOUT, None, (), noticed)
        dark, flat = (_field(file, f"exchange/data_{name}") for name in ("dark", "white"))
        moved = _number(file, "DMS/DetX"), _number(file, "DMS/DetY")
    words = Path(path).name.split(".")
    name = words[-2] if len(words) > 2 else ""
    layout = dataclasses.replace(LAYOUT, pitch=PITCHES.get(name.casefold(), LAYOUT.pitch))
    stored = HDF5Frames(path, contents.datasets)
    place = _find_beam(*moved, stored.shape[1:], overrides.get("pixel_size_m", layout.pitch or 0.0))
    contents = dataclasses.replace(contents, detector=name, values={**contents.values, **place})
    scan = build_scan(path, layout, contents, words[0], overrides, noticed, stored)
    shape = scan.frames.shape[1:]
    return dataclasses.replace(
        scan, dark=dark if dark is not None and dark.shape == shape else None,
        flat=flat if flat is not None and flat.shape == shape else None,
    )  # fmt: skip


def _find_beam(outboard: float | None, up: float | None, shape: Sequence[int], pitch: float) -> dict[str, Any]:
    """Return the direct beam, which is off the middle of the frame by as much as the detector was moved [mm]; empty if unknown."""
    if outboard is None or up is None or not pitch:
        return {}
    beam = (shape[0] - 1) / 2 + up * 1e-3 / pitch, (shape[1] - 1) / 2 - outboard * 1e-3 / pitch
    said = f"the middle of the detector is {outboard:g} mm outboard of the beam (DetX) and {up:g} mm above it (DetY)."
    return {"direct_beam": beam, "direct_beam_notes": (said,)}


def _number(file: h5py.File, name: str) -> float | None:
    """Return the first number of a data set; None if there is none."""
    item = next(find_datasets(file, (name,)), None)
    numbers = np.zeros(0) if item is None else read_numbers(read_region(item))[0]
    return float(numbers[0]) if numbers.size and np.isfinite(numbers[0]) else None


def _field(file: h5py.File, name: str) -> FloatArray | None:
    """Return the mean of the images of a dark or white field; None if there is none, or it holds no counts."""
    item = next(find_datasets(file, (name,)), None)
    if item is None or item.ndim not in {2, 3} or not item.size or item.dtype.kind not in "iuf":
        return None
    image = np.asarray(read_region(item), float)
    image = image.mean(axis=0) if image.ndim == 3 else image
    return image if image.sum() > 0 else None
