"""Record a scan while it is being measured, in a folder that survives a crash of the recording program.

::

    about.h5      metadata: plan, dark, flat, mask, monitor, angles, geometry
    frames.raw    (n, rows, columns) as the detector counted; no disk space is used where no frame has arrived
    arrived.raw   one record a frame: whether it arrived, its angle [rad], its time [s since the epoch]
    ended.json    written last: whether the scan was aborted, and why

Both raw files are mapped into memory. Written frames are kept by the operating system, so a killed program loses no frame; the
operating system frees the memory when it is needed. No correction is applied to the counts.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggshot.errors import DataError, FormatError
from braggshot.gate import refuse_irregular
from braggshot.io.atomic import replacing, replacing_hdf5
from braggshot.io.files import open_hdf5
from braggshot.io.frames import ArrayFrames
from braggshot.io.hdf5 import add_group, get, put, put_note, read_note
from braggshot.io.measurement import PREPARATION, read_geometry, read_preparation, write_geometry, write_preparation
from braggshot.volumes import FloatArray, Frame, Scan

# Names of the files in the folder of a recording.
ABOUT, FRAMES, ARRIVED, ENDED = "about.h5", "frames.raw", "arrived.raw", "ended.json"
# One record of arrived.raw: whether the frame has arrived, its rocking angle [rad], its time [s since the epoch].
RECORD = np.dtype([("here", "u1"), ("angle", "f8"), ("time", "f8")])
GROWTH = 64  # number of frames by which the files of a recording grow, if the length of the scan is not known
SPARE = 256 * 2**20  # space that must stay free on the disk [bytes]


@dataclass(frozen=True)
class Plan:
    """Metadata of a scan that are known before its first frame.

    Parameters
    ----------
    name : short name of the scan, for output files
    shape : (rows, columns) of a frame
    dtype : type of a pixel
    frames : number of planned frames; None if unknown
    rocking_angle : (frames,) planned angles; None if unknown [rad]
    about : scan that gives dark, flat, mask, monitor, geometry, detector and provenance; its frames are not used
    """

    name: str
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    frames: int | None = None
    rocking_angle: FloatArray | None = None
    about: Scan | None = None


class Recorder:
    """Writer that records a scan in a folder while the scan is measured; `scan` returns the frames that have arrived so far.

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
        """Record a frame, and return "" or the reason why it was refused.

        The reasons are "shape", "type", "duplicate" and "beyond the plan".
        """
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
        # The frame is marked as arrived only after its counts are written, so that a marked frame is complete.
        self.arrived[frame.index] = (1, angle, time)
        return ""

    def _grow(self, least: int) -> None:
        n = GROWTH * (least // GROWTH + 1)
        for name, size in ((FRAMES, self.frames[0].nbytes), (ARRIVED, RECORD.itemsize)):
            with (self.folder / name).open("r+b") as stream:
                stream.truncate(n * size)
        self._map(n, "r+")

    def scan(self) -> Scan:
        """Return a scan of the frames that have arrived; frames that arrive later do not change it."""
        return _scan(self.plan, self.frames, np.array(self.arrived))

    def end(self, aborted: str = "") -> None:
        """Mark that no more frames will arrive; `aborted` says why the scan ended early, "" if it did not."""
        mark_ended(self.folder, aborted)


def mark_ended(folder: str | Path, aborted: str) -> None:
    """Mark the recording in a folder as ended; `aborted` says why the scan ended early, "" if it did not."""
    arrived = np.fromfile(Path(folder) / ARRIVED, RECORD)
    with replacing(Path(folder) / ENDED) as temporary:
        temporary.write_text(json.dumps({"aborted": aborted, "frames": int((arrived["here"] > 0).sum())}))


def can_read(path: str | Path) -> bool:
    """Tell whether the path is a folder that a `Recorder` wrote."""
    return all((Path(path) / name).is_file() for name in (ABOUT, FRAMES, ARRIVED))


def read_ending(path: str | Path) -> dict[str, Any] | None:
    """Return the content of ended.json: why the scan ended early, and the number of frames; None while the scan goes on."""
    try:
        ending: dict[str, Any] = json.loads((Path(path) / ENDED).read_text())
    except FileNotFoundError:
        return None
    return ending


def read(path: str | Path) -> Scan:
    """Read a recorded scan; the scan may have ended early, or may still be running.

    Raises
    ------
    FormatError : if a file of the recording is damaged or too short.
    DataError : if no frame has arrived.
    """
    folder = Path(path)
    plan = _read_about(folder / ABOUT)
    for name in (ARRIVED, FRAMES):
        refuse_irregular(folder / name)
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
    """Return one angle per frame [rad]; None if frames arrived without an angle.

    Angles of frames that have not arrived are read off a straight line through the known angles.
    """
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


def _name(stored: Any, default: str) -> str:
    """Return the stored name of a recording without folders; `default` where it is no name."""
    name = PurePath(stored).name if isinstance(stored, str) else ""
    return default if name in {"", ".."} else name


def _read_about(path: Path) -> Plan:
    with open_hdf5(path) as file:
        shape = tuple(int(n) for n in np.ravel(get(file, "shape")))
        if len(shape) != 2:
            raise FormatError(f"{path}: shape is {shape}, expected rows and columns.")
        frames = get(file, "frames")
        valid = get(file, "valid")
        preparation = read_preparation(file["instrument_1/detector_1"]) if "instrument_1" in file else {}
        preparation = {name: value for name, value in preparation.items() if value is not None}
        about = Scan(
            frames=ArrayFrames(np.zeros((1, *shape)) if valid is None or valid.ndim == 2 else valid),
            name=_name(get(file, "name"), path.absolute().parent.name),
            valid=valid,
            prepared=bool(preparation),
            geometry=read_geometry(file["instrument_1"]) if "instrument_1" in file else None,
            provenance={**read_note(file, "note_1"), **preparation},
            **{name: get(file, name) for name in ("dark", "flat", "monitor", "detector")},
        )
        return Plan(about.name, (shape[0], shape[1]), np.dtype(get(file, "dtype")), frames, get(file, "rocking_angle"), about)
