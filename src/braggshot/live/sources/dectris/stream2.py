"""Read version 2 of the stream of a DECTRIS detector (SIMPLON 1.8 and later), where each message is one CBOR map.

A message is of type start, image or end::

    start   series_id, number_of_images, goniometer {axis: start, increment}, channels, pixel_mask {channel: array}, user_data
    image   series_id, image_id, data {channel: array}, user_data
    end     series_id

An array is an item of tag 40 that holds the shape (rows, columns) and a typed array (tags 64 to 87). The bytes of a typed array may
be compressed. Then they are an item of tag 56500 that holds the name of the compression, the size of one array element [bytes],
and the compressed bytes. The user of a detector can set ``user_data``, which may hold ``scan``, ``frames`` and
``rocking_angle_deg``.

Messages are decoded by `cbor2`. Before that, `check_outline` reads the type and length of every CBOR item. It refuses tags that
the stream does not use, and messages with more than `MAX_TEXT` bytes besides byte strings. So decoding makes only numbers, texts,
lists, maps and copies of the received bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggshot.live.sources.decoding import ImageDecoder
from braggshot.live.sources.dectris.series import AXES, Header, Image, SeriesEnd, make_header, make_image
from braggshot.live.sources.limits import (
    MAX_FRAMES,
    MAX_TEXT,
    UnusableError,
    counts_type,
    image_shape,
    json_object,
    real_number,
    whole_number,
)  # fmt: skip
from braggshot.volumes import BoolArray

ARRAY_TAG, COMPRESSED_TAG = 40, 56500
"""CBOR tags of an array of two dimensions, and of compressed bytes."""
SELF_DESCRIBED = b"\xd9\xd9\xf7"
"""Bytes of the CBOR tag 55799, which may stand before a message to mark it as CBOR."""
TYPED_ARRAY_TAGS = {
    64: "u1", 65: ">u2", 66: ">u4", 67: ">u8", 68: "u1", 69: "<u2", 70: "<u4", 71: "<u8",
    72: "i1", 73: ">i2", 74: ">i4", 75: ">i8", 77: "<i2", 78: "<i4", 79: "<i8",
    80: ">f2", 81: ">f4", 82: ">f8", 84: "<f2", 85: "<f4", 86: "<f8",
}  # fmt: skip
"""CBOR tag of a typed array by RFC 8746 -> numpy type of its elements; floats of 128 bits are not supported."""
DATE_TAGS = (0, 1)
"""CBOR tags of dates; the text or number inside is kept as it is."""
KNOWN_TAGS = frozenset({*DATE_TAGS, ARRAY_TAG, *TYPED_ARRAY_TAGS, COMPRESSED_TAG})
"""All CBOR tags that a message of the stream may hold."""
ALGORITHMS = {"bslz4": "bslz4", "lz4": "lz4 blocks", "zstd": "zstd"}
"""Name of a compression in the stream -> its name in `decoding.ENCODINGS`."""
MAX_DEPTH = 16
"""Largest number of levels of nested items in a CBOR message."""
VERSION_1_NAMES = {
    "number_of_images": "nimages", "image_size_x": "x_pixels_in_detector", "image_size_y": "y_pixels_in_detector",
    "detector_description": "description", "incident_energy": "photon_energy", "incident_wavelength": "wavelength",
    "beam_center_x": "beam_center_x", "beam_center_y": "beam_center_y", "pixel_size_x": "x_pixel_size",
    "pixel_size_y": "y_pixel_size", "saturation_value": "saturation_value",
}  # fmt: skip
"""Field of a start message in version 2 of the stream -> name of the same field in version 1."""


def is_cbor(message: bytes | memoryview) -> bool:
    """Tell whether the first bytes of a message are those of a CBOR map; a JSON text never begins with such bytes."""
    head = bytes(message[:3])
    return head[:1] != b"" and (head[0] >> 5 == 5 or head == SELF_DESCRIBED)


def check_outline(message: bytes) -> None:
    """Check the type and length of every CBOR item of a message, without decoding the message.

    Raises
    ------
    UnusableError : if the message is cut short, holds an unknown tag, or has more than `MAX_TEXT` bytes besides its byte strings.
    """
    place, size, beside_images = 0, len(message), len(message)
    while place < size:
        major, low = message[place] >> 5, message[place] & 31
        width = (1, 2, 4, 8)[low - 24] if 24 <= low < 28 else 0
        if 28 <= low < 31 or place + width >= size:
            raise UnusableError("malformed" if low >= 28 else "truncated", f"no CBOR at byte {place} of {size}")
        value = int.from_bytes(message[place + 1 : place + 1 + width], "big") if width else low
        place += 1 + width
        if major in {2, 3} and low != 31:
            if value > size - place:
                raise UnusableError("truncated", f"{size - place} bytes of {value}")
            place += value
            beside_images -= value if major == 2 else 0
        elif major == 6 and value not in KNOWN_TAGS:
            raise UnusableError("malformed", f"tag {value}")
    if beside_images > MAX_TEXT:
        raise UnusableError("oversized", f"{beside_images} bytes beside the images, at most {MAX_TEXT}")


def read_map(message: bytes | memoryview) -> Mapping[str, Any]:
    """Decode the map of one message.

    Raises
    ------
    UnusableError : if the message holds no map.
    """
    import cbor2

    plain = bytes(message).removeprefix(SELF_DESCRIBED)
    check_outline(plain)
    try:
        fields = cbor2.loads(
            plain, tag_hook=lambda tag, _: (tag.tag, tag.value), max_depth=MAX_DEPTH, allow_duplicate_keys=False,
            strict_hashable_types=True, semantic_decoders={tag: lambda text, _: text for tag in DATE_TAGS},  # dates are not read
        )  # fmt: skip
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        raise UnusableError("malformed", f"not CBOR ({type(error).__name__})") from error
    if not isinstance(fields, Mapping):
        raise UnusableError("malformed", f"CBOR {type(fields).__name__}, expected a map")
    return fields


class CborReader:
    """A reader of version 2 of a DECTRIS stream, in order of arrival; only one thread at a time may use it.

    Parameters
    ----------
    decoder : decoder of the images
    channel : energy threshold whose images are read; empty takes the first threshold of the series
    """

    def __init__(self, decoder: ImageDecoder, channel: str = "") -> None:
        self.decoder, self.channel = decoder, channel
        self._first = ""  # first energy threshold of the series that began last, empty if it is not known

    def read(self, message: bytes | memoryview) -> Header | Image | SeriesEnd:
        """Read one message: the start of a series, an image, or the end of a series.

        Raises
        ------
        UnusableError : for any data that are no message of the stream; no other error is raised.
        """
        fields = read_map(message)
        kind = fields.get("type")
        if not isinstance(kind, str) or kind not in {"start", "image", "end"}:
            raise UnusableError("malformed", f"a message of type {str(kind)[:40]!r}")
        series = whole_number(fields.get("series_id"), "series_id")
        if kind == "image":
            index = whole_number(fields.get("image_id"), "image_id", 0, MAX_FRAMES)
            counts = self._array(_select_channel(fields.get("data"), self.channel or self._first))
            return make_image(series, index, counts, _user_data(fields))
        return self._start(series, fields) if kind == "start" else SeriesEnd(series)

    def _start(self, series: int, fields: Mapping[str, Any]) -> Header:
        """Read the message that starts a series, with the pixel mask of the chosen energy threshold."""
        channels = fields.get("channels")
        self._first = str(channels[0])[:100] if isinstance(channels, list | tuple) and channels else ""
        masks, valid = fields.get("pixel_mask"), None
        if isinstance(masks, Mapping) and masks:
            valid = self._mask(_select_channel(masks, self.channel or self._first))
        return make_header(series, _user_data(fields), _configuration(fields), valid)

    def _mask(self, tagged: Any) -> BoolArray:
        """Return the valid pixels (rows, columns): True where the detector's own pixel mask is 0."""
        return np.asarray(self._array(tagged) == 0)

    def _array(self, tagged: Any) -> NDArray[Any]:
        """Decode a CBOR array into a new numpy array, in the byte order of this machine."""
        sides, typed = _pair(_untag(tagged, ARRAY_TAG))
        rows, columns = _pair(sides)
        type_tag, content = _pair(typed)
        if not isinstance(type_tag, int) or type_tag not in TYPED_ARRAY_TAGS:
            raise UnusableError("type", f"pixels of type {str(type_tag)[:40]}")
        stored_type = np.dtype(TYPED_ARRAY_TAGS[type_tag])
        shape, dtype = image_shape(rows, columns), counts_type(stored_type.name)
        encoding, payload = _unpack_payload(content, dtype)
        counts = self.decoder.decode(payload, encoding, shape, dtype)
        return counts if stored_type.isnative else counts.byteswap()


def _select_channel(arrays: Any, channel: str) -> Any:
    """Return the array of a channel (an energy threshold), or the first array if no channel is named."""
    if not isinstance(arrays, Mapping) or not arrays:
        raise UnusableError("malformed", "no map of channels")
    if channel and channel not in arrays:
        raise UnusableError("channel", f"{channel[:40]!r} is none of {str(list(arrays))[:200]}")
    return arrays[channel] if channel else next(iter(arrays.values()))


def _untag(tagged: Any, tag: int) -> Any:
    """Return the content of a CBOR item; raise if the item does not carry the tag `tag`."""
    if not isinstance(tagged, tuple) or len(tagged) != 2 or tagged[0] != tag:
        raise UnusableError("malformed", f"no array of tag {tag}")
    return tagged[1]


def _pair(value: Any) -> tuple[Any, Any]:
    """Return the two items of a list; raise if the list does not hold exactly two items."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise UnusableError("shape", f"a {type(value).__name__}, expected two items")
    return value[0], value[1]


def _unpack_payload(content: Any, dtype: np.dtype[Any]) -> tuple[str, bytes]:
    """Return the name in `decoding.ENCODINGS` of the encoding of pixel data, and the encoded bytes."""
    if isinstance(content, bytes):
        return "", content
    inside = _untag(content, COMPRESSED_TAG)
    if not isinstance(inside, list | tuple) or len(inside) != 3 or not isinstance(inside[2], bytes):
        raise UnusableError("malformed", "compressed bytes without an algorithm, the size of an element and a payload")
    algorithm, element, payload = inside
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise UnusableError("encoding", f"{str(algorithm)[:40]!r}; known: {', '.join(ALGORITHMS)}, or none")
    if algorithm == "bslz4" and element != dtype.itemsize:
        raise UnusableError("encoding", f"bslz4 of {str(element)[:20]} bytes an element, the pixels have {dtype.itemsize}")
    return ALGORITHMS[algorithm], payload


def _user_data(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the map that the user of the detector appended to a message, as a map or as JSON text; empty if there is none."""
    appended = fields.get("user_data")
    if isinstance(appended, str):
        try:
            return json_object(appended.encode())
        except UnusableError:
            return {}
    return appended if isinstance(appended, Mapping) else {}


def _configuration(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the detector's configuration with its fields renamed as in version 1 of the stream."""
    config = {ours: fields[theirs] for theirs, ours in VERSION_1_NAMES.items() if theirs in fields}
    goniometer = fields.get("goniometer")
    axes: Mapping[str, Any] = goniometer if isinstance(goniometer, Mapping) else {}
    for axis in AXES:
        motion = axes.get(axis)
        if isinstance(motion, Mapping):
            config |= {f"{axis}_{key}": real_number(motion.get(key)) for key in ("start", "increment")}
    return config
