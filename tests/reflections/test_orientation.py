"""A crystal is oriented by its q's: the rotation is proper, in the right axes, and a scan that does not belong is named."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from braggshot.errors import DataError, GeometryError
from braggshot.physics.lattice import Lattice, cubic, operations
from braggshot.reflections.orientation import lattice_vectors, orient

GOLD = cubic(4.078e-10)
TRICLINIC = Lattice((4.1e-10, 5.3e-10, 6.2e-10), (np.radians(82), np.radians(97), np.radians(105)))
MONOCLINIC = Lattice((5.1505e-10, 5.2116e-10, 5.3173e-10), (np.pi / 2, np.radians(99.23), np.pi / 2))
ORTHORHOMBIC = Lattice((4.4e-10, 5.1e-10, 6.3e-10))
HEXAGONAL = Lattice((3.2495e-10, 3.2495e-10, 5.2069e-10), (np.pi / 2, np.pi / 2, np.radians(120)))
CELLS = [GOLD, HEXAGONAL, ORTHORHOMBIC, MONOCLINIC, TRICLINIC]
HKLS = ((1, 1, 1), (-1, 1, 1), (1, -1, 1), (2, 0, 0))
NAMES = ("a", "b", "c", "d")


def turn(seed):
    """Return a random rotation with components (z, y, x)."""
    return Rotation.random(random_state=seed).as_matrix()[::-1, ::-1]


def test_the_axes_of_a_cubic_crystal_are_c_b_a():
    assert np.allclose(lattice_vectors([(1, 0, 0)], GOLD)[0] * 4.078e-10 / (2 * np.pi), [0, 0, 1])
    assert np.allclose(lattice_vectors([(0, 0, 1)], GOLD)[0] * 4.078e-10 / (2 * np.pi), [1, 0, 0])


@pytest.mark.parametrize("cell", [GOLD, TRICLINIC], ids=["cubic", "triclinic"])
def test_the_rotation_comes_back(cell):
    u = turn(1)
    found = orient(lattice_vectors(HKLS, cell) @ u.T, HKLS, cell, NAMES)
    assert np.allclose(found.rotation, u)
    assert found.angles.max() < 1e-6
    assert np.isclose(np.linalg.det(found.rotation), 1)


@pytest.mark.parametrize("first", [(1, 1, 1), (-1, -1, -1), (-2, 0, 1), (1, 2, 3), (1, 3, 2)], ids=str)
@pytest.mark.parametrize("cell", CELLS, ids=["cubic", "hexagonal", "orthorhombic", "monoclinic", "triclinic"])
def test_hkl_are_found_but_for_the_symmetry(cell, first):
    """Also with the hands right: a mirrored set has the same angles between pairs, and no proper rotation.

    Rotations of the lattice do not reach every plane of a family: not (3 1 2) from (3 2 1) of a cubic one, not -h from h of a
    triclinic one.
    """
    hkls = (first, *HKLS[1:])
    qs = lattice_vectors(hkls, cell) @ turn(2).T
    found = orient(qs, None, cell, NAMES)
    turns = [m for m in operations(cell) if np.linalg.det(m) > 0]
    assert any(np.array_equal(np.array(hkls) @ m.T, np.array(found.hkls)) for m in turns)
    assert np.allclose(lattice_vectors(found.hkls, cell) @ found.rotation.T, qs, rtol=1e-6)


def test_the_edge_of_a_cubic_cell_follows_from_hkl():
    found = orient(lattice_vectors(HKLS, GOLD) @ turn(3).T, HKLS, None, NAMES)
    assert np.isclose(found.cell.edges[0], 4.078e-10)


@pytest.mark.parametrize(
    ("hkls", "text"),
    [
        (((1, 1, 1), (1, 1, 1), (2, 0, 0)), "a and b are both 1 1 1"),
        (((1, 1, 1), (2, 2, 2), (2, 0, 0)), "a and b lie along one line"),
        (((1, 1, 1), (-1, 1, 1), (2, 0, 0)), "lie in a plane"),
        (((1, 1, 1),), "two reflections"),
    ],
)
def test_sets_that_give_no_tensor_are_refused(hkls, text):
    with pytest.raises(GeometryError, match=text):
        orient(lattice_vectors(hkls, GOLD), hkls, GOLD, NAMES[: len(hkls)])


def test_another_grain_is_named():
    qs = lattice_vectors(HKLS, GOLD) @ turn(4).T
    qs[2] = turn(5) @ qs[2]
    with pytest.raises(DataError, match=r"^c: q does not fit 1 -1 1"):
        orient(qs, HKLS, GOLD, NAMES)


def test_a_wrong_hkl_or_cell_is_named():
    qs = lattice_vectors(HKLS, GOLD)
    with pytest.raises(DataError, match=r"d: .q. is 0.7.* times that of 2 2 0"):
        orient(qs, (*HKLS[:3], (2, 2, 0)), GOLD, NAMES)
    with pytest.raises(DataError, match=r"a: .q. = .* is that of no reflection"):
        orient(qs * 1.2, None, GOLD, NAMES)
    with pytest.raises(GeometryError, match="edge of the unit cell is needed"):
        orient(qs, None, None, NAMES)
    with pytest.raises(GeometryError, match="found 3 hkl for 4 scans"):
        orient(qs, HKLS[:3], GOLD, NAMES)
