"""Decode and encode compressed detector images: LZ4, bitshuffle-LZ4, Blosc, Zstandard.

Images arrive over the network, so their bytes are not trusted. HDF5's own filters decode bitshuffle and Blosc, on a file that
exists only in memory. HDF5's filters for LZ4 and Zstandard are not used: the first reads beyond its input, and the second returns
stale memory for a damaged frame. The packages lz4 and zstandard are used instead; they refuse such bytes. Filters trust the lengths
written inside their input. So every length is checked against the input before a filter sees it, and against the expected image
size before memory is allocated.
"""

from __future__ import annotations

import struct
import uuid
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

BSHUF_BLOCK = 8192
"""Default block size of bitshuffle [bytes]."""

LENGTHS, LENGTH = struct.Struct(">QI"), struct.Struct(">I")  # sizes of the image and of a block; length of one compressed block

SMALLEST_BLOCK = 1024
"""Smallest block size of LZ4 that is accepted [bytes]; many thousands of tiny blocks would overload a receiver."""


class DamagedError(ValueError):
    """Error that is raised where compressed bytes are damaged, or do not hold an image of the expected size."""


def bitshuffle_options() -> dict[str, Any]:
    """Return the keyword parameters of ``create_dataset`` for bitshuffle-LZ4."""
    return dict(hdf5plugin.Bitshuffle(cname="lz4"))


class Codec:
    """Compressor and decompressor of images of one shape and type; two threads must not share one codec.

    Parameters
    ----------
    kind : "bslz4" (bitshuffle-LZ4) or "blosc"
    shape : (rows, columns)
    dtype : type of a pixel
    """

    def __init__(self, kind: str, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        options = bitshuffle_options() if kind == "bslz4" else dict(hdf5plugin.Blosc())
        self.kind, self.shape, self.dtype = kind, shape, dtype
        self._file = h5py.File(f"codec-{uuid.uuid4().hex}", "w", driver="core", backing_store=False)
        # two, because a chunk that HDF5 left uncompressed stays marked as such when another is put in its place
        self._in, self._out = (self._file.create_dataset(name, shape, dtype, chunks=shape, **options) for name in ("in", "out"))

    def decode(self, payload: bytes | memoryview) -> NDArray[Any]:
        """Return the image that the compressed bytes hold.

        Raises
        ------
        DamagedError : if the bytes do not hold an image of the codec's shape and type.
        """
        size = self.shape[0] * self.shape[1] * self.dtype.itemsize
        if self.kind == "bslz4":
            payload = _with_header(payload, size, self.dtype.itemsize)
            check_bitshuffle(payload, size, self.dtype.itemsize)
        else:
            check_blosc(payload, size)
        image = np.empty(self.shape, self.dtype)
        try:
            self._in.id.write_direct_chunk((0, 0), bytes(payload))
            self._in.read_direct(image)
        except (OSError, ValueError, RuntimeError) as error:
            raise DamagedError(f"{self.kind}: the decoder refuses it") from error
        return image

    def encode(self, image: NDArray[Any]) -> bytes:
        """Return the compressed bytes of an image; bitshuffle-LZ4 starts with the header that HDF5 and DECTRIS use."""
        self._out[...] = image
        self._out.flush()
        skipped, payload = self._out.id.read_direct_chunk((0, 0))
        return _blosc_copy(payload, self.dtype.itemsize) if skipped else bytes(payload)


def lz4_decode(payload: bytes | memoryview, shape: tuple[int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the image that one LZ4 block without a header holds.

    Raises
    ------
    DamagedError : if the bytes do not hold an image of the expected shape and type.
    """
    import lz4.block

    size = shape[0] * shape[1] * dtype.itemsize
    try:
        flat = lz4.block.decompress(payload, uncompressed_size=size)
    except (lz4.block.LZ4BlockError, ValueError, OverflowError, MemoryError) as error:
        raise DamagedError("lz4: the decoder refuses it") from error
    if len(flat) != size:
        raise DamagedError(f"lz4: {len(flat)} bytes, expected {size}")
    return np.frombuffer(bytearray(flat), dtype).reshape(shape)


def lz4_encode(image: NDArray[Any]) -> bytes:
    """Compress an image to one LZ4 block without a header."""
    import lz4.block

    return lz4.block.compress(np.ascontiguousarray(image).tobytes(), store_size=False)


def lz4_blocks_decode(payload: bytes | memoryview, shape: tuple[int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the image that LZ4 blocks in the format of HDF5's LZ4 filter hold.

    The bytes begin with the size of the image and the size of an uncompressed block. The compressed length of each block stands
    before the block.

    Raises
    ------
    DamagedError : if the bytes do not hold an image of the expected shape and type.
    """
    import lz4.block

    size, view, flat = shape[0] * shape[1] * dtype.itemsize, memoryview(payload), bytearray()
    if len(view) < 12 or struct.unpack_from(">Q", view)[0] != size:
        raise DamagedError("lz4: cut short, or of another image")
    block, place = struct.unpack_from(">I", view, 8)[0], 12
    if block < min(size, SMALLEST_BLOCK):
        raise DamagedError(f"lz4: blocks of {block} bytes")
    while len(flat) < size:
        expected = min(block, size - len(flat))
        length = struct.unpack_from(">I", view, place)[0] if place + 4 <= len(view) else 0
        part, place = view[place + 4 : place + 4 + length], place + 4 + length
        if not length or not expected or place > len(view):
            raise DamagedError("lz4: cut short")
        try:
            # what LZ4 could not shorten was left as it is
            flat += part if length == expected else lz4.block.decompress(part, uncompressed_size=expected)
        except (lz4.block.LZ4BlockError, ValueError, OverflowError, MemoryError) as error:
            raise DamagedError("lz4: the decoder refuses it") from error
    if len(flat) != size or place != len(view):
        raise DamagedError(f"lz4: {len(flat)} bytes, expected {size}")
    return np.frombuffer(flat, dtype).reshape(shape)


def lz4_blocks_encode(image: NDArray[Any]) -> bytes:
    """Compress an image to one LZ4 block, preceded by the header of HDF5's LZ4 filter."""
    raw, packed = np.ascontiguousarray(image).tobytes(), lz4_encode(image)
    packed = packed if len(packed) < len(raw) else raw
    return struct.pack(">QII", len(raw), len(raw), len(packed)) + packed


def zstd_decode(payload: bytes | memoryview, shape: tuple[int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the image that one Zstandard frame holds.

    The frame must state the image's length, so that a damaged frame cannot make the decoder allocate more memory.

    Raises
    ------
    DamagedError : if the bytes do not hold an image of the expected shape and type.
    """
    import zstandard

    size = shape[0] * shape[1] * dtype.itemsize
    try:
        said = zstandard.frame_content_size(payload)
    except zstandard.ZstdError as error:
        raise DamagedError("zstd: cut short, or no frame") from error
    if said != size:
        raise DamagedError("zstd: of another length than its frame says")
    try:
        flat = zstandard.ZstdDecompressor().decompress(payload, allow_extra_data=False)
    except (zstandard.ZstdError, ValueError, MemoryError) as error:
        raise DamagedError(f"zstd: {error}") from error
    return np.frombuffer(bytearray(flat), dtype).reshape(shape)


def zstd_encode(image: NDArray[Any]) -> bytes:
    """Compress an image to one Zstandard frame that states the image's length."""
    import zstandard

    return zstandard.ZstdCompressor().compress(np.ascontiguousarray(image).tobytes())


def _with_header(payload: bytes | memoryview, size: int, itemsize: int) -> bytes:
    """Return bitshuffle bytes with the header that HDF5 expects; areaDetector leaves it away."""
    if len(payload) >= 12 and LENGTHS.unpack_from(payload)[0] == size:
        return bytes(payload)
    return LENGTHS.pack(size, max(BSHUF_BLOCK // itemsize // 8 * 8, 128) * itemsize) + bytes(payload)


def check_bitshuffle(payload: bytes | memoryview, size: int, itemsize: int) -> None:
    """Check that the lengths before the blocks of bitshuffle bytes, LZ4 or Zstandard, fit the number of bytes.

    Raises
    ------
    DamagedError : if the bytes cannot hold an array of `size` bytes, with elements of `itemsize` bytes.
    """
    stated, block = LENGTHS.unpack_from(payload) if len(payload) >= 12 else (0, 0)
    if stated != size:
        raise DamagedError("bitshuffle: cut short, or of another image")
    if not block or block % (8 * itemsize) or block > max(size, 2**20):
        raise DamagedError(f"bitshuffle: blocks of {block} bytes")
    _check_blocks(payload, size // block + (size % block // itemsize >= 8), size % (8 * itemsize), "bitshuffle")


def check_lz4_blocks(payload: bytes | memoryview, size: int) -> None:
    """Check that the lengths before the blocks of HDF5's LZ4 filter fit the number of bytes.

    Raises
    ------
    DamagedError : if the bytes cannot hold `size` bytes.
    """
    stated, block = LENGTHS.unpack_from(payload) if len(payload) >= 12 else (0, 0)
    if stated != size:
        raise DamagedError("lz4: cut short, or of another image")
    if block < min(size, SMALLEST_BLOCK) or block > max(size, 2**30):
        raise DamagedError(f"lz4: blocks of {block} bytes")
    _check_blocks(payload, -(-size // block), 0, "lz4")


def _check_blocks(payload: bytes | memoryview, blocks: int, rest: int, kind: str) -> None:
    """Check that so many blocks, each behind its length, and `rest` bytes fill the bytes behind the header exactly."""
    place, length_at, is_whole = 12, LENGTH.unpack_from, True
    try:
        for _ in range(blocks):
            length = length_at(payload, place)[0]
            place += 4 + length
            is_whole = is_whole and length > 0
    except struct.error as error:
        raise DamagedError(f"{kind}: cut short") from error
    if place > len(payload) or not is_whole:
        raise DamagedError(f"{kind}: cut short")
    if place + rest != len(payload):
        raise DamagedError(f"{kind}: of another length than its blocks")


def check_blosc(payload: bytes | memoryview, size: int) -> None:
    """Check that the header of Blosc bytes states their length and the size of the array.

    Raises
    ------
    DamagedError : if the bytes cannot hold `size` bytes.
    """
    if (
        len(payload) < 16
        or struct.unpack_from("<I", payload, 4)[0] != size
        or struct.unpack_from("<I", payload, 12)[0] != len(payload)
    ):
        raise DamagedError("blosc: of another length than its header says")


def check_zstd(payload: bytes | memoryview, size: int) -> None:
    """Check that the header of one Zstandard frame states the size of the array, and that its blocks fit the number of bytes.

    Raises
    ------
    DamagedError : if the bytes are no frame, or one that states another size or none.
    """
    if len(payload) < 6 or bytes(payload[:4]) != b"\x28\xb5\x2f\xfd":
        raise DamagedError("zstd: cut short, or no frame")
    kind, single = payload[4] >> 6, payload[4] >> 5 & 1
    begin, width = 6 - single + (0, 1, 2, 4)[payload[4] & 3], (1 if single else 0, 2, 4, 8)[kind]
    stated = int.from_bytes(payload[begin : begin + width], "little") + (256 if kind == 1 else 0)
    if stated != size:
        raise DamagedError("zstd: of another length than its frame says")
    place, last = begin + width, False
    while not last:
        head = int.from_bytes(payload[place : place + 3], "little")
        last, place = bool(head & 1), place + 3 + (1 if head >> 1 & 3 == 1 else head >> 3)  # a block of kind 1 repeats one byte
        if place > len(payload):
            raise DamagedError("zstd: cut short")
    if place + 4 * (payload[4] >> 2 & 1) != len(payload):  # a sum may follow
        raise DamagedError("zstd: of another length than its blocks")


def _blosc_copy(raw: bytes, itemsize: int) -> bytes:
    """Put before uncompressed bytes the header of a Blosc frame, which marks them as stored without compression.

    Where compression would not shorten an image, HDF5 stores its plain bytes, without such a header.
    """
    return struct.pack("<4B3I", 2, 1, 2, itemsize, len(raw), len(raw), len(raw) + 16) + bytes(raw)
