"""Read what was scanned from the NeXus files of SOLEIL, which all beamlines of the ring write alike.

::

    <name of the scan>/scan_data     frames, counters and motors at each point, named data_01, data_02, ..., actuator_1_1, ...
                                     the attribute long_name says what they are, such as "i14-c-cx1/ex/mu-med/position"
    <name of the scan>/scan_config/name    the motor that was scanned
    <name of the scan>/<BEAMLINE>    the beamline's devices before the scan

Sources: bcdi (github.com/carnisj/bcdi, `ReadNxs3`, `LoaderCRISTAL`) and cdiutils (`SIXSLoader`, `CristalLoader`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from braggshot.io.beamlines.layouts import find_datasets, outline
from braggshot.io.beamlines.values import read_angles, to_text
from braggshot.io.chunks import read_region
from braggshot.io.files import find_node
from braggshot.volumes import FloatArray

ACTUATOR = "scan_data/actuator_1_1"  # place of the motor that was scanned


def has_entries(path: str | Path, beamline: str) -> bool:
    """Tell whether an HDF5 file holds scans of a beamline of SOLEIL."""
    return any({beamline, "scan_data"} <= held for held in outline(path).values())


def list_entries(file: h5py.File, beamline: str) -> list[str]:
    """List the groups that hold scans: each has the beamline's devices, and what was scanned."""
    return [
        name for name in file
        if all(isinstance(find_node(file, f"{name}/{part}"), h5py.Group) for part in (beamline, "scan_data"))
    ]  # fmt: skip


def read_scanned(
    group: h5py.Group, words: Mapping[str, str], motors: Mapping[str, float | FloatArray], usual: str, noticed: list[str]
) -> dict[str, float | FloatArray]:
    """Return the positions of the circles [deg], those of `scan_data` in place of those before the scan.

    Parameters
    ----------
    group : the group of the scan
    words : circle -> pattern of what its devices are called
    motors : positions before the scan
    usual : circle that is scanned where the file does not name it
    noticed : what is odd, in words
    """
    scanned = {str(item.name): item for item in find_datasets(group, ("scan_data/actuator*", "scan_data/data*")) if item.ndim == 1}
    found = dict(motors)
    named = set()
    for item in scanned.values():
        label = to_text(item.attrs.get("long_name", "")).casefold()
        circle = next((name for name, pattern in words.items() if re.search(pattern, label)), None)
        if circle is None or circle in named:
            continue
        angle = read_angles(read_region(item), item.attrs.get("units"), f"{item.name}", noticed)
        if angle is not None:
            found[circle] = angle
            named.add(circle)
    actuator = find_node(group, ACTUATOR)
    if isinstance(actuator, h5py.Dataset) and not any(np.size(found[name]) > 1 for name in named):
        said = next(find_datasets(group, ("scan_config/name",)), None)
        label = "" if said is None else to_text(read_region(said)).casefold()
        circle = next((name for name, pattern in words.items() if re.search(pattern, label)), None)
        if circle is None:
            noticed.append(f"the file does not name the motor of {ACTUATOR}: {usual} is assumed.")
        angle = read_angles(read_region(actuator), actuator.attrs.get("units"), f"{actuator.name}", noticed)
        if angle is not None:
            found[circle or usual] = angle
    return found
