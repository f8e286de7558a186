"""Check the chunks of HDF5 datasets before HDF5's filters see them, because some of these trust the lengths inside their input.

A damaged chunk of bitshuffle, LZ4, Blosc, Zstandard or Fletcher32 would end the program or return stale memory. The lengths that
such a chunk states are compared with what is stored and with what a chunk must hold. HDF5's own compressors refuse damaged input.
What a filter that is not known here does with damaged input cannot be told, so its chunks are decoded in a process of their own.
"""

from __future__ import annotations

import bz2
import contextlib
import io
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from braggshot.errors import FormatError
from braggshot.gate import SMALL, refuse_oversized
from braggshot.io.codecs import DamagedError, check_bitshuffle, check_blosc, check_lz4_blocks, check_zstd
from braggshot.io.files import dataset, follow_trail, hdf5_reason, open_hdf5, raw_file_beside, say_missing_filter, source_files

# HDF5's numbers of filters: those that change no length, Fletcher32, and those that refuse damaged input.
SHUFFLE, FLETCHER32, SCALEOFFSET = 2, 3, 6
SAFE = frozenset({1, 4, 5, SCALEOFFSET, 32000})  # deflate, szip, nbit, scale-offset, LZF
BZIP2, BLOSC, LZ4, BITSHUFFLE, ZSTD = 307, 32001, 32004, 32008, 32015

ABSENT = (None, 2**64 - 1)  # places of a chunk that was never written
_KEPT = threading.local()  # the buffer of each thread, into which chunks are read
TEXT = 100  # memory that one text takes, roughly [bytes]

Checker = Callable[[memoryview, int], None]  # takes the bytes of a chunk and the length that they must decode to


class ChunkError(DamagedError):
    """Error that is raised where a chunk is damaged; `offset` tells which."""

    def __init__(self, said: str, offset: tuple[int, ...]) -> None:
        super().__init__(said)
        self.offset = offset


def read_region(part: h5py.Dataset, key: tuple[slice | int, ...] = ()) -> Any:
    """Read a region of a dataset, as ``part[key]`` does, after all that it is read from was checked.

    Parameters
    ----------
    part : any dataset: plain, compressed, virtual, or kept in external files
    key : region, one slice or integer for each axis; empty for the whole dataset

    Raises
    ------
    FormatError : if a chunk is damaged, the dataset is declared larger than it can be, or it is kept where it must not be.
    DataError : if a virtual dataset leads back to itself.
    """
    _check_region(part, key, ())
    if part.chunks is not None and has_unknown_filter(part):
        return read_in_child(part, key)
    try:
        return part[key]
    except OSError as error:
        said = say_missing_filter(part) or f"{hdf5_reason(error)}; is the file whole?"
        raise FormatError(f"{part.file.filename}: {str(part.name).strip('/')} cannot be read ({said}).") from error


def _check_region(part: h5py.Dataset, key: tuple[slice | int, ...], trail: tuple[tuple[str, str], ...]) -> None:
    """Check what a region is read from; `trail` lists the virtual datasets, by file and path, that led here."""
    creation, name = part.id.get_create_plist(), f"{part.file.filename}: {str(part.name).strip('/')}"
    if not part.shape:
        return
    layout = creation.get_layout()
    regions = [_bounds(cut, size) for cut, size in zip(_whole_key(part, key), part.shape, strict=True)]
    wanted = prod(high - low for low, high in regions) * max(_item_size(part), TEXT if part.dtype.kind in "OS" else 1)
    if wanted > SMALL:
        own = layout != h5py.h5d.VIRTUAL and not creation.get_external_count()
        refuse_oversized(name, wanted, part.file.id.get_filesize() if own else None)
    if layout == h5py.h5d.CHUNKED:
        chunk = prod(part.chunks) * _item_size(part)
        if chunk > SMALL:
            refuse_oversized(f"{name}, one chunk", chunk, part.file.id.get_filesize())
        try:
            check_chunks(part, key)
        except ChunkError as error:
            place = str(part.name).strip("/")
            what = f"frame {error.offset[0]} of {place}" if part.ndim >= 3 else place
            raise FormatError(f"{part.file.filename}: {what} is damaged ({error}); copy the file again, or cut it out.") from error
    elif layout == h5py.h5d.VIRTUAL:
        _check_sources(part, regions, trail)
    elif creation.get_external_count():
        for outside, _, _ in part.external:
            raw_file_beside(part, outside)


def _check_sources(part: h5py.Dataset, regions: Sequence[tuple[int, int]], trail: tuple[tuple[str, str], ...]) -> None:
    """Check the sources of a region of a virtual dataset, and that none of them is the dataset itself."""
    trail = follow_trail(part, trail)
    for source in part.virtual_sources():
        low, high = source.vspace.get_select_bounds()
        if any(first >= stop or last < start for first, last, (start, stop) in zip(low, high, regions, strict=True)):
            continue
        for place in source_files(part, source.file_name):
            with contextlib.nullcontext(part.file) if place is None else open_hdf5(place) as file:
                if source.dset_name not in file:
                    continue
                data = dataset(file, source.dset_name)
                _check_region(data, _key_in_source(source, data, (low, high), regions), trail)


def _key_in_source(
    source: Any, data: h5py.Dataset, bounds: tuple[Sequence[int], Sequence[int]], regions: Sequence[tuple[int, int]]
) -> tuple[slice | int, ...]:  # fmt: skip
    """Return the region of a source that a region of its virtual dataset shows, or one that holds it."""
    if source.src_space.get_select_type() == h5py.h5s.SEL_ALL:
        low, high = (0,) * data.ndim, tuple(size - 1 for size in data.shape)
    else:
        low, high = source.src_space.get_select_bounds()
    if len(low) != data.ndim:
        return ()
    if [b - a for a, b in zip(low, high, strict=True)] != [b - a for a, b in zip(*bounds, strict=True)]:
        return tuple(slice(first, last + 1) for first, last in zip(low, high, strict=True))
    shift = [first - begin for first, begin in zip(low, bounds[0], strict=True)]
    cuts = zip(low, high, shift, regions, strict=True)
    return tuple(slice(max(first, start + by), min(last + 1, stop + by)) for first, last, by, (start, stop) in cuts)


def check_chunks(part: h5py.Dataset, key: Sequence[slice | int] = ()) -> None:
    """Check every chunk that overlaps a region of a dataset; a dataset without dangerous filters costs nothing.

    Parameters
    ----------
    part : dataset with chunks of its own
    key : region, one index for each axis; empty for the whole dataset

    Raises
    ------
    ChunkError : if a chunk is damaged.
    """
    filters = filters_of(part)
    checks = [_checker(code, values, _item_size(part)) for code, values in filters]
    if not any(checks):
        return
    size = prod(part.chunks) * _item_size(part)
    codes = [code for code, _ in filters]
    for mask, payload, offset in _stored_chunks(part, key):
        try:
            _check(payload, codes, checks, mask, size)
        except DamagedError as error:
            raise ChunkError(str(error), offset) from error


def filters_of(part: h5py.Dataset) -> list[tuple[int, tuple[int, ...]]]:
    """List the number and the options of each filter of a dataset, in the order in which they were applied."""
    pipeline = part.id.get_create_plist()
    found = (pipeline.get_filter(index) for index in range(pipeline.get_nfilters()))
    return [(code, tuple(values)) for code, _, values, _ in found]


def has_unknown_filter(part: h5py.Dataset) -> bool:
    """Tell whether a dataset has a filter of which it is not known what it does with damaged input."""
    return part.chunks is not None and not {code for code, _ in filters_of(part)} <= {
        *SAFE, SHUFFLE, FLETCHER32, BZIP2, BLOSC, LZ4, BITSHUFFLE, ZSTD
    }  # fmt: skip


def _item_size(part: h5py.Dataset) -> int:
    return int(part.id.get_type().get_size())


def _checker(code: int, values: tuple[int, ...], item_size: int) -> Checker | None:
    """Return the check of a filter that trusts its input; None for another filter."""
    if code == BITSHUFFLE:
        return partial(_check_bitshuffle, values=values, item_size=item_size)
    return {FLETCHER32: _check_sum, BZIP2: _check_bzip2, BLOSC: check_blosc, LZ4: check_lz4_blocks, ZSTD: check_zstd}.get(code)


def _check_sum(payload: memoryview, size: int) -> None:
    if len(payload) <= 4:
        raise DamagedError("fletcher32: cut short")


def _check_bzip2(payload: memoryview, size: int) -> None:
    """Decompress it with Python's own library, because HDF5's filter never ends on bytes that are cut short."""
    decoder = bz2.BZ2Decompressor()
    try:
        found = len(decoder.decompress(payload, size + 1))
    except (OSError, ValueError) as error:
        raise DamagedError("bzip2: the decoder refuses it") from error
    if found != size or not decoder.eof:
        raise DamagedError("bzip2: cut short, or of another image")


def _check_bitshuffle(payload: memoryview, size: int, values: tuple[int, ...], item_size: int) -> None:
    if len(values) < 3 or values[2] != item_size:
        raise DamagedError("bitshuffle: pixels of another size")
    if any(values[4:5]):
        check_bitshuffle(payload, size, item_size)
    elif len(payload) != size:
        raise DamagedError(f"bitshuffle: {len(payload)} bytes, expected {size}")


def _check(payload: memoryview, codes: list[int], checks: list[Checker | None], mask: int, size: int) -> None:
    """Check a chunk from its outermost filter, the last one, to the first that changes its length in a way that is not known.

    Bit `n` of `mask` is set where the n-th filter was skipped.
    """
    used = [number for number in range(len(codes)) if not mask >> number & 1]
    for number in reversed(used):
        code, check = codes[number], checks[number]
        inside = size + 4 * sum(codes[other] == FLETCHER32 for other in used if other < number)
        if check is not None:
            check(payload, inside)
        if code == FLETCHER32:
            payload = payload[:-4]
        elif code != SHUFFLE:
            return
    if len(payload) != size:
        raise DamagedError(f"{len(payload)} bytes, expected {size}")


def _stored_chunks(part: h5py.Dataset, key: Sequence[slice | int]) -> Iterator[tuple[int, memoryview, tuple[int, ...]]]:
    """Yield filter mask, bytes and offset of each stored chunk that overlaps a region; the bytes are valid until the next one.

    Where the chunks lie in the file themselves, they are read into one buffer, which is faster than h5py's own way.
    """
    regions = [_bounds(cut, size) for cut, size in zip(_whole_key(part, key), part.shape, strict=True)]
    steps = [range(low // chunk * chunk, high, chunk) for (low, high), chunk in zip(regions, part.chunks, strict=True)]
    if not all(map(len, steps)) or part.id.get_space_status() == h5py.h5d.SPACE_STATUS_NOT_ALLOCATED:
        return
    if part.file.userblock_size or part.file.driver != "sec2":  # the offsets count from elsewhere
        for offset in itertools.product(*steps):
            if part.id.get_chunk_info_by_coord(offset).byte_offset not in ABSENT:
                mask, payload = part.id.read_direct_chunk(offset)
                yield mask, memoryview(payload), offset
        return
    buffer: bytearray = getattr(_KEPT, "buffer", bytearray())  # memory that is touched for the first time is slow
    with Path(part.file.filename).open("rb", buffering=0) as stream:
        for offset in itertools.product(*steps):
            found = part.id.get_chunk_info_by_coord(offset)
            if found.byte_offset in ABSENT:
                continue
            if len(buffer) < found.size:
                if found.size > os.fstat(stream.fileno()).st_size:
                    raise ChunkError("larger than its file", offset)
                buffer = _KEPT.buffer = bytearray(found.size)
            view = memoryview(buffer)[: found.size]
            stream.seek(found.byte_offset)
            if stream.readinto(view) != found.size:
                raise ChunkError("cut short", offset)
            yield found.filter_mask, view, offset


def _whole_key(part: h5py.Dataset, key: Sequence[slice | int]) -> list[slice | int]:
    return [*key, *[slice(None)] * (part.ndim - len(key))]


def _bounds(cut: slice | int, size: int) -> tuple[int, int]:
    if isinstance(cut, slice):
        indices = range(*cut.indices(size))
        return (min(indices[0], indices[-1]), max(indices[0], indices[-1]) + 1) if len(indices) else (0, 0)
    return cut, cut + 1


_CHILD = """
import ast, sys, h5py, hdf5plugin, numpy
name, place, key = sys.argv[1:]
key = tuple(slice(*cut) if isinstance(cut, tuple) else cut for cut in ast.literal_eval(key))
with h5py.File(name, "r", locking=False) as file:
    numpy.save(sys.stdout.buffer, file[place][key])
"""


def read_in_child(part: h5py.Dataset, key: Sequence[slice | int]) -> NDArray[Any]:
    """Read a region of a dataset in a process of its own, so that a crash of a filter ends that process only.

    Raises
    ------
    FormatError : if the process cannot read it.
    """
    cuts = tuple((cut.start, cut.stop, cut.step) if isinstance(cut, slice) else cut for cut in key)
    command = [sys.executable, "-c", _CHILD, part.file.filename, part.name, repr(cuts)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or [f"the filter crashed, signal {-done.returncode}"]
        raise FormatError(f"{part.file.filename}: {part.name} cannot be read ({said[-1][:200]}); is the file whole?")
    return np.load(io.BytesIO(done.stdout), allow_pickle=False)
