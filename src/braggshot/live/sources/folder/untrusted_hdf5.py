"""Frames and numbers that an HDF5 file holds itself: no link is followed, and the lengths in compressed frames are not believed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from braggshot.live.sources.decoding import ImageDecoder
from braggshot.live.sources.folder.growing_hdf5 import BLOCK, stack_image_bytes
from braggshot.live.sources.limits import MAX_FRAMES, Unusable, counts_type, image_shape
from braggshot.volumes import BoolArray

BITSHUFFLE, LZ4 = 32008, 32004
BITSHUFFLE_LZ4 = 2
"""HDF5's numbers of filters, and bitshuffle's of its compressor."""


def own_group(file: h5py.File, name: str) -> h5py.Group | None:
    """A group that this very file holds, reached by hard links only; None where there is none."""
    node: Any = file
    for part in filter(None, name.split("/")):
        if not isinstance(node, h5py.Group) or not isinstance(node.get(part, getlink=True), h5py.HardLink):
            return None
        node = node[part]
    return node if isinstance(node, h5py.Group) else None


def own(file: h5py.File, name: str) -> h5py.Dataset | None:
    """A dataset that this very file holds, reached by hard links only; None where there is none.

    Raises
    ------
    Unusable : if its numbers are kept in other files.
    """
    place, _, last = name.strip("/").rpartition("/")
    group = own_group(file, place)
    if group is None or not isinstance(group.get(last, getlink=True), h5py.HardLink):
        return None
    data = group[last]
    if not isinstance(data, h5py.Dataset):
        return None
    if data.is_virtual or data.external:
        raise Unusable("link", f"{name} is kept in other files")
    return data


def number_in(file: h5py.File, name: str) -> int | None:
    """One integer of a file."""
    data = own(file, name)
    if data is None or data.size != 1 or data.dtype.kind not in "iu":
        return None
    return int(np.ravel(data[()])[0])


def attribute(data: h5py.Dataset, name: str) -> int | None:
    """One integer among the attributes of a dataset, if it can be the number of an image."""
    if name not in data.attrs:
        return None
    described = data.attrs.get_id(name)
    if described.dtype.kind not in "iu" or int(np.prod(described.shape, dtype=object)) != 1:
        return None
    value = int(np.ravel(data.attrs[name])[0])
    return value if 0 <= value <= 2 * MAX_FRAMES else None


def present(data: h5py.Dataset) -> BoolArray:
    """(frames,) True where all of a frame was written; what is only allotted in the shape was not."""
    frames = int(data.shape[0])
    if data.chunks is None or data.chunks[0] != 1:
        return np.ones(frames, dtype=bool)
    tiles = np.zeros(frames, dtype=np.int64)

    def count(stored: Any) -> None:
        tiles[stored.chunk_offset[0]] += 1

    data.id.chunk_iter(count)
    return tiles == int(np.prod([-(-side // chunk) for side, chunk in zip(data.shape[1:], data.chunks[1:], strict=True)]))


def images(data: h5py.Dataset, wanted: list[int], decoder: ImageDecoder) -> Iterator[tuple[int, NDArray[Any] | Unusable]]:
    """Frames of a dataset, by their index in it; where each is compressed by itself, a damaged one is said and costs no other."""
    encoding = _encoding(data)
    if encoding:
        yield from ((index, _image(data, index, encoding, decoder)) for index in wanted)
        return
    together = max(1, BLOCK // stack_image_bytes(data))
    for run in np.split(wanted, np.flatnonzero(np.diff(wanted) != 1) + 1) if wanted else ():
        for first in range(int(run[0]), int(run[-1]) + 1, together):
            block = data[first : min(first + together, int(run[-1]) + 1)]
            yield from ((first + offset, image) for offset, image in enumerate(block))


def _encoding(data: h5py.Dataset) -> str:
    """What decodes a chunk that is one frame; empty where that is for HDF5 to do."""
    made = data.id.get_create_plist()
    if data.chunks != (1, *data.shape[1:]) or made.get_nfilters() != 1:
        return ""
    kind, _, said, _ = made.get_filter(0)
    if kind == BITSHUFFLE and len(said) > 4 and said[4] == BITSHUFFLE_LZ4:
        return "bslz4"
    return "lz4 blocks" if kind == LZ4 else ""


def _image(data: h5py.Dataset, index: int, encoding: str, decoder: ImageDecoder) -> NDArray[Any] | Unusable:
    """A frame from its own chunk: HDF5's filters trust the lengths that are written in it."""
    try:
        skipped, payload = data.id.read_direct_chunk((index, 0, 0))
        shape, dtype = image_shape(*data.shape[1:]), counts_type(data.dtype.name)
        counts = decoder.decode(payload, "" if skipped & 1 else encoding, shape, dtype)
    except Unusable as error:
        return error
    return counts if data.dtype.isnative else counts.byteswap()
