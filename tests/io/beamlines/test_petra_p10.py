from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sample_inputs import draw_counts, draw_mask, write_p10

from braggshot.errors import FormatError
from braggshot.io.registry import read

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


def test_pixels_without_counts_are_not_valid(tmp_path: Path) -> None:
    """The type's maximum in every frame is a dead pixel, even if the pixel mask does not know; in one frame it is an overflow."""
    counts = draw_counts(np.uint32)
    counts[:, 7, 7] = 2**32 - 1
    counts[2, 8, 8] = 2**32 - 1
    scan = read(write_p10(tmp_path, counts, OM, np.ones_like(GOOD)))
    assert np.argwhere(~scan.valid).tolist() == [[7, 7]]  # type: ignore[operator]
    assert scan.provenance["no_count"] == 2**32 - 1


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
    with pytest.raises(FormatError, match=r"gone\.fio: there is no such \.fio file"):
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
