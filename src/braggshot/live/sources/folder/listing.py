"""Files as they appear in a folder, and whether one is whole: what the folder source needs of a file system.

A folder is listed again when its time of change moved, which works on network file systems too; change notices only make it sooner.
"""

from __future__ import annotations

import fnmatch
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggshot.errors import FormatError
from braggshot.io.files import tiff_series
from braggshot.live.sources.limits import UnusableError, counts_type, image_bytes, image_shape

IMAGE_SUFFIXES = frozenset({".tif", ".tiff", ".npy"})
HDF5_SUFFIXES = frozenset({".h5", ".hdf5", ".hdf", ".nxs", ".cxi"})
NO_FILE = (-1, -1, -1)
RELIST_SECONDS = 1.0
"""Seconds for which a folder is listed again after it changed: its time of change is coarser than the arrival of files."""


def changes(folder: Path, stop: Event) -> Iterator[None]:
    """One None at once, then one whenever something changed below `folder`, and at least every 0.15 s; ends soon after `stop`."""
    from watchfiles import watch

    yield None
    hints = watch(folder, stop_event=stop, yield_on_timeout=True, rust_timeout=150, debounce=50, step=10, watch_filter=None)
    for _ in hints:
        if stop.is_set():
            return
        yield None


@dataclass(frozen=True)
class _FolderState:
    """A folder's time of change, when that was seen first, and when the folder was listed last."""

    stamp: int = -1
    since: float = 0.0
    listed: float = 0.0


class Listing:
    """Which files below `root` are new; hidden ones, and those that do not match `pattern`, are none."""

    def __init__(self, root: Path, pattern: str = "*") -> None:
        self.root, self.pattern = root, pattern
        self._known: set[str] = set()
        self._folders: dict[str, _FolderState] = {str(root): _FolderState()}

    def new_files(self, everywhere: bool = False) -> list[Path]:
        """Files that were not there at the last call, those of one series in order, the series that began first in front.

        Parameters
        ----------
        everywhere : whether to list folders that seem to be as they were, too
        """
        paths: list[Path] = []
        folders = list(self._folders)
        for folder in folders:  # grows while it is walked: a folder that is found is listed at once
            if self._has_changed(folder) or everywhere:
                self._list(folder, paths, folders)
        return sort_by_series(paths)

    def _has_changed(self, folder: str) -> bool:
        """Whether its time of change moved; True also until it was listed once some time after that."""
        try:
            stamp = os.stat(folder).st_mtime_ns
        except OSError:
            return False
        now, state = time.monotonic(), self._folders[folder]
        since = now if stamp != state.stamp else state.since
        if stamp == state.stamp and state.listed - since >= RELIST_SECONDS:
            return False
        self._folders[folder] = _FolderState(stamp, since, now)
        return True

    def _list(self, folder: str, paths: list[Path], folders: list[str]) -> None:
        try:
            entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
        except OSError:
            return
        for entry in entries:
            if entry.path in self._known:
                continue
            if entry.is_dir(follow_symlinks=False):
                if entry.path not in self._folders:
                    self._folders[entry.path] = _FolderState()
                    folders.append(entry.path)
            elif Path(entry.name).suffix.lower() in IMAGE_SUFFIXES | HDF5_SUFFIXES:
                self._known.add(entry.path)
                if fnmatch.fnmatch(entry.name, self.pattern):
                    paths.append(Path(entry.path))


def sort_by_series(files: list[Path]) -> list[Path]:
    """Files of one series by their number, series by their oldest file."""
    oldest: dict[tuple[Path, str], int] = {}
    for path in files:
        key = (path.parent, number_of(path)[0])
        oldest[key] = min(oldest.get(key, 2**63), _modified_ns(path))
    return sorted(
        files, key=lambda path: (oldest[path.parent, number_of(path)[0]], str(path.parent), *number_of(path), path.suffix)
    )


def number_of(path: Path) -> tuple[str, int]:
    """Name without its trailing number, and that number; -1 where there is none.

    Examples
    --------
    >>> number_of(Path("S0054_00012.tif"))
    ('S0054_', 12)
    """
    stem = path.stem
    prefix = stem.rstrip("0123456789")
    digits = stem[len(prefix) :]
    return (prefix, int(digits)) if 0 < len(digits) <= 18 else (stem, -1)


def _modified_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 2**63


class Stamp:
    """Size and time of change of a file, and since when they are what they are."""

    def __init__(self, path: Path) -> None:
        self.path, self.paths, self.since = path, NO_FILE, time.monotonic()

    def has_changed(self) -> bool:
        """Whether the file is another one than at the last call."""
        try:
            paths = self.path.stat()
            stamp = (paths.st_size, paths.st_mtime_ns, paths.st_ino)
        except OSError:
            stamp = NO_FILE
        if stamp == self.paths:
            return False
        self.paths, self.since = stamp, time.monotonic()
        return True

    def is_there(self) -> bool:
        """Whether the file was there at the last look."""
        return self.paths != NO_FILE

    def is_old(self, seconds: float) -> bool:
        """Whether the last change that was seen is so long ago."""
        return time.monotonic() - self.since >= seconds

    def is_settled(self, seconds: float) -> bool:
        """Whether the file has not changed for so long, or is gone."""
        return not self.has_changed() and (not self.is_there() or self.is_old(seconds))


def read_image(path: Path) -> NDArray[Any]:
    """The one image of a TIFF or .npy file.

    Raises
    ------
    FormatError : if it cannot be read (yet).
    Unusable : if what it says of itself is not an image of counts within bounds.
    """
    if path.suffix.lower() == ".npy":
        return _read_npy(path)
    with tiff_series(path) as series:
        shape = check_image(tuple(series.shape), np.dtype(series.dtype))
        return np.asarray(series.asarray()).reshape(shape)


def check_image(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, int]:
    """(rows, columns) of an image that says it has this shape and type, if that is allowed."""
    if len(shape) < 2 or any(side != 1 for side in shape[:-2]):
        raise UnusableError("shape", f"holds {shape[:8]}, expected one image")
    sides = image_shape(*shape[-2:])
    image_bytes(sides, counts_type(dtype.name))
    return sides


def _read_npy(path: Path) -> NDArray[Any]:
    """Not memory-mapped: a file that a detector shortens under a map would end the process."""
    try:
        with path.open("rb") as stream:
            header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            version = np.lib.format.read_magic(stream)
            if version not in header:
                raise UnusableError("malformed", f"{path.name}: .npy of version {version}")
            shape, fortran, dtype = header[version](stream)
            sides = check_image(shape, dtype)
            if os.fstat(stream.fileno()).st_size < stream.tell() + image_bytes(sides, dtype):
                raise FormatError(f"{path}: shorter than it says.")
            flat = np.fromfile(stream, dtype, sides[0] * sides[1])
            return flat.reshape(sides, order="F" if fortran else "C").astype(dtype.newbyteorder("="), copy=False)
    except (ValueError, OSError, EOFError) as error:
        raise FormatError(f"{path}: cannot be read as .npy ({error}).") from error
