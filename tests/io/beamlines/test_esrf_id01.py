from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sample_inputs import draw_counts, write_bliss, write_collection

from braggshot.errors import FormatError
from braggshot.io.beamlines.esrf_id01 import scans
from braggshot.io.registry import read

ETA = np.linspace(17.2, 17.8, 9)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_bliss(tmp_path, draw_counts(np.uint16), ETA)


def test_geometry_and_counters(path: Path) -> None:
    scan = read(path, scan=12)
    geometry = scan.geometry
    assert geometry is not None
    assert scan.name == "sample_0001_S0012"
    assert scan.detector == "maxipix"
    assert geometry.energy == pytest.approx(13e3 * 1.602176634e-19)
    assert geometry.direct_beam == (7.0, 4.0)
    assert (geometry.distance, geometry.pixel_size) == (0.8, (55e-6, 55e-6))
    assert [circle.axis for circle in (*geometry.sample, *geometry.detector)] == ["y-", "x-", "y-", "y-", "x-"]
    assert [circle.name for circle in (*geometry.sample, *geometry.detector)] == ["mu", "eta", "phi", "nu", "delta"]
    assert np.allclose(np.rad2deg([geometry.sample[0].angle, geometry.sample[2].angle]), [0.5, 12])
    assert (geometry.row_axis, geometry.column_axis) == ("y-", "x+")
    assert_array_equal(scan.monitor, np.linspace(100, 110, 9))
    assert scan.provenance["command"] == "ascan eta 17.2 17.8 8 1"
    assert scan.provenance["time"].startswith("2024-03-05T21:14:03")
    assert scan.provenance["noticed"] == ()
    assert read(path, monitor="mon7").monitor is None


def test_units_of_the_file_are_honoured(path: Path) -> None:
    with h5py.File(path, "a") as file:
        motors = file["12.1/instrument/positioners"]
        motors["mononrj"][()], motors["mononrj"].attrs["units"] = 9000.0, "eV"
        motors["delta"][()], motors["delta"].attrs["units"] = 0.5, "rad"
        camera = file["12.1/instrument/mpxgaas"]
        camera["distance"][()] = 900.0
        camera["distance"].attrs["units"] = "mm"
    geometry = read(path).geometry
    assert geometry is not None
    assert geometry.energy == pytest.approx(9e3 * 1.602176634e-19)
    assert geometry.detector[1].angle == pytest.approx(0.5)
    assert geometry.distance == pytest.approx(0.9)


def test_scans_are_found_by_number_and_by_name(path: Path, tmp_path: Path) -> None:
    write_bliss(tmp_path, draw_counts(np.uint16) + 1, ETA, number=13)
    with h5py.File(path, "a") as file:
        file["14.1/title"] = "ct 1"
        file["14.1/measurement/imon"] = np.ones(1)
    assert scans(path) == ["12.1", "13.1"]
    with pytest.raises(FormatError, match=r"2 scans fit \(12\.1, 13\.1\); choose one with scan="):
        read(path)
    for scan in (13, "13", "13.1"):
        assert read(path, scan=scan).frames[0, 0, 0] == draw_counts()[0, 0, 0] + 1
    with pytest.raises(FormatError, match=r"there is no scan 99; the file holds 12\.1, 13\.1, 14\.1"):
        read(path, scan=99)
    with pytest.raises(FormatError, match=r"scan 14\.1 holds 0 detectors; there is none"):
        read(path, scan=14)


def test_collection_with_the_same_number_twice(path: Path, tmp_path: Path) -> None:
    other = write_bliss(tmp_path / "other", draw_counts(np.uint16), ETA)
    collection = write_collection(tmp_path / "proposal.h5", path)
    with h5py.File(collection, "a") as file:
        file["other_0001_12.1"] = h5py.ExternalLink("other/sample_0001.h5", "/12.1")
    with pytest.raises(FormatError, match=r"2 scans fit \(other_0001_12\.1, sample_0001_12\.1\)"):
        read(collection, scan=12)
    assert_array_equal(read(collection, scan="other_0001_12.1").frames[3], draw_counts()[3])
    other.unlink()
    assert scans(collection) == ["sample_0001_12.1"]
    with pytest.raises(FormatError, match=r"other_0001_12\.1.*sample_0001\.h5, which is missing"):
        read(collection, scan="other_0001_12.1")


def test_two_detectors_need_a_choice(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["12.1/measurement/eiger2M"] = np.full((9, 6, 7), 2**32 - 1, np.uint32)
        file["12.1/measurement/eiger2M"][:, 1:, :] = 3
    with pytest.raises(FormatError, match=r"holds 2 detectors; there is eiger2M, mpxgaas: choose with detector="):
        read(path)
    with pytest.raises(FormatError, match="holds no detector 'maxipix'"):
        read(path, detector="maxipix")
    scan = read(path, detector="eiger2M")
    assert scan.detector == "eiger2m"
    assert scan.provenance["no_count"] == 2**32 - 1
    assert scan.geometry is None  # this detector has no calibration in the file


def test_interrupted_scan_keeps_the_angles_it_has(path: Path, tmp_path: Path) -> None:
    longer = np.linspace(17.2, 18.0, 12)
    short = write_bliss(tmp_path / "short", draw_counts(np.uint16), longer)
    scan = read(short)
    assert np.allclose(np.rad2deg(scan.rocking_angle), longer[:9])  # type: ignore[arg-type]
    assert scan.monitor is not None
    assert scan.monitor.shape == (9,)
    assert any("3 of 12 points have no frame" in note for note in scan.provenance["noticed"])
    scan = read(write_bliss(tmp_path / "long", draw_counts(np.uint16), longer[:7]))
    assert_array_equal(scan.frames[...], draw_counts()[:7])
    assert any(
        "9 frames but 7 motor positions" in note and "frames 7-8 (counted from 0) have no angle" in note
        for note in scan.provenance["noticed"]
    )


def test_a_scan_of_another_motor_and_a_short_monitor(path: Path) -> None:
    with h5py.File(path, "a") as file:
        motors = file["12.1/instrument/positioners"]
        del motors["eta"], file["12.1/measurement/imon"]
        motors["eta"] = np.array([17.2])
        file["12.1/measurement/imon"] = np.ones(5)
    scan = read(path)
    notes = " ".join(scan.provenance["noticed"])
    assert scan.rocking_angle is None
    assert "stopped early" not in notes
    assert "the monitor imon has 5 values for 9 frames, and is not used" in notes


def test_motors_missing_or_only_at_the_start(path: Path) -> None:
    with h5py.File(path, "a") as file:
        for name in ("positioners/mu", "positioners_start/mu", "positioners/nu"):
            del file[f"12.1/instrument/{name}"]
    scan = read(path)
    assert scan.geometry is not None
    assert scan.geometry.sample[0].angle == 0
    assert np.rad2deg(scan.geometry.detector[0].angle) == pytest.approx(3)
    assert any("taken as 0: mu" in note for note in scan.provenance["noticed"])
    with h5py.File(path, "a") as file:
        del file["12.1/instrument/positioners_start/nu"]
    scan = read(path)
    assert scan.geometry is None
    assert any("do not give nu; the detector cannot be placed" in note for note in scan.provenance["noticed"])


def test_encoder_jitter_is_a_motor_at_rest(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["12.1/instrument/positioners/phi"]
        file["12.1/instrument/positioners/phi"] = 12 + 1e-4 * np.sin(np.arange(9))
    scan = read(path)
    assert scan.geometry is not None
    assert np.ndim(scan.geometry.sample[2].angle) == 0
    assert np.allclose(np.rad2deg(scan.rocking_angle), ETA)  # type: ignore[arg-type]
