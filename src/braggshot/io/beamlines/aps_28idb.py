"""Read scans of APS 28-ID-B (CHEX): a SPEC file of motors, and an HDF5 file of frames for each scan.

::

    <name>.spec                  motors [deg], camdist [mm], Energy [keV]
    .../<name>_S0054_00000.h5    entry/data/data

Source: cohere_beamlines 4.5.6 (pypi.org/project/cohere-beamlines, `aps_28idb`), whose beam is along y and whose x is inboard;
here: Mu "y-", Eta "x-", Chi "z+" and Phi "y-" carry the sample, Nu "y-" and Delta "x-" the detector; rows grow downwards ("y-")
and columns outboard ("x+").
"""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from braggshot.io.beamlines.aps_spec import HDF5, Station, has_motors, list_measured, read_station
from braggshot.io.beamlines.instruments import APS_28IDB
from braggshot.io.beamlines.readings import Overrides
from braggshot.volumes import Scan

# Format whose reader takes SPEC files with `camdist` too; the reader in this module takes precedence.
PARENT = "aps_34idc"
STATION = Station(APS_28IDB, distance="camdist", pixel=75e-6, kind=HDF5)


def can_read(path: str | Path) -> bool:
    """Tell whether a file is a SPEC file of APS 28-ID-B: its header names the circles and the distance."""
    return has_motors(path, STATION)


def scans(path: str | Path) -> list[str]:
    """List the numbers of the scans whose frames lie beside the SPEC file."""
    return list_measured(path, STATION.kind)


def read(
    path: str | Path, *, scan: float | str | None = None, frames: str | Path | None = None, **overrides: Unpack[Overrides]
) -> Scan:  # fmt: skip
    """Read one scan of a SPEC file, with its frames.

    Parameters
    ----------
    path : the SPEC file
    scan : scan number; not needed where frames of only one scan lie beside the SPEC file. Where the number stands twice in the
        file, 54.1 is the first and 54.2 the second
    frames : file of the frames, if they lie elsewhere
    overrides : energy_ev, distance_m, pixel_size_m, direct_beam, which replace the values in the file

    Raises
    ------
    FormatError : if the scan or its frames are missing; the message lists the scans, or where frames were searched.
    DataError : if fewer than two frames belong to points of the scan.
    """
    return read_station(path, STATION, scan, frames, overrides)
