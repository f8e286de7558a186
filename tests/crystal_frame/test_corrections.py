"""A crystal measured on a curved grid or through itself, both computed here in closed form, comes back."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from braggshot.crystal_frame import StrainConfig, strain_map
from braggshot.crystal_frame.corrections import path_length, remove_refraction, straighten
from braggshot.errors import ConfigError, GeometryError
from braggshot.physics.geometry import curvature, direct_basis, reciprocal_basis, scattering_vector, wavelength
from braggshot.pipeline import Settings, drain, finish_result
from braggshot.volumes import Circle, DiffractionVolume, Geometry, Quality, Reconstruction, Window

SHAPE = (20, 24, 22)
WINDOW = Window((0, 0, 0), (1, 1, 1), SHAPE)


def measured(distance, pixel=55e-6, step=0.01):
    """Frames of a small detector at `distance` [m]; the peak is near the centre voxel."""
    eta = 0.3 + step * (np.arange(SHAPE[0]) - SHAPE[0] // 2)
    sample = (Circle("x-", eta), Circle("y-", 0.4))
    return Geometry(1.44e-15, distance, (pixel, pixel), sample, (Circle("x-", 0.6),), direct_beam=(12.0, 11.0))


def crystal(geometry, rho, support):
    basis, q = reciprocal_basis(geometry, WINDOW, SHAPE)
    volume = DiffractionVolume(np.ones(SHAPE, np.float32), np.ones(SHAPE, bool), "ball", WINDOW, basis, q, geometry=geometry)
    return Reconstruction(rho.astype(np.complex64), support, volume, Quality(0, 0, 0, 0), basis=direct_basis(basis, SHAPE))


def ball(radius=5.0):
    z, y, x = np.indices(SHAPE) - np.array(SHAPE).reshape(3, 1, 1, 1) // 2
    inside = z**2 + y**2 + x**2 < radius**2
    return inside, inside * np.exp(0.4j * (x * y / 8 + z / 3))


def seen_on_curves(geometry, rho):
    """The object that the straight transform makes of F at the true q of every pixel: a plain sum over the crystal's voxels."""
    basis, q = reciprocal_basis(geometry, WINDOW, SHAPE)
    frame, row, column = np.indices(SHAPE).reshape(3, -1)
    k = scattering_vector(geometry, frame, row, column, SHAPE[0] // 2) - q
    voxels = np.argwhere(rho != 0)
    r = (voxels - np.array(SHAPE) // 2) @ direct_basis(basis, SHAPE).T
    field = np.exp(-1j * k @ r.T) @ rho[tuple(voxels.T)]
    return np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(field.reshape(SHAPE))))


def test_a_curved_grid_is_straightened_in_the_found_field():
    geometry = measured(0.05, step=0.005)
    inside, rho = ball()
    wide = ndimage.binary_dilation(inside, iterations=2)
    bent = crystal(geometry, wide * seen_on_curves(geometry, rho), wide)
    straight, said = straighten(bent, correct=True)
    before, after = (np.linalg.norm((each.rho - rho)[inside]) / np.linalg.norm(rho[inside]) for each in (bent, straight))
    assert before > 0.03
    assert after < 0.3 * before
    assert "corrected" in said["curvature"]
    result = drain(finish_result(bent, Settings(strain=StrainConfig(facets=False)), {}))
    assert result.strain.choices["curvature"] in result.volume.provenance["noticed"]
    assert result.rho is bent.rho
    kept, said = straighten(bent, correct=False)
    assert kept is bent
    assert "not corrected" in said["curvature"]


def test_places_on_the_curved_grid_have_the_scattering_vectors_of_the_straight_one():
    geometry = measured(0.01, step=0.011)
    basis, q = reciprocal_basis(geometry, WINDOW, SHAPE)
    offset = np.array([6.0, -9.0, 8.0])
    moved = np.polynomial.polynomial.polyval3d(*(2 * offset / SHAPE), curvature(geometry, WINDOW, SHAPE))
    place = np.array(SHAPE) // 2 + offset + moved
    assert np.abs(moved).max() > 0.1
    found = np.linalg.solve(basis, scattering_vector(geometry, *place, SHAPE[0] // 2) - q)
    np.testing.assert_allclose(found, offset, atol=0.02)


def test_angles_that_do_not_fit_the_counts_leave_the_grid_unchecked():
    inside, rho = ball()
    usual = crystal(measured(0.6, step=2e-4), rho, inside)
    other = replace(usual.volume, window=replace(WINDOW, raw_shape=(30, 24, 22)))
    assert "not checked" in straighten(replace(usual, volume=other), correct=True)[1]["curvature"]


def test_a_usual_window_is_left_alone():
    inside, rho = ball()
    usual = crystal(measured(0.6, step=2e-4), rho, inside)
    same, said = straighten(usual, correct=True)
    assert same is usual
    assert not said


@pytest.mark.parametrize("towards", [(1.0, 0.0, 0.0), (-0.3, 0.8, 0.5)])
def test_paths_out_of_a_ball(towards):
    """From r along t the path out of a ball of radius R is -r.t + sqrt((r.t)^2 + R^2 - r^2)."""
    basis = np.array([[12.6, 0.0, -3.2], [3.3, -10.0, 0.5], [7.9, 0.0, 9.5]]) * 1e-9
    r = np.tensordot(basis, np.indices((40, 40, 40)) - 20, axes=1)
    radius = 110e-9
    inside = np.linalg.norm(r, axis=0) < radius
    unit = np.array(towards) / np.linalg.norm(towards)
    along = np.tensordot(unit, r, axes=1)
    expected = -along + np.sqrt(np.maximum(along**2 + radius**2 - np.sum(r**2, axis=0), 0))
    found = path_length(inside, inside, basis, unit)
    assert np.std((found - expected)[inside]) < 5e-9  # half a voxel
    assert np.abs((found - expected)[inside]).max() < 20e-9  # where the path grazes the surface
    assert np.mean((found - expected)[inside]) == pytest.approx(0, abs=1e-9)
    assert not found[~inside].any()


def test_refraction_and_absorption_of_a_crystal_are_taken_off():
    """A ball seen through itself: phase and amplitude by the closed form of both paths."""
    geometry = measured(0.6, step=2e-4)
    inside, rho = ball(6.0)
    _, q = reciprocal_basis(geometry, WINDOW, SHAPE)
    wave = 2 * np.pi / wavelength(geometry.energy)
    clean = crystal(geometry, rho, inside)
    beams = np.array([wave, 0, 0]), np.array([wave, 0, 0]) + q
    length = path_length(inside, inside, clean.basis, -beams[0]) + path_length(inside, inside, clean.basis, beams[1])
    delta, beta = 0.8 / wave / length.max(), 0.1 / wave / length.max()
    seen = replace(clean, rho=(rho * np.exp(-wave * (1j * delta + beta) * length)).astype(np.complex64))
    found, said = remove_refraction(seen, (delta, beta))
    np.testing.assert_allclose(found.rho, clean.rho, atol=1e-5)
    assert "0.80 rad" in said["refraction"]
    assert "twin" in said["refraction"]
    assert "taken off" in strain_map(seen, StrainConfig(refraction=(delta, beta), facets=False)).choices["refraction"]
    assert "left in" in strain_map(seen, StrainConfig(facets=False)).choices["refraction"]


def test_what_cannot_be_corrected_says_why():
    inside, rho = ball()
    without = crystal(measured(0.6), rho, inside)
    with pytest.raises(GeometryError, match="energy, angles"):
        remove_refraction(replace(without, volume=replace(without.volume, geometry=None)), (1e-5, 1e-6))
    with pytest.raises(ConfigError, match="delta and beta"):
        StrainConfig(refraction=(4.0, 0.1))
