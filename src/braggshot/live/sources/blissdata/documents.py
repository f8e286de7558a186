"""Read what blissdata (protocol 1) keeps in a Redis server about a scan.

These keys are read::

    _SCAN_HISTORY_        stream of all scans, by their keys
    esrf:scan:...         JSON document of a scan: its number, planned points, channels and streams
    esrf:stream:...       a stream; the entry ``index-1`` holds ``len`` points as ``payload``, the last entry seals it

The state of a scan is such a stream (4: closed). So are the positions of an axis, as numbers, and the images of a detector: JSON
objects ``{"last_index_saved": 11}``.

Source: blissdata 2.4.5 (redis_engine/scan.py, streams/event_stream.py, lima/client.py), LGPL; read, not copied.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from braggshot.live.sources.limits import MAX_FRAMES, MAX_TEXT, UnusableError, counts_type, json_object, whole_number
from braggshot.live.sources.redis_asking import Answer, Server
from braggshot.live.sources.runs import Stepped, read_stepped

HISTORY, PROTOCOL, STREAM = "_SCAN_HISTORY_", "_PROTOCOL_VERSION_", "esrf:stream:"
PREPARED, STOPPED, CLOSED = 1, 3, 4
"""States of a scan."""
SEAL = 2**64 - 1
"""Index of the entry that seals a stream."""


@dataclass(frozen=True)
class Saving:
    """The files of a detector: name with a place for the number, dataset, first number, images in a file and in an acquisition."""

    path: str
    dataset: str
    first: int
    per_file: int
    per_acquisition: int

    def place(self, index: int) -> tuple[int, int]:
        """Return the number of the file that holds an image, and the index of the image in it; an acquisition begins a file."""
        acquisition, within = divmod(index, self.per_acquisition) if self.per_acquisition else (0, index)
        file, inside = divmod(within, self.per_file)
        return self.first + acquisition * -(-self.per_acquisition // self.per_file) + file, inside

    def readable(self, saved: int, is_sealed: bool) -> int:
        """Return how many of `saved` images lie in files that are complete."""
        return saved if is_sealed or not saved else saved - 1 - self.place(saved - 1)[1]

    def name(self, number: int) -> str:
        """Return the name of a file by its number."""
        return re.sub(r"%0?(\d?)d", lambda found: str(number).zfill(int(found[1] or 0)), self.path, count=1)


@dataclass
class Run:
    """A scan that is followed.

    Parameters
    ----------
    key, name, planned : key in the server, name, and number of planned frames or None
    states, images, positions : keys of its streams; empty until they are known, or where there are none
    saving, stepped : the files of its images; what the motor steps, None where no positions are published
    values : index of a point -> position of the motor, in SI units
    dtype, newest : number type of the positions, and number of them that came
    readable, taken : number of frames that can be read, and that were read
    heard : when something came last, by a monotonic clock [s]
    is_done : whether it has ended, and all of it was read, or whether it is left out
    """

    key: str
    name: str = ""
    planned: int | None = None
    states: str = ""
    images: str = ""
    positions: str = ""
    saving: Saving | None = None
    stepped: Stepped | None = None
    values: dict[int, float | None] = field(default_factory=dict)
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype("f8"))
    newest: int = 0
    readable: int = 0
    taken: int = 0
    heard: float = field(default_factory=time.monotonic)
    is_done: bool = False


def describe(run: Run, document: dict[str, Any], detector: str = "", motor: str = "", units: str = "") -> None:
    """Read from the document of a scan its name, its files and its motor; `run.saving` stays None where no images are saved.

    Raises
    ------
    UnusableError : if the motor or the files cannot be used; no other error is raised.
    """
    identity, info, streams = (_mapping(document.get(name)) for name in ("id", "info", "data_streams"))
    number, points = identity.get("number"), info.get("npoints")
    whole = number if isinstance(number, int) else 0
    run.name = f"{str(identity.get('dataset') or identity.get('name'))[:60]}_{whole:04d}"
    run.planned = points if isinstance(points, int) and not isinstance(points, bool) and 0 < points <= MAX_FRAMES else None
    for name, stream in streams.items():
        about = _mapping(_mapping(stream).get("info"))
        is_meant = not detector or detector in (name, name.split(":")[0])
        if is_meant and ("lima_info" in about or about.get("plugin") == "lima2"):
            run.images, saving = STREAM + _key(stream), read_saving(about)
            break
    else:
        return
    wanted = motor
    for name, stream in streams.items():
        encoding = _mapping(_mapping(stream).get("encoding"))
        is_meant = wanted in (name, name.split(":")[-1]) if wanted else name.startswith("axis:")
        if is_meant and encoding.get("type") == "numeric" and encoding.get("shape") == []:
            unit = _mapping(_mapping(info.get("channels")).get(name)).get("unit") or _mapping(_mapping(stream).get("info")).get(
                "unit"
            )
            run.positions, run.stepped = STREAM + _key(stream), read_stepped({"units": unit}, name, units)
            run.dtype = read_number_type(encoding.get("dtype_str"))
            break
    run.saving = saving


def read_number_type(told: Any) -> np.dtype[Any]:
    """Return the number type of positions, such as "<f8".

    Raises
    ------
    UnusableError : if it is none.
    """
    if not isinstance(told, str) or not re.fullmatch(r"[<>|=]?[iuf][1248]", told):
        raise UnusableError("type", f"positions of type {str(told)[:20]!r}")
    counts_type(np.dtype(told).name)
    return np.dtype(told)


def read_saving(about: dict[str, Any]) -> Saving:
    """Read where a detector saves its images.

    Raises
    ------
    UnusableError : if they are not saved in HDF5 files, or for numbers out of bounds.
    """
    told = _mapping(about.get("lima_info"))
    path, dataset, kind = (told.get(name) for name in ("file_path", "data_path", "file_format"))
    if not isinstance(path, str) or not isinstance(dataset, str) or "hdf5" not in str(kind).lower():
        raise UnusableError("saving", "its images are not saved by Lima in HDF5 files")
    if len(re.findall(r"%0?\d?d", path)) != 1 or path.count("%") != 1 or len(path) > 4000:
        raise UnusableError("saving", "the name of its files has no place for a number")
    first, per_acquisition = (
        whole_number(told.get(name), name, 0, MAX_FRAMES) for name in ("file_offset", "frame_per_acquisition")
    )
    return Saving(
        path, dataset[:1000], first, whole_number(told.get("frame_per_file"), "frame_per_file", 1, MAX_FRAMES), per_acquisition
    )


def read_document(run: Run, server: Server) -> dict[str, Any]:
    """Return the JSON document of a scan; empty if it was removed."""
    answer = server.ask("JSON.GET", run.key, most=4 * MAX_TEXT)
    return json_object(answer, 4 * MAX_TEXT) if isinstance(answer, bytes) else {}


def read_end(run: Run, server: Server) -> Any:
    """Return why a closed scan ended, as its document tells; "SUCCESS" where it does not."""
    return _mapping(read_document(run, server).get("info")).get("end_reason", "SUCCESS")


def read_state(run: Run, server: Server) -> int:
    """Return the state of a scan; a scan that was removed counts as closed."""
    if not run.states:
        document = read_document(run, server)
        if not document:
            return CLOSED
        run.states = STREAM + _key(document.get("state_stream"))
    newest = read_entries(server.ask("XREVRANGE", run.states, "+", "-", "COUNT", 1))
    state = newest[0][1].get(b"state", b"") if newest else b"4"
    return int(state) if re.fullmatch(rb"\d", state) else 0


def read_saved(run: Run, server: Server) -> tuple[int, bool]:
    """Return how many images are saved, and whether no more will come."""
    newest = read_entries(server.ask("XREVRANGE", run.images, "+", "-", "COUNT", 2))
    is_sealed = bool(newest) and index_of(newest[0][0]) == SEAL
    for name, entry in newest:
        if index_of(name) != SEAL:
            status = json_object(as_bytes(entry.get(b"payload")))
            return whole_number(status.get("last_index_saved", -1), "last_index_saved", -1, MAX_FRAMES) + 1, is_sealed
    return 0, is_sealed


def read_points(run: Run, name: str, entry: dict[bytes, bytes]) -> tuple[int, list[Any]]:
    """Return the index of the first position in an entry, and the positions.

    Raises
    ------
    UnusableError : if the entry holds no positions, or one of too large an index.
    """
    first, payload = index_of(name), as_bytes(entry.get(b"payload"))
    if len(payload) % run.dtype.itemsize:
        raise UnusableError("malformed", f"positions of {run.name} in {len(payload)} bytes")
    points = np.frombuffer(payload, run.dtype)
    if first + len(points) > 2 * MAX_FRAMES:
        raise UnusableError("oversized", f"position {first + len(points)} of {run.name}")
    return first, points.tolist()


def read_entries(answer: Answer) -> list[tuple[str, dict[bytes, bytes]]]:
    """Return the entries of a stream: the name of each, and its fields.

    Raises
    ------
    UnusableError : for any answer that is no list of entries; no other error is raised.
    """
    entries = []
    for entry in as_list(answer):
        name, fields = entry if isinstance(entry, list) and len(entry) == 2 else (None, None)
        if not isinstance(name, bytes) or not re.fullmatch(rb"\d{1,20}-\d{1,20}", name) or not isinstance(fields, list):
            raise UnusableError("malformed", "no entry of a stream")
        if len(fields) % 2 or not all(isinstance(part, bytes) for part in fields):
            raise UnusableError("malformed", "an entry with fields that are none")
        entries.append((name.decode(), dict(zip(fields[::2], fields[1::2], strict=True))))
    return entries


def index_of(name: str) -> int:
    """Return the index of the first point of an entry, by its name."""
    return int(name.split("-")[0])


def _key(stream: Any) -> str:
    key = _mapping(stream).get("pk")
    if not isinstance(key, str):
        raise UnusableError("malformed", "a stream without a key")
    return key[:200]


def as_text(value: Any) -> str:
    """Return bytes as a text."""
    return as_bytes(value)[:400].decode(errors="replace")


def as_bytes(value: Any) -> bytes:
    """Return a value that is bytes; raise `UnusableError` for any other."""
    if not isinstance(value, bytes):
        raise UnusableError("malformed", "an entry without what it should hold")
    return value


def as_list(value: Any) -> list[Any]:
    """Return a value that is a list, or an empty list."""
    return value if isinstance(value, list) else []


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
