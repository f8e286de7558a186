"""Files of scans that step the photon energy: SPEC, BLISS, P10, and a geometry that the user states."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from sample_inputs import SAMPLES, aps_geometry, draw_counts

from braggshot.errors import ConfigError, GeometryError
from braggshot.io.beamlines.aps_34idc import write_scan
from braggshot.io.registry import describe, read
from braggshot.physics.geometry import KEV, reciprocal_basis
from braggshot.volumes import Window


def stepped(n, first=8.9, last=9.1):
    return np.linspace(first, last, n) * KEV


def write_spec(folder, energies):
    counts = draw_counts()
    _, rocking = aps_geometry()
    sample = tuple(replace(circle, angle=float(np.mean(circle.angle))) for circle in rocking.sample)
    return write_scan(folder / "Staff1", counts, energies, replace(rocking, energy=energies, sample=sample), 54)


def notes(scan):
    return " ".join(scan.provenance["noticed"])


def write_bliss(folder, energies, eta=17.2, units=None):
    path = Path(SAMPLES["esrf_id01"](folder).path)
    with h5py.File(path, "a") as file:
        motors = file["12.1/instrument/positioners"]
        del motors["mononrj"], motors["eta"]
        motors["mononrj"], motors["eta"] = energies, eta
        if units:
            motors["mononrj"].attrs["units"] = units
    return path


@pytest.mark.parametrize(("first", "last"), [(8.9, 9.1), (9.1, 8.9)])
def test_a_spec_file_gives_back_the_energies_that_were_written(tmp_path, first, last):
    energies = stepped(len(draw_counts()), first, last)
    scan = read(write_spec(tmp_path, energies))
    np.testing.assert_allclose(scan.geometry.energy, energies, rtol=1e-9)
    assert scan.rocking_angle is None
    assert all(np.ndim(circle.angle) == 0 for circle in scan.geometry.sample)
    assert "moved" not in notes(scan)
    edge = reciprocal_basis(scan.geometry, Window((0, 0, 0), (1, 1, 1), scan.frames.shape), scan.frames.shape)[0][:, 0]
    assert np.linalg.norm(edge) > 0


def test_a_frame_without_an_energy_is_left_out(tmp_path):
    path = write_bliss(tmp_path, np.r_[12.9, np.nan, np.linspace(12.95, 13.1, 7)])
    scan = read(path)
    assert scan.geometry.energy.shape == (8,) == scan.frames.shape[:1]
    assert "frame 1 (counted from 0) has no angle" in notes(scan)


@pytest.mark.parametrize(("factor", "units"), [(1.0, None), (1.0, "keV"), (1e3, "eV"), (1e3, None)])
def test_energies_in_another_unit_are_the_same(tmp_path, factor, units):
    path = write_bliss(tmp_path, np.linspace(12.9, 13.1, 9) * factor, units=units)
    scan = read(path)
    np.testing.assert_allclose(scan.geometry.energy, stepped(9, 12.9, 13.1), rtol=1e-9)
    assert describe(tmp_path / path.name)["geometry"]["energy_kev"] == pytest.approx([12.9, 13.1])


@pytest.mark.parametrize(
    ("energies", "eta", "words"),
    [
        (np.linspace(12.9, 13.1, 9), np.linspace(17, 17.2, 9), "moves from 12900 to 13100 eV, and so does eta"),
        (np.full(9, 13.0), 17.2, "no circle moved, and the photon energy stands still"),
        (13.0, 17.2, "no circle moved, and the photon energy stands still"),
        (np.full(9, np.nan), 17.2, "is not there at each point"),
    ],
)
def test_what_is_no_energy_scan_has_no_geometry_and_says_why(tmp_path, energies, eta, words):
    scan = read(write_bliss(tmp_path, energies, eta))
    assert scan.geometry is None
    assert words in notes(scan)


def test_circles_that_only_jitter_stand_still(tmp_path):
    jitter = 17.2 + 2e-4 * np.random.default_rng(0).normal(size=9)
    scan = read(write_bliss(tmp_path, np.linspace(12.9, 13.1, 9), jitter))
    assert np.ndim(scan.geometry.energy) == 1
    assert np.degrees(scan.geometry.sample[1].angle) == pytest.approx(17.2, abs=1e-3)
    assert scan.rocking_angle is None


def test_one_odd_energy_makes_no_energy_scan(tmp_path):
    scan = read(write_bliss(tmp_path, np.r_[np.full(4, 13.0), 0.0, 13.4, np.full(14, 13.0)][:9], np.linspace(17, 17.2, 9)))
    assert scan.geometry.energy == pytest.approx(13 * KEV)


def test_one_stated_energy_overrules_energies_that_move_beside_a_circle(tmp_path):
    scan = read(write_bliss(tmp_path, np.linspace(12.9, 13.1, 9), np.linspace(17, 17.2, 9)), energy_ev=13000.0)
    assert scan.geometry.energy == pytest.approx(13 * KEV)
    assert "you state one energy: yours is taken" in notes(scan)


TABLE = {"instrument": "id01", "distance_m": 0.5, "pixel_size_m": 55e-6, "angles_deg": {"eta": 20.0, "delta": 40.0}}


@pytest.mark.parametrize("stated", [[8900.0, 9100.0], (np.linspace(8900, 9100, 9)).tolist()])
def test_a_stated_geometry_may_step_the_energy(tmp_path, stated):
    np.save(tmp_path / "scan.npy", draw_counts(shape=(9, 24, 26)))
    scan = read(tmp_path / "scan.npy", geometry={**TABLE, "energy_ev": stated})
    np.testing.assert_allclose(scan.geometry.energy, stepped(9))
    with pytest.raises(ConfigError, match="energy_ev states one; leave it out"):
        read(tmp_path / "scan.npy", geometry={**TABLE, "energy_ev": stated}, energy_ev=9000.0)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"energy_ev": [9000.0] * 3}, ConfigError, "energy_ev has 3 energies for 9 frames"),
        ({"energy_ev": [9000.0, 9000.0]}, GeometryError, "all 9 photon energies are alike"),
        (
            {"energy_ev": [8900.0, 9100.0], "angles_deg": {"eta": [20.0, 20.5], "delta": 40.0}},
            GeometryError,
            "photon energy and eta",
        ),
        ({"energy_ev": [-1.0, 9100.0]}, ConfigError, "must be a positive number"),
    ],
)
def test_a_stated_energy_scan_that_cannot_be_says_why(tmp_path, changes, error, words):
    np.save(tmp_path / "scan.npy", draw_counts(shape=(9, 24, 26)))
    with pytest.raises(error, match=words):
        read(tmp_path / "scan.npy", geometry={**TABLE, **changes})


def test_energies_stated_in_kev_are_refused(tmp_path):
    np.save(tmp_path / "scan.npy", draw_counts(shape=(9, 24, 26)))
    with pytest.raises(GeometryError, match=r"8\.9 keV meant"):
        read(tmp_path / "scan.npy", geometry={**TABLE, "energy_ev": [8.9, 9.1]})
