"""Read scans of SOLEIL SIXS: a NeXus file for each scan, as it is written since March 2019.

::

    com/scan_data                                       frames, mu at each point ...
    com/SIXS/i14-c-cx1-ex-med-v-dif-group.1/mu/position [deg]; so since 2022, and before:
    com/SIXS/i14-c-cx1-ex-mu-med-h/position_pre
    com/SIXS/i14-c-c02-op-mono/energy                   [keV]

Sources: cdiutils (github.com/clatlan/cdiutils, `SIXSLoader`) and bcdi (github.com/carnisj/bcdi, `LoaderSIXS`). The circles are
those of bcdi: beta "x-", which carries the whole diffractometer, and mu "y+" carry the sample; gamma "y+" and delta "x-" the
detector. cdiutils has mu "x-" and omega "y+", and no beta. Rows grow downwards and columns outboard; since 2022 the detector is
mounted on its side, rows inboard and columns downwards (cdiutils). The files do not tell the distance.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Unpack

from braggshot.errors import FormatError
from braggshot.io.beamlines.instruments import SIXS, SIXS_2022
from braggshot.io.beamlines.layouts import Layout, build_scan, find, read_contents
from braggshot.io.beamlines.readings import Overrides
from braggshot.io.beamlines.soleil import has_entries, list_entries, read_scanned
from braggshot.io.files import node, open_hdf5
from braggshot.volumes import Scan

# Name of a more general format: its reader can read files of SIXS too, but the reader in this module takes precedence.
PARENT = "nexus"
GROUP = "SIXS/*-dif-group*"  # place of the diffractometer in files since 2022
# Circle -> what its devices are called; delta-a is another one.
WORDS = {name: rf"(^|[-_/ ]){name}(?!-a\b)([-_/ ]|$)" for name in ("mu", "gamma", "delta", "beta")} | {
    "beta": r"(^|[-_/ ])beta([-_/ ]|$)|diff.*tpp.*pitch"
}
LAYOUT = Layout(
    instrument=SIXS,
    frames=("scan_data/*",),
    motors={
        name: (
            f"{GROUP}/{name}/position", f"{GROUP}/*-{name}*/position",
            *(f"SIXS/*{part}/position{end}" for end in ("_pre", "") for part in (f"-{name}-med*", f"-{name}-uhv*", f"-{name}")),
        )
        for name in (*WORDS, "omega")
    },
    energy={"SIXS/i14-c-c02-op-mono/energy": "keV", "SIXS/*op-mono*/energy": "keV"},
    pitch=55e-6,
)  # fmt: skip


def can_read(path: str | Path) -> bool:
    """Tell whether an HDF5 file holds a scan of SIXS."""
    return has_entries(path, "SIXS")


def read(path: str | Path, *, detector: str | None = None, monitor: str = "imon0", **overrides: Unpack[Overrides]) -> Scan:
    """Read the scan of one NeXus file of SIXS.

    Parameters
    ----------
    path : the NeXus file
    detector : name of the frames in the group `scan_data`; not needed where there is only one stack of images
    monitor : name in the group `scan_data` of a counter that is proportional to the incident flux
    overrides : energy_ev, distance_m, pixel_size_m, direct_beam, which replace the values in the file

    Raises
    ------
    FormatError : if the detector is missing (the message lists those in the file), or the file is damaged.
    DataError : if fewer than two frames have an angle.
    """
    noticed: list[str] = []
    with open_hdf5(path) as file:
        entries = list_entries(file, "SIXS")
        if not entries:
            raise FormatError(f"{path}: there is no scan of SIXS in this file.")
        group = node(file, entries[0])
        is_new = next(find(group, GROUP), None) is not None
        contents = read_contents(group, LAYOUT, detector, (f"scan_data/{monitor}",), noticed)
        motors = read_scanned(group, WORDS, contents.motors, "mu", noticed)
    omega = motors.pop("omega", 0.0)
    if not isinstance(omega, float) or abs(omega) > 0.01:
        noticed.append("omega is not at zero, and is no circle of this table: the axes of the sample are those at omega zero.")
    if "beta" not in motors:
        noticed.append("the file does not hold beta, which is taken as 0.")
    layout = dataclasses.replace(LAYOUT, instrument=SIXS_2022 if is_new else SIXS)
    contents = dataclasses.replace(contents, motors={"beta": 0.0, **motors})
    return build_scan(path, layout, contents, Path(path).stem, overrides, noticed)
