"""Read scans of ESRF ID01: HDF5 files written by BLISS, one NXentry per scan, and collections of them.

::

    /12.1                          NXentry; in a collection /<sample>_<dataset>_12.1, often an external link
        title, start_time          "ascan eta 33.9 34.5 60 1"
        instrument/positioners     motors [deg, mm], scalars at rest, arrays where scanned; mononrj [keV]
        instrument/<detector>      NXdetector: data (external or virtual), beam_center_{x,y} [pixel], {x,y}_pixel_size, distance
        measurement/<detector>     soft link to the frames; counters such as imon beside it

The geometry is that of cdiutils and bcdi, already in the CXI frame: mu "y-", eta "x-" and phi "y-" carry the sample; nu "y-" and
delta "x-" carry the detector; rows grow downwards ("y-") and columns outboard ("x+").
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Unpack

import h5py
import numpy as np

from braggshot.errors import FormatError
from braggshot.io.beamlines.instruments import ESRF_ID01 as ID01
from braggshot.io.beamlines.readings import (
    Overrides,
    Readings,
    geometry,
    match_points,
    no_count,
    per_frame,
    rocking_angle,
)  # fmt: skip
from braggshot.io.beamlines.tables import explain_early_stop
from braggshot.io.beamlines.values import (
    Value,
    choose_centre,
    choose_value,
    read_angles,
    read_numbers,
    read_pixel,
    read_value,
    to_text,
)  # fmt: skip
from braggshot.io.beamlines.views import select_frames
from braggshot.io.chunks import read_region
from braggshot.io.files import find_node, is_hdf5, node, open_hdf5
from braggshot.io.frames import HDF5Frames
from braggshot.physics.plausibility import DISTANCE, ENERGY, PIXEL, Range
from braggshot.volumes import FloatArray, Scan

# Name of a more general format: its reader can read BLISS files too, but the reader in this module takes precedence.
PARENT = "nexus"
# Table of detectors: name in the files -> name in braggshot.
DETECTORS = {"mpxgaas": "maxipix", "mpx1x4": "maxipix", "eiger2M": "eiger2m"}
# Pattern of the names of entries (HDF5 groups of one scan each): 12.1, or in a collection <sample>_<dataset>_12.1.
ENTRY = re.compile(r"(?:.*_)?(\d+)\.(\d+)")


def can_read(path: str | Path) -> bool:
    """Tell whether an HDF5 file has entries that are named like BLISS scans and hold a measurement."""
    if not is_hdf5(path):
        return False
    try:
        with open_hdf5(path) as file:
            names = [name for name in file if ENTRY.fullmatch(name)]
            return any(
                isinstance(file.get(name, getlink=True), h5py.ExternalLink) or find_node(file, f"{name}/measurement")
                for name in names
            )
    except FormatError:
        return False


def scans(path: str | Path) -> list[str]:
    """List the entries that hold detector frames, ordered by scan number."""
    with open_hdf5(path) as file:
        return [name for name in _entries(file) if _detectors(find_node(file, name))]


def _entries(file: h5py.File) -> list[str]:
    return sorted(filter(ENTRY.fullmatch, file), key=_number)


def _number(name: str) -> tuple[float, str]:
    return float(name.rpartition("_")[2]), name


def _detectors(entry: h5py.Group | h5py.Dataset | None) -> list[str]:
    """List the detectors of one scan: the names in the group `measurement` of `entry` that hold images.

    A name of a known detector counts even if it is a link to a missing file. If `entry` is None, the list is empty.
    """
    group = find_node(entry, "measurement")
    if not isinstance(group, h5py.Group):
        return []
    return [name for name in group if name in DETECTORS or getattr(find_node(group, name), "ndim", 0) == 3]


def read(
    path: str | Path, *, scan: int | str | None = None, detector: str | None = None, monitor: str = "imon",
    **overrides: Unpack[Overrides],
) -> Scan:  # fmt: skip
    """Read one scan of a BLISS file.

    Parameters
    ----------
    path : HDF5 file of one dataset, or a collection file that links to several datasets
    scan : number or name of the entry; not needed where only one entry holds frames
    detector : name of the detector in the group `measurement`; not needed where there is only one detector
    monitor : name of a counter in the group `measurement` that is proportional to the incident flux
    overrides : energy_ev, distance_m, pixel_size_m, direct_beam, which replace the values in the file

    Raises
    ------
    FormatError : if the scan or the detector is missing (the message lists those in the file), or the file is damaged.
    DataError : if fewer than two frames have an angle.
    """
    noticed: list[str] = []
    with open_hdf5(path) as file:
        name = _entry(file, path, scan)
        entry = node(file, name)
        detector = _detector(entry, name, path, detector)
        motors = _motors(entry, noticed)
        flux, title, started = _counter(entry, monitor), _text(entry, "title"), _text(entry, "start_time")
        readings = _readings(entry, detector)
    stored = HDF5Frames(path, f"{name}/measurement/{detector}")
    label = f"{Path(path).stem}_S{int(_number(name)[0]):04d}"
    points = max((np.size(value) for value in motors.values() if np.size(value) > 1), default=stored.shape[0])
    stopped = explain_early_stop(title, points)
    noticed += [f"scan {name}: {stopped}."] if stopped else []
    kept, motors = match_points(stored.shape[0], motors, noticed)
    frames = select_frames(stored, kept)
    readings["direct_beam"], readings["direct_beam_notes"] = choose_centre(readings["direct_beam"], stored.shape)
    return Scan(
        frames=frames,
        name=label,
        monitor=per_frame(flux, kept, monitor, noticed),
        rocking_angle=rocking_angle(ID01, motors, noticed),
        geometry=geometry(ID01, Readings(motors, **readings), frames.shape, overrides, noticed),
        detector=DETECTORS.get(detector),
        provenance={
            "scan": name, "command": title, "time": started, "detector": detector, "no_count": no_count(frames.dtype),
            "noticed": tuple(noticed),
        },
    )  # fmt: skip


def _entry(file: h5py.File, path: str | Path, scan: int | str | None) -> str:
    """Return the name of the entry for a scan number or a scan name.

    If a scan has two acquisition chains, BLISS gives the entry of the faster one the suffix .1. That entry is taken.
    """
    known = _entries(file)
    if scan is None:
        chosen = [name for name in known if _detectors(find_node(file, name))]
    else:
        chosen = [name for name in known if str(scan) in {name, _number_text(name)}] or [
            name for name in known if _number_text(name) == f"{scan}.1"
        ]
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        raise FormatError(f"{path}: {len(chosen)} scans fit ({', '.join(chosen[:20])}); choose one with scan=...")
    asked = "no scan holds detector frames" if scan is None else f"there is no scan {scan}"
    raise FormatError(f"{path}: {asked}; the file holds {', '.join(known[:40])}.")


def _number_text(name: str) -> str:
    return name.rpartition("_")[2]


def _detector(entry: h5py.Group, name: str, path: str | Path, detector: str | None) -> str:
    detectors = _detectors(entry)
    if detector is None and len(detectors) == 1:
        return detectors[0]
    if detector in detectors:
        return str(detector)
    asked = f"{len(detectors)} detectors" if detector is None else f"no detector {detector!r}"
    raise FormatError(f"{path}: scan {name} holds {asked}; there is {', '.join(detectors) or 'none'}: choose with detector=...")


def _motors(entry: h5py.Group, noticed: list[str]) -> dict[str, float | FloatArray]:
    """Return the readings of the diffractometer's motors [deg], by motor name.

    If the file holds only the position at the start of the scan, that position is used.
    """
    motors: dict[str, float | FloatArray] = {}
    for circle in (*ID01.sample, *ID01.detector):
        for found in _nodes(entry, (f"instrument/positioners/{circle.motor}", f"instrument/positioners_start/{circle.motor}")):
            angle = read_angles(read_region(found), _units(found), f"{found.name}", noticed) if circle.motor not in motors else None
            if angle is not None:
                motors[circle.motor] = angle
    return motors


def _readings(entry: h5py.Group, detector: str) -> dict[str, Any]:
    """Return the values of the file: energy, distance, pixel size and direct beam (row, column)."""
    place = f"instrument/{detector}"

    def values(known: Range, custom: str, *names: str) -> Value:
        found = [read_value(known, read_region(item), _units(item), f"{item.name}", custom) for item in _nodes(entry, names)]
        return choose_value(known, *found)

    pitch = [values(PIXEL, "m", f"{place}/{axis}_pixel_size") for axis in "yx"]
    centre = []
    for axis, edge in zip("yx", pitch, strict=True):
        item = next(_nodes(entry, (f"{place}/beam_center_{axis}",)), None)
        centre.append(Value() if item is None else read_pixel(read_region(item), _units(item), f"{item.name}", edge.amount))
    energies = ("positioners/mononrj", "positioners_start/mononrj", "monochromator/Energy")
    return {
        "energy": values(ENERGY, "keV", *(f"instrument/{name}" for name in energies)),
        "distance": values(DISTANCE, "m", f"{place}/distance"),
        "pixel_size": tuple(pitch),
        "direct_beam": centre,
    }


def _nodes(entry: h5py.Group, names: tuple[str, ...]) -> Iterator[h5py.Dataset]:
    return (item for name in names if isinstance(item := find_node(entry, name), h5py.Dataset))


def _units(values: h5py.Dataset) -> Any:
    return values.attrs.get("units")


def _counter(entry: h5py.Group, name: str) -> FloatArray | None:
    values = find_node(entry, f"measurement/{name}")
    return read_numbers(read_region(values))[0] if isinstance(values, h5py.Dataset) and values.ndim == 1 else None


def _text(entry: h5py.Group, name: str) -> str:
    return to_text(next((read_region(item) for item in _nodes(entry, (name,))), None))
