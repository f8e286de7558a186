"""Read scans of ESRF ID01: files of BLISS, with the photon energy in the motor mononrj [keV] and the flux in the counter imon.

The geometry is that of cdiutils and bcdi, already in the CXI frame: mu "y-", eta "x-" and phi "y-" carry the sample; nu "y-" and
delta "x-" carry the detector; rows grow downwards ("y-") and columns outboard ("x+").
"""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from braggshot.io.beamlines.bliss import Beamline, has_entries, list_scans, read_bliss
from braggshot.io.beamlines.instruments import ESRF_ID01
from braggshot.io.beamlines.readings import Overrides
from braggshot.volumes import Scan

# Name of a more general format: its reader can read BLISS files too, but the reader in this module takes precedence.
PARENT = "nexus"
ID01 = Beamline(
    ESRF_ID01,
    detectors={"mpxgaas": "maxipix", "mpx1x4": "maxipix", "eiger2M": "eiger2m"},
    energies={"positioners/mononrj": "keV", "positioners_start/mononrj": "keV", "monochromator/Energy": "keV"},
)


def can_read(path: str | Path) -> bool:
    """Tell whether an HDF5 file has entries that are named like BLISS scans and hold a measurement."""
    return has_entries(path)


def scans(path: str | Path) -> list[str]:
    """List the entries that hold detector frames, ordered by scan number."""
    return list_scans(path, ID01)


def read(
    path: str | Path, *, scan: int | str | None = None, detector: str | None = None, monitor: str = "imon",
    **overrides: Unpack[Overrides],
) -> Scan:  # fmt: skip
    """Read one scan of a BLISS file.

    Parameters
    ----------
    path : HDF5 file of one dataset, or a collection file that links to several datasets
    scan : number or name of the entry; not needed where only one entry holds frames
    detector : name of the detector in the group `measurement`; not needed where there is only one detector
    monitor : name of a counter in the group `measurement` that is proportional to the incident flux
    overrides : energy_ev, distance_m, pixel_size_m, direct_beam, which replace the values in the file

    Raises
    ------
    FormatError : if the scan or the detector is missing (the message lists those in the file), or the file is damaged.
    DataError : if fewer than two frames have an angle.
    """
    return read_bliss(path, ID01, scan, detector, monitor, overrides)
