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
from pathlib import Path
from typing import Unpack

import h5py
import numpy as np

from braggshot.io.beamlines.instruments import APS_20IDE
from braggshot.io.beamlines.layouts import Layout, build_scan, find_datasets, outline, read_contents
from braggshot.io.beamlines.readings import Overrides
from braggshot.io.beamlines.values import read_numbers
from braggshot.io.chunks import read_region
from braggshot.io.files import open_hdf5
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
        moved = {name: _number(file, f"DMS/{name}") for name in ("DetX", "DetY")}
    words = Path(path).name.split(".")
    name = words[-2] if len(words) > 2 else ""
    layout = dataclasses.replace(LAYOUT, pitch=PITCHES.get(name.casefold(), LAYOUT.pitch))
    scan = build_scan(path, layout, dataclasses.replace(contents, detector=name), words[0], overrides, noticed)
    shape = scan.frames.shape[1:]
    scan = dataclasses.replace(
        scan, dark=dark if dark is not None and dark.shape == shape else None,
        flat=flat if flat is not None and flat.shape == shape else None,
    )  # fmt: skip
    return scan if scan.geometry is None or "direct_beam" in overrides else _move_beam(scan, moved)


def _move_beam(scan: Scan, moved: dict[str, float]) -> Scan:
    """Return the scan with the direct beam off the middle of the frame by as much as the detector was moved [mm]."""
    assert scan.geometry is not None
    (row, column), pitch = scan.geometry.direct_beam, scan.geometry.pixel_size
    beam = (row + moved["DetY"] * 1e-3 / pitch[0], column - moved["DetX"] * 1e-3 / pitch[1])
    said = (
        f"the middle of the detector is {moved['DetX']:g} mm outboard of the beam (DetX) and {moved['DetY']:g} mm above it (DetY)."
    )
    provenance = {**scan.provenance, "noticed": (*scan.provenance["noticed"], said)}
    return dataclasses.replace(scan, geometry=dataclasses.replace(scan.geometry, direct_beam=beam), provenance=provenance)


def _number(file: h5py.File, name: str) -> float:
    """Return the first number of a data set; 0 if there is none."""
    item = next(find_datasets(file, (name,)), None)
    numbers = np.zeros(0) if item is None else read_numbers(read_region(item))[0]
    return float(numbers[0]) if numbers.size and np.isfinite(numbers[0]) else 0.0


def _field(file: h5py.File, name: str) -> FloatArray | None:
    """Return the mean of the images of a dark or white field; None if there is none, or it holds no counts."""
    item = next(find_datasets(file, (name,)), None)
    if item is None or item.ndim not in {2, 3} or not item.size or item.dtype.kind not in "iuf":
        return None
    image = np.asarray(read_region(item), float)
    image = image.mean(axis=0) if image.ndim == 3 else image
    return image if image.sum() > 0 else None
