"""Read stacks of images without geometry: .npy, .npz, a TIFF of many pages, or a folder or pattern of one image per frame.

The axes are (frame, row, column). In a .npz archive the counts are `data`, else `iobs` (PyNX), else the first 3D array; an array
`mask` (0 good, 1 bad) is read too. Files of one image each are put in natural order: scan_9.tif before scan_10.tif.
"""

from __future__ import annotations

import glob
import re
from pathlib import Path

import numpy as np

from braggshot.errors import DataError, FormatError
from braggshot.io.files import read_array, read_npy, read_npz, starts_with
from braggshot.io.frames import ArrayFrames, LazyFrames, NpyFrames, TiffFrames
from braggshot.volumes import BoolArray, Scan

# First bytes by which files are recognised: `TIFF` for TIFF files, `NPY` for .npy files, `ZIP` for .npz archives.
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
NPY, ZIP = b"\x93NUMPY", b"PK\x03\x04"


def can_read(path: str | Path) -> bool:
    """Tell whether the path is a numpy or TIFF file, or a folder or pattern of such images."""
    files = list_images(path)
    if files:
        return starts_with(files[0], NPY, *TIFF)
    return starts_with(path, NPY, *TIFF) or (starts_with(path, ZIP) and Path(path).suffix.lower() == ".npz")


def list_images(path: str | Path) -> list[Path]:
    """List the images (.tif, .tiff, .npy) of a folder or of a pattern, in natural order; empty for a file.

    If a folder holds both TIFF and .npy files, only the TIFF files are listed.
    """
    if Path(path).is_dir():
        files = [file for file in Path(path).iterdir() if file.is_file()]
    else:
        files = [Path(name) for name in glob.glob(str(path))] if glob.has_magic(str(path)) and not Path(path).exists() else []
    by_kind = [[file for file in files if file.suffix.lower() in kind] for kind in ((".tif", ".tiff"), (".npy",))]
    return sorted(by_kind[0] or by_kind[1], key=natural_order)


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
    if found.dtype.kind not in "biuf":
        raise DataError(f"{path}: holds {found.dtype} values, expected counts; give |F|^2, not the complex amplitude.")
    if mask is not None:
        good = np.asarray(read_array(mask, "mask", "data")) == 0
    return Scan(frames=found, name=Path(path).stem.strip("*?_") or Path(path).parent.name, valid=good)


def _open(path: Path) -> tuple[LazyFrames, BoolArray | None]:
    files = list_images(path)
    if files:
        return (NpyFrames if files[0].suffix.lower() == ".npy" else TiffFrames)(files), None
    if starts_with(path, *TIFF):
        return TiffFrames([path]), None
    if starts_with(path, NPY):
        return ArrayFrames(read_npy(path)), None
    arrays = read_npz(path)
    stacks = [name for name, array in arrays.items() if array.ndim == 3 and name != "mask"]
    name = next((name for name in ("data", "iobs", *stacks, *arrays) if name in arrays), None)
    if name is None:
        raise FormatError(f"{path}: the archive is empty, expected an array named 'data'.")
    return ArrayFrames(arrays[name]), arrays["mask"] == 0 if "mask" in arrays else None
