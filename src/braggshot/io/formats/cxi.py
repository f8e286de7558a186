"""Read and write measured or simulated counts in CXI files, as PyNX lays them out (``cxi_version`` 140).

Counts are searched where PyNX searches them: ``entry_1/instrument_1/detector_1/data``, then ``entry_1/image_1/data`` in reciprocal
space, then ``entry_1/data_1/data``. The mask beside the counts is 0 where a voxel is good. A result CXI, which holds a
reconstruction, has its counts at the first of these places and is read in the same way. Files of `write_data` also hold the voxel
basis, the window and the geometry (`braggshot.io.measurement`).
"""

from __future__ import annotations

import datetime
import importlib.metadata
import math
import posixpath
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from braggshot.errors import DataError, FormatError
from braggshot.io.atomic import replacing_hdf5
from braggshot.io.axes import fit_mask
from braggshot.io.chunks import read_region
from braggshot.io.files import dataset, find_node, is_hdf5, node, open_hdf5, read_array
from braggshot.io.frames import ArrayFrames, HDF5Frames, LazyFrames
from braggshot.io.hdf5 import add_group, get, link, put
from braggshot.io.measurement import read_geometry, read_preparation, write_measurement
from braggshot.volumes import BoolArray, ComplexArray, DiffractionVolume, Frames, Scan

# Name of a more general format: its reader can read CXI files too, but the reader in this module takes precedence.
PARENT = "nexus"
# Paths at which the counts are searched, in this order.
PLACES = ("entry_1/instrument_1/detector_1/data", "entry_1/image_1/data", "entry_1/data_1/data")


def can_read(path: str | Path) -> bool:
    """Tell whether a file is HDF5 and has data at a path where CXI files hold counts."""
    if not is_hdf5(path):
        return False
    try:
        with open_hdf5(path) as file:
            return any(find_node(file, place) is not None for place in PLACES)
    except FormatError:
        return False


def read(path: str | Path, *, mask: str | Path | None = None) -> Scan:
    """Read the counts of a CXI file, whether it is a data CXI (counts only) or a result CXI (with a reconstruction).

    Parameters
    ----------
    path : the CXI file
    mask : file with an additional mask (0 good), of one frame or of the whole scan

    Raises
    ------
    FormatError : if the file is damaged, or holds an object in direct space and no counts.
    DataError : if the counts are not 3D, or a mask has another shape.
    """
    with open_hdf5(path) as file:
        place = _counts(file, path)
        group = file[place].parent
        good = read_region(dataset(group, "mask")) == 0 if find_node(group, "mask") is not None else None
        shifted = bool(get(group, "is_fft_shifted", 0))
        preparation = read_preparation(group)
        geometry = read_geometry(group.parent) if preparation else None
        facts = _facts(node(file, "entry_1"))
    frames: LazyFrames = HDF5Frames(path, place)
    good = None if good is None else fit_mask(good, frames.shape)
    if mask is not None:
        further = read_array(mask, "mask", "data", most=math.prod(frames.shape)) == 0
        good = _combine(good, fit_mask(further, frames.shape), frames, mask)
    if shifted:
        frames = _unshift(frames)
        good = None if good is None else np.fft.fftshift(good)
    return Scan(
        frames=frames,
        name=Path(path).stem,
        valid=good,
        geometry=geometry,
        prepared=bool(preparation),
        provenance={"dataset": place, **facts, **{name: value for name, value in preparation.items() if value is not None}},
    )


def _unshift(frames: LazyFrames) -> LazyFrames:
    """Move the corner of frames, where the peak is, to their centre."""
    centred = ArrayFrames(np.fft.fftshift(frames[...]))
    centred.arrived = None if frames.arrived is None else np.fft.fftshift(frames.arrived)
    centred.noticed = frames.noticed
    return centred


def _counts(file: h5py.File, path: str | Path) -> str:
    """Return the path of the counts: the first in `PLACES` whose data are not complex and not marked as data of direct space."""
    for place in PLACES:
        if find_node(file, place) is None:
            continue
        link = file.get(place, getlink=True)
        target = posixpath.join("/", posixpath.dirname(place), link.path) if isinstance(link, h5py.SoftLink) else place
        counts = dataset(file, target)
        if counts.dtype.kind in "iuf" and get(file[posixpath.dirname(target)], "data_space", "") != "real":
            return target.lstrip("/")
    raise FormatError(
        f"{path}: holds an object in direct space but no counts (entry_1/instrument_1/detector_1/data); "
        "give the file that was phased, not its result."
    )


def _combine(good: BoolArray | None, further: BoolArray, frames: Frames, mask: str | Path) -> BoolArray:
    if further.shape not in {frames.shape, frames.shape[1:]}:
        raise DataError(f"{mask}: the mask has shape {further.shape}, the frames {frames.shape}; give one frame or the whole scan.")
    return further if good is None else good & further


def _facts(entry: h5py.Group) -> dict[str, Any]:
    """Read energy [J], distance [m], pixel size [m], title, time, and names of sample and instrument; skip what is missing."""
    names = {
        "title": "title", "sample": "sample_1/name", "instrument": "instrument_1/name", "time": "start_time",
        "energy": "instrument_1/source_1/energy", "distance": "instrument_1/detector_1/distance",
        "pixel_size_y": "instrument_1/detector_1/y_pixel_size", "pixel_size_x": "instrument_1/detector_1/x_pixel_size",
    }  # fmt: skip
    return {name: get(entry, place) for name, place in names.items() if find_node(entry, place) is not None}


def write_data(path: str | Path, volume: DiffractionVolume, truth: ComplexArray | None = None) -> None:
    """Write counts and their metadata as a CXI file; `read` recovers all of them. If writing fails, an older file stays.

    Parameters
    ----------
    path : output file, ending in .cxi
    volume : counts (stored as float32), mask, and metadata
    truth : the complex object that was simulated, on the same grid; stored in ``entry_1/truth_1/data`` [photons^0.5]

    Raises
    ------
    OutputError : if the file cannot be written.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with replacing_hdf5(path) as file:
        file.attrs.update(default="entry_1", creator="braggshot", file_time=now, h5py_version=h5py.__version__)
        put(file, "cxi_version", 140)
        entry = add_group(file, "entry_1", "NXentry", default="data_1")
        put(entry, "title", volume.name)
        put(entry, "program_name", f"braggshot {importlib.metadata.version('braggshot')}")
        put(entry, "start_time", now)
        write_measurement(add_group(entry, "instrument_1", "NXinstrument"), volume)
        data = add_group(entry, "data_1", "NXdata", signal="data", interpretation="scaler")
        for name in ("data", "process_1"):
            link(data, name, entry["instrument_1/detector_1"][name])
        if truth is not None:
            group = add_group(entry, "truth_1", "NXdata", signal="data", interpretation="image")
            put(group, "data", truth, "photons^0.5")
            put(group, "data_space", "real")
