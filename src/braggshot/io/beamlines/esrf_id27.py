"""Read scans of ESRF ID27: files of BLISS, one circle, a flat detector across the beam.

The circles are those of cdiutils (github.com/clatlan/cdiutils, `ID27Loader`): nath "y-" carries the sample (bcdi has "y+"); rows
grow downwards ("y-") and columns inboard ("x-"), as in bcdi. What the files say of distance and direct beam is not reliable
(cdiutils), and is not read. The detector is an Eiger2 9M.
"""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from braggshot.io.beamlines.bliss import Beamline, has_entries, list_scans, read_bliss
from braggshot.io.beamlines.instruments import ESRF_ID27
from braggshot.io.beamlines.readings import Overrides
from braggshot.volumes import Scan

# Name of a more general format: its reader takes files of BLISS too, but the reader in this module takes precedence.
PARENT = "esrf_id01"
ID27 = Beamline(
    ESRF_ID27,
    detectors={"eiger": "eiger2_9m", "eiger9m": "eiger2_9m", "e9m": "eiger2_9m"},
    energies={"calibration/wavelength": "Å"},
    calibrated=False,
    pitch=75e-6,
)


def can_read(path: str | Path) -> bool:
    """Tell whether an HDF5 file has entries that are named like BLISS scans and hold the motor nath."""
    return has_entries(path, "nath")


def scans(path: str | Path) -> list[str]:
    """List the entries that hold detector frames, ordered by scan number."""
    return list_scans(path, ID27)


def read(
    path: str | Path, *, scan: int | str | None = None, detector: str | None = None, monitor: str | None = None,
    **overrides: Unpack[Overrides],
) -> Scan:  # fmt: skip
    """Read one scan of a BLISS file.

    Parameters
    ----------
    path : HDF5 file of one dataset, or a collection file that links to several datasets
    scan : number or name of the entry; not needed where only one entry holds frames
    detector : name of the detector in the group `measurement`; not needed where there is only one detector
    monitor : name of a counter in the group `measurement` that is proportional to the incident flux; None for none
    overrides : energy_ev, distance_m, pixel_size_m, direct_beam, which replace the values in the file

    Raises
    ------
    FormatError : if the scan or the detector is missing (the message lists those in the file), or the file is damaged.
    DataError : if fewer than two frames have an angle.
    """
    return read_bliss(path, ID27, scan, detector, monitor, overrides)
