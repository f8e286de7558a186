"""Read scans of NanoMAX (MAX IV): one HDF5 file for each scan, written by contrast.

::

    000012.h5
        entry/description                        "ascan gontheta 15.1 15.5 8 0.5"
        entry/snapshots/{pre,post}_scan/NAME     motors before and after the scan [deg, mm], energy [eV]; "snapshot" in old files
        entry/measurement/NAME                   motors that were scanned, counters such as alba2/1
        entry/measurement/DETECTOR/frames        link to the detector's own file, or one link for each point (000000, 000001, ...)

Sources: contrast (github.com/maxiv-science/contrast, `Hdf5Recorder`), cdiutils (`NanoMAXLoader`), pyCXIM (`NanoMaxScan`). The
circles are those of cdiutils: gontheta "x-" and gonphi "y-" carry the sample, gamma "y-" and delta "x-" the detector; rows grow
downwards ("y-"), columns inboard ("x-", where bcdi says "x+"). The detector's arm is a robot; its radius is the distance [mm].
"""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

import h5py

from braggshot.errors import FormatError
from braggshot.io.beamlines.instruments import NANOMAX
from braggshot.io.beamlines.layouts import Layout, build_scan, find_frames, outline, read_contents
from braggshot.io.beamlines.readings import Overrides
from braggshot.io.files import find_node, node, open_hdf5
from braggshot.volumes import Scan

# Name of a more general format: its reader can read files of NanoMAX too, but the reader in this module takes precedence.
PARENT = "nexus"
SNAPSHOTS = ("snapshots/post_scan", "snapshots/pre_scan", "snapshot")  # all motors: after the scan, before it, in old files
LAYOUT = Layout(
    instrument=NANOMAX,
    frames=("measurement/*/frames", "measurement/Merlin/data"),
    motors={
        circle.motor: (f"measurement/{circle.motor}", *(f"{place}/{circle.motor}" for place in SNAPSHOTS))
        for circle in (*NANOMAX.sample, *NANOMAX.detector)
    },
    energy={f"{place}/energy": "eV" for place in (*SNAPSHOTS, "measurement")},
    distance={f"{place}/radius": "mm" for place in SNAPSHOTS},
    command=("description",),
)


def can_read(path: str | Path) -> bool:
    """Tell whether an HDF5 file is a scan of contrast with the circles of NanoMAX: a snapshot of the motors, and frames."""
    if not outline(path).get("entry", frozenset()) & {"snapshots", "snapshot"}:
        return False
    try:
        with open_hdf5(path) as file:
            entry = find_node(file, "entry")
            circles = [circle.motor for circle in (*NANOMAX.sample, *NANOMAX.detector)]
            known = any(find_node(entry, f"{place}/{name}") is not None for place in SNAPSHOTS for name in circles)
            return isinstance(entry, h5py.Group) and known and bool(find_frames(entry, LAYOUT))
    except FormatError:
        return False


def read(path: str | Path, *, detector: str | None = None, monitor: str = "alba2/1", **overrides: Unpack[Overrides]) -> Scan:
    """Read the scan of one file of contrast.

    Parameters
    ----------
    path : the HDF5 file, named by the number of the scan
    detector : name of the detector in the group `measurement`; not needed where there is only one detector
    monitor : name of a counter in the group `measurement` that is proportional to the incident flux
    overrides : energy_ev, distance_m, pixel_size_m, direct_beam, which replace the values in the file

    Raises
    ------
    FormatError : if the detector is missing (the message lists those in the file), or the file is damaged.
    DataError : if fewer than two frames have an angle.
    """
    noticed: list[str] = []
    with open_hdf5(path) as file:
        entry = node(file, "entry")
        contents = read_contents(entry, LAYOUT, detector, (f"measurement/{monitor}",), noticed)
    return build_scan(path, LAYOUT, contents, Path(path).stem, overrides, noticed)
