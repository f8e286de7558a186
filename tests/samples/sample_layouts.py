"""Scans in the HDF5 layouts of beamlines, each written as the beamline's own program writes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np

Angles = Mapping[str, float | np.ndarray]


def put(group: h5py.Group, values: Mapping[str, Any], units: str = "") -> None:
    for name, value in values.items():
        group[name] = value
        if units:
            group[name].attrs["units"] = units


def write_camera(path: Path, place: str, counts: np.ndarray) -> Path:
    """A file of the detector: one compressed chunk for each frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as camera:
        camera.create_dataset(place, data=counts, chunks=(1, *counts.shape[1:]), **hdf5plugin.Bitshuffle(cname="lz4"))
    return path


def write_nanomax(
    folder: Path, counts: np.ndarray, angles: Angles, *, detector: str = "eiger500k", energy: float = 10000.0, per_point: int = 0
) -> Path:  # fmt: skip
    """A file of contrast: snapshots of the motors, and a link to the frames, or with `per_point` one to each few of them."""
    scanned = next(name for name, value in angles.items() if np.size(value) > 1)
    values, path = np.asarray(angles[scanned]), folder / "000012.h5"
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        command = f"ascan {scanned} {values[0]:g} {values[-1]:g} {len(values) - 1} 0.5"
        file["entry/description"] = np.array([command.encode()], "S100")
        for when in ("pre_scan", "post_scan"):
            still = {name: [float(np.ravel(value)[0])] for name, value in angles.items()}
            put(file.create_group(f"entry/snapshots/{when}"), still | {"energy": [energy], "radius": [800.0], "sx": [1.5]})
            file[f"entry/snapshots/{when}/attenuator"] = np.array([b"None"], "S100")
        file[f"entry/measurement/{scanned}"] = values
        file["entry/measurement/alba2/1"] = np.linspace(1.0, 2.0, len(values))[:, None]
        place, inside = f"entry/measurement/{detector}", f"entry/instrument/{detector}/data"
        if per_point:
            for number, start in enumerate(range(0, len(counts), per_point)):
                part = write_camera(folder / f"scan_000012_{detector}_{number:04d}.h5", inside, counts[start : start + per_point])
                file[f"{place}/frames/{number:06d}"] = h5py.ExternalLink(part.name, inside)
        else:
            part = write_camera(folder / f"scan_000012_{detector}.hdf5", inside, counts)
            file[f"{place}/frames"] = h5py.ExternalLink(part.name, inside)
    return path
