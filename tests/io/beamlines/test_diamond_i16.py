"""Scans of Diamond I16: the place of a detector that leans, the kappa goniometer, and frames in TIFF files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from numpy.testing import assert_allclose, assert_array_equal
from sample_layouts import KAPPA, write_i16
from scipy.constants import c, electron_volt, h
from scipy.spatial.transform import Rotation

from braggshot.errors import FormatError
from braggshot.io.registry import read
from braggshot.physics.geometry import sample_rotation, scattering_vector

SHAPE = (7, 12, 10)
COUNTS = np.random.default_rng(3).poisson(30, SHAPE).astype(np.int32)
ETA = np.linspace(18.2, 18.6, SHAPE[0])
ANGLES: dict[str, Any] = {"mu": 0.5, "eta": ETA, "chi": 89.0, "phi": -33.0, "gam": 2.0, "delta": 37.0}
# The Pilatus of I16: it leans by 45 degrees, and its first pixel lies well below the beam [m], X up, Y inboard, Z downstream.
LEANING = [
    np.array([62.58314655e-3, -18.31388151e-3, 621.14621608e-3]),
    0.172e-3 * np.array([4.41563e-4, 0.999995312, 3.030009e-3]),
    0.172e-3 * np.array([0.7063757, 0.00183285, -0.70783474]),
]


def test_a_detector_that_leans_stands_where_the_file_says(tmp_path: Path) -> None:
    scan = read(write_i16(tmp_path, COUNTS, ANGLES, place=LEANING))
    geometry = scan.geometry
    assert geometry is not None
    assert geometry.direct_beam == pytest.approx((106.04, 239.24), abs=0.01)  # what the beamline calls pil3_centre
    rows, columns = np.meshgrid(np.arange(SHAPE[1]), np.arange(SHAPE[2]), indexing="ij")
    place = LEANING[0] + rows[..., None] * LEANING[1] + columns[..., None] * LEANING[2]
    arm = Rotation.from_rotvec(np.radians([2.0, 0, 0])) * Rotation.from_rotvec(np.radians([0, 37.0 - 8.8, 0]))
    place = place @ arm.as_matrix().T
    wave = 2 * np.pi * 10e3 * electron_volt / (h * c)
    q = wave * (place / np.linalg.norm(place, axis=-1, keepdims=True) - [0, 0, 1])
    expected = np.stack([q[..., 2], q[..., 0], -q[..., 1]], axis=-1)  # z, y, x of the laboratory
    middle = (SHAPE[0] - 1) / 2
    found = scattering_vector(geometry, middle, *np.ix_(range(SHAPE[1]), range(SHAPE[2])))
    assert_allclose(found, expected, atol=1e-8 * wave)  # the file's edges are at right angles within 1e-8


def test_the_kappa_goniometer_turns_as_its_axes_do(tmp_path: Path) -> None:
    kappa = {"kmu": 1.0, "kth": 78.0 + np.linspace(0, 0.6, SHAPE[0]), "kap": -134.2, "kphi": 31.1, "kgam": 2.0, "kdelta": 37.0}
    still = {"mu": 1.0, "eta": 21.0, "chi": 89.0, "phi": -25.0, "gam": 2.0, "delta": 37.0}
    geometry = read(write_i16(tmp_path, COUNTS, {**still, **kappa})).geometry
    assert geometry is not None
    to_file = np.array([[0, 1, 0], [0, 0, -1], [1, 0, 0]])  # from z, y, x of the laboratory to X, Y, Z of the file
    for frame in range(SHAPE[0]):
        turned = np.eye(3)
        for name, (_, axis) in KAPPA.items():
            angle = float(np.ravel(kappa[name])[frame if name == "kth" else 0])
            turned = turned @ Rotation.from_rotvec(np.radians(angle) * np.array(axis)).as_matrix()
        assert_allclose(sample_rotation(geometry, frame), to_file.T @ turned @ to_file, atol=1e-9)
    assert [np.ndim(circle.angle) for circle in geometry.sample] == [0, 1, 0, 0]


def test_old_files_and_frames_in_tiff_files(tmp_path: Path) -> None:
    path = write_i16(tmp_path, COUNTS, ANGLES, images="tif", entry="entry1")
    scan = read(path)
    assert_array_equal(scan.frames[...], COUNTS)
    assert scan.geometry is not None
    assert scan.geometry.distance == pytest.approx(0.8)
    (tmp_path / "1040323-pilatus3_100k-files/00003.tif").unlink()
    scan = read(path)
    assert scan.arrived is not None
    assert_array_equal(np.flatnonzero(~scan.arrived), [2])


def test_images_outside_of_the_folder_are_not_read(tmp_path: Path) -> None:
    path = write_i16(tmp_path / "scan", COUNTS, ANGLES, images="tif")
    tifffile.imwrite(tmp_path / "secret.tif", COUNTS[0])
    with h5py.File(path, "a") as file:
        del file["entry/instrument/pil3_100k/image_data"]
        file["entry/instrument/pil3_100k/image_data"] = ["../secret.tif"] * SHAPE[0]
    with pytest.raises(FormatError, match="outside of its folder"):
        read(path)


def test_a_scan_that_announced_more_points_says_so(tmp_path: Path) -> None:
    path = write_i16(tmp_path, COUNTS, ANGLES)
    with h5py.File(path, "a") as file:
        file["entry/diamond_scan/scan_shape"][...] = 21
    assert "announces 21 points, and 7 were measured" in " ".join(read(path).provenance["noticed"])


@pytest.mark.parametrize("chain", ["missing", "circle", "nan", "no vector"])
def test_a_detector_whose_place_is_not_told_is_noticed(tmp_path: Path, chain: str) -> None:
    path = write_i16(tmp_path, COUNTS, ANGLES)
    with h5py.File(path, "a") as file:
        offset = file["entry/instrument/pil3_100k/transformations/origin_offset"]
        if chain == "missing":
            del file["entry/instrument/transformations/offsetdelta"]
        elif chain == "circle":
            offset.attrs["depends_on"] = offset.name
        elif chain == "nan":
            offset[0] = np.nan
        else:
            del offset.attrs["vector"]
    scan = read(path)
    assert scan.geometry is None
    said = " ".join(scan.provenance["noticed"])
    assert "does not say how the detector is mounted" in said
    assert "say distance_m=" in said
    assert read(path, distance_m=0.6, pixel_size_m=172e-6).geometry is not None


def test_frames_that_are_not_where_the_file_links_to_are_named(tmp_path: Path) -> None:
    path = write_i16(tmp_path, COUNTS, ANGLES)
    (tmp_path / "1040323-pilatus3_100k-files/1040323.hdf").unlink()
    with pytest.raises(FormatError, match=r"1040323\.hdf, which is missing: copy it"):
        read(path)
