"""Receive the documents that Bluesky publishes over ZeroMQ, and read the frames from the HDF5 file that they name.

A message is ``prefix name document``, the document in JSON (``Publisher(..., serializer=...)`` of ``bluesky.callbacks.zmq``; its
default is pickle, which is never read). Of a run these documents are used, by the event model (bluesky/event-model)::

    start            its uid, scan_id, num_points and motors
    descriptor       the first data key that an area detector streams into a file, or the one that the user names
    stream_resource  the HDF5 file and dataset of that data key
    stream_datum     more frames are in the file
    event            the position of the motor at a frame, or at each of them; event_page those of many events
    stop             the end of the run, and whether it failed

A document is only told, not kept: whoever does not listen misses it. Frames stay in the file, and those of a file that is known are
read later. Only files below the folder that the user names are opened, and no link out of them is followed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from numpy.typing import NDArray

from braggshot.errors import ConfigError, FormatError
from braggshot.live.messages import Dropped, Message, Trouble
from braggshot.live.sources.folder.growing_hdf5 import GrowingFile, path_below
from braggshot.live.sources.ledger import Ledger
from braggshot.live.sources.limits import MAX_FRAMES, MAX_TEXT, UnusableError, json_object, whole_number
from braggshot.live.sources.pulling import Part, PulledSource, PullOptions, check_address
from braggshot.live.sources.runs import Images, Start, Stepped, find_images, read_start, read_stepped
from braggshot.volumes import Frame

USED = ("start", "descriptor", "stream_resource", "stream_datum", "event", "event_page", "stop")
"""Names of the documents that are used; others, such as those of other event models, are passed over."""
PATIENCE = 5.0
"""Time without a document after which frames are read whose events did not come [s]."""
MAX_WAITING = 8
"""Number of later events that come before a frame is read whose event did not come."""
MOST_EVENTS = 2 * MAX_FRAMES
"""Largest sequence number of an event."""
MAX_PAGE = 2**26
"""Longest page of events that is read [bytes]."""


@dataclass(frozen=True)
class Options(PullOptions):
    """Options of a source ``bluesky:tcp://HOST:PORT``, in addition to those of `PullOptions`.

    Parameters
    ----------
    files : folder below which the files of detectors lie; files elsewhere are not opened
    detector : data key whose frames are read; empty takes the first that an area detector streams into a file
    motor : data key of the rocking angle or photon energy; empty takes the first motor of the run
    units : unit of the motor, where the run tells none or a wrong one
    """

    files: str = ""
    detector: str = ""
    motor: str = ""
    units: str = ""


@dataclass
class Run:
    """A run: its start document, the key of its frames, its open file, and the positions of the motor at its events.

    Parameters
    ----------
    start : its start document
    images, descriptor : its frames, and identifier of their descriptor; None and empty until it is told
    stepped : what the motor steps; None where events do not tell its positions
    resource, file : identifier of the stream resource of the frames, and its file
    values : index of an event -> position of the motor, in SI units
    before : number of frames in the files before the present one
    heard : when a document of the run came last, by a monotonic clock [s]
    newest : largest index of an event that came
    reading, ahead : what reads the file at present, and a frame that waits for its event
    trouble : why the file could not be read at the last attempt, in words
    blind : number of frames whose position never came
    """

    start: Start
    images: Images | None = None
    descriptor: str = ""
    stepped: Stepped | None = None
    resource: str = ""
    file: GrowingFile | None = None
    values: dict[int, float | None] = field(default_factory=dict)
    before: int = 0
    heard: float = 0.0
    newest: int = -1
    reading: Iterator[tuple[int, NDArray[Any], float | None]] | None = None
    ahead: tuple[int, NDArray[Any]] | None = None
    trouble: str = ""
    blind: int = 0

    @property
    def uid(self) -> str:
        """Identifier of the run."""
        return self.start.uid

    def event_of(self, index: int) -> int:
        """Return the index of the event that a frame belongs to."""
        return index // (1 if self.images is None else self.images.per_event)

    def next_frame(self) -> tuple[int, NDArray[Any]] | None:
        """Return the index and the image of the next frame in the file; None if there is none yet.

        Raises
        ------
        FormatError, UnusableError : as `GrowingFile.frames`.
        """
        if self.ahead is None and self.file is not None:
            self.reading = self.reading or self.file.frames()
            found = next(self.reading, None)
            if found is None:
                self.reading = None
            else:
                self.ahead = self.before + found[0], found[1]
        return self.ahead


def connect(target: str, options: Options) -> PulledSource:
    """Return the source for ``bluesky:tcp://HOST:PORT``.

    Raises
    ------
    ConfigError : if `target` does not have the form ``tcp://HOST:PORT``, or there is no folder of files.
    """
    check_address(f"bluesky:{target}", target, "bluesky:tcp://HOST:PORT (the outgoing port of the proxy, usually 5578)")
    if not options.files or not Path(options.files).is_dir():
        raise ConfigError(f"bluesky:{target}: give the folder of the detector's files, as ?files=/data; found {options.files!r}.")
    return PulledSource(target, options, lambda: Reader(options), kind="SUB")


def read_document(parts: Sequence[Part]) -> tuple[str, dict[str, Any]]:
    """Return the name of a document, and the document.

    Raises
    ------
    UnusableError : for any data that are no document in JSON; no other error is raised.
    """
    if len(parts) != 1:
        raise UnusableError("malformed", f"{len(parts)} parts, expected one")
    words = bytes(parts[0]).split(b" ", 2)
    if len(words) != 3:
        raise UnusableError("malformed", "expected a prefix, a name and a document")
    name = words[1][:40].decode(errors="replace")
    return name, json_object(words[2], MAX_PAGE if name == "event_page" else MAX_TEXT) if name in USED else {}


class Reader:
    """A reader that follows one run at a time; only one thread at a time may use it."""

    def __init__(self, options: Options) -> None:
        self.options, self._root = options, Path(options.files).resolve()
        self._run: Run | None = None
        self._is_missed = False  # whether it was told that the start of the present run was not heard

    def __call__(self, parts: Sequence[Part] | None, ledger: Ledger) -> list[Message]:
        """Turn a document, or silence, into messages for the live session, or into `Dropped` if it cannot be used."""
        run = self._run
        if parts is None:
            is_late = run is not None and time.monotonic() - run.heard > PATIENCE
            return [] if run is None else self._take_frames(run, ledger, is_last=is_late)
        try:
            name, document = read_document(parts)
            if name == "start":
                return self._start(document, ledger)
            if run is None or name not in USED:
                return self._miss(name)
            run.heard = time.monotonic()
            used = {"descriptor": self._descriptor, "stream_resource": self._resource, "stop": self._stop}
            used |= {"event": self._event, "event_page": self._page}
            return used.get(name, self._datum)(run, document, ledger)
        except UnusableError as error:
            return [Dropped(error.reason, error.detail)]

    def _start(self, document: dict[str, Any], ledger: Ledger) -> list[Message]:
        """Begin a run; what the file of the run before still holds is read."""
        start = read_start(document, self.options.motor)
        messages = [] if self._run is None else self._close(self._run, ledger)
        self._run, self._is_missed = Run(start, heard=time.monotonic()), False
        return messages

    def _miss(self, name: str) -> list[Message]:
        """Tell once that documents come of a run whose start was not heard."""
        if self._is_missed or name not in USED:
            return []
        self._is_missed = True
        return [Trouble("bluesky", "a run goes on whose start was not heard: its frames are not taken")]

    def _descriptor(self, run: Run, document: dict[str, Any], ledger: Ledger) -> list[Message]:
        """Begin the scan if the stream holds frames of an area detector; a run of a motor that cannot be used is left out."""
        keys, uid = document.get("data_keys"), document.get("uid")
        if document.get("run_start") != run.uid or run.descriptor or not isinstance(keys, dict) or not isinstance(uid, str):
            return []
        images = find_images(keys, self.options.detector)
        if images is None:
            return []
        try:
            run.stepped = read_stepped(keys.get(run.start.motor), run.start.motor, self.options.units)
        except UnusableError as error:
            run.descriptor = uid  # what follows of the run is passed over
            return [Trouble(run.start.name, f"left out: {error.detail}")]
        run.images, run.descriptor = images, uid
        return ledger.begin(run.uid, run.start.name, run.start.points and run.start.points * images.per_event)

    def _resource(self, run: Run, document: dict[str, Any], ledger: Ledger) -> list[Message]:
        """Open the file of the frames; the rest of the file before it is read first."""
        if run.images is None or document.get("data_key") != run.images.key or document.get("run_start", run.uid) != run.uid:
            return []
        told, uri, uid = document.get("parameters"), document.get("uri"), document.get("uid")
        name = told.get("dataset", told.get("path")) if isinstance(told, dict) else None
        if not isinstance(uri, str) or not isinstance(name, str) or not isinstance(uid, str):
            raise UnusableError("malformed", "a stream resource without uri, dataset or uid")
        if uid == run.resource:
            return []
        path = self._path(uri)
        messages = self._leave_file(run, ledger)
        run.before += 0 if run.file is None else run.file.taken
        run.resource, run.file = uid, GrowingFile(path, name)
        return messages

    def _path(self, uri: str) -> Path:
        """Return the path that a URI names, if it lies below the folder of files."""
        try:
            parsed = urlsplit(uri[:4000])
        except ValueError:
            parsed = urlsplit("")
        if parsed.scheme != "file":
            raise UnusableError("link", f"{uri[:200]!r} names no file below {self._root}")
        return path_below(self._root, unquote(parsed.path))

    def _datum(self, run: Run, document: dict[str, Any], ledger: Ledger) -> list[Message]:
        """Read new frames."""
        return self._take_frames(run, ledger) if document.get("stream_resource") == run.resource else []

    def _event(self, run: Run, document: dict[str, Any], ledger: Ledger) -> list[Message]:
        """Keep the position of the motor at an event, and read new frames."""
        if document.get("descriptor") != run.descriptor:
            return []
        data = document.get("data")
        self._keep(run, document.get("seq_num"), data.get(run.start.motor) if isinstance(data, dict) else None)
        return self._take_frames(run, ledger)

    def _page(self, run: Run, document: dict[str, Any], ledger: Ledger) -> list[Message]:
        """Keep the positions of the motor at the events of a page, and read new frames."""
        if document.get("descriptor") != run.descriptor:
            return []
        numbers, data = document.get("seq_num"), document.get("data")
        positions = data.get(run.start.motor) if isinstance(data, dict) else None
        if not isinstance(numbers, list) or (run.stepped is not None and not isinstance(positions, list)):
            raise UnusableError("malformed", "a page of events without seq_num or the position of the motor")
        for number, position in zip(numbers, positions if isinstance(positions, list) else [None] * len(numbers), strict=False):
            self._keep(run, number, position)
        return self._take_frames(run, ledger)

    @staticmethod
    def _keep(run: Run, number: Any, position: Any) -> None:
        """Keep the position of the motor at one event."""
        if run.stepped is not None:
            index = whole_number(number, "seq_num", 1, MOST_EVENTS) - 1
            if (value := run.stepped.value(position)) is not None:
                run.values[index] = value
            run.newest = max(run.newest, index)

    def _stop(self, run: Run, document: dict[str, Any], ledger: Ledger) -> list[Message]:
        """End the run."""
        if document.get("run_start") != run.uid:
            return []
        status, self._run = document.get("exit_status", "success"), None
        messages = self._leave_file(run, ledger)
        why = "" if status == "success" else f"the run ended by {str(status)[:40]}"
        return messages + ledger.end(run.uid, why or None)

    def _close(self, run: Run, ledger: Ledger) -> list[Message]:
        """End a run whose stop document never came."""
        return self._leave_file(run, ledger) + ledger.end(run.uid, next_began=True)

    def _take_frames(self, run: Run, ledger: Ledger, is_last: bool = False) -> list[Message]:
        """Read the frames that were written since, with `is_last` also those whose events did not come."""
        messages: list[Message] = []
        if run.file is None:
            return messages
        try:
            while (found := run.next_frame()) is not None:
                index, image = found
                event, stepped = run.event_of(index), run.stepped
                is_told = stepped is None or run.values.get(event) is not None
                if not is_told and not is_last and run.newest < event + MAX_WAITING:
                    break
                run.ahead, frame = None, Frame(index, image, time=time.time())
                run.blind += not is_told
                frame = frame if stepped is None else stepped.place(frame, run.values.get(event))
                messages += ledger.frame(run.uid, run.start.name, frame)
        except UnusableError as error:
            messages.append(Dropped(error.reason, error.detail))
            run.file.close()
            run.file, run.reading = None, None
        except FormatError as error:
            run.reading, run.trouble = None, str(error)  # it may be readable later
        else:
            run.trouble = ""
        return messages

    def _leave_file(self, run: Run, ledger: Ledger) -> list[Message]:
        """Read the rest of the file, and close it."""
        messages = self._take_frames(run, ledger, is_last=True)
        if run.file is None:
            return messages
        run.file.close()
        if run.blind:
            said = f"{run.blind} frames came without the position of {run.start.motor[:60]!r}, whose documents were lost"
            messages.append(Trouble(run.start.name, f"{said}: its frames count as evenly spaced", is_loss=False))
            run.blind = 0
        return [*messages, *([Dropped("unreadable", run.trouble)] if run.trouble else [])]
