"""Reconstruction to strain map on skewed voxels: frames, lattice, layers, defects, and what cannot be done."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from braggshot.crystal_frame import StrainConfig, strain_map, to_crystal, to_lab, to_sample
from braggshot.errors import ConfigError, DataError, GeometryError
from braggshot.phasing.calibration import CALIBRATION, uncertainty_of_starts
from braggshot.physics.geometry import direct_basis, direction, reciprocal_basis, rotation, rotation_onto
from braggshot.physics.strain import summary_table
from braggshot.volumes import Circle, DiffractionVolume, Geometry, Quality, Reconstruction, Window

BASIS = np.array([[12.6, 0.0, -3.2], [3.3, -10.0, 0.5], [7.9, 0.0, 9.5]]) * 1e-9
SHAPE = (44, 40, 42)
Q = np.array([-7.0e9, 1.1e10, 2.1e10])
UNIT = Q / np.linalg.norm(Q)
LAB = StrainConfig(frame="lab")


def positions(basis=BASIS, shape=SHAPE):
    return np.tensordot(basis, np.indices(shape) - np.array(shape).reshape(3, 1, 1, 1) // 2, axes=1)


def crystal(displacement, amplitude=None):
    """An ellipsoid with u along q [m], a function of the position."""
    r = positions()
    inside = (r[0] / 130e-9) ** 2 + (r[1] / 90e-9) ** 2 + (r[2] / 110e-9) ** 2 < 1
    rho = inside * (50.0 if amplitude is None else amplitude(r)) * np.exp(-1j * np.linalg.norm(Q) * displacement(r))
    reciprocal = 2 * np.pi * np.linalg.inv(BASIS).T / np.array(SHAPE)
    volume = DiffractionVolume(
        np.ones(SHAPE, np.float32), np.ones(SHAPE, bool), name="ball", q_bragg=Q, reciprocal_basis=reciprocal
    )
    return Reconstruction(rho.astype(np.complex64), inside, volume, Quality(0, 0, 0, 0), basis=BASIS)


def still(r):
    return 0 * r[0]


def along(r):
    return np.tensordot(UNIT, r, axes=1)


@pytest.mark.parametrize("value", [8e-4, -8e-4])
def test_a_uniform_strain_is_a_lattice_and_no_strain(value):
    """The peak's position tells it: d = d_0 (1 + e), and nothing is left over."""
    found = strain_map(crystal(lambda r: value * along(r)), LAB)
    assert summary_table(found)["d_spacing_m"] == pytest.approx(2 * np.pi / np.linalg.norm(Q) / (1 - value), rel=1e-6)
    assert np.nanmax(np.abs(found.strain)) < 2e-5
    np.testing.assert_allclose(found.d_spacing[found.bulk], 2 * np.pi / np.linalg.norm(Q) / (1 - value), rtol=2e-5)
    kept = strain_map(crystal(lambda r: value * along(r)), replace(LAB, ramp="keep"))
    np.testing.assert_allclose(kept.strain[kept.bulk], value, rtol=1e-2)
    np.testing.assert_allclose(kept.d_spacing[kept.bulk], found.d_spacing[kept.bulk], rtol=2e-5)


@pytest.mark.parametrize("axis", ["x+", "x-", "y+", "y-", "z+", "z-"])
def test_q_lies_along_any_axis_by_a_rotation(axis):
    found = strain_map(crystal(lambda r: 3e3 * along(r) * r[1]), StrainConfig(axis=axis))
    np.testing.assert_allclose(found.q_bragg / np.linalg.norm(found.q_bragg), direction(axis), atol=2e-3)
    assert np.linalg.det(found.rotation) == pytest.approx(1)
    np.testing.assert_allclose(found.rotation @ UNIT, direction(axis), atol=1e-12)
    # The strain, 3e3 (y + q_y q . r), seen from the turned axes.
    r = np.tensordot(found.rotation.T, positions(found.basis, found.support.shape), axes=1)
    expected = 3e3 * (r[1] + UNIT[1] * along(r))
    inner = ndimage.binary_erosion(found.bulk)
    expected -= expected[found.bulk].mean()
    np.testing.assert_allclose(found.strain[inner], expected[inner], atol=2e-5)
    assert np.std(expected[inner]) > 1e-4


def test_every_frame_is_as_accurate_as_the_crystal_frame():
    """One half strained, the boundary narrower than a voxel and at an angle to all axes."""
    across = np.cross(UNIT, [0.3, 0.9, 0.1])
    across /= np.linalg.norm(across)

    def share(r):
        return 0.5 + 0.5 * np.tanh(np.tensordot(across, r, axes=1) / 6e-9)

    wrong = {}
    for frame in ("lab", "crystal"):
        found = strain_map(crystal(lambda r: 1e-3 * along(r) * share(r)), StrainConfig(frame=frame, facets=False))
        r = np.tensordot(found.rotation.T, positions(found.basis, found.support.shape), axes=1)
        inner = ndimage.distance_transform_edt(found.support) > 2
        wrong[frame] = np.std(found.strain[inner] - 1e-3 * share(r)[inner])
    assert wrong["lab"] < 1.1 * wrong["crystal"]
    assert wrong["crystal"] < 4e-5


def test_the_strain_is_that_of_the_measured_voxels_whatever_the_grid():
    reconstruction = crystal(lambda r: 3e3 * along(r) * r[1] + 1e-12 * np.random.default_rng(1).normal(size=SHAPE))
    spread = [np.nanstd(strain_map(reconstruction, replace(LAB, voxel_size=edge)).strain) for edge in (5e-9, 10e-9)]
    assert spread[0] == pytest.approx(spread[1], rel=0.1)


def scanned(turned):
    """A ball with one corner off, of one sample, as a scan sees it with the innermost sample circle `turned` [rad]."""
    eta = 0.3 + 2e-4 * (np.arange(44) - 22)
    circles = (Circle("y-", 0.05), Circle("x-", eta), Circle("y-", turned))
    detector = (Circle("y-", 0.1), Circle("x-", 0.6))
    geometry = Geometry(1.44e-15, 0.6, (55e-6, 55e-6), circles, detector, direct_beam=(20.0, 21.0))
    window = Window((0, 0, 0), (1, 1, 1), SHAPE)
    basis, q = reciprocal_basis(geometry, window, SHAPE)
    edges = direct_basis(basis, SHAPE)
    stands = rotation("y-", 0.05) @ rotation("x-", 0.3) @ rotation("y-", turned)
    z, y, x = positions(stands.T @ edges)
    inside = (z**2 + y**2 + x**2 < 150e-9**2) & ~((z > 0) & (y > 0) & (x > 0))
    volume = DiffractionVolume(np.ones(SHAPE, np.float32), np.ones(SHAPE, bool), "ball", window, basis, q, geometry=geometry)
    return Reconstruction((50.0 * inside).astype(np.complex64), inside, volume, Quality(0, 0, 0, 0), basis=edges)


def test_two_scans_at_different_phi_agree_in_the_sample_frame():
    maps = {}
    for turned in (0.2, 1.3):
        for frame in ("sample", "lab"):
            found = strain_map(scanned(turned), StrainConfig(frame=frame, facets=False, voxel_size=12e-9))
            maps[turned, frame] = found
        sample = maps[turned, "sample"]
        assert sample.frame == "sample"
        assert "sample frame" in sample.choices["frame"]
        np.testing.assert_allclose(sample.rotation @ rotation("y-", 0.05) @ rotation("x-", 0.3) @ rotation("y-", turned),
                                   np.eye(3), atol=1e-12)  # fmt: skip
        np.testing.assert_allclose(sample.rotation @ maps[turned, "lab"].q_bragg, sample.q_bragg, rtol=1e-3, atol=1e7)
        z, y, x = positions(sample.basis, sample.support.shape)
        missing = (z > 25e-9) & (y > 25e-9) & (x > 25e-9)
        assert not sample.support[missing].any()
        assert sample.support[(np.hypot(np.hypot(z, y), x) < 125e-9) & ((z < -20e-9) | (y < -20e-9) | (x < -20e-9))].all()


def test_without_angles_there_is_no_sample_frame():
    with pytest.raises(GeometryError, match="angles of the sample"):
        strain_map(crystal(still), StrainConfig(frame="sample"))
    with pytest.raises(GeometryError, match="sample frame already"):
        to_lab(to_sample(scanned(0.2)))


def test_the_rotation_is_the_least_one():
    assert rotation_onto(Q, direction("y+"))[0, 0] < 1
    np.testing.assert_allclose(rotation_onto(Q, 3 * Q), np.eye(3), atol=1e-12)
    np.testing.assert_allclose(rotation_onto(Q, -Q) @ UNIT, -UNIT, atol=1e-12)
    assert np.linalg.det(rotation_onto(Q, -Q)) == pytest.approx(1)
    angle = np.arccos((np.trace(rotation_onto(Q, direction("y+"))) - 1) / 2)
    assert angle == pytest.approx(np.arccos(UNIT[1]))


def test_the_crystal_frame_is_the_laboratory_turned():
    reconstruction = crystal(lambda r: 3e3 * along(r) * r[1])
    lab, turned = to_lab(reconstruction), to_crystal(reconstruction, "y+")
    assert turned.frame == "crystal"
    np.testing.assert_allclose(turned.volume.q_bragg / np.linalg.norm(Q), [0, 1, 0], atol=1e-12)
    rotation = rotation_onto(Q, direction("y+"))
    np.testing.assert_allclose(turned.volume.reciprocal_basis, rotation @ reconstruction.volume.reciprocal_basis)
    for one in (lab, turned):
        assert one.support.sum() * np.linalg.det(one.basis) == pytest.approx(4 / 3 * np.pi * 130 * 90 * 110 * 1e-27, rel=0.03)
    with pytest.raises(GeometryError, match="crystal frame already"):
        to_lab(turned)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_dislocation_with_a_hollow_core_is_flagged(sign):
    """A screw along y with q . b = 2 pi; the amplitude fades within 20 nm of its line, which runs all through."""

    def displacement(r):
        return sign * np.arctan2(r[2] - 3e-9, r[0] - 2e-9) / np.linalg.norm(Q)

    def amplitude(r):
        return 50 * np.clip(np.hypot(r[2] - 3e-9, r[0] - 2e-9) / 20e-9, 0, 1)

    found = strain_map(crystal(displacement, amplitude), LAB)
    r = positions(found.basis, found.support.shape)
    assert np.hypot(r[2] - 3e-9, r[0] - 2e-9)[found.dislocation].max() < 35e-9
    assert np.abs(r[1][found.dislocation]).max() > 70e-9
    assert found.dislocation.any(axis=(0, 2)).sum() > 12
    assert summary_table(found)["dislocation_voxels"] > 20
    assert not strain_map(crystal(lambda r: 3e3 * along(r) * r[1]), LAB).dislocation.any()


def test_lattice_parameters_of_two_systems():
    reconstruction = crystal(lambda r: 3e3 * along(r) * r[1])
    d = strain_map(reconstruction, LAB).d_spacing
    cubic = strain_map(reconstruction, replace(LAB, reflection=(2, 2, 0))).lattice_parameter
    np.testing.assert_allclose(cubic, d * np.sqrt(8))
    # A (1 0 3) of a hexagonal cell 6 % too large in each direction.
    cell = {"lattice": (3.0e-10, 3.0e-10, 5.0e-10), "lattice_angles_deg": (90.0, 90.0, 120.0), "reflection": (1, 0, 3)}
    ideal = (4 / 3 / 3.0e-10**2 + 9 / 5.0e-10**2) ** -0.5
    hexagonal = strain_map(reconstruction, replace(LAB, **cell)).lattice_parameter
    np.testing.assert_allclose(hexagonal, 3.0e-10 * d / ideal)
    assert strain_map(reconstruction, LAB).lattice_parameter is None


def test_surface_and_bulk_are_the_support():
    reconstruction = crystal(still)
    for thickness in (1, 2):
        found = strain_map(reconstruction, replace(LAB, surface=thickness))
        np.testing.assert_array_equal(found.surface | found.bulk, found.support)
        assert not (found.surface & found.bulk).any()
        np.testing.assert_array_equal(found.bulk, ndimage.binary_erosion(found.support, iterations=thickness))


def test_values_are_where_the_crystal_is():
    found = strain_map(crystal(lambda r: 3e3 * along(r) * r[1]), StrainConfig(voxel_size=(9e-9, 11e-9, 10e-9), iso=0.4))
    np.testing.assert_allclose(found.basis, np.diag([9e-9, 11e-9, 10e-9]))
    for values in (found.strain, found.displacement, found.d_spacing):
        np.testing.assert_array_equal(np.isfinite(values), found.support)
    assert not found.phase[~found.support].any()
    assert found.iso_level == pytest.approx(0.4 * found.amplitude.max(), rel=1e-6)
    np.testing.assert_array_equal(found.support, found.amplitude >= found.iso_level)
    np.testing.assert_allclose(np.angle(np.exp(-1j * np.linalg.norm(found.q_bragg) * found.displacement))[found.support],
                               found.phase[found.support], atol=1e-4)  # fmt: skip


def test_displacement_is_not_wrapped():
    found = strain_map(crystal(lambda r: 6e4 * along(r) * r[1]), LAB)
    assert np.ptp(found.phase[found.support]) > 6.2
    assert np.nanmax(found.displacement) - np.nanmin(found.displacement) > 1.2 * 2 * np.pi / np.linalg.norm(Q)
    r = positions(found.basis, found.support.shape)
    u = 6e4 * along(r) * r[1]
    plane = np.column_stack([r[:, found.bulk].T, np.ones(found.bulk.sum())])
    difference = found.displacement[found.bulk] - u[found.bulk]
    difference -= plane @ np.linalg.lstsq(plane, difference, rcond=None)[0]
    assert np.std(difference) < 1e-12


def test_what_cannot_be_mapped_says_why():
    reconstruction = crystal(still)
    with pytest.raises(GeometryError, match="scattering vector"):
        strain_map(replace(reconstruction, volume=replace(reconstruction.volume, q_bragg=None)))
    with pytest.raises(DataError, match="empty"):
        strain_map(replace(reconstruction, support=np.zeros(SHAPE, bool)))
    for wrong, words in (
        ({"iso": 1.5}, "share between 0 and 1"),
        ({"surface": 0}, "at least 1 voxel"),
        ({"lattice": (4e-10, 4e-10)}, "one edge"),
        ({"reflection": (0, 0, 0)}, "no reflection"),
        ({"noise_samples": 1}, "at least 2"),
    ):
        with pytest.raises(ConfigError, match=words):
            StrainConfig(**wrong)
    with pytest.raises(GeometryError, match="axis"):
        StrainConfig(axis="q")


@pytest.mark.parametrize("frame", ["lab", "crystal"])
def test_sigma_is_that_of_the_values_shown_not_of_the_voxels_measured(frame):
    """Errors of neighbouring voxels partly cancel in a value between them: sigma follows, however the grid is resampled."""
    truth, random = crystal(still), np.random.default_rng(3)

    def starts(number):
        for _ in range(number):
            yield truth.rho * np.exp(1j * random.normal(0, 0.05, SHAPE)).astype(np.complex64)

    fields = [torch.from_numpy(field) for field in starts(12)]
    known = replace(truth, uncertainty=uncertainty_of_starts(fields, truth.support, BASIS, Q))
    found = strain_map(known, StrainConfig(frame=frame, facets=False))
    shown = [strain_map(replace(truth, rho=field), StrainConfig(frame=frame, facets=False)) for field in starts(12)]
    factors = CALIBRATION["starts"]
    for values, sigma, factor in (
        ([one.strain[found.bulk] for one in shown], found.strain_sigma[found.bulk], factors["strain"]),
        ([one.displacement[found.bulk] for one in shown], found.displacement_sigma[found.bulk], factors["phase"]),
    ):
        spread = np.sqrt(np.mean(np.var(values, axis=0, ddof=1)))
        assert np.sqrt(np.mean(sigma**2)) == pytest.approx(factor * spread, rel=0.1)
    interpolated = strain_map(replace(known, uncertainty=replace(known.uncertainty, deviations=None)), StrainConfig(frame=frame))
    assert np.median(interpolated.strain_sigma[found.bulk] / found.strain_sigma[found.bulk]) > 1.05
