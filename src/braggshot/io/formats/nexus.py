"""Read a scan from any HDF5 file by the paths of its datasets, for instruments without a reader of their own."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from braggshot.errors import FormatError
from braggshot.io.files import dataset, is_hdf5, open_hdf5, read_array
from braggshot.io.frames import HDF5Frames
from braggshot.volumes import BoolArray, FloatArray, Scan


def can_read(path: str | Path) -> bool:
    """Tell whether a file begins with the HDF5 signature.

    If the reader of a format with a fixed layout inside HDF5, such as CXI, can read the file too, that reader is used.
    """
    return is_hdf5(path)


def read(
    path: str | Path, *, dataset: str | None = None, mask: str | None = None, monitor: str | None = None, angle: str | None = None
) -> Scan:
    """Read a scan from an HDF5 file.

    Parameters
    ----------
    path : the HDF5 file
    dataset : path of the frames (frame, row, column) inside the file; not needed where the file holds one 3D dataset
    mask : path of a mask inside the file, or a .npy, .npz or .tif file that holds a mask; a mask is 0 where pixels are good, and
        has the shape of one frame or of the whole scan
    monitor : path of the incident flux inside the file, one value per frame
    angle : path of the rocking angle inside the file, one value per frame [deg, or as its `units` say]

    Raises
    ------
    FormatError : if a dataset is missing (the message lists the 3D datasets), or the file is damaged.
    DataError : if the data are not 3D, or the mask has another shape.
    """
    with open_hdf5(path) as file:
        name = dataset or only_stack(file, path)
        good = None if mask is None else _mask(file, mask)
        flux = None if monitor is None else _per_frame(file, monitor)
        degrees = None if angle is None else _per_frame(file, angle)
        units = None if angle is None else file[angle].attrs.get("units", "deg")
    frames = HDF5Frames(path, name)
    for what, values in (("monitor", flux), ("angle", degrees)):
        if values is not None and values.shape != frames.shape[:1]:
            raise FormatError(f"{path}: the {what} has shape {values.shape}, expected {frames.shape[0]} values, one per frame.")
    rocking = degrees if degrees is None or str(units).startswith("rad") else np.deg2rad(degrees)
    return Scan(frames=frames, name=Path(path).stem, valid=good, monitor=flux, rocking_angle=rocking, provenance={"dataset": name})


def only_stack(file: h5py.File, path: str | Path) -> str:
    """Return the path of the one 3D dataset in an open file; `path` is the file's name for the error message.

    Raises
    ------
    FormatError : if the file holds no 3D dataset (masks not counted) or several; the message lists the datasets.
    """
    stacks: list[str] = []

    def collect(name: str, node: h5py.Dataset | h5py.Group) -> None:
        if isinstance(node, h5py.Dataset) and node.ndim == 3 and not name.endswith("mask"):
            stacks.append(name)

    file.visititems(collect)
    if len(stacks) == 1:
        return stacks[0]
    there = f"these are there: {', '.join(stacks)}" if stacks else "the file holds none (external files are not searched)"
    raise FormatError(f"{path}: say which 3D dataset to read with dataset=...; {there}.")


def _mask(file: h5py.File, name: str) -> BoolArray:
    return (dataset(file, name)[()] if name in file else read_array(name, "mask", "data")) == 0


def _per_frame(file: h5py.File, name: str) -> FloatArray:
    return np.asarray(dataset(file, name)[()], float)
