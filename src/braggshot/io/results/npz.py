"""Write a reconstruction as a NumPy archive for scripts: ``numpy.load(path)``, without pickle.

The arrays, in SI units, are ``amplitude`` and ``rho`` [sqrt(photons)], ``phase`` [rad] (-q.u, 0 outside the support), ``support``,
``basis`` (columns are the voxel edges, components (z, y, x)) [m], ``q_bragg`` [1/m], ``chi2``, ``r_factor``, ``llk_free``,
``verdict``, ``frame``, and ``configuration`` as JSON text. Arrays are (z, y, x). A value that is not known is absent.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from braggshot.io.atomic import replacing
from braggshot.io.hdf5 import to_json
from braggshot.volumes import Reconstruction


def write(path: str | Path, reconstruction: Reconstruction) -> None:
    """Write a reconstruction as a compressed NumPy archive.

    Raises
    ------
    OutputError : if the file cannot be written.
    """
    rho, support, quality = reconstruction.rho, reconstruction.support, reconstruction.quality
    content: dict[str, Any] = {
        "rho": rho,
        "amplitude": np.abs(rho),
        "phase": np.where(support, np.angle(rho), 0).astype(np.float32),
        "support": support,
        "basis": reconstruction.basis,
        "q_bragg": reconstruction.volume.q_bragg,
        "chi2": quality.chi2,
        "r_factor": quality.r_factor,
        "llk_free": quality.llk_free,
        "resolution": quality.resolution,
        "verdict": reconstruction.verdict,
        "reasons": np.array(reconstruction.reasons, dtype=np.str_),
        "frame": reconstruction.frame,
        "configuration": to_json(reconstruction.configuration),
    }
    with replacing(path) as temporary, temporary.open("w+b") as stream:
        np.savez_compressed(stream, **{name: value for name, value in content.items() if value is not None})
        with zipfile.ZipFile(stream, "a") as archive:
            archive.comment = b"braggshot"  # who wrote it, seen without unpacking
