"""Lattices against textbook formulas, and their plane families."""

import numpy as np
import pytest

from braggshot.errors import GeometryError
from braggshot.physics import lattice
from braggshot.physics.lattice import Lattice

ROOT = np.sqrt


@pytest.mark.parametrize(
    ("cell", "hkl", "expected"),
    [
        (lattice.cubic(4.078e-10), (1, 1, 1), 4.078e-10 / ROOT(3)),
        (Lattice((3e-10, 3e-10, 5e-10)), (1, 0, 2), 1 / ROOT(1 / 9e-20 + 4 / 25e-20)),
        (
            Lattice((3.2e-10, 3.2e-10, 5.2e-10), (np.pi / 2, np.pi / 2, 2 * np.pi / 3)),
            (1, 1, 4),
            1 / ROOT(4 / 3 * 3 / 3.2e-10**2 + 16 / 5.2e-10**2),
        ),
        (  # monoclinic
            Lattice((4e-10, 5e-10, 6e-10), (np.pi / 2, 1.8, np.pi / 2)),
            (1, 1, -1),
            np.sin(1.8) / ROOT(1 / 16e-20 + np.sin(1.8) ** 2 / 25e-20 + 1 / 36e-20 + 2 * np.cos(1.8) / 24e-20),
        ),
    ],
)
def test_spacings(cell, hkl, expected):
    assert lattice.spacing(hkl, cell) == pytest.approx(expected, rel=1e-12)


def test_angles_between_cubic_planes():
    normals = lattice.normals([(1, 1, 1), (1, 0, 0), (-1, 1, 1), (1, 1, 0)], lattice.cubic())
    angles = np.degrees(np.arccos(np.clip(normals @ normals[0], -1, 1)))
    np.testing.assert_allclose(angles[1:], [54.7356, 70.5288, 35.2644], atol=1e-3)
    np.testing.assert_allclose(normals[1], [1, 0, 0], atol=1e-12)  # the first axis lies along a*


@pytest.mark.parametrize(
    ("cell", "hkl", "number"),
    [
        (lattice.cubic(), (1, 1, 1), 8),
        (lattice.cubic(), (1, 0, 0), 6),
        (lattice.cubic(), (3, 1, 1), 24),
        (Lattice((3e-10, 3e-10, 5e-10)), (0, 0, 1), 2),
        (Lattice((3e-10, 3e-10, 5e-10)), (1, 0, 1), 8),
        (Lattice((3e-10, 3e-10, 5e-10), (np.pi / 2, np.pi / 2, 2 * np.pi / 3)), (1, 0, 0), 6),
        (Lattice((3e-10, 3e-10, 5e-10), (np.pi / 2, np.pi / 2, 2 * np.pi / 3)), (1, 0, 1), 12),
        (Lattice((3e-10, 4e-10, 5e-10), (1.5, 1.6, 1.7)), (1, 2, 3), 2),
    ],
)
def test_families_have_the_multiplicity_of_the_system(cell, hkl, number):
    planes = lattice.family(hkl, cell)
    assert len(planes) == number
    np.testing.assert_allclose(lattice.spacing(planes, cell), lattice.spacing(hkl, cell), rtol=1e-9)


def test_no_cell():
    with pytest.raises(GeometryError, match="no unit cell"):
        Lattice((1e-10, 1e-10, 1e-10), (0.1, 1.5, 3.0))
    with pytest.raises(GeometryError, match="no unit cell"):
        Lattice((1e-10, 0.0, 1e-10))
