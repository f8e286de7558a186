"""Open HDF5, TIFF and numpy files, with errors that say what is wrong with the file.

The functions here know nothing of scans. h5py, tifffile and numpy do the reading; their errors become sentences such as
"truncated", "external file missing" or "compression filter missing".
"""

from __future__ import annotations

import glob
import logging
import posixpath
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import tifffile
from numpy.typing import NDArray

from braggshot.errors import FormatError

# Array of one or more images, of any type of pixel.
Image = NDArray[Any]

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Tags without which a TIFF image cannot be read. A fault in another tag, such as a detector's private one, leaves the image whole.
NEEDED_TAGS = frozenset({256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 322, 323, 324, 325, 339, 347})


@contextmanager
def open_hdf5(path: str | Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading, without a lock, because beamlines read files while they write them.

    A file that its writer has not closed is opened in the mode in which such files are read (SWMR), if it was written for it.

    Raises
    ------
    FormatError : if the file is missing, truncated or not HDF5.
    """
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        said = hdf5_reason(error)
        if "h5clear" not in said:
            raise FormatError(f"{path}: cannot be opened as HDF5 ({said}); it may be truncated or still being written.") from error
        try:
            file = h5py.File(path, "r", swmr=True, locking=False)
        except OSError:
            remedy = "its writer did not close it; copy it and run 'h5clear -s' on the copy"
            raise FormatError(f"{path}: cannot be opened as HDF5 ({said}); {remedy}.") from error
    with file:
        yield file


def hdf5_reason(error: Exception) -> str:
    """Return the cause that an HDF5 error message states in brackets."""
    return re.sub(r"^.*?\((.*)\)$", r"\1", str(error))


def is_hdf5(path: str | Path) -> bool:
    """Tell whether a file has the HDF5 signature at its start or behind a user block; the file may still be damaged.

    A user block is 512 bytes long, or 1024, 2048 and so on; MATLAB writes one.
    """
    try:
        with Path(path).open("rb") as stream:
            found = stream.read(8)
            offset = 512
            while len(found) == 8 and found != HDF5_SIGNATURE:
                stream.seek(offset)
                found, offset = stream.read(8), 2 * offset
            return found == HDF5_SIGNATURE
    except OSError:
        return False


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
        said = broken_link(file, name) or f"there is no {name}"
        remedy = ": copy it to where the link points" if said.endswith("is missing") else ""
        raise FormatError(f"{file.file.filename}: {said}{remedy}.") from error


def dataset(file: h5py.File | h5py.Group, name: str) -> h5py.Dataset:
    """Return a dataset of an open file.

    Raises
    ------
    FormatError : if nothing has that name, or if it is the name of a group.
    """
    item = node(file, name)
    if not isinstance(item, h5py.Dataset):
        raise FormatError(f"{file.file.filename}: {name} is a group, expected a dataset.")
    if item.chunks is None and item.external:  # HDF5 would look for the external files in the working folder
        opened, place, outside = item.file, item.name, item.external[0][0]
        access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
        access.set_efile_prefix(b"" if raw_file_beside(item, outside) == Path(outside) else b"${ORIGIN}")
        del item  # an open dataset keeps its prefix
        item = h5py.Dataset(h5py.h5d.open(opened.id, place.encode(), access))
    return item


def raw_file_beside(part: h5py.Dataset, name: str) -> Path:
    """Return the path of an external file of raw values: beside the HDF5 file, or in the working folder if it is only there."""
    beside = Path(part.file.filename).parent / name
    return beside if beside.exists() or not Path(name).exists() else Path(name)


def broken_link(node: h5py.Group, name: str) -> str:
    """Name the missing or damaged external file to which the link `name` leads; "" if the link leads to no external file."""
    parts = [part for part in name.split("/") if part]
    for depth, part in enumerate(parts):
        link = node.get(part, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            target = Path(node.file.filename).parent / link.filename
            return f"{name} is kept in {target}, which {'is damaged or lacks it' if target.exists() else 'is missing'}"
        if isinstance(link, h5py.SoftLink):
            rest = posixpath.join(node.name, link.path, *parts[depth + 1 :])
            return broken_link(node.file["/"], rest)
        if part not in node or not isinstance(node[part], h5py.Group):
            return ""
        node = node[part]
    return ""


def say_missing_filter(part: h5py.Dataset) -> str:
    """Name the compression filters of a dataset that are not installed, and what to install; "" if none is missing."""
    pipeline = part.id.get_create_plist()
    codes = [pipeline.get_filter(index)[0] for index in range(pipeline.get_nfilters())]
    missing = [code for code in codes if not h5py.h5z.filter_avail(code)]
    if not missing:
        return ""
    code = missing[0]
    name = next((name for name, number in getattr(hdf5plugin, "FILTERS", {}).items() if number == code), "")
    if name:
        return f"the filter {code} ({name}) is missing: pip install --upgrade hdf5plugin"
    kept = "set HDF5_PLUGIN_PATH to the folder of its plugin, or copy the file with 'h5repack -f GZIP=1' where it is installed"
    return f"the filter {code} is not one of hdf5plugin: {kept}"


def expand_pattern(path: str | Path) -> list[Path]:
    """List the files that fit a pattern such as ``frames/*.tif``; brackets in the name of a folder that exists are no pattern."""
    if not glob.has_magic(str(path)):
        return []
    parts, folder = Path(path).parts, Path()
    while parts and (folder / parts[0]).exists():
        folder, parts = folder / parts[0], parts[1:]
    return [Path(name) for name in glob.glob(str(Path(glob.escape(str(folder)), *parts)))] if parts else []


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


def tiff_series(path: Path) -> AbstractContextManager[Any]:
    """Open the series of images of a TIFF file; of several, such as a picture for previews, the one with the most pixels.

    The library tifffile reads a truncated file without an error, and only logs the fault. Here such a log message becomes an error,
    if it concerns the image.
    """
    return _opened_tiff(path, lambda tif: max(tif.series, key=lambda series: series.size))


def tiff_page(path: Path) -> AbstractContextManager[Any]:
    """Open the first page of a TIFF file; for a file of one page this takes half the time of `tiff_series`."""
    return _opened_tiff(path, lambda tif: tif.pages.first)


@contextmanager
def _opened_tiff(path: Path, choose: Callable[[Any], Any]) -> Iterator[Any]:
    with complaints_of("tifffile") as complaints:
        try:
            with tifffile.TiffFile(path) as tif:
                chosen = choose(tif)
                tags = {said: re.search(r"TiffTag (\d+) @", said) for said in complaints}
                damage = [said for said, tag in tags.items() if tag is None or int(tag[1]) in NEEDED_TAGS]
                if damage:
                    raise FormatError(f"{path}: the TIFF file is damaged or truncated ({damage[0]}).")
                yield chosen
        except (ValueError, OSError, LookupError, TypeError, struct.error, zlib.error) as error:
            raise FormatError(f"{path}: cannot be read as TIFF ({error}); it may be truncated or still being written.") from error


@contextmanager
def complaints_of(library: str) -> Iterator[list[str]]:
    """Collect what a library logs as errors, in place of showing it."""
    logger, collector = logging.getLogger(library), _Complaints(logging.ERROR)
    logger.addHandler(collector)
    propagate, logger.propagate = logger.propagate, False
    try:
        yield collector.messages
    finally:
        logger.removeHandler(collector)
        logger.propagate = propagate


class _Complaints(logging.Handler):
    """Handler of log messages that collects them in a list."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
