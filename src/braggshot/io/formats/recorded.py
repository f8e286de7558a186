"""A scan as braggshot records it while it is being measured: a folder that holds every frame as it came, and outlives its writer.

::

    about.h5      what is known beside the frames: plan, dark, flat, mask, monitor, angles, geometry
    frames.raw    (n, rows, columns) as the detector counted, sparse where nothing has come
    arrived.raw   one record a frame: whether it came, its angle [rad], its time [s since the epoch]
    ended.json    written last: whether the scan was aborted, and why

Both raw files are mapped into memory: what was written there is the system's to keep, so a killed program loses no frame, and the
memory that it takes is the system's to reclaim. Nothing is corrected here.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggshot.errors import DataError, FormatError
from braggshot.io.atomic import replacing, replacing_hdf5
from braggshot.io.files import open_hdf5
from braggshot.io.frames import ArrayFrames
from braggshot.io.hdf5 import add_group, get, put, put_note, read_note
from braggshot.io.measurement import PREPARATION, read_geometry, read_preparation, write_geometry, write_preparation
from braggshot.volumes import FloatArray, Frame, Scan

ABOUT, FRAMES, ARRIVED, ENDED = "about.h5", "frames.raw", "arrived.raw", "ended.json"
RECORD = np.dtype([("here", "u1"), ("angle", "f8"), ("time", "f8")])
GROWTH = 64  # frames by which a recording of unknown length grows
SPARE = 256 * 2**20  # bytes that a disk must keep free


@dataclass(frozen=True)
class Plan:
    """What is known of a scan before its frames.

    Parameters
    ----------
    name : short name for outputs
    shape : (rows, columns) of a frame
    dtype : of its counts
    frames : how many are planned, None where nobody knows
    rocking_angle : (frames,) planned angles, None where nobody knows [rad]
    about : dark, flat, mask, monitor, geometry, detector and provenance; its frames are not looked at
    """

    name: str
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    frames: int | None = None
    rocking_angle: FloatArray | None = None
    about: Scan | None = None


class Recorder:
    """Writes a recording, and shows it as a scan at any time.

    Raises
    ------
    DataError : if the disk has no room for the planned frames.
    """

    def __init__(self, folder: str | Path, plan: Plan) -> None:
        self.folder, self.plan = Path(folder), plan
        self.folder.mkdir(parents=True)
        size = (plan.frames or GROWTH) * plan.shape[0] * plan.shape[1] * plan.dtype.itemsize
        free = shutil.disk_usage(self.folder).free
        if size + SPARE > free:
            raise DataError(f"{plan.name}: {size / 1e9:.1f} GB of frames do not fit on the disk ({free / 1e9:.1f} GB free).")
        _write_about(self.folder / ABOUT, plan)
        self._map(plan.frames or GROWTH, "w+")

    def _map(self, n: int, mode: Any) -> None:
        self.frames = np.memmap(self.folder / FRAMES, self.plan.dtype, mode, shape=(n, *self.plan.shape))
        self.arrived = np.memmap(self.folder / ARRIVED, RECORD, mode, shape=(n,))

    def add(self, frame: Frame) -> str:
        """Keep a frame; says in a word why not, where that is so: "shape", "type", "duplicate" or "beyond the plan"."""
        if frame.image.shape != self.plan.shape:
            return "shape"
        if frame.image.dtype != self.plan.dtype:
            return "type"
        if frame.index < 0 or (self.plan.frames is not None and frame.index >= self.plan.frames):
            return "beyond the plan"
        if frame.index >= len(self.arrived):
            self._grow(frame.index + 1)
        if self.arrived["here"][frame.index]:
            return "duplicate"
        self.frames[frame.index] = frame.image
        angle, time = (np.nan if value is None else value for value in (frame.rocking_angle, frame.time))
        self.arrived[frame.index] = (1, angle, time)  # after the counts, so that a frame that is said to be here is whole
        return ""

    def _grow(self, least: int) -> None:
        n = GROWTH * (least // GROWTH + 1)
        for name, size in ((FRAMES, self.frames[0].nbytes), (ARRIVED, RECORD.itemsize)):
            with (self.folder / name).open("r+b") as stream:
                stream.truncate(n * size)
        self._map(n, "r+")

    def scan(self) -> Scan:
        """All that has come so far; it does not change when more comes."""
        return _scan(self.plan, self.frames, np.array(self.arrived))

    def end(self, aborted: str = "") -> None:
        """Say that no more frames will come; `aborted` why that is before time."""
        mark(self.folder, aborted)


def mark(folder: str | Path, aborted: str) -> None:
    """Say of a recording that no more frames will come."""
    arrived = np.fromfile(Path(folder) / ARRIVED, RECORD)
    with replacing(Path(folder) / ENDED) as temporary:
        temporary.write_text(json.dumps({"aborted": aborted, "frames": int((arrived["here"] > 0).sum())}))


def can_read(path: str | Path) -> bool:
    """Whether the path is a folder that a `Recorder` wrote."""
    return all((Path(path) / name).is_file() for name in (ABOUT, FRAMES, ARRIVED))


def ended(path: str | Path) -> dict[str, Any] | None:
    """What `Recorder.end` said; None while it has not."""
    try:
        found: dict[str, Any] = json.loads((Path(path) / ENDED).read_text())
    except FileNotFoundError:
        return None
    return found


def read(path: str | Path) -> Scan:
    """The scan of a recording, whole or not.

    Raises
    ------
    FormatError : if a file of the recording is damaged or shorter than it says.
    DataError : if not one frame had come.
    """
    folder = Path(path)
    plan = _read_about(folder / ABOUT)
    try:
        arrived = np.fromfile(folder / ARRIVED, RECORD)
        frames = np.memmap(folder / FRAMES, plan.dtype, "r", shape=(len(arrived), *plan.shape))
    except (OSError, ValueError) as error:
        raise FormatError(f"{folder}: the recording is damaged ({error}).") from error
    return _scan(plan, frames, arrived)


def _scan(plan: Plan, frames: NDArray[Any], arrived: NDArray[Any]) -> Scan:
    here = arrived["here"] > 0
    if not here.any():
        raise DataError(f"{plan.name}: no frame has come yet.")
    n = plan.frames or int(np.flatnonzero(here)[-1]) + 1
    here, about = here[:n], plan.about
    known: dict[str, Any] = {}
    if about is not None:
        known = {name: getattr(about, name) for name in ("valid", "dark", "flat", "geometry", "detector", "prepared")}
        if about.monitor is not None and len(about.monitor) == n:
            known["monitor"] = about.monitor
    return Scan(
        frames=ArrayFrames(frames[:n]),
        name=plan.name,
        arrived=None if here.all() else here,
        rocking_angle=plan.rocking_angle if plan.rocking_angle is not None else _angles(arrived["angle"][:n], here),
        provenance={} if about is None else about.provenance,
        **known,
    )


def _angles(angle: NDArray[np.float64], here: NDArray[np.bool_]) -> FloatArray | None:
    """Angles as the stream told them; those of frames that are not here on the line through the others. None where it told none."""
    known = here & np.isfinite(angle)
    if known.sum() < 2 or not np.isfinite(angle[here]).all():
        return None
    index = np.arange(len(angle))
    line = np.polynomial.Polynomial.fit(index[known], angle[known], 1)
    return np.where(known, angle, line(index))


def _write_about(path: Path, plan: Plan) -> None:
    about = plan.about
    with replacing_hdf5(path) as file:
        put(file, "name", plan.name)
        put(file, "shape", plan.shape)
        put(file, "dtype", plan.dtype.str)
        put(file, "frames", plan.frames)
        put(file, "rocking_angle", plan.rocking_angle, "rad")
        if about is None:
            return
        for name in ("valid", "dark", "flat", "monitor", "detector"):
            put(file, name, getattr(about, name))
        instrument = add_group(file, "instrument_1", "NXinstrument")
        detector = add_group(instrument, "detector_1", "NXdetector")
        if about.prepared:
            write_preparation(detector, about.provenance)
        plain = {name: value for name, value in about.provenance.items() if name not in PREPARATION}
        put_note(file, "note_1", plain, "what was read, and how")
        if about.geometry is not None:
            write_geometry(instrument, detector, about.geometry)


def _read_about(path: Path) -> Plan:
    with open_hdf5(path) as file:
        shape = tuple(int(n) for n in get(file, "shape"))
        frames = get(file, "frames")
        valid = get(file, "valid")
        preparation = read_preparation(file["instrument_1/detector_1"]) if "instrument_1" in file else {}
        preparation = {name: value for name, value in preparation.items() if value is not None}
        about = Scan(
            frames=ArrayFrames(np.zeros((1, *shape)) if valid is None or valid.ndim == 2 else valid),
            name=get(file, "name"),
            valid=valid,
            prepared=bool(preparation),
            geometry=read_geometry(file["instrument_1"]) if "instrument_1" in file else None,
            provenance={**read_note(file, "note_1"), **preparation},
            **{name: get(file, name) for name in ("dark", "flat", "monitor", "detector")},
        )
        return Plan(about.name, (shape[0], shape[1]), np.dtype(get(file, "dtype")), frames, get(file, "rocking_angle"), about)
