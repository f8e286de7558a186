"""Write the file from which the cdiutils pipeline post-processes a reconstruction of another program, and read its folder.

The file is ``<folder>/S<scan>_pynx_reconstruction_mode.cxi``, and the folder is the pipeline's ``dump_dir``::

    entry_1/
      image_1/{data, support}     (1, z, y, x): one mode, in the detector frame of the prepared volume
      data_1/data -> image_1/data
      process_1, result_1/mode_weights

The phase is -q.u, the convention of PyNX, which cdiutils expects, and so is the order of axes. The counts of a folder of cdiutils
are those of ``S<scan>_preprocessed_data.cxi``, ``entry_1/image_1/{data, mask}``.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from braggshot.errors import FormatError, OutputError
from braggshot.gate import explain_damage
from braggshot.io.atomic import replacing_hdf5
from braggshot.io.chunks import read_region
from braggshot.io.files import find_node, open_hdf5
from braggshot.io.hdf5 import add_group, link, put, put_tree
from braggshot.io.results import cxi
from braggshot.volumes import DiffractionVolume, Reconstruction

OBJECT, COUNTS = "_pynx_reconstruction_mode.cxi", "_preprocessed_data.cxi"  # endings of the two files of a scan


def export(folder: str | Path, reconstruction: Reconstruction, scan: int | None = None) -> Path:
    """Write ``S<scan>_pynx_reconstruction_mode.cxi`` and return its path.

    Parameters
    ----------
    folder : the pipeline's ``dump_dir``
    reconstruction : reconstruction in the detector frame
    scan : scan number; None takes it from the volume's name

    Raises
    ------
    OutputError : if the file cannot be written, no scan number is known, or the reconstruction is in another frame.
    """
    if reconstruction.frame != "detector":
        raise OutputError(f"cdiutils expects the detector frame, found {reconstruction.frame}; export before changing the frame.")
    path = target_of(folder, reconstruction.volume.name, scan)
    with replacing_hdf5(path) as file:
        put(file, "cxi_version", 150)
        entry = add_group(file, "entry_1", "NXentry", default="data_1")
        process = add_group(entry, "process_1", "NXprocess")
        put(process, "program", "braggshot")
        put_tree(add_group(process, "configuration", "NXcollection"), reconstruction.configuration)
        ensemble = reconstruction.ensemble
        weights = np.ones(1) if ensemble is None else ensemble.mode_weights
        put(add_group(entry, "result_1", "NXcollection"), "mode_weights", weights)
        image = add_group(entry, "image_1", "NXdata", signal="data", interpretation="image")
        put(image, "data", reconstruction.rho[None].astype(np.complex64), "photons^0.5")
        put(image, "support", reconstruction.support.astype(np.int8))
        put(image, "image_size", (1, *reconstruction.rho.shape))
        data = add_group(entry, "data_1", "NXdata", signal="data", interpretation="image")
        link(data, "data", image["data"])
    return path


def target_of(folder: str | Path, name: str, scan: int | None = None) -> Path:
    """Return the file of an object in a folder of cdiutils; the number of the scan is taken from the volume's name if not given."""
    return Path(folder) / f"S{_scan_number(name) if scan is None else scan}{OBJECT}"


def list_objects(folder: str | Path) -> list[Path]:
    """List the files with an object in a folder of cdiutils."""
    return sorted(Path(folder).glob(f"S*{OBJECT}"))


def read(path: str | Path) -> Reconstruction:
    """Read an object of cdiutils, with the counts that it was phased from where they lie beside it in the same shape.

    Parameters
    ----------
    path : ``S<scan>_pynx_reconstruction_mode.cxi``, or the folder that holds it

    Raises
    ------
    FormatError : if there is no such file, or several.
    """
    path = Path(path)
    files = list_objects(path) if path.is_dir() else [path]
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise FormatError(f"{path}: expected one file S<scan>{OBJECT}, found {found}; name the file.")
    found_object = cxi.read(files[0])
    name = files[0].name.removesuffix(OBJECT)
    volume = replace(found_object.volume, name=name)
    beside = files[0].with_name(f"{name}{COUNTS}")
    if beside.is_file():
        with explain_damage(beside, "counts of cdiutils"), open_hdf5(beside) as file:
            data, mask = (find_node(file, f"entry_1/image_1/{part}") for part in ("data", "mask"))
            if isinstance(data, h5py.Dataset) and data.shape == found_object.rho.shape:
                is_masked = isinstance(mask, h5py.Dataset) and mask.shape == data.shape
                valid = read_region(mask) == 0 if is_masked else np.ones(data.shape, bool)
                volume = DiffractionVolume(read_region(data).astype(np.float32), valid, name)
    return replace(found_object, volume=volume)


def _scan_number(name: str) -> int:
    digits = re.findall(r"(?:S|scan_?)(\d+)", name, re.IGNORECASE) or re.findall(r"\d+", name)
    if not digits:
        raise OutputError(f"cdiutils names its files by the scan number, and {name!r} has none; give one.")
    return int(digits[-1])
