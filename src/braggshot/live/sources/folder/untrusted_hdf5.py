"""Read frames and numbers from an HDF5 file that a faulty or hostile program may have written.

No link to another file is followed. Where each frame is compressed separately, the lengths inside the compressed data are checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from braggshot.errors import FormatError
from braggshot.io.chunks import read_region
from braggshot.live.sources.decoding import ImageDecoder
from braggshot.live.sources.folder.growing_hdf5 import BLOCK_BYTES, stack_image_bytes
from braggshot.live.sources.limits import MAX_FRAMES, UnusableError, counts_type, image_shape
from braggshot.volumes import BoolArray

BITSHUFFLE_ID, LZ4_ID = 32008, 32004
"""HDF5's registered numbers of the compression filters bitshuffle and LZ4."""
BITSHUFFLE_WITH_LZ4 = 2
"""Number that stands for the compressor LZ4 in the parameters of the bitshuffle filter."""


def own_group(file: h5py.File, name: str) -> h5py.Group | None:
    """Return the group at an HDF5 path if only hard links lead to it; None otherwise."""
    node: Any = file
    for part in filter(None, name.split("/")):
        if not isinstance(node, h5py.Group) or not isinstance(node.get(part, getlink=True), h5py.HardLink):
            return None
        node = node[part]
    return node if isinstance(node, h5py.Group) else None


def own_dataset(file: h5py.File, name: str) -> h5py.Dataset | None:
    """Return the dataset at an HDF5 path if only hard links lead to it; None otherwise.

    Raises
    ------
    UnusableError : if the dataset keeps its numbers in other files.
    """
    parent, _, name_in_group = name.strip("/").rpartition("/")
    group = own_group(file, parent)
    if group is None or not isinstance(group.get(name_in_group, getlink=True), h5py.HardLink):
        return None
    data = group[name_in_group]
    if not isinstance(data, h5py.Dataset):
        return None
    if data.is_virtual or data.external:
        raise UnusableError("link", f"{name} is kept in other files")
    return data


def integer_in(file: h5py.File, name: str) -> int | None:
    """Return the integer in a dataset; None if the dataset is missing or does not hold a single integer."""
    data = own_dataset(file, name)
    if data is None or data.size != 1 or data.dtype.kind not in "iu":
        return None
    return int(np.ravel(data[()])[0])


def integer_attribute(data: h5py.Dataset, name: str) -> int | None:
    """Return the image number in an attribute; None if the attribute holds no single integer, or it is negative or too large."""
    if name not in data.attrs:
        return None
    info = data.attrs.get_id(name)
    if info.dtype.kind not in "iu" or int(np.prod(info.shape, dtype=object)) != 1:
        return None
    value = int(np.ravel(data.attrs[name])[0])
    return value if 0 <= value <= 2 * MAX_FRAMES else None


def written_frames(data: h5py.Dataset) -> BoolArray:
    """Return an array (frames,): True for each frame that was written completely, False for a frame that is still missing."""
    frames = int(data.shape[0])
    if data.chunks is None or data.chunks[0] != 1:
        return np.ones(frames, dtype=bool)
    chunks = np.zeros(frames, dtype=np.int64)

    def count(stored: Any) -> None:
        """Count one more stored chunk for the frame that contains it; HDF5 calls this for every stored chunk."""
        chunks[stored.chunk_offset[0]] += 1

    data.id.chunk_iter(count)
    return chunks == int(np.prod([-(-side // chunk) for side, chunk in zip(data.shape[1:], data.chunks[1:], strict=True)]))


def read_frames(
    data: h5py.Dataset, indices: list[int], decoder: ImageDecoder
) -> Iterator[tuple[int, NDArray[Any] | UnusableError]]:
    """Yield frames of a dataset, each with its index; in place of a damaged image an error is yielded.

    Where frames share a chunk, a damaged chunk costs all of them.
    """
    encoding = _chunk_encoding(data)
    if encoding:
        yield from ((index, _read_chunk(data, index, encoding, decoder)) for index in indices)
        return
    per_block = max(1, BLOCK_BYTES // stack_image_bytes(data))
    for run in np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1) if indices else ():
        for first in range(int(run[0]), int(run[-1]) + 1, per_block):
            last = min(first + per_block, int(run[-1]) + 1)
            try:
                block = list(_read_block(data, first, last))
            except FormatError:  # some frame of them is damaged
                block = [_read_alone(data, index) for index in range(first, last)]
            yield from ((first + offset, image) for offset, image in enumerate(block))


def _read_block(data: h5py.Dataset, first: int, last: int) -> NDArray[Any]:
    block: NDArray[Any] = read_region(data, (slice(first, last), slice(None), slice(None)))
    return block


def _read_alone(data: h5py.Dataset, index: int) -> NDArray[Any] | UnusableError:
    try:
        return _read_block(data, index, index + 1)[0]
    except FormatError as error:
        return UnusableError("damaged", str(error))


def _chunk_encoding(data: h5py.Dataset) -> str:
    """Return the name of a dataset's compression if each frame is compressed separately; empty if HDF5 has to decompress it."""
    creation = data.id.get_create_plist()
    if data.chunks != (1, *data.shape[1:]) or creation.get_nfilters() != 1:
        return ""
    filter_id, _, parameters, _ = creation.get_filter(0)
    if filter_id == BITSHUFFLE_ID and len(parameters) > 4 and parameters[4] == BITSHUFFLE_WITH_LZ4:
        return "bslz4"
    return "lz4 blocks" if filter_id == LZ4_ID else ""


def _read_chunk(data: h5py.Dataset, index: int, encoding: str, decoder: ImageDecoder) -> NDArray[Any] | UnusableError:
    """Decode a frame from its chunk without HDF5's filters, because they do not check the lengths written in the chunk."""
    try:
        skipped, payload = data.id.read_direct_chunk((index, 0, 0))
        shape, dtype = image_shape(*data.shape[1:]), counts_type(data.dtype.name)
        counts = decoder.decode(payload, "" if skipped & 1 else encoding, shape, dtype)
    except UnusableError as error:
        return error
    return counts if data.dtype.isnative else counts.byteswap()
