"""Input files of every format, written as the beamlines write them, with what a reader must find in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import tifffile
from sample_layouts import (
    write_20ide,
    write_aps,
    write_cristal,
    write_heps,
    write_i16,
    write_id01_spec,
    write_id27,
    write_nanomax,
    write_sixs,
)  # fmt: skip
from scipy.constants import electron_volt

from braggshot.io.beamlines import aps_34idc
from braggshot.io.formats import cxi
from braggshot.volumes import Circle, DiffractionVolume, Geometry

SHAPE = (9, 12, 10)


@dataclass(frozen=True)
class Sample:
    """A file and what is in it; `damage` is the file that holds the last counts."""

    format: str
    path: Path | str
    counts: np.ndarray
    damage: Path
    options: dict[str, Any] = field(default_factory=dict)
    valid: np.ndarray | None = None
    rocking_angle: np.ndarray | None = None


def draw_counts(dtype: Any = np.int32, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A peak on a background, so that no two regions have the same sum."""
    grid = np.stack(np.meshgrid(*(np.arange(n) - n / 2 for n in shape), indexing="ij"))
    return np.random.default_rng(5).poisson(40 * np.exp(-(grid**2).sum(axis=0) / 8) + 3).astype(dtype)


def draw_mask(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """True where good; one column and one voxel are bad."""
    good = np.ones(shape, bool)
    good[..., 3] = False
    good[..., 1, 1] = False
    return good


def aps_geometry(shape: tuple[int, ...] = SHAPE) -> tuple[np.ndarray, Geometry]:
    angle = np.deg2rad(np.linspace(-0.2, 0.3, shape[0]))
    circles = [Circle("y+", angle, "Theta"), Circle("z-", np.deg2rad(90.0), "Chi"), Circle("y+", np.deg2rad(-5.0), "Phi")]
    return angle, Geometry(
        energy=9e3 * electron_volt,
        distance=0.5,
        pixel_size=(55e-6, 55e-6),
        sample=tuple(circles),
        detector=(Circle("y+", np.deg2rad(32.174), "Delta"), Circle("x-", np.deg2rad(12.6346), "Gamma")),
        direct_beam=((shape[1] - 1) / 2, (shape[2] - 1) / 2),
        instrument="APS 34-ID-C",
    )


def write_bliss(
    folder: Path, counts: np.ndarray, eta: np.ndarray, *, number: int = 12, detector: str = "mpxgaas", motors: Any = None
) -> Path:  # fmt: skip
    """A BLISS dataset file: one entry, its frames virtual over two files of the camera server, links as BLISS makes them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"scan{number:04d}").mkdir()
    path, half = folder / "sample_0001.h5", (len(counts) + 1) // 2
    layout = h5py.VirtualLayout(counts.shape, counts.dtype)
    for part, block in enumerate((counts[:half], counts[half:])):
        name = f"scan{number:04d}/{detector}_{part:04d}.h5"
        with h5py.File(folder / name, "w") as camera:
            place = f"entry_0000/instrument/{detector}/data"
            camera.create_dataset(place, data=block, chunks=(1, *block.shape[1:]), **hdf5plugin.Bitshuffle(cname="lz4"))
        layout[part * half : part * half + len(block)] = h5py.VirtualSource(name, place, block.shape, block.dtype)
    with h5py.File(path, "a") as file:
        file.attrs.update(NX_class="NXroot", creator="Bliss", publisher="bliss")
        entry = file.create_group(f"{number}.1")
        entry.attrs["NX_class"] = "NXentry"
        entry["title"] = f"ascan eta {eta[0]:g} {eta[-1]:g} {len(eta) - 1} 1"
        entry["start_time"] = "2024-03-05T21:14:03.123456+01:00"
        motors = {"mu": 0.5, "eta": eta, "phi": 12.0, "nu": 3.0, "delta": 35.2, "mononrj": 13.0, "thx": 1.0} | (motors or {})
        for group, values in (("positioners", motors), ("positioners_start", {k: np.ravel(v)[0] for k, v in motors.items()})):
            for name, value in values.items():
                node = entry.create_dataset(f"instrument/{group}/{name}", data=value)
                node.attrs["units"] = {"mononrj": "keV", "thx": "mm"}.get(name, "deg")
        camera = entry.create_group(f"instrument/{detector}")
        camera.attrs["NX_class"] = "NXdetector"
        camera.create_virtual_dataset("data", layout)
        calibration = {"beam_center_x": 4.0, "beam_center_y": 7.0, "x_pixel_size": 55e-6, "y_pixel_size": 55e-6, "distance": 0.8}
        for name, value in calibration.items():
            camera[name] = value
        entry[f"measurement/{detector}"] = h5py.SoftLink(f"/{number}.1/instrument/{detector}/data")
        entry["measurement/imon"] = np.linspace(100.0, 110.0, len(eta))
        entry["measurement/eta"] = eta
    return path


def write_collection(path: Path, dataset: Path) -> Path:
    """A BLISS collection file: entries of the datasets by external links, with the dataset's name before the number."""
    with h5py.File(dataset) as source, h5py.File(path, "w") as file:
        file.attrs.update(NX_class="NXroot", creator="Bliss")
        for name in source:
            file[f"{dataset.stem}_{name}"] = h5py.ExternalLink(str(dataset.relative_to(path.parent)), f"/{name}")
    return path


def write_p10(
    folder: Path,
    counts: np.ndarray,
    om: np.ndarray,
    mask: np.ndarray,
    *,
    sample: str = "sample",
    number: int = 12,
    per_file: int = 4,
    motors: Any = None,
) -> Path:
    """An Eiger master with external data files, really bitshuffle-LZ4 compressed, and the .fio file one folder above."""
    stem = f"{sample}_{number:05d}"
    place = folder / stem / "e4m"
    place.mkdir(parents=True)
    with h5py.File(place / f"{stem}_master.h5", "w") as master:
        for part, start in enumerate(range(0, len(counts), per_file), start=1):
            name, block = f"{stem}_data_{part:06d}.h5", counts[start : start + per_file]
            with h5py.File(place / name, "w") as file:
                chunks = (1, *block.shape[1:])
                file.create_dataset("entry/data/data", data=block, chunks=chunks, **hdf5plugin.Bitshuffle(cname="lz4"))
            master[f"entry/data/data_{part:06d}"] = h5py.ExternalLink(name, "/entry/data/data")
        camera = master.create_group("entry/instrument/detector")
        camera["description"] = "Dectris Eiger 4M"
        for key, value, units in (("x_pixel_size", 75e-6, "m"), ("y_pixel_size", 75e-6, "m"), ("detector_distance", 1.84, "m")):
            camera[key] = value
            camera[key].attrs["units"] = units
        camera["beam_center_x"], camera["beam_center_y"] = 0.0, 0.0
        camera["detectorSpecific/pixel_mask"] = (~mask).astype(np.uint32) * 2
        master["entry/instrument/beam/incident_wavelength"] = 1.3
    rows = "\n".join(f" {angle:.6f} 0.1 {100 + i}" for i, angle in enumerate(om))
    known = {"mu": 0.25, "om": om[0], "chi": 90.0, "phi": -3.0, "gam": 2.0, "del": 31.0, "fmbenergy": 9000.5} | (motors or {})
    parameters = "\n".join(f"{name} = {np.ravel(value)[0]}" for name, value in known.items())
    (folder / stem / f"{stem}.fio").write_text(
        f"!\n! Comments\n!\n%c\nascan om {om[0]} {om[-1]} {len(om) - 1} 1.0\n"
        "user p10user Acquisition started at Mon Oct 04 12:00:00 2021\n"
        f"!\n! Parameter\n!\n%p\n{parameters}\n_ccd = e4m\n!\n! Data\n!\n%d\n"
        f" Col 1 om DOUBLE\n Col 2 expt DOUBLE\n Col 3 curpetra DOUBLE\n{rows}\n! Acquisition ended at Mon Oct 04 12:05:00 2021\n"
    )
    return place / f"{stem}_master.h5"


def make_volume(shape: tuple[int, ...] = SHAPE, **fields: Any) -> DiffractionVolume:
    return DiffractionVolume(intensity=draw_counts(np.float32, shape), valid=draw_mask(shape), name="crystal", **fields)


def _cxi(folder: Path) -> Sample:
    volume = make_volume()
    cxi.write_data(folder / "a.cxi", volume)
    return Sample("cxi", folder / "a.cxi", volume.intensity, folder / "a.cxi", valid=volume.valid)


def _npy(folder: Path) -> Sample:
    np.save(folder / "a.npy", draw_counts())
    np.save(folder / "bad.npy", ~draw_mask()[0])
    return Sample("stacks", folder / "a.npy", draw_counts(), folder / "a.npy", {"mask": folder / "bad.npy"}, draw_mask()[0])


def _npz(folder: Path) -> Sample:
    np.savez_compressed(folder / "a.npz", mask=(~draw_mask()).astype(np.uint8), other=np.zeros(3), data=draw_counts())
    return Sample("stacks", folder / "a.npz", draw_counts(), folder / "a.npz", valid=draw_mask())


def _tiff(folder: Path) -> Sample:
    tifffile.imwrite(folder / "a.tif", draw_counts(np.uint16), photometric="minisblack")
    return Sample("stacks", folder / "a.tif", draw_counts(), folder / "a.tif")


def _tiff_compressed(folder: Path) -> Sample:
    tifffile.imwrite(folder / "a.tiff", draw_counts(np.float32), photometric="minisblack", compression="zlib")
    return Sample("stacks", folder / "a.tiff", draw_counts(), folder / "a.tiff")


def _image_folder(folder: Path, suffix: str) -> Sample:
    folder = folder / "images"
    folder.mkdir()
    for index, image in enumerate(draw_counts(shape=(12, *SHAPE[1:]))):
        path = folder / f"frame_{index}{suffix}"  # no leading zeros: frame_10 must not come before frame_2
        np.save(path, image) if suffix == ".npy" else tifffile.imwrite(path, image, photometric="minisblack")
    return Sample("stacks", folder, draw_counts(shape=(12, *SHAPE[1:])), folder / f"frame_11{suffix}")


def _pattern(folder: Path) -> Sample:
    whole = _image_folder(folder, ".tif")
    return Sample("stacks", f"{whole.path}/frame_*.tif", whole.counts, whole.damage)


def _nexus(folder: Path) -> Sample:
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("exp/images", data=draw_counts(), chunks=(2, 5, 5), compression="gzip")
        file["exp/theta"] = np.linspace(10, 11, SHAPE[0])
        file["exp/bad"] = ~draw_mask()[0]
    options = {"dataset": "exp/images", "mask": "exp/bad", "angle": "exp/theta"}
    return Sample(
        "nexus", folder / "a.h5", draw_counts(), folder / "a.h5", options, draw_mask()[0], np.deg2rad(np.linspace(10, 11, SHAPE[0]))
    )


def _aps(folder: Path) -> Sample:
    angle, geometry = aps_geometry()
    path = aps_34idc.write_scan(folder / "Staff1", draw_counts(), angle, geometry, 54)
    last = folder / "Staff1/AD34idcTIM2_Staff1/Staff1_S0054/Staff1_S0054_00008.tif"
    return Sample("aps_34idc", path, draw_counts(), last, {"scan": 54}, rocking_angle=angle)


def _id01(folder: Path) -> Sample:
    eta = np.linspace(17.2, 17.8, SHAPE[0])
    path = write_bliss(folder, draw_counts(np.uint16), eta)
    last = folder / "scan0012/mpxgaas_0001.h5"
    return Sample("esrf_id01", path, draw_counts(), last, {"scan": 12}, rocking_angle=np.deg2rad(eta))


def _id01_collection(folder: Path) -> Sample:
    sample = _id01(folder / "dataset")
    path = write_collection(folder / "proposal.h5", Path(sample.path))
    return Sample("esrf_id01", path, sample.counts, sample.damage, {"scan": 12}, rocking_angle=sample.rocking_angle)


def _p10(folder: Path) -> Sample:
    om, good, counts = np.linspace(15.1, 15.5, SHAPE[0]), draw_mask()[0], draw_counts(np.uint32)
    counts[:, ~good] = 2**32 - 1
    path = write_p10(folder, counts, om, good)
    last = path.with_name("sample_00012_data_000003.h5")
    return Sample("petra_p10", path, counts, last, valid=good, rocking_angle=np.deg2rad(om))


def _nanomax(folder: Path) -> Sample:
    theta = np.linspace(15.2, 15.6, SHAPE[0])
    angles = {"gontheta": theta, "gonphi": 3.0, "gamma": 12.0, "delta": 27.0}
    path = write_nanomax(folder, draw_counts(np.uint32), angles, per_point=3)
    last = folder / "scan_000012_eiger500k_0002.h5"
    return Sample("nanomax", path, draw_counts(np.uint32), last, rocking_angle=np.deg2rad(theta))


def _i16(folder: Path, images: str = "hdf") -> Sample:
    eta = np.linspace(18.2, 18.6, SHAPE[0])
    angles = {"mu": 0.0, "eta": eta, "chi": 89.0, "phi": -33.0, "gam": 2.0, "delta": 37.0}
    path = write_i16(folder, draw_counts(np.int32), angles, images=images)
    damage = path if images == "hdf" else folder / "1040323-pilatus3_100k-files/00009.tif"
    return Sample("diamond_i16", path, draw_counts(np.int32), damage, rocking_angle=np.deg2rad(eta))


def _sixs(folder: Path) -> Sample:
    mu = np.linspace(10.2, 10.6, SHAPE[0])
    path = write_sixs(folder, draw_counts(np.uint16), {"beta": 0.4, "mu": mu, "gamma": 22.0, "delta": 15.0})
    return Sample("soleil_sixs", path, draw_counts(np.uint16), path, rocking_angle=np.deg2rad(mu))


def _cristal(folder: Path) -> Sample:
    omega = np.linspace(10.2, 10.6, SHAPE[0])
    path = write_cristal(folder, draw_counts(np.uint16), {"mgomega": omega, "mgphi": 3.0, "gamma": 2.0, "delta": 25.0})
    return Sample("soleil_cristal", path, draw_counts(np.uint16), path, rocking_angle=np.deg2rad(omega))


def _aps_spec(folder: Path, format: str) -> Sample:
    steps, dtype = np.linspace(3.2, 3.6, SHAPE[0]), np.uint32 if format == "aps_28idb" else np.int32
    angles, motors = {
        "aps_1ide": ({"AeroTech": steps, "vff_eta": 25.0}, {"vff_r": 0.0, "detdist": 800.0}),
        "aps_7idd": (
            {"Chi": 2.0, "ThetaN": steps, "Phi": 40.0, "Yaw": 4.0, "Pitch": 33.0},
            {"Radius": 800.0, "Energy": 10.0},
        ),
        "aps_28idb": (
            {"Mu": 0.3, "Eta": steps, "Chi": 1.0, "Phi": 41.0, "Nu": 3.0, "Delta": 35.0},
            {"camdist": 800.0, "Energy": 10.0},
        ),
    }[format]
    path = write_aps(folder, draw_counts(dtype), angles, motors=motors, kind=".h5" if format == "aps_28idb" else ".tif")
    last = path if format == "aps_28idb" else folder / "data/Staff1_S0054/Staff1_S0054_00008.tif"
    return Sample(format, path, draw_counts(dtype), last, {"scan": 54}, rocking_angle=np.deg2rad(steps))


def _flat(folder: Path, format: str) -> Sample:
    steps = np.linspace(3.2, 3.6, SHAPE[0])
    write, motor = {"aps_20ide": (write_20ide, "samRy"), "esrf_id27": (write_id27, "nath")}[format]
    path = write(folder, draw_counts(np.uint16), {motor: steps})
    return Sample(format, path, draw_counts(np.uint16), path, rocking_angle=np.deg2rad(steps))


def _heps(folder: Path, pilatus: bool = False) -> Sample:
    eta = np.linspace(17.2, 17.8, SHAPE[0])
    angles = {"mu": 0.5, "eta": eta, "chi": 88.5, "phi": 12.0, "nu": 3.0, "del": 35.2}
    path = write_heps(folder, draw_counts(), angles, pilatus=pilatus)
    last = folder / "images/Sample1_1/S191" / ("Sample1_1_S191_00008.tif" if pilatus else "A_008.tif")
    return Sample("heps_id05", path, draw_counts(), last, {"scan": 191}, rocking_angle=np.deg2rad(eta))


def _id01_spec(folder: Path) -> Sample:
    eta = np.linspace(17.2, 17.8, SHAPE[0])
    path = write_id01_spec(folder, draw_counts(), {"mu": 0.5, "eta": eta, "phi": 12.0, "nu": 3.0, "delta": 35.2})
    last = folder / "data/data_mpx4_00128.edf.gz"
    return Sample("esrf_id01_spec", path, draw_counts(), last, {"scan": 54}, rocking_angle=np.deg2rad(eta))


SAMPLES = {
    "cxi": _cxi, "npy": _npy, "npz": _npz, "tiff": _tiff, "tiff_compressed": _tiff_compressed, "pattern": _pattern,
    "tiff_folder": lambda folder: _image_folder(folder, ".tif"), "npy_folder": lambda folder: _image_folder(folder, ".npy"),
    "nexus": _nexus, "aps_34idc": _aps, "esrf_id01": _id01, "esrf_id01_collection": _id01_collection, "petra_p10": _p10,
    "nanomax": _nanomax, "diamond_i16": _i16, "diamond_i16_tiff": lambda folder: _i16(folder, "tif"),
    "soleil_sixs": _sixs, "soleil_cristal": _cristal, "esrf_id01_spec": _id01_spec,
    "heps_id05": _heps, "heps_id05_pilatus": partial(_heps, pilatus=True),
    **{name: partial(_aps_spec, format=name) for name in ("aps_1ide", "aps_7idd", "aps_28idb")},
    **{name: partial(_flat, format=name) for name in ("aps_20ide", "esrf_id27")},
}  # fmt: skip
