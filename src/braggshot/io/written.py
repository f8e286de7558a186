"""Find which frames of an HDF5 dataset were written, without reading a frame.

HDF5 reads the fill value, mostly 0, where nothing was written and where a source file is missing, and does not say so. Here the
places of the storage are looked at: chunks, the files of a virtual dataset, and external files of raw values.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from braggshot.errors import FormatError, list_numbers
from braggshot.io.files import dataset, follow_trail, open_hdf5, raw_file_beside, source_files
from braggshot.volumes import BoolArray


@dataclass(frozen=True)
class Written:
    """Frames of one dataset that were written.

    Parameters
    ----------
    arrived : (n,) False for a frame that was never written, or whose source file is missing
    noticed : what was found, in words; empty where every frame is there
    sources : other files that hold the frames
    filled : pixels that some file fills, on the two axes that are not those of the frames; None means that all are
    """

    arrived: BoolArray
    noticed: tuple[str, ...] = ()
    sources: tuple[Path, ...] = ()
    filled: BoolArray | None = None


def find_written(part: h5py.Dataset, axis: int = 0, trail: tuple[tuple[str, str], ...] = ()) -> Written:
    """Find the frames of a dataset that were written.

    Parameters
    ----------
    part : the dataset
    axis : axis of the frames
    trail : virtual datasets, by file and path, that led here

    Raises
    ------
    FormatError : if the files of all frames are missing; the message names the first one.
    DataError : if a virtual dataset leads back to itself.
    """
    if part.is_virtual:
        return _find_in_sources(part, axis, follow_trail(part, trail))
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


def _find_in_sources(part: h5py.Dataset, axis: int, trail: tuple[tuple[str, str], ...]) -> Written:
    """Look for the source files of a virtual dataset, and for the frames in them.

    A source may fill a part of each frame, such as a module of the detector. If it is missing, and no other source fills its
    pixels, the frames are there without these pixels.
    """
    folder, size = Path(part.file.filename).parent, part.shape[axis]
    arrived, mapped, lost = np.ones(size, bool), np.zeros(size, bool), np.zeros(size, bool)
    filled = np.zeros([length for number, length in enumerate(part.shape) if number != axis], bool)
    sources: dict[str, Path] = {}
    missing: dict[str, Path] = {}
    absent: list[tuple[NDArray[np.intp], tuple[slice, ...]]] = []
    for source in part.virtual_sources():
        name, frames, pixels = source.file_name, _selected(source.vspace, axis, size), _pixels(source.vspace, axis, part.shape)
        mapped[frames] = True
        place = None if "%" in name else next(iter(source_files(part, name)), folder / name)
        # HDF5 counts the files of a name such as part_%b.h5 itself.
        there = np.ones(len(frames), bool) if "%" in name else _find_in_source(part.file, place, source, axis, len(frames), trail)
        if there is None:
            absent.append((frames, pixels))
            missing[name] = place or Path(part.file.filename)
        else:
            arrived[frames] &= there
            filled[pixels] = True
        if place is not None and place.exists():
            sources[name] = place
    for frames, pixels in absent:
        lost[frames] |= bool(filled[pixels].any()) or not filled.any()
    here = arrived & mapped & ~lost
    found = _judge(part, here | lost)
    if missing:
        found = _judge_missing(part, here, lost, (missing, sources))
    if filled.all() or not filled.any():
        return Written(here, found.noticed, tuple(sources.values()))
    gaps = f"{part.name.strip('/')}: {np.count_nonzero(~filled)} of {filled.size} pixels are filled by no file: masked."
    return Written(here, (*found.noticed, gaps), tuple(sources.values()), filled)


def _judge_missing(
    part: h5py.Dataset, here: BoolArray, lost: BoolArray, files: tuple[dict[str, Path], dict[str, Path]]
) -> Written:  # fmt: skip
    """Say which frames are lost with their files, and which were never written; `files` are those missing, and those there."""
    missing, sources = files
    first, state = next(iter(missing.values())), "missing or damaged" if missing.keys() & sources.keys() else "missing"
    spread = f"{part.name.strip('/')} is spread over {len({**sources, **missing})} files"
    said = f"{spread} and {len(missing)} of them are {state}, first {first}"
    if not here.any():
        raise FormatError(f"{part.file.filename}: {said}; copy them to where the links point.")
    planes = f": its frames {list_numbers(np.flatnonzero(lost))} are left as masked planes." if lost.any() else "."
    return Written(here, (f"{said}{planes}", *_judge(part, here | lost).noticed))


def _pixels(space: h5py.h5s.SpaceID, axis: int, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Return the box of pixels that a selection of a virtual dataset covers, on all axes but that of the frames."""
    if space.get_select_type() == h5py.h5s.SEL_ALL or not space.shape:
        low, high = (0,) * len(shape), tuple(size - 1 for size in shape)
    else:
        low, high = space.get_select_bounds()
    return tuple(slice(first, last + 1) for number, (first, last) in enumerate(zip(low, high, strict=True)) if number != axis)


def _find_in_source(
    file: h5py.File, place: Path | None, source: Any, axis: int, number: int, trail: tuple[tuple[str, str], ...]
) -> BoolArray | None:  # fmt: skip
    """Tell which of the `number` frames that one source fills are there; None if the source cannot be opened.

    `place` is the file of the source; None is `file` itself.
    """
    try:
        with nullcontext(file) if place is None else open_hdf5(place) as other:
            return _frames_of(dataset(other, source.dset_name), (source.src_space, axis, number), trail)
    except FormatError:
        return None


def _frames_of(data: h5py.Dataset, taken: tuple[h5py.h5s.SpaceID, int, int], trail: tuple[tuple[str, str], ...]) -> BoolArray:
    """Tell which frames of a source are there, in the order in which the virtual dataset takes them.

    `taken` is what it takes: a selection of the source, the axis of the frames, and how many.
    """
    space, axis, number = taken
    arrived = find_written(data, axis if data.ndim > axis else 0, trail).arrived
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
