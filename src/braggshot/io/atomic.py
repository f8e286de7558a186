"""Write output files under a temporary name and rename them, so that a file is whole or absent.

Every writer of braggshot opens the path that `replacing` yields, or the HDF5 file that `replacing_hdf5` yields, never the final
path. The body of the ``with`` statement must only write, because any `OSError` in it is reported as a failure to write.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import h5py

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


def refuse_target(path: str | Path, inputs: Iterable[str | Path] = ()) -> None:
    """Refuse to write where a file must not be replaced: an input, a device, a FIFO or a socket.

    Parameters
    ----------
    path : file that is about to be written; of a symbolic link, its target is checked
    inputs : files that the caller reads and wants to keep; `path` may not be a hard or symbolic link to one of them either

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


# Pattern of the names that `replacing` gives to temporary files; `sweep` removes files whose names match it.
_LEFT_OVER = re.compile(r"\..+-[0-9a-f]{8}\.\w+")


def sweep(folder: Path) -> None:
    """Remove the temporary files of a killed process from a folder that no other process writes to."""
    for path in folder.glob(".*-*.*"):
        if _LEFT_OVER.fullmatch(path.name):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success the file there is renamed to `path`, on failure it is removed.

    If `path` is a symbolic link, the link stays and its target is replaced. The temporary file is hidden and keeps the suffix,
    because some libraries choose the format by the suffix. Missing parent folders are created. An older file at `path` stays
    unchanged until the new file is whole.

    Parameters
    ----------
    path : final path of the file

    Raises
    ------
    OutputError : if the file cannot be written (no permission, disk full, a folder of that name, a device).
    """
    refuse_target(path)
    target = Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)
    temporary = target.with_name(f".{target.stem[:80]}-{uuid.uuid4().hex[:8]}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        said = error.strerror or str(error).partition("\n")[0]
        advice = _ADVICE.get(error.errno or 0, "choose another folder")
        raise OutputError(f"cannot write {target}: {said}; {advice}.") from error
    finally:
        with contextlib.suppress(OSError):  # the folder may be what failed; the first error is the one to report
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_hdf5(path: str | Path) -> Iterator[h5py.File]:
    """Yield a new HDF5 file; on success it is written to `path`, on failure no file is written.

    The file is built in memory. HDF5 cannot close a file on a full disk and crashes the process, whereas writing bytes only raises
    an error.

    Raises
    ------
    OutputError : if the file cannot be written.
    """
    with replacing(path) as temporary, h5py.File(temporary, "w", driver="core", backing_store=False) as file:
        yield file
        file.flush()
        temporary.write_bytes(file.id.get_file_image())
