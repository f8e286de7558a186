"""Read scans of PETRA III P10: an Eiger master file with bitshuffle-LZ4 compressed data files, and a .fio file of motors.

::

    <sample>_00012/<sample>_00012.fio               %c command, %p motors [deg], fmbenergy [eV], _distance [mm], %d table
    <sample>_00012/e4m/<sample>_00012_master.h5     entry/data/data_000001 -> <sample>_00012_data_000001.h5:/entry/data/data
        entry/instrument/detector/{x,y}_pixel_size, detector_distance [m], beam_center_{x,y} [pixel]
        entry/instrument/detector/detectorSpecific/pixel_mask     0 good; the counts of bad pixels are the type's maximum

The geometry is that of bcdi and cdiutils, already in the CXI frame: mu "y+", om "x-", chi "z+" (which reads 90 deg at its zero) and
phi "y-" carry the sample; gam "y+" and del "x-" carry the detector; rows grow downwards ("y-") and columns inboard ("x-").

P10 does not calibrate what the Eiger writes of distance and direct beam (cdiutils says so), so the `_distance` of the .fio file is
preferred to the header's, and a note says where both come from.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, Unpack

import h5py
import numpy as np

from braggshot.errors import DataError, FormatError
from braggshot.gate import refuse_irregular
from braggshot.io.beamlines.fio import FioTable, read_fio
from braggshot.io.beamlines.instruments import PETRA_P10 as P10
from braggshot.io.beamlines.readings import (
    Overrides,
    Readings,
    add_energies,
    geometry,
    match_points,
    no_count,
    per_frame,
    rocking_angle,
)  # fmt: skip
from braggshot.io.beamlines.tables import announced_points
from braggshot.io.beamlines.values import Value, choose_centre, choose_value, read_angles, read_pixel, read_value, to_text
from braggshot.io.beamlines.views import select_frames
from braggshot.io.chunks import read_region
from braggshot.io.files import find_node, is_hdf5, open_hdf5
from braggshot.io.frames import HDF5Frames, LazyFrames, SummedFrames
from braggshot.physics.plausibility import DISTANCE, ENERGY, PIXEL, Range
from braggshot.volumes import BoolArray, FloatArray, Scan

# Name of a more general format: its reader can read Eiger master files too, but the reader in this module takes precedence.
PARENT = "nexus"
DETECTOR = "entry/instrument/detector"  # path of the detector in a master file
PART = re.compile(r"data_\d{6}")  # pattern of the names by which a master file links to its data files
UNCALIBRATED = "which P10 does not calibrate: check it, or give"  # said of what the Eiger writes of its own place
# Table of detectors: (rows, columns) of their frames -> name in braggshot.
SIZES = {(2167, 2070): "eiger4m", (514, 1030): "eiger500k", (3269, 3110): "eiger9m"}


def can_read(path: str | Path) -> bool:
    """Tell whether an HDF5 file is an Eiger master file: it has numbered parts in ``entry/data`` and a detector."""
    if not is_hdf5(path):
        return False
    try:
        with open_hdf5(path) as file:
            data = find_node(file, "entry/data")
            return isinstance(data, h5py.Group) and find_node(file, DETECTOR) is not None and any(map(PART.fullmatch, data))
    except FormatError:
        return False


def read(path: str | Path, *, fio: str | Path | None = None, monitor: str = "curpetra", **overrides: Unpack[Overrides]) -> Scan:
    """Read the scan of one Eiger master file.

    Parameters
    ----------
    path : the master file, named ``..._master.h5``
    fio : the .fio file; None searches beside the master file and in the two folders above it
    monitor : column of the .fio file that is proportional to the incident flux
    overrides : energy_ev, distance_m, pixel_size_m, direct_beam, which replace the values in the files

    Raises
    ------
    FormatError : if a data file, a compression filter or a given .fio file is missing, or a file is damaged.
    DataError : if the master file links to no frames, or fewer than two frames have an angle.
    """
    noticed: list[str] = []
    with open_hdf5(path) as file:
        parts = sorted(filter(PART.fullmatch, file["entry/data"]))
        readings, mask, description = _readings(file), _pixel_mask(file), _description(file)
    stem = Path(path).name.removesuffix(".h5").removesuffix("_master")
    place = _find_fio(Path(path), stem, fio, noticed)
    table = read_fio(place) if place else FioTable("", "", {}, {}, ())
    noticed += table.noticed
    frames: LazyFrames = HDF5Frames(path, [f"entry/data/{part}" for part in parts])
    if frames.shape[0] == 0:
        raise DataError(f"{path}: the master file links to no frames; was the scan interrupted at once?")
    sentinel = no_count(frames.dtype)
    frames = _sum_repeats(frames, max(map(len, table.columns.values()), default=0), announced_points(table.command), noticed)
    readings = _prefer_fio(readings, table, stem)
    positions = add_energies(_motors(table, stem, noticed), readings["energy"])
    kept, motors = match_points(frames.shape[0], positions, noticed)
    frames, flux = select_frames(frames, kept), table.columns.get(monitor)
    readings["direct_beam"], readings["direct_beam_notes"] = _centre(readings["direct_beam"], frames.shape)
    return Scan(
        frames=frames,
        name=stem,
        valid=None if mask is None else ~mask,
        monitor=per_frame(flux, kept, monitor, noticed),
        rocking_angle=rocking_angle(P10, motors, noticed),
        geometry=geometry(P10, Readings(motors, **readings), frames.shape, overrides, noticed),
        detector=SIZES.get((frames.shape[1], frames.shape[2])),
        provenance={
            "fio": place and str(place), "command": table.command, "time": table.time, "detector": description,
            "no_count": sentinel, "noticed": tuple(noticed),
        },
    )  # fmt: skip


def _description(file: h5py.File) -> str:
    item = find_node(file, f"{DETECTOR}/description")
    return to_text(read_region(item)) if isinstance(item, h5py.Dataset) else ""


def _readings(file: h5py.File) -> dict[str, Any]:
    """Return the values that the detector stored: energy, distance, pixel size and direct beam (row, column)."""

    def value(known: Range, name: str, custom: str) -> Value:
        item = find_node(file, name)
        raw, unit = (read_region(item), item.attrs.get("units")) if isinstance(item, h5py.Dataset) else (None, None)
        return read_value(known, raw, unit, f"{name.rpartition('/')[2]} of the Eiger header", custom)

    def pixel(name: str, pitch: Value) -> Value:
        item = find_node(file, f"{DETECTOR}/{name}")
        raw, unit = (read_region(item), item.attrs.get("units")) if isinstance(item, h5py.Dataset) else (None, None)
        return read_pixel(raw, unit, f"{name} of the Eiger header", pitch.amount)

    pitch = value(PIXEL, f"{DETECTOR}/y_pixel_size", "m"), value(PIXEL, f"{DETECTOR}/x_pixel_size", "m")
    return {
        "energy": choose_value(
            ENERGY,
            value(ENERGY, "entry/instrument/beam/incident_wavelength", "Å"),
            value(ENERGY, f"{DETECTOR}/detectorSpecific/photon_energy", "eV"),
        ),
        "distance": value(DISTANCE, f"{DETECTOR}/detector_distance", "m"),
        "pixel_size": pitch,
        "direct_beam": (pixel("beam_center_y", pitch[0]), pixel("beam_center_x", pitch[1])),
    }


def _prefer_fio(readings: dict[str, Any], table: FioTable, stem: str) -> dict[str, Any]:
    """Return the readings with energy and distance of the .fio file, where it has them; a note says where the distance is from."""
    energy = table.columns.get("fmbenergy", table.parameters.get("fmbenergy"))
    of_motor = read_value(ENERGY, energy, None, f"fmbenergy of {stem}.fio", "eV")
    stated = read_value(DISTANCE, table.parameters.get("_distance"), None, f"_distance of {stem}.fio", "mm")
    distance = choose_value(DISTANCE, stated, readings["distance"])
    if distance.amount is not None:
        advice = f", {UNCALIBRATED} distance_m" if stated.amount is None else ""
        about = f"the distance, {distance.amount:.6g} m, is taken from {distance.source}{advice}."
        distance = dataclasses.replace(distance, notes=(*distance.notes, about))
    return {**readings, "energy": choose_value(ENERGY, of_motor, readings["energy"]), "distance": distance}


def _centre(header: tuple[Value, Value], shape: tuple[int, ...]) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    """Return the direct beam (row, column) of the Eiger header, None if it was never set, and where it is from, in words."""
    centre, notes = choose_centre(header, shape)
    if centre is None:
        return None, notes
    return centre, (
        *notes,
        f"the direct beam, ({centre[0]:g}, {centre[1]:g}), is taken from the Eiger header, {UNCALIBRATED} direct_beam.",
    )


def _pixel_mask(file: h5py.File) -> BoolArray | None:
    for name in (f"{DETECTOR}/detectorSpecific/pixel_mask", f"{DETECTOR}/pixel_mask"):
        if isinstance(mask := find_node(file, name), h5py.Dataset):
            return np.asarray(read_region(mask) != 0)
    return None


def _find_fio(master: Path, stem: str, fio: str | Path | None, noticed: list[str]) -> Path | None:
    if fio is not None:
        refuse_irregular(fio)
        return Path(fio)
    folders = [master.absolute().parent, *master.absolute().parents[1:3]]
    files = [folder / f"{stem}.fio" for folder in folders if (folder / f"{stem}.fio").is_file()]
    if not files:
        noticed.append(f"no {stem}.fio in {', '.join(map(str, folders))}: motors and energy are unknown; say fio=...")
    return files[0] if files else None


def _motors(table: FioTable, stem: str, noticed: list[str]) -> dict[str, float | FloatArray]:
    """Return the positions of the circles [deg] by motor name: the column of the table, or else the parameter."""
    motors: dict[str, float | FloatArray] = {}
    for circle in (*P10.sample, *P10.detector):
        found = table.columns.get(circle.motor, table.parameters.get(circle.motor))
        angle = None if found is None else read_angles(found, None, f"{circle.motor} of {stem}.fio", noticed)
        if angle is not None:
            motors[circle.motor] = angle
    return motors


def _sum_repeats(frames: LazyFrames, points: int, announced: int | None, noticed: list[str]) -> LazyFrames:
    """Add up the images that were taken at the same angle, so that there is one frame per angle.

    Exposures of an angle that has too few are left out. If no exposure was repeated, the frames are returned unchanged.

    Parameters
    ----------
    frames : the exposures, one after the other
    points, announced : number of points in the table, and in the command
    noticed : what is odd, in words
    """
    repeats = _count_repeats(frames.shape[0], points, announced or 0)
    if repeats < 2:
        return frames
    whole = min(frames.shape[0] // repeats, points)
    rest = frames.shape[0] - whole * repeats
    about = f"; the last {rest} belong to no whole angle and are left out" if rest else ""
    noticed.append(f"{frames.shape[0]} exposures at {points} angles: each {repeats} were added up{about}.")
    return select_frames(SummedFrames(frames, repeats), np.arange(whole))


def _count_repeats(exposures: int, points: int, announced: int) -> int:
    """Return the number of exposures at each angle: a whole number for all points, or for all but the last one; else 1."""
    whole = next((exposures // known for known in (points, announced) if known and exposures % known == 0), None)
    if whole is not None or not points:
        return whole or 1
    near = round(exposures / points)
    return near if abs(exposures - near * points) < near else 1
