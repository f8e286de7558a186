"""Receive images of an EPICS areaDetector: NTNDArray over PV Access.

Images compressed by areaDetector with lz4, bslz4 or blosc are decoded, jpeg images are not. The attributes of an image may hold
its scan, index, rocking angle and number of planned frames, if the detector is set up to send them. Otherwise the counter
``uniqueId`` numbers the frames, and a scan begins when the scan before is over, or when the counter starts again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggshot.errors import ConfigError
from braggshot.live.messages import Dropped, Message
from braggshot.live.sources.decoding import ImageDecoder
from braggshot.live.sources.ledger import Ledger, ScanDefaults
from braggshot.live.sources.limits import (
    ELECTRON_VOLT,
    MAX_FRAMES,
    UnusableError,
    counts_type,
    image_shape,
    real_number,
    whole_number,
)
from braggshot.live.sources.reconnecting import keep_connected
from braggshot.volumes import Frame

SCALAR_TYPES = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64")
"""Number types of pixels; PV Access gives the type of a compressed image by its place in this list, counted from 1."""
SEARCHES = (0.5, 5.0)
"""Time after a lost connection at which the channel is searched anew, and longest time between two searches, which doubles [s].

The library itself waits for 10 s where it knows the server by its address.
"""
MAX_ATTRIBUTES = 1000
"""Largest number of attributes of an image that are read."""


@dataclass(frozen=True)
class Options(ScanDefaults):
    """Options of a source ``pva:CHANNEL``, in addition to those of `ScanDefaults`.

    Parameters
    ----------
    address : HOST:PORT of the server; None searches for the server as the EPICS_PVA_* environment variables say
    queue : number of images that may wait until this program reads them; when more come, the oldest are lost
    scan_attribute, index_attribute : names of the attributes that hold the name of the scan, and the index of the frame, from 0
    angle_attribute : name of the attribute that holds the rocking angle [deg]
    frames_attribute : name of the attribute that holds the number of planned frames
    energy_attribute : name of the attribute that holds the photon energy of an energy scan [eV]; other scans must not send it
    """

    address: str | None = None
    queue: int = 256
    scan_attribute: str = "ScanId"
    index_attribute: str = "FrameIndex"
    angle_attribute: str = "RockingAngle"
    frames_attribute: str = "FramesPlanned"
    energy_attribute: str = "ScanEnergy"


@dataclass(frozen=True)
class Update:
    """A decoded image of the channel; each field after `image` is None if the detector does not send it."""

    unique_id: int
    image: NDArray[Any]
    scan: str | None
    index: int | None
    angle: float | None
    frames: int | None
    time: float | None
    energy: float | None = None


def read_update(fields: Mapping[str, Any], decoder: ImageDecoder, options: Options) -> Update:
    """Read an image and its attributes from `fields`, the plain values of a PV Access structure.

    Raises
    ------
    UnusableError : for anything that is no image of counts; no other error is raised.
    """
    unique_id = whole_number(fields.get("uniqueId"), "uniqueId", -(2**31))
    sides = fields.get("dimension")
    if not isinstance(sides, Sequence) or len(sides) != 2:
        raise UnusableError("shape", "not two dimensions")
    shape, value, codec = image_shape(sides[1], sides[0]), fields.get("value"), fields.get("codec")
    if not isinstance(value, np.ndarray) or value.ndim != 1 or not isinstance(codec, str):
        raise UnusableError("malformed", f"an image that is a {type(value).__name__}")
    code = fields.get("parameters")
    dtype = counts_type(value.dtype.name if not codec else _scalar_type(code))
    image = decoder.decode(np.ascontiguousarray(value).view(np.uint8).data, codec, shape, dtype)
    attributes = _attributes(fields.get("attribute"))
    scan, energy = attributes.get(options.scan_attribute), real_number(attributes.get(options.energy_attribute))
    angle = real_number(attributes.get(options.angle_attribute))
    return Update(
        unique_id,
        image,
        str(scan)[:200] if isinstance(scan, str | int) and str(scan) else None,
        _parse_count(attributes.get(options.index_attribute), 0),
        None if angle is None else float(np.deg2rad(angle)),
        _parse_count(attributes.get(options.frames_attribute), 1),
        real_number(fields.get("time")),
        None if energy is None else energy * ELECTRON_VOLT,
    )


def _scalar_type(code: Any) -> str:
    """Return the name of a number type from its code in PV Access."""
    number = whole_number(code, "codec.parameters")
    if not 1 <= number <= len(SCALAR_TYPES):
        raise UnusableError("type", f"compressed pixels of type {number}")
    return SCALAR_TYPES[number - 1]


def _attributes(pairs: Any) -> dict[str, Any]:
    """Return the attributes of an image by name; an attribute whose name is no text is left out."""
    if not isinstance(pairs, Sequence):
        return {}
    return {pair[0]: pair[1] for pair in pairs[:MAX_ATTRIBUTES] if isinstance(pair, tuple) and isinstance(pair[0], str)}


def _parse_count(value: Any, lowest: int) -> int | None:
    """Return a whole number, even if a driver sends it as a float or as text; None for other values."""
    if isinstance(value, str) and len(value) < 20 and value.strip().isdecimal():
        value = int(value)
    number = real_number(value)
    return int(number) if number is not None and number == int(number) and lowest <= number <= MAX_FRAMES else None


def fields_of(value: Any) -> dict[str, Any]:
    """Return those fields of a PV Access structure that describe an image, as plain Python values.

    Raises
    ------
    UnusableError : if the structure is no NTNDArray, the EPICS type of an image.
    """
    try:
        stamp = value.timeStamp
        return {
            "uniqueId": value.uniqueId,
            "value": value.value,
            "codec": value.codec.name,
            "parameters": value.codec.parameters,
            "dimension": [side.size for side in value.dimension],
            "attribute": [(item.name, item.value) for item in value.attribute[:MAX_ATTRIBUTES]],
            "time": stamp.secondsPastEpoch + 1e-9 * stamp.nanoseconds,
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UnusableError("malformed", f"no NTNDArray ({error})") from error


def number_and_time(value: Any) -> tuple[int, ...] | None:
    """Return the number of an image and when it was made [s, ns]; None for a structure without an image."""
    try:
        stamp = value.timeStamp
        return None if value.value is None else (value.uniqueId, stamp.secondsPastEpoch, stamp.nanoseconds)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


class Numbering:
    """A counter that assigns each image a scan and an index in the scan, even if the image's attributes name neither."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.run, self.first, self.highest = 0, 0, -1

    def messages(self, update: Update, channel: str) -> list[Message]:
        """Return the messages for an image; a scan without a name gets the name of the channel."""
        ledger, (key, index) = self.ledger, self.place(update)
        # A first frame after the end belongs to another scan, whose identifier was not changed.
        is_known = ledger.is_known(key) and not (index == 0 and key in ledger.ended and ledger.open is None)
        begun = [] if is_known else ledger.begin(key, update.scan or channel, update.frames)
        frame = Frame(index, update.image, update.angle, update.time or time.time(), update.energy)
        return [*begun, *ledger.frame(key, key, frame)]

    def place(self, update: Update) -> tuple[str, int]:
        """Return the identifier of the scan that an image belongs to, and the index of the image in that scan."""
        if update.scan is not None and update.index is not None:
            return update.scan, update.index
        count = update.unique_id if update.index is None else update.index
        key, planned = update.scan or f"scan_{self.run}", update.frames or self.ledger.defaults.frames
        is_new = not self.ledger.is_known(key) or (update.scan is None and self.ledger.open is None)
        if update.scan is None and not is_new:
            restarted = count < self.first or (update.index == 0 and self.highest > 1)
            is_new = restarted or (planned is not None and count - self.first >= planned)
        if is_new:
            self.run, self.first, self.highest = self.run + 1, count if update.index is None else 0, -1
            key = update.scan or f"scan_{self.run}"
        self.highest = max(self.highest, count - self.first)
        return key, count - self.first


def connect(target: str, options: Options) -> PvaSource:
    """Return the source for ``pva:CHANNEL``.

    Raises
    ------
    ConfigError : if the queue is shorter than 2 images.
    """
    import p4p  # noqa: F401  missing libraries are reported when a source is opened

    if options.queue < 2:
        raise ConfigError(f"pva:{target}: queue={options.queue}, give at least 2 images.")
    return PvaSource(target, options)


class PvaSource:
    """A source of the images of an EPICS channel.

    `connected` is set when the channel delivers its first image. This image may be old and is left out. After a lost connection it
    is taken if it is new and a scan is open.
    """

    def __init__(self, channel: str, options: Options) -> None:
        self.channel, self.options, self.connected = channel, options, Event()
        self._newest: tuple[int, ...] | None = None  # number and time of the image that came last

    def messages(self, stop: Event) -> Iterator[Message | None]:
        """Yield messages of scans and frames, and None at least every 0.2 s while none comes; end soon after `stop` is set."""
        numbering = Numbering(Ledger(self.options))
        yield from keep_connected(self.channel, partial(self._listen, numbering), stop)

    def _listen(self, numbering: Numbering, stop: Event) -> Iterator[Message | None]:
        """Subscribe to the channel, and again when it is away; yield messages until `stop` is set."""
        from p4p.client.raw import Context

        # request of the largest queue of images that wait for this client; the default of PV Access is short
        request, wake, decoder = f"record[queueSize={self.options.queue}]", Event(), ImageDecoder()
        patience = math.inf
        while not stop.is_set():
            self.connected.clear()
            context = Context("pva", conf=_server_configuration(self.options.address), nt=False)
            subscription = context.monitor(self.channel, wake.set, request)
            try:
                was_there = yield from self._take(subscription, wake, numbering, decoder, patience, stop)
                patience = SEARCHES[0] if was_there else min(2 * patience, SEARCHES[1])
            finally:
                subscription.close()
                context.close()

    def _take(
        self, subscription: Any, wake: Event, numbering: Numbering, decoder: ImageDecoder, patience: float, stop: Event
    ) -> Generator[Message | None, None, bool]:
        """Yield messages until `stop` is set, or the channel is away for `patience`; the value tells whether it was there.

        A channel that was there is waited for as long as the first of `SEARCHES`.
        """
        until, was_there = time.monotonic() + patience, False
        while not stop.is_set() and time.monotonic() < until:
            wake.clear()
            update = subscription.pop()
            if update is None:
                if not wake.wait(0.15):
                    yield from numbering.ledger.end_if_silent()
                    yield None
            elif isinstance(update, Exception):
                self.connected.clear()
                until = time.monotonic() + SEARCHES[0]
            else:
                is_new = self.connected.is_set() or self._is_missed(update, numbering.ledger)
                self._newest, until = number_and_time(update), math.inf
                self.connected.set()
                was_there = True
                if is_new:
                    yield from self._to_messages(update, numbering, decoder)
        return was_there

    def _is_missed(self, update: Any, ledger: Ledger) -> bool:
        """Tell whether the image that a channel holds after a connection came to it while the connection was lost."""
        known = number_and_time(update)
        return None not in (ledger.open, self._newest, known) and known != self._newest

    def _to_messages(self, update: Any, numbering: Numbering, decoder: ImageDecoder) -> list[Message]:
        """Turn an update of the channel into messages, or into `Dropped` if the update cannot be used."""
        try:
            return numbering.messages(read_update(fields_of(update), decoder, self.options), self.channel)
        except UnusableError as error:
            return [Dropped(error.reason, error.detail)]


def _server_configuration(address: str | None) -> dict[str, str] | None:
    """Return settings that search the channel only at `address`; without an address, return None for the default search."""
    if address is None:
        return None
    return {"EPICS_PVA_NAME_SERVERS": address, "EPICS_PVA_ADDR_LIST": "", "EPICS_PVA_AUTO_ADDR_LIST": "NO"}
