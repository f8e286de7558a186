"""Open HDF5, TIFF and numpy files, with errors that say what is wrong with the file.

The functions here know nothing of scans. h5py, tifffile and numpy do the reading; their errors become sentences such as
"truncated", "external file missing" or "compression filter missing".
"""

from __future__ import annotations

import logging
import posixpath
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  importing it registers bitshuffle, LZ4, zstd, ... with HDF5
import numpy as np
import tifffile
from numpy.typing import NDArray

from braggshot.errors import FormatError

# Array of one or more images, of any type of pixel.
Image = NDArray[Any]


@contextmanager
def open_hdf5(path: str | Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading, without a lock, because beamlines read files while they write them.

    Raises
    ------
    FormatError : if the file is missing, truncated or not HDF5.
    """
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        said = hdf5_reason(error)
        raise FormatError(f"{path}: cannot be opened as HDF5 ({said}); it may be truncated or still being written.") from error
    with file:
        yield file


def hdf5_reason(error: Exception) -> str:
    """Return the cause that an HDF5 error message states in brackets."""
    return re.sub(r"^.*?\((.*)\)$", r"\1", str(error))


def is_hdf5(path: str | Path) -> bool:
    """Tell whether a file begins with the HDF5 signature; the file may still be damaged."""
    return starts_with(path, b"\x89HDF\r\n\x1a\n")


def starts_with(path: str | Path, *signatures: bytes) -> bool:
    """Tell whether a file begins with one of the given signatures; False if the file cannot be read."""
    try:
        with Path(path).open("rb") as stream:
            return stream.read(max(map(len, signatures))).startswith(signatures)
    except OSError:
        return False


def node(file: h5py.File | h5py.Group, name: str) -> h5py.Dataset | h5py.Group:
    """Return a dataset or a group of an open file.

    Raises
    ------
    FormatError : if nothing has that name; if a link points to a missing file, the message names that file.
    """
    try:
        return file[name]
    except (KeyError, OSError) as error:
        raise FormatError(f"{file.file.filename}: {_broken_link(file, name) or f'there is no {name}'}.") from error


def dataset(file: h5py.File | h5py.Group, name: str) -> h5py.Dataset:
    """Return a dataset of an open file.

    Raises
    ------
    FormatError : if nothing has that name, or if it is the name of a group.
    """
    item = node(file, name)
    if not isinstance(item, h5py.Dataset):
        raise FormatError(f"{file.file.filename}: {name} is a group, expected a dataset.")
    return item


def _broken_link(node: h5py.Group, name: str) -> str:
    """Name the missing or damaged external file to which the link `name` leads; "" if the link leads to no external file."""
    parts = [part for part in name.split("/") if part]
    for depth, part in enumerate(parts):
        link = node.get(part, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            target = Path(node.file.filename).parent / link.filename
            state = "is damaged or lacks it" if target.exists() else "is missing: copy it to where the link points"
            return f"{name} is kept in {target}, which {state}"
        if isinstance(link, h5py.SoftLink):
            rest = posixpath.join(node.name, link.path, *parts[depth + 1 :])
            return _broken_link(node.file["/"], rest)
        if part not in node or not isinstance(node[part], h5py.Group):
            return ""
        node = node[part]
    return ""


def check_sources(part: h5py.Dataset) -> list[Path]:
    """List the other files that hold the parts of a virtual dataset; the list is empty for an ordinary dataset.

    If one of these files is missing, an error is raised, because HDF5 would read zeros in its place.

    Raises
    ------
    FormatError : if a file is missing; the message names the first one.
    """
    if not part.is_virtual:
        return []
    folder = Path(part.file.filename).parent
    names = sorted({source.file_name for source in part.virtual_sources()} - {"."})
    missing = [name for name in names if not ((folder / name).exists() or (folder / Path(name).name).exists())]
    if missing:
        raise FormatError(
            f"{part.file.filename}: {part.name} is spread over {len(names)} files and {len(missing)} of them are missing, "
            f"first {folder / missing[0]}; copy them to where the links point."
        )
    return [place for name in names for place in (folder / name, folder / Path(name).name) if place.exists()]


def read_npy(path: str | Path) -> Image:
    """Map a .npy array into memory.

    Raises
    ------
    FormatError : if it is missing, truncated, or holds objects.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise FormatError(f"{path}: cannot be read as .npy ({error}).") from error


def read_npz(path: str | Path, keys: Sequence[str] = ()) -> dict[str, Image]:
    """Read from a .npz archive the arrays whose names are in `keys`; without `keys`, read all arrays.

    Raises
    ------
    FormatError : if it is missing, truncated, or holds objects.
    """
    try:
        with Path(path).open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files if not keys or name in keys}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise FormatError(f"{path}: cannot be read as .npz ({error}).") from error


def read_tiff(path: str | Path) -> Image:
    """Read all pages of a TIFF file.

    Raises
    ------
    FormatError : if the file is missing, truncated or not a TIFF.
    """
    with tiff_series(Path(path)) as series:
        return np.asarray(series.asarray())


def read_array(path: str | Path, *keys: str) -> Image:
    """Read a mask, a dark field or a flat field from a .npy, .npz or TIFF file.

    From a .npz archive, the first name in `keys` that the archive has is read; if it has none of them, its first array is read.

    Raises
    ------
    FormatError : if the file cannot be read, or is not .npy, .npz or TIFF.
    """
    suffix = Path(path).suffix.lower()
    if not Path(path).is_file():
        raise FormatError(f"{path}: no such file.")
    if suffix == ".npz":
        arrays = read_npz(path)
        return next((arrays[key] for key in keys if key in arrays), next(iter(arrays.values())))
    if suffix == ".npy":
        return np.asarray(read_npy(path))
    if suffix in {".tif", ".tiff"}:
        return read_tiff(path)
    raise FormatError(f"{path}: expected an array in a .npy, .npz or .tif file.")


@contextmanager
def tiff_series(path: Path) -> Iterator[Any]:
    """Open the first image series of a TIFF file.

    The library tifffile reads a truncated file without an error, and only logs the fault. Here such a log message becomes an error.
    """
    logger, complaints = logging.getLogger("tifffile"), _Complaints(logging.ERROR)
    logger.addHandler(complaints)
    propagate, logger.propagate = logger.propagate, False
    try:
        with tifffile.TiffFile(path) as tif:
            series = tif.series[0]
            if complaints.messages:
                raise FormatError(f"{path}: the TIFF file is damaged or truncated ({complaints.messages[0]}).")
            yield series
    except (ValueError, OSError, LookupError, TypeError, struct.error, zlib.error) as error:
        raise FormatError(f"{path}: cannot be read as TIFF ({error}); it may be truncated or still being written.") from error
    finally:
        logger.removeHandler(complaints)
        logger.propagate = propagate


class _Complaints(logging.Handler):
    """Handler of log messages that collects them in a list."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
