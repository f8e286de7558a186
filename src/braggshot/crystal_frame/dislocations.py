r"""Find the dislocations of a crystal: lines inside its trusted body around which the phase turns.

.. math:: n = \frac{G \cdot b}{2\pi} = -\frac{1}{2\pi} \oint d\varphi, \qquad \varphi = -G \cdot u, \quad b = \oint du

b is the Burgers vector, and the path goes around the line by the right hand. A line is given the direction in which n is positive;
against it, b has the other sign. n comes from squares of 3 x 3 and 5 x 5 faces around the line, where the amplitude is no longer
that of the core. A line is taken as real where these squares lie in the trusted body and agree.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from braggshot.physics import lines, strain
from braggshot.physics.iso_surface import iso_surface
from braggshot.physics.lines import Curve, Rings
from braggshot.physics.resolution import edge_width
from braggshot.volumes import BoolArray, ComplexArray, Dislocation, FloatArray, Reconstruction

# Number of voxels by which the body is widened and shrunk again: the core of a line is dark, and may be a hole in the support.
# Where a core meets the surface it is a pit: there the body is widened by the second number, but not beyond the support.
_CORE, _PIT = 3, 6
# Least amplitude of a trusted voxel around a line, over that of the surface [1]; the surface is at half the median of the bulk.
_TRUSTED = 0.5
# Least length of a line, and of its part that squares around it confirm [voxels]; noise makes rings of four faces.
_LEAST, _CONFIRMED = 5.0, 3.0
# Lines side by side are one line of more turns if they are nearer than this many widths of the surface, within limits [voxels].
_WIDTHS, _APART = 2.0, (3.0, 6.0)
# Half widths of the squares around a line, in faces: for a line of one turn, and for one of more, whose zeros lie apart.
_SQUARES = {False: (1, 2), True: (2, 3, 4)}
_BEYOND = 3.0  # how far beyond the last confirmed point a line is followed [voxels]
_AGREE = 0.75  # least share of the squares that agree [1]


@dataclass(frozen=True)
class Body:
    """Where lines are sought in a field, and where voxels around a line are trusted, both (z, y, x); width of the surface [voxels].

    The width is that over which the amplitude rises from 10 to 90 %, so lines nearer to each other cannot be told apart.
    """

    region: BoolArray
    trusted: BoolArray
    width: float


def dislocations(found: Reconstruction, rotation: FloatArray) -> tuple[Dislocation, ...]:
    """Find the lines of dislocations, the longest first; none in a result that failed.

    Parameters
    ----------
    found : crystal on its measured, skewed grid, with the edges of its voxels
    rotation : (3, 3), from the components of the grid's frame to those in which the lines are wanted
    """
    if found.verdict == "failed" or not found.support.any():
        return ()
    assert found.basis is not None
    basis = rotation @ np.asarray(found.basis)
    box = tuple(slice(max(0, part.start - 4), part.stop + 4) for part in ndimage.find_objects(found.support.astype(np.uint8))[0])
    rho, support = found.rho[box].astype(np.complex128), found.support[box]
    flat = strain.without_ramp(rho, strain.mean_turn(np.where(support, rho, 0)))
    if not _turns_anywhere(flat, support):
        return ()
    body = body_of(np.abs(rho), support)
    starts = _starts(found, support, box)
    origin = np.array(found.rho.shape) // 2 - [part.start for part in box]
    sized = [place(curve, rings, basis, origin) for curve, rings in trusted_curves(flat, body, basis, starts)]
    return tuple(sorted(sized, key=lambda line: -line.length))


def body_of(amplitude: FloatArray, support: BoolArray) -> Body:
    """Find where lines are sought, the crystal inside its surface with its dark cores, and which voxels are trusted."""
    level = iso_surface(amplitude, support).level
    inside = support & (amplitude >= level)
    closed = _closed(inside, _CORE) | (_closed(inside, _PIT) & support)
    width = edge_width(amplitude, ndimage.binary_erosion(inside), np.eye(3), level)
    return Body(closed, support & (amplitude >= _TRUSTED * level), width or 0.0)


def _turns_anywhere(rho: ComplexArray, support: BoolArray) -> bool:
    """Tell whether enough faces are pierced to look closer, which takes longer than all else in a crystal without lines."""
    inside = support & (np.abs(rho) >= iso_surface(np.abs(rho), support).level)
    return bool(np.count_nonzero(strain.circulation(np.angle(rho), _closed(inside, _CORE))) >= _CONFIRMED)


def _closed(inside: BoolArray, radius: int) -> BoolArray:
    """Fill what a round body of this radius [voxels] cannot enter; crosses and cubes in turn make one, without corners that do."""
    shapes = [ndimage.generate_binary_structure(3, 1 + 2 * (step % 2)) for step in range(radius)]
    found = np.pad(inside, radius)
    for shape in shapes:
        found = ndimage.binary_dilation(found, shape)
    for shape in shapes:
        found = ndimage.binary_erosion(found, shape)
    return np.asarray(found[(slice(radius, -radius),) * 3])


def _starts(found: Reconstruction, support: BoolArray, box: tuple[slice, ...]) -> NDArray[np.float64]:
    r"""Return the deviations of the phase of each start from that of the chosen one (starts, z, y, x) [rad]; the first is 0."""
    none = np.zeros((1, *support.shape))
    spread = found.uncertainty
    if spread is None or spread.deviations is None:
        return none
    scale = np.sqrt(max(1, spread.samples - 1))
    moved = [strain.on_grid(np.asarray(one, float) * scale, found.support)[box] for one in spread.deviations]
    return np.concatenate([none, np.stack(moved)]) if moved else none


def trusted_curves(rho: ComplexArray, body: Body, basis: FloatArray, starts: FloatArray | None = None) -> list[tuple[Curve, Rings]]:
    """Find the curves in a field without ramp that squares around them confirm, with the windings around these squares.

    Parameters
    ----------
    rho, body, basis : the field (z, y, x), where to look in it, and the edges of its voxels in columns [m]
    starts : (n, z, y, x) deviations of other solutions' phases from that of `rho` [rad]; None without any
    """
    edges = basis / abs(np.linalg.det(basis)) ** (1 / 3)  # in voxels
    phases = np.angle(rho)[None] + (np.zeros((1, 1, 1, 1)) if starts is None else starts)
    found = []
    for curve in lines.join_parallel(lines.find_curves(rho, body.region), float(np.clip(_WIDTHS * body.width, *_APART))):
        squares = _SQUARES[curve.winding > 1]
        rings = lines.wind_around(phases, body.trusted, curve, squares)
        turns = rings.windings[:, rings.whole]
        if not turns.size:
            continue
        values, counts = np.unique(turns, return_counts=True)
        winding = int(values[counts.argmax()])
        kept = _confirmed(curve, rings, winding, edges) if winding > 0 and counts.max() >= _AGREE * turns.size else None
        if kept is not None:
            found.append((replace(kept, winding=winding), lines.wind_around(phases, body.trusted, kept, squares)))
    return found


def _confirmed(curve: Curve, rings: Rings, winding: int, edges: FloatArray) -> Curve | None:
    """Cut the ends of a curve that no square confirms; None if too little is left."""
    agree = (rings.whole & (rings.windings[0] == winding)).any(axis=0)
    if not agree.any():
        return None
    path = lines.smoothed(curve.points, curve.is_closed) @ edges.T
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    confirmed = float(np.ptp(along[agree]))
    if curve.is_closed and agree.mean() > 0.5:
        kept = curve
    else:
        near = (along >= along[agree].min() - _BEYOND) & (along <= along[agree].max() + _BEYOND)
        is_whole = curve.is_closed and bool(near.all())
        kept = curve if is_whole else replace(curve, points=curve.points[near], normals=curve.normals[near], is_closed=False)
        along = along[near]
    return kept if confirmed >= _CONFIRMED and np.ptp(along) >= _LEAST else None


def place(curve: Curve, rings: Rings, basis: FloatArray, origin: FloatArray) -> Dislocation:
    """Bring a curve to metres, smoothed, and direct it so that G . b is positive.

    Parameters
    ----------
    curve, rings : fractional indices of its points; windings around them
    basis, origin : columns are the voxel edges [m], components (z, y, x); index of the point r = 0
    """
    points = (lines.smoothed(curve.points, curve.is_closed) - origin) @ basis.T
    # Components (z, y, x) of a right-handed triple have the determinant -1. A right-handed winding of the phase makes G . b
    # negative, so on a right-handed grid the line runs against the curve.
    if np.linalg.det(basis) < 0:
        points = points[::-1]
    turns = rings.windings[:, rings.whole]
    share = float((turns == curve.winding).mean()) if turns.size else 0.0
    return Dislocation(np.ascontiguousarray(points), curve.is_closed, curve.winding, share)
