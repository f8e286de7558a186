"""Read scans of Diamond I16: a NeXus file of GDA for each scan, frames in an HDF5 file or TIFF files that it names.

::

    1040323.nxs                               the group is "entry", in older files "entry1"
        instrument/name                       "i16"; "beamline" in newer files
        measurement/NAME                      what was scanned, and kth, kap, kphi, kmu, kdelta, kgam at each point [deg]
        instrument/diffractometer_sample      mu, eta, chi, phi, delta, gam [deg] before the scan; "before_scan/..." in older files
        sample/beam/incident_energy           [keV]
        instrument/pil3_100k/data             link to <number>-pilatus3_100k-files/<number>.hdf; or image_data, names of TIFF files
            module/{slow,fast}_pixel_direction, transformations/origin_offset     the calibrated place, which depends on ...
        instrument/transformations            offsetdelta, delta, gamma

Sources: files of I16 in hdfmap (github.com/DanPorter/hdfmap, tests/data), babelscan and i16_diffractometer of the same author.
The circles follow You, J. Appl. Cryst. 32, 614 (1999); X, Y, Z of the files are y, -x, z here. The angles eta, chi and phi of a
scan that moved the kappa goniometer follow from its angles at each point. Rows and columns grow as the file says: the Pilatus
lies on its side and leans by 45 degrees.
"""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any, Unpack

import h5py
import numpy as np
from numpy.typing import NDArray

from braggshot.errors import FormatError
from braggshot.io.beamlines.instruments import DIAMOND_I16
from braggshot.io.beamlines.layouts import Contents, Layout, build_scan, find_datasets, outline, read_contents, read_motors
from braggshot.io.beamlines.poses import Pose, describe_pose, follow
from braggshot.io.beamlines.readings import Overrides
from braggshot.io.beamlines.values import Value, read_numbers, to_text
from braggshot.io.chunks import read_region
from braggshot.io.files import find_node, is_below, node, open_hdf5
from braggshot.io.frames import TiffFrames
from braggshot.volumes import FloatArray, Scan

# Name of a more general format: its reader can read files of I16 too, but the reader in this module takes precedence.
PARENT = "nexus"
BEFORE = ("instrument/diffractometer_sample", "before_scan/diffractometer_sample")  # angles before the scan
LAYOUT = Layout(
    instrument=DIAMOND_I16,
    frames=("instrument/*/data",),
    motors={
        circle.motor: (f"measurement/{circle.motor}", *(f"{place}/{circle.motor}" for place in BEFORE))
        for circle in (*DIAMOND_I16.sample, *DIAMOND_I16.detector)
    },
    energy=dict.fromkeys(("sample/beam/incident_energy", "instrument/mono/en", "before_scan/mono/en"), "keV"),
    pixel_size=(
        ("instrument/{detector}/module/slow_pixel_direction",),
        ("instrument/{detector}/module/fast_pixel_direction",),
    ),
    mask=("instrument/{detector}/pixel_mask",),
    command=("diamond_scan/scan_command", "scan_command"),
    time=("start_time",),
)
ENTRIES = ("entry", "entry1")  # names of the group of the scan, in new and in old files
KAPPA = ("kmu", "kth", "kap", "kphi", "kgam", "kdelta")  # circles of the kappa goniometer and of the detector
LEAN = np.radians(50.0)  # angle between the axes of kth and of kap [rad]
CIRCLES = {"delta", "gamma", "kdelta", "kgam"}  # transformations of the file that are circles of the detector
AXES = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # x, y, z of the laboratory in the axes of the files


def can_read(path: str | Path) -> bool:
    """Tell whether an HDF5 file is a scan of I16: it names the beamline, and holds what was measured."""
    known = outline(path)
    if not any({"instrument", "measurement"} <= known.get(name, frozenset()) for name in ENTRIES):
        return False
    try:
        with open_hdf5(path) as file:
            name = _entry(file)
            return name is not None and find_node(file, f"{name}/measurement") is not None
    except FormatError:
        return False


def _entry(file: h5py.File) -> str | None:
    """Return the name of the group of the scan; None if no group names I16 as its instrument."""
    for name in ENTRIES:
        group = find_node(file, name)
        if isinstance(group, h5py.Group):
            said = [to_text(read_region(item)) for item in find_datasets(group, ("instrument/name", "instrument/beamline"))]
            if any(text.strip().casefold() == "i16" for text in said):
                return name
    return None


def read(path: str | Path, *, detector: str | None = None, monitor: str = "ic1monitor", **overrides: Unpack[Overrides]) -> Scan:
    """Read the scan of one NeXus file of I16.

    Parameters
    ----------
    path : the NeXus file
    detector : name of the detector in the group `instrument`; not needed where there is only one detector
    monitor : name of a counter in the group `measurement` that is proportional to the incident flux
    overrides : energy_ev, distance_m, pixel_size_m, direct_beam, which replace the values in the file

    Raises
    ------
    FormatError : if the detector is missing (the message lists those in the file), or the file is damaged.
    DataError : if fewer than two frames have an angle.
    """
    noticed: list[str] = []
    with open_hdf5(path) as file:
        group = node(file, _entry(file) or "entry")
        images = _list_images(group, Path(path).parent, noticed)
        contents = read_contents(group, LAYOUT, detector, (f"measurement/{monitor}",), noticed, tuple(images))
        contents = dataclasses.replace(contents, motors=_follow_kappa(group, contents.motors, noticed))
        place = _find_pose(file, group, contents.detector)
        announced = next(find_datasets(group, ("diamond_scan/scan_shape", "scan_dimensions")), None)
        points = 0 if announced is None else int(np.nan_to_num(np.prod(read_numbers(read_region(announced))[0])))
        is_there = bool(contents.datasets) and find_node(file, contents.datasets[0]) is not None
    stored = None if is_there or contents.detector not in images else TiffFrames(images[contents.detector])
    layout, contents, stated = _apply_pose(contents, place, noticed)
    measured = max((np.size(value) for value in contents.motors.values()), default=0)
    if points > measured > 1:
        noticed.append(f"the file announces {points} points, and {measured} were measured: the scan stopped early.")
    return build_scan(path, layout, contents, Path(path).stem, {**stated, **overrides}, noticed, stored)


def _list_images(group: h5py.Group, folder: Path, noticed: list[str]) -> dict[str, list[Path | None]]:
    """Return detector -> TIFF files of its frames, which the file names; None in place of one that is not there.

    Raises
    ------
    FormatError : if a file lies outside of the folder of the scan.
    """
    found: dict[str, list[Path | None]] = {}
    for item in find_datasets(group, ("instrument/*/image_data",)):
        names = np.ravel(read_region(item))
        if item.dtype.kind not in "OS" or not names.size:
            continue
        paths = [folder / to_text(name) for name in names]
        outside = next((path for path in paths if not is_below(path, folder)), None)
        if outside is not None:
            raise FormatError(f"{item.file.filename}: {item.name} names {outside}, outside of its folder; copy it beside the file.")
        lost = [path.name for path in paths if not path.is_file()]
        if lost and len(lost) < len(paths):
            noticed.append(f"{len(lost)} of {len(paths)} images are missing ({', '.join(lost[:5])}): left as masked planes.")
        if len(lost) < len(paths):
            found[str(item.name).split("/")[-2]] = [path if path.is_file() else None for path in paths]
    return found


def _follow_kappa(group: h5py.Group, motors: dict[str, Any], noticed: list[str]) -> dict[str, Any]:
    """Return the positions of the circles, at each point where the motors of the kappa goniometer were recorded at each.

    Circles that were scanned by their own names keep their positions.
    """
    if any(np.size(value) > 1 for value in motors.values()):
        return motors
    kappa = read_motors(group, {name: (f"measurement/{name}",) for name in KAPPA}, noticed)
    points = min((np.size(value) for value in kappa.values() if np.size(value) > 1), default=0)
    if len(kappa) < len(KAPPA) or not points:
        return motors
    kmu, kth, kap, kphi, kgam, kdelta = (np.broadcast_to(np.ravel(kappa[name])[:points], points) for name in KAPPA)
    eta, chi, phi = eulerian(kth, kap, kphi)
    return {"mu": kmu, "eta": eta, "chi": chi, "phi": phi, "gam": kgam, "delta": kdelta}


def eulerian(kth: FloatArray, kap: FloatArray, kphi: FloatArray) -> tuple[NDArray[np.float64], ...]:
    """Return the angles eta, chi and phi that turn the sample as the kappa goniometer does; all in degrees, at each point."""
    from scipy.spatial.transform import Rotation  # here, because it takes long to import and few files need it

    known = np.isfinite(kth) & np.isfinite(kap) & np.isfinite(kphi)
    found = np.full((3, known.size), np.nan)
    if known.any():
        about_y, lean = np.array([0.0, 1.0, 0.0]), np.array([0.0, np.cos(LEAN), -np.sin(LEAN)])
        turns = [
            Rotation.from_rotvec(np.radians(angle[known])[:, None] * axis)
            for angle, axis in ((kth, about_y), (kap, lean), (kphi, about_y))
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # at chi = 0 only the sum of eta and phi counts, and phi is taken as 0
            angles = (turns[0] * turns[1] * turns[2]).as_euler("YZY")
        found[:, known] = np.degrees(np.unwrap(angles, axis=0)).T
    return tuple(found)


def _find_pose(file: h5py.File, group: h5py.Group, detector: str) -> Pose | None:
    """Return the place of a detector with delta and gam at zero; None if the file does not tell it."""
    place = f"{group.name}/instrument/{detector}"

    def is_circle(item: h5py.Dataset) -> bool:
        return {to_text(item.attrs.get("local_name", "")).split(".")[-1], str(item.name).split("/")[-1]} & CIRCLES != set()

    steps = [follow(file, f"{place}/module/{edge}_pixel_direction", is_circle) for edge in ("slow", "fast")]
    first = follow(file, f"{place}/module/module_offset", is_circle)
    if first is None or steps[0] is None or steps[1] is None:
        return None
    row, column = (AXES @ (step[:3, 3] - first[:3, 3]) for step in steps if step is not None)
    return describe_pose(AXES @ first[:3, 3], row, column)


def _apply_pose(contents: Contents, place: Pose | None, noticed: list[str]) -> tuple[Layout, Contents, Overrides]:
    """Return the table, the contents and the calibration of a detector that stands where the file says."""
    if place is None:
        noticed.append("the file does not say how the detector is mounted: rows are taken to grow downwards, columns outboard.")
        return LAYOUT, contents, {}
    instrument = dataclasses.replace(DIAMOND_I16, row_axis=place.row_axis, column_axis=place.column_axis)
    values = {**contents.values, "distance": Value(place.distance, "origin_offset of the file"), "direct_beam": place.direct_beam}
    calibration: Overrides = {
        "detector_rotation_deg": place.rotation_deg, "tilt_azimuth_deg": place.tilt_azimuth_deg, "tilt_deg": place.tilt_deg,
    }  # fmt: skip
    layout = dataclasses.replace(LAYOUT, instrument=instrument)
    return layout, dataclasses.replace(contents, values=values), calibration
