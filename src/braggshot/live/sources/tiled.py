"""Read the runs that Bluesky writes into a Tiled catalogue while they are measured, over HTTP.

The catalogue is asked again and again for what is new. It keeps what it holds, so nothing is lost while nobody asks, or when the
server is started anew. Tiled can also push, but only from servers with a streaming cache, and not the frames of files that grow.
Of what `bluesky.callbacks.tiled_writer.TiledWriter` writes, these parts are read (routes of tiled 0.2 below ``/api/v1``)::

    search/CATALOGUE             the newest runs: start and stop documents
    search/.../RUN               the streams of events of a run: their data keys
    metadata/.../STREAM/KEY      shape and number type of the frames so far
    array/full/.../STREAM/KEY    some of these frames
    table/full/.../STREAM/internal   the position of the motor at each event

The server reads the files of detectors itself. The size of each answer is bounded before it is read.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggshot.live.messages import Dropped, Message, Trouble
from braggshot.live.sources.http_asking import Server, read_address
from braggshot.live.sources.ledger import Ledger, ScanDefaults
from braggshot.live.sources.limits import (
    MAX_BYTES,
    MAX_FRAMES,
    MAX_TEXT,
    UnusableError,
    counts_type,
    image_bytes,
    image_shape,
    json_object,
    whole_number,
)  # fmt: skip
from braggshot.live.sources.reconnecting import keep_connected
from braggshot.live.sources.runs import Images, Start, Stepped, find_images, read_start, read_stepped
from braggshot.volumes import Frame

PAUSE = 0.15
"""Shortest time between two looks at a catalogue [s]; a longer one follows a look that took longer."""
PATIENCE = 5.0
"""Time without a new event after which frames are read whose events did not come [s]."""
TABLE_EVERY = 1.0
"""Shortest time between two readings of all positions, until the planned number of frames is there [s]."""
PAGE, MOST_RUNS = 20, 1000
"""Number of runs in one answer, and of runs that are looked at, from the newest on, after a connection was lost."""
BLOCK_BYTES = 2**23
"""Size of the blocks in which frames are asked for [bytes]; a block holds at least one frame."""
MAX_TABLE = 2**27
"""Longest table of positions that is read [bytes]."""
CHOSEN = (
    "{start: start.{uid: uid, scan_id: scan_id, num_points: num_points, motors: motors}, stop: stop.{exit_status: exit_status}}"
)
"""What is asked of the metadata of a run, in JMESPath."""


@dataclass(frozen=True)
class Options(ScanDefaults):
    """Options of a source ``tiled:http://HOST:PORT/CATALOGUE``, in addition to those of `ScanDefaults`.

    Parameters
    ----------
    detector : data key whose frames are read; empty takes the first that an area detector streams into a file
    motor : data key of the rocking angle or photon energy; empty takes the first motor of the run
    units : unit of the motor, where the catalogue tells none or a wrong one
    """

    detector: str = ""
    motor: str = ""
    units: str = ""


@dataclass
class Run:
    """A run that is followed.

    Parameters
    ----------
    key, start : name in the catalogue, and start document
    stop : its stop document; None while it goes on
    stream, images, stepped : the stream of events that holds the frames, the frames, and what the motor steps; None until known
    shape, dtype, told : shape and number type of a frame, and number of frames that the catalogue tells of
    taken : number of frames that were read
    values : position of the motor at each event, in SI units; NaN where it is not known
    newest, heard : number of events that came, and when something came last, by a monotonic clock [s]
    table_at : when the positions were read last, by a monotonic clock [s]
    is_done : whether it has ended, and all of it was read
    """

    key: str
    start: Start
    stop: dict[str, Any] | None = None
    stream: str = ""
    images: Images | None = None
    stepped: Stepped | None = None
    shape: tuple[int, int] = (0, 0)
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype("u1"))
    told: int = 0
    taken: int = 0
    values: dict[int, float | None] = field(default_factory=dict)
    newest: int = 0
    heard: float = 0.0
    table_at: float = 0.0
    is_done: bool = False

    def hear(self, told: int = 0, newest: int = 0, stop: dict[str, Any] | None = None) -> None:
        """Note what the catalogue tells of the run, and when it told something new."""
        if told > self.told or newest > self.newest or (stop is not None and self.stop is None):
            self.heard = time.monotonic()
        self.told, self.newest, self.stop = max(self.told, told), max(self.newest, newest), self.stop or stop


def connect(target: str, options: Options) -> TiledSource:
    """Return the source for ``tiled:http://HOST:PORT/CATALOGUE``; the key of the server is ``TILED_API_KEY`` of the environment.

    Raises
    ------
    ConfigError : if `target` does not have this form.
    """
    read_address(f"tiled:{target}", target)
    return TiledSource(target, options, os.environ.get("TILED_API_KEY", ""))


class TiledSource:
    """A source of the runs of a catalogue; of those that were there before, only the one that is being measured is taken."""

    def __init__(self, address: str, options: Options, api_key: str = "") -> None:
        self.address, self.options, self._api_key = address, options, api_key

    def messages(self, stop: Event) -> Iterator[Message | None]:
        """Yield messages of scans and frames, and None at least every 0.2 s while none comes; end soon after `stop` is set."""
        ledger, reader = Ledger(self.options), Reader(self.options)
        yield from keep_connected(self.address, partial(self._listen, ledger, reader), stop)

    def _listen(self, ledger: Ledger, reader: Reader, stop: Event) -> Iterator[Message | None]:
        server = Server(self.address, "/api/v1", {"Authorization": f"Apikey {self._api_key}"} if self._api_key else {})
        reader.resume()
        try:
            while not stop.is_set():
                began = time.monotonic()
                for message in reader.look(server, ledger):
                    yield message
                    if stop.is_set():
                        return
                yield from ledger.end_if_silent()
                until = time.monotonic() + max(PAUSE, time.monotonic() - began)
                while time.monotonic() < until and not stop.wait(0.05):
                    yield None
        finally:
            server.close()


class Reader:
    """A reader that follows one run after the other; what it has read it remembers when the connection is lost."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.run: Run | None = None
        self._waiting: deque[Run] = deque()  # runs that began later
        self._known: deque[str] | None = None  # names of runs that are not looked at again; None before the first look

    def resume(self) -> None:
        """Be patient anew: while the server was away, nothing could come."""
        if self.run is not None:
            self.run.heard = time.monotonic()

    def look(self, server: Server, ledger: Ledger) -> Iterator[Message | None]:
        """Ask for what is new, and turn it into messages; `Dropped` tells what cannot be used."""
        self._find_runs(server)
        yield None
        while self.run is not None or self._waiting:
            if self.run is None:
                self.run = self._waiting.popleft()
                self.resume()
            run = self.run
            try:
                yield from self._follow(run, server, ledger)
            except UnusableError as error:  # what is damaged now is damaged later: the run is left out from here on
                words = f"{run.start.name}: left out, {error.detail}" if error.reason == "unit" else error.detail
                yield Trouble(run.start.name, words) if error.reason == "unit" else Dropped(error.reason, words)
                yield from ledger.end(run.key, error.detail)
                self.run = None
                continue
            if not run.is_done:
                return
            status = "the next run began" if run.stop is None else str(run.stop.get("exit_status", "success"))[:40]
            yield from ledger.end(run.key, None if status == "success" else f"the run ended by {status}", run.stop is None)
            self.run = None

    def _find_runs(self, server: Server) -> None:
        """Find the runs that were not there at the last look, and the stop document of the one that is followed."""
        is_first, fresh, offset = self._known is None, deque[Run](), 0
        known = self._known = deque(maxlen=2 * MOST_RUNS) if self._known is None else self._known
        while offset < MOST_RUNS:
            query = {"sort": "-", "page[limit]": PAGE, "page[offset]": offset, "fields": "metadata", "select_metadata": CHOSEN}
            page = read_entries(server.ask("search", server.path, query))
            for key, about in page:
                if self.run is not None and key == self.run.key:
                    self.run.hear(stop=_mapping(about.get("stop")))
                if key not in known:
                    fresh.appendleft(self._make_run(key, about))
            if is_first or len(page) < PAGE or any(key in known for key, _ in page):
                break
            offset += PAGE
        known.extend(run.key for run in fresh)
        self._waiting.extend([fresh[-1]] if is_first and fresh and fresh[-1].stop is None else () if is_first else fresh)

    def _make_run(self, key: str, about: dict[str, Any]) -> Run:
        start = read_start({**(_mapping(about.get("start")) or {}), "uid": key}, self.options.motor)
        return Run(key, start, _mapping(about.get("stop")), heard=time.monotonic())

    def _follow(self, run: Run, server: Server, ledger: Ledger) -> Iterator[Message | None]:
        """Read the new frames of a run; all that are there if it has ended."""
        is_over, is_late = run.stop is not None or bool(self._waiting), time.monotonic() - run.heard > PATIENCE
        if run.images is None:
            self._find_stream(run, server)
        path = f"{server.path}/{run.key}/{run.stream}"
        found = None if run.images is None else server.ask("metadata", f"{path}/{run.images.key}", {"fields": "structure"})
        if found is None or run.images is None:
            run.is_done = is_over
            return
        run.hear(told=read_structure(found, run))
        yield None
        has_positions = run.stepped is None or run.told == run.taken
        planned = 0 if run.start.points is None else run.start.points * run.images.per_event
        is_full = 0 < planned <= run.told  # the last positions come before the stop document does
        if not has_positions and (is_over or is_full or time.monotonic() - run.table_at > TABLE_EVERY):
            has_positions, run.table_at = self._read_positions(run, path, server), time.monotonic()
            yield None
        has_all = (is_over and has_positions) or is_late
        ready = run.told if has_all or run.stepped is None else min(run.told, run.newest * run.images.per_event)
        while run.taken < ready:
            count = min(ready - run.taken, max(1, BLOCK_BYTES // image_bytes(run.shape, run.dtype)))
            block = self._read_block(run, path, count, server)
            if block is None:
                if is_over and is_late:
                    yield Dropped("unreadable", f"frames {run.taken} to {ready - 1} of {run.start.name}")
                    run.is_done = True
                return
            for image in block:
                yield from self._frame(run, image, ledger)
        run.is_done = is_over and has_all

    def _frame(self, run: Run, image: NDArray[Any], ledger: Ledger) -> list[Message]:
        """Tell the ledger of the next frame of a run; the first one begins the scan."""
        assert run.images is not None
        per_event, messages = run.images.per_event, list[Message]()
        if not run.taken:
            planned = None if run.start.points is None else run.start.points * per_event
            messages = ledger.begin(run.key, run.start.name, planned, run.shape)
        frame = Frame(run.taken, image, time=time.time())
        run.taken += 1
        if run.stepped is not None:
            frame = run.stepped.place(frame, run.values.get(frame.index // per_event))
        return messages + ledger.frame(run.key, run.start.name, frame)

    def _find_stream(self, run: Run, server: Server) -> None:
        """Find the stream of events that holds frames; none is there before the first event is described."""
        chosen = {"fields": "metadata", "select_metadata": "{data_keys: data_keys}", "page[limit]": PAGE}
        for name, about in read_entries(server.ask("search", f"{server.path}/{run.key}", chosen)):
            keys = _mapping(about.get("data_keys")) or {}
            if (images := find_images(keys, self.options.detector)) is not None and is_name(images.key):
                run.stepped = read_stepped(keys.get(run.start.motor), run.start.motor, self.options.units)
                run.stream, run.images = name, images
                return

    def _read_positions(self, run: Run, path: str, server: Server) -> bool:
        """Read the positions of the motor, and tell whether they could be; the last one of an event that was measured again counts.

        Servers fail to read some tables while these are written to, and succeed later.
        """
        assert run.stepped is not None
        query = {"format": "json", "column": ["seq_num", run.start.motor]}
        answer = server.ask("table/full", f"{path}/internal", query, MAX_TABLE, missing=(404, 500))
        if answer is None:
            return False
        table = json_object(answer, MAX_TABLE)
        numbers, positions = table.get("seq_num"), table.get(run.start.motor)
        if not isinstance(numbers, list) or not isinstance(positions, list) or len(numbers) != len(positions):
            raise UnusableError("malformed", f"a table of events without seq_num or {run.start.motor[:60]!r}")
        newest = run.newest
        for number, position in zip(numbers[:MAX_FRAMES], positions, strict=False):
            index = whole_number(number, "seq_num", 1, 2 * MAX_FRAMES) - 1
            run.values[index], newest = run.stepped.value(position), max(newest, index + 1)
        run.hear(newest=newest)
        return True

    @staticmethod
    def _read_block(run: Run, path: str, count: int, server: Server) -> NDArray[Any] | None:
        """Read the next frames; None if the server cannot give them, such as where the file lags behind the catalogue."""
        assert run.images is not None
        size = count * image_bytes(run.shape, run.dtype)
        query = {"slice": f"{run.taken}:{run.taken + count}", "format": "application/octet-stream"}
        answer = server.ask("array/full", f"{path}/{run.images.key}", query, max(size, MAX_TEXT), missing=(404, 409, 416, 500))
        if answer is None or len(answer) != size:
            return None
        return np.frombuffer(answer, run.dtype).reshape(count, *run.shape)


def read_entries(answer: bytes | None) -> list[tuple[str, dict[str, Any]]]:
    """Return the name and the chosen metadata of each entry of a container; none if the container is not there.

    Raises
    ------
    UnusableError : for any answer that is no list of entries; no other error is raised.
    """
    found = [] if answer is None else json_object(answer).get("data")
    if not isinstance(found, list):
        raise UnusableError("malformed", "an answer without a list of entries")
    entries = []
    for entry in found[:PAGE]:
        key, attributes = (entry.get("id"), entry.get("attributes")) if isinstance(entry, dict) else (None, None)
        if not isinstance(key, str) or not isinstance(attributes, dict) or not is_name(key):
            raise UnusableError("malformed", "an entry without a name")
        metadata = _mapping(attributes.get("metadata")) or {}
        entries.append((key, _mapping(metadata.get("selected")) or metadata))
    return entries


def is_name(key: str) -> bool:
    """Tell whether a name in the catalogue is one step of a path, and leads nowhere else."""
    return 0 < len(key) <= 200 and "/" not in key and key.strip(".") != ""


def read_structure(answer: bytes, run: Run) -> int:
    """Read shape and number type of the frames of a run into it, and return how many there are.

    Raises
    ------
    UnusableError : for any answer that is no stack of images of counts within bounds; no other error is raised.
    """
    data = _mapping(json_object(answer).get("data")) or {}
    structure = _mapping((_mapping(data.get("attributes")) or {}).get("structure")) or {}
    sides, told = structure.get("shape"), _mapping(structure.get("data_type")) or {}
    if not isinstance(sides, list) or len(sides) not in {3, 4}:
        raise UnusableError("shape", f"{str(sides)[:60]}, expected [frames, rows, columns]")
    counts = [whole_number(side, "shape", 0, MAX_FRAMES) for side in sides[:-2]]
    kind, width = told.get("kind"), whole_number(told.get("itemsize"), "itemsize", 1, 8)
    kinds = {"u": "uint", "i": "int", "f": "float"}
    if not isinstance(kind, str) or kind not in kinds:
        raise UnusableError("type", f"pixels of kind {str(kind)[:20]!r}")
    shape, dtype = image_shape(*sides[-2:]), counts_type(f"{kinds[kind]}{8 * width}")
    image_bytes(shape, dtype)
    if len(counts) == 2 and counts[1] * image_bytes(shape, dtype) > MAX_BYTES:
        raise UnusableError("oversized", f"events of {counts[1]} frames")
    total = int(np.prod(counts, dtype=object))
    if total > MAX_FRAMES:
        raise UnusableError("oversized", f"{total} frames, at most {MAX_FRAMES}")
    run.shape, run.dtype = shape, dtype.newbyteorder(">" if told.get("endianness") == "big" else "<")
    return total


def _mapping(value: Any) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else None
