"""Read the master file of a DECTRIS detector: the files with its frames, number of planned frames, rocking angles, bad pixels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from braggshot.errors import FormatError
from braggshot.io.files import hdf5_reason
from braggshot.live.sources.dectris.series import AXES, planned_frames
from braggshot.live.sources.folder.growing_hdf5 import is_swmr, open_shared
from braggshot.live.sources.folder.text_in_hdf5 import refuse_endless_text
from braggshot.live.sources.folder.untrusted_hdf5 import integer_in, own_dataset, own_group
from braggshot.live.sources.limits import MAX_BYTES, UnusableError, counts_type, image_bytes, image_shape
from braggshot.volumes import BoolArray, FloatArray

MEMBER_NAME = re.compile(r"(.+)_(?:master|data_(\d{6}))")
"""Pattern of the names, without suffix, of the master file and data files of a DECTRIS scan."""
LINK_NAME = re.compile(r"data_(\d{6})")
"""Pattern of the name by which a master file links to a data file."""
FRAMES_PATH = "entry/data/data"
"""HDF5 path of the frames in a data file."""
DETECTOR = "entry/instrument/detector"
"""HDF5 path of the detector's group in a master file."""
MASK_PATHS = (f"{DETECTOR}/detectorSpecific/pixel_mask", f"{DETECTOR}/pixel_mask")
"""HDF5 paths at which a master file may hold the pixel mask."""
MAX_LINKS = 10_000
"""Largest number of data files of one scan."""


def member_of(path: Path) -> tuple[str, int] | None:
    """Split the name of a DECTRIS file into the name of the scan and the number of the data file; None for other files.

    The number of a master file is 0.

    Examples
    --------
    >>> member_of(Path("S54_data_000002.h5")), member_of(Path("S54_master.h5")), member_of(Path("S54.h5"))
    (('S54', 2), ('S54', 0), None)
    """
    match = MEMBER_NAME.fullmatch(path.stem)
    return (match[1], int(match[2] or 0)) if match else None


@dataclass(frozen=True)
class Master:
    """The content of a master file.

    Parameters
    ----------
    links : number of a link -> the data file, and the path of the frames inside that file
    refused : one line of text for each link that leads out of the watched folder
    frames : number of planned frames; None if the file does not hold this number
    rocking_angle : rocking angle of every planned frame [rad]; None if the file does not hold the angles
    valid : (rows, columns) True where the pixel mask is 0; None if there is no mask
    """

    links: Mapping[int, tuple[Path, str]]
    refused: tuple[str, ...]
    frames: int | None
    rocking_angle: FloatArray | None
    valid: BoolArray | None


def read_master(path: Path, root: Path) -> Master:
    """Read a master file, whose links may not leave the folder `root`.

    Raises
    ------
    FormatError : if the file cannot be read (yet).
    UnusableError : if a part of the file is larger than allowed.
    """
    refuse_endless_text(path, is_swmr(path))
    try:
        with open_shared(path) as file:
            links, refused = _links(file, path, root)
            specific = f"{DETECTOR}/detectorSpecific"
            triggers = integer_in(file, f"{specific}/ntrigger")
            frames = planned_frames(integer_in(file, f"{specific}/nimages"), 1 if triggers is None else triggers)
            valid = next((match for name in MASK_PATHS if (match := _mask(file, name)) is not None), None)
            return Master(links, refused, frames, _rocking(file, frames), valid)
    except (OSError, KeyError, RuntimeError, ValueError) as error:  # h5py has no error of its own
        raise FormatError(f"{path}: cannot be read as HDF5 ({hdf5_reason(error)}).") from error


def _links(file: h5py.File, path: Path, root: Path) -> tuple[dict[int, tuple[Path, str]], tuple[str, ...]]:
    """Return the data files that a master file links to, by the number of the link, and a line of text for each refused link.

    If the master file itself holds frames, it is returned like a data file.
    """
    group = own_group(file, "entry/data")
    links: dict[int, tuple[Path, str]] = {}
    refused: list[str] = []
    if group is None:
        return links, ()
    names = [name for name in group if LINK_NAME.fullmatch(name)]
    if len(names) > MAX_LINKS:
        raise UnusableError("oversized", f"{len(names)} data files, at most {MAX_LINKS}")
    for name in names:
        link = group.get(name, getlink=True)
        number = int(name[-6:])
        if isinstance(link, h5py.HardLink):
            links[number] = (path, f"entry/data/{name}")
        elif isinstance(link, h5py.ExternalLink) and is_inside(root, path.parent / link.filename):
            links[number] = (path.parent / link.filename, link.path)
        else:
            refused.append(f"{path.name}: {name} leads out of the watched folder")
    if not names and "data" in group and isinstance(group.get("data", getlink=True), h5py.HardLink):
        data = group["data"]
        if isinstance(data, h5py.Dataset) and not data.is_virtual:
            links[1] = (path, FRAMES_PATH)
    return links, tuple(refused)


def is_inside(root: Path, path: Path) -> bool:
    """Tell whether a path lies below a folder, after following symbolic links."""
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError):
        return False


def _mask(file: h5py.File, name: str) -> BoolArray | None:
    """Return the valid pixels (rows, columns): True where the pixel mask is 0; None if there is no mask."""
    data = own_dataset(file, name)
    if data is None or data.ndim != 2:
        return None
    image_bytes(image_shape(*data.shape), counts_type(data.dtype.name))
    if data.chunks is not None and int(np.prod(data.chunks, dtype=object)) * data.dtype.itemsize > MAX_BYTES:
        raise UnusableError("oversized", f"{name} has chunks of {data.chunks}")
    return np.asarray(data[()] == 0)


def _rocking(file: h5py.File, frames: int | None) -> FloatArray | None:
    """Return the angles of the first goniometer axis that turns during the scan [rad]; None if none does."""
    for axis in AXES if frames else ():
        data = own_dataset(file, f"entry/sample/goniometer/{axis}")
        if data is None or data.shape != (frames,) or data.dtype.kind not in "fiu":
            continue
        values = np.asarray(data[()], float)
        if np.isfinite(values).all() and np.ptp(values) > 0:
            return values if str(data.attrs.get("units", "deg")).startswith("rad") else np.deg2rad(values)
    return None
