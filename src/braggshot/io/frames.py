"""Hold detector frames that stay on disk until a region of them is indexed.

`TiffFrames`, `NpyFrames`, `HDF5Frames`, `SummedFrames` and `ArrayFrames` satisfy the protocol `braggshot.volumes.Frames`. They are
indexed by ``[frames, rows, columns]``: a slice, an integer or an index array for the frames, and slices or integers for the pixels.
Only the images, or the parts of datasets, that hold the indexed region are read. Files are open only while they are read. Counts
are returned as stored, without correction. A frame that has a place and is not there reads as zeros; `arrived` tells which.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile
from numpy.typing import NDArray

from braggshot.errors import FormatError
from braggshot.gate import explain_damage, refuse_oversized
from braggshot.io.archives import Image
from braggshot.io.axes import drop_axes, image_axes, say_dropped
from braggshot.io.chunks import read_region
from braggshot.io.files import (
    broken_link,
    dataset,
    open_hdf5,
    read_npy,
    tiff_page,
    tiff_series,
)  # fmt: skip
from braggshot.io.heads import Head, read_heads, say_fault
from braggshot.io.written import Written, find_written
from braggshot.volumes import BoolArray

# First bytes by which files are recognised.
TIFF, NPY = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), (b"\x93NUMPY",)


class LazyFrames(ABC):
    """Frames that are indexed like a numpy array but read on demand.

    A subclass defines `read`, which returns the frames of given indices, cut to given rows and columns.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    paths: tuple[Path, ...] = ()  # files that hold the frames; empty for an array in memory
    arrived: BoolArray | None = None  # (n,) False for a frame that has a place and is not there; None means that all are
    filled: BoolArray | None = None  # (rows, columns) False for a pixel that no file fills; None means that all are filled
    noticed: tuple[str, ...] = ()  # what was left out or is missing, one sentence each

    @abstractmethod
    def read(self, indices: NDArray[np.intp], rows: slice, columns: slice) -> Image:
        """Read the frames of `indices` (any order, repeats allowed), cut to `rows` and `columns`."""

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, region: Any, /) -> Image:
        key = list(region) if isinstance(region, tuple) else [region]
        if any(part is Ellipsis for part in key):
            at = next(i for i, part in enumerate(key) if part is Ellipsis)
            key[at : at + 1] = [slice(None)] * (4 - len(key))
        key += [slice(None)] * (3 - len(key))
        indices = np.arange(self.shape[0])[key[0]]
        pixels = [_as_slice(part, size) for part, size in zip(key[1:], self.shape[1:], strict=True)]
        indices, place = np.asarray(indices), self.paths[0] if self.paths else "the frames"
        sides = (len(range(size)[cut]) for size, cut in zip(self.shape[1:], pixels, strict=True))
        refuse_oversized(place, math.prod([max(indices.size, 1), *sides, self.dtype.itemsize]))
        with explain_damage(place, "frames"):
            block = self.read(np.atleast_1d(indices), *pixels)
        return block[tuple(0 if isinstance(part, (int, np.integer)) else slice(None) for part in key)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Image:
        return np.asarray(self[...], dtype=dtype)


def _as_slice(part: Any, size: int) -> slice:
    """Turn one part of an index into a slice with a positive step; an integer becomes a slice of length one."""
    if isinstance(part, (int, np.integer)):
        index = range(size)[int(part)]
        return slice(index, index + 1)
    if not isinstance(part, slice) or (part.step or 1) < 1:
        raise IndexError(f"rows and columns are cut by slices with a positive step, found {part!r}.")
    return part


class ArrayFrames(LazyFrames):
    """Frames of an array in memory, or of an array that numpy maps into memory."""

    def __init__(self, array: Image) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def read(self, indices: NDArray[np.intp], rows: slice, columns: slice) -> Image:
        """Copy the frames of `indices` from the array, cut to `rows` and `columns`.

        The result never shares memory with the array. Frames that are not consecutive are copied twice, which takes longer.
        """
        first, last = (int(indices[0]), int(indices[-1])) if len(indices) else (0, -1)
        consecutive = last - first + 1 == len(indices) and bool(np.all(np.diff(indices) == 1))
        return np.array(self.array[slice(first, last + 1) if consecutive else indices, rows, columns])


class FileFrames(LazyFrames):
    """Frames stored as one image per file; a subclass defines how one file is read.

    Of `paths`, None is the place of a frame without a file. An image that cannot be read, or has another shape than most, is
    not there either, and is named in `noticed`.

    Raises
    ------
    FormatError : if more than a tenth of the images cannot be read; the message names the first.
    """

    signatures: tuple[bytes, ...] = (b"",)  # first bytes of a file that can be read

    def __init__(self, paths: Sequence[str | Path | None]) -> None:
        self.files = tuple(None if path is None else Path(path) for path in paths)
        self.paths = tuple(path for path in self.files if path is not None)
        found = read_heads(self.paths, self.head, self.signatures)
        heads = [head for head in found.values() if isinstance(head, Head)]
        if not heads:
            raise FormatError(next(iter(found.values())))
        common = Counter(head.shape for head in heads).most_common(1)[0][0]
        self.shape = (len(self.files), *common)
        self.dtype = np.result_type(*{head.dtype for head in heads if head.shape == common})
        faults = {path: said for path, head in found.items() if (said := say_fault(path, head, common))}
        if len(faults) > max(1, len(self.paths) // 10):
            raise FormatError(f"{next(iter(faults.values()))} {len(faults)} of {len(self.paths)} images cannot be read.")
        self.noticed = tuple(f"{said.rstrip('.')}: left as a masked plane." for said in faults.values())
        arrived = np.array([path is not None and path not in faults for path in self.files])
        self.arrived = None if arrived.all() else arrived

    @abstractmethod
    def head(self, path: Path) -> Head:
        """Read the shape and the type of the image of a file."""

    @abstractmethod
    def image(self, path: Path) -> Image:
        """Read the whole image of a file."""

    def read(self, indices: NDArray[np.intp], rows: slice, columns: slice) -> Image:
        """Read whole images one at a time; cut each to `rows` and `columns` before the next image is read."""
        return self.gather(self._load, indices, rows, columns)

    def _load(self, index: int) -> Image:
        try:
            image = self.image(Path(str(self.files[index])))
        except FormatError as error:
            raise FormatError(f"{error} Remove this file to go on without its frame.") from error
        if image.shape != self.shape[1:]:
            raise FormatError(f"{self.files[index]}: the image is {image.shape}, the others {self.shape[1:]}.")
        return image

    def gather(self, load: Callable[[int], Image], indices: NDArray[np.intp], rows: slice, columns: slice) -> Image:
        """Read the images of `indices` one by one with `load`, cut each to `rows` and `columns`, and stack them."""
        cuts = zip(self.shape[1:], (rows, columns), strict=True)
        out = np.empty((len(indices), *(len(range(size)[cut]) for size, cut in cuts)), self.dtype)
        for position, index in enumerate(indices):
            there = self.arrived is None or bool(self.arrived[index])
            out[position] = load(int(index)).reshape(self.shape[1:])[rows, columns] if there else 0
        return out


class NpyFrames(FileFrames):
    """Frames stored as one .npy image per file."""

    signatures = NPY

    def head(self, path: Path) -> Head:
        """Read the shape and the type of the image of a file."""
        image = read_npy(path)
        return Head(image.shape, image.dtype)

    def image(self, path: Path) -> Image:
        """Map one image into memory."""
        return read_npy(path)


class TiffFrames(FileFrames):
    """Frames stored as TIFF: many files of one image each, or one file of many images.

    In a file of many images, images of another shape than most are left out.

    Raises
    ------
    FormatError : if the one file, or more than a tenth of many files, is truncated, not a TIFF or a colour image.
    """

    signatures = TIFF

    def __init__(self, paths: Sequence[str | Path | None]) -> None:
        self.stacked, self.plain = len(paths) == 1 and paths[0] is not None, True
        if not self.stacked:
            super().__init__(paths)
            if not self.plain:
                self.noticed += ("files of this scan hold several images each: the largest was taken.",)
            return
        self.files = self.paths = (Path(str(paths[0])),)
        with tiff_series(self.paths[0]) as series:
            every = series.pages[0].parent.series
            # Pages that were written one by one are series of one image each.
            self.chosen = [number for number, other in enumerate(every) if other is series]
            if series.ndim == 2:
                self.chosen = [number for number, other in enumerate(every) if other.shape == series.shape]
            shape = (len(self.chosen), *series.shape) if len(self.chosen) > 1 else tuple(series.shape)
            self.dtype, axes = np.dtype(series.dtype), series.axes
            self.contiguous = series.dataoffset is not None and len(self.chosen) == 1
            others = [tuple(other.shape) for number, other in enumerate(every) if number not in self.chosen]
        if "S" in axes:
            raise FormatError(f"{self.paths[0]}: a colour image ({axes}); expected counts, one value per pixel.")
        self.shape, self.noticed = tuple(shape[axis] for axis in image_axes(shape)), say_dropped(shape)
        if others:
            left_out = f"other images, of shape {' and '.join(map(str, dict.fromkeys(others)))}, were left out."
            self.noticed += (f"{self.paths[0].name} holds {len(others)} {left_out}",)

    def head(self, path: Path) -> Head:
        """Read the shape and the type of the image of a file."""
        with tiff_series(path) as series:
            shape, axes, page, file = tuple(series.shape), series.axes, series.pages[0], series.pages[0].parent
            if any(sum(piece) > file.filehandle.size for piece in zip(page.dataoffsets, page.databytecounts, strict=True)):
                raise FormatError(f"{path}: the TIFF file is truncated.")
            self.plain = self.plain and len(file.series) == 1
        if "S" in axes:
            raise FormatError(f"{path}: a colour image ({axes}); expected counts, one value per pixel.")
        if len(shape) < 2 or any(side != 1 for side in shape[:-2]):
            raise FormatError(f"{path}: holds {shape}; expected one image in each of the {len(self.paths)} files.")
        return Head(shape[-2:], np.dtype(series.dtype))

    def image(self, path: Path) -> Image:
        """Read the whole image of a file."""
        with tiff_page(path) if self.plain else tiff_series(path) as found:
            return np.asarray(found.asarray())

    def read(self, indices: NDArray[np.intp], rows: slice, columns: slice) -> Image:
        """Read the frames of `indices`, cut to `rows` and `columns`.

        Many files are read whole, one at a time. One file of many images is mapped into memory if it is uncompressed, else read
        page by page.
        """
        if not self.stacked:
            return super().read(indices, rows, columns)
        with tiff_series(self.paths[0]) as series:
            if self.contiguous:
                array = drop_axes(tifffile.memmap(self.paths[0], series=self.chosen[0], mode="r"))
                return ArrayFrames(array).read(indices, rows, columns)
            every = series.pages[0].parent.series
            pages = [page for number in self.chosen for page in every[number].pages]
            return self.gather(lambda index: np.asarray(pages[index].asarray()), indices, rows, columns)


class HDF5Frames(LazyFrames):
    """Frames in one dataset (frames, rows, columns) of an HDF5 file, or in several datasets, one after the other.

    Compressed, linked, external and virtual datasets are read alike. Only the chunks that overlap the indexed region are read.
    Frames that were never written, or whose file is missing, are not there. Where the last of several datasets are missing, the
    scan ends before them. Axes of length 1 beyond the third axis are dropped.

    Parameters
    ----------
    path : the HDF5 file
    datasets : path of one dataset inside the file, or paths of several in the order of the frames

    Raises
    ------
    FormatError : if every dataset, or the external files of all frames, are missing, if no frame was ever written, if a compression
        filter is missing, or if the file is truncated.
    """

    def __init__(self, path: str | Path, datasets: str | Sequence[str]) -> None:
        self.path = Path(path)
        names = (datasets,) if isinstance(datasets, str) else tuple(datasets)
        with open_hdf5(self.path) as file:
            absent = {} if len(names) == 1 else {name: said for name in names if (said := _say_absent(file, name))}
            there = [number for number, name in enumerate(names) if name not in absent]
            last = there[-1] + 1 if there else len(names)
            parts = [dataset(file, names[number]) for number in there or range(last)]
            shapes, self.dtype = [part.shape or () for part in parts], np.result_type(*{part.dtype for part in parts})
            self.axes = image_axes(shapes[0])
            found = [find_written(part, self.axes[0]) if part.shape else Written(np.ones(0, bool)) for part in parts]
            self.noticed = say_dropped(shapes[0])
            if file.swmr_mode:
                self.noticed += (f"{self.path.name} was not closed by the program that wrote it: read as it stands.",)
        images = {tuple(shape[axis] for axis in self.axes[1:]) for shape in shapes if len(shape) == len(shapes[0])}
        if len(images) > 1 or len({len(shape) for shape in shapes}) > 1:
            raise FormatError(f"{path}: the parts {', '.join(names)} have images of different shapes: {shapes}.")
        self.paths = (self.path, *(source for one in found for source in one.sources))
        lengths = Counter(len(one.arrived) for one in found)
        usual = max(lengths, key=lambda length: (lengths[length], length))
        by_name = {names[number]: one.arrived for number, one in zip(there or range(last), found, strict=True)}
        arrived = [by_name.get(name, np.zeros(usual, bool)) for name in names[:last]]
        self.datasets, self.absent = names[:last], frozenset(absent)
        self.starts = np.cumsum([0, *map(len, arrived)])
        self.shape = (int(self.starts[-1]), *images.pop()) if shapes[0] else ()
        self.noticed += (*self._say_absent_parts(absent, names), *(said for one in found for said in one.noticed))
        here = np.concatenate(arrived)
        if len(here) and not here.any():
            raise FormatError(f"{path}: none of the {len(here)} frames of {names[0]} was ever written.")
        self.arrived = None if here.all() else here
        if len(self.shape) == len(shapes[0]) == 3 and any(one.filled is not None for one in found):
            filled = np.logical_and.reduce([one.filled for one in found if one.filled is not None])
            self.filled = filled if self.axes[1] < self.axes[2] else filled.T

    def _say_absent_parts(self, absent: dict[str, str], names: Sequence[str]) -> Iterator[str]:
        """Say which parts are missing: those behind the last part that is there, and those between."""
        behind = [name for name in absent if name not in self.datasets]
        if behind:
            more = f" (and {len(behind) - 1} further parts)" if len(behind) > 1 else ""
            yield f"{absent[behind[0]]}{more}: the scan is read to where it stopped, {self.starts[-1]} frames."
        for name, start, stop in zip(self.datasets, self.starts[:-1], self.starts[1:], strict=True):
            if name in absent:
                yield f"{absent[name]}: its frames, taken as {start}-{stop - 1}, are left as masked planes."

    def read(self, indices: NDArray[np.intp], rows: slice, columns: slice) -> Image:
        """Read the frames of `indices`, cut to `rows` and `columns`; each run of consecutive frames is read in one call.

        HDF5's own indexing by a list of frames is not used: it is slow, and it requires sorted, unique indices.
        """
        here = np.ones(len(self), bool) if self.arrived is None else self.arrived
        blocks = []
        with open_hdf5(self.path) as file:
            for run in np.split(indices, np.flatnonzero((np.diff(indices) != 1) | np.diff(here[indices])) + 1):
                if len(run) and not here[run[0]]:
                    sides = (len(range(size)[cut]) for size, cut in zip(self.shape[1:], (rows, columns), strict=True))
                    blocks.append(np.zeros((len(run), *sides), self.dtype))
                else:
                    blocks += [self._hyperslab(file, part, cut, rows, columns) for part, cut in self._parts(run)]
        return np.concatenate(blocks) if len(blocks) != 1 else blocks[0]

    def _parts(self, run: NDArray[np.intp]) -> Iterator[tuple[str, slice]]:
        """Find the datasets that hold a run of consecutive frames.

        For each, its name is yielded, and the slice of its frames that belong to the run.
        """
        if not len(run):
            yield next(name for name in self.datasets if name not in self.absent), slice(0, 0)
            return
        first, stop = int(run[0]), int(run[-1]) + 1
        for number, (start, end) in enumerate(zip(self.starts[:-1], self.starts[1:], strict=True)):
            low, high = max(first, start), min(stop, end)
            if low < high:
                yield self.datasets[number], slice(int(low - start), int(high - start))

    def _hyperslab(self, file: h5py.File, name: str, cut: slice, rows: slice, columns: slice) -> Image:
        part = dataset(file, name)
        key: list[slice | int] = [0] * part.ndim
        for axis, region in zip(self.axes, (cut, rows, columns), strict=True):
            key[axis] = region
        return read_region(part, tuple(key))


def _say_absent(file: h5py.File, name: str) -> str:
    """Say that a part is kept in a file that is missing or damaged; "" if it is there."""
    try:
        dataset(file, name)
    except FormatError:
        return broken_link(file, name)
    return ""


class SummedFrames(LazyFrames):
    """Frames that are sums of `number` consecutive exposures each, for scans that repeat the exposure at each angle.

    Of unsigned numbers of 16 bits or more, the largest stands for "not counted".
    """

    def __init__(self, frames: LazyFrames, number: int) -> None:
        self.frames, self.number, self.paths = frames, number, frames.paths
        self.shape = (frames.shape[0] // number, *frames.shape[1:])
        self.dtype, self.noticed = np.dtype(np.int64 if frames.dtype.kind in "iu" else np.float64), frames.noticed
        self.filled = frames.filled
        if frames.arrived is not None:  # a sum is there only if all of its exposures are
            self.arrived = np.all(frames.arrived[: self.shape[0] * number].reshape(-1, number), axis=1)

    def read(self, indices: NDArray[np.intp], rows: slice, columns: slice) -> Image:
        """Read the exposures of each frame and sum them; -1 where one of them has the value for "not counted"."""
        repeats = (indices[:, None] * self.number + np.arange(self.number)).ravel()
        block = self.frames.read(repeats, rows, columns)
        exposures = block.reshape(len(indices), self.number, *block.shape[1:])
        summed = exposures.sum(axis=1, dtype=self.dtype)
        if block.dtype.kind == "u" and block.dtype.itemsize >= 2:
            summed[(exposures == np.iinfo(block.dtype).max).any(1)] = -1
        return np.asarray(summed)
