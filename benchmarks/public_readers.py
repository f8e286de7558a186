"""Public readers of beamlines and braggshot on the same simulated scans: the same frames, angles, energy and q?

    python -m venv /tmp/pycxim && /tmp/pycxim/bin/pip install git+https://github.com/RenZhe88/pyCXIM
    python -m venv /tmp/cohere && /tmp/cohere/bin/pip install cohere_beamlines cohere_core pandas scikit-image hdf5plugin
    python -m venv /tmp/cdiutils && /tmp/cdiutils/bin/pip install cdiutils
    python -m venv /tmp/mmg && /tmp/mmg/bin/pip install mmg_toolbox
    python public_readers.py pycxim=/tmp/pycxim/bin/python cohere=/tmp/cohere/bin/python cdiutils=/tmp/cdiutils/bin/python \\
        mmg=/tmp/mmg/bin/python

Each program runs in the environment of its own; it needs nothing of braggshot and braggshot nothing of it. The scans are those of
the tests (`tests/samples`), with frames as large as the detector's: Poisson counts of a peak. A row says how many counts differ,
by how much the angles do [degrees], the energy (relative), and q of six pixels in all frames, in the axes of the sample, relative
to the largest |q|. Where a program holds other circles, a last column says what is left with these. Energies or q of pyCXIM differ
by 2e-6, because its h c has six digits, as does the energy of mmg_toolbox, and angles of SPEC files by 1e-6 where a program reads
them in single precision.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

FRAMES = 5
BEAM = (140.25, 210.5)  # row, column that the direct beam hits
DISTANCE = 0.8  # m
SIX = {"mu": 0.4, "eta": np.linspace(18.2, 18.6, FRAMES), "chi": 88.5, "phi": -12.0, "nu": 3.0, "del": 36.0}
FOUR = dict(zip(("thh", "th", "chi", "phi", "tthh", "tth"), SIX.values(), strict=True))
ID01 = {"mu": 0.3, "eta": np.linspace(17.2, 17.6, FRAMES), "phi": 41.0, "nu": -3.2, "delta": 35.1}
KAPPA = {"kmu": 1.0, "kth": np.linspace(78.0, 78.4, FRAMES), "kap": -134.2, "kphi": 31.1, "kgam": 2.0, "kdelta": 37.0}
P10 = {"mu": 0.25, "chi": 90.0, "phi": -3.0, "gam": 2.0, "del": 31.0, "om": np.linspace(15.1, 15.5, FRAMES)}


@dataclass(frozen=True)
class Change:
    """What another program holds of the instrument: in words, as values of the geometry, as circle -> axis, angle to add [deg]."""

    words: str
    values: dict[str, Any]
    circles: dict[str, tuple[str, float]] = field(default_factory=dict)


ALIKE = Change("", {})


@dataclass(frozen=True)
class Case:
    """A scan: the shape of its frames, how it is written, its pixel size [m], and who reads it, with another geometry or not."""

    shape: tuple[int, int]
    write: Callable[[Path, np.ndarray], Path]
    pitch: float
    readers: dict[str, Change]


@dataclass(frozen=True)
class Found:
    """What a program reads: frames (n, rows, columns), circles [deg], energy [eV], q (n, pixels, 3) in (z, y, x) [1/Å]."""

    frames: np.ndarray
    angles: dict[str, Any]
    energy: float
    q: np.ndarray


def cases() -> dict[str, Case]:
    """The scans by name, which begins with the name of the format."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests/samples"))
    import sample_inputs
    import sample_layouts as layouts

    def write_p10(folder: Path, counts: np.ndarray) -> Path:
        good = np.ones(counts.shape[1:], bool)
        return sample_inputs.write_p10(folder, counts, P10["om"], good, per_file=2000)

    def write_20ide(folder: Path, counts: np.ndarray) -> Path:
        path = layouts.write_20ide(folder, counts, {"samRy": np.linspace(3.2, 3.6, FRAMES)})
        import h5py

        with h5py.File(path, "a") as file:
            file["exchange/data_white"][...] = 0  # a flat field of counts would change the frames
        return path

    def write_id01(folder: Path, counts: np.ndarray) -> Path:
        return layouts.write_id01_spec(folder, counts, ID01, number=1)  # pyCXIM counts scans from the first of the file

    def write_bliss(folder: Path, counts: np.ndarray) -> Path:
        path = sample_inputs.write_bliss(folder, counts.astype(np.uint16), ID01["eta"])
        return sample_inputs.write_collection(folder / "proposal.h5", path)

    def write_34idc(folder: Path, counts: np.ndarray) -> Path:
        from braggshot.io.beamlines.aps_34idc import write_scan

        angle, geometry = sample_inputs.aps_geometry(counts.shape)
        return write_scan(folder / "Staff1", counts, angle, geometry, 1)

    def write_aps(motors: dict[str, float], angles: dict[str, Any], **how: Any) -> Callable[[Path, np.ndarray], Path]:
        def write(folder: Path, counts: np.ndarray) -> Path:
            return layouts.write_aps(folder, counts.astype(np.uint32), angles, motors=motors, number=1, **how)

        return write

    eta = SIX["eta"]
    eiger, large, maxipix = (2162, 2068), (2167, 2070), (516, 516)
    upright = {
        "beta": ("x-", -0.4),
        "mu": ("x-", 0.0),
        "gamma": ("y+", -7.0),
        "delta": ("x-", 7.0),
    }  # 22 and 15 degrees change places
    raised = write_aps(
        {"vff_r": 66.0, "vff_eta_offset": 0.0, "detdist": 800.0, "Energy": 52.0}, {"AeroTech": eta, "vff_eta": 25.0}
    )  # fmt: skip
    robot = write_aps(
        {"Radius": 800.0, "Energy": 10.0}, {"wedge": 10.0, "Chi": 2.0, "ThetaN": eta, "Phi": 40.0, "Yaw": 4.0, "Pitch": 33.0}
    )
    huber = write_aps(
        {"camdist": 800.0, "Energy": 10.0},
        {"Mu": 0.3, "Eta": eta, "Chi": 1.0, "Phi": 41.0, "Nu": 3.0, "Delta": 35.0},
        kind=".h5",
    )
    nano = {"gontheta": eta, "gonphi": 3.0, "gamma": 12.0, "delta": 27.0}
    sixs = {"beta": 0.4, "mu": eta, "gamma": 22.0, "delta": 15.0}
    cristal = {"mgomega": eta, "mgphi": 3.0, "gamma": 2.0, "delta": 25.0}
    return {
        "aps_34idc": Case((256, 256), write_34idc, 55e-6, {"cohere": ALIKE}),
        "aps_1ide": Case((518, 518), raised, 55e-6, {
            "cohere": Change("beam 66 mm below", {"direct_beam": (BEAM[0] + 66e-3 / 55e-6, BEAM[1])})
        }),
        "aps_7idd": Case((1028, 1062), robot, 75e-6, {"cohere": ALIKE}),
        "aps_20ide": Case((512, 512), write_20ide, 55e-6, {"cohere": Change("distance 2 DetZ", {"distance": 1.6})}),
        "aps_28idb": Case((512, 1028), huber, 75e-6, {"cohere": ALIKE}),
        "esrf_id01": Case(maxipix, write_bliss, 55e-6, {"cdiutils": Change("without mu", {}, {"mu": ("y-", -0.5)})}),
        "esrf_id01_spec": Case(maxipix, write_id01, 55e-6, {
            "pycxim": Change("columns x-, mu y+, nu y+", {"column_axis": "x-"}, {"mu": ("y+", 0.0), "nu": ("y+", 0.0)}),
            "cdiutils": Change("without mu", {}, {"mu": ("y-", -ID01["mu"])}),
        }),
        "esrf_id27": Case((3262, 3108), partial(layouts.write_id27, angles={"nath": eta}), 75e-6, {"cdiutils": ALIKE}),
        "petra_p10": Case(large, write_p10, 75e-6, {
            "pycxim": ALIKE,
            "cohere": Change("columns x+, chi 0 at rest", {"column_axis": "x+"}, {"chi": ("z+", 90.0)}),
            "cdiutils": Change("without mu", {}, {"mu": ("y+", -P10["mu"])}),
        }),
        "nanomax": Case((514, 1030), partial(layouts.write_nanomax, angles=nano), 75e-6, {"cdiutils": ALIKE}),
        "diamond_i16": Case((195, 487), partial(
            layouts.write_i16, angles={**KAPPA, "mu": 1.0, "eta": 21.0, "chi": 89.0, "phi": -25.0, "gam": 2.0, "delta": 37.0},
            pitch=172e-6, beam=BEAM, distance=DISTANCE,
        ), 172e-6, {"mmg": ALIKE}),
        "soleil_sixs": Case((512, 512), partial(layouts.write_sixs, angles=sixs), 55e-6, {
            "cdiutils": Change("without beta, mu x-, delta y+, gamma x-", {}, upright)
        }),
        "soleil_sixs, 2019": Case((512, 512), partial(layouts.write_sixs, angles=sixs, year=2019), 55e-6, {
            "cdiutils": Change("without beta, mu x-, delta y+, gamma x-", {}, upright)
        }),
        "soleil_cristal": Case(maxipix, partial(layouts.write_cristal, angles=cristal), 55e-6, {"cdiutils": ALIKE}),
        "heps_id05": Case(eiger, partial(layouts.write_heps, angles=SIX), 75e-6, {"pycxim": ALIKE}),
        "heps_id05, four circles": Case(eiger, partial(layouts.write_heps, angles=FOUR, circles="4c"), 75e-6, {"pycxim": ALIKE}),
        "heps_id05, Pilatus": Case((195, 487), partial(layouts.write_heps, angles=SIX, pilatus=True), 172e-6, {"pycxim": ALIKE}),
    }  # fmt: skip


def pixels(shape: tuple[int, int]) -> np.ndarray:
    """Six pixels (row, column) of frames, none of which lies symmetric to another."""
    shares = np.array([(0, 0), (0, 1), (1, 0), (1, 1), (0.3, 0.6), (0.7, 0.2)])
    return (shares * (np.array(shape) - 1)).astype(int)


def simulate(shape: tuple[int, int]) -> np.ndarray:
    """Poisson counts of a peak off the middle of the frames."""
    counts = np.zeros((FRAMES, *shape), np.int32)
    at = [int(0.4 * size) for size in shape]
    z, y, x = np.meshgrid(np.arange(FRAMES) - 2.2, np.arange(-20, 20), np.arange(-20, 20), indexing="ij")
    peak = 300 * np.exp(-(z**2) / 2 - (y - 3) ** 2 / 30 - (x + 5) ** 2 / 60) + 0.5
    counts[:, at[0] - 20 : at[0] + 20, at[1] - 20 : at[1] + 20] = np.random.default_rng(4).poisson(peak)
    return counts


def read_here(case: Case, name: str, path: Path, change: Change) -> tuple[Found, np.ndarray]:
    """Read a scan with braggshot, circles as their motors read; return it with q of the changed geometry, and its own q."""
    from braggshot.io.beamlines.instruments import INSTRUMENTS
    from braggshot.io.registry import read
    from braggshot.physics.geometry import KEV, sample_rotation, scattering_vector

    stated = {"energy_ev": 52e3} if name == "aps_1ide" else {}
    scan = read(path, format=name.split(",")[0], distance_m=DISTANCE, direct_beam=BEAM, **stated)
    geometry = scan.geometry
    assert geometry is not None

    def find_q(geometry: Any) -> np.ndarray:
        lab = scattering_vector(geometry, np.arange(FRAMES)[:, None], rows, columns)
        return lab @ sample_rotation(geometry, (FRAMES - 1) / 2) * 1e-10

    def turn(circle: Any) -> Any:
        axis, more = change.circles.get(circle.name, (circle.axis, 0.0))
        return replace(circle, axis=axis, angle=circle.angle + np.radians(more))

    sample, detector = (tuple(map(turn, circles)) for circles in (geometry.sample, geometry.detector))
    other = replace(geometry, sample=sample, detector=detector, **change.values)
    zeros = {axis.motor: axis.zero for one in INSTRUMENTS.values() for axis in one.sample if one.name == geometry.instrument}
    frames, (rows, columns) = np.asarray(scan.frames[...]), pixels(case.shape).T
    return Found(
        frames,
        {
            circle.name: (np.degrees(circle.angle) + zeros.get(circle.name, 0.0)).tolist()
            for circle in (*geometry.sample, *geometry.detector)
        },
        float(geometry.energy / KEV * 1e3),
        find_q(other),
    ), find_q(geometry)


# What follows runs in the environment of another program.


def read_pycxim(name: str, folder: Path, places: np.ndarray, pitch: float) -> Found:
    """Read a scan with pyCXIM; its vectors are (up, outboard, along the beam), and its Pilatus stands upright."""
    from pyCXIM.RSM.RSM_6C import cal_q_pos
    from pyCXIM.scan_reader.Desy.eiger_reader import DesyEigerImporter
    from pyCXIM.scan_reader.ESRF.edf_reader import ESRFEdfImporter
    from pyCXIM.scan_reader.HEPS.tif_reader import HEPSTifImporter

    beam, upright = np.array(BEAM), places
    six = ["eta", "del", "chi", "phi", "nu", "mu"]
    if name.startswith("heps"):
        detector = "pilatus" if "Pilatus" in name else "e4m"
        beamline, names = ("id05_4c", ["th", "tth", "chi", "phi", "tthh", "thh"]) if "four" in name else ("id05_6c", six)
        scan = HEPSTifImporter(beamline, str(folder), "Sample1_1", 191, detector)
        energy = scan.get_motor_pos("energy")
    elif name == "petra_p10":
        scan, names = DesyEigerImporter("p10", str(folder), "sample", 12, "e4m"), ["om", "del", "chi", "phi", "gam", "mu"]
        energy = scan.get_motor_pos("fmbenergy")
    else:
        scan = ESRFEdfImporter("ID01", str(folder), "align", 1, "maxipix", prefix="data_mpx4")
        scan.change_image_infor(str(folder / "data"))
        energy, names = scan.get_motor_pos("energy"), six
    frames = np.stack([scan.load_single_image(index) for index in range(scan.get_num_points())])
    if "Pilatus" in name:
        frames = np.flip(frames, axis=2).transpose(0, 2, 1)
        upright, beam = np.stack([places[:, 1], 194 - places[:, 0]], axis=1), np.array([BEAM[1], 194 - BEAM[0]])
    scanned = scan.get_scan_motor()
    there = [motor for motor in names if motor != "chi" or name != "esrf_id01_spec"]  # ID01 has no chi
    angles = {motor: scan.get_scan_data(motor) if motor == scanned else scan.get_motor_pos(motor) for motor in there}
    turned = [np.broadcast_to(angles.get(motor, 90.0), FRAMES) for motor in names]
    place = [DISTANCE * 1e3, pitch * 1e3, 0.0, beam]
    q = [[cal_q_pos(pixel, [*(angle[n] for angle in turned), energy], place) for pixel in upright] for n in range(FRAMES)]
    return Found(frames, angles, energy, np.array(q)[..., [2, 0, 1]])


# Format -> package of cohere_beamlines, number of the scan, settings, place of the frames.
COHERE: dict[str, tuple[str, int, dict[str, Any], str]] = {
    "aps_34idc": ("aps_34idc", 1, {"specfile": "Staff1/Staff1.spec", "detdist": 800.0}, "Staff1/AD34idcTIM2_Staff1/Staff1_S0001"),
    "aps_1ide": ("aps_1ide", 1, {"detector": "ASI", "specfile": "Staff1.spec", "vff_r_offset": 0.0, "energy": 52.0},
                 "data/Staff1_S0001"),
    "aps_7idd": ("aps_7idd", 1, {"detector": "7iddrobot", "specfile": "Staff1.spec"}, "data/Staff1_S0001"),
    "aps_20ide": ("aps_20ide", 54, {"detector": "Lambda"}, "sample_054.Lambda.h5"),
    "aps_28idb": (
        "aps_28idb", 1, {"detector": "s28eiger2-si", "diffractometer": "huber", "specfile": "Staff1.spec"},
        "data/Staff1_S0001_00000.h5",
    ),
    "petra_p10": (
        "Petra3_P10", 12, {
            "detector": "e4m", "sample": "sample", "detdist": DISTANCE * 1e3, "darkfield_filename": "dark.npy",
            "detector_module": 0, "clear_asicbounds": False,
        },
        "sample_00012",
    ),
}  # fmt: skip


def read_cohere(name: str, folder: Path, places: np.ndarray, pitch: float) -> Found:
    """Read a scan with cohere_beamlines; its frames are (column, row, frame), its vectors (outboard, up, along the beam).

    At 28-ID-B its vectors are (inboard, along the beam, up).
    """
    import importlib

    package, scan, settings, frames_at = COHERE[name]
    np.save(folder / "dark.npy", np.zeros((2167, 2070)))
    files = {key: str(folder / settings[key]) for key in ("specfile", "darkfield_filename") if key in settings}
    settings = {"data_dir": str(folder), "beam_zero": [BEAM[1], BEAM[0]], **settings, **files}
    module = importlib.import_module(f"cohere_beamlines.{package}.instrument")
    instrument = module.create_instr({"config": {"scan": str(scan)}, "config_instr": settings}, need_det=True)
    frames, _ = instrument.get_scan_array(str(folder / frames_at))
    found = []
    for row, column in places.tolist():
        q, _, said = instrument.get_q2(scan, "all", [column, column + 1, row, row + 1])
        found.append(q.T[:, [1, 2, 0]] * [1, 1, -1] if name == "aps_28idb" else q.T[:, ::-1])
    diffractometer = instrument.diff_obj
    names = dict(zip(diffractometer.sampleaxes_mne, diffractometer.sampleaxes_name, strict=False))
    names |= dict(zip(diffractometer.detectoraxes_mne, diffractometer.detectoraxes_name, strict=False))
    if name in {"petra_p10", "aps_20ide"}:
        names = {short: short for short in names}
    angles = {names[key]: said["scanmot_posns"] if key == said["scanmot"] else said[key] for key in names}
    return Found(frames.transpose(2, 1, 0), angles, said["energy"], np.stack(found, axis=1))


def read_cdiutils(name: str, folder: Path, places: np.ndarray, pitch: float) -> Found:
    """Read a scan with cdiutils; its vectors are (along the beam, outboard, up)."""
    from cdiutils.converter import SpaceConverter
    from cdiutils.geometry import Geometry
    from cdiutils.io import cristal, id01, id27, nanomax, p10, sixs

    at = str(folder)
    of_sixs = partial(sixs.SIXSLoader, f"{at}/spare_ascan_mu_00012.nxs", 12, detector_name="merlin")
    setup, loader = {
        "esrf_id01": lambda: ("ID01", id01.ID01Loader(f"{at}/proposal.h5", 12, "sample_0001", "mpxgaas")),
        "esrf_id01_spec": lambda: (
            "ID01", id01.SpecLoader(f"{at}/align.spec", f"{at}/", "data/data_mpx4_%05d.edf.gz", "mpx4inr", scan=1)
        ),
        "esrf_id27": lambda: ("ID27", id27.ID27Loader(f"{at}/sample.h5", 12, "sample", "eiger")),
        "petra_p10": lambda: ("P10", p10.P10Loader(at, 12, "sample", "e4m")),
        "nanomax": lambda: ("NanoMAX", nanomax.NanoMAXLoader(f"{at}/000012.h5")),
        "soleil_sixs": lambda: ("SIXS2022", of_sixs(version="2022")),
        "soleil_sixs, 2019": lambda: ("SIXS2019", of_sixs(version="2019")),
        "soleil_cristal": lambda: ("CRISTAL", cristal.CristalLoader(f"{at}/S12.nxs", 12)),
    }[name]()  # fmt: skip
    frames, angles, energy, found = loader.load_detector_data(), loader.load_motor_positions(), loader.load_energy(), []
    angles = {key: np.ravel(value) if np.size(value) > 1 else float(np.ravel(value)[0]) for key, value in angles.items()}
    for row, column in places.tolist():
        place = {"cch1": BEAM[0], "cch2": BEAM[1], "distance": DISTANCE, "pwidth1": pitch, "pwidth2": pitch}
        converter = SpaceConverter(Geometry.from_setup(setup), place, energy or 1e4, roi=[row, row + 1, column, column + 1])
        converter.init_q_space(**angles)
        found.append(np.stack(converter.get_q_space_transitions(), axis=-1).reshape(FRAMES, 3)[:, [0, 2, 1]])
    names = {key: str(motor).rpartition("-")[2].replace("_", "") for key, motor in loader.angle_names.items() if motor}
    return Found(frames, {names[key]: value for key, value in angles.items() if key in names}, energy or np.nan, np.stack(found, 1))


def read_mmg(name: str, folder: Path, places: np.ndarray, pitch: float) -> Found:
    """Read a scan with mmg_toolbox, by the transformations of the file; its vectors are (up, inboard, along the beam)."""
    import h5py
    import hdfmap
    from mmg_toolbox.nexus.instrument_model import NXBeam, NXDetectorModule, NXSsample

    path = folder / "1040323.nxs"
    content = hdfmap.create_nexus_map(str(path))
    with h5py.File(path) as file:
        frames = np.stack([content.get_image(file, index) for index in range(FRAMES)])
        beam, sample = NXBeam("/entry/sample/beam", file), NXSsample("/entry/sample", file)
        module = NXDetectorModule("/entry/instrument/pil3_100k/module", file)
        angles = {circle: file[f"entry/measurement/k{circle}"][()] for circle in ("gam", "delta")}
        out = [[module.pixel_wavevector((n, *place), beam.wl) for place in places.tolist()] for n in range(FRAMES)]
    turned = np.stack([matrix[:3, :3] for matrix in sample.transforms])
    q = np.einsum("nij,npi->npj", turned, np.array(out) - beam.incident_wavevector)
    return Found(frames, angles, beam.en * 1e3, q[..., [2, 0, 1]] * [1, 1, -1])


READERS = {"pycxim": read_pycxim, "cohere": read_cohere, "cdiutils": read_cdiutils, "mmg": read_mmg}


def read_there(program: str, name: str, folder: str, pitch: str) -> None:
    """Read a scan in this environment, and leave what was found beside it."""
    at = Path(folder)
    with contextlib.redirect_stdout(sys.stderr):
        found = READERS[program](name, at, np.load(at / "pixels.npy"), float(pitch))
    angles = {key: np.asarray(value, float).tolist() for key, value in found.angles.items()}
    np.savez(at / f"{program}.npz", frames=found.frames, q=found.q, energy=found.energy, angles=json.dumps(angles))


def compare(here: Found, own: np.ndarray, there: Found, words: str) -> list[str]:
    """Say how much two programs differ: counts, angles [deg], energy and q (relative), q with the changes that `words` name."""
    shape = tuple(map(min, here.frames.shape, there.frames.shape))
    cut = tuple(map(slice, shape))
    counts = f"{int((here.frames[cut] != there.frames[cut]).sum())}" + ("" if shape == here.frames.shape else f" of {shape}")
    aliases = {"del": "delta", "delta": "del"}
    pairs = [(here.angles.get(key, here.angles.get(aliases.get(key, ""))), value) for key, value in there.angles.items()]
    known = [float(np.abs(np.subtract(one, other)).max()) for one, other in pairs if one is not None]
    largest = np.linalg.norm(own, axis=-1).max()
    plain, changed = (f"{np.abs(q - there.q).max() / largest:.1g}" for q in (own, here.q))
    energy = f"{abs(there.energy / here.energy - 1):.1g}" if np.isfinite(there.energy) else "not read"
    return [counts, f"{max(known):.1g}", energy, plain, f"{changed} ({words})" if words else ""]


def main(arguments: list[str]) -> None:
    """Write each scan, read it here and in the environments ``program=python`` that are named, and print the table."""
    pythons = dict(argument.split("=", 1) for argument in arguments)
    print("| scan | read by | counts that differ | angles [deg] | energy | q | q, with |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as top:
        for name, case in cases().items():
            folder = Path(top) / name.replace(", ", "_").replace(" ", "_")
            path = case.write(folder, simulate(case.shape))
            np.save(folder / "pixels.npy", pixels(case.shape))
            for program in (program for program in case.readers if program in pythons):
                change = case.readers[program]
                here, own = read_here(case, name, path, change)
                command = [pythons[program], __file__, "--there", program, name, str(folder), str(case.pitch)]
                environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
                done = subprocess.run(command, env=environment, capture_output=True, text=True)
                row = [f"it fails ({done.returncode}): " + (done.stderr.strip().splitlines() or [""])[-1], "", "", "", ""]
                if not done.returncode:
                    with np.load(folder / f"{program}.npz") as file:
                        there = Found(file["frames"], json.loads(str(file["angles"])), float(file["energy"]), file["q"])
                    row = compare(here, own, there, change.words)
                print("| " + " | ".join([name, program, *row]) + " |", flush=True)


if __name__ == "__main__":
    read_there(*sys.argv[2:]) if sys.argv[1:2] == ["--there"] else main(sys.argv[1:])
