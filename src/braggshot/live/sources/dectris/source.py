"""Read the stream of a DECTRIS detector (SIMPLON stream): ZeroMQ messages, pushed by the detector.

The messages of version 1 are read here::

    dheader-1.0      configuration (JSON) and, with header_detail "all", flat field, pixel mask, count rate table; appendix
    dimage-1.0       dimage_d-1.0 (shape, type, encoding), the image, times; appendix
    dseries_end-1.0

The user of a detector can set the appendix. The appendix is read if it is a JSON object. With the header it may hold ``scan``,
``frames`` and ``rocking_angle_deg`` (a list), with an image ``rocking_angle_deg`` (a number). If it holds no angles, the angles
are computed from the goniometer axis that turns, as the detector's configuration describes it. Version 2 of the stream is read by
`braggshot.live.sources.dectris.stream2`; the version is recognised for each message.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from braggshot.live.messages import Dropped, Message
from braggshot.live.sources.decoding import ImageDecoder
from braggshot.live.sources.dectris.series import Header, Image, SeriesEnd, make_header, make_image
from braggshot.live.sources.dectris.stream2 import CborReader, is_cbor
from braggshot.live.sources.ledger import Ledger
from braggshot.live.sources.limits import (
    MAX_FRAMES,
    MAX_PARTS,
    UnusableError,
    appended_object,
    counts_type,
    image_bytes,
    image_shape,
    json_object,
    whole_number,
)  # fmt: skip
from braggshot.live.sources.pulling import Part, PulledSource, PullOptions, check_address
from braggshot.volumes import BoolArray

PARTS = {"none": 1, "basic": 2, "all": 8}
"""Number of parts of a header message before its appendix, for each value of the detector's setting header_detail."""


@dataclass(frozen=True)
class Options(PullOptions):
    """Options of a source ``zmq:tcp://HOST:PORT``, in addition to those of `PullOptions`.

    Parameters
    ----------
    channel : energy threshold whose images are read, if the detector has several, such as ``threshold_2``; empty takes the first
    """

    channel: str = ""


def read_message(parts: Sequence[Part], decoder: ImageDecoder) -> Header | Image | SeriesEnd:
    """Read one multipart message of version 1.

    Raises
    ------
    UnusableError : for any data that are no message of version 1; no other error is raised.
    """
    if not 0 < len(parts) <= MAX_PARTS:
        raise UnusableError("malformed", f"{len(parts)} parts")
    first = json_object(parts[0])
    kind = str(first.get("htype"))[:40].partition("-")[0]
    if kind not in {"dheader", "dimage", "dseries_end"}:
        raise UnusableError("malformed", f"a message of type {kind!r}")
    series = whole_number(first.get("series"), "series")
    if kind == "dimage":
        return _image(series, first, parts, decoder)
    return _header(series, first, parts) if kind == "dheader" else SeriesEnd(series)


def _image(series: int, first: dict[str, Any], parts: Sequence[Part], decoder: ImageDecoder) -> Image:
    """Read an image and its appendix."""
    index = whole_number(first.get("frame"), "frame", 0, MAX_FRAMES)
    if len(parts) < 3:
        raise UnusableError("truncated", f"an image of {len(parts)} parts")
    described = json_object(parts[1])
    sides = described.get("shape")
    if not isinstance(sides, list) or len(sides) not in {2, 3} or sides[2:] not in ([], [1]):
        raise UnusableError("shape", f"{str(sides)[:60]}, expected [columns, rows]")
    shape, dtype = image_shape(sides[1], sides[0]), counts_type(described.get("type"))
    encoding, is_big_endian = _encoding(described.get("encoding"), dtype)
    counts = decoder.decode(parts[2], encoding, shape, dtype)
    return make_image(series, index, counts.byteswap() if is_big_endian else counts, appended_object(parts, 4))


def _encoding(text: Any, dtype: np.dtype[Any]) -> tuple[str, bool]:
    """Return the name in `decoding.ENCODINGS` of an encoding such as "bs32-lz4<", and whether its bytes are big-endian."""
    match = re.fullmatch(r"(?:bs(8|16|32|64)-?)?(lz4)?([<>])", text) if isinstance(text, str) and len(text) < 40 else None
    if match is None or (match[1] and (not match[2] or int(match[1]) != 8 * dtype.itemsize)):
        raise UnusableError("encoding", f"{str(text)[:40]!r} of {dtype}")
    return ("bslz4" if match[1] else match[2] or ""), match[3] == ">"


def _header(series: int, first: dict[str, Any], parts: Sequence[Part]) -> Header:
    """Read the configuration, the pixel mask and the appendix of a header."""
    detail = first.get("header_detail")
    before = PARTS.get(detail, 1) if isinstance(detail, str) else 1
    config = json_object(parts[1]) if before > 1 and len(parts) > 1 else {}
    user_data = appended_object(parts, before)
    valid = _pixel_mask(parts[4], parts[5]) if before == 8 and len(parts) >= 8 else None
    return make_header(series, user_data, config, valid)


def _pixel_mask(described: Part, payload: Part) -> BoolArray:
    """Return the valid pixels (rows, columns): True where the detector's own pixel mask is 0."""
    fields = json_object(described)
    sides = fields.get("shape")
    if not isinstance(sides, list) or len(sides) != 2:
        raise UnusableError("shape", "a pixel mask without a shape")
    shape, dtype = image_shape(sides[1], sides[0]), counts_type(fields.get("type"))
    if len(payload) != image_bytes(shape, dtype):
        raise UnusableError("truncated", f"a pixel mask of {len(payload)} bytes")
    return np.frombuffer(payload, dtype).reshape(shape) == 0


def connect(target: str, options: Options) -> PulledSource:
    """Return the source for ``zmq:tcp://HOST:PORT``.

    Raises
    ------
    ConfigError : if `target` does not have the form ``tcp://HOST:PORT``.
    """
    import cbor2  # noqa: F401  missing libraries are reported when a source is opened
    import zstandard  # noqa: F401

    check_address(f"zmq:{target}", target, "zmq:tcp://HOST:PORT (usually port 9999, or 31001 for version 2)")
    return PulledSource(target, options, lambda: partial(_read, Reader(options.channel)))


def _read(reader: Reader, parts: Sequence[Part] | None, ledger: Ledger) -> list[Message]:
    """Turn a message into messages for the live session; make none of silence."""
    return [] if parts is None else to_messages(parts, ledger, reader)


class Reader:
    """A reader of the messages of a DECTRIS stream, of version 1 or 2; only one thread at a time may use it."""

    def __init__(self, channel: str = "") -> None:
        self._decoder = ImageDecoder()
        self._cbor = CborReader(self._decoder, channel)

    def read(self, parts: Sequence[Part]) -> Header | Image | SeriesEnd:
        """Read a message of either version of the stream; raise `UnusableError` for any other data."""
        if len(parts) == 1 and is_cbor(parts[0]):
            return self._cbor.read(parts[0])
        return read_message(parts, self._decoder)


def to_messages(parts: Sequence[Part], ledger: Ledger, reader: Reader) -> list[Message]:
    """Turn a message of the detector into messages for the live session, or into `Dropped` if it cannot be used."""
    try:
        content = reader.read(parts)
    except UnusableError as error:
        return [Dropped(error.reason, error.detail)]
    if isinstance(content, Header):
        valid = None if content.about is None else content.about.valid
        shape = None if valid is None else (valid.shape[0], valid.shape[1])  # images must have the shape of the mask
        begun = ledger.begin(content.series, content.name, content.frames, shape, content.rocking_angle, content.about)
        ledger.plan_energies(content.energy)
        return begun
    if isinstance(content, SeriesEnd):
        return ledger.end(content.series)
    return ledger.frame(content.series, f"series_{content.series}", content.frame)
