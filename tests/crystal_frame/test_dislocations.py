"""Dislocations of a crystal: trusted lines in nm, with G . b, whatever the grid, the ramp and the noise around the crystal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from braggshot.crystal_frame import StrainConfig, strain_map
from braggshot.crystal_frame.dislocations import dislocations
from braggshot.volumes import DiffractionVolume, Quality, Reconstruction

SHAPE = (48, 44, 46)
# Skewed edges of voxels, components (z, y, x); the determinant is positive, as of a grid along z, y and x.
SKEWED = 1e-8 * np.array([[1.0, 0.1, 0.0], [0.3, 0.9, 0.2], [0.0, -0.25, 1.1]])
EYE = np.eye(3)


def positions(basis: np.ndarray) -> np.ndarray:
    index = np.indices(SHAPE) - np.reshape([n // 2 for n in SHAPE], (3, 1, 1, 1))
    return np.tensordot(basis, index, axes=1)


def screw(basis: np.ndarray, turns: int = 1, away: float = 2e-8) -> tuple[np.ndarray, np.ndarray]:
    """Ball with a line along z at y = 0, x = `away`, around which -G . b / 2 pi by the right hand is -`turns`; its support."""
    z, y, x = positions(basis)
    inside = z**2 + y**2 + x**2 < (1.2e-7) ** 2
    # By the right hand about +z the angle grows from x to y, and the phase is -G . u.
    phase = -turns * np.arctan2(y, x - away)
    core = np.tanh(np.hypot(y, x - away) / 1.2e-8) ** abs(turns)
    rho = np.where(inside, core * np.exp(1j * phase), 0)
    soft = [ndimage.gaussian_filter(part, 0.6) for part in (rho.real, rho.imag)]
    return soft[0] + 1j * soft[1], ndimage.binary_dilation(inside)


def crystal(rho: np.ndarray, support: np.ndarray, basis: np.ndarray, **changes) -> Reconstruction:
    counts = np.ones(rho.shape, np.float32)
    volume = DiffractionVolume(counts, counts > 0, name="line", q_bragg=np.array([0.0, 3e10, 0.0]))
    rho = np.where(support, rho, 0).astype(np.complex64)
    made = Reconstruction(rho, support, volume, Quality(0.0, 0.0, 0.0, 0.0), basis=basis, verdict="good")
    return replace(made, **changes)


@pytest.mark.parametrize("basis", [1e-8 * EYE, SKEWED, SKEWED[:, [1, 0, 2]]], ids=["straight", "skewed", "other hand"])
@pytest.mark.parametrize("turns", [1, -1, 2])
def test_line_and_direction_on_any_grid(basis, turns):
    rho, support = screw(basis, turns)
    (line,) = dislocations(crystal(rho, support, basis), EYE)
    assert line.winding == abs(turns)
    assert line.confidence > 0.95
    assert not line.is_closed
    assert np.abs(line.points[:, 1:] - [0, 2e-8]).max() < 0.5e-8
    assert line.length == pytest.approx(2 * np.sqrt(1.2e-7**2 - 2e-8**2), abs=4e-8)  # it ends up to two voxels below the surface
    assert np.sign(line.points[-1, 0] - line.points[0, 0]) == np.sign(turns)


def test_a_ramp_changes_nothing():
    rho, support = screw(SKEWED)
    (before,) = dislocations(crystal(rho, support, SKEWED), EYE)
    z, y, x = np.indices(SHAPE)
    (after,) = dislocations(crystal(rho * np.exp(1j * (2.9 * z - 2.7 * y + 2.5 * x)), support, SKEWED), EYE)
    assert after.winding == before.winding
    assert np.abs(after.points - before.points).max() < 1e-9


def test_points_are_turned_into_the_frame():
    rho, support = screw(SKEWED)
    turn = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
    (before,), (after,) = (dislocations(crystal(rho, support, SKEWED), rotation) for rotation in (EYE, turn))
    assert np.allclose(after.points, before.points @ turn.T)


def test_no_line_in_a_failed_result():
    rho, support = screw(SKEWED)
    assert dislocations(crystal(rho, support, SKEWED, verdict="failed"), EYE) == ()


def test_noise_around_a_smooth_crystal_is_no_line():
    random = np.random.default_rng(1)
    z, y, x = positions(SKEWED)
    inside = z**2 + y**2 + x**2 < (1.2e-7) ** 2
    smooth = np.where(inside, np.exp(3j * np.cos(z / 6e-8 + y / 9e-8)), 0)
    noise = random.normal(size=SHAPE) + 1j * random.normal(size=SHAPE)
    wide = ndimage.binary_dilation(inside, iterations=4)
    assert dislocations(crystal(smooth + 0.1 * noise, wide, SKEWED), EYE) == ()


def test_a_line_that_the_other_starts_do_not_have_is_not_trusted():
    from braggshot.volumes import Uncertainty

    rho, support = screw(SKEWED)
    off = np.angle(rho)[support]
    scale = np.sqrt(2.0)  # of three solutions
    deviations = np.stack([-off / scale, -off / scale])
    spread = Uncertainty(np.zeros(SHAPE), None, 3, "starts", deviations=deviations)
    assert dislocations(crystal(rho, support, SKEWED, uncertainty=spread), EYE) == ()


def test_the_strain_map_holds_the_line_where_it_lies():
    rho, support = screw(1e-8 * EYE)
    found = strain_map(crystal(rho, support, 1e-8 * EYE), StrainConfig(frame="lab", facets=False))
    (line,) = found.lines
    places = np.rint(line.points / 1e-8).astype(int) + np.array(found.support.shape) // 2
    assert found.dislocation[tuple(places[3:-3].T)].mean() > 0.9
