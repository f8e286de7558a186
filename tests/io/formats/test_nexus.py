from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from braggshot.errors import DataError, FormatError
from braggshot.io.registry import read


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["a/images"] = np.arange(60).reshape(3, 4, 5)
        file["a/pixel_mask"] = np.zeros((3, 4, 5), np.int8)
        file["a/flux"] = np.array([1.0, 2.0, 3.0])
        file["a/angle"] = np.array([0.1, 0.2, 0.3])
        file["a/angle"].attrs["units"] = "rad"
        file["a/picture"] = np.zeros((4, 5))
    return tmp_path / "scan.h5"


def test_the_only_3d_dataset_needs_no_name(path: Path) -> None:
    scan = read(path)
    assert_array_equal(scan.frames[1], np.arange(20, 40).reshape(4, 5))
    assert scan.provenance["dataset"] == "a/images"


def test_several_datasets_are_listed(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["b/more"] = np.zeros((2, 2, 2))
    with pytest.raises(FormatError, match=r"dataset=\.\.\.; these are there: a/images, b/more"):
        read(path)
    with pytest.raises(FormatError, match="there is no a/image"):
        read(path, dataset="a/image")
    with pytest.raises(DataError, match="3D"):
        read(path, dataset="a/picture")


def test_none_is_said(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = np.zeros((2, 2))
    with pytest.raises(FormatError, match="holds none"):
        read(tmp_path / "a.h5")


def test_monitor_and_angle_units(path: Path) -> None:
    scan = read(path, dataset="a/images", monitor="a/flux", angle="a/angle")
    assert_array_equal(scan.monitor, [1, 2, 3])
    assert_array_equal(scan.rocking_angle, [0.1, 0.2, 0.3])  # radians stay
    with h5py.File(path, "a") as file:
        del file["a/angle"].attrs["units"]
    assert np.allclose(read(path, angle="a/angle").rocking_angle, np.deg2rad([0.1, 0.2, 0.3]))
    with pytest.raises(FormatError, match=r"monitor has shape \(4, 5\), expected 3 values"):
        read(path, monitor="a/picture")


def test_mask_in_the_file_or_beside_it(path: Path, tmp_path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["a/pixel_mask"][1, 2, 3] = 4
    assert np.argwhere(~read(path, mask="a/pixel_mask").valid).tolist() == [[1, 2, 3]]
    np.save(tmp_path / "m.npy", np.eye(4, 5))
    assert_array_equal(read(path, mask=str(tmp_path / "m.npy")).valid, np.eye(4, 5) == 0)
    with pytest.raises(DataError, match="the mask has shape"):
        read(path, mask="a/flux")
