"""Lines around which the phase turns: whole curves, on any grid, and none where the phase only wraps."""

from __future__ import annotations

import numpy as np
import pytest

from braggshot.physics import lines

SHAPE = (20, 22, 24)
EVERYWHERE = np.ones(SHAPE, bool)


def vortex(turns: int = 1, centre: tuple[float, float] = (9.3, 11.6), axis: int = 0) -> np.ndarray:
    """Field whose phase turns about a straight line along an axis, in the handedness of the indices; zero on the line."""
    index = np.indices(SHAPE).astype(float)
    a, b = (index[(axis + k) % 3] - centre[k - 1] for k in (1, 2))
    return (a + 1j * np.sign(turns) * b) ** abs(turns) / (1 + np.hypot(a, b)) ** abs(turns)


def ring_of(radius: float = 6.0) -> np.ndarray:
    """Field whose phase turns about a circle in the plane normal to axis 0."""
    z, y, x = np.indices(SHAPE) - np.array([9.7, 10.6, 11.7]).reshape(3, 1, 1, 1)
    return (np.hypot(y, x) - radius) + 1j * z


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_straight_line_is_found_between_the_voxels(axis):
    (found,) = lines.find_curves(vortex(axis=axis), EVERYWHERE)
    across = found.points[:, [(axis + 1) % 3, (axis + 2) % 3]]
    assert not found.is_closed
    assert len(found.points) == SHAPE[axis]
    assert np.abs(across - [9.3, 11.6]).max() < 0.05


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("turns", [1, -1])
def test_the_direction_follows_the_sign_of_the_phase(axis, turns):
    (found,) = lines.find_curves(vortex(turns, axis=axis), EVERYWHERE)
    assert np.sign(found.points[-1] - found.points[0])[axis] == turns
    rings = lines.wind_around(np.angle(vortex(turns, axis=axis))[None], EVERYWHERE, found, (1, 2, 3))
    assert (rings.windings[:, rings.whole] == 1).all()
    assert rings.whole.all()


def test_a_loop_stays_closed_when_smoothed():
    (found,) = lines.find_curves(ring_of(), EVERYWHERE)
    smooth = lines.smoothed(found.points, found.is_closed)
    radius = np.hypot(*(smooth - [9.7, 10.6, 11.7])[:, 1:].T)
    assert found.is_closed
    assert np.array_equal(smooth[0], smooth[-1])
    assert np.abs(radius - 6).max() < 0.35
    assert np.abs(smooth[:, 0] - 9.7).max() < 0.05


def test_an_open_line_keeps_its_ends_and_its_length():
    points = np.column_stack([np.arange(15.0), 0.3 * (-1.0) ** np.arange(15), np.zeros(15)])
    smooth = lines.smoothed(points, False)
    assert np.allclose(smooth[[0, -1]], points[[0, -1]])
    assert np.abs(smooth[2:-2, 1]).max() < 0.1


def test_a_smooth_field_that_wraps_many_times_has_no_line():
    z, y, x = np.indices(SHAPE) / np.reshape(SHAPE, (3, 1, 1, 1))
    phase = 8 * np.pi * (np.cos(2.5 * z) * y + x**2)  # largest step 2.6 rad
    steps = [np.abs(np.diff(phase, axis=axis)).max() for axis in range(3)]
    assert max(steps) < np.pi
    assert np.ptp(phase) > 8 * np.pi
    assert lines.find_curves(np.exp(1j * phase), EVERYWHERE) == []


def test_two_turns_split_by_noise_are_joined_again():
    split = vortex(centre=(9.3, 11.0)) * vortex(centre=(9.3, 12.6))
    apart = lines.find_curves(split, EVERYWHERE)
    (joined,) = lines.join_parallel(apart, 3.0)
    assert len(apart) == 2
    assert joined.winding == 2
    assert np.abs(joined.points[:, 1:] - [9.3, 11.8]).max() < 0.1
    rings = lines.wind_around(np.angle(split)[None], EVERYWHERE, joined, (2, 3))
    assert (rings.windings[:, rings.whole] == 2).all()


def test_opposite_lines_are_not_joined():
    pair = vortex(1, (9.3, 10.0)) * vortex(-1, (9.3, 12.0))
    found = lines.join_parallel(lines.find_curves(pair, EVERYWHERE), 3.0)
    assert [one.winding for one in found] == [1, 1]


def test_nothing_is_found_outside_the_region():
    region = np.zeros(SHAPE, bool)
    region[:, :, 14:] = True
    assert lines.find_curves(vortex(), region) == []
