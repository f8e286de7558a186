r"""Compute spacings, normals and symmetry-equivalent planes of crystal lattices of any system.

.. math:: \frac{1}{d_{hkl}^2} = h^T G^{-1} h, \qquad G_{ij} = a_i \cdot a_j

h are the Miller indices, a_i the edges of the unit cell, G is the metric tensor. Plane normals are given in Cartesian axes fixed to
the crystal (Busing & Levy, Acta Cryst. 22, 457 (1967)): the first along a*, the second in the plane of a* and b*,
the third completing a right-handed set.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from braggshot.errors import GeometryError


@dataclass(frozen=True)
class Lattice:
    """Edges (a, b, c) [m] and angles (alpha, beta, gamma) [rad] of the unit cell.

    Raises
    ------
    GeometryError : if the edges are not positive or the angles make no cell.
    """

    edges: tuple[float, float, float]
    angles: tuple[float, float, float] = (np.pi / 2, np.pi / 2, np.pi / 2)

    def __post_init__(self) -> None:
        if not min(self.edges) > 0 or not np.linalg.det(metric(self)) > 0:
            raise GeometryError(f"edges {self.edges} m and angles {np.degrees(self.angles)} degrees make no unit cell.")


def cubic(edge: float = 1.0) -> Lattice:
    """Make a cubic cell; the default edge of 1 m serves where only directions matter."""
    return Lattice((edge, edge, edge))


def metric(lattice: Lattice) -> NDArray[np.float64]:
    """Compute the metric tensor of the unit cell, (3, 3): the scalar products of the edges a, b and c with each other [m^2]."""
    alpha, beta, gamma = np.cos(lattice.angles)
    cosines = np.array([[1, gamma, beta], [gamma, 1, alpha], [beta, alpha, 1]])
    return cosines * np.outer(lattice.edges, lattice.edges)


def spacing(hkl: ArrayLike, lattice: Lattice) -> NDArray[np.float64]:
    """Compute the spacing d of the planes with Miller indices (..., 3) [m]; infinite for (0, 0, 0)."""
    planes = np.asarray(hkl, dtype=float)
    with np.errstate(divide="ignore"):
        return np.asarray(np.einsum("...i,ij,...j->...", planes, np.linalg.inv(metric(lattice)), planes) ** -0.5)


def normals(hkl: ArrayLike, lattice: Lattice) -> NDArray[np.float64]:
    """Compute the unit normals of the planes with Miller indices (..., 3), in Cartesian axes fixed to the crystal."""
    inverse = np.linalg.inv(metric(lattice))
    # Reciprocal lattice vectors h a* + k b* + l c* of the planes [1/m]; the rows of the Cholesky factor are a*, b* and c*.
    vectors = np.asarray(hkl, dtype=float) @ np.linalg.cholesky(inverse)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def family(hkl: Sequence[int], lattice: Lattice) -> NDArray[np.int_]:
    """List all planes (n, 3) that the symmetry of the cell (its holohedry) makes equivalent to hkl."""
    turns = operations(lattice)
    found = {tuple(round(value) for value in operation @ np.asarray(hkl)) for operation in turns}
    return np.array(sorted(found, reverse=True))


def operations(lattice: Lattice) -> list[NDArray[np.int_]]:
    """List the symmetry operations of the lattice: matrices of entries -1, 0, 1 that leave the reciprocal metric unchanged."""
    inverse = np.linalg.inv(metric(lattice))
    scale = np.trace(inverse)
    rows = [np.array(row) for row in itertools.product((-1, 0, 1), repeat=3) if any(row)]
    lengths = {tuple(row): row @ inverse @ row for row in rows}
    candidates = [[row for row in rows if abs(lengths[tuple(row)] - inverse[i, i]) < 1e-6 * scale] for i in range(3)]
    # Row i of the matrix is what becomes of the i-th reciprocal edge.
    found = []
    for images in itertools.product(*candidates):
        matrix = np.array(images)
        if np.allclose(matrix @ inverse @ matrix.T, inverse, rtol=0, atol=1e-6 * scale):
            found.append(matrix.T)
    return found
