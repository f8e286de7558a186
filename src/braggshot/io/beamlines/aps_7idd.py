"""Read scans of APS 7-ID-D: a SPEC file of motors, and one TIFF for each point.

Source: cohere_beamlines 4.5.6 (pypi.org/project/cohere-beamlines, `aps_7idd`). A wedge of 10 degrees "x-", Chi "z-", ThetaN "x-"
and Phi "y+" carry the sample; a robot carries the detector at the radius `Radius` [mm]: Yaw "y+" and Pitch "x-". cohere reads a
TIFF transposed and names the directions "y+" and "x+": so columns grow upwards ("y+") and rows outboard ("x+").
"""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from braggshot.io.beamlines.aps_spec import Station, has_motors, list_measured, read_station
from braggshot.io.beamlines.instruments import APS_7IDD
from braggshot.io.beamlines.readings import Overrides
from braggshot.volumes import Scan

STATION = Station(APS_7IDD, distance="Radius", pixel=75e-6, fixed={"wedge": 10.0})


def can_read(path: str | Path) -> bool:
    """Tell whether a file is a SPEC file of APS 7-ID-D: its header names the circles and the distance."""
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
    frames : folder or pattern of the frames, if they lie elsewhere
    overrides : energy_ev, distance_m, pixel_size_m, direct_beam, which replace the values in the file

    Raises
    ------
    FormatError : if the scan or its frames are missing; the message lists the scans, or where frames were searched.
    DataError : if fewer than two frames belong to points of the scan.
    """
    return read_station(path, STATION, scan, frames, overrides)
