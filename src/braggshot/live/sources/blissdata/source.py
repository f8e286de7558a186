"""Read the scans that BLISS publishes in a Redis server (blissdata), and their frames from the files that Lima saves.

The server keeps what is published for a while, so nothing is lost when the connection is. Lima may still write to the file that
holds the last image, so a file is read once an image is saved in the next one, or once the stream of images is sealed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Event

from braggshot.errors import ConfigError, FormatError
from braggshot.live.messages import Dropped, Message, Trouble
from braggshot.live.sources.blissdata.documents import (
    CLOSED,
    HISTORY,
    PREPARED,
    PROTOCOL,
    SEAL,
    STOPPED,
    Run,
    as_list,
    as_text,
    describe,
    read_document,
    read_end,
    read_entries,
    read_points,
    read_saved,
    read_state,
)  # fmt: skip
from braggshot.live.sources.folder.growing_hdf5 import GrowingFile, path_below
from braggshot.live.sources.ledger import Ledger, ScanDefaults
from braggshot.live.sources.limits import MAX_FRAMES, UnusableError
from braggshot.live.sources.reconnecting import keep_connected
from braggshot.live.sources.redis_asking import Server, read_address
from braggshot.volumes import Frame

PAUSE, PATIENCE = 0.1, 5.0
"""Time between two looks at the server, and time after which frames are read whose positions did not come [s]."""
ENTRIES = 256
"""Number of entries that are asked for at once."""


@dataclass(frozen=True)
class Options(ScanDefaults):
    """Options of a source ``blissdata:redis://HOST:PORT``, in addition to those of `ScanDefaults`.

    Parameters
    ----------
    files : folder below which Lima saves; files elsewhere are not opened
    detector : name of the detector or of its stream; empty takes the first whose images are saved
    motor : name of the axis or of the stream of its positions; empty takes the first axis of the scan
    units : unit of the motor, where the scan tells none or a wrong one
    """

    files: str = ""
    detector: str = ""
    motor: str = ""
    units: str = ""


def connect(target: str, options: Options) -> BlissdataSource:
    """Return the source for ``blissdata:redis://HOST:PORT``.

    Raises
    ------
    ConfigError : if `target` does not have this form, or there is no folder of files.
    """
    host, port = read_address(f"blissdata:{target}", target)
    if not options.files or not Path(options.files).is_dir():
        raise ConfigError(f"blissdata:{target}: give the folder of the detector's files, as ?files=/data; found {options.files!r}.")
    return BlissdataSource(host, port, options)


class BlissdataSource:
    """A source of the scans of a server; of those that were there before, only one that is being measured is taken."""

    def __init__(self, host: str, port: int, options: Options) -> None:
        self.host, self.port, self.options = host, port, options

    def messages(self, stop: Event) -> Iterator[Message | None]:
        """Yield messages of scans and frames, and None at least every 0.2 s while none comes; end soon after `stop` is set."""
        ledger, reader = Ledger(self.options), Reader(self.options)
        yield from keep_connected(f"redis://{self.host}:{self.port}", partial(self._listen, ledger, reader), stop)

    def _listen(self, ledger: Ledger, reader: Reader, stop: Event) -> Iterator[Message | None]:
        with closing(Server(self.host, self.port)) as server:
            check_protocol(server)
            reader.resume()
            while not stop.is_set():
                for message in reader.look(server, ledger):
                    yield message
                    if stop.is_set():
                        return
                yield from ledger.end_if_silent()
                yield None
                stop.wait(PAUSE)


def check_protocol(server: Server) -> None:
    """Refuse a server that does not hold what is read here.

    Raises
    ------
    ConnectionError : if it does not.
    """
    version = server.ask("GET", PROTOCOL, most=64)
    if version != b"1":
        told = "no blissdata" if version is None else f"blissdata of protocol {str(version)[:20]}"
        raise ConnectionError(f"the server holds {told}, expected protocol 1")


class Reader:
    """A reader that follows one scan after the other; what it has read it remembers when the connection is lost."""

    def __init__(self, options: Options) -> None:
        self.options, self._root = options, Path(options.files).resolve()
        self._run: Run | None = None
        self._waiting: deque[Run] = deque()
        self._last = ""  # entry of the history that was seen last; empty before the first look

    def resume(self) -> None:
        """Be patient anew: while the server was away, nothing could come."""
        if self._run is not None:
            self._run.heard = time.monotonic()

    def look(self, server: Server, ledger: Ledger) -> Iterator[Message | None]:
        """Ask for what is new, and turn it into messages; `Dropped` tells what cannot be used."""
        self._find_runs(server)
        while self._run is not None or self._waiting:
            if self._run is None:
                self._run = self._waiting.popleft()
                self.resume()
            run = self._run
            try:
                yield from self._follow(run, server, ledger)
            except UnusableError as error:
                if error.reason != "unit":
                    yield Dropped(error.reason, error.detail)
                yield from ledger.end(run.key, error.detail)
                yield Trouble(run.name, f"left out: {error.detail}")
                run.is_done = True
            if not run.is_done:
                return
            self._run = None

    def _find_runs(self, server: Server) -> None:
        """Find the scans that began since the last look, and at the first look the last one, if it goes on."""
        if not self._last:
            newest = read_entries(server.ask("XREVRANGE", HISTORY, "+", "-", "COUNT", 1))
            self._last = newest[0][0] if newest else "0-0"
            for _, entry in newest:
                run = Run(as_text(entry.get(b"key")))
                if read_state(run, server) < STOPPED:
                    self._waiting.append(run)
        while True:
            answer = server.ask("XREAD", "COUNT", ENTRIES, "STREAMS", HISTORY, self._last)
            found = read_entries(answer[0][1]) if isinstance(answer, list) and answer and len(as_list(answer[0])) == 2 else []
            self._waiting.extend(Run(as_text(entry.get(b"key"))) for _, entry in found)
            self._last = found[-1][0] if found else self._last
            if len(found) < ENTRIES:
                return

    def _follow(self, run: Run, server: Server, ledger: Ledger) -> Iterator[Message | None]:
        """Read the new frames of a scan; all that are there if it has ended."""
        state = read_state(run, server)
        is_over, is_late = state >= CLOSED or bool(self._waiting), time.monotonic() - run.heard > PATIENCE
        if run.saving is None and state >= PREPARED:
            describe(run, read_document(run, server), self.options.detector, self.options.motor, self.options.units)
        if run.saving is None:
            run.is_done = is_over or state >= PREPARED
            return
        saved, is_sealed = read_saved(run, server)
        before = run.newest, run.readable
        run.readable = readable = run.saving.readable(saved, is_sealed or is_over)
        self._read_positions(run, server)
        if before != (run.newest, readable):
            run.heard = time.monotonic()
        yield None
        ready = readable if is_over or is_late or run.stepped is None else min(readable, run.newest)
        while run.taken < min(ready, MAX_FRAMES):
            try:
                yield from self._read_file(run, ready, ledger)
            except FormatError as error:  # the file may come late over a network
                if is_over and is_late:
                    yield Dropped("unreadable", str(error))
                    break
                return
        if is_over:
            run.is_done = True
            reason = read_end(run, server) if state >= CLOSED else None
            why = "" if reason == "SUCCESS" else f"the scan ended by {str(reason)[:40]}"
            yield from ledger.end(run.key, None if reason is None else why or None, reason is None)

    def _read_file(self, run: Run, ready: int, ledger: Ledger) -> Iterator[Message]:
        """Read the next frames of a scan that lie in one file."""
        assert run.saving is not None
        number, inside = run.saving.place(run.taken)
        file = GrowingFile(path_below(self._root, run.saving.name(number)), run.saving.dataset)
        file.taken, before = inside, run.taken
        with closing(file):
            count = min(ready - run.taken, run.saving.per_file - inside)
            for _, image, _ in islice(file.frames(), count):
                begun = [] if run.taken else ledger.begin(run.key, run.name, run.planned, (image.shape[0], image.shape[1]))
                frame = Frame(run.taken, image, time=time.time())
                run.taken += 1
                if run.stepped is not None:
                    frame = run.stepped.place(frame, run.values.get(frame.index))
                yield from [*begun, *ledger.frame(run.key, run.name, frame)]
        if run.taken == before:
            raise FormatError(f"{file.path}: holds no image {inside} yet.")

    @staticmethod
    def _read_positions(run: Run, server: Server) -> None:
        """Read the positions of the motor that were published since."""
        while run.stepped is not None:
            entries = read_entries(server.ask("XRANGE", run.positions, run.newest, SEAL - 1, "COUNT", ENTRIES))
            for name, entry in entries:
                first, points = read_points(run, name, entry)
                for offset, point in enumerate(points):
                    run.values[first + offset] = run.stepped.value(point)
                run.newest = max(run.newest, first + len(points))
            if len(entries) < ENTRIES:
                return
