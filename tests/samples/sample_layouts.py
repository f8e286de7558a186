"""Scans in the HDF5 layouts of beamlines, each written as the beamline's own program writes it."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fabio
import h5py
import hdf5plugin
import numpy as np
import tifffile
from scipy.constants import c, electron_volt, h

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


# Motors of the kappa goniometer of I16, outermost first; name and axis of each circle in files, where X is up and Z downstream.
KAPPA = {
    "kmu": ("mu", [1.0, 0.0, 0.0]),
    "kth": ("theta", [0.0, 1.0, 0.0]),
    "kap": ("kappa", [0.0, np.cos(np.radians(50)), -np.sin(np.radians(50))]),
    "kphi": ("phi", [0.0, 1.0, 0.0]),
}


def turn_y(degrees: float) -> np.ndarray:
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    return np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])


def write_i16(
    folder: Path, counts: np.ndarray, angles: Angles, *, energy: float = 10000.0, images: str = "hdf", entry: str = "entry",
    pitch: float = 75e-6, beam: tuple[float, float] = (6.0, 4.5), distance: float = 0.8, place: Any = None,
) -> Path:  # fmt: skip
    """A file of GDA: axes X up, Y inboard, Z downstream; the detector 8.8 degrees below its arm, rows along Y and columns along X.

    `angles` may be those of the kappa goniometer. `place` holds the first pixel, the step of rows and that of columns [m].
    """
    number, path = "1040323", folder / "1040323.nxs"
    folder.mkdir(parents=True, exist_ok=True)
    camera, points = f"{entry}/instrument/pil3_100k", max(np.size(value) for value in angles.values())
    if place is None:
        back = turn_y(8.8)  # what the offset undoes
        place = [back @ v for v in ([-pitch * beam[1], -pitch * beam[0], distance], [0, pitch, 0], [pitch, 0, 0])]
    with h5py.File(path, "w") as file:
        file[f"{entry}/instrument/beamline"] = "i16"
        old = entry == "entry1"
        file[f"{entry}/scan_command" if old else f"{entry}/diamond_scan/scan_command"] = "scan eta 1 2 0.1 pil3_100k 1"
        file[f"{entry}/scan_dimensions" if old else f"{entry}/diamond_scan/scan_shape"] = [points]
        file[f"{entry}/start_time"] = "2024-02-27T16:25:38.209"
        put(file.create_group(f"{entry}/sample/beam"), {
            "incident_energy": energy / 1e3, "incident_wavelength": h * c / (energy * electron_volt) * 1e9,
            "depends_on": b"transformations/direction", "transformations/direction": 0.0,
        })  # fmt: skip
        file[f"{entry}/sample/beam/incident_wavelength"].attrs["units"] = b"nm"
        file[f"{entry}/sample/beam/transformations/direction"].attrs["vector"] = [0.0, 0.0, 1.0]
        before = file.create_group(f"{entry}/{'before_scan' if old else 'instrument'}/diffractometer_sample")
        for name, value in angles.items():
            if np.size(value) > 1 or name.startswith("k"):
                file[f"{entry}/measurement/{name}"] = np.broadcast_to(value, points)
            if not name.startswith("k"):
                before[name] = float(np.ravel(value)[0])
        file[f"{entry}/measurement/ic1monitor"] = np.linspace(0.6, 0.7, points)
        origin = f"/{camera}/transformations/origin_offset"
        arm, size = f"/{entry}/instrument/transformations", [np.linalg.norm(vector) for vector in place]
        gam, delta = (np.broadcast_to(angles.get(f"k{name}", angles.get(name, 0.0)), points) for name in ("gam", "delta"))
        chain = {
            f"{arm}/gamma": (gam, "deg", "rotation", [1.0, 0, 0], "."),
            f"{arm}/delta": (delta, "deg", "rotation", [0, 1.0, 0], f"{arm}/gamma"),
            f"{arm}/offsetdelta": (np.full(points, 8.8), "deg", "rotation", [0, -1.0, 0], f"{arm}/delta"[1:]),
            origin: ([1.0], "mm", "translation", place[0] * 1e3, f"{arm}/offsetdelta"),
            f"/{camera}/module/module_offset": ([0.0], "mm", "translation", np.zeros(3), origin),
            f"/{camera}/module/slow_pixel_direction":
                ([size[1] * 1e3], "mm", "translation", place[1] / size[1], f"/{camera}/module/module_offset"),
            f"/{camera}/module/fast_pixel_direction":
                ([size[2] * 1e3], "mm", "translation", place[2] / size[2], f"/{camera}/module/module_offset"),
        }  # fmt: skip
        last = "."
        for motor, (circle, axis) in KAPPA.items() if "kth" in angles else ():
            step = f"/{entry}/sample/transformations/{circle}"
            chain[step] = (np.broadcast_to(angles[motor], points), "deg", "rotation", axis, last)
            last = step
        file[f"{entry}/sample/depends_on"] = last
        for name, (value, units, kind, vector, after) in chain.items():
            file[name] = value
            file[name].attrs.update(units=units, transformation_type=kind, vector=vector, depends_on=np.bytes_(after))
        kinds = {"": "entry", "/sample": "sample", "/instrument": "instrument", "/measurement": "data"}
        for name, kind in {**kinds, "/sample/beam": "beam", "/instrument/pil3_100k": "detector"}.items():
            file[entry + name].attrs["NX_class"] = np.bytes_(f"NX{kind}")
        file[f"{camera}/module"].attrs["NX_class"] = np.bytes_("NXdetector_module")
        file[f"{camera}/module/data_size"] = counts.shape[1:]
        if images == "tif":
            files = [f"{number}-pilatus3_100k-files/{index:05d}.tif" for index in range(1, len(counts) + 1)]
            (folder / files[0]).parent.mkdir(exist_ok=True)
            for name, image in zip(files, counts, strict=True):
                tifffile.imwrite(folder / name, image.astype(np.int32), photometric="minisblack")
            file[f"{camera}/image_data"] = files
        part = f"{number}-pilatus3_100k-files/{number}.hdf"
        file[f"{camera}/data"] = h5py.ExternalLink(part, "/entry/instrument/detector/data")
    if images == "hdf":
        write_camera(folder / part, "entry/instrument/detector/data", counts)
    return path


def write_sixs(
    folder: Path, counts: np.ndarray, angles: Angles, *, energy: float = 10000.0, year: int = 2022, label: bool = True
) -> Path:  # fmt: skip
    """A file of SOLEIL: devices of the beamline, and numbered data sets whose `long_name` says what they are."""
    folder.mkdir(parents=True, exist_ok=True)
    path, mu = folder / "spare_ascan_mu_00012.nxs", np.asarray(angles["mu"])
    with h5py.File(path, "w") as file:
        data = file.create_group("com/scan_data")
        data.create_dataset("data_05", data=counts, chunks=(1, *counts.shape[1:]), compression="gzip")
        data["data_02"] = np.linspace(5.0, 6.0, len(mu))
        data["data_02"].attrs["long_name"] = np.bytes_("i14-c-c00/ca/cpt.1/monitor")
        name = "actuator_1_1" if year >= 2022 else "data_07"
        data[name] = mu
        if label:
            data[name].attrs["long_name"] = np.bytes_(
                "i14-c-cx1/ex/med-v-dif-group.1/mu" if year >= 2022 else "i14-c-cx1/ex/mu-med/position"
            )
        still = {motor: [float(np.ravel(value)[0])] for motor, value in angles.items()} | {"omega": [0.0]}
        for motor, value in still.items():
            if year >= 2022:
                file[f"com/SIXS/i14-c-cx1-ex-med-v-dif-group.1/{motor}/position"] = value
            else:
                file[f"com/SIXS/i14-c-cx1-ex-{motor}-med-h/position_pre"] = value
        if year < 2022:
            file["com/SIXS/i14-c-cx1-ex-zdelta-a-med-group/position_pre"] = [77.0]
        file["com/SIXS/i14-c-c02-op-mono/energy"] = [energy / 1e3]
    return path


def write_cristal(
    folder: Path, counts: np.ndarray, angles: Angles, *, energy: float = 10000.0, number: int = 12, named: bool = True
) -> Path:  # fmt: skip
    """A file of SOLEIL CRISTAL; `named` says whether the file names the motor that was scanned."""
    folder.mkdir(parents=True, exist_ok=True)
    path, entry = folder / "S12.nxs", f"exp_{number:04d}"
    scanned = next(name for name, value in angles.items() if np.size(value) > 1)
    with h5py.File(path, "a") as file:
        data = file.create_group(f"{entry}/scan_data")
        data.create_dataset("data_06", data=counts, chunks=(1, *counts.shape[1:]), compression="gzip")
        data["actuator_1_1"] = angles[scanned]
        data["data_04"] = np.linspace(5.0, 6.0, np.size(angles[scanned]))
        if named:
            file[f"{entry}/scan_config/name"] = np.bytes_(f"ascan i06-c-c07-ex-mg_{scanned.removeprefix('mg')}")
        places = {"mgomega": "i06-c-c07-ex-mg_omega", "mgphi": "i06-c-c07-ex-mg_phi"}
        places |= {name: f"Diffractometer/i06-c-c07-ex-dif-{name}" for name in ("gamma", "delta")}
        for name, value in angles.items():
            file[f"{entry}/CRISTAL/{places[name]}/position"] = float(np.ravel(value)[0])
        file[f"{entry}/CRISTAL/Monochromator/energy"] = [energy / 1e3]
    return path


SHORT = {"AeroTech": "aero", "ThetaN": "th", "Eta": "eta"}  # names by which SPEC is told to scan a motor


def write_aps(
    folder: Path, counts: np.ndarray, angles: Angles, *, motors: Mapping[str, float], kind: str = ".tif", number: int = 54
) -> Path:  # fmt: skip
    """A SPEC file of the Advanced Photon Source, and TIFF files or one HDF5 file of frames; `motors` stand beside the circles."""
    folder.mkdir(parents=True, exist_ok=True)
    scanned = next(name for name, value in angles.items() if np.size(value) > 1)
    still = {name: float(np.ravel(value)[0]) for name, value in angles.items()} | dict(motors)
    steps = np.asarray(angles[scanned])
    lines = [
        "#F Staff1.spec", "#D Tue Feb 27 16:25:38 2024", "", f"#O0 {'  '.join(still)}", "",
        f"#S {number}  ascan  {SHORT.get(scanned, scanned)} {steps[0]:g} {steps[-1]:g}  {len(steps) - 1} 1",
        "#D Tue Feb 27 16:25:38 2024",
        f"#P0 {' '.join(f'{value:.12g}' for value in still.values())}", "#N 3", f"#L {scanned}  Seconds  Monitor",
        *(f"{step:.12g} 1 {1000 + index}" for index, step in enumerate(steps)), "",
    ]  # fmt: skip
    (folder / "Staff1.spec").write_text("\n".join(lines))
    place = folder / "data" / f"Staff1_S{number:04d}"
    if kind == ".h5":
        write_camera(place.with_name(f"Staff1_S{number:04d}_00000.h5"), "entry/data/data", counts)
    else:
        place.mkdir(parents=True)
        for index, frame in enumerate(counts):
            image = frame.astype(np.int32)
            tifffile.imwrite(place / f"Staff1_S{number:04d}_{index:05d}.tif", image, photometric="minisblack")
    return folder / "Staff1.spec"


def write_20ide(folder: Path, counts: np.ndarray, angles: Angles, *, energy: float = 10000.0, shift: Any = (0.0, 0.0)) -> Path:
    """A file of 20-ID-E; `shift` is how far the detector was moved outboard and up [mm]."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "sample_054.Lambda.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("exchange/data", data=counts, chunks=(1, *counts.shape[1:]), compression="gzip")
        file["exchange/data_dark"], file["exchange/data_white"] = (
            np.zeros((2, *counts.shape[1:])),
            np.full((2, *counts.shape[1:]), 7.0),
        )
        file["SMS/E/HR/samRy"] = angles["samRy"]
        put(file.create_group("DMS"), {"DetX": [shift[0]], "DetY": [shift[1]], "DetZ": [800.0]})
        file["HEM/Energy"] = [energy / 1e3]
    return path


def write_id27(folder: Path, counts: np.ndarray, angles: Angles, *, energy: float = 10000.0, number: int = 12) -> Path:
    """A collection of BLISS at ID27."""
    folder.mkdir(parents=True, exist_ok=True)
    path, entry = folder / "sample.h5", f"sample_{number}.1"
    with h5py.File(path, "w") as file:
        file.create_dataset(f"{entry}/measurement/eiger", data=counts, chunks=(1, *counts.shape[1:]), compression="gzip")
        put(file.create_group(f"{entry}/instrument/positioners"), dict(angles), "deg")
        file[f"{entry}/instrument/calibration/wavelength"] = h * c / (energy * electron_volt) * 1e10
        file[f"{entry}/instrument/eiger/distance"] = 99.0
        steps = np.ravel(angles["nath"])
        file[f"{entry}/title"] = f"ascan nath {steps[0]:g} {steps[-1]:g} {len(steps) - 1} 1"
    return path


def write_bare_tiff(path: Path, image: np.ndarray, offset: int) -> None:
    """A TIFF file of 32-bit numbers that begin at byte `offset`, as detectors write them; what they are stands behind them."""
    rows, columns = image.shape
    fields = {256: columns, 257: rows, 258: 32, 259: 1, 262: 1, 273: offset, 277: 1, 278: rows, 279: 4 * image.size, 339: 2}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields.items())
    head = struct.pack("<2sHI", b"II", 42, offset + 4 * image.size).ljust(offset, b"\0")
    path.write_bytes(head + image.astype("<i4").tobytes() + struct.pack("<H", len(fields)) + entries + struct.pack("<I", 0))


HEPS_MOTORS = {
    "6c": {"del": "Delta", "eta": "Eta", "chi": "Chi", "phi": "Phi", "nu": "Nu", "mu": "Mu"},
    "4c": {"tth": "TwoTheta", "th": "Theta", "chi": "Chi", "phi": "Phi", "tthh": "TwoThetaH", "thh": "ThetaH"},
}


def write_heps(
    folder: Path, counts: np.ndarray, angles: Angles, *, energy: float = 10000.0, circles: str = "6c", pilatus: bool = False,
    number: int = 191,
) -> Path:  # fmt: skip
    """A SPEC file of HEPS ID05, and the folder of its images; counters and other motors have full and short names."""
    names, scanned = HEPS_MOTORS[circles], next(name for name, value in angles.items() if np.size(value) > 1)
    steps, wavelength = np.asarray(angles[scanned]), h * c / (energy * electron_volt) * 1e10
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / "images/Sample1_1" / f"S{number:03d}"
    place.mkdir(parents=True)
    lines = [
        "#F Sample1_1.spec", "#E 1776830738", "#D Wed Apr 22 12:05:38 2026", "#C psic  User = heps",
        f"#O0 {'  '.join(names.values())}", "#O1 SampleX  SampleY", f"#o0 {' '.join(names)}", "#o1 sx sy", "",
        f"#S {number}  ascan  {scanned} {steps[0]:g} {steps[-1]:g}  {len(steps) - 1} 1", "#D Wed Apr 22 12:25:38 2026",
        "#G0 12 0 1 0.000836 -0.00418 1 0 0", f"#G4 0.1 0.2 1.9 {wavelength:.14g} 17 17 90 0", "#Q 0.1 0.2 1.9",
        "#P0 " + " ".join(f"{float(np.ravel(angles.get(name, 0.0))[0]):.12g}" for name in names), "#P1 0.1 -0.2",
        "#N 4", f"#L {names[scanned]}  Epoch  Seconds  Monitor",
        *(f"{step:.12g} {index} 1 {1000 + index}" for index, step in enumerate(steps)), "", "",
    ]  # fmt: skip
    (folder / "Sample1_1.spec").write_text("\n".join(lines))
    for index, image in enumerate(counts):
        name = f"Sample1_1_S{number:03d}_{index:05d}.tif" if pilatus else f"A_{index:03d}.tif"
        write_bare_tiff(place / name, image, 4096 if pilatus else 8)
    return folder / "Sample1_1.spec"


def write_id01_spec(
    folder: Path, counts: np.ndarray, angles: Angles, *, energy: float = 10000.0, calibrated: bool = True, number: int = 54
) -> Path:  # fmt: skip
    """A SPEC file of ID01 and its EDF images, numbered from 120 on."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data").mkdir()
    still = {name.replace("delta", "del"): float(np.ravel(value)[0]) for name, value in angles.items()}
    lines = [
        "#F align.spec", "#D Tue Feb 27 16:25:38 2018", f"#O0 {'  '.join(still)}", "",
        f"#S {number}  ascan  eta {angles['eta'][0]:g} {angles['eta'][-1]:g}  {len(angles['eta']) - 1} 1",
        "#D Tue Feb 27 16:25:38 2018", f"#P0 {' '.join(f'{value:.12g}' for value in still.values())}",
        f"#UMONO mononrj={energy / 1e3:.8f}keV,monoang=10.0",
        *(["#UDETCALIB cen_pix_x=4.5,cen_pix_y=6,pixperdeg=445.0,det_distance_CC=0.8,det_distance_COM=0.81"] if calibrated else []),
        "#N 3", "#L eta  exp1  mpx4inr",
        *(f"{step:.12g} {1000 + index} {120 + index}" for index, step in enumerate(angles["eta"])), "", "",
    ]  # fmt: skip
    (folder / "align.spec").write_text("\n".join(lines))
    for index, image in enumerate(counts):
        header = {"counters": "mpx4int 0 " * 40, "motors": "eta 17.2 "}  # a second block of 512 bytes
        fabio.edfimage.EdfImage(image.astype(np.int32), header).write(str(folder / f"data/data_mpx4_{120 + index:05d}.edf.gz"))
    return folder / "align.spec"
