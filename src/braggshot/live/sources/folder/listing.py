"""List the files of a folder as they appear, and tell whether a file is complete.

A folder is listed again when its modification time has changed. This works on network file systems too. Where the operating system
reports changes, the folder is looked at sooner.
"""

from __future__ import annotations

import fnmatch
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggshot.errors import FormatError
from braggshot.gate import explain_damage
from braggshot.io.files import tiff_series
from braggshot.live.sources.limits import UnusableError, counts_type, image_bytes, image_shape

IMAGE_SUFFIXES = frozenset({".tif", ".tiff", ".npy"})
"""Suffixes of files that hold one image each."""
HDF5_SUFFIXES = frozenset({".h5", ".hdf5", ".hdf", ".nxs", ".cxi"})
"""Suffixes of HDF5 files, which may grow."""
NO_FILE = (-1, -1, -1)
"""Values used for the size, modification time and inode of a file that does not exist, or is no regular file."""
UNWATCHED_SECONDS = 2.0
"""Time for which a folder is only listed after its changes could not be watched [s]."""
RELIST_SECONDS = 1.0
"""Time for which a folder is listed again and again after a change [s], as a coarse modification time may hide new files."""


def changes(folder: Path, stop: Event) -> Iterator[None]:
    """Yield None immediately, then at each change below `folder` and at least every 0.15 s; end soon after `stop` is set.

    Where the operating system does not report changes, or reports a name that is not UTF-8, only the clock is left for a while.
    """
    from watchfiles import watch

    yield None
    while not stop.is_set():
        try:
            for _ in watch(
                folder, stop_event=stop, yield_on_timeout=True, rust_timeout=150, debounce=50, step=10, watch_filter=None
            ):
                if stop.is_set():
                    return
                yield None
        except (OSError, RuntimeError):  # the folder is gone, or the library cannot read a name
            until = time.monotonic() + UNWATCHED_SECONDS
            while time.monotonic() < until and not stop.wait(0.15):
                yield None


@dataclass(frozen=True)
class _FolderState:
    """The modification time of a folder, when this value was first seen, and when the folder was last listed."""

    stamp: int = -1
    since: float = 0.0
    listed: float = 0.0


class Listing:
    """The files below `root` that match `pattern`; hidden files and folders are left out."""

    def __init__(self, root: Path, pattern: str = "*") -> None:
        self.root, self.pattern = root, pattern
        self.refused: list[Path] = []  # FIFOs, devices and sockets, which would hold up who opens them
        self._known: set[str] = set()
        self._folders: dict[str, _FolderState] = {str(root): _FolderState()}

    def new_files(self, everywhere: bool = False) -> list[Path]:
        """Return the files that have appeared since the last call.

        The files of one series stand together, in the order of their numbers; the series that began first comes first.

        Parameters
        ----------
        everywhere : also list folders that seem unchanged
        """
        paths: list[Path] = []
        folders = list(self._folders)
        for folder in folders:  # the list grows in this loop, so that a new folder is listed at once
            if self._has_changed(folder) or everywhere:
                self._list(folder, paths, folders)
        return sort_by_series(paths)

    def _has_changed(self, folder: str) -> bool:
        """Tell whether a folder has to be listed, and record that it is listed now.

        It has to be listed if its modification time has changed, and again until about 1 s after this change was seen.
        """
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
        """Add the new files of a folder to `paths`, and its new subfolders to `folders`."""
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
                if is_special(entry.path):
                    self.refused.append(Path(entry.path))
                elif fnmatch.fnmatch(entry.name, self.pattern):
                    paths.append(Path(entry.path))


def is_special(path: str | Path) -> bool:
    """Tell whether a path is there and leads to anything but a regular file."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def sort_by_series(files: list[Path]) -> list[Path]:
    """Sort files: the files of one series by their number, and the series by the time of their oldest file, oldest first."""
    oldest: dict[tuple[Path, str], int] = {}
    for path in files:
        key = (path.parent, number_of(path)[0])
        oldest[key] = min(oldest.get(key, 2**63), _modified_ns(path))
    return sorted(
        files, key=lambda path: (oldest[path.parent, number_of(path)[0]], str(path.parent), *number_of(path), path.suffix)
    )


def number_of(path: Path) -> tuple[str, int]:
    """Split a file name, without suffix, into the part before its trailing number, and the number; -1 if there is no number.

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
    """Return the modification time of a file [ns]; a very late time if the file is gone."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 2**63


class Stamp:
    """The size and modification time of a file, and the time since when both are unchanged."""

    def __init__(self, path: Path) -> None:
        self.path, self.paths, self.since = path, NO_FILE, time.monotonic()

    def has_changed(self) -> bool:
        """Read size and modification time of the file, and tell whether they have changed since the last call."""
        try:
            paths = self.path.stat()
            stamp = (paths.st_size, paths.st_mtime_ns, paths.st_ino) if stat.S_ISREG(paths.st_mode) else NO_FILE
        except OSError:
            stamp = NO_FILE
        if stamp == self.paths:
            return False
        self.paths, self.since = stamp, time.monotonic()
        return True

    def is_there(self) -> bool:
        """Tell whether the file existed when it was last looked at."""
        return self.paths != NO_FILE

    def is_old(self, seconds: float) -> bool:
        """Tell whether the last change was seen at least `seconds` ago."""
        return time.monotonic() - self.since >= seconds

    def is_settled(self, seconds: float) -> bool:
        """Look at the file; return True if it has not changed for `seconds`, or if it no longer exists."""
        return not self.has_changed() and (not self.is_there() or self.is_old(seconds))


def read_image(path: Path) -> NDArray[Any]:
    """Read a TIFF or .npy file that holds one image.

    Raises
    ------
    FormatError : if the file cannot be read (yet).
    UnusableError : if the file does not hold one image of counts within bounds.
    """
    if path.suffix.lower() == ".npy":
        return _read_npy(path)
    with tiff_series(path) as series:
        shape = check_image(tuple(series.shape), np.dtype(series.dtype))
        return np.asarray(series.asarray()).reshape(shape)


def check_image(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, int]:
    """Check the shape and number type that a file claims for its image, and return (rows, columns); raise if not allowed."""
    if len(shape) < 2 or any(side != 1 for side in shape[:-2]):
        raise UnusableError("shape", f"holds {shape[:8]}, expected one image")
    sides = image_shape(*shape[-2:])
    image_bytes(sides, counts_type(dtype.name))
    return sides


def _read_npy(path: Path) -> NDArray[Any]:
    """Read an image from a .npy file, without a memory map: if a mapped file were shortened, this process would crash."""
    with explain_damage(path, ".npy"), path.open("rb") as stream:
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
