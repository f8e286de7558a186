"""Scans of SOLEIL: which motor was scanned, and what the files of SIXS and CRISTAL leave open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sample_layouts import write_cristal, write_sixs

from braggshot.errors import FormatError
from braggshot.io.registry import describe, read
from braggshot.volumes import Scan

COUNTS = np.random.default_rng(3).poisson(30, (7, 12, 10)).astype(np.uint16)
STEPS = np.linspace(10.2, 10.6, len(COUNTS))
SIXS: dict[str, Any] = {"beta": 0.4, "mu": STEPS, "gamma": 22.0, "delta": 15.0}
CRISTAL: dict[str, Any] = {"mgomega": STEPS, "mgphi": 3.0, "gamma": 2.0, "delta": 25.0}


def notes(scan: Scan) -> str:
    return " ".join(scan.provenance["noticed"])


def angles(scan: Scan) -> dict[str, Any]:
    assert scan.geometry is not None
    return {circle.name: np.degrees(circle.angle) for circle in (*scan.geometry.sample, *scan.geometry.detector)}


def test_sixs_without_names_takes_the_actuator_for_mu_and_says_so(tmp_path: Path) -> None:
    scan = read(write_sixs(tmp_path, COUNTS, SIXS, label=False), distance_m=1.0)
    assert_allclose(angles(scan)["mu"], STEPS)
    assert "does not name the motor of scan_data/actuator_1_1: mu is assumed" in notes(scan)
    assert "55 µm is assumed" in notes(scan)


def test_sixs_without_beta_and_with_omega(tmp_path: Path) -> None:
    path = write_sixs(tmp_path, COUNTS, SIXS)
    with h5py.File(path, "a") as file:
        group = file["com/SIXS/i14-c-cx1-ex-med-v-dif-group.1"]
        del group["beta"]
        group["omega/position"][...] = 3.0
    scan = read(path, distance_m=1.0)
    assert angles(scan)["beta"] == 0
    assert "does not hold beta, which is taken as 0" in notes(scan)
    assert "omega is not at zero" in notes(scan)
    assert read(path, monitor="data_02").monitor is not None


def test_cristal_scans_of_phi_and_of_omega_in_millionths(tmp_path: Path) -> None:
    phi = {"mgomega": 20.0, "mgphi": STEPS, "gamma": 2.0, "delta": 25.0}
    assert_allclose(angles(read(write_cristal(tmp_path / "a", COUNTS, phi), distance_m=1.0))["mgphi"], STEPS)
    scan = read(write_cristal(tmp_path / "b", COUNTS, {**CRISTAL, "mgomega": STEPS * 1e6}), distance_m=1.0)
    assert_allclose(angles(scan)["mgomega"], STEPS)
    assert "millionths of a degree" in notes(scan)
    scan = read(write_cristal(tmp_path / "c", COUNTS, CRISTAL, named=False), distance_m=1.0)
    assert_allclose(angles(scan)["mgomega"], STEPS)
    assert "mgomega is assumed" in notes(scan)


def test_cristal_files_of_several_scans(tmp_path: Path) -> None:
    path = write_cristal(tmp_path, COUNTS, CRISTAL)
    write_cristal(tmp_path, COUNTS + 1, CRISTAL, number=130)
    assert describe(path, scan=12)["scans"] == ["exp_0012", "exp_0130"]
    assert_array_equal(read(path, scan=130).frames[...], COUNTS + 1)
    assert_array_equal(read(path, scan="exp_0012").frames[...], COUNTS)
    with pytest.raises(FormatError, match=r"there is no scan 13; the file holds exp_0012, exp_0130"):
        read(path, scan=13)
    with pytest.raises(FormatError, match=r"2 scans fit: choose one"):
        read(path)
