r"""Find the Burgers vectors of dislocations from the turns of several reflections' phases around one line.

.. math:: n_j = \frac{G_j \cdot b}{2\pi} = h_j u + k_j v + l_j w, \qquad b = u\,a + v\,b + w\,c

n_j is a whole number for each reflection, 0 where it does not see the line, and (h_j, k_j, l_j) are its Miller indices. So [u v w]
follows by least squares from three reflections that lie in no plane. It is a lattice vector, or a part of one where a stacking
fault ends: the shortest of the usual ones that explains most of the turns is taken, and how many it explains is said.

The angle between b and the line tells the character: 0 for screw, 90 degrees for edge. All phases together are known up to the
twin of the crystal, and so b up to its sign against the line's direction.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from braggshot.crystal_frame.dislocations import body_of, trusted_curves
from braggshot.display import Described
from braggshot.physics import lines
from braggshot.physics.lattice import Lattice
from braggshot.physics.lines import Curve
from braggshot.reflections.combine import Common
from braggshot.reflections.orientation import Hkl, lattice_vectors
from braggshot.volumes import BoolArray, FloatArray

_CRYSTAL = 0.2  # share of the bulk's amplitude from which a voxel belongs to a single crystal [1]
_SAME = 3.0  # distance within which two reflections see one line [voxels]
_LARGEST = 2  # longest candidate [cell edges], and the parts of an edge of which candidates are made
_PARTS = (1, 2, 3, 6)
_SCREW, _EDGE = np.radians(15.0), np.radians(75.0)  # a line is called screw below the first angle, edge above the second


@dataclass(frozen=True, repr=False)
class Slip(Described):
    """A dislocation that several reflections saw, or did not see.

    Parameters
    ----------
    points : (n, 3) along the line, from the middle of the tensor's grid, components (z, y, x) of its axes [m]
    is_closed : True for a loop
    turns, agreed : G . b of each reflection [1]; share of the paths around the line that agree on it [1]
    indices : [u v w] of the Burgers vector, parts of the cell's edges; None if the reflections leave it open
    vector : Burgers vector along the tensor's axes [m]; None likewise
    explained : number of the turns that the vector explains
    """

    points: FloatArray
    is_closed: bool
    turns: tuple[int, ...]
    agreed: tuple[float, ...]
    indices: tuple[Fraction, ...] | None = None
    vector: FloatArray | None = None
    explained: int = 0

    @property
    def length(self) -> float:
        """Length [m]."""
        return float(np.linalg.norm(np.diff(self.points, axis=0), axis=1).sum())

    @property
    def angles(self) -> NDArray[np.float64] | None:
        """Angles (n,) between the Burgers vector and the line, 0 to pi / 2 [rad]; None without the vector."""
        if self.vector is None or not np.linalg.norm(self.vector) > 0:
            return None
        along = lines.tangents(self.points, self.is_closed)
        return np.asarray(np.arccos(np.clip(np.abs(along @ self.vector) / np.linalg.norm(self.vector), 0, 1)))

    @property
    def character(self) -> str:
        """Say in a word what the line is: screw, edge or mixed; a loop can be all of them."""
        if self.angles is None:
            return "of unknown character"
        low, high = np.percentile(self.angles, (10, 90))
        if high - low > _EDGE - _SCREW:
            return "of every character"
        middle = float(np.median(self.angles))
        return "screw" if middle < _SCREW else "edge" if middle > _EDGE else f"mixed, {np.degrees(middle):.0f}°"


def slips(common: Common, usable: Sequence[bool], hkls: Sequence[Hkl], cell: Lattice) -> tuple[Slip, ...]:
    """Find the lines that any usable reflection sees, the longest first, and their Burgers vectors where three tell them.

    Parameters
    ----------
    common : fields on one grid along the crystal's axes, without ramps, in one choice of twins
    usable : which of them were found by themselves; the phases of the others are not looked at
    hkls, cell : Miller indices of each, and the unit cell
    """
    chosen = np.flatnonzero(usable)
    fields, basis = common.fields[chosen], common.voxel * np.eye(3)
    seen: list[Curve] = []
    for field in fields:
        support = _largest(np.abs(field) > _CRYSTAL)
        if support.any():
            curves = [curve for curve, _ in trusted_curves(field, body_of(np.abs(field), support), basis)]
            seen += [curve for curve in curves if not any(_is_same(curve, other) for other in seen)]
    trusted = np.asarray((np.abs(fields) > _CRYSTAL).all(axis=0))
    planes = np.array(hkls)[chosen]
    found = [_solve(_turns_around(curve, np.angle(fields), trusted, common.voxel), planes, cell) for curve in seen]
    return tuple(sorted(found, key=lambda one: -one.length))


def _largest(inside: BoolArray) -> BoolArray:
    labels, count = ndimage.label(inside)
    sizes = ndimage.sum_labels(inside, labels, range(1, count + 1))
    return labels == 1 + int(np.argmax(sizes)) if count else inside


def _is_same(curve: Curve, other: Curve) -> bool:
    """Tell whether most of a curve runs along another one."""
    apart = np.linalg.norm(curve.points[:, None] - other.points[None], axis=2).min(axis=1)
    return float((apart < _SAME).mean()) > 0.5


def _turns_around(curve: Curve, phases: FloatArray, trusted: BoolArray, voxel: float) -> Slip:
    """Count the turns of all phases (n, z, y, x) around a curve.

    On a grid along (z, y, x), which is left-handed, a winding of the indices is G . b (`crystal_frame.dislocations`).
    """
    rings = lines.wind_around(phases, trusted, curve, (1, 2, 3))
    turns, agreed = [], []
    for windings in rings.windings:
        values, counts = np.unique(windings[rings.whole], return_counts=True)
        turns.append(int(values[counts.argmax()]) if values.size else 0)
        agreed.append(float(counts.max() / counts.sum()) if values.size else 0.0)
    points = (lines.smoothed(curve.points, curve.is_closed) - np.array(trusted.shape) // 2) * voxel
    return Slip(points, curve.is_closed, tuple(turns), tuple(agreed))


def _solve(slip: Slip, planes: NDArray[np.int_], cell: Lattice) -> Slip:
    """Find the Burgers vector of a line from its turns; leave it open if the reflections lie in a plane, or see nothing."""
    if np.linalg.matrix_rank(planes) < 3 or not any(slip.turns):
        return slip
    indices, explained = burgers(planes, slip.turns, slip.agreed, cell)
    vector = np.array([float(part) for part in indices]) @ edges_of(cell)
    return replace(slip, indices=indices, vector=vector, explained=explained)


def edges_of(cell: Lattice) -> NDArray[np.float64]:
    """Return the edges a, b and c of a cell in rows, along the crystal's axes, components (z, y, x) [m]."""
    return np.asarray(2 * np.pi * np.linalg.inv(lattice_vectors([(1, 0, 0), (0, 1, 0), (0, 0, 1)], cell)).T)


def burgers(
    planes: NDArray[np.int_], turns: Sequence[int], agreed: Sequence[float], cell: Lattice
) -> tuple[tuple[Fraction, ...], int]:  # fmt: skip
    """Find [u v w] with h u + k v + l w = n for the reflections; return it, and how many turns n it explains.

    The solution by least squares is taken where it explains all turns and is made of halves, thirds or sixths. Else the candidate
    is taken that explains most of them, each turn weighted by how well it is known, and of equal ones the shortest.

    Parameters
    ----------
    planes, turns, agreed : (n, 3) Miller indices, whole numbers G . b, and how well these are known [1]
    cell : the unit cell
    """
    wanted, weight = np.asarray(turns), np.asarray(agreed)
    solved = np.linalg.lstsq(planes, wanted, rcond=None)[0]
    rounded = np.rint(6 * solved) / 6
    if np.abs(6 * solved - 6 * rounded).max() < 1e-6 and np.allclose(planes @ rounded, wanted):
        best = rounded
    else:
        steps = sorted({Fraction(k, part) for part in _PARTS for k in range(-_LARGEST * part, _LARGEST * part + 1)})
        near = [[step for step in steps if abs(float(step) - middle) < 1.01] for middle in solved]
        tried = np.array([[float(part) for part in one] for one in itertools.product(*near)])
        hits = (np.abs(tried @ planes.T - wanted) < 1e-6) @ weight
        lengths = np.linalg.norm(tried @ edges_of(cell), axis=1)
        best = tried[np.lexsort((lengths, -np.round(hits, 9)))[0]]
    explained = int((np.abs(planes @ best - wanted) < 1e-6).sum())
    return tuple(Fraction(float(part)).limit_denominator(6) for part in best), explained


def name_of(indices: Sequence[Fraction]) -> str:
    """Write a Burgers vector as a crystallographer does: 1/2 [1 -1 0]."""
    common = int(np.lcm.reduce([part.denominator for part in indices]))
    whole = [int(part * common) for part in indices]
    factor = int(np.gcd.reduce(np.abs(whole))) or 1
    before = Fraction(factor, common)
    return f"{'' if before == 1 else f'{before} '}[{' '.join(str(value // factor) for value in whole)}]"


def sentence(slip: Slip) -> str:
    """Say in a line what a dislocation is: its length, Burgers vector, character, and how many reflections agree."""
    kind = "loop" if slip.is_closed else "line"
    said = f"dislocation {kind} of {slip.length * 1e9:.3g} nm, G·b = {', '.join(map(str, slip.turns))}"
    if slip.indices is None:
        return f"{said}; its Burgers vector needs three reflections that lie in no plane"
    return f"{said}: b = {name_of(slip.indices)}, {slip.character}; explains {slip.explained} of {len(slip.turns)}"
