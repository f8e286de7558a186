"""SPEC files and TIFF frames of HEPS ID05: which circles, which detector, and what is missing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sample_layouts import write_heps

from braggshot.errors import DataError, FormatError
from braggshot.io.registry import describe, read
from braggshot.physics.geometry import scattering_vector
from braggshot.volumes import Scan

COUNTS = np.random.default_rng(3).poisson(30, (7, 12, 10)).astype(np.int32)
ANGLES: dict[str, Any] = {"mu": 0.5, "eta": np.linspace(17.2, 17.8, 7), "chi": 88.5, "phi": 12.0, "nu": 3.0, "del": 35.2}


def notes(scan: Scan) -> str:
    return " ".join(scan.provenance["noticed"])


def test_the_wavelength_is_read_and_the_distance_asked_for(tmp_path: Path) -> None:
    path = write_heps(tmp_path, COUNTS, ANGLES, energy=9900.0)
    scan = read(path)
    assert scan.geometry is None
    assert "do not give distance_m; say distance_m=" in notes(scan)
    assert "There is photon energy 9900 eV, pixel size 7.5e-05 m, mu 0.5, eta 17.2 to 17.8, chi 88.5, phi 12, nu 3" in notes(scan)
    assert "names no beamline" in notes(scan)
    assert_array_equal(scan.monitor, np.arange(1000, 1007))
    found = read(path, distance_m=1.2).geometry
    assert found is not None
    assert found.energy == pytest.approx(9900 * 1.602176634e-19)
    assert "frame's centre is assumed" in notes(read(path, distance_m=1.2))
    whole = path.read_text()
    for odd in ("#G4 0.1 0.2 1.9 0", "#G4 0.1 0.2", "#G4 0.1 0.2 1.9 nan"):
        path.write_text("\n".join(odd if line.startswith("#G4") else line for line in whole.split("\n")))
        scan = read(path, distance_m=1.2)
        assert scan.geometry is None
        assert "do not give energy_ev; say energy_ev=" in notes(scan)


def test_the_shape_of_frames_tells_the_detector_and_how_it_is_mounted(tmp_path: Path) -> None:
    """Seen with rows downwards and columns inboard, the Pilatus is turned: its first row and last column are at other corners."""
    frames = np.zeros((2, 195, 487), np.int32)
    path = write_heps(tmp_path / "a", frames, {**ANGLES, "eta": np.array([17.2, 17.3])}, pilatus=True)
    scan = read(path, distance_m=1.2, direct_beam=(94.0, 243.0))
    pilatus = scan.geometry
    assert pilatus is not None
    assert (pilatus.row_axis, pilatus.column_axis, pilatus.pixel_size) == ("x+", "y-", (172e-6, 172e-6))
    assert "no detector of ID05" not in notes(scan)
    path = write_heps(tmp_path / "b", np.zeros((2, 487, 195), np.int32), {**ANGLES, "eta": np.array([17.2, 17.3])})
    scan = read(path, distance_m=1.2, direct_beam=(243.0, 100.0), pixel_size_m=172e-6)
    upright = scan.geometry
    assert upright is not None
    for row, column in ((0, 0), (0, 486), (194, 100)):
        expected = scattering_vector(upright, 0, column, 194 - row)
        assert_allclose(scattering_vector(pilatus, 0, row, column), expected, atol=1e-9 * np.linalg.norm(expected))
    assert "taken for a part of the Eiger2 4M" in notes(scan)


def test_images_of_two_detectors_are_not_mixed(tmp_path: Path) -> None:
    path = write_heps(tmp_path, COUNTS, ANGLES)
    shutil.copy(tmp_path / "images/Sample1_1/S191/A_000.tif", tmp_path / "images/Sample1_1/S191/Sample1_1_S191_00000.tif")
    with pytest.raises(FormatError, match=r"images of 2 kinds .*\(A_\*\.tif, Sample1_1_S191_\*\.tif\); choose with frames="):
        read(path)
    assert_array_equal(read(path, frames="images/Sample1_1/S191/A_*.tif").frames[...], COUNTS)


def test_a_point_without_an_image_is_left_out(tmp_path: Path) -> None:
    path = write_heps(tmp_path, COUNTS, ANGLES)
    (tmp_path / "images/Sample1_1/S191/A_002.tif").unlink()
    scan = read(path)
    assert_array_equal(scan.frames[...], COUNTS[[0, 1, 3, 4, 5, 6]])
    assert "1 of 7 points have no frame (number 2" in notes(scan)
    assert describe(path)["scans"] == ["191"]


def test_what_is_missing_is_one_clear_line(tmp_path: Path) -> None:
    path = write_heps(tmp_path, COUNTS, ANGLES)
    with pytest.raises(FormatError, match=r"nowhere; say frames="):
        read(path, frames="nowhere")
    whole = path.read_text()
    path.write_text(whole.replace(" eta ", " th "))
    with pytest.raises(FormatError, match=r"name the circles of no diffractometer of ID05"):
        read(path, format="heps_id05")
    path.write_text(whole)
    images = Path(shutil.move(tmp_path / "images", tmp_path.parent / f"{tmp_path.name}_images"))
    with pytest.raises(FormatError, match="no reader knows this file"):
        read(path)
    moved = read(path, format="heps_id05", scan=191, frames=images / "Sample1_1/S191")
    assert_array_equal(moved.frames[...], COUNTS)
    for image in sorted((images / "Sample1_1/S191").iterdir())[1:]:
        image.unlink()
    with pytest.raises(DataError, match="1 frames belong to the 7 points"):
        read(path, format="heps_id05", scan=191, frames=images / "Sample1_1/S191")


def test_an_energy_scan_takes_the_energies_of_its_motor(tmp_path: Path) -> None:
    path = write_heps(tmp_path, COUNTS, ANGLES)
    text = path.read_text().replace("#O1 SampleX", "#O1 Energy").replace("#o1 sx", "#o1 energy").replace("#P1 0.1", "#P1 9.9")
    lines = text.replace("#L Eta ", "#L Energy ").replace("ascan  eta", "ascan  energy").split("\n")
    start = next(index for index, line in enumerate(lines) if line.startswith("#L"))
    for index in range(7):
        lines[start + 1 + index] = f"{9.9 + 0.01 * index:.3f} " + lines[start + 1 + index].split(" ", 1)[1]
    path.write_text("\n".join(lines))
    found = read(path, distance_m=1.2).geometry
    assert found is not None
    assert_allclose(np.asarray(found.energy) / 1.602176634e-16, 9.9 + 0.01 * np.arange(7))
