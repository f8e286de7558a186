"""Strain, ramp and dislocations against fields whose answer is known in closed form."""

import numpy as np
import pytest

from braggshot.errors import DataError
from braggshot.physics import strain as s

SKEWED = np.array([[12.6, 0.0, -3.2], [3.3, -10.0, 0.5], [7.9, 0.0, 9.5]]) * 1e-9
Q = np.array([-5e9, 1.8e10, 2e10])
SHAPE = (29, 34, 31)


def positions(basis=SKEWED, shape=SHAPE):
    index = np.indices(shape) - np.array(shape).reshape(3, 1, 1, 1) // 2
    return np.tensordot(basis, index, axes=1)


def ball(basis=SKEWED, shape=SHAPE, radius=90e-9):
    return np.linalg.norm(positions(basis, shape), axis=0) < radius


def field(displacement, q=Q):
    """exp(-i q . u) for u (3, z, y, x) [m]."""
    return np.exp(-1j * np.tensordot(q, displacement, axes=1))


def strain_of(rho, support, basis=SKEWED, q=Q):
    return -s.slope_along(np.where(support, rho, 0), basis, q, support, basis) / np.linalg.norm(q)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("value", [2e-3, -3e-3])
def test_uniform_strain_along_q_is_exact_on_skewed_voxels(axis, value):
    q = np.zeros(3)
    q[axis] = 2.7e10
    r, support = positions(), ball()
    found = strain_of(field(value * r, q), support, q=q)  # u = e r: strain e along any direction
    np.testing.assert_allclose(found[support], value, atol=1e-12)
    assert np.isnan(found[~support]).all()


def test_displacement_across_q_is_no_strain():
    across = np.cross(Q, [1.0, 2.0, -1.0])
    r = positions()
    u = across.reshape(3, 1, 1, 1) / np.linalg.norm(across) * np.tensordot(Q / np.linalg.norm(Q), r, axes=1) * 1e-3
    np.testing.assert_allclose(strain_of(field(u), ball())[ball()], 0, atol=1e-12)


def test_wraps_do_not_show():
    r, support = positions(), ball()
    value = 0.8 * np.pi / np.abs(Q @ SKEWED).max()  # the steepest axis turns by 0.8 pi per voxel
    phase = np.angle(field(value * r))[support]
    assert np.abs(np.diff(np.sort(phase))).max() < 0.1  # it does wrap
    np.testing.assert_allclose(strain_of(field(value * r), support)[support], value, rtol=1e-9)


def test_a_boundary_across_q_does_not_leak_into_the_strain():
    """One half strained, the boundary narrower than a voxel: differences along q see little of it, those along the axes much."""
    cubes, q = 10e-9 * np.eye(3), 1.5e10 * np.ones(3)
    r, support, inner = positions(cubes), ball(cubes), ball(cubes, radius=70e-9)
    unit, across = q / np.linalg.norm(q), np.cross(q, [1.0, 2.0, -1.0])
    share = 0.5 + 0.5 * np.tanh(np.tensordot(across / np.linalg.norm(across), r, axes=1) / 5e-9)
    rho = field(1e-3 * unit.reshape(3, 1, 1, 1) * np.tensordot(unit, r, axes=1) * share, q)
    along = strain_of(rho, support, cubes, q) - 1e-3 * share
    axes = s.strain(s.gradient(s.phase_differences(rho, support), cubes), q) - 1e-3 * share
    assert np.std(along[inner]) < 0.3 * np.std(axes[inner])


def test_the_slope_on_another_grid_is_that_of_the_field():
    """A quadratic phase measured on skewed voxels, asked for on cubes half as large: d/dq of (r . q) (r . a) there."""
    r, unit, steep = positions(), Q / np.linalg.norm(Q), np.array([3e14, -1e14, 2e14])
    rho = np.where(ball(), np.exp(1j * np.tensordot(unit, r, axes=1) * np.tensordot(steep, r, axes=1)), 0)
    cubes, shape = 6e-9 * np.eye(3), (27, 25, 29)
    place, support = positions(cubes, shape), ball(cubes, shape, 70e-9)
    expected = np.tensordot(steep + (steep @ unit) * unit, place, axes=1)
    found = s.slope_along(rho, SKEWED, Q, support, cubes)
    wrong = (found - expected)[support] / np.abs(expected[support]).max()
    assert np.abs(wrong).max() < 0.08  # at the surface
    assert np.std(wrong) < 0.01
    assert np.isnan(found[~support]).all()


def inclusion(r, radius, misfit, poisson):
    """Eshelby's sphere: u = A r inside, A (a / r)^3 r outside."""
    amplitude = misfit * (1 + poisson) / (3 * (1 - poisson))
    distance = np.linalg.norm(r, axis=0)
    return amplitude, amplitude * np.minimum(1, (radius / np.maximum(distance, 1e-30)) ** 3) * r


def test_spherical_inclusion():
    """Inside e = A, outside e = A (a / r)^3 (1 - 3 cos^2), on 4 nm voxels: 2 % of A away from the interface."""
    basis, shape, radius = 4e-9 * np.eye(3), (61, 61, 61), 40e-9
    r, support = positions(basis, shape), ball(basis, shape, 110e-9)
    amplitude, u = inclusion(r, radius, 5e-3, 0.3)
    found = strain_of(field(u), support, basis)
    distance = np.linalg.norm(r, axis=0)
    cosine = np.tensordot(Q / np.linalg.norm(Q), r, axes=1) / np.maximum(distance, 1e-30)
    outside = amplitude * (radius / np.maximum(distance, 1e-30)) ** 3 * (1 - 3 * cosine**2)
    inner, outer = distance < radius - 8e-9, (distance > radius + 8e-9) & (distance < 102e-9)
    np.testing.assert_allclose(found[inner], amplitude, rtol=0.05)
    assert np.std(found[inner]) < 0.01 * amplitude
    np.testing.assert_allclose(found[outer], outside[outer], atol=0.05 * amplitude)
    assert np.sqrt(np.mean((found - outside)[outer] ** 2)) < 0.01 * amplitude


def screw(basis, shape, burgers, line=2):
    """u along the line of a screw dislocation through r = (2, 1, 0) nm: b theta / 2 pi."""
    r = positions(basis, shape)
    first, second = (line + 1) % 3, (line + 2) % 3
    angle = np.arctan2(r[second] - 1e-9, r[first] - 2e-9)
    u = np.zeros_like(r)
    u[line] = burgers * angle / (2 * np.pi)
    return r, u


@pytest.mark.parametrize("line", [0, 1, 2])
@pytest.mark.parametrize("sign", [1, -1])
def test_screw_dislocation_strain_has_no_cut_and_its_line_is_found(line, sign):
    r"""With q = (1, 1, 1) q_0, e = (b / 2 pi)(-y' + x') q_line / |q|^2 q_0 / r^2; the cut of the angle is nowhere."""
    basis, shape = 5e-9 * np.eye(3), (30, 31, 29)
    q = np.ones(3) * 1.5e10
    r, u = screw(basis, shape, sign * 2 * np.pi / q[line], line)
    support = ball(basis, shape, 60e-9)
    rho = field(u, q)
    first, second = (line + 1) % 3, (line + 2) % 3
    x, y = r[first] - 2e-9, r[second] - 1e-9
    expected = sign * 2 * np.pi / q[line] / (2 * np.pi) * (x - y) / (x**2 + y**2) / 3
    away = support & (np.hypot(x, y) > 18e-9) & ball(basis, shape, 50e-9)
    found = strain_of(rho, support, basis, q)
    np.testing.assert_allclose(found[away], expected[away], atol=0.04 * np.abs(expected[away]).max())
    assert np.abs(found[away]).max() < 2 * np.abs(expected[away]).max()
    flagged = s.dislocations(np.angle(rho), support)
    assert flagged.any()
    assert np.hypot(x, y)[flagged].max() < 8e-9
    assert flagged.any(axis=(first, second)).sum() > 20  # all the way through
    turns = s.circulation(np.angle(rho), support)
    assert set(np.unique(turns[line])) == {0, -sign}  # phase = -q.u
    assert not turns[first].any()
    assert not turns[second].any()


def test_smooth_phase_and_a_bad_voxel_are_no_dislocation():
    support = ball()
    phase = np.angle(field(2e-3 * positions()))
    assert not s.dislocations(phase, support).any()
    phase[14, 17, 15] += 2.5
    phase[14, 17, 16] -= 2.5
    assert not s.dislocations(phase, support).any()


def test_ramp_is_removed_about_the_centre_voxel():
    support = ball()
    r = positions()
    slope = np.array([3e6, -2e7, 1.1e7])
    bump = 1.5 * np.exp(-((np.linalg.norm(r, axis=0) / 50e-9) ** 2))
    rho = np.exp(1j * (np.tensordot(slope, r, axes=1) + bump))
    turn = s.ramp(rho, support)
    np.testing.assert_allclose(s.gradient(turn, SKEWED), slope, rtol=1e-3)
    flat = s.without_ramp(rho, turn)
    middle = tuple(n // 2 for n in SHAPE)
    assert flat[middle] == pytest.approx(rho[middle])
    np.testing.assert_allclose(np.nanmean(s.phase_differences(flat, support), axis=(1, 2, 3)), 0, atol=1e-12)


def test_spacing_grows_with_strain():
    """d = d_0 (1 + e) for a stretch along q."""
    r = positions()
    slope = s.gradient(s.phase_differences(field(1e-3 * r), ball()), SKEWED)
    d_0 = 2 * np.pi / np.linalg.norm(Q)
    np.testing.assert_allclose(s.d_spacing(slope, Q)[ball()], d_0 / (1 - 1e-3), rtol=1e-9)


def test_unwrapped_phase_has_no_jumps():
    r, support = positions(), ball()
    phase = 9 * np.cos(r[0] / 60e-9) * np.sin(r[2] / 80e-9)
    found = s.unwrapped(np.angle(np.exp(1j * phase)), support)
    offset = (found - phase)[support]
    np.testing.assert_allclose(offset, offset[0], atol=1e-9)
    assert np.isnan(found[~support]).all()


def test_circular_deviation():
    random = np.random.default_rng(1)
    angles = 3 + random.normal(0, 0.2, (400, 2, 3, 4))
    np.testing.assert_allclose(s.circular_deviation(7 * np.exp(1j * angles)), 0.2, rtol=0.15)


def test_what_has_no_strain_says_why():
    empty = np.zeros(SHAPE, bool)
    plane = empty.copy()
    plane[14] = True
    with pytest.raises(DataError, match="two voxels"):
        s.ramp(np.ones(SHAPE, complex), plane)
    with pytest.raises(DataError, match="two voxels"):
        s.slope_along(plane.astype(complex), np.eye(3), np.array([1.0, 0.0, 0.0]), plane, np.eye(3))
    with pytest.raises(DataError, match="empty"):
        s.slope_along(empty.astype(complex), np.eye(3), Q, plane, np.eye(3))
