r"""Index the reflections of one crystal and orient it: find hkl and the rotation U from the crystal's axes to the sample's.

.. math:: q_j = U\, B\, h_j, \quad B = 2\pi\,(a^*, b^*, c^*), \quad U = \arg\min \sum_j \left|\hat q_j - U \widehat{B h_j}\right|^2

q_j is the scattering vector with all sample circles at zero, h_j its Miller indices. U is a proper rotation (Kabsch, Acta Cryst.
A 32, 922 (1976)). The crystal's axes list their components as (z, y, x), too: x along a*, y in the plane of a* and b*
(`braggshot.physics.lattice`); of a cubic crystal these are c, b and a.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from braggshot.errors import DataError, GeometryError
from braggshot.physics import lattice
from braggshot.physics.lattice import Lattice
from braggshot.volumes import FloatArray

Hkl = tuple[int, int, int]
ANGLE = np.radians(1.0)  # largest angle between a measured q and that of the oriented lattice [rad]
LENGTH = 0.03  # largest difference of |q| from that of the lattice [1]
FLAT = 0.1  # least size of a set of unit vectors across their plane, or of two across their line; below, they lie in it [1]
_TIE = np.radians(0.05)  # solutions whose worst angles differ by less are told apart by nothing [rad]
_LARGEST = 20  # largest Miller index that is tried
_TRIED = 20_000  # largest number of assignments that are compared


@dataclass(frozen=True)
class Orientation:
    """Reflections of a crystal and its orientation.

    Parameters
    ----------
    hkls : Miller indices of each reflection
    cell : the unit cell
    rotation : (3, 3), from the crystal's axes to those of the sample
    angles : angle between each measured q and that of the oriented lattice [rad]
    rivals : number of other assignments, not related by symmetry, that fit as well; None where hkl was given
    """

    hkls: tuple[Hkl, ...]
    cell: Lattice
    rotation: FloatArray
    angles: FloatArray
    rivals: int | None = None


def lattice_vectors(hkls: Sequence[Hkl], cell: Lattice) -> NDArray[np.float64]:
    """Compute the scattering vectors B h (n, 3) along the crystal's axes, components (z, y, x) [1/m]."""
    planes = np.asarray(hkls, dtype=float)
    return np.asarray(2 * np.pi * lattice.normals(planes, cell)[:, ::-1] / lattice.spacing(planes, cell)[:, None])


def rotate_onto(vectors: FloatArray, targets: FloatArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find the proper rotation that turns directions (n, 3) onto others; return it, and the angles that remain (n,) [rad]."""
    start, end = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (vectors, targets))
    left, _, right = np.linalg.svd(end.T @ start)
    turn = left @ np.diag([1.0, 1.0, np.linalg.det(left @ right)]) @ right
    moved = start @ turn.T
    return turn, np.arctan2(np.linalg.norm(np.cross(moved, end), axis=1), (moved * end).sum(axis=1))


def orient(qs: FloatArray, hkls: Sequence[Hkl] | None, cell: Lattice | None, names: Sequence[str]) -> Orientation:
    """Orient a crystal by its scattering vectors; find hkl where none are given.

    Parameters
    ----------
    qs : (n, 3) scattering vectors with all sample circles at zero [1/m]
    hkls : Miller indices of each; None finds them from |q|, the cell and the angles
    cell : unit cell; None takes a cubic one whose edge fits the |q| of the given hkl
    names : names of the scans, for errors

    Raises
    ------
    GeometryError : if there is one reflection, two are the same or along one line, or three and more lie in a plane.
    DataError : if q of a scan fits neither its hkl nor the other scans, as that of another grain.
    """
    if len(qs) < 2:
        raise GeometryError("a tensor needs two reflections of one crystal or more, found one scan.")
    if hkls is None and cell is None:
        raise GeometryError("without the reflections' hkl the edge of the unit cell is needed to find them; give one of the two.")
    if hkls is not None and len(hkls) != len(qs):
        raise GeometryError(f"found {len(hkls)} hkl for {len(qs)} scans; give one for each, in the order of the scans.")
    rivals = None
    if hkls is None:
        assert cell is not None
        hkls, rivals = index_reflections(qs, cell, names)
    elif cell is None:
        lengths = np.linalg.norm(qs, axis=1)
        cell = lattice.cubic(float(np.mean(2 * np.pi * np.linalg.norm(np.asarray(hkls, dtype=float), axis=1) / lengths)))
    expected = lattice_vectors(hkls, cell)
    _check_span(expected, hkls, names)
    _check_lengths(qs, expected, hkls, names)
    rotation, angles = rotate_onto(expected, qs)
    if angles.max() > ANGLE:
        raise DataError(_name_stranger(qs, expected, hkls, names))
    return Orientation(tuple(hkls), cell, rotation, angles, rivals)


def index_reflections(qs: FloatArray, cell: Lattice, names: Sequence[str]) -> tuple[tuple[Hkl, ...], int]:
    """Find Miller indices from |q| and the angles between the q's; return them, and how many other assignments fit as well.

    Assignments that the symmetry of the lattice makes equal count once.

    Raises
    ------
    DataError : if nothing fits, or too much.
    """
    found: dict[tuple[Hkl, ...], float] = {}
    for number, hkls in enumerate(_assignments(qs, cell, names)):
        if number == _TRIED:
            raise DataError(f"more than {_TRIED} sets of hkl fit the q's in this cell; state hkl.")
        vectors = lattice_vectors(hkls, cell)
        _, angles = rotate_onto(vectors, qs)
        off = abs(np.linalg.norm(vectors, axis=1) / np.linalg.norm(qs, axis=1) - 1)
        if angles.max() <= ANGLE:
            found[hkls] = float(angles.max() + off.max() * ANGLE / LENGTH)
    if not found:
        raise DataError("no hkl fit the lengths and angles of the q's; check the cell, or that all scans are of one grain.")
    best = min(found, key=lambda hkls: found[hkls])
    tied = {_standard(hkls, cell) for hkls, worst in found.items() if worst < found[best] + _TIE}
    return best, len(tied) - 1


def _assignments(qs: FloatArray, cell: Lattice, names: Sequence[str]) -> Iterator[tuple[Hkl, ...]]:
    """Yield sets of hkl whose lengths and angles fit; of first hkl that rotations of the lattice make equal only one is tried."""
    lengths, directions = np.linalg.norm(qs, axis=1), qs / np.linalg.norm(qs, axis=1, keepdims=True)
    edges = np.asarray(cell.edges)
    most = np.ceil((1 + LENGTH) * lengths.max() * edges / (2 * np.pi)).astype(int)
    if most.max() > _LARGEST:
        raise DataError(f"indices up to {most.max()} fit |q| in this cell, and only those up to {_LARGEST} are tried; state hkl.")
    grid = np.array([h for h in itertools.product(*(range(-m, m + 1) for m in most)) if any(h)])
    vectors = lattice_vectors([tuple(h) for h in grid], cell)
    norms = np.linalg.norm(vectors, axis=1)
    fitting = [np.flatnonzero(abs(norms / length - 1) <= LENGTH) for length in lengths]
    for name, length, candidates in zip(names, lengths, fitting, strict=True):
        if not len(candidates):
            raise DataError(f"{name}: |q| = {1e-10 * length:.4f} 1/Å is that of no reflection of this cell; check cell and energy.")
    units = vectors / norms[:, None]
    # A family holds mirror images, too, that no rotation of the lattice reaches: of these each is tried.
    turns = _rotations(cell)
    firsts = [i for i in fitting[0] if tuple(grid[i]) == max(tuple(turn @ grid[i]) for turn in turns)]

    def extend(chosen: list[int]) -> Iterator[tuple[Hkl, ...]]:
        if len(chosen) == len(qs):
            yield tuple((int(grid[i][0]), int(grid[i][1]), int(grid[i][2])) for i in chosen)
            return
        number = len(chosen)
        cosines = directions[:number] @ directions[number]
        for i in fitting[number]:
            apart = np.arccos(np.clip(units[chosen] @ units[i], -1, 1)) - np.arccos(np.clip(cosines, -1, 1))
            if abs(apart).max() <= 2 * ANGLE:
                yield from extend([*chosen, int(i)])

    for first in firsts:
        yield from extend([int(first)])


def _standard(hkls: Sequence[Hkl], cell: Lattice) -> tuple[tuple[int, ...], ...]:
    """Return the one of all sets that rotations of the lattice make equal to this one that comes last in their order."""
    planes = np.asarray(hkls)
    return max(tuple(tuple(int(value) for value in row) for row in planes @ turn.T) for turn in _rotations(cell))


def _rotations(cell: Lattice) -> list[NDArray[np.int_]]:
    """List the symmetry operations of a lattice that are rotations."""
    return [operation for operation in lattice.operations(cell) if np.linalg.det(operation) > 0]


def _check_span(vectors: FloatArray, hkls: Sequence[Hkl], names: Sequence[str]) -> None:
    """Refuse equal reflections, and scattering vectors along a line or in a plane."""
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for one, other in itertools.combinations(range(len(units)), 2):
        if tuple(hkls[one]) == tuple(hkls[other]):
            raise GeometryError(
                f"{names[one]} and {names[other]} are both {_word(hkls[one])}; add repeats of one reflection first."
            )
        if np.linalg.norm(np.cross(units[one], units[other])) < FLAT:
            raise GeometryError(
                f"the scattering vectors of {names[one]} and {names[other]} lie along one line; they measure the same component."
            )
    across = np.linalg.svd(units)[1]
    if len(units) > 2 and across[-1] < FLAT:
        raise GeometryError(
            f"the {len(units)} scattering vectors lie in a plane, so the displacement across it is not measured; "
            "add a reflection out of the plane, or give two of these."
        )


def _check_lengths(qs: FloatArray, expected: FloatArray, hkls: Sequence[Hkl], names: Sequence[str]) -> None:
    ratios = np.linalg.norm(qs, axis=1) / np.linalg.norm(expected, axis=1)
    for name, hkl, ratio in zip(names, hkls, ratios, strict=True):
        if abs(ratio - 1) > LENGTH:
            raise DataError(f"{name}: |q| is {ratio:.3f} times that of {_word(hkl)} in this cell; check hkl, cell and energy.")


def _name_stranger(qs: FloatArray, expected: FloatArray, hkls: Sequence[Hkl], names: Sequence[str]) -> str:
    """Say which scan does not fit the others, if leaving it out makes the others fit."""
    worst = np.degrees(rotate_onto(expected, qs)[1].max())
    if len(qs) > 2:
        rest = []
        for out in range(len(qs)):
            kept = [j for j in range(len(qs)) if j != out]
            rest.append(float(rotate_onto(expected[kept], qs[kept])[1].max()))
        order = np.argsort(rest)
        if rest[order[0]] <= ANGLE < rest[order[1]]:
            out = int(order[0])
            hkl = _word(hkls[out])
            return f"{names[out]}: q does not fit {hkl} of the other scans' crystal; it is of another grain, or hkl is wrong."
    return f"the q's do not fit their hkl (off by up to {worst:.1f} degrees); check hkl, or that all scans are of one grain."


def _word(hkl: Sequence[int]) -> str:
    return " ".join(str(index) for index in hkl)
