"""Find which frames of an HDF5 dataset were written, without reading a frame.

HDF5 reads the fill value, mostly 0, where nothing was written and where a source file is missing, and does not say so. Here the
places of the storage are looked at: chunks, the files of a virtual dataset, and external files of raw values.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from braggshot.errors import FormatError, list_numbers
from braggshot.io.files import dataset, open_hdf5, raw_file_beside
from braggshot.volumes import BoolArray

# HDF5's numbers of the filters whose decoders end the program where the size that a damaged chunk states is wrong.
FLETCHER32, LZ4, BITSHUFFLE = 3, 32004, 32008


@dataclass(frozen=True)
class Written:
    """Frames of one dataset that were written.

    Parameters
    ----------
    arrived : (n,) False for a frame that was never written, or whose source file is missing
    noticed : what was found, in words; empty where every frame is there
    sources : other files that hold the frames
    """

    arrived: BoolArray
    noticed: tuple[str, ...] = ()
    sources: tuple[Path, ...] = ()


def find_written(part: h5py.Dataset, axis: int = 0) -> Written:
    """Find the frames of a dataset that were written; `axis` is the axis of the frames.

    Raises
    ------
    FormatError : if the files of all frames are missing; the message names the first one.
    """
    if part.is_virtual:
        return _find_in_sources(part, axis)
    if part.external:
        return _find_in_raw_files(part, axis)
    if part.chunks is not None:
        return _find_chunks(part, axis)
    # A dataset without storage was announced and never written; small ones are kept in the file's header and have no offset.
    layout = part.id.get_create_plist().get_layout()
    empty = layout == h5py.h5d.CONTIGUOUS and part.id.get_offset() is None and part.size
    return _judge(part, np.full(part.shape[axis], not empty))


def _judge(part: h5py.Dataset, arrived: BoolArray) -> Written:
    """Say which frames of the dataset were never written."""
    lost = np.flatnonzero(~arrived)
    if not len(lost):
        return Written(arrived)
    count = f"{len(lost)} of {len(arrived)} frames of {part.name.strip('/')}"
    return Written(arrived, (f"{count} were never written ({list_numbers(lost)}): left as masked planes.",))


def _find_chunks(part: h5py.Dataset, axis: int) -> Written:
    """Look for the chunks of each frame; a frame is there if all of its chunks are.

    Where more frames have some of their chunks than all of them, the writer left out chunks without counts, and these frames are
    there too.
    """
    along = [-(-size // chunk) for size, chunk in zip(part.shape, part.chunks, strict=True)]
    expected = int(np.prod(along, dtype=object))
    if part.id.get_num_chunks() >= expected:
        return Written(np.ones(part.shape[axis], bool))
    written = np.zeros(along[axis], np.intp)

    def count(chunk: h5py.h5d.StoreInfo) -> None:
        written[chunk.chunk_offset[axis] // part.chunks[axis]] += 1

    part.id.chunk_iter(count)
    whole, some = written == expected // along[axis], written > 0
    is_sparse = int((some & ~whole).sum()) > int(whole.sum())
    arrived = np.repeat(some if is_sparse else whole, part.chunks[axis])[: part.shape[axis]]
    found = _judge(part, arrived)
    if not is_sparse:
        return found
    sparse = f"{part.name.strip('/')} lacks parts of most frames: taken as parts without counts."
    return Written(arrived, (*found.noticed, sparse))


def _find_in_sources(part: h5py.Dataset, axis: int) -> Written:
    """Look for the source files of a virtual dataset, and for the frames in them."""
    folder, size = Path(part.file.filename).parent, part.shape[axis]
    arrived, mapped, lost = np.ones(size, bool), np.zeros(size, bool), np.zeros(size, bool)
    sources: dict[str, Path] = {}
    missing: dict[str, Path] = {}
    for source in part.virtual_sources():
        name, frames = source.file_name, _selected(source.vspace, axis, size)
        mapped[frames] = True
        if "%" in name:  # HDF5 counts the files of a name such as part_%b.h5 itself
            continue
        place = next((place for place in (folder / name, folder / Path(name).name) if place.exists()), folder / name)
        there = _find_in_source(part.file, None if name == "." else place, source, axis, len(frames))
        if there is None:
            lost[frames], missing[name] = True, place
        else:
            arrived[frames] &= there
        if name != "." and place.exists():
            sources[name] = place
    here = arrived & mapped & ~lost
    found = _judge(part, here | lost)
    if not missing:
        return Written(here, found.noticed, tuple(sources.values()))
    first, state = next(iter(missing.values())), "missing or damaged" if missing.keys() & sources.keys() else "missing"
    spread = f"{part.name.strip('/')} is spread over {len({**sources, **missing})} files"
    said = f"{spread} and {len(missing)} of them are {state}, first {first}"
    if not here.any():
        raise FormatError(f"{part.file.filename}: {said}; copy them to where the links point.")
    planes = f"{said}: its frames {list_numbers(np.flatnonzero(lost))} are left as masked planes."
    return Written(here, (planes, *found.noticed), tuple(sources.values()))


def _find_in_source(file: h5py.File, place: Path | None, source: Any, axis: int, number: int) -> BoolArray | None:
    """Tell which of the `number` frames that one source fills are there; None if the source cannot be opened.

    `place` is the file of the source; None is `file` itself.
    """
    try:
        if place is None:
            return _frames_of(dataset(file, source.dset_name), source.src_space, axis, number)
        with open_hdf5(place) as other:
            return _frames_of(dataset(other, source.dset_name), source.src_space, axis, number)
    except FormatError:
        return None


def _frames_of(data: h5py.Dataset, space: h5py.h5s.SpaceID, axis: int, number: int) -> BoolArray:
    """Tell which frames of a source are there, in the order in which the virtual dataset takes them."""
    arrived = find_written(data, axis if data.ndim > axis else 0).arrived
    if number == 1 and data.ndim == 2:  # one image
        return np.array([arrived.all()])
    frames = _selected(space, axis, len(arrived))
    if len(frames) < number:  # one frame of the source may fill several, or the source is shorter than the virtual dataset says
        frames = np.arange(number)
    inside = frames[:number] < len(arrived)
    return inside & arrived[np.minimum(frames[:number], len(arrived) - 1)]


def _selected(space: h5py.h5s.SpaceID, axis: int, size: int) -> NDArray[np.intp]:
    """List the indices along an axis that a selection of HDF5 covers."""
    kind = space.get_select_type()
    if kind == h5py.h5s.SEL_ALL or not space.shape:
        return np.arange(size)
    if kind == h5py.h5s.SEL_HYPERSLABS and space.is_regular_hyperslab():
        start, stride, count, block = (values[axis] for values in space.get_regular_hyperslab())
        starts = start + stride * np.arange(min(count, -(-max(size - start, 0) // stride)))
        indices = (starts[:, None] + np.arange(min(block, size))).ravel()
    else:
        low, high = space.get_select_bounds()
        indices = np.arange(low[axis], high[axis] + 1)
    return indices


def _find_in_raw_files(part: h5py.Dataset, axis: int) -> Written:
    """Look how far the external files of raw values reach; such a file that is too short is read as zeros."""
    number, total = part.shape[axis], part.size * part.dtype.itemsize
    edges, begin, covered = np.arange(number + 1) * (total // max(number, 1)), 0, np.zeros(number)
    places, short = [], []
    for name, offset, size in part.external:
        place = raw_file_beside(part, name)
        wanted = min(size, total - begin)
        there = max(min((place.stat().st_size if place.exists() else 0) - offset, wanted), 0)
        covered += np.clip(np.minimum(edges[1:], begin + there) - np.maximum(edges[:-1], begin), 0, None)
        begin += wanted
        places.append(place)
        short += [place] if there < wanted else []
    arrived = covered == np.diff(edges)
    if short and not arrived.any():
        state = "is too short" if short[0].exists() else "is missing: copy it there"
        raise FormatError(f"{part.file.filename}: {part.name.strip('/')} is kept in {short[0]}, which {state}.")
    if not short:
        return Written(arrived, (), tuple(places))
    state = "is shorter than announced" if short[0].exists() else "is missing"
    lost = f"frames {list_numbers(np.flatnonzero(~arrived))} of {number} are left as masked planes."
    return Written(arrived, (f"{part.name.strip('/')} is kept in {short[0]}, which {state}: {lost}",), tuple(places))


def find_damaged(part: h5py.Dataset, axis: int, frames: range) -> int | None:
    """Find the first of the frames whose chunk states an impossible size; None if none does, or if an image has several chunks.

    Only the first bytes of each chunk are read.
    """
    if part.chunks is None or prod(part.chunks) != prod(part.shape) // part.shape[axis] or part.file.userblock_size:
        return None
    pipeline = part.id.get_create_plist()
    filters = [pipeline.get_filter(index) for index in range(pipeline.get_nfilters())]
    stated = len(filters) == 1 and (filters[0][0] == LZ4 or (filters[0][0] == BITSHUFFLE and any(filters[0][2][4:5])))
    path, size = Path(part.file.filename), prod(part.chunks) * part.dtype.itemsize
    if not (stated or (filters and filters[-1][0] == FLETCHER32)) or not path.is_file():
        return None
    with path.open("rb", buffering=0) as stream:
        for frame in frames:
            chunk = part.id.get_chunk_info_by_coord(tuple(frame if other == axis else 0 for other in range(part.ndim)))
            if chunk.byte_offset is None or chunk.filter_mask:
                continue
            if not stated:
                if chunk.size <= 4:
                    return frame
                continue
            stream.seek(chunk.byte_offset)
            head = stream.read(12)
            if int.from_bytes(head[:8]) != size or int.from_bytes(head[8:]) > max(size, 2**20):  # total, block
                return frame
    return None
