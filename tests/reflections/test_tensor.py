"""Strains and rotations of known displacements: order, signs, frames."""

from __future__ import annotations

import numpy as np
import pytest

from braggshot.physics.lattice import cubic
from braggshot.reflections import tensor
from braggshot.reflections.orientation import lattice_vectors
from braggshot.reflections.run import plane_axes

SHAPE, VOXEL = (13, 12, 11), 4e-9
Z, Y, X = 0, 1, 2


@pytest.fixture
def place():
    return (np.indices(SHAPE) - np.reshape([n // 2 for n in SHAPE], (3, 1, 1, 1))) * VOXEL


@pytest.fixture
def support():
    inside = np.zeros(SHAPE, bool)
    inside[2:-2, 2:-2, 2:-2] = True
    return inside


def test_each_gradient_is_where_it_belongs(place, support):
    for a in range(3):
        for b in range(3):
            u = np.zeros((3, *SHAPE))
            u[a] = 1e-3 * place[b]
            found = tensor.gradients(u, support, VOXEL)[:, :, support]
            wanted = np.zeros((3, 3))
            wanted[a, b] = 1e-3
            assert np.allclose(found, wanted[:, :, None])


def test_the_six_strains_are_in_the_order_of_vtk():
    jacobian = np.zeros((3, 3))
    jacobian[X, X], jacobian[Y, Y], jacobian[Z, Z] = 1, 2, 3
    jacobian[X, Y], jacobian[Y, Z], jacobian[X, Z] = 8, 10, 12
    assert tensor.six_of(jacobian).tolist() == [1, 2, 3, 4, 5, 6]
    assert np.allclose(tensor.six_of(tensor.matrix_of(np.arange(1.0, 7))), np.arange(1.0, 7))


def test_a_rotation_is_right_handed_and_strains_nothing(place, support):
    """u = omega x r about z moves x towards y."""
    omega = 1e-3
    u = np.stack([np.zeros(SHAPE), omega * place[X], -omega * place[Y]])
    jacobian = tensor.gradients(u, support, VOXEL)[:, :, support]
    assert np.allclose(tensor.six_of(jacobian), 0)
    assert np.allclose(tensor.rotation_of(jacobian), np.array([0, 0, omega])[:, None])


def test_a_bent_bar_is_stretched_outside(place, support):
    """Of u_x = k x y the strain xx is k y; the mean gradient goes, the local one stays."""
    k = 1e-3 / (VOXEL * 6)
    u = np.stack([np.zeros(SHAPE), -k * place[X] ** 2 / 2, k * place[X] * place[Y]])
    found = tensor.derive(u, support, VOXEL)
    wanted = k * (place[Y] - place[Y][support].mean())
    inner = np.zeros(SHAPE, bool)
    inner[4:-4, 4:-4, 4:-4] = True
    off = (found.strain[0] - wanted)[inner]
    assert np.ptp(off) < 1e-9
    assert np.allclose(found.strain[3][inner], found.strain[3][inner][0], atol=1e-9)
    assert np.isnan(found.strain[:, ~support]).all()


def test_von_mises_and_principal_strains_of_a_pull():
    pull = np.array([1.0, -0.5, -0.5, 0, 0, 0])
    assert np.isclose(tensor.von_mises(pull), 1)
    assert np.allclose(tensor.principal(pull), [1, -0.5, -0.5])


def test_turning_keeps_the_principal_strains():
    six = np.array([1.0, 2, 3, 0.4, 0.5, 0.6])
    quarter = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # about z: x becomes the new -y... and y the new x
    turned = tensor.turned(six, quarter)
    assert np.allclose(tensor.principal(turned), tensor.principal(six))
    assert np.allclose(turned[:3], [2, 1, 3])
    assert np.isclose(turned[3], -0.4)


def test_a_larger_lattice_has_smaller_q():
    hkls = ((1, 1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1))
    cell = cubic(4e-10)
    stretched = np.diag([1, 1, 1 / 1.001])  # of q: the lattice is longer along x
    found = tensor.lattice_strain(lattice_vectors(hkls, cell) @ stretched, lattice_vectors(hkls, cell))
    assert np.allclose(found, [1e-3, 0, 0, 0, 0, 0], atol=1e-6)
    assert tensor.lattice_strain(np.eye(3)[:2], np.eye(3)[:2]) is None


def test_the_axes_of_two_reflections_are_right_handed():
    axes = plane_axes(np.array([[0.2, 1.0, 2.0], [0.5, -1.0, 1.0]]))
    assert np.isclose(np.linalg.det(axes), 1)
    along = axes @ np.array([0.2, 1.0, 2.0])
    assert np.allclose(along[:2], 0)
    assert along[X] > 0
    known = tensor.known_in_plane(np.ones((6, 2)), "strain")[:, 0]
    assert np.isnan(known).tolist() == [False, False, True, False, True, True]
    assert np.isnan(tensor.known_in_plane(np.ones((3, 2)), "rotation")[:, 0]).tolist() == [True, True, False]
    assert np.isnan(tensor.known_in_plane(np.ones((3, 2)), "displacement")[:, 0]).tolist() == [True, False, False]
