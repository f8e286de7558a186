"""Play a scan from a file as if it were being measured now; any file that braggshot reads can be played, at any speed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggshot.errors import ConfigError
from braggshot.io import registry
from braggshot.live.messages import Arrived, Begin, End, Message, Trouble
from braggshot.live.sources.limits import scan_name
from braggshot.volumes import Frame, Scan

BLOCK_BYTES = 2**25
"""Size of the blocks in which frames are read from a file [bytes]; opening the file for every single frame would be too slow."""


@dataclass(frozen=True)
class Options:
    """Options of a source ``replay:FILE``, which plays a scan that was measured before.

    Parameters
    ----------
    rate : frames that are played in a second; 0 plays as fast as frames can be read
    repeat : number of times that the scan is played
    format, scan, dataset : format of the file, scan in the file, and path of its frames; None lets the reader choose
    """

    rate: float = 0.0
    repeat: int = 1
    format: str | None = None
    scan: int | str | None = None
    dataset: str | None = None


def connect(target: str, options: Options) -> ReplaySource:
    """Return the source for ``replay:FILE``.

    Raises
    ------
    FormatError : if no reader or more than one can read the file, or reading fails.
    DataError : if the content cannot be a scan.
    ConfigError : if the format or an option is unknown, the rate is negative, or `repeat` is less than 1.
    """
    given = {"scan": options.scan, "dataset": options.dataset}
    chosen = {name: value for name, value in given.items() if value is not None}
    return ReplaySource(registry.read(target, options.format, **chosen), options.rate, options.repeat)


class ReplaySource:
    """A source that plays a scan `repeat` times at `rate` frames a second; 0 plays as fast as frames can be read.

    It begins when `hold` ends, an iterator that yields None at least every 0.2 s.
    """

    def __init__(self, scan: Scan, rate: float = 0.0, repeat: int = 1, hold: Iterable[None] = ()) -> None:
        if rate < 0 or repeat < 1:
            raise ConfigError(f"rate={rate:g}, repeat={repeat}: give a rate of at least 0 and at least one repeat.")
        self.scan, self.rate, self.repeat, self.hold = scan, rate, repeat, hold

    def messages(self, stop: Event) -> Iterator[Message | None]:
        """Yield messages of the played scans, and None at least every 0.2 s while none is due; end soon after `stop` is set."""
        for _ in self.hold:
            if stop.is_set():
                return
            yield None
        for number in range(1, self.repeat + 1):
            name = scan_name(self.scan.name) + (f"_{number}" if number > 1 else "")
            yield from self._play_once(name, stop)
            if stop.is_set():
                return

    def _play_once(self, name: str, stop: Event) -> Iterator[Message | None]:
        """Yield the messages of one scan: its beginning, each frame when it is due, and its end; None while no frame is due.

        `name` is the name of the scan in these messages.
        """
        frames, rows, columns = self.scan.frames.shape
        angles = self.scan.rocking_angle
        yield Begin(name, frames, (rows, columns), angles, self.scan)
        pace = Pace(self.rate)
        played = images(self.scan)
        while True:
            try:
                found = next(played, None)
            except Exception as error:
                yield Trouble(name, f"its frames cannot be read: {error}")
                yield End(name, "its frames cannot be read")
                return
            if found is None:
                break
            index, image = found
            while pace.is_early(stop):
                yield None
            if stop.is_set():
                yield End(name, "the replay was stopped")
                return
            yield Arrived(name, Frame(index, image, None if angles is None else float(angles[index]), time.time()))
        yield End(name)


class Pace:
    """A clock that makes events wait until they are due, so that on average `rate` events happen in a second; 0 sets no limit."""

    def __init__(self, rate: float) -> None:
        self.period = 1 / rate if rate > 0 else 0.0
        self.due = time.monotonic()

    def is_early(self, stop: Event, longest: float = 0.2) -> bool:
        """Wait for the next event, at most `longest` [s]; return True if the event is not due yet."""
        wait = self.due - time.monotonic()
        if wait > 0 and stop.wait(min(wait, longest)):
            return False
        if wait > longest:
            return True
        self.due += self.period
        return False


def images(scan: Scan) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield every frame of a scan with its index; frames are read in blocks."""
    frames, rows, columns = scan.frames.shape
    per_block = max(1, BLOCK_BYTES // max(1, rows * columns * scan.frames.dtype.itemsize))
    for first in range(0, frames, per_block):
        block = np.asarray(scan.frames[first : first + per_block])
        for offset, image in enumerate(block):
            yield first + offset, image
