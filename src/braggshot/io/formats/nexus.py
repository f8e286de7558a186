"""Read a scan from any HDF5 file by the paths of its datasets, for instruments without a reader of their own."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from braggshot.errors import FormatError
from braggshot.io.axes import fit_mask, image_axes
from braggshot.io.chunks import read_region
from braggshot.io.files import dataset, is_hdf5, open_hdf5, read_array
from braggshot.io.formats.numbered import OTHERS
from braggshot.io.frames import HDF5Frames
from braggshot.volumes import BoolArray, FloatArray, Scan

DEEPEST = 100  # how deep groups may be nested where a dataset is searched


def can_read(path: str | Path) -> bool:
    """Tell whether a file is HDF5.

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
    dataset : path of the frames (frame, row, column) inside the file; not needed where the file holds one 3D dataset, or
        names one as its default
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
        names, noticed = ((dataset,), ()) if dataset else choose_stack(file, path)
        good = None if mask is None else _mask(file, mask)
        flux = None if monitor is None else _per_frame(file, monitor)
        degrees = None if angle is None else _per_frame(file, angle)
        units = None if angle is None else file[angle].attrs.get("units", "deg")
    frames = HDF5Frames(path, names)
    good = None if good is None else fit_mask(good, frames.shape)
    for what, values in (("monitor", flux), ("angle", degrees)):
        if values is not None and values.shape != frames.shape[:1]:
            raise FormatError(f"{path}: the {what} has shape {values.shape}, expected {frames.shape[0]} values, one per frame.")
    about = {"dataset": ", ".join(names), "noticed": noticed}
    rocking = degrees if degrees is None or str(units).startswith("rad") else np.deg2rad(degrees)
    return Scan(frames=frames, name=Path(path).stem, valid=good, monitor=flux, rocking_angle=rocking, provenance=about)


def only_stack(file: h5py.File, path: str | Path) -> str:
    """Return the path of the frames in an open file, as `choose_stack` does; of several parts, the path of the first."""
    return choose_stack(file, path)[0][0]


def choose_stack(file: h5py.File, path: str | Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the path of the one 3D dataset in an open file, or of the 3D dataset that the file names as its default.

    Axes of length 1 do not count. Masks, dark and flat fields, known by their names, are no frames. A file without a 3D dataset may
    link to the parts of one in other files.

    Parameters
    ----------
    file : the open file
    path : its name for the error message

    Returns
    -------
    the path, or the paths of the parts in their order, and in words which other datasets there are

    Raises
    ------
    FormatError : if the file holds no 3D dataset or several of which none is the default; the message lists the datasets.
    """
    stacks: list[str] = []

    def collect(name: str, node: h5py.Dataset | h5py.Group) -> bool | None:
        if name.count("/") >= DEEPEST:
            return True
        is_stack = isinstance(node, h5py.Dataset) and len(image_axes(node.shape or ())) == 3 and node.dtype.kind in "iufbc"
        if is_stack and not OTHERS.search(name.rpartition("/")[2].lower()):
            stacks.append(name)
        return None

    if file.visititems(collect):
        raise FormatError(f"{path}: its groups are nested more than {DEEPEST} deep; say which 3D dataset to read with dataset=...")
    if len(stacks) == 1:
        return (stacks[0],), ()
    defaults = [name for name in stacks if any(file[name] == signal for signal in _signals(file))]
    if len(defaults) == 1:
        others = ", ".join(name for name in stacks if name != defaults[0])
        return (defaults[0],), (f"{defaults[0]}, the default of the file, was taken; it also holds {others} (input.dataset).",)
    if not stacks and (parts := _linked_parts(file)):
        return parts, ()
    there = f"these are there: {', '.join(stacks)}" if stacks else "the file holds none"
    raise FormatError(f"{path}: say which 3D dataset to read with dataset=...; {there}.")


def _linked_parts(file: h5py.File) -> tuple[str, ...]:
    """List the one link to another file, or the numbered ones such as data_000001, of the only group that has such links."""
    groups: list[h5py.Group] = [file]
    file.visititems(lambda _, node: groups.append(node) if isinstance(node, h5py.Group) else None)
    found = []
    for group in groups:
        links = [name for name in group if isinstance(group.get(name, getlink=True), h5py.ExternalLink)]
        if links and (len(links) == 1 or len({name.rstrip("0123456789") for name in links}) == 1):
            found.append(tuple(f"{group.name}/{name}".strip("/") for name in sorted(links, key=lambda name: (len(name), name))))
    return found[0] if len(found) == 1 else ()


def _signals(file: h5py.File) -> list[h5py.Dataset]:
    """List the datasets that NeXus would plot: the one to which ``default`` leads, else those of all groups with a signal."""
    group: h5py.Group = file
    while isinstance(name := group.attrs.get("default"), str) and isinstance(group.get(name), h5py.Group) and name != ".":
        group = group[name]
    groups = [group] if "signal" in group.attrs else []
    if not groups:
        file.visititems(lambda _, node: groups.append(node) if isinstance(node, h5py.Group) and "signal" in node.attrs else None)
    found = [group.get(name) for group in groups if isinstance(name := group.attrs["signal"], str)]
    return [node for node in found if isinstance(node, h5py.Dataset)]


def _mask(file: h5py.File, name: str) -> BoolArray:
    return (read_region(dataset(file, name)) if name in file else read_array(name, "mask", "data")) == 0


def _per_frame(file: h5py.File, name: str) -> FloatArray:
    return np.asarray(read_region(dataset(file, name)), float)
