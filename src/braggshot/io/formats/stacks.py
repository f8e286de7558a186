"""Read stacks of images without geometry: .npy, .npz, .mat, a TIFF of many pages, or a folder or pattern of one image per frame.

The axes are (frame, row, column). In a .npz archive the counts are `data`, else `iobs` (PyNX), else the first 3D array; an array
`mask` (0 good, 1 bad) is read too. MATLAB files of versions 5 to 7 are read in the same way. Files of one image each are put in the
order of the numbers in their names (`braggshot.io.formats.numbered`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from braggshot.errors import FormatError
from braggshot.gate import explain_damage
from braggshot.io.archives import Image, Member, open_npz
from braggshot.io.axes import drop_axes, fit_mask, image_axes, refuse_odd_frames, say_dropped
from braggshot.io.files import expand_pattern, read_array, read_npy, starts_with
from braggshot.io.formats.numbered import OTHERS, find_series
from braggshot.io.frames import NPY, TIFF, ArrayFrames, LazyFrames, NpyFrames, TiffFrames
from braggshot.volumes import BoolArray, Scan

# First bytes by which files are recognised: `ZIP` for .npz archives, `MATLAB` for .mat files before version 7.3, which is HDF5.
ZIP, MATLAB = b"PK\x03\x04", b"MATLAB 5.0 MAT-file"


def can_read(path: str | Path) -> bool:
    """Tell whether the path is a numpy, MATLAB or TIFF file, or a folder or pattern of TIFF or .npy images."""
    if list_images(path):
        return True
    return starts_with(path, *NPY, *TIFF, MATLAB) or (starts_with(path, ZIP) and Path(path).suffix.lower() == ".npz")


def list_images(path: str | Path, *kinds: Sequence[str]) -> list[Path]:
    """List the images of a folder or of a pattern, in natural order; empty for a file.

    If a folder holds images of several kinds, only those of the first kind are listed.

    Parameters
    ----------
    path : folder or pattern
    kinds : suffixes of each kind; by default, TIFF and then .npy files
    """
    if Path(path).is_dir():
        files = [file for file in Path(path).iterdir() if file.is_file()]
    else:
        files = [] if Path(path).exists() else expand_pattern(path)
    by_kind = (
        [file for file in files if file.name.lower().endswith(tuple(kind))] for kind in kinds or ((".tif", ".tiff"), (".npy",))
    )
    return sorted(next(filter(None, by_kind), []), key=natural_order)


def natural_order(path: Path) -> list[tuple[int, str]]:
    """Return a sorting key that compares the numbers in file names as numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def read(path: str | Path, *, mask: str | Path | None = None) -> Scan:
    """Read a stack of images.

    Parameters
    ----------
    path : file, folder or pattern
    mask : file with the mask (0 good), of one frame or of the whole stack; replaces the mask inside a .npz

    Raises
    ------
    FormatError : if a file is damaged, or the .npz holds no 3D array.
    DataError : if the data are not 3D numbers, or the mask has another shape.
    """
    found, good = _open(Path(path))
    if mask is not None:
        good = read_array(mask, "mask", "data", most=math.prod(found.shape)) == 0
    good = None if good is None else fit_mask(good, found.shape)
    return Scan(frames=found, name=name_scan(path), valid=good)


def name_scan(path: str | Path) -> str:
    """Return the name of a scan from the name of its file, its folder, or the folder of its images."""
    return Path(path).stem.strip("*?_") or Path(path).parent.name


def _open(path: Path) -> tuple[LazyFrames, BoolArray | None]:
    files = list_images(path)
    if files:
        series = find_series(files)
        frames: LazyFrames = (NpyFrames if files[0].suffix.lower() == ".npy" else TiffFrames)(series.files)
        frames.noticed = (*series.noticed, *frames.noticed)
        return frames, None
    if starts_with(path, *TIFF):
        return TiffFrames([path]), None
    if starts_with(path, *NPY):
        return _stack(read_npy(path)), None
    with _open_arrays(path) as arrays:
        return _choose_stack(path, arrays)


def _choose_stack(path: Path, arrays: Mapping[str, Member]) -> tuple[LazyFrames, BoolArray | None]:
    """Read the counts and the mask of an archive, and no other array."""
    stacks = [name for name, array in arrays.items() if len(image_axes(array.shape)) == 3 and not OTHERS.search(name.lower())]
    name = next((name for name in ("data", "iobs", *stacks, *arrays) if name in arrays), None)
    if name is None:
        raise FormatError(f"{path}: the archive is empty, expected an array named 'data'.")
    refuse_odd_frames(arrays[name].shape, str(path))
    frames = _stack(arrays[name].read())
    if len(stacks) > 1:
        frames.noticed += (
            f"{name} was taken as the counts; {', '.join(other for other in stacks if other != name)} are there too.",
        )
    if starts_with(path, MATLAB):
        order = "the first axis is taken as the frames; if it is the last in MATLAB, save permute(data, [3 1 2])"
        frames.noticed += (f"{name} is {' x '.join(map(str, arrays[name].shape))}: {order}.",)
    return frames, arrays["mask"].read() == 0 if "mask" in arrays else None


def _stack(array: Image) -> LazyFrames:
    """Return the frames of an array; an axis of length 1 beyond the third is dropped."""
    frames = ArrayFrames(drop_axes(array))
    frames.noticed = say_dropped(array.shape)
    return frames


@contextmanager
def _open_arrays(path: Path) -> Iterator[dict[str, Member]]:
    """Open the arrays of a .npz archive, or of a MATLAB file of a version before 7.3, which is read at once."""
    if not starts_with(path, MATLAB):
        with open_npz(path) as members:
            yield members
        return
    from scipy.io import loadmat

    with explain_damage(path, ".mat"):
        arrays = {name: array for name, array in loadmat(path).items() if isinstance(array, np.ndarray)}
    yield {name: Member(array.shape, array.dtype, partial(np.asarray, array)) for name, array in arrays.items()}
