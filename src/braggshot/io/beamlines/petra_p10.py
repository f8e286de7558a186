"""Read scans of PETRA III P10: an Eiger master file with bitshuffle-LZ4 compressed data files, and a .fio file of motors.

::

    <sample>_00012/<sample>_00012.fio               %c command, %p motors [deg] and fmbenergy [eV], %d table
    <sample>_00012/e4m/<sample>_00012_master.h5     entry/data/data_000001 -> <sample>_00012_data_000001.h5:/entry/data/data
        entry/instrument/detector/{x,y}_pixel_size, detector_distance [m], beam_center_{x,y} [pixel]
        entry/instrument/detector/detectorSpecific/pixel_mask     0 good; the counts of bad pixels are the type's maximum

The geometry is that of bcdi and cdiutils, already in the CXI frame: mu "y+", om "x-", chi "z+" (which reads 90 deg at its zero) and
phi "y-" carry the sample; gam "y+" and del "x-" carry the detector; rows grow downwards ("y-") and columns inboard ("x-").
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Unpack

import h5py
import numpy as np
from scipy import constants

from braggshot.errors import DataError, FormatError
from braggshot.io.beamlines.instruments import PETRA_P10 as P10
from braggshot.io.beamlines.readings import (
    Overrides,
    Readings,
    find_blind_pixels,
    geometry,
    match_points,
    no_count,
    rocking_angle,
    to_si,
)  # fmt: skip
from braggshot.io.files import is_hdf5, open_hdf5
from braggshot.io.frames import HDF5Frames, LazyFrames, SummedFrames
from braggshot.volumes import BoolArray, FloatArray, Scan

# Name of a more general format: its reader can read Eiger master files too, but the reader in this module takes precedence.
PARENT = "nexus"
DETECTOR = "entry/instrument/detector"  # path of the detector in a master file
PART = re.compile(r"data_\d{6}")  # pattern of the names by which a master file links to its data files
# Table of detectors: (rows, columns) of their frames -> name in braggshot.
SIZES = {(2167, 2070): "eiger4m", (514, 1030): "eiger500k", (3269, 3110): "eiger9m"}


def can_read(path: str | Path) -> bool:
    """Tell whether an HDF5 file is an Eiger master file: it has numbered parts in ``entry/data`` and a detector."""
    if not is_hdf5(path):
        return False
    try:
        with open_hdf5(path) as file:
            return DETECTOR in file and "entry/data" in file and any(map(PART.fullmatch, file["entry/data"]))
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
    DataError : if there are more frames than motor positions.
    """
    noticed: list[str] = []
    with open_hdf5(path) as file:
        parts = sorted(filter(PART.fullmatch, file["entry/data"]))
        readings, mask, description = _readings(file), _pixel_mask(file), _value(file, f"{DETECTOR}/description")
    stem = Path(path).name.removesuffix(".h5").removesuffix("_master")
    table = _find_fio(Path(path), stem, fio, noticed)
    motors, command, started = _read_fio(table) if table else ({}, "", "")
    frames: LazyFrames = HDF5Frames(path, [f"entry/data/{part}" for part in parts])
    if frames.shape[0] == 0:
        raise DataError(f"{path}: the master file links to no frames; was the scan interrupted at once?")
    bad, sentinel = find_blind_pixels(frames), no_count(frames.dtype)
    frames = _sum_repeats(frames, motors, noticed)
    flux, energy = motors.pop(monitor, None), motors.pop("fmbenergy", None)
    if energy is not None:
        readings["energy"] = float(np.mean(energy)) * constants.electron_volt
    circles = {circle.motor for circle in (*P10.sample, *P10.detector)}
    motors = match_points(stem, frames.shape[0], {name: value for name, value in motors.items() if name in circles}, noticed)
    bad = bad if mask is None else bad | mask
    return Scan(
        frames=frames,
        name=stem,
        valid=~bad if bad.any() else None,
        monitor=flux[: frames.shape[0]] if isinstance(flux, np.ndarray) else None,
        rocking_angle=rocking_angle(P10, motors, noticed),
        geometry=geometry(P10, Readings(motors, **readings), frames.shape, overrides, noticed),
        detector=SIZES.get((frames.shape[1], frames.shape[2])),
        provenance={
            "fio": table and str(table), "command": command, "time": started, "detector": description, "no_count": sentinel,
            "noticed": tuple(noticed),
        },
    )  # fmt: skip


def _value(file: h5py.File, name: str) -> Any:
    value = file[name][()] if name in file else None
    return value.decode() if isinstance(value, bytes) else value


def _readings(file: h5py.File) -> dict[str, Any]:
    """Return energy [J], distance [m], pixel size [m] and direct beam [pixel] as stored by the detector.

    A stored zero means that the value was never set; it becomes None.
    """

    def number(name: str, default: str) -> float | None:
        node = file.get(name)
        return (to_si(node[()], node.attrs.get("units"), default) or None) if node is not None else None

    pixel = number(f"{DETECTOR}/y_pixel_size", "m"), number(f"{DETECTOR}/x_pixel_size", "m")
    centre = number(f"{DETECTOR}/beam_center_y", "m"), number(f"{DETECTOR}/beam_center_x", "m")
    angstrom = _value(file, "entry/instrument/beam/incident_wavelength")
    return {
        "energy": constants.h * constants.c / (float(angstrom) * 1e-10) if angstrom else None,
        "distance": number(f"{DETECTOR}/detector_distance", "m"),
        "pixel_size": None if None in pixel else pixel,
        "direct_beam": None if None in centre else centre,
    }


def _pixel_mask(file: h5py.File) -> BoolArray | None:
    for name in (f"{DETECTOR}/detectorSpecific/pixel_mask", f"{DETECTOR}/pixel_mask"):
        if name in file:
            return np.asarray(file[name][()] != 0)
    return None


def _find_fio(master: Path, stem: str, fio: str | Path | None, noticed: list[str]) -> Path | None:
    if fio is not None:
        if not Path(fio).is_file():
            raise FormatError(f"{fio}: there is no such .fio file.")
        return Path(fio)
    folders = [master.absolute().parent, *master.absolute().parents[1:3]]
    files = [folder / f"{stem}.fio" for folder in folders if (folder / f"{stem}.fio").is_file()]
    if not files:
        noticed.append(f"no {stem}.fio in {', '.join(map(str, folders))}: motors and energy are unknown; say fio=...")
    return files[0] if files else None


def _read_fio(path: Path) -> tuple[dict[str, float | FloatArray], str, str]:
    """Read a .fio file: parameters and table columns by name, the scan command, and its start time."""
    from silx.io.fioh5 import FioFile

    try:
        file = FioFile(str(path))  # type: ignore[no-untyped-call]
    except Exception as error:  # silx lets whatever its parser met escape
        raise FormatError(f"{path}: cannot be read as .fio ({error}); is the file whole?") from error
    motors: dict[str, float | FloatArray] = {}
    for name, text in file.parameter.items():
        try:
            motors[name] = float(text)
        except ValueError:
            continue  # names of files and devices
    columns = np.atleast_1d(file.data)
    numbers = [name for name, kind in zip(file.names, file.dtypes, strict=True) if kind in ("f8", "f4", "i8")]
    motors |= {name: np.asarray(columns[name], float) for name in numbers}
    return motors, file.title, file.start_time


def _sum_repeats(frames: LazyFrames, motors: dict[str, float | FloatArray], noticed: list[str]) -> LazyFrames:
    """Add up the images that were taken at the same angle, so that there is one frame per angle.

    If no exposure was repeated, the frames are returned unchanged.
    """
    points = max((np.size(value) for value in motors.values() if np.ndim(value)), default=0)
    repeats, rest = divmod(frames.shape[0], points) if points else (1, 0)
    if repeats < 2 or rest:
        return frames
    noticed.append(f"{frames.shape[0]} exposures at {points} angles: each {repeats} were added up.")
    return SummedFrames(frames, repeats)
