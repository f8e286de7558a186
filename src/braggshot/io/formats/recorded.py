"""Record a scan while it is being measured, in a folder that survives a crash of the recording program.

::

    about.h5      metadata: plan, dark, flat, mask, monitor, angles, geometry
    frames.raw    (n, rows, columns) as the detector counted; it takes no room on the disk where no frame has arrived
    arrived.raw   one record a frame: whether it arrived, its angle [rad] or photon energy [J], its time [s since the epoch]
    ended.json    written last: whether the scan was aborted, and why

Written frames are kept by the operating system, so a killed program loses no frame. The files are written and read in pieces and
never mapped into memory, because a full disk under a map ends the program. No correction is applied to the counts.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggshot.errors import DataError, FormatError, OutputError
from braggshot.gate import refuse_irregular
from braggshot.io.archives import Image
from braggshot.io.atomic import check_room, file_name, replacing, replacing_hdf5
from braggshot.io.files import open_hdf5
from braggshot.io.frames import ArrayFrames, LazyFrames
from braggshot.io.hdf5 import add_group, get, put, put_note, read_note
from braggshot.io.measurement import PREPARATION, read_geometry, read_preparation, write_geometry, write_preparation
from braggshot.physics.geometry import follow_angles, steps_energy
from braggshot.volumes import FloatArray, Frame, Geometry, Scan

# Names of the files in the folder of a recording.
ABOUT, FRAMES, ARRIVED, ENDED = "about.h5", "frames.raw", "arrived.raw", "ended.json"
# One record of arrived.raw: whether the frame has arrived, its rocking angle [rad] or energy [J], its time [s since the epoch].
RECORD = np.dtype([("here", "u1"), ("angle", "f8"), ("time", "f8")])
FOLLOWED = "the rocking angles are not those of the example scan: their step is the scan's own, their middle the example's"
GROWTH = 64  # number of frames by which the files of a recording grow, if the length of the scan is not known


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
    steps_energy : whether the photon energy is stepped, and no angle
    """

    name: str
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    frames: int | None = None
    rocking_angle: FloatArray | None = None
    about: Scan | None = None
    steps_energy: bool = False

    def refusal(self, has_angles: bool) -> str:
        """Say what is not known to make a volume of the scan; empty if nothing lacks. `has_angles`: frames come with angles."""
        geometry = None if self.about is None else self.about.geometry
        if not self.steps_energy:
            wrong = has_angles and geometry is not None and steps_energy(geometry)
            return "its angle changes, but the example scan steps the photon energy: give a rocking scan by --like" if wrong else ""
        if geometry is None:
            return "its photon energy changes, and place and angles of the detector are not known: give an energy scan by --like"
        moving = [circle.name or circle.axis for circle in (*geometry.sample, *geometry.detector) if np.ndim(circle.angle)]
        why = f"its photon energy changes, but the example scan moves {', '.join(moving)}, so where that stands is not known"
        return f"{why}: give an energy scan by --like" if moving else ""


class Handle:
    """An open file, without a buffer; it is closed when nothing uses it any more.

    Parameters
    ----------
    path : the file
    is_new : create the file, for reading and writing; else it is only read
    """

    def __init__(self, path: Path, is_new: bool = False) -> None:
        self.number = os.open(path, os.O_CLOEXEC | (os.O_RDWR | os.O_CREAT | os.O_EXCL if is_new else os.O_RDONLY), 0o666)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class RawFrames(LazyFrames):
    """Frames of one number type in a file of nothing else; places where no frame has arrived read as zeros, without being read.

    Parameters
    ----------
    file : the open file
    shape : (frames, rows, columns)
    dtype : type of a pixel
    here : (frames,) whether the frame has arrived
    """

    def __init__(self, file: Handle, shape: tuple[int, ...], dtype: np.dtype[Any], here: NDArray[np.bool_]) -> None:
        self.file, self.shape, self.dtype, self.here = file, shape, dtype, here

    def read(self, indices: NDArray[np.intp], rows: slice, columns: slice) -> Image:
        """Read the rows of the frames of `indices`, and cut them to `columns`."""
        _, height, width = self.shape
        wanted = range(height)[rows]
        first, last = (min(wanted), max(wanted) + 1) if wanted else (0, 0)
        lines = np.zeros((last - first, width), self.dtype)
        found = np.zeros((len(indices), len(wanted), len(range(width)[columns])), self.dtype)
        for place, index in enumerate(indices):
            if self.here[index] and lines.size:
                offset = (int(index) * height + first) * width * self.dtype.itemsize
                os.preadv(self.file.number, [lines.data], offset)
                found[place] = lines[:: rows.step or 1, columns]
        return found


class Recorder:
    """Writer that records a scan in a folder while the scan is measured; `scan` returns the frames that have arrived so far.

    Raises
    ------
    OutputError : if the disk has no room for the planned frames, or the folder cannot be written.
    """

    def __init__(self, folder: str | Path, plan: Plan) -> None:
        self.folder, self.plan = Path(folder), plan
        n = plan.frames or GROWTH
        check_room(self.folder, n * self._size, f"{plan.name} of {n} frames")
        try:
            self.folder.mkdir(parents=True)
            _write_about(self.folder / ABOUT, plan)
            self._frames, self._arrived = (Handle(self.folder / name, is_new=True) for name in (FRAMES, ARRIVED))
            self.arrived = np.zeros(0, RECORD)
            self._extend(n)
        except OSError as error:
            raise OutputError(f"{plan.name}: cannot be recorded in {self.folder}: {error.strerror or error}.") from error

    @property
    def _size(self) -> int:
        """Size of a frame [bytes]."""
        return self.plan.shape[0] * self.plan.shape[1] * self.plan.dtype.itemsize

    def _extend(self, n: int) -> None:
        """Make places for `n` frames in all."""
        fresh = np.zeros(n - len(self.arrived), RECORD)
        _write_at(self._arrived, fresh, self.arrived.nbytes)
        os.ftruncate(self._frames.number, n * self._size)
        self.arrived = np.concatenate([self.arrived, fresh])

    def add(self, frame: Frame) -> str:
        """Record a frame, and return "" or the reason why it was refused.

        The reasons are "shape", "type", "duplicate" and "beyond the plan".

        Raises
        ------
        OutputError : if the frame cannot be written, such as on a full disk; later frames may be recorded all the same.
        """
        if frame.image.shape != self.plan.shape:
            return "shape"
        if frame.image.dtype != self.plan.dtype:
            return "type"
        if frame.index < 0 or (self.plan.frames is not None and frame.index >= self.plan.frames):
            return "beyond the plan"
        if frame.index < len(self.arrived) and self.arrived["here"][frame.index]:
            return "duplicate"
        stepped = frame.energy if self.plan.steps_energy else frame.rocking_angle
        angle, time = (np.nan if value is None else value for value in (stepped, frame.time))
        record = np.array([(1, angle, time)], RECORD)
        try:
            if frame.index >= len(self.arrived):
                self._extend(GROWTH * (frame.index // GROWTH + 1))
            _write_at(self._frames, frame.image, frame.index * self._size)
            # The frame is marked as arrived only after its counts are written, so that a marked frame is complete.
            _write_at(self._arrived, record, frame.index * RECORD.itemsize)
        except OSError as error:
            words = f"frame {frame.index} cannot be recorded: {error.strerror or error}"
            raise OutputError(f"{words}; free some space, the frames that follow are recorded.") from error
        self.arrived[frame.index] = record[0]
        return ""

    def scan(self) -> Scan:
        """Return a scan of the frames that have arrived; frames that arrive later do not change it."""
        return _scan(self.plan, self._frames, self.arrived.copy())

    def end(self, aborted: str = "") -> None:
        """Mark that no more frames will arrive; `aborted` says why the scan ended early, "" if it did not.

        Raises
        ------
        OutputError : if this cannot be written.
        """
        mark_ended(self.folder, aborted)


def _write_at(file: Handle, values: NDArray[Any], place: int) -> None:
    """Write all of an array at a place in a file; without a map, a full disk is only an error."""
    left = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
    while left:
        written = os.pwrite(file.number, left, place)
        left, place = left[written:], place + written


def mark_ended(folder: str | Path, aborted: str) -> None:
    """Mark the recording in a folder as ended; `aborted` says why the scan ended early, "" if it did not."""
    if not Path(folder).is_dir():
        raise OutputError(f"{folder}: the recording is gone; its folder was removed.")
    ending = {"aborted": aborted, "frames": _count_arrived(folder)}
    with replacing(Path(folder) / ENDED, durable=True) as temporary:
        temporary.write_text(json.dumps(ending))


def _count_arrived(folder: str | Path) -> int:
    """Count the frames of a recording that have arrived."""
    try:
        return int((np.fromfile(Path(folder) / ARRIVED, RECORD)["here"] > 0).sum())
    except OSError as error:
        raise OutputError(f"{folder}: the recording is damaged: {error.strerror or error}.") from error


def can_read(path: str | Path) -> bool:
    """Tell whether the path is a folder that a `Recorder` wrote."""
    return all((Path(path) / name).is_file() for name in (ABOUT, FRAMES, ARRIVED))


def read_ending(path: str | Path) -> dict[str, Any] | None:
    """Return the content of ended.json: why the scan ended early, and the number of frames; None while the scan goes on.

    If the file is damaged, the scan has ended, and counts as whole.

    Raises
    ------
    OutputError : if the recording is damaged.
    """
    folder = Path(path)
    try:
        ending = json.loads((folder / ENDED).read_bytes())
        if isinstance(ending["aborted"], str) and isinstance(ending["frames"], int):
            return {"aborted": ending["aborted"], "frames": ending["frames"]}
    except OSError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return {"aborted": "", "frames": _count_arrived(folder)}


def is_whole(path: str | Path) -> bool:
    """Tell whether all planned frames of a recording have arrived; False if their number is not known.

    Raises
    ------
    FormatError, OutputError : if the recording is damaged.
    """
    return _count_arrived(path) == _read_about(Path(path) / ABOUT).frames


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
        file = Handle(folder / FRAMES)
        held = os.fstat(file.number).st_size
    except OSError as error:
        raise FormatError(f"{folder}: the recording is damaged ({error}).") from error
    needed = len(arrived) * plan.shape[0] * plan.shape[1] * plan.dtype.itemsize
    if held < needed:
        raise FormatError(f"{folder}: the recording is damaged ({FRAMES} holds {held} of {needed} bytes).")
    return _scan(plan, file, arrived)


def _scan(plan: Plan, frames: Handle, arrived: NDArray[Any]) -> Scan:
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
    if plan.steps_energy:
        known["geometry"] = _step_energy(plan, _angles(arrived["angle"][:n], here))
    rocking = plan.rocking_angle if plan.rocking_angle is not None else _angles(arrived["angle"][:n], here)
    provenance = {} if about is None else about.provenance
    told = known.get("geometry")
    if told is not None and rocking is not None and (followed := follow_angles(told, rocking)) is not told:
        known["geometry"] = followed
        provenance = {**provenance, "noticed": (*provenance.get("noticed", ()), FOLLOWED)}
    return Scan(
        frames=RawFrames(frames, (n, *plan.shape), plan.dtype, here),
        name=plan.name,
        arrived=None if here.all() else here,
        rocking_angle=None if plan.steps_energy else rocking,
        provenance=provenance,
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


def _step_energy(plan: Plan, energies: FloatArray | None) -> Geometry:
    """Return the geometry of an energy scan.

    Raises
    ------
    DataError : if the geometry or an energy is not known.
    """
    words = plan.refusal(has_angles=False) or ("" if energies is not None else "frames came without a photon energy")
    if words or energies is None or plan.about is None or plan.about.geometry is None:
        raise DataError(f"{plan.name}: {words}.")
    return replace(plan.about.geometry, energy=energies)


def _write_about(path: Path, plan: Plan) -> None:
    about = plan.about
    with replacing_hdf5(path, durable=True) as file:
        put(file, "name", plan.name)
        put(file, "shape", plan.shape)
        put(file, "dtype", plan.dtype.str)
        put(file, "frames", plan.frames)
        put(file, "rocking_angle", plan.rocking_angle, "rad")
        put(file, "steps_energy", plan.steps_energy or None)
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
    """Return the stored name of a recording without folders, as a file name; `default` where it is no name."""
    name = PurePath(stored).name if isinstance(stored, str) else ""
    return file_name(name, file_name(default))


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
        return Plan(
            about.name,
            (shape[0], shape[1]),
            np.dtype(get(file, "dtype")),
            frames,
            get(file, "rocking_angle"),
            about,
            bool(get(file, "steps_energy")),
        )
