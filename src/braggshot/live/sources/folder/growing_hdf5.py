"""Read new frames from an HDF5 file while a beamline appends them; without SWMR mode the file is opened anew for each reading."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from braggshot.errors import FormatError
from braggshot.io.chunks import read_region
from braggshot.io.files import dataset, hdf5_reason, node
from braggshot.io.formats.nexus import only_stack
from braggshot.io.swmr import open_swmr
from braggshot.live.sources.folder.text_in_hdf5 import refuse_endless_text
from braggshot.live.sources.limits import MAX_BYTES, MAX_FRAMES, UnusableError, counts_type, image_bytes, image_shape
from braggshot.live.sources.runs import Stepped, read_stepped

BLOCK_BYTES = 2**25
"""Size of the blocks in which frames are read from a file [bytes]; a block holds at least one frame."""
NOT_ALLOCATED = 2**64 - 1
"""File offset that HDF5 gives for a chunk that was not written [bytes]."""


class GrowingFile:
    """A dataset that grows; each of its frames is read once.

    Parameters
    ----------
    path : path of the file
    name : path of the dataset of frames inside the file; None if the file holds only one 3D dataset
    angle : path inside the file of a dataset with one rocking angle or photon energy per frame; None if there is none. Its
        attribute ``units`` says what it is, degrees if there is no such attribute
    """

    def __init__(self, path: Path, name: str | None = None, angle: str | None = None) -> None:
        self.path, self.name, self.angle = path, name, angle
        self.taken, self.stepped = 0, Stepped()
        self._resources = ExitStack()
        self._file: h5py.File | None = None
        self._is_known = False

    def frames(self) -> Iterator[tuple[int, NDArray[Any], float | None]]:
        """Yield the index and image of each new frame, and the angle [rad] or energy [J] that `stepped` says.

        Raises
        ------
        FormatError : if the file cannot be read (yet).
        UnusableError : if the dataset does not hold images, if they are larger than allowed, or if the angles have another unit.
        """
        try:
            file = self._open()
            self.name = self.name or only_stack(file, self.path)
            data = node(file, self.name)
            if not isinstance(data, h5py.Dataset):
                raise FormatError(f"{self.path}: {self.name} is a group, expected a dataset.")
            if data.file.filename != file.filename:
                raise UnusableError("link", f"{self.name} is kept in another file")
            if file.swmr_mode:
                data.refresh()
            per_block = max(1, BLOCK_BYTES // stack_image_bytes(data))
            while self.taken < (available := count_written(data, self.taken)):
                last = min(available, self.taken + per_block)
                block = read_region(data, (slice(self.taken, last), slice(None), slice(None)))
                angles = self._angles(file, self.taken, last)
                first, self.taken = self.taken, last
                for offset, image in enumerate(block):
                    yield first + offset, image, angles[offset]
        except (OSError, KeyError, RuntimeError, ValueError) as error:  # h5py has no error of its own
            raise FormatError(f"{self.path}: cannot be read as HDF5 ({hdf5_reason(error)}).") from error
        finally:
            if self._file is not None and not self._file.swmr_mode:
                self.close()

    def close(self) -> None:
        """Close the file."""
        self._resources.close()
        self._file = None

    def is_complete(self) -> bool:
        """Tell whether the writer has closed the file; a file without SWMR mode does not show this, and always counts as open."""
        version, flags = superblock(self.path)
        return version >= 3 and not flags & 1

    def _open(self) -> h5py.File:
        """Return the file, and open it if it is not open yet; before the first time, see whether its text can be read."""
        if not self._is_known:
            refuse_endless_text(self.path, is_swmr(self.path))
            self._is_known = True
        if self._file is None:
            self._file = self._resources.enter_context(open_shared(self.path))
        return self._file

    def _angles(self, file: h5py.File, first: int, last: int) -> list[float | None]:
        """Return what frames `first` to `last` - 1 were measured at, None for a value that the file does not hold yet."""
        filled: list[float | None] = [None] * (last - first)
        if self.angle is not None:
            data = dataset(file, self.angle)
            if file.swmr_mode:
                data.refresh()
            values = np.asarray(data[first:last], float).ravel()
            self.stepped = read_stepped({"units": data.attrs.get("units", "deg")}, self.angle) or Stepped()
            filled[: len(values)] = (values * self.stepped.size).tolist()
        return filled


def path_below(root: Path, name: str) -> Path:
    """Return the path that a name leads to, if it lies below a folder.

    Raises
    ------
    UnusableError : if it does not, also by links, or if it is no file.
    """
    try:
        path = Path(name).resolve()
        is_below = path.is_relative_to(root) and (path.is_file() or not path.exists())
    except (ValueError, OSError, RuntimeError):
        is_below = False
    if not is_below:
        raise UnusableError("link", f"{name[:200]!r} names no file below {root}")
    return path


def open_shared(path: Path) -> h5py.File:
    """Open a file for reading while it may be written, in SWMR mode if it was made for that."""
    return open_swmr(path) if is_swmr(path) else h5py.File(path, "r", locking=False)


def is_swmr(path: Path) -> bool:
    """Tell whether a file was made for SWMR mode."""
    return superblock(path)[0] >= 3


def superblock(path: Path) -> tuple[int, int]:
    """Return the version and the flags of an HDF5 file's first block.

    The version is 3 or more if the file was made for SWMR. The lowest bit of the flags is set while a writer has the file open.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(12)
    except OSError:
        return 0, 0
    return (head[8], head[11]) if len(head) == 12 else (0, 0)


def stack_image_bytes(data: h5py.Dataset) -> int:
    """Return the size of one frame in a dataset of frames [bytes].

    Raises
    ------
    UnusableError : if the dataset is no stack of images within bounds, or keeps its data in other files.
    """
    if data.is_virtual or data.external:
        raise UnusableError("link", f"{data.name} is kept in other files")
    if data.ndim != 3 or data.shape[0] > MAX_FRAMES:
        raise UnusableError("shape", f"{data.name} has shape {data.shape}, expected frames, rows, columns")
    if data.chunks is not None and int(np.prod(data.chunks, dtype=object)) * data.dtype.itemsize > MAX_BYTES:
        raise UnusableError("oversized", f"{data.name} has chunks of {data.chunks}")
    return image_bytes(image_shape(*data.shape[1:]), counts_type(data.dtype.name))


def count_written(data: h5py.Dataset, first: int) -> int:
    """Count the frames that were written, up to the first place in the file that is still empty."""
    frames = int(data.shape[0])
    if data.chunks is None or data.chunks[0] != 1:
        return frames
    for index in range(first, frames):
        if data.id.get_chunk_info_by_coord((index, 0, 0)).byte_offset in {None, NOT_ALLOCATED}:
            return index
    return frames
