"""Read arrays from .npz archives; what an array declares is compared with the archive before it is read."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from braggshot.errors import FormatError
from braggshot.gate import explain_damage, refuse_irregular, refuse_oversized

# Array of one or more images, of any type of pixel.
Image = NDArray[Any]


class Member(NamedTuple):
    """Array in an archive that is not read yet: its shape, its type, and the function that reads it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[], Image]


@contextmanager
def open_npz(path: str | Path) -> Iterator[dict[str, Member]]:
    """Open a .npz archive and yield its arrays by name; only their heads are read until one is asked for.

    Raises
    ------
    FormatError : if it is missing, truncated, or encrypted.
    """
    refuse_irregular(path)
    with explain_damage(path, ".npz"), zipfile.ZipFile(path) as archive:
        names = {item.filename.removesuffix(".npy"): item for item in archive.infolist() if item.filename.endswith(".npy")}
        yield {name: _look_at_member(path, archive, item) for name, item in names.items()}


def _look_at_member(path: str | Path, archive: zipfile.ZipFile, item: zipfile.ZipInfo) -> Member:
    with archive.open(item) as stream:
        version = np.lib.format.read_magic(stream)
        head = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if head is None:  # names of fields that are not ASCII: no counts
            return Member((), np.dtype(object), lambda: np.zeros(()))
        shape, _, dtype = head(stream)
        size = dtype.itemsize * math.prod(shape)

    def read() -> Image:
        if size > item.file_size and not dtype.hasobject:
            raise FormatError(f"{path}: {item.filename} declares {size} bytes and holds {item.file_size}; is the file whole?")
        refuse_oversized(f"{path}: {item.filename}", size, Path(path).stat().st_size)
        with archive.open(item) as stream:
            return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))

    return Member(shape, dtype, read)
