from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sample_inputs import draw_counts, draw_mask, write_p10

from braggshot.errors import FormatError
from braggshot.io.beamlines.petra_p10 import _count_repeats
from braggshot.io.registry import read
from braggshot.volumes import Scan

OM = np.linspace(15.1, 15.5, 9)
GOOD = draw_mask()[0]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_p10(tmp_path, draw_counts(np.uint32), OM, GOOD)


def test_data_files_are_external_and_bitshuffle_compressed(path: Path) -> None:
    with h5py.File(path) as file:
        assert isinstance(file.get("entry/data/data_000001", getlink=True), h5py.ExternalLink)
    with h5py.File(path.with_name("sample_00012_data_000001.h5")) as file:
        assert file["entry/data/data"].id.get_create_plist().get_filter(0)[0] == 32008
    assert_array_equal(read(path).frames[3:6], draw_counts()[3:6])  # across two files


def test_geometry_mask_and_counters(path: Path) -> None:
    scan = read(path, direct_beam=(5, 6))
    geometry = scan.geometry
    assert geometry is not None
    assert scan.name == "sample_00012"
    assert_array_equal(scan.valid, GOOD)
    assert_array_equal(scan.monitor, np.arange(100, 109))
    assert geometry.energy == pytest.approx(9000.5 * 1.602176634e-19)  # the motor, not the detector's wavelength
    assert (geometry.distance, geometry.pixel_size, geometry.direct_beam) == (1.84, (75e-6, 75e-6), (5.0, 6.0))
    assert [circle.axis for circle in (*geometry.sample, *geometry.detector)] == ["y+", "x-", "z+", "y-", "y+", "x-"]
    angles = {circle.name: np.rad2deg(circle.angle) for circle in (*geometry.sample, *geometry.detector)}
    assert np.allclose(angles.pop("om"), OM)
    assert angles == pytest.approx({"mu": 0.25, "chi": 0.0, "phi": -3.0, "gam": 2.0, "del": 31.0})  # chi reads 90 at zero
    assert (geometry.row_axis, geometry.column_axis) == ("y-", "x-")
    assert scan.provenance["command"].startswith("ascan om 15.1")
    assert scan.provenance["detector"] == "Dectris Eiger 4M"


def test_known_sizes_name_the_detector(tmp_path: Path) -> None:
    counts = np.zeros((2, 514, 1030), np.uint32)
    assert read(write_p10(tmp_path, counts, OM[:2], np.ones((514, 1030), bool))).detector == "eiger500k"


def test_a_sum_of_exposures_is_no_count_where_one_of_them_is_none(tmp_path: Path) -> None:
    counts = np.repeat(draw_counts(np.uint32), 2, axis=0)
    counts[:, 7, 7] = counts[5, 8, 8] = 2**32 - 1
    summed = read(write_p10(tmp_path, counts, OM, np.ones_like(GOOD))).frames[...]
    assert np.argwhere(summed < 0).tolist() == sorted([[frame, 7, 7] for frame in range(len(OM))] + [[2, 8, 8]])


def test_motor_file_beside_above_given_or_lost(path: Path, tmp_path: Path) -> None:
    fio = path.parents[1] / "sample_00012.fio"
    for place in (path.with_name(fio.name), tmp_path / fio.name):
        fio = fio.rename(place)
        assert read(path).provenance["fio"] == str(place)
    fio = fio.rename(tmp_path / "elsewhere_00012.fio")
    assert np.allclose(read(path, fio=fio).rocking_angle, np.deg2rad(OM))
    lost = read(path)
    assert lost.geometry is None
    assert lost.rocking_angle is None
    assert lost.frames.shape == (9, 12, 10)
    assert any("no sample_00012.fio in" in note and "say fio=..." in note for note in lost.provenance["noticed"])
    with pytest.raises(FormatError, match=r"gone\.fio: no such file"):
        read(path, fio=tmp_path / "gone.fio")
    fio.write_text("not a table")
    with pytest.raises(FormatError, match=r"elsewhere_00012\.fio: cannot be read as \.fio"):
        read(path, fio=fio)


def test_series_of_exposures_at_each_angle_are_added(tmp_path: Path) -> None:
    counts = draw_counts(np.uint32)
    scan = read(write_p10(tmp_path, counts.repeat(3, axis=0), OM, GOOD, per_file=3))
    assert_array_equal(scan.frames[...], 3 * counts.astype(np.int64))
    assert np.allclose(scan.rocking_angle, np.deg2rad(OM))
    assert any("27 exposures at 9 angles: each 3 were added up" in note for note in scan.provenance["noticed"])


def test_distance_never_told_to_the_detector(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["entry/instrument/detector/detector_distance"][()] = 0.0
    assert any("say distance_m=..." in note for note in read(path).provenance["noticed"])
    assert read(path, distance_m=1.8).geometry is not None


def fio_of(path: Path) -> Path:
    return path.parents[1] / "sample_00012.fio"


def change(path: Path, *pairs: tuple[str, str]) -> None:
    fio = fio_of(path)
    for old, new in pairs:
        assert old in fio.read_text()
        fio.write_text(fio.read_text().replace(old, new))


def notes(scan: Scan) -> str:
    return " ".join(scan.provenance["noticed"])


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"),
        lambda text: text.replace(b"%p\n", b"%p\ncomment =\nempty=\npath = /a = b\n"),
        lambda text: text.replace(b"user p10user", "user Jos\xe9".encode("latin-1")),
        lambda text: text.replace(b"%p\n", "%p\ntemperature = 25 \xb0C\n".encode("latin-1")),
        lambda text: text.replace(b"!\n! Data", b"!\n\n! Data").replace(b"%d", b" %d "),
        lambda text: text.replace(b" Col 3 curpetra DOUBLE\n", b" Col 3 curpetra DOUBLE\n Col 4 name STRING\n").replace(
            b"\n!  A", b""
        ),
    ],
)
def test_what_does_not_matter_in_a_fio_file_changes_nothing(path: Path, damage: Any) -> None:
    whole = read(path)
    fio_of(path).write_bytes(damage(fio_of(path).read_bytes()))
    if b"STRING" in fio_of(path).read_bytes():
        lines = fio_of(path).read_text().split("\n")
        fio_of(path).write_text("\n".join(f"{line} a_{n}.cbf" if line.startswith(" 15") else line for n, line in enumerate(lines)))
    scan = read(path)
    assert np.allclose(scan.rocking_angle, np.deg2rad(OM))
    assert scan.geometry is not None
    assert scan.geometry.energy == pytest.approx(9000.5 * 1.602176634e-19)
    assert scan.provenance["noticed"] == whole.provenance["noticed"]


def test_parameters_without_a_value_are_said(path: Path) -> None:
    change(path, ("chi = 90.0", "chi ="), ("gam = 2.0", "gam 2.0"))
    scan = read(path)
    assert scan.geometry is None
    assert "chi of sample_00012.fio is empty: it is left out" in notes(scan)
    assert "1 lines of the parameters (%p) are not read, because they are no 'name = value', first 'gam 2.0'" in notes(scan)
    assert "do not give gam; the detector cannot be placed" in notes(scan)


def test_rows_that_are_torn_or_without_data_keep_their_place(path: Path) -> None:
    change(path, (" 15.200000 0.1 102", " <no-data> 0.1 102"), (" 15.300000 0.1 104", " 15.300000 0.1 <no-data>"),
           (" 15.350000 0.1 105", " 15.35"), (" 15.500000 0.1 108\n", " 15.5\n"))  # fmt: skip
    scan = read(path)
    kept = [0, 1, 3, 4, 6, 7]
    assert_array_equal(scan.frames[...], draw_counts()[kept])
    assert np.allclose(scan.rocking_angle, np.deg2rad(OM[kept]))
    assert scan.monitor is not None
    assert_array_equal(scan.monitor, [100, 101, 103, np.nan, 106, 107])
    assert "the last row is cut off (1 of 3 words)" in notes(scan)
    assert "point 5 of 8 (counted from 0) has another number of words" in notes(scan)
    assert "9 frames but 8 motor positions: frame 8 (counted from 0) has no angle and is left out" in notes(scan)
    assert "frames 2, 5 (counted from 0) have no angle and are left out" in notes(scan)
    assert "the command announces 9 points" in notes(scan)


def test_more_frames_than_positions(tmp_path: Path) -> None:
    counts = draw_counts(np.uint32)
    scan = read(write_p10(tmp_path, counts, OM[:7], GOOD))
    assert_array_equal(scan.frames[...], counts[:7])
    assert "9 frames but 7 motor positions: frames 7-8 (counted from 0) have no angle" in notes(scan)


@pytest.mark.parametrize(("exposures", "whole", "rest"), [(25, 8, 1), (26, 8, 2), (28, 9, 1)])
def test_a_series_whose_last_angle_is_not_whole(tmp_path: Path, exposures: int, whole: int, rest: int) -> None:
    counts = np.resize(draw_counts(np.uint32).repeat(3, axis=0), (exposures, 12, 10))
    scan = read(write_p10(tmp_path, counts, OM, GOOD))
    assert_array_equal(scan.frames[...], 3 * draw_counts().astype(np.int64)[:whole])
    assert np.allclose(scan.rocking_angle, np.deg2rad(OM[:whole]))
    assert f"the last {rest} belong to no whole angle and are left out" in notes(scan)


def test_the_distance_of_the_motor_file_is_preferred_and_the_header_is_doubted(path: Path) -> None:
    with h5py.File(path, "a") as file:
        camera = file["entry/instrument/detector"]
        camera["beam_center_x"][()], camera["beam_center_y"][()] = 4.5, 6.5
    said = notes(read(path))
    assert "the distance, 1.84 m, is taken from detector_distance of the Eiger header, which P10 does not calibrate" in said
    assert "the direct beam, (6.5, 4.5), is taken from the Eiger header, which P10 does not calibrate" in said
    change(path, ("_ccd = e4m", "_distance = 750"))
    scan = read(path)
    assert scan.geometry is not None
    assert scan.geometry.distance == pytest.approx(0.75)
    assert scan.geometry.direct_beam == (6.5, 4.5)
    assert "0.75 m (_distance of sample_00012.fio) is taken, because it is trusted more than 1.84 m" in notes(scan)
    assert "the distance, 0.75 m, is taken from _distance of sample_00012.fio." in notes(scan)
    assert "Eiger header" not in notes(read(path, distance_m=0.75, direct_beam=(5, 5), energy_ev=9000.5)).replace(
        "(incident_wavelength of the Eiger header)", ""
    )


def test_energies_that_disagree_are_named(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["entry/instrument/beam/incident_wavelength"][()] = 1.3
    said = notes(read(path))
    assert (
        "9000.5 eV (fmbenergy of sample_00012.fio) is taken, because it is trusted more than 9537.25 eV (incident_wavelength"
        in said
    )


@pytest.mark.parametrize(
    ("exposures", "points", "announced", "repeats"),
    [
        (9, 9, 9, 1), (27, 9, 9, 3), (25, 9, 9, 3), (28, 9, 9, 3), (100, 20, 48, 5),
        (9, 6, 9, 1), (9, 6, 6, 1), (9, 6, 0, 1), (100, 17, 20, 5),  # the table was cut off
        (6, 9, 9, 1), (9, 0, 0, 1),
    ],
)  # fmt: skip
def test_exposures_at_each_angle_are_a_whole_number(exposures: int, points: int, announced: int, repeats: int) -> None:
    assert _count_repeats(exposures, points, announced) == repeats
