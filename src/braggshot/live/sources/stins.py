"""Receive the stream of the detectors of MAX IV (STINS): ZeroMQ messages, pushed by the program that reads a detector.

The first part of each message is a JSON object. Its ``msg_number`` grows by one from message to message, over all scans::

    {"htype": "header", "msg_number": 374, "filename": ".../scan_000060_eiger.h5"}, and optionally a second JSON object
    {"htype": "image", "msg_number": 375, "frame": 0, "shape": [rows, columns], "type": "uint32", "compression": "bslz4"}, the image
    {"htype": "series_end", "msg_number": 376}

The image is compressed by "bslz4" (bitshuffle and LZ4, as HDF5 has it) or "none". Both JSON objects of a header may hold what a
beamline adds: ``scan``, ``frames``, ``rocking_angle_deg`` (a list); an image may hold ``rocking_angle_deg`` (a number). The number
of images for which a detector was armed (``nimages``) is no plan: at MAX IV it is often far larger than the scan.

Sources: the protocol is described in maxiv-science/streaming-receiver (README.md) and read in maxiv-science/dranspose
(dranspose/data/stream1.py); the detectors of NanoMAX send it (maxiv-science/drp-nanomax, data/eigerseiger-1m-ingester-*.cbors).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from braggshot.live.messages import Dropped, Message
from braggshot.live.sources.decoding import ImageDecoder
from braggshot.live.sources.dectris.series import Header, make_header, make_image
from braggshot.live.sources.ledger import Ledger
from braggshot.live.sources.limits import (
    MAX_FRAMES,
    MAX_PARTS,
    UnusableError,
    appended_object,
    counts_type,
    image_shape,
    json_object,
    whole_number,
)  # fmt: skip
from braggshot.live.sources.pulling import Part, PulledSource, PullOptions, check_address
from braggshot.volumes import Frame

COMPRESSIONS = {"none": "", "bslz4": "bslz4"}
"""Name of a compression in the stream -> name in `decoding.ENCODINGS`."""
MAX_WAITING = 8
"""Number of messages that wait for an earlier one, before that one is given up."""


@dataclass(frozen=True)
class Options(PullOptions):
    """Options of a source ``stins:tcp://HOST:PORT``: those of `PullOptions`."""


@dataclass(frozen=True)
class Numbered:
    """A message of the stream: its number, and the header of a series, an image, or None for the end of a series."""

    number: int
    content: Header | Frame | None


def connect(target: str, options: Options) -> PulledSource:
    """Return the source for ``stins:tcp://HOST:PORT``.

    Raises
    ------
    ConfigError : if `target` does not have the form ``tcp://HOST:PORT``.
    """
    check_address(f"stins:{target}", target, "stins:tcp://HOST:PORT (the port for live processing)")
    return PulledSource(target, options, Reader)


def read_message(parts: Sequence[Part], decoder: ImageDecoder) -> Numbered:
    """Read one multipart message.

    Raises
    ------
    UnusableError : for any data that are no message of this stream; no other error is raised.
    """
    if not 0 < len(parts) <= MAX_PARTS:
        raise UnusableError("malformed", f"{len(parts)} parts")
    first = json_object(parts[0])
    kind, number = first.get("htype"), whole_number(first.get("msg_number"), "msg_number")
    if kind == "image":
        return Numbered(number, _image(first, parts, decoder))
    if kind == "header":
        return Numbered(number, _header(number, {**first, **appended_object(parts, 1)}))
    if kind != "series_end":
        raise UnusableError("malformed", f"a message of type {str(kind)[:40]!r}")
    return Numbered(number, None)


def _image(first: dict[str, Any], parts: Sequence[Part], decoder: ImageDecoder) -> Frame:
    """Read an image."""
    index = whole_number(first.get("frame"), "frame", 0, MAX_FRAMES)
    if len(parts) < 2:
        raise UnusableError("truncated", "an image without its second part")
    sides, compression = first.get("shape"), first.get("compression")
    if not isinstance(sides, list) or len(sides) not in {2, 3} or sides[:-2] not in ([], [1]):
        raise UnusableError("shape", f"{str(sides)[:60]}, expected [rows, columns]")
    if not isinstance(compression, str) or compression not in COMPRESSIONS:
        raise UnusableError("encoding", f"{str(compression)[:40]!r}; known: {', '.join(COMPRESSIONS)}")
    shape, dtype = image_shape(*sides[-2:]), counts_type(first.get("type"))
    return make_image(0, index, decoder.decode(parts[1], COMPRESSIONS[compression], shape, dtype), first).frame


def _header(number: int, fields: dict[str, Any]) -> Header:
    """Make the header of a series; without a name it is called after the file that the detector writes, or after its number."""
    file = fields.get("filename")
    name = PurePosixPath(file.replace("\\", "/")[-1000:]).stem if isinstance(file, str) else ""
    named = fields if isinstance(fields.get("scan"), str) or not name else {**fields, "scan": name}
    config = {key: value for key, value in fields.items() if key not in {"nimages", "ntrigger"}}
    return make_header(number, named, config, None)


class Reader:
    """A reader that puts messages in order, and tells the series apart; only one thread at a time may use it.

    Images and ends carry no name of their series: they belong to the last header whose number is smaller. A message that comes
    before an earlier one waits for it, until `MAX_WAITING` others wait or until nothing comes for a moment.
    """

    def __init__(self) -> None:
        self._decoder = ImageDecoder()
        self._waiting: dict[int, Numbered] = {}
        self._next: int | None = None  # number of the next message; None before the first one
        self._series, self._start, self._end = 0, -1, -1  # the series, and the numbers of its first message and of its end
        self._is_open = False  # whether messages after `_end` belong to the series

    def __call__(self, parts: Sequence[Part] | None, ledger: Ledger) -> list[Message]:
        """Turn a message, or silence, into messages for the live session, or into `Dropped` if it cannot be used."""
        if parts is None:
            return self._release(ledger)
        try:
            message = read_message(parts, self._decoder)
        except UnusableError as error:
            return [Dropped(error.reason, error.detail)]
        messages: list[Message] = []
        number, is_header = message.number, isinstance(message.content, Header)
        if number in self._waiting or (is_header and number == self._start and self._next == number + 1):
            return [Dropped("duplicate", f"message {number}")]
        if is_header and (self._next is None or number < self._next):  # the first series, or the sender began to count anew
            messages = [] if self._next is None else self._release(ledger)
            self._next = number
        if self._next is not None and number < self._next:  # comes again, or was given up
            return self._pass_on(message, ledger)
        self._waiting[number] = message
        while self._next in self._waiting or len(self._waiting) > MAX_WAITING:
            messages += self._take_first(ledger)
        return messages

    def _release(self, ledger: Ledger) -> list[Message]:
        """Give up the messages that others wait for."""
        messages = []
        while self._waiting:
            messages += self._take_first(ledger)
        return messages

    def _take_first(self, ledger: Ledger) -> list[Message]:
        """Pass on the first message that waits; say which messages before it are missing, if they were of the same series."""
        number = min(self._waiting)
        message, missing = self._waiting.pop(number), number - (number if self._next is None else self._next)
        self._next = number + 1
        is_told = missing and self._is_open and not isinstance(message.content, Header)
        told: list[Message] = [Dropped("missing", f"{missing} messages before message {number}")] if is_told else []
        return told + self._pass_on(message, ledger)

    def _pass_on(self, message: Numbered, ledger: Ledger) -> list[Message]:
        """Tell the ledger of a header, an image or an end."""
        number, content = message.number, message.content
        if isinstance(content, Header):
            self._begin_series(number)
            begun = ledger.begin(self._series, content.name, content.frames, None, content.rocking_angle, content.about)
            ledger.plan_energies(content.energy)
            return begun
        if number < self._start:
            return [] if content is None else [Dropped("late", f"frame {content.index} of a series before")]
        if content is None:
            self._is_open, self._end = False, number
            return ledger.end(self._series)
        if not self._is_open and number > self._end:  # an image whose header was lost
            self._begin_series(number)
        return ledger.frame(self._series, f"series_{self._start}", content)

    def _begin_series(self, number: int) -> None:
        self._series, self._start, self._is_open = self._series + 1, number, True
