"""What the master file of a DECTRIS detector says: where the frames are, how many, at which angles, which pixels are bad."""

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
from braggshot.live.sources.folder.growing_hdf5 import superblock
from braggshot.live.sources.folder.untrusted_hdf5 import integer_in, own_dataset, own_group
from braggshot.live.sources.limits import MAX_BYTES, UnusableError, counts_type, image_bytes, image_shape
from braggshot.volumes import BoolArray, FloatArray

MEMBER_NAME = re.compile(r"(.+)_(?:master|data_(\d{6}))")
LINK_NAME = re.compile(r"data_(\d{6})")
FRAMES_PATH = "entry/data/data"
DETECTOR = "entry/instrument/detector"
MASK_PATHS = (f"{DETECTOR}/detectorSpecific/pixel_mask", f"{DETECTOR}/pixel_mask")
MAX_LINKS = 10_000
"""Data files of one set."""


def member_of(path: Path) -> tuple[str, int] | None:
    """Name of the set and number of the data file, 0 for the master; None for other files.

    Examples
    --------
    >>> member_of(Path("S54_data_000002.h5")), member_of(Path("S54_master.h5")), member_of(Path("S54.h5"))
    (('S54', 2), ('S54', 0), None)
    """
    match = MEMBER_NAME.fullmatch(path.stem)
    return (match[1], int(match[2] or 0)) if match else None


@dataclass(frozen=True)
class Master:
    """What a master file says.

    Parameters
    ----------
    links : file and path inside it of the frames, by the number of the link
    refused : links that lead elsewhere, in words
    frames : planned, None where it does not say
    rocking_angle : of every planned frame, None where it does not say [rad]
    valid : (rows, columns) True where the pixel mask is 0, None where there is none
    """

    links: Mapping[int, tuple[Path, str]]
    refused: tuple[str, ...]
    frames: int | None
    rocking_angle: FloatArray | None
    valid: BoolArray | None


def read_master(path: Path, root: Path) -> Master:
    """What a master file says.

    Raises
    ------
    FormatError : if it cannot be read (yet).
    Unusable : if it says more than is allowed.
    """
    try:
        with h5py.File(path, "r", swmr=superblock(path)[0] >= 3, locking=False) as file:
            links, refused = _links(file, path, root)
            specific = f"{DETECTOR}/detectorSpecific"
            triggers = integer_in(file, f"{specific}/ntrigger")
            frames = planned_frames(integer_in(file, f"{specific}/nimages"), 1 if triggers is None else triggers)
            valid = next((match for name in MASK_PATHS if (match := _mask(file, name)) is not None), None)
            return Master(links, refused, frames, _rocking(file, frames), valid)
    except (OSError, KeyError, RuntimeError, ValueError) as error:  # h5py has no error of its own
        raise FormatError(f"{path}: cannot be read as HDF5 ({hdf5_reason(error)}).") from error


def _links(file: h5py.File, path: Path, root: Path) -> tuple[dict[int, tuple[Path, str]], tuple[str, ...]]:
    """Files and paths of the frames, and what was refused; a master may hold frames itself."""
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
    """Whether a path, links on the way followed, lies below a folder."""
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError):
        return False


def _mask(file: h5py.File, name: str) -> BoolArray | None:
    data = own_dataset(file, name)
    if data is None or data.ndim != 2:
        return None
    image_bytes(image_shape(*data.shape), counts_type(data.dtype.name))
    if data.chunks is not None and int(np.prod(data.chunks, dtype=object)) * data.dtype.itemsize > MAX_BYTES:
        raise UnusableError("oversized", f"{name} has chunks of {data.chunks}")
    return np.asarray(data[()] == 0)


def _rocking(file: h5py.File, frames: int | None) -> FloatArray | None:
    """Angles of the first axis that turns [rad]."""
    for axis in AXES if frames else ():
        data = own_dataset(file, f"entry/sample/goniometer/{axis}")
        if data is None or data.shape != (frames,) or data.dtype.kind not in "fiu":
            continue
        values = np.asarray(data[()], float)
        if np.isfinite(values).all() and np.ptp(values) > 0:
            return values if str(data.attrs.get("units", "deg")).startswith("rad") else np.deg2rad(values)
    return None
