"""Readers of beamlines that are read by a table: counts, angles, scattering vectors, handedness, and what is missing or odd."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sample_inputs import write_bliss, write_p10
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
from scipy.constants import c, electron_volt, h

from braggshot.errors import DataError, FormatError
from braggshot.io.registry import choose, read
from braggshot.physics.geometry import reciprocal_basis, sample_rotation, scattering_vector
from braggshot.volumes import Scan, Window

SHAPE = (9, 14, 11)
BEAM = (6.0, 4.5)
UNIT = {"x": np.array([1.0, 0, 0]), "y": np.array([0, 1.0, 0]), "z": np.array([0, 0, 1.0])}


@dataclass(frozen=True)
class Beamline:
    """A beamline as its public sources describe it, apart from the tables of the program."""

    write: Callable[..., Path]
    sample: dict[str, str]
    detector: dict[str, str]
    rows: str
    columns: str
    angles: dict[str, Any]
    energy: float = 10000.0
    pitch: float = 75e-6
    distance: float = 0.8
    states_distance: bool = True
    states_energy: bool = True
    is_spec: bool = False
    has_one_detector: bool = False
    zeros: dict[str, float] = field(default_factory=dict)  # circle -> reading at its zero [deg]
    values: dict[str, str] = field(default_factory=dict)  # what is stated -> path in the file

    @property
    def rocked(self) -> str:
        return next(name for name, value in self.angles.items() if np.size(value) > 1)

    def overrides(self) -> dict[str, Any]:
        stated = {} if self.states_distance else {"distance_m": self.distance}
        return {"direct_beam": BEAM, **stated, **({} if self.states_energy else {"energy_ev": self.energy})}

    def turned(self, motor: str) -> Any:
        """How far a circle is turned: one angle, or one for each frame [deg]."""
        return np.asarray(self.angles.get(motor, 0.0)) - self.zeros.get(motor, 0.0)


BEAMLINES = {
    "nanomax": Beamline(
        write_nanomax,
        {"gontheta": "x-", "gonphi": "y-"},
        {"gamma": "y-", "delta": "x-"},
        "y-",
        "x-",
        {"gontheta": np.linspace(15.2, 15.6, SHAPE[0]), "gonphi": 3.0, "gamma": 12.0, "delta": 27.0},
        values={"energy": "entry/snapshots/*/energy", "distance": "entry/snapshots/*/radius", "circle": "entry/snapshots/*/delta"},
    ),
    "diamond_i16": Beamline(
        write_i16,
        {"mu": "y+", "eta": "x-", "chi": "z+", "phi": "x-"},
        {"gam": "y+", "delta": "x-"},
        "x-",
        "y+",
        {"mu": 1.5, "eta": np.linspace(18.2, 18.6, SHAPE[0]), "chi": 89.0, "phi": -33.0, "gam": 2.0, "delta": 37.0},
        values={
            "energy": "entry/sample/beam/incident_energy",
            "distance": "entry/instrument/pil3_100k/module/module_offset",
            "circle": "entry/instrument/diffractometer_sample/delta",
        },
    ),
}

SIXS = Beamline(
    write_sixs,
    {"beta": "x-", "mu": "y+"},
    {"beta": "x-", "gamma": "y+", "delta": "x-"},
    "x-",
    "y-",
    {"beta": 0.4, "mu": np.linspace(10.2, 10.6, SHAPE[0]), "gamma": 22.0, "delta": 15.0},
    pitch=55e-6,
    states_distance=False,
    values={"energy": "com/SIXS/*mono/energy", "circle": "com/SIXS/*group*/delta"},
)
BEAMLINES |= {
    "soleil_sixs": SIXS,
    "soleil_sixs 2019": dataclasses.replace(
        SIXS,
        write=partial(write_sixs, year=2019),
        rows="y-",
        columns="x+",
        values={"energy": "com/SIXS/*mono/energy", "circle": "com/SIXS/*-delta-med-h"},
    ),
    "soleil_cristal": Beamline(
        write_cristal,
        {"mgomega": "x-", "mgphi": "y+"},
        {"gamma": "y+", "delta": "x-"},
        "y-",
        "x+",
        {"mgomega": np.linspace(10.2, 10.6, SHAPE[0]), "mgphi": 3.0, "gamma": 2.0, "delta": 25.0},
        pitch=55e-6,
        states_distance=False,
        values={"energy": "exp_0012/CRISTAL/*/energy", "circle": "exp_0012/CRISTAL/*/*delta"},
    ),
}
BEAMLINES |= {
    "aps_1ide": Beamline(
        partial(write_aps, motors={"vff_r": 0.0, "detdist": 800.0}),
        {"AeroTech": "y-"},
        {"vff_eta": "z+"},
        "y-",
        "x+",
        {"AeroTech": np.linspace(3.2, 3.6, SHAPE[0]), "vff_eta": 25.0},
        pitch=55e-6,
        states_energy=False,
        is_spec=True,
    ),
    "aps_7idd": Beamline(
        partial(write_aps, motors={"Radius": 800.0, "Energy": 10.0}),
        {"wedge": "x-", "Chi": "z-", "ThetaN": "x-", "Phi": "y+"},
        {"Yaw": "y+", "Pitch": "x-"},
        "x+",
        "y+",
        {"wedge": 10.0, "Chi": 2.0, "ThetaN": np.linspace(8.2, 8.6, SHAPE[0]), "Phi": 40.0, "Yaw": 4.0, "Pitch": 33.0},
        is_spec=True,
    ),
    "aps_28idb": Beamline(
        partial(write_aps, motors={"camdist": 800.0, "Energy": 10.0}, kind=".h5"),
        {"Mu": "y-", "Eta": "x-", "Chi": "z+", "Phi": "y-"},
        {"Nu": "y-", "Delta": "x-"},
        "y-",
        "x+",
        {"Mu": 0.3, "Eta": np.linspace(18.2, 18.6, SHAPE[0]), "Chi": 1.0, "Phi": 41.0, "Nu": 3.0, "Delta": 35.0},
        is_spec=True,
    ),
}
FLAT = Beamline(
    write_20ide,
    {"samRy": "y+"},
    {},
    "y-",
    "x+",
    {"samRy": np.linspace(3.2, 3.6, SHAPE[0])},
    pitch=55e-6,
    values={"energy": "HEM/Energy", "distance": "DMS/DetZ"},
    has_one_detector=True,
)
BEAMLINES |= {
    "aps_34idc": Beamline(
        partial(write_aps, motors={"camdist": 800.0, "Energy": 10.0}),
        {"Theta": "y+", "Chi": "z-", "Phi": "y+"},
        {"Delta": "y+", "Gamma": "x-"},
        "y-",
        "x+",
        {"Theta": np.linspace(-0.2, 0.2, SHAPE[0]), "Chi": 88.0, "Phi": -5.0, "Delta": 32.2, "Gamma": 12.6},
        pitch=55e-6,
        is_spec=True,
    ),
    "esrf_id01": Beamline(
        lambda folder, counts, angles: write_bliss(folder, counts, angles["eta"], motors={**angles, "mononrj": 10.0}),
        {"mu": "y-", "eta": "x-", "phi": "y-"},
        {"nu": "y-", "delta": "x-"},
        "y-",
        "x+",
        {"mu": 0.3, "eta": np.linspace(17.2, 17.6, SHAPE[0]), "phi": 41.0, "nu": -3.2, "delta": 35.1},
        pitch=55e-6,
        values={
            "energy": "12.1/instrument/positioners*/mononrj",
            "distance": "12.1/instrument/mpxgaas/distance",
            "circle": "12.1/instrument/positioners*/delta",
        },
    ),
    "petra_p10": Beamline(
        lambda folder, counts, angles: write_p10(
            folder, counts, angles["om"], np.ones(SHAPE[1:], bool), motors={**angles, "fmbenergy": 10000.0}
        ),
        {"mu": "y+", "om": "x-", "chi": "z+", "phi": "y-"},
        {"gam": "y+", "del": "x-"},
        "y-",
        "x-",
        {"mu": 0.2, "om": np.linspace(20.1, 20.5, SHAPE[0]), "chi": 88.5, "phi": 12.0, "gam": 4.0, "del": 40.2},
        states_distance=False,
        has_one_detector=True,
        zeros={"chi": 90.0},
        values={"distance": "entry/instrument/detector/detector_distance"},
    ),
}
HEPS = Beamline(
    write_heps,
    {"mu": "y+", "eta": "x-", "chi": "z+", "phi": "y-"},
    {"nu": "y+", "del": "x-"},
    "y-",
    "x-",
    {"mu": 0.4, "eta": np.linspace(18.2, 18.6, SHAPE[0]), "chi": 88.5, "phi": -12.0, "nu": 3.0, "del": 36.0},
    states_distance=False,
    is_spec=True,
    zeros={"chi": 90.0},
)
BEAMLINES |= {
    "esrf_id01_spec": Beamline(
        write_id01_spec,
        {"mu": "y-", "eta": "x-", "phi": "y-"},
        {"nu": "y-", "delta": "x-"},
        "y-",
        "x+",
        {"mu": 0.3, "eta": np.linspace(17.2, 17.6, SHAPE[0]), "phi": 41.0, "nu": -3.2, "delta": 35.1},
        pitch=55e-6,
        is_spec=True,
    ),
    "heps_id05": HEPS,
    "heps_id05 4c": dataclasses.replace(
        HEPS,
        write=partial(write_heps, circles="4c"),
        sample={"thh": "y+", "th": "x-", "chi": "z+", "phi": "y-"},
        detector={"tthh": "y+", "tth": "x-"},
        angles={"thh": 0.4, "th": np.linspace(18.2, 18.6, SHAPE[0]), "chi": 88.5, "phi": -12.0, "tthh": 3.0, "tth": 36.0},
    ),
    "heps_id05 pilatus": dataclasses.replace(HEPS, write=partial(write_heps, pilatus=True), rows="x+", columns="y-", pitch=172e-6),
    "aps_20ide": FLAT,
    "esrf_id27": dataclasses.replace(
        FLAT,
        write=write_id27,
        sample={"nath": "y-"},
        columns="x-",
        angles={"nath": np.linspace(3.2, 3.6, SHAPE[0])},
        pitch=75e-6,
        states_distance=False,
        has_one_detector=False,
        values={"energy": "*/instrument/calibration/wavelength"},
    ),
}


@pytest.fixture(params=BEAMLINES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def turn(axis: str, degrees: float) -> np.ndarray:
    """Rodrigues' formula, components (x, y, z)."""
    x, y, z = UNIT[axis[0]]
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees if axis[1] == "+" else -degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def signed(axis: str) -> np.ndarray:
    return UNIT[axis[0]] * (1 if axis[1] == "+" else -1)


def expect_q(line: Beamline, beam: tuple[float, float] = BEAM, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """q of every voxel in the axes of the sample, components (x, y, z) [1/m], from the table above and nothing else."""
    arm = np.eye(3)
    for motor, axis in line.detector.items():
        arm = arm @ turn(axis, line.turned(motor))
    rows, columns = np.meshgrid(np.arange(shape[1]) - beam[0], np.arange(shape[2]) - beam[1], indexing="ij")
    place = line.distance * UNIT["z"] + line.pitch * (
        rows[..., None] * signed(line.rows) + columns[..., None] * signed(line.columns)
    )
    place = place @ arm.T
    wave = 2 * np.pi * line.energy * electron_volt / (h * c)
    lab = wave * (place / np.linalg.norm(place, axis=-1, keepdims=True) - UNIT["z"])
    q = np.empty((shape[0], *lab.shape))
    for number in range(shape[0]):
        stage = np.eye(3)
        for motor, axis in line.sample.items():
            angle = line.turned(motor)
            stage = stage @ turn(axis, float(np.ravel(angle)[number if np.size(angle) > 1 else 0]))
        q[number] = lab @ stage
    return q


def found_q(scan: Scan) -> np.ndarray:
    """q of every voxel in the axes of the sample, components (x, y, z), from the geometry that was read."""
    assert scan.geometry is not None
    lab = scattering_vector(scan.geometry, *np.ix_(*map(np.arange, scan.frames.shape)))
    middle = (scan.frames.shape[0] - 1) / 2
    return (lab @ sample_rotation(scan.geometry, middle))[..., ::-1]


def draw_counts(shape: tuple[int, ...] = SHAPE, dtype: Any = np.uint32) -> np.ndarray:
    return np.random.default_rng(7).poisson(20, shape).astype(dtype)


def notes(scan: Scan) -> str:
    return " ".join(scan.provenance["noticed"])


def test_counts_angles_and_scattering_vectors_come_back(name: str, tmp_path: Path) -> None:
    line = BEAMLINES[name]
    path = line.write(tmp_path, draw_counts(), line.angles)
    assert choose(path)[0].name == name.split()[0]
    scan = read(path, **line.overrides())
    assert_array_equal(scan.frames[...], draw_counts())
    geometry = scan.geometry
    assert geometry is not None
    read_back = {circle.name: np.degrees(circle.angle) for circle in (*geometry.sample, *geometry.detector)}
    for motor in line.angles:
        assert_allclose(read_back[motor], line.turned(motor), atol=1e-9)
    assert scan.rocking_angle is not None
    assert_allclose(np.degrees(scan.rocking_angle), line.angles[line.rocked], atol=1e-9)
    q = expect_q(line)
    assert_allclose(found_q(scan), q, atol=1e-9 * np.abs(q).max())
    assert scan.monitor is None or scan.monitor.shape == SHAPE[:1]


def test_voxel_edges_are_the_steps_between_scattering_vectors(name: str, tmp_path: Path) -> None:
    line = BEAMLINES[name]
    geometry = read(line.write(tmp_path, draw_counts(), line.angles), **line.overrides()).geometry
    assert geometry is not None
    basis, _ = reciprocal_basis(geometry, Window((0, 0, 0), (1, 1, 1), SHAPE), SHAPE)
    turned = (sample_rotation(geometry, SHAPE[0] // 2).T @ basis)[::-1]
    z, y, x = (size // 2 for size in SHAPE)
    row, column = (BEAM[0] - 0.5, BEAM[1]), (BEAM[0], BEAM[1] - 0.5)  # a beam half a pixel off is a pixel half a pixel on
    for axis, moved in ((1, row), (2, column)):
        other = tuple(2 * at - to for at, to in zip(BEAM, moved, strict=True))
        step = expect_q(line, moved)[z, y, x] - expect_q(line, other)[z, y, x]
        assert_allclose(turned[:, axis], step, atol=1e-9 * np.linalg.norm(step))
    q = expect_q(line)
    assert_allclose(turned[:, 0], (q[z + 1, y, x] - q[z - 1, y, x]) / 2, rtol=1e-4, atol=1e-4 * np.linalg.norm(turned[:, 0]))


def test_a_chiral_body_comes_out_right_handed(name: str, tmp_path: Path) -> None:
    """The counts of four unlike points fit the points at the scattering vectors that are read, and neither mirror nor inverse."""
    line = BEAMLINES[name]
    q = expect_q(line)
    q = q - q[SHAPE[0] // 2, SHAPE[1] // 2, SHAPE[2] // 2]
    reach = np.linalg.norm(q.reshape(-1, 3), axis=1).max()
    points = np.array([[0, 0, 0], [2.9, 0.4, 0.3], [0.5, 2.2, -0.4], [-0.3, 0.7, 3.1]]) * 2 / reach
    weights = np.array([1.0, 0.8 * np.exp(0.9j), 0.6 * np.exp(-1.7j), 0.9 * np.exp(2.1j)])

    def scatter(vectors: np.ndarray, body: np.ndarray) -> np.ndarray:
        return np.abs(np.exp(-1j * vectors @ body.T) @ weights) ** 2

    counts = np.round(1e4 * scatter(q, points)).astype(np.uint32)
    scan = read(line.write(tmp_path, counts, line.angles), **line.overrides())
    found = found_q(scan)
    found = found - found[SHAPE[0] // 2, SHAPE[1] // 2, SHAPE[2] // 2]
    measured = np.ravel(scan.frames[...])

    def fit(body: np.ndarray) -> float:
        return float(np.corrcoef(measured, scatter(found, body).ravel())[0, 1])

    assert fit(points) > 0.99999
    for flip in ((-1, 1, 1), (1, -1, 1), (1, 1, -1), (-1, -1, -1)):
        assert fit(points * flip) < 0.99


def test_a_scan_that_stopped_early_is_read_to_where_it_stopped(name: str, tmp_path: Path) -> None:
    line = BEAMLINES[name]
    scan = read(line.write(tmp_path / "a", draw_counts()[:6], line.angles), **line.overrides())
    assert_array_equal(scan.frames[...], draw_counts()[:6])
    assert_allclose(np.degrees(scan.rocking_angle), line.angles[line.rocked][:6])  # type: ignore[arg-type]
    assert "3 of 9 points have no frame" in notes(scan)
    angles = {**line.angles, line.rocked: line.angles[line.rocked][:6]}
    scan = read(line.write(tmp_path / "b", draw_counts(), angles), **line.overrides())
    assert_array_equal(scan.frames[...], draw_counts()[:6])
    assert (
        re.search("9 frames but 6 motor positions|3 frames lie beyond the last of 6 points", notes(scan))
        or line.write is write_id01_spec
    )
    lost = line.write(tmp_path / "c", draw_counts(), {**line.angles, line.rocked: np.array([1.0, np.nan])})
    with pytest.raises(DataError, match=r"1 of [29] frames have an angle"):
        read(lost, **line.overrides())


def places(path: Path, pattern: str) -> list[str]:
    from braggshot.io.beamlines.layouts import find

    with h5py.File(path) as file:
        return list(find(file, pattern))


@pytest.mark.parametrize("what", ["energy", "distance", "circle"])
def test_a_value_that_is_missing_or_was_never_set_is_noticed(name: str, what: str, tmp_path: Path) -> None:
    line = BEAMLINES[name]
    if what not in line.values:
        pytest.skip("these files do not state it")
    for number, odd in enumerate((None, np.nan, "none")):
        path = line.write(tmp_path / str(number), draw_counts(), line.angles)
        with h5py.File(path, "a") as file:
            for place in places(path, line.values[what]):
                del file[place]
                if odd is not None:
                    file[place] = odd
        scan = read(path, **{key: value for key, value in line.overrides().items() if key != what + "_m"})
        assert scan.geometry is None
        assert scan.rocking_angle is not None
        expected = {"energy": "energy_ev", "distance": "distance_m", "circle": "delta"}[what]
        assert "no geometry: the files do not give" in notes(scan)
        assert expected in notes(scan)


def test_a_detector_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    line = BEAMLINES[name]
    if line.is_spec or line.has_one_detector:
        pytest.skip("these files have one detector")
    with pytest.raises(FormatError, match="no detector 'gone'; there is"):
        read(line.write(tmp_path, draw_counts(), line.angles), detector="gone")


ODD = [np.nan, "abc", np.bytes_(b"\xff\xfe"), np.zeros(0), h5py.Empty("S3"), [1, 2, 3], 1 + 2j, np.zeros((2, 3)), None]


def test_no_entry_of_another_kind_ends_in_a_crash(name: str, tmp_path: Path) -> None:
    """Each data set in turn, but the frames, holds something odd or is a group."""
    line = BEAMLINES[name]
    if line.is_spec:
        pytest.skip("tests of SPEC files do this")
    path = line.write(tmp_path, draw_counts(), line.angles)
    names: list[str] = []
    with h5py.File(path) as file:
        file.visititems(lambda place, item: names.append(place) if isinstance(item, h5py.Dataset) and item.ndim < 3 else None)
    whole = path.read_bytes()
    for number, place in enumerate(names):
        path.write_bytes(whole)
        with h5py.File(path, "a") as file:
            del file[place]
            item = file.create_group(place) if (odd := ODD[number % len(ODD)]) is None else file.create_dataset(place, data=odd)
            item.attrs["units"] = [b"\xb5m", np.array([b"mm"]), np.array([]), 3.0][number % 4]
        with contextlib.suppress(DataError, FormatError):
            read(path, format=name.split()[0])


def test_a_frame_without_an_angle_is_left_out(name: str, tmp_path: Path) -> None:
    line = BEAMLINES[name]
    values = np.array(line.angles[line.rocked])
    values[3] = np.nan
    scan = read(line.write(tmp_path, draw_counts(), {**line.angles, line.rocked: values}), **line.overrides())
    kept = [0, 1, 2, 4, 5, 6, 7, 8]
    assert_array_equal(scan.frames[...], draw_counts()[kept])
    assert "frame 3 (counted from 0) has no angle" in notes(scan)
