"""Decode the images of a stream; an image that is too large is refused before it is decoded."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggshot.io.codecs import Codec, DamagedError, lz4_blocks_decode, lz4_decode, zstd_decode
from braggshot.live.sources.limits import UnusableError, image_bytes

ENCODINGS = ("", "lz4", "lz4 blocks", "bslz4", "blosc", "zstd")
"""Names of the encodings of an image; the empty name stands for an image that is not encoded."""
DIRECT_DECODERS = {"lz4": lz4_decode, "lz4 blocks": lz4_blocks_decode, "zstd": zstd_decode}
"""Name of an encoding -> function that decodes it without HDF5."""
MAX_CODECS = 4
"""Number of codecs that are kept for later images; each decodes images of one encoding, shape and number type."""


class ImageDecoder:
    """A decoder of images that keeps the codecs it used last for later images; only one thread at a time may use it."""

    def __init__(self) -> None:
        self._codecs: dict[tuple[str, tuple[int, int], str], Codec] = {}

    def decode(self, payload: bytes | memoryview, encoding: str, shape: tuple[int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Decode an image into a new array.

        Parameters
        ----------
        payload : bytes of the image as they were received
        encoding : one of `ENCODINGS`
        shape, dtype : shape and number type, already checked by `braggshot.live.sources.limits.image_shape` and `counts_type`

        Raises
        ------
        UnusableError : if the payload is too large, its encoding is unknown, or it holds no image of this shape and type.
        """
        size = image_bytes(shape, dtype)
        if encoding not in ENCODINGS:
            raise UnusableError("encoding", f"{encoding[:40]!r}; known: {', '.join(filter(None, ENCODINGS))}, or none")
        if len(payload) > size + size // 100 + 4096:  # no codec makes an image longer than this
            raise UnusableError("oversized", f"{len(payload)} bytes for an image of {size}")
        if not encoding:
            if len(payload) != size:
                raise UnusableError("truncated", f"{len(payload)} bytes of {size}")
            return np.frombuffer(bytearray(payload), dtype).reshape(shape)
        try:
            if encoding in DIRECT_DECODERS:
                return DIRECT_DECODERS[encoding](payload, shape, dtype)
            return self._codec(encoding, shape, dtype).decode(payload)
        except DamagedError as error:
            raise UnusableError("truncated" if "short" in str(error) else "damaged", str(error)) from error

    def _codec(self, kind: str, shape: tuple[int, int], dtype: np.dtype[Any]) -> Codec:
        """Return the codec for an encoding, shape and number type; make a new codec if none is kept."""
        key = (kind, shape, dtype.name)
        codec = self._codecs.pop(key, None) or Codec(kind, shape, dtype)
        self._codecs[key] = codec  # put last in the dict, so that the codec unused for longest is first and is deleted first
        if len(self._codecs) > MAX_CODECS:
            del self._codecs[next(iter(self._codecs))]
        return codec
