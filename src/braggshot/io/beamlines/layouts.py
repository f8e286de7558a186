"""Read the scan in one group of an HDF5 file, by a table that says where a beamline keeps its values.

A beamline's module holds its `Layout`: the circles, and for every value the places where it may stand, the most trusted one first.
A place is a path below the group of the scan; of each part, upper and lower case are alike, and ``*`` stands for any letters.
"""

from __future__ import annotations

import fnmatch
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from braggshot.errors import FormatError
from braggshot.io.axes import fit_mask, image_axes
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
from braggshot.io.files import find_node, is_hdf5, open_hdf5
from braggshot.io.frames import HDF5Frames, LazyFrames
from braggshot.physics.plausibility import DISTANCE, ENERGY, PIXEL, Range
from braggshot.volumes import BoolArray, FloatArray, Scan

# Detectors by the shape of their frames (rows, columns) -> name in braggshot.
SHAPES = {
    (515, 515): "merlin", (516, 516): "maxipix", (514, 1030): "eiger500k", (512, 1028): "eiger2_500k", (1065, 1030): "eiger1m",
    (1062, 1028): "eiger2_1m", (2167, 2070): "eiger4m", (2162, 2068): "eiger2_4m", (3269, 3110): "eiger9m",
    (3262, 3108): "eiger2_9m", (619, 487): "pilatus300k", (1043, 981): "pilatus1m", (195, 487): "pilatus100k",
}  # fmt: skip
# Pixel size of detectors by what their name begins with [m]; they are sold with no other.
PITCHES = {
    "merlin": 55e-6,
    "maxipix": 55e-6,
    "mpx": 55e-6,
    "medipix": 55e-6,
    "eiger": 75e-6,
    "pil": 172e-6,
    "lambda": 55e-6,
    "asi": 55e-6,
    "bse": 7.8e-6,
}
WITHOUT_GAPS = {"pilatus100k"}  # detectors of `SHAPES` that are one module
FIRST = 8  # number of groups of a file that are looked at, to tell its kind
MOVED = 0.01  # difference of two positions of a circle at rest that is worth a word [deg]

Places = tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """Where a beamline keeps the values of a scan, as places below the group of the scan.

    Parameters
    ----------
    instrument : circles of the diffractometer
    frames : places of the frames; a data set, or a group of numbered ones. What ``*`` stands for, or else the name of the last
        group or data set, is the detector's name
    motors : circle -> places of its position [deg]
    energy, distance : places -> unit that is customary there
    pixel_size, direct_beam : places of the values for rows, and for columns
    mask : places of a mask, which is 0 where pixels are good
    command, time : places of the scan's command, and of its start
    pitch : pixel size of a detector whose name tells none [m]
    """

    instrument: Diffractometer
    frames: Places
    motors: Mapping[str, Places]
    energy: Mapping[str, str]
    distance: Mapping[str, str] = field(default_factory=dict)
    pixel_size: tuple[Places, Places] = ((), ())
    direct_beam: tuple[Places, Places] = ((), ())
    mask: Places = ()
    command: Places = ()
    time: Places = ()
    pitch: float | None = None


@dataclass(frozen=True)
class Contents:
    """What the group of a scan holds.

    Parameters
    ----------
    datasets : paths of the frames inside the file, in their order
    detector : name of the detector in the file
    motors, values : positions of the circles [deg]; energy, distance, pixel size and direct beam
    flux, flux_name : incident flux at each point, and where it stands
    mask : True where pixels are bad
    command, time : command and start of the scan
    """

    datasets: tuple[str, ...]
    detector: str
    motors: dict[str, float | FloatArray]
    values: dict[str, Any]
    flux: FloatArray | None
    flux_name: str
    mask: BoolArray | None
    command: str
    time: str


def outline(path: str | Path) -> dict[str, frozenset[str]]:
    """Return what the first groups of an HDF5 file hold, by name; empty if it is none, or cannot be opened.

    All readers ask this of a file before they look deeper into it, so the last answer is kept. Links to other files are not
    followed.
    """
    if not is_hdf5(path):
        return {}
    try:
        state = os.stat(path)
        return _outline(os.path.abspath(path), state.st_mtime_ns, state.st_size)
    except (OSError, FormatError):
        return {}


@lru_cache(maxsize=1)
def _outline(path: str, changed: int, size: int) -> dict[str, frozenset[str]]:
    with open_hdf5(path) as file:
        here = [name for name in itertools.islice(file, FIRST) if not isinstance(file.get(name, getlink=True), h5py.ExternalLink)]
        groups = {name: find_node(file, name) for name in here}
        return {name: frozenset(map(str, group)) for name, group in groups.items() if isinstance(group, h5py.Group)}


def find(group: h5py.Group | None, place: str) -> Iterator[str]:
    """List the paths below a group that fit a place; a link to a missing file fits too."""
    head, _, rest = place.partition("/")
    names = [head] if group is not None and head in group else sorted(fnmatch.filter(map(str, group or ()), head))
    if not names:
        names = [name for name in group or () if fnmatch.fnmatchcase(name.casefold(), head.casefold())]
    for name in names:
        if not rest:
            yield name
        elif isinstance(inner := find_node(group, name), h5py.Group):
            yield from (f"{name}/{below}" for below in find(inner, rest))


def find_datasets(group: h5py.Group, places: Sequence[str]) -> Iterator[h5py.Dataset]:
    """List the data sets below a group that fit the places, in the order of the places."""
    for place in places:
        yield from (item for name in find(group, place) if isinstance(item := find_node(group, name), h5py.Dataset))


def find_frames(group: h5py.Group, layout: Layout) -> dict[str, tuple[str, ...]]:
    """Return detector -> paths of its frames in the file, in their order; a link to a missing file counts too."""
    found: dict[str, tuple[str, ...]] = {}
    for place in layout.frames:
        parts = place.split("/")
        at = next((number for number, part in enumerate(parts) if "*" in part), len(parts) - 1)
        for name in find(group, place):
            if paths := _parts(group, name):
                found.setdefault(name.split("/")[at], paths)
    return found


def _parts(group: h5py.Group, name: str) -> tuple[str, ...]:
    """Return the paths of the frames by that name; empty if there are none."""
    item, path = find_node(group, name), f"{group.name}/{name}".replace("//", "/")
    if isinstance(item, h5py.Dataset):
        return (path,) if len(image_axes(item.shape or ())) == 3 and item.dtype.kind in "iuf" else ()
    if isinstance(item, h5py.Group):
        numbered = sorted((member for member in item if member.isdecimal()), key=int)
        return tuple(f"{path}/{member}" for member in numbered)
    folder, _, last = name.rpartition("/")
    link = group[folder].get(last, getlink=True) if folder else group.get(last, getlink=True)
    return (path,) if isinstance(link, h5py.ExternalLink) else ()


def read_contents(
    group: h5py.Group, layout: Layout, detector: str | None, monitor: Sequence[str], noticed: list[str], also: Sequence[str] = ()
) -> Contents:  # fmt: skip
    """Read what the group of a scan holds, but the frames.

    Parameters
    ----------
    group, layout : the group, and the beamline's table
    detector : name of the detector; None if there is only one
    monitor : places of the incident flux
    noticed : what is odd, in words
    also : names of detectors whose frames are kept in files of another kind

    Raises
    ------
    FormatError : if there is no detector of that name, or several if none is named; the message lists them.
    """
    detectors = dict.fromkeys(also, ()) | find_frames(group, layout)
    if detector is None and len(detectors) == 1:
        detector = next(iter(detectors))
    if detector not in detectors:
        asked = f"{len(detectors)} detectors" if detector is None else f"no detector {detector!r}"
        there = f"there is {', '.join(detectors) or 'none'}: choose with detector=..."
        raise FormatError(f"{group.file.filename}: {group.name} holds {asked}; {there}")
    flux = next((item for item in find_datasets(group, monitor) if item.ndim), None)
    masks = [place.replace("{detector}", detector) for place in layout.mask]
    bad = next((item for item in find_datasets(group, masks) if item.ndim == 2), None)
    return Contents(
        datasets=detectors[detector],
        detector=detector,
        motors=read_motors(group, layout.motors, noticed),
        values=_read_values(group, layout, detector),
        flux=None if flux is None else read_numbers(read_region(flux))[0],
        flux_name="" if flux is None else str(flux.name),
        mask=None if bad is None else np.asarray(read_region(bad) != 0),
        command=_read_text(group, layout.command),
        time=_read_text(group, layout.time),
    )


def read_motors(group: h5py.Group, motors: Mapping[str, Places], noticed: list[str]) -> dict[str, float | FloatArray]:
    """Return the positions of circles [deg]: of the first place that holds a number.

    A circle at rest whose positions at two places differ is noticed.
    """
    found: dict[str, float | FloatArray] = {}
    for name, places in motors.items():
        source = ""
        for item in find_datasets(group, places):
            if name not in found:
                angle = read_angles(read_region(item), item.attrs.get("units"), f"{item.name}", noticed)
                if angle is not None:
                    found[name], source = angle, str(item.name)
            elif np.ndim(found[name]) == 0 and item.size == 1:
                other = read_angles(read_region(item), item.attrs.get("units"), f"{item.name}", [])
                if other is not None and abs(float(np.ravel(other)[0]) - float(found[name])) > MOVED:
                    noticed.append(f"{name} is {found[name]:g} in {source}, which is taken, and {other:g} in {item.name}.")
    return found


def _read_values(group: h5py.Group, layout: Layout, detector: str) -> dict[str, Any]:
    """Return energy, distance, pixel size and direct beam (row, column)."""

    def value(known: Range, places: Mapping[str, str]) -> Value:
        found = [
            read_value(known, read_region(item), item.attrs.get("units"), f"{item.name}", unit)
            for place, unit in places.items()
            for item in find_datasets(group, (place.replace("{detector}", detector),))
        ]
        return choose_value(known, *found)

    def pixel(places: Places, pitch: Value) -> Value:
        item = next(find_datasets(group, [place.replace("{detector}", detector) for place in places]), None)
        raw, unit = (None, None) if item is None else (read_region(item), item.attrs.get("units"))
        return Value() if item is None else read_pixel(raw, unit, f"{item.name}", pitch.amount)

    pitches = tuple(value(PIXEL, dict.fromkeys(places, "m")) for places in layout.pixel_size)
    return {
        "energy": value(ENERGY, layout.energy),
        "distance": value(DISTANCE, layout.distance),
        "pixel_size": pitches,
        "direct_beam": [pixel(places, pitch) for places, pitch in zip(layout.direct_beam, pitches, strict=True)],
    }


def _read_text(group: h5py.Group, places: Places) -> str:
    return to_text(next((read_region(item) for item in find_datasets(group, places)), None)).strip()


def build_scan(
    path: str | Path, layout: Layout, contents: Contents, name: str, overrides: Overrides, noticed: list[str],
    stored: LazyFrames | None = None,
) -> Scan:  # fmt: skip
    """Join the frames of a scan with what its group holds.

    Parameters
    ----------
    path : the HDF5 file
    layout, contents : the beamline's table, and what was found by it
    name : name of the scan
    overrides : values that the user states
    noticed : what was odd so far, in words
    stored : frames that are kept in other files; None for those of `contents.datasets`

    Raises
    ------
    DataError : if fewer than two frames have an angle.
    """
    stored = HDF5Frames(path, contents.datasets) if stored is None else stored
    motors, values = contents.motors, dict(contents.values)
    points = max(
        (np.size(value) for value in (*motors.values(), values["energy"].points) if np.size(value) > 1), default=stored.shape[0]
    )
    stopped = explain_early_stop(contents.command, points)
    noticed += [f"{stopped}."] if stopped else []
    kept, motors = match_points(stored.shape[0], add_energies(motors, values["energy"]), noticed)
    frames = select_frames(stored, kept)
    chip = SHAPES.get((frames.shape[1], frames.shape[2]))
    known = _pitch(contents.detector, chip, layout.pitch)
    values["pixel_size"] = tuple(choose_value(PIXEL, pitch, known) for pitch in values["pixel_size"])
    if not isinstance(values["direct_beam"], tuple):
        values["direct_beam"], values["direct_beam_notes"] = choose_centre(values["direct_beam"], stored.shape)
    bad = contents.mask
    return Scan(
        frames=frames,
        name=name,
        valid=None if bad is None else ~fit_mask(bad, frames.shape),
        monitor=per_frame(contents.flux, kept, contents.flux_name, noticed),
        rocking_angle=rocking_angle(layout.instrument, motors, noticed),
        geometry=geometry(layout.instrument, Readings(motors, **values), frames.shape, overrides, noticed),
        detector=None if chip in WITHOUT_GAPS else chip,
        provenance={
            "command": contents.command, "time": contents.time, "detector": contents.detector, "no_count": no_count(frames.dtype),
            "noticed": tuple(noticed),
        },
    )  # fmt: skip


def _pitch(detector: str, chip: str | None, usual: float | None) -> Value:
    """Return the pixel size that the name of a detector, or else the shape of its frames, tells."""
    for name in (detector.casefold(), chip or ""):
        for begin, pitch in PITCHES.items():
            if name.startswith(begin):
                return Value(pitch, f"the detector {name}")
    assumed = "the file does not state the pixel size: {:g} µm is assumed, that of the detectors that the beamline uses most."
    return Value() if usual is None else Value(usual, "the beamline's detectors", (assumed.format(usual * 1e6),))
