"""Small inputs under the names that the pages of the manual use, so that their commands run as printed."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import tifffile
from manual_pages import ROOT
from sample_crystal import result
from sample_inputs import write_bliss, write_p10
from sample_layouts import write_cristal, write_heps, write_i16, write_nanomax

import braggshot
from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.crystals.scan import ScanSettings, gold_at_34idc, simulate_scan
from braggshot.io import results
from braggshot.io.beamlines.aps_34idc import write_scan
from braggshot.io.formats import cxi
from braggshot.prepare.volume import prepare
from braggshot.volumes import DiffractionVolume, Scan

FRAMES = 41
QUICK = {"phasing": {"method": "iterative", "starts": 2, "iterative": {"recipe": "60*RAAR+30*ER"}, "partial_coherence": "off"}}


@cache
def raw_scan() -> Scan:
    """A gold crystal on the diffractometer of 34-ID-C; 24 x 24 pixels are enough to find it."""
    geometry = replace(gold_at_34idc(frames=FRAMES, step=math.radians(0.014)), direct_beam=(11.5, 11.5))
    about = ScanSettings(
        detector_shape=(24, 24), peak=(20, 12, 13), diameter=360e-9, phase_range=0.5, counts=3e4, hot=0, dead=0, alien=0
    )
    return simulate_scan(7, geometry, about)[0]


@cache
def pattern() -> DiffractionVolume:
    """A crystal with little strain, on 24 voxels along each axis."""
    about = CrystalSettings(
        shape=(24, 24, 24), oversampling=(2.3, 2.5), phase_range=(1.0, 1.0), counts=(1e5, 1e5), shapes=("fcc",),
    )  # fmt: skip
    return simulate_volume(5, about)[1]


def counts(first: float = 1.0, last: float = 1.0) -> np.ndarray:
    """Frames of the pattern under a flux that goes from `first` to `last`."""
    flux = np.linspace(first, last, 24).reshape(24, 1, 1)
    return np.rint(pattern().intensity * flux * 2 / (first + last)).astype(np.uint32)


def write_34idc(folder: Path, name: str = "exp", scans: tuple[int, ...] = (54,)) -> None:
    """A SPEC file with these scans, their frames, and the dark and white field of the detector."""
    scan, texts = raw_scan(), []
    for number in scans:
        spec = write_scan(folder / ".exp" / name, scan.frames, scan.rocking_angle, scan.geometry, number, scan.dark, scan.flat)
        texts.append(spec.read_text())
    spec.write_text("\n".join([texts[0], *(text[text.index("#S ") :] for text in texts[1:])]))
    shutil.copytree(folder / ".exp" / name, folder, dirs_exist_ok=True)
    shutil.rmtree(folder / ".exp")


def write_frames(folder: Path) -> None:
    folder.mkdir(parents=True)
    for index, frame in enumerate(np.asarray(raw_scan().frames)):
        tifffile.imwrite(folder / f"frame_{index:05d}.tif", frame.astype(np.int32), photometric="minisblack")


def write_id01(folder: Path) -> None:
    write_bliss(folder, counts(100, 110), np.linspace(17.2, 17.5, 24)).rename(folder / "sample.h5")


def write_eiger(folder: Path) -> None:
    """The master, its data files and the motors, all in one folder."""
    good = np.ones((24, 24), bool)
    master = write_p10(folder / ".p10", counts(100, 123), np.linspace(15.1, 15.4, 24), good, sample="scan")
    for file in (*master.parent.iterdir(), *master.parents[1].glob("*.fio")):
        file.rename(folder / file.name)
    shutil.rmtree(folder / ".p10")


def write_merlin(folder: Path) -> None:
    """Frames of the whole chip, the peak on one of its quarters."""
    frames = np.zeros((24, 515, 515), np.uint32)
    frames[:, 100:124, 120:144] = counts()
    with h5py.File(folder / "scan.h5", "w") as file:
        file.create_dataset("entry/measurement/merlin/frames", data=frames, chunks=(1, 515, 515), compression="gzip")


def write_nanomax_scan(folder: Path) -> None:
    angles = {"gontheta": np.linspace(15.2, 15.4, 24), "gonphi": 3.0, "gamma": 12.0, "delta": 27.0}
    write_nanomax(folder, counts(100, 110), angles)


def write_i16_scan(folder: Path) -> None:
    angles = {"mu": 0.0, "eta": np.linspace(18.2, 18.4, 24), "chi": 89.0, "phi": -33.0, "gam": 2.0, "delta": 37.0}
    write_i16(folder, counts(100, 110).astype(np.int32), angles)


def write_cristal_scan(folder: Path) -> None:
    angles = {"mgomega": np.linspace(10.2, 10.4, 24), "mgphi": 3.0, "gamma": 2.0, "delta": 25.0}
    write_cristal(folder, counts(100, 110).astype(np.uint16), angles).rename(folder / "S12.nxs")


def write_id05_scan(folder: Path) -> None:
    angles = {"mu": 0.4, "eta": np.linspace(18.2, 18.4, 24), "chi": 88.5, "phi": -12.0, "nu": 3.0, "del": 36.0}
    write_heps(folder, counts(100, 110).astype(np.int32), angles)


def write_foreign_object(folder: Path) -> None:
    """The crystal of scan 54 as another program leaves it: an object and its support, without geometry and counts."""
    found = braggshot.reconstruct(raw_scan(), QUICK)
    with h5py.File(folder / "recon.cxi", "w") as file:
        image = file.create_group("entry_1/image_1")
        file["entry_last"] = h5py.SoftLink("/entry_1")
        image["data"] = np.where(found.support, found.rho, 0)
        image["mask"] = found.support.astype(np.int8)
        image["process_1/program"] = "PyNX"


def write_result(path: Path) -> None:
    """A result with strain and counts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    results.write(path, result(path.stem))


def write_computed_result(path: Path) -> None:
    """A result of scan 54 that knows its geometry."""
    braggshot.reconstruct(replace(raw_scan(), name=path.stem), QUICK).save(path)


def write_stack(folder: Path) -> None:
    with h5py.File(folder / "patterns.h5", "w") as file:
        file["entry/counts"] = np.stack([pattern().intensity] * 2)


def write_network(folder: Path) -> None:
    """The shipped network, as the one that training from it leaves."""
    folder.mkdir()
    shutil.copy(ROOT / "src" / "braggshot" / "weights" / "flagship.safetensors", folder / "best.safetensors")


def write_scan_of_series(path: Path) -> None:
    """The prepared scan 54 with its geometry, so that a series of such files has strain."""
    cxi.write_data(path, prepare(raw_scan()))


def _pattern_file(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    cxi.write_data(path, pattern())


WRITERS: dict[str, Callable[[Path], object]] = {
    "exp.spec": write_34idc,
    "exp.spec@54-55": lambda folder: write_34idc(folder, scans=(54, 55)),
    "exp.spec@54-60": lambda folder: write_34idc(folder, scans=tuple(range(54, 61))),
    "sample.h5": write_id01,
    "scan_00012_master.h5": write_eiger,
    "scan.h5": write_merlin,
    "000012.h5": write_nanomax_scan,
    "1040323.nxs": write_i16_scan,
    "S12.nxs": write_cristal_scan,
    "Sample1_1.spec": write_id05_scan,
    "counts.npy": lambda folder: np.save(folder / "counts.npy", counts()),
    "log.csv": lambda folder: (folder / "log.csv").write_text("input,charge\nt00.cxi,0\nt01.cxi,0.5\nt02.cxi,1\n"),
    "recon.cxi": write_foreign_object,
    "patterns.h5": write_stack,
    "tuned": lambda folder: write_network(folder / "tuned"),
    "taught": lambda folder: write_network(folder / "taught"),
    **{name: lambda folder, name=name: write_frames(folder / name) for name in ("frames", "exp/S0054")},
    **{name: lambda folder, name=name: _pattern_file(folder / name)
       for name in ("scan.cxi", "scans/a.cxi", "scans/b.cxi")},
    **{name: lambda folder, name=name: write_scan_of_series(folder / name) for name in ("t00.cxi", "t01.cxi", "t02.cxi")},
    **{name: lambda folder, name=name: write_result(folder / name)
       for name in ("out/crystal.cxi", "series/a.cxi", "series/b.cxi", "a.cxi", "b.cxi", "c.cxi", "demo-output/raw_S0001.cxi")},
    "out/scan.cxi": lambda folder: write_computed_result(folder / "out" / "scan.cxi"),
    **{name: lambda folder, name=name: (folder / name).symlink_to(ROOT / name) for name in ("examples", "benchmarks")},
}  # fmt: skip
"""What lays an input into a folder, by the name of the input."""
