"""Write the file from which the cdiutils pipeline post-processes a reconstruction of another program.

The file is ``<folder>/S<scan>_pynx_reconstruction_mode.cxi``, and the folder is the pipeline's ``dump_dir``::

    entry_1/
      image_1/{data, support}     (1, z, y, x): one mode, in the detector frame of the prepared volume
      data_1/data -> image_1/data
      process_1, result_1/mode_weights

The phase is -q.u, the convention of PyNX, which cdiutils expects.
"""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np

from braggshot.errors import OutputError
from braggshot.io.atomic import replacing_hdf5
from braggshot.io.hdf5 import add_group, put, put_tree
from braggshot.volumes import Reconstruction


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
    scan = _scan_number(reconstruction.volume.name) if scan is None else scan
    path = Path(folder) / f"S{scan}_pynx_reconstruction_mode.cxi"
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
        data["data"] = h5py.SoftLink("/entry_1/image_1/data")
    return path


def _scan_number(name: str) -> int:
    digits = re.findall(r"(?:S|scan_?)(\d+)", name, re.IGNORECASE) or re.findall(r"\d+", name)
    if not digits:
        raise OutputError(f"cdiutils names its files by the scan number, and {name!r} has none; give one.")
    return int(digits[-1])
