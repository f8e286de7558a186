"""Read HDF5 files written by BLISS, one NXentry per scan, and collections of them, for all beamlines of the ESRF that write them.

::

    /12.1                          NXentry; in a collection /<sample>_<dataset>_12.1, often an external link
        title, start_time          "ascan eta 33.9 34.5 60 1"
        instrument/positioners     motors [deg, mm], scalars at rest, arrays where scanned
        instrument/<detector>      NXdetector: data (external or virtual), beam_center_{x,y} [pixel], {x,y}_pixel_size, distance
        measurement/<detector>     soft link to the frames; counters beside it
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from braggshot.errors import FormatError
from braggshot.io.beamlines.readings import (
    Diffractometer,
    Overrides,
    Readings,
    add_energies,
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

# Pattern of the names of entries (HDF5 groups of one scan each): 12.1, or in a collection <sample>_<dataset>_12.1.
ENTRY = re.compile(r"(?:.*_)?(\d+)\.(\d+)")
FIRST = 3  # number of entries in which a motor is searched
POSITIONERS = ("positioners", "positioners_start")  # groups of the motors: during the scan, and when it began


@dataclass(frozen=True)
class Beamline:
    """A beamline whose files BLISS writes.

    Parameters
    ----------
    instrument : circles of the diffractometer
    detectors : name in the files -> name in braggshot
    energies : places of the photon energy, or of the wavelength, in the group `instrument` -> unit that is customary there
    calibrated : whether what the files say of distance and direct beam can be trusted
    pitch : pixel size of its detector, where the files do not state it [m]
    """

    instrument: Diffractometer
    detectors: Mapping[str, str]
    energies: Mapping[str, str]
    calibrated: bool = True
    pitch: float | None = None


def has_entries(path: str | Path, motor: str = "") -> bool:
    """Tell whether an HDF5 file has entries that are named like BLISS scans and hold a measurement.

    If a motor is named, one of the first entries must hold it; not all are opened, because they may lie in many files.
    """
    if not is_hdf5(path):
        return False
    try:
        with open_hdf5(path) as file:
            names = [name for name in file if ENTRY.fullmatch(name)]
            if motor:
                places = (f"{name}/instrument/{group}/{motor}" for name in names[:FIRST] for group in POSITIONERS)
                return any(find_node(file, place) is not None for place in places)
            return any(
                isinstance(file.get(name, getlink=True), h5py.ExternalLink) or find_node(file, f"{name}/measurement")
                for name in names
            )
    except FormatError:
        return False


def list_scans(path: str | Path, beamline: Beamline) -> list[str]:
    """List the entries that hold detector frames, ordered by scan number."""
    with open_hdf5(path) as file:
        return [name for name in _entries(file) if _detectors(find_node(file, name), beamline)]


def _entries(file: h5py.File) -> list[str]:
    return sorted(filter(ENTRY.fullmatch, file), key=_number)


def _number(name: str) -> tuple[float, str]:
    return float(name.rpartition("_")[2]), name


def _detectors(entry: h5py.Group | h5py.Dataset | None, beamline: Beamline) -> list[str]:
    """List the detectors of one scan: the names in the group `measurement` of `entry` that hold images.

    A name of a known detector counts even if it is a link to a missing file. If `entry` is None, the list is empty.
    """
    group = find_node(entry, "measurement")
    if not isinstance(group, h5py.Group):
        return []
    return [name for name in group if name in beamline.detectors or getattr(find_node(group, name), "ndim", 0) == 3]


def read_bliss(
    path: str | Path, beamline: Beamline, scan: int | str | None, detector: str | None, monitor: str | None, overrides: Overrides
) -> Scan:  # fmt: skip
    """Read one scan of a BLISS file.

    Raises
    ------
    FormatError : if the scan or the detector is missing (the message lists those in the file), or the file is damaged.
    DataError : if fewer than two frames have an angle.
    """
    noticed: list[str] = []
    with open_hdf5(path) as file:
        name = _entry(file, path, scan, beamline)
        entry = node(file, name)
        detector = _detector(entry, name, path, detector, beamline)
        motors = _motors(entry, beamline.instrument, noticed)
        flux, title, started = (
            None if monitor is None else _counter(entry, monitor),
            _text(entry, "title"),
            _text(entry, "start_time"),
        )
        readings = _readings(entry, detector, beamline)
    stored = HDF5Frames(path, f"{name}/measurement/{detector}")
    label = f"{Path(path).stem}_S{int(_number(name)[0]):04d}"
    points = max(
        (np.size(value) for value in (*motors.values(), readings["energy"].points) if np.size(value) > 1), default=stored.shape[0]
    )
    stopped = explain_early_stop(title, points)
    noticed += [f"scan {name}: {stopped}."] if stopped else []
    kept, motors = match_points(stored.shape[0], add_energies(motors, readings["energy"]), noticed)
    frames = select_frames(stored, kept)
    readings["direct_beam"], readings["direct_beam_notes"] = choose_centre(readings["direct_beam"], stored.shape)
    return Scan(
        frames=frames,
        name=label,
        monitor=per_frame(flux, kept, monitor or "", noticed),
        rocking_angle=rocking_angle(beamline.instrument, motors, noticed),
        geometry=geometry(beamline.instrument, Readings(motors, **readings), frames.shape, overrides, noticed),
        detector=beamline.detectors.get(detector),
        provenance={
            "scan": name, "command": title, "time": started, "detector": detector, "no_count": no_count(frames.dtype),
            "noticed": tuple(noticed),
        },
    )  # fmt: skip


def _entry(file: h5py.File, path: str | Path, scan: int | str | None, beamline: Beamline) -> str:
    """Return the name of the entry for a scan number or a scan name.

    If a scan has two acquisition chains, BLISS gives the entry of the faster one the suffix .1. That entry is taken.
    """
    known = _entries(file)
    if scan is None:
        chosen = [name for name in known if _detectors(find_node(file, name), beamline)]
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


def _detector(entry: h5py.Group, name: str, path: str | Path, detector: str | None, beamline: Beamline) -> str:
    detectors = _detectors(entry, beamline)
    if detector is None and len(detectors) == 1:
        return detectors[0]
    if detector in detectors:
        return str(detector)
    asked = f"{len(detectors)} detectors" if detector is None else f"no detector {detector!r}"
    raise FormatError(f"{path}: scan {name} holds {asked}; there is {', '.join(detectors) or 'none'}: choose with detector=...")


def _motors(entry: h5py.Group, instrument: Diffractometer, noticed: list[str]) -> dict[str, float | FloatArray]:
    """Return the readings of the diffractometer's motors [deg], by motor name.

    If the file holds only the position at the start of the scan, that position is used.
    """
    motors: dict[str, float | FloatArray] = {}
    for circle in (*instrument.sample, *instrument.detector):
        for found in _nodes(entry, tuple(f"instrument/{group}/{circle.motor}" for group in POSITIONERS)):
            angle = read_angles(read_region(found), _units(found), f"{found.name}", noticed) if circle.motor not in motors else None
            if angle is not None:
                motors[circle.motor] = angle
    return motors


def _readings(entry: h5py.Group, detector: str, beamline: Beamline) -> dict[str, Any]:
    """Return the values of the file: energy, distance, pixel size and direct beam (row, column)."""
    place = f"instrument/{detector}"

    def values(known: Range, custom: str, *names: str) -> Value:
        found = [read_value(known, read_region(item), _units(item), f"{item.name}", custom) for item in _nodes(entry, names)]
        return choose_value(known, *found)

    pitch = [values(PIXEL, "m", f"{place}/{axis}_pixel_size") for axis in "yx"]
    usual = Value() if beamline.pitch is None else Value(beamline.pitch, "the beamline's detector")
    pitch = [choose_value(PIXEL, edge, usual) for edge in pitch]
    centre = []
    for axis, edge in zip("yx", pitch, strict=True):
        item = next(_nodes(entry, (f"{place}/beam_center_{axis}",)), None)
        centre.append(Value() if item is None else read_pixel(read_region(item), _units(item), f"{item.name}", edge.amount))
    energies = [values(ENERGY, unit, f"instrument/{name}") for name, unit in beamline.energies.items()]
    return {
        "energy": choose_value(ENERGY, *energies),
        "distance": values(DISTANCE, "m", f"{place}/distance") if beamline.calibrated else Value(),
        "pixel_size": tuple(pitch),
        "direct_beam": centre if beamline.calibrated else (Value(), Value()),
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
