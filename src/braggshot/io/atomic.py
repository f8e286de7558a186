"""Write output files under a temporary name and rename them, so that a file is whole or absent.

Every writer of braggshot opens the path that `replacing` yields, or the HDF5 file that `replacing_hdf5` or `filling_hdf5` yields,
never the final path. The body of the ``with`` statement must only write, because any `OSError` in it is reported as a failure to
write. What may be replaced, how files are called, and whether the disk has room is decided here too.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import re
import resource
import shutil
import stat
import unicodedata
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from braggshot.errors import OutputError

# Advice to the user for each error number of the operating system.
_ADVICE = {
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
    errno.ENOSPC: "free some space or choose another disk",
    errno.EDQUOT: "free some space or choose another disk",
    errno.EFBIG: "choose another disk, or crop or bin the volume",
    errno.ENOTDIR: "a part of this path is a file, choose another folder",
    errno.EEXIST: "a part of this path is a file, choose another folder",
    errno.EISDIR: "this is a folder, give a file name",
    errno.ENAMETOOLONG: "choose a shorter name",
}


# Special files that must not be replaced: for each kind the function that recognises it, and its name in the error message.
_KINDS = ((stat.S_ISBLK, "a device"), (stat.S_ISCHR, "a device"), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"))


# Word that every result holds near its beginning or its end, and the length that is searched for it [bytes].
_MARK, _SEARCHED = b"braggshot", 2**16
# Room that must stay free on a disk that results are written to [bytes].
SPARE = 2**24
# Longest name of a file that file systems take, and what is kept free in it for a suffix and for numbers [bytes].
_LONGEST, _KEPT_FREE = 255, 55


def refuse_target(path: str | Path, inputs: Iterable[str | Path] = (), force: bool = True) -> None:
    """Refuse to write where a file must not be replaced: an input, a device, a FIFO or a socket.

    Parameters
    ----------
    path : file that is about to be written; of a symbolic link, its target is checked
    inputs : files that the caller reads and wants to keep; `path` may not be a hard or symbolic link to one of them either
    force : replace also a file that braggshot did not write

    Raises
    ------
    OutputError : if `path` must not be replaced; the message names what is there and what to do.
    """
    try:
        there = os.stat(path)
    except OSError:  # nothing stands there; a folder that cannot be written to is found later
        return
    for is_kind, name in _KINDS:
        if is_kind(there.st_mode):
            raise OutputError(f"{path} is {name}, not a place for a result; name a file or a folder.")
    for one in inputs:
        with contextlib.suppress(OSError):
            if os.path.samestat(there, os.stat(one)):
                raise OutputError(f"{path} would replace {one}, which is read here; choose another place.")
    if not force and stat.S_ISREG(there.st_mode) and not _is_result(path):
        raise OutputError(f"{path} is there already, and braggshot did not write it; choose another place, or add --force.")


def _is_result(path: str | Path) -> bool:
    """Tell whether braggshot wrote a file, by the word that its results hold; an empty file may be replaced too."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(_SEARCHED)
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - _SEARCHED))
            return not head or _MARK in head or _MARK in stream.read(_SEARCHED)
    except OSError:
        return False


def file_name(text: str, otherwise: str = "scan") -> str:
    """Turn a text into the name of a file, without suffix: no separators, no control characters, no leading dot, not too long."""
    safe = "".join("_" if char in "/\\:\ufffd" or unicodedata.category(char)[0] == "C" else char for char in text)
    safe = safe.encode()[: _LONGEST - _KEPT_FREE].decode(errors="ignore").strip().lstrip(".")
    return safe or otherwise


def check_room(folder: str | Path, size: int, what: str) -> None:
    """Refuse to begin what the disk, or the limit for the size of a file, has no room for.

    Parameters
    ----------
    folder : where the files will be written; it, or a folder above it, exists
    size : size of what will be written [bytes]
    what : what takes the room, for the message

    Raises
    ------
    OutputError : if there is no room.
    """
    place = Path(folder).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    usage, limit = shutil.disk_usage(place), resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    free = usage.free
    if usage.total and size + SPARE > free:  # some file systems do not tell
        raise OutputError(
            f"{folder}: {what} needs {(size + SPARE) / 1e9:.2g} GB, and {free / 1e9:.2g} GB are free; free some space or choose "
            "another disk."
        )
    if limit != resource.RLIM_INFINITY and size > limit:
        raise OutputError(f"{folder}: {what} needs {size / 1e9:.2g} GB, and a file may have {limit / 1e9:.2g} GB (ulimit -f).")


# Pattern of the names that `replacing` gives to temporary files; `sweep` removes files whose names match it.
_LEFT_OVER = re.compile(r"\..+-[0-9a-f]{8}\.\w+")


def sweep(folder: Path) -> None:
    """Remove the temporary files of killed processes from a folder; a file that a running process writes is locked, and stays."""
    for path in folder.glob(".*-*.*"):
        if _LEFT_OVER.fullmatch(path.name):
            with contextlib.suppress(OSError), path.open("rb") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: str | Path, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success the file there is renamed to `path`, on failure it is removed.

    If `path` is a symbolic link, the link stays and its target is replaced. The temporary file is hidden and keeps the suffix,
    because some libraries choose the format by the suffix. Missing parent folders are created. An older file at `path` stays
    unchanged until the new file is whole, which then gets its permissions.

    Parameters
    ----------
    path : final path of the file
    durable : wait until the disk has the file, so that it is whole even after a power cut

    Raises
    ------
    OutputError : if the file cannot be written (no permission, disk full, a folder of that name, a device).
    """
    refuse_target(path)
    target = Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)
    stem = target.stem.encode(errors="replace")[:80].decode(errors="ignore")
    temporary = target.with_name(f".{stem}-{uuid.uuid4().hex[:8]}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _create_locked(temporary):
            yield temporary
            if target.is_file():
                os.chmod(temporary, stat.S_IMODE(os.stat(target).st_mode))
            if durable:
                _wait_for_disk(temporary)
            os.replace(temporary, target)
    except OSError as error:
        said = error.strerror or str(error).partition("\n")[0]
        advice = _ADVICE.get(error.errno or 0, "choose another folder")
        raise OutputError(f"cannot write {target}: {said}; {advice}.") from error
    finally:
        with contextlib.suppress(OSError):  # the folder may be what failed; the first error is the one to report
            temporary.unlink(missing_ok=True)


def _create_locked(path: Path) -> BinaryIO:
    """Create a file, and lock it against `sweep`, which may remove it before it is locked; it is then created again."""
    while True:
        stream = path.open("xb")
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(stream, fcntl.LOCK_EX)
        if os.fstat(stream.fileno()).st_nlink:
            return stream
        stream.close()


def _wait_for_disk(path: Path) -> None:
    """Return when the disk has the content of a file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replacing_hdf5(path: str | Path, durable: bool = False) -> Iterator[h5py.File]:
    """Yield a new HDF5 file in memory; on success it is written to `path`, on failure no file is written.

    HDF5 cannot close a file on a full disk and crashes the process, whereas writing bytes only raises an error. A file that is too
    large for the memory is filled by `filling_hdf5`.

    Raises
    ------
    OutputError : if the file cannot be written.
    """
    with replacing(path, durable) as temporary, h5py.File(temporary, "w", driver="core", backing_store=False) as file:
        sign(file)
        yield file
        file.flush()
        temporary.write_bytes(file.id.get_file_image())


@contextlib.contextmanager
def filling_hdf5(path: str | Path) -> Iterator[tuple[h5py.File, CheckedStream]]:
    """Yield a new HDF5 file on disk, and what tells whether the disk took all so far; at the end the file is renamed to `path`.

    HDF5 never hears of a failure of the disk, which would crash the process. `CheckedStream.check` raises it, and so does the end.

    Raises
    ------
    OutputError : if the file cannot be written.
    """
    with replacing(path) as temporary, temporary.open("w+b", buffering=0) as raw:
        stream = CheckedStream(raw)
        with h5py.File(stream, "w") as file:
            sign(file)
            yield file, stream
        stream.check()


def sign(file: h5py.File) -> None:
    """Say in the first bytes of an HDF5 file who wrote it, as NeXus does."""
    file.attrs["creator"] = np.bytes_(_MARK)


class CheckedStream(io.RawIOBase):
    """A file on disk that keeps the first failure to write to itself, until `check` raises it; what comes later is not written."""

    def __init__(self, raw: io.FileIO) -> None:
        self._raw, self._place, self._size = raw, 0, 0
        self._failure: OSError | None = None

    def check(self) -> None:
        """Raise the first failure of the disk, if there was one."""
        if self._failure is not None:
            raise self._failure

    def write(self, data: Any) -> int:
        """Write at the present place, and claim that all was written."""
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            self._raw.seek(self._place)
            while len(left) and self._failure is None:
                left = left[self._raw.write(left) :]
        except OSError as error:
            self._failure = error
        self._place += size
        self._size = max(self._size, self._place)
        return size

    def readinto(self, buffer: Any) -> int:
        """Read from the present place; what the disk did not take reads as zeros."""
        view = memoryview(buffer).cast("B")
        self._raw.seek(self._place)
        done = self._raw.readinto(view) or 0
        view[done:] = bytes(len(view) - done)
        self._place += len(view)
        return len(view)

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place in the file."""
        self._place = place + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        return self._place

    def tell(self) -> int:
        """Return the present place."""
        return self._place

    def truncate(self, size: int | None = None) -> int:
        """Change the size that the file is said to have, and on disk where that takes no room."""
        self._size = self._place if size is None else size
        with contextlib.suppress(OSError):  # what is never written has no need of a place
            self._raw.truncate(self._size)
        return self._size
