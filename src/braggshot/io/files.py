"""Opening what beamlines write: HDF5, TIFF and numpy files, with errors that say what is wrong with the file.

Nothing here knows what a scan is. h5py, tifffile and numpy do the reading; these functions add the words: truncated, missing
external file, missing filter.
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

Image = NDArray[Any]


@contextmanager
def open_hdf5(path: str | Path) -> Iterator[h5py.File]:
    """An HDF5 file open for reading, without locks: beamlines read while they write.

    Raises
    ------
    FormatError : if it is missing, truncated or not HDF5.
    """
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        said = hdf5_reason(error)
        raise FormatError(f"{path}: cannot be opened as HDF5 ({said}); it may be truncated or still being written.") from error
    with file:
        yield file


def hdf5_reason(error: Exception) -> str:
    """The part of an HDF5 message that says what happened: what stands in its brackets."""
    return re.sub(r"^.*?\((.*)\)$", r"\1", str(error))


def is_hdf5(path: str | Path) -> bool:
    """Whether a file begins like HDF5, be it whole or not."""
    return starts_with(path, b"\x89HDF\r\n\x1a\n")


def starts_with(path: str | Path, *signatures: bytes) -> bool:
    """Whether a readable file begins with one of the signatures."""
    try:
        with Path(path).open("rb") as stream:
            return stream.read(max(map(len, signatures))).startswith(signatures)
    except OSError:
        return False


def node(file: h5py.File | h5py.Group, name: str) -> h5py.Dataset | h5py.Group:
    """A dataset or group of an open file.

    Raises
    ------
    FormatError : if there is none of that name; where a link leads to a file that is not there, the text names that file.
    """
    try:
        return file[name]
    except (KeyError, OSError) as error:
        raise FormatError(f"{file.file.filename}: {_broken_link(file, name) or f'there is no {name}'}.") from error


def dataset(file: h5py.File | h5py.Group, name: str) -> h5py.Dataset:
    """A dataset of an open file.

    Raises
    ------
    FormatError : as `node`, and if it is a group.
    """
    found = node(file, name)
    if not isinstance(found, h5py.Dataset):
        raise FormatError(f"{file.file.filename}: {name} is a group, expected a dataset.")
    return found


def _broken_link(node: h5py.Group, name: str) -> str:
    """Which external file is missing behind `name`, following soft links; empty if it is not that."""
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
    """List the other files that hold a virtual dataset; refuse one with a missing file, which HDF5 would read as zeros.

    Raises
    ------
    FormatError : naming the first file that is missing.
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
    """A .npy array, memory-mapped.

    Raises
    ------
    FormatError : if it is missing, truncated, or holds objects.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise FormatError(f"{path}: cannot be read as .npy ({error}).") from error


def read_npz(path: str | Path, keys: Sequence[str] = ()) -> dict[str, Image]:
    """Arrays of a .npz archive: those of `keys` that it holds, or all of them.

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
    """All of a TIFF file.

    Raises
    ------
    FormatError : if it is missing, truncated or not a TIFF.
    """
    with tiff_series(Path(path)) as series:
        return np.asarray(series.asarray())


def read_array(path: str | Path, *keys: str) -> Image:
    """A mask, a dark or a flat field: .npy, TIFF, or .npz (the first of `keys` that it holds, else its first array).

    Raises
    ------
    FormatError : if it cannot be read, or is of another kind.
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
    """The first image series of a TIFF file; what tifffile only logs (it shortens a truncated file) is an error here."""
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
    """Keeps what is logged."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
