"""Open HDF5, TIFF and .npy files, with errors that say what is wrong with the file.

The functions here know nothing of scans. h5py, tifffile and numpy do the reading; their errors become sentences such as
"truncated", "external file missing" or "compression filter missing".
"""

from __future__ import annotations

import glob
import logging
import math
import os
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import tifffile

from braggshot.errors import BraggshotError, DataError, FormatError
from braggshot.gate import explain_damage, is_regular, refuse_irregular, refuse_oversized, shorten
from braggshot.io.archives import Image, open_npz
from braggshot.io.swmr import open_swmr

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
MOST_LINKS = 16  # number of soft links that HDF5 follows, one after the other
MOST_PAGES = 100_000  # number of images of one TIFF file
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
    refuse_irregular(path)
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        said = hdf5_reason(error)
        if "h5clear" not in said:
            raise FormatError(f"{path}: cannot be opened as HDF5 ({said}); it may be truncated or still being written.") from error
        try:
            file = open_swmr(path)
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
    if not is_regular(path):
        return False
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
    if not is_regular(path):
        return False
    try:
        with Path(path).open("rb") as stream:
            return stream.read(max(map(len, signatures))).startswith(signatures)
    except OSError:
        return False


def node(file: h5py.File | h5py.Group, name: str) -> h5py.Dataset | h5py.Group:
    """Return a dataset or a group of an open file.

    Raises
    ------
    FormatError : if nothing has that name, if links lead in a circle, or if a link leads to what is no regular file; if it leads to
        a missing file, the message names that file.
    """
    try:
        refuse_bad_links(file, name)
        return file[name]
    except (KeyError, OSError, ValueError, RuntimeError) as error:
        said = broken_link(file, name) or f"there is no {name}"
        remedy = ": copy it to where the link points" if said.endswith("is missing") else ""
        raise FormatError(f"{file.file.filename}: {said}{remedy}.") from error


def find_node(file: h5py.File | h5py.Group | None, name: str) -> h5py.Dataset | h5py.Group | None:
    """Return a dataset or a group of an open file; None if nothing can be reached by that name, or if `file` is None."""
    try:
        return None if file is None else node(file, name)
    except (FormatError, OSError, ValueError, RuntimeError):  # HDF5 cannot follow a link
        return None


def refuse_bad_links(group: h5py.Group, name: str, followed: int = 0) -> None:
    """Refuse a path inside a file that leads through a link to what is no regular file, or through links in a circle.

    Raises
    ------
    FormatError : if it does; the message names the link.
    """
    parts = [part for part in name.split("/") if part]
    here: Any = group.file["/"] if name.startswith("/") else group
    for depth, part in enumerate(parts):
        if not isinstance(here, h5py.Group):
            return
        link = here.get(part, getlink=True)
        if isinstance(link, h5py.SoftLink):
            if followed >= MOST_LINKS:
                raise FormatError(f"{group.file.filename}: the links of {name} lead in a circle.")
            refuse_bad_links(here, "/".join([link.path, *parts[depth + 1 :]]), followed + 1)
            return
        if isinstance(link, h5py.ExternalLink):
            target = Path(here.file.filename).parent / link.filename
            if target.exists():
                refuse_irregular(target)
        here = here.get(part)


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
    """Return the path of an external file of raw values: beside the HDF5 file, or in the working folder if it is only there.

    Raises
    ------
    FormatError : if it lies outside of these folders, whose bytes would become counts, or is no regular file.
    """
    folder = Path(part.file.filename).parent
    if not is_below(folder / name, folder):
        raise FormatError(f"{part.file.filename}: {part.name} is kept in {name}, outside of its folder; copy that file beside it.")
    place = folder / name if (folder / name).exists() or not Path(name).exists() else Path(name)
    if place.exists():
        refuse_irregular(place)
    return place


def is_below(path: Path, folder: Path) -> bool:
    """Tell whether a path names something in a folder or below it, by its text; links are not followed."""
    inside, outer = os.path.abspath(path), os.path.abspath(folder)
    return os.path.commonpath([inside, outer]) == outer


def source_files(part: h5py.Dataset, name: str) -> list[Path | None]:
    """List the files that are there of one source of a virtual dataset; None stands for the file of the dataset itself.

    The files are searched where HDF5 does: beside the dataset's own file, by path and by name. Of a name such as part_%b.h5, whose
    numbers HDF5 counts, all are listed.

    Raises
    ------
    FormatError : if one is no regular file.
    """
    if name == ".":
        return [None]
    folder = Path(part.file.filename).parent
    if "%" in name:
        places = expand_pattern(folder / re.sub("%[^%]", "*", glob.escape(name)))
    else:
        places = [place for place in (folder / name, folder / Path(name).name) if place.exists()][:1]
    for place in places:
        refuse_irregular(place)
    return [*places]


def follow_trail(part: h5py.Dataset, trail: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Return the virtual datasets, by file and path, that led to this one, and this one.

    Raises
    ------
    DataError : if it is among those that led to it; HDF5 would follow the circle until the program crashes.
    """
    here = (os.path.realpath(part.file.filename), str(part.name))
    if here in trail:
        raise DataError(f"{part.file.filename}: the virtual dataset {part.name} leads back to itself.")
    return (*trail, here)


def broken_link(node: h5py.Group, name: str, followed: int = 0) -> str:
    """Name the missing or damaged external file to which the link `name` leads; "" if the link leads to no external file."""
    if followed > MOST_LINKS:
        return ""
    parts = [part for part in name.split("/") if part]
    for depth, part in enumerate(parts):
        link = node.get(part, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            target = Path(node.file.filename).parent / link.filename
            return f"{name} is kept in {target}, which {'is damaged or lacks it' if target.exists() else 'is missing'}"
        if isinstance(link, h5py.SoftLink):
            rest = posixpath.join(node.name, link.path, *parts[depth + 1 :])
            return broken_link(node.file["/"], rest, followed + 1)
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
    refuse_irregular(path)
    with explain_damage(path, ".npy"):
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(found, np.ndarray):
        raise FormatError(f"{path}: is an archive, expected one array (.npy).")
    return found


def read_array(path: str | Path, *keys: str, most: int | None = None) -> Image:
    """Read a mask, a dark field or a flat field from a .npy, .npz or TIFF file.

    From a .npz archive, the first name in `keys` that the archive has is read; if it has none of them, its first array is read.
    From a result CXI, the gains of pixels are read that its scan told.

    Parameters
    ----------
    path : the file
    keys : names in an archive
    most : largest number of values, such as that of a frame; a larger array is not read

    Raises
    ------
    FormatError : if the file cannot be read, or is not .npy, .npz or TIFF.
    DataError : if the array is larger than `most`.
    """
    suffix = Path(path).suffix.lower()
    refuse_irregular(path)
    if suffix == ".npz":
        with open_npz(path) as members:
            if not members:
                raise FormatError(f"{path}: the archive is empty.")
            member = next((members[key] for key in keys if key in members), next(iter(members.values())))
            _refuse_more(path, member.shape, most)
            return member.read()
    if suffix == ".npy":
        array = read_npy(path)
        _refuse_more(path, array.shape, most)
        return array
    if suffix in {".tif", ".tiff"}:
        with tiff_series(Path(path)) as series:
            _refuse_more(path, series.shape, most)
            return np.asarray(series.asarray())
    if suffix == ".cxi" and "flat" in keys:
        with open_hdf5(path) as file:
            gain = dataset(file, "entry_1/instrument_1/detector_1/gain")
            _refuse_more(path, gain.shape, most)
            return np.asarray(gain[()])
    raise FormatError(f"{path}: expected an array in a .npy, .npz or .tif file.")


def _refuse_more(path: str | Path, shape: Sequence[int], most: int | None) -> None:
    if most is not None and math.prod(shape) > most:
        size = " x ".join(map(str, shape))
        raise DataError(f"{path}: has shape {size}, more than the {most} values that fit the frames.")


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
    refuse_irregular(path)
    with complaints_of("tifffile") as complaints:
        try:
            with tifffile.TiffFile(path) as tif:
                if len(tif.pages) > MOST_PAGES:
                    raise FormatError(
                        f"{path}: declares {len(tif.pages)} images, at most {MOST_PAGES} are read from one TIFF file."
                    )
                chosen = choose(tif)
                tags = {said: re.search(r"TiffTag (\d+) @", said) for said in complaints}
                damage = [said for said, tag in tags.items() if tag is None or int(tag[1]) in NEEDED_TAGS]
                if damage:
                    raise FormatError(f"{path}: the TIFF file is damaged or truncated ({shorten(damage[0])}).")
                refuse_oversized(f"{path}: one image", _image_bytes(chosen), tif.filehandle.size)
                yield chosen
        except BraggshotError:
            raise
        except Exception as error:  # tifffile lets whatever its parser met escape
            said = shorten(error)
            raise FormatError(f"{path}: cannot be read as TIFF ({said}); it may be truncated or still being written.") from error


def _image_bytes(chosen: Any) -> int:
    page = chosen if isinstance(chosen, tifffile.TiffPage) else chosen.keyframe
    return math.prod(page.shape) * (page.dtype.itemsize if page.dtype is not None else 1)


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
