"""Read scans of SOLEIL CRISTAL: a NeXus file, with one group for each scan.

::

    exp_0012/scan_data                                                  frames, the scanned motor (actuator_1_1), counters
    exp_0012/CRISTAL/i06-c-c07-ex-mg_omega/position                     [deg]; mg_phi too
    exp_0012/CRISTAL/Diffractometer/i06-c-c07-ex-dif-{gamma,delta}/position
    exp_0012/CRISTAL/Monochromator/energy                               [keV]

Sources: cdiutils (github.com/clatlan/cdiutils, `CristalLoader`) and bcdi (github.com/carnisj/bcdi, `LoaderCRISTAL`). They agree:
mgomega "x-" and mgphi "y+" carry the sample, gamma "y+" and delta "x-" the detector; rows grow downwards ("y-"), columns outboard
("x+"). cdiutils is sure of omega and delta only. The files do not tell the distance.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Unpack

import numpy as np

from braggshot.errors import FormatError
from braggshot.io.beamlines.instruments import CRISTAL
from braggshot.io.beamlines.layouts import Layout, build_scan, read_contents
from braggshot.io.beamlines.readings import Overrides
from braggshot.io.beamlines.soleil import has_entries, list_entries, read_scanned
from braggshot.io.files import node, open_hdf5
from braggshot.volumes import FloatArray, Scan

# Name of a more general format: its reader can read files of CRISTAL too, but the reader in this module takes precedence.
PARENT = "nexus"
WORDS = {"mgomega": "omega", "mgphi": r"mg[-_]?phi|(^|[-_/ ])phi", "gamma": "gamma", "delta": "delta"}  # names of devices
MICRO = 360.0  # largest reading that is in degrees; omega was once written in millionths
LAYOUT = Layout(
    instrument=CRISTAL,
    frames=("scan_data/*",),
    motors={
        "mgomega": ("CRISTAL/*mg_omega/position",),
        "mgphi": ("CRISTAL/*mg_phi/position",),
        "gamma": ("CRISTAL/Diffractometer/*-dif-gamma/position",),
        "delta": ("CRISTAL/Diffractometer/*-dif-delta/position",),
    },
    energy={"CRISTAL/Monochromator/energy": "keV"},
    time=("start_time",),
    pitch=55e-6,
)


def can_read(path: str | Path) -> bool:
    """Tell whether an HDF5 file holds a scan of CRISTAL."""
    return has_entries(path, "CRISTAL")


def scans(path: str | Path) -> list[str]:
    """List the groups that hold scans."""
    with open_hdf5(path) as file:
        return list_entries(file, "CRISTAL")


def read(
    path: str | Path, *, scan: int | str | None = None, detector: str | None = None, monitor: str = "data_04",
    **overrides: Unpack[Overrides],
) -> Scan:  # fmt: skip
    """Read one scan of a NeXus file of CRISTAL.

    Parameters
    ----------
    path : the NeXus file
    scan : number or name of the group; not needed where there is only one
    detector : name of the frames in the group `scan_data`; not needed where there is only one stack of images
    monitor : name in the group `scan_data` of a counter that is proportional to the incident flux
    overrides : energy_ev, distance_m, pixel_size_m, direct_beam, which replace the values in the file

    Raises
    ------
    FormatError : if the scan or the detector is missing (the message lists those in the file), or the file is damaged.
    DataError : if fewer than two frames have an angle.
    """
    noticed: list[str] = []
    with open_hdf5(path) as file:
        name = _choose(list_entries(file, "CRISTAL"), scan, path)
        group = node(file, name)
        contents = read_contents(group, LAYOUT, detector, (f"scan_data/{monitor}",), noticed)
        motors = read_scanned(group, WORDS, contents.motors, "mgomega", noticed)
    contents = dataclasses.replace(contents, motors=_to_degrees(motors, noticed))
    return build_scan(path, LAYOUT, contents, f"{Path(path).stem}_{name}", overrides, noticed)


def _choose(names: list[str], scan: int | str | None, path: str | Path) -> str:
    """Return the name of the group of a scan."""
    fitting = [
        name for name in names if scan is None or str(scan) in {name, (re.search(r"(\d+)$", name) or ["", ""])[1].lstrip("0")}
    ]
    if len(fitting) == 1:
        return fitting[0]
    asked = f"there is no scan {scan}" if not fitting else f"{len(fitting)} scans fit: choose one with scan=..."
    raise FormatError(f"{path}: {asked}; the file holds {', '.join(names[:40]) or 'none'}.")


def _to_degrees(motors: dict[str, float | FloatArray], noticed: list[str]) -> dict[str, float | FloatArray]:
    """Return the positions with omega in degrees; old files have it in millionths of a degree (bcdi)."""
    omega = np.asarray(motors.get("mgomega", 0.0), float)
    if not np.nanmax(np.abs(omega), initial=0.0) > MICRO:
        return motors
    noticed.append("mgomega is in millionths of a degree: it is divided by a million.")
    return {**motors, "mgomega": float(omega / 1e6) if omega.ndim == 0 else omega / 1e6}
