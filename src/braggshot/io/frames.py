"""Hold detector frames that stay on disk until a region of them is indexed.

`TiffFrames`, `NpyFrames`, `HDF5Frames`, `SummedFrames` and `ArrayFrames` satisfy the protocol `braggshot.volumes.Frames`. They are
indexed by ``[frames, rows, columns]``: a slice, an integer or an index array for the frames, and slices or integers for the pixels.
Only the images, or the parts of datasets, that hold the indexed region are read. Files are open only while they are read. Counts
are returned as stored, without correction.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile
from numpy.typing import NDArray

from braggshot.errors import FormatError
from braggshot.io.files import Image, check_sources, dataset, hdf5_reason, open_hdf5, read_npy, read_tiff, tiff_series


class LazyFrames(ABC):
    """Frames that are indexed like a numpy array but read on demand.

    A subclass defines `read`, which returns the frames of given indices, cut to given rows and columns.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    paths: tuple[Path, ...] = ()  # files that hold the frames; empty for an array in memory

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
    """Frames stored as one image per file; a subclass defines how one file is read."""

    @abstractmethod
    def image(self, index: int) -> Image:
        """Read the whole image of the file ``paths[index]``."""

    def read(self, indices: NDArray[np.intp], rows: slice, columns: slice) -> Image:
        """Read whole images one at a time; cut each to `rows` and `columns` before the next image is read."""
        return self.gather(self.image, indices, rows, columns)

    def gather(self, load: Callable[[int], Image], indices: NDArray[np.intp], rows: slice, columns: slice) -> Image:
        """Read the images of `indices` one by one with `load`, cut each to `rows` and `columns`, and stack them."""
        cuts = zip(self.shape[1:], (rows, columns), strict=True)
        out = np.empty((len(indices), *(len(range(size)[cut]) for size, cut in cuts)), self.dtype)
        for position, index in enumerate(indices):
            image = load(int(index))
            if image.shape != self.shape[1:]:
                raise FormatError(f"{self.paths[int(index)]}: the image is {image.shape}, the first one {self.shape[1:]}.")
            out[position] = image[rows, columns]
        return out


class NpyFrames(FileFrames):
    """Frames stored as one .npy image per file.

    Raises
    ------
    FormatError : when frames are read, if an image has another shape than the first; the message names the file.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self.paths = tuple(Path(path) for path in paths)
        first = self.image(0)
        self.shape, self.dtype = (len(self.paths), *first.shape), first.dtype

    def image(self, index: int) -> Image:
        """Map one image into memory."""
        return read_npy(self.paths[index])


class TiffFrames(FileFrames):
    """Frames stored as TIFF: many files of one image each, or one file of many images.

    Raises
    ------
    FormatError : if a file is truncated, not a TIFF, a colour image or of another shape than the first.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self.paths = tuple(Path(path) for path in paths)
        self.stacked = len(self.paths) == 1
        with tiff_series(self.paths[0]) as series:
            shape, self.dtype, axes = tuple(series.shape), np.dtype(series.dtype), series.axes
            self.contiguous = series.dataoffset is not None
        if "S" in axes:
            raise FormatError(f"{self.paths[0]}: a colour image ({axes}); expected counts, one value per pixel.")
        if not self.stacked and len(shape) != 2:
            raise FormatError(f"{self.paths[0]}: holds {shape}; expected one image in each of the {len(self.paths)} files.")
        self.shape = shape if self.stacked else (len(self.paths), *shape)

    def image(self, index: int) -> Image:
        """Read the whole image of the file ``paths[index]``."""
        return read_tiff(self.paths[index])

    def read(self, indices: NDArray[np.intp], rows: slice, columns: slice) -> Image:
        """Read the frames of `indices`, cut to `rows` and `columns`.

        Many files are read whole, one at a time. One file of many images is mapped into memory if it is uncompressed, else read
        page by page.
        """
        if not self.stacked:
            return super().read(indices, rows, columns)
        with tiff_series(self.paths[0]) as series:
            if self.contiguous:
                return ArrayFrames(tifffile.memmap(self.paths[0], series=0, mode="r")).read(indices, rows, columns)
            return self.gather(lambda index: np.asarray(series.pages[index].asarray()), indices, rows, columns)


class HDF5Frames(LazyFrames):
    """Frames in one dataset (frames, rows, columns) of an HDF5 file, or in several datasets, one after the other.

    Compressed, linked, external and virtual datasets are read alike. Only the chunks that overlap the indexed region are read.

    Parameters
    ----------
    path : the HDF5 file
    datasets : path of one dataset inside the file, or paths of several in the order of the frames

    Raises
    ------
    FormatError : if a dataset, its external file or its compression filter is missing, or the file is truncated.
    """

    def __init__(self, path: str | Path, datasets: str | Sequence[str]) -> None:
        self.path = Path(path)
        self.datasets = (datasets,) if isinstance(datasets, str) else tuple(datasets)
        with open_hdf5(self.path) as file:
            parts = [dataset(file, name) for name in self.datasets]
            self.paths = (self.path, *(source for part in parts for source in check_sources(part)))
            shapes, self.dtype = [part.shape for part in parts], parts[0].dtype
        if len({shape[1:] for shape in shapes}) > 1:
            raise FormatError(f"{path}: the parts {', '.join(self.datasets)} have images of different shapes: {shapes}.")
        self.starts = np.cumsum([0, *(shape[0] if shape else 0 for shape in shapes)])
        self.shape = (int(self.starts[-1]), *shapes[0][1:]) if shapes[0] else ()

    def read(self, indices: NDArray[np.intp], rows: slice, columns: slice) -> Image:
        """Read the frames of `indices`, cut to `rows` and `columns`; each run of consecutive frames is read in one call.

        HDF5's own indexing by a list of frames is not used: it is slow, and it requires sorted, unique indices.
        """
        blocks = []
        with open_hdf5(self.path) as file:
            for run in np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1):
                blocks += [self._hyperslab(file, part, cut, rows, columns) for part, cut in self._parts(run)]
        return np.concatenate(blocks) if len(blocks) != 1 else blocks[0]

    def _parts(self, run: NDArray[np.intp]) -> Iterator[tuple[str, slice]]:
        """Find the datasets that hold a run of consecutive frames.

        For each, its name is yielded, and the slice of its frames that belong to the run.
        """
        first, stop = (int(run[0]), int(run[-1]) + 1) if len(run) else (0, 0)
        for number, (start, end) in enumerate(zip(self.starts[:-1], self.starts[1:], strict=True)):
            low, high = max(first, start), min(stop, end)
            if low < high or (not len(run) and number == 0):
                yield self.datasets[number], slice(int(low - start), int(high - start))

    def _hyperslab(self, file: h5py.File, name: str, cut: slice, rows: slice, columns: slice) -> Image:
        try:
            return dataset(file, name)[cut, rows, columns]
        except OSError as error:
            said = hdf5_reason(error)
            raise FormatError(f"{self.path}: {name} cannot be read ({said}); is the file whole, its filter installed?") from error


class SummedFrames(LazyFrames):
    """Frames that are sums of `number` consecutive exposures each, for scans that repeat the exposure at each angle."""

    def __init__(self, frames: LazyFrames, number: int) -> None:
        self.frames, self.number, self.paths = frames, number, frames.paths
        self.shape = (frames.shape[0] // number, *frames.shape[1:])
        self.dtype = np.dtype(np.int64 if frames.dtype.kind in "iu" else np.float64)

    def read(self, indices: NDArray[np.intp], rows: slice, columns: slice) -> Image:
        """Read the exposures of each frame and sum them."""
        repeats = (indices[:, None] * self.number + np.arange(self.number)).ravel()
        block = self.frames.read(repeats, rows, columns)
        return block.reshape(len(indices), self.number, *block.shape[1:]).sum(axis=1, dtype=self.dtype)
