"""Write beside, then rename: an output file is whole or it is not there.

Every writer of braggshot opens the path that `replacing` yields, or the HDF5 file that `replacing_hdf5` yields, and never the final
path. The body of the ``with`` only writes: whatever `OSError` it raises is reported as a failure to write.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import h5py

from braggshot.errors import OutputError

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


_LEFT_OVER = re.compile(r"\..+-[0-9a-f]{8}\.\w+")


def sweep(folder: Path) -> None:
    """Remove the temporary files that a killed process left in a folder that nobody else writes to."""
    for path in folder.glob(".*-*.*"):
        if _LEFT_OVER.fullmatch(path.name):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it becomes `path`, on any failure it is removed.

    The temporary file is hidden and keeps the suffix, because some libraries choose the format by it. Missing parent folders are
    made. An older file at `path` stays as it was until the new one is whole.

    Parameters
    ----------
    path : where the finished file shall be

    Raises
    ------
    OutputError : if the file cannot be written (no permission, disk full, a folder of that name).
    """
    target = Path(path)
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
    """Yield a new HDF5 file; on success it is at `path`, on any failure nothing is.

    The file is built in memory: HDF5 cannot close a file on a full disk and takes the process with it, whereas writing bytes fails
    cleanly.

    Raises
    ------
    OutputError : as `replacing`.
    """
    with replacing(path) as temporary, h5py.File(temporary, "w", driver="core", backing_store=False) as file:
        yield file
        file.flush()
        temporary.write_bytes(file.id.get_file_image())
