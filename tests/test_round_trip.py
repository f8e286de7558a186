"""End to end, frame by frame from the angles: shape, orientation, displacement and strain come back, and every flip would show."""

import functools
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from braggshot import output
from braggshot.crystal_frame import StrainConfig, strain_map
from braggshot.crystals.direct_sum import rocking_scan
from braggshot.io import results
from braggshot.physics.geometry import direction, scattering_vector
from braggshot.physics.strain import summary_table

SPEC = importlib.util.spec_from_file_location("round_trip", Path(__file__).parents[1] / "benchmarks" / "round_trip.py")
rt = importlib.util.module_from_spec(SPEC)
sys.modules["round_trip"] = rt
SPEC.loader.exec_module(rt)

LAB = StrainConfig(frame="lab")
simulated = functools.cache(rt.simulate)


@pytest.fixture(scope="module", params=["34idc", "p10", "sixs2022"])  # between them all axes, senses and detector orientations
def simulation(request):
    return simulated(request.param)


@pytest.fixture(scope="module")
def gold():
    return simulated("34idc")


def test_a_pixel_is_the_sum_over_the_points(gold):
    """The separable sum is the plain one, exp(-i (q - g) . r) over all points."""
    rho = np.zeros((3, 5, 4), complex)
    rho[0, 1, 3], rho[2, 4, 0] = 2.0, 1.0j
    edges = (7e-9, 8e-9, 9e-9)
    found = rocking_scan(rho, edges, gold.g, gold.geometry, (2, 6, 5), 1.0)
    k = scattering_vector(gold.geometry, 0, 2, 3, 1.0) - gold.g
    points = np.array([[-1, -1, 1], [1, 2, -2]]) * edges
    assert found[0, 2, 3] == pytest.approx(2 * np.exp(-1j * k @ points[0]) + 1j * np.exp(-1j * k @ points[1]))


def test_shape_displacement_and_strain_come_back(simulation):
    errors = rt.compare(strain_map(rt.exactly_phased(simulation), LAB), simulation)
    assert errors.overlap > 0.92
    assert errors.orientation_deg < 0.8
    assert errors.displacement_pm < 1.5
    assert errors.strain < 5e-5
    assert abs(errors.mean_strain) < 1e-5
    assert errors.correlation > 0.995


def test_the_crystal_frame_holds_the_same_crystal(simulation):
    """Turned so that q lies along an axis; lengths, strain and its direction are those of the laboratory."""
    found = strain_map(rt.exactly_phased(simulation), StrainConfig(axis="x-", voxel_size=(14e-9, 12e-9, 13e-9)))
    np.testing.assert_allclose(found.q_bragg / np.linalg.norm(found.q_bragg), direction("x-"), atol=2e-3)
    np.testing.assert_allclose(found.basis.diagonal(), (14e-9, 12e-9, 13e-9))
    errors = rt.compare(found, simulation)
    assert errors.overlap > 0.92
    assert errors.orientation_deg < 0.8
    assert errors.correlation > 0.99
    assert errors.strain < 6e-5


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_flipped_result_is_noticed(simulation, axis):
    """What the tests above would see if an axis of the result were turned round."""
    found = strain_map(rt.exactly_phased(simulation), LAB)
    flipped = replace(
        found,
        **{name: np.flip(getattr(found, name), axis) for name in ("support", "bulk", "amplitude", "displacement", "d_spacing")},
    )
    errors = rt.compare(flipped, simulation)
    assert errors.overlap < 0.85
    assert errors.correlation < 0.95


@pytest.mark.parametrize("what", ["rows", "columns", "rocking", "circle"])
def test_a_flipped_geometry_is_noticed(gold, what):
    geometry = gold.geometry
    theta = geometry.sample[0]
    wrong = {
        "rows": replace(geometry, row_axis="y+"),
        "columns": replace(geometry, column_axis="x-"),
        "rocking": replace(geometry, sample=(replace(theta, angle=theta.angle[::-1]), *geometry.sample[1:])),
        "circle": replace(geometry, detector=(geometry.detector[0], replace(geometry.detector[1], axis="x+"))),
    }[what]
    errors = rt.compare(strain_map(rt.exactly_phased(gold, wrong), LAB), gold)
    assert errors.overlap < 0.85
    assert errors.strain > 1e-4  # the right geometry gives 2e-5


def test_the_sign_of_the_strain(gold):
    """The conjugate crystal (the other program's sign) has the opposite strain gradient."""
    reconstruction = rt.exactly_phased(gold)
    found, conjugate = (
        strain_map(replace(reconstruction, rho=rho), LAB) for rho in (reconstruction.rho, reconstruction.rho.conj())
    )
    unit = gold.g / np.linalg.norm(gold.g)
    expected = rt.true_strain(rt.points(found), unit)[found.bulk]
    assert np.corrcoef(found.strain[found.bulk], expected)[0, 1] > 0.99
    assert np.corrcoef(conjugate.strain[found.bulk], expected)[0, 1] < -0.99


def test_counts_phased_and_brought_back(gold, tmp_path):
    """Read, prepared and phased: only origin and twin, which no intensity holds, are taken from the truth."""
    result, found = rt.phased(gold, 1e6, starts=1, seed=2, recipe="2*(50*HIO+60*RAAR+20*ER)+60*ER", partial_coherence="off")
    errors = rt.compare(strain_map(found, LAB), gold)
    assert errors.overlap > 0.9
    assert errors.orientation_deg < 1.5
    assert errors.displacement_pm < 4
    assert errors.strain < 1.5e-4
    assert abs(errors.mean_strain) < 2e-5
    output.write(result, tmp_path / "result.cxi", ("cxi",))
    few = summary_table(results.read_strain(tmp_path / "result.cxi"))
    assert few["d_spacing_m"] == pytest.approx(2 * np.pi / np.linalg.norm(gold.g) * (1 + rt.STRAIN), rel=3e-4)


def test_orthogonalising_alone_leaves_the_phase_untouched(gold):
    """`ramp = "keep"`: the phase is the transform's own at each point, ramp and offset included."""
    reconstruction = rt.exactly_phased(gold)
    found = strain_map(reconstruction, StrainConfig(frame="lab", ramp="keep"))
    r = rt.points(found)
    unit = gold.g / np.linalg.norm(gold.g)
    expected = np.tensordot(gold.g - gold.q, r, axes=1) - np.linalg.norm(gold.g) * rt.displacement(r, unit)
    error = np.angle(np.exp(1j * (found.phase - expected)))[found.bulk & (rt.depth(r) > 25e-9)]
    assert abs(error.mean()) < 0.03
    assert error.std() < 0.06
    np.testing.assert_allclose(found.q_bragg, gold.q, rtol=1e-9)
