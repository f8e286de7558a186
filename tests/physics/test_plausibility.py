"""A value that cannot be true is refused or noticed, and the unit that was meant is named."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.constants import electron_volt

from braggshot.crystal_frame import StrainConfig
from braggshot.crystals.scan import ScanSettings, simulate_scan
from braggshot.errors import ConfigError, GeometryError
from braggshot.physics.plausibility import check_counts, check_spacing, refuse_impossible_geometry


@pytest.fixture(scope="module")
def geometry():
    return simulate_scan(0, settings=ScanSettings())[0].geometry


def test_a_usual_geometry_passes(geometry):
    refuse_impossible_geometry(geometry, "scan")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"energy": 9 * electron_volt}, "was 9 keV meant?"),
        ({"energy": 9e6 * electron_volt}, "is no photon energy"),
        ({"energy": 0.0}, "is no photon energy"),
        ({"energy": float("nan")}, "is no photon energy"),
        ({"distance": 500.0}, "was 500 mm meant?"),
        ({"distance": -1.0}, "is no distance"),
        ({"pixel_size": (55.0, 55.0)}, "was 55 µm meant?"),
        ({"pixel_size": (55e-6, 0.055)}, "was 0.055 mm meant?"),
    ],
)
def test_an_impossible_value_is_refused_with_the_unit_that_was_meant(geometry, changes, words):
    with pytest.raises(GeometryError, match=words.replace("?", r"\?")):
        refuse_impossible_geometry(dataclasses.replace(geometry, **changes), "scan")


@pytest.mark.parametrize(("spacing", "is_odd"), [(2.35e-10, False), (0.6e-10, False), (2354e-10, True), (0.1e-10, True)])
def test_a_lattice_spacing_that_no_crystal_has_is_noticed(spacing, is_odd):
    assert (check_spacing(np.array([0, 2 * np.pi / spacing, 0])) is not None) == is_odd


def test_a_scattering_vector_of_zero_is_noticed():
    assert check_spacing(np.zeros(3)) is not None


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [("voxel_size", 5.0, "5e-09"), ("voxel_size", (5.0, 5.0, 5.0), "5e-09"), ("lattice", (4.078,), "4.078e-10")],
)
def test_a_length_typed_in_another_unit_is_refused_with_the_right_text(name, value, meant):
    with pytest.raises(ConfigError, match=f"Write {meant}"):
        StrainConfig(**{name: value})


@pytest.fixture
def counts():
    grid = np.indices((64, 64)) - 32
    return np.random.default_rng(1).poisson(3000 * np.exp(-(grid**2).sum(0) / 100))


def test_counts_pass(counts):
    assert list(check_counts(counts)) == []


def test_a_saturated_detector_is_noticed(counts):
    assert "may be saturated" in next(check_counts(np.minimum(counts, 2000)))
    assert "Timepix detector end: it is saturated" in next(check_counts(np.minimum(8 * counts, 11810)))
