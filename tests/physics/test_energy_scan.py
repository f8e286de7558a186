"""Scattering vectors and voxel edges of a scan that steps the photon energy, against xrayutilities and the formula."""

from dataclasses import replace

import numpy as np
import pytest

from braggshot.errors import GeometryError
from braggshot.physics import geometry as g
from braggshot.volumes import Circle, Geometry, Window

N = 41
ENERGIES = (8.9 + 0.005 * np.arange(N)) * g.KEV
WINDOW, SHAPE = Window((0, 30, 40), (1, 1, 1), (N, 128, 128)), (40, 64, 72)
CENTRE = (20, 62, 76)  # voxel N // 2 of each axis in the raw scan


def by_energy(energies=ENERGIES, **changes):
    sample = tuple(Circle(axis, np.radians(angle), axis) for axis, angle in (("y+", 0.3), ("z-", 90.0), ("y+", -5.0)))
    detector = tuple(Circle(axis, np.radians(angle), axis) for axis, angle in (("y+", 32.174), ("x-", 12.6346)))
    return replace(Geometry(energies, 0.5, (55e-6, 55e-6), sample, detector, (60.3, 71.7)), **changes)


def by_hand(geometry, frame, row, column):
    """q = (2 pi / lambda) (s_f - s_i), straight from the definition; the pixels grow downwards and outboard."""
    up, out = (geometry.direct_beam[0] - row) * 55e-6, (column - geometry.direct_beam[1]) * 55e-6
    pixel = g.arm_rotation(geometry) @ np.array([0.5, up, out])
    beam = np.array([1.0, 0, 0])
    return 2 * np.pi / g.wavelength(geometry.energy[frame]) * (pixel / np.linalg.norm(pixel) - beam)


def test_each_frame_has_the_scattering_vectors_of_its_energy_in_xrayutilities():
    xu = pytest.importorskip("xrayutilities")
    geometry = by_energy()
    for frame in (0, 20, 40):
        energy = geometry.energy[frame] / g.KEV * 1e3
        conversion = xu.experiment.QConversion(["y+", "z-", "y+"], ["y+", "x-"], (0, 0, 1), en=energy)
        conversion.init_area("y-", "x+", cch1=60.3, cch2=71.7, Nch1=128, Nch2=128, distance=0.5, pwidth1=55e-6, pwidth2=55e-6)
        angles = [np.degrees(circle.angle) for circle in (*geometry.sample, *geometry.detector)]
        expected = np.stack(conversion.area(*angles)[::-1], axis=-1).squeeze() * 1e10
        found = g.scattering_vector(geometry, frame, *np.indices((128, 128))) @ g.sample_rotation(geometry, 0)
        np.testing.assert_allclose(found, expected, atol=1e-7 * np.abs(expected).max())


def test_the_energy_steps_along_q():
    geometry = by_energy()
    basis, q = g.reciprocal_basis(geometry, WINDOW, SHAPE)
    np.testing.assert_allclose(q, by_hand(geometry, *CENTRE), rtol=1e-9)
    np.testing.assert_allclose(basis[:, 0], q * 0.005 / 9.0, rtol=1e-9, atol=1e-9 * np.linalg.norm(basis[:, 0]))
    for axis, step in ((1, np.array([0, 0.5, 0])), (2, np.array([0, 0, 0.5]))):
        edge = g.scattering_vector(geometry, *(CENTRE + step)) - g.scattering_vector(geometry, *(CENTRE - step))
        np.testing.assert_allclose(basis[:, axis], edge, rtol=1e-9, atol=1e-9 * np.linalg.norm(edge))


def test_falling_energies_turn_the_energy_axis_round():
    rising, q_rising = g.reciprocal_basis(by_energy(), WINDOW, SHAPE)
    falling, q_falling = g.reciprocal_basis(by_energy(ENERGIES[::-1]), WINDOW, SHAPE)
    np.testing.assert_allclose(q_falling, q_rising, rtol=1e-9)
    np.testing.assert_allclose(falling @ np.diag([-1, 1, 1]), rising, rtol=1e-9, atol=1e-9 * np.abs(rising).max())


def test_the_sample_stands_still():
    turn = g.sample_axes(by_energy(), WINDOW, SHAPE)
    np.testing.assert_allclose(turn @ g.sample_rotation(by_energy(), 3), np.eye(3), atol=1e-12)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"energy": np.full(N, 9 * g.KEV)}, "alike"),
        ({"energy": ENERGIES[:1]}, "alike"),
        ({"sample": (Circle("y+", np.arange(N) * 1e-4, "th"),)}, "photon energy and th both move"),
        ({"detector": (Circle("y+", np.arange(N) * 1e-4, "nu"),)}, "photon energy and nu both move"),
        ({"energy": ENERGIES[:-1]}, "40 photon energies, the scan 41 frames"),
    ],
)
def test_an_energy_scan_that_cannot_be_used_says_why(change, words):
    with pytest.raises(GeometryError, match=words):
        g.reciprocal_basis(by_energy(**change), WINDOW, SHAPE)
