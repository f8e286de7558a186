r"""Find the lines around which the phase of a complex field turns by whole turns, such as dislocations.

.. math:: w = \frac{1}{2\pi} \sum_k \arg(\rho_{k+1} \rho_k^*)

is the winding: the sum of the phase differences around a closed path of voxels, each within half a turn, over a turn. It is a whole
number, whatever the wraps. Around the four corners of a face of the voxel grid w is 0 or, where a line pierces the face, 1 or -1.
As many lines enter a cell of the grid as leave it, so the pierced faces chain into curves that close or end where the field ends.
A curve pierces a face where the field, interpolated between the four corners, is zero.

Windings count turns about a direction in the handedness of the indices: positive from axis 0 to axis 1 about axis 2.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from braggshot.physics.strain import circulation
from braggshot.volumes import BoolArray, ComplexArray, FloatArray

# Gaussian width by which a curve is smoothed along itself, in faces; the steps of the grid leave no trace, a bend of 5 voxels does.
_SMOOTHING = 2.0
_FAINT = 1e-6  # least amplitude of a corner, over the largest: between zeros there is no phase [1]
Cell = tuple[int, int, int]


@dataclass(frozen=True)
class Curve:
    """A line around which the phase turns, directed so that its winding is positive.

    Parameters
    ----------
    points : (n, 3) fractional indices where it pierces faces of the grid, in order; the last point of a closed curve is its first
    normals : (n,) axis normal to the face that each point lies on
    is_closed : True for a loop, False for a curve that ends where the field ends
    winding : turns of the phase around the curve
    """

    points: NDArray[np.float64]
    normals: NDArray[np.int_]
    is_closed: bool
    winding: int = 1


def find_curves(rho: ComplexArray, region: BoolArray) -> list[Curve]:
    """Chain the faces around which the phase of a field (z, y, x) turns into curves, the longest first.

    Only faces whose four corners lie in `region` are looked at. Where curves meet in one cell, the straightest way on is taken.
    """
    faces = circulation(np.angle(rho), region)
    edges: dict[Cell, list[tuple[Cell, int, NDArray[np.float64]]]] = defaultdict(list)
    leaving: dict[Cell, int] = defaultdict(int)
    places = [(*place, int(faces[tuple(place)])) for place in np.argwhere(faces).tolist()]
    for axis, z, y, x, turn in places:
        last, after = [z, y, x], (z, y, x)
        last[axis] -= 1
        before = (last[0], last[1], last[2])
        start, end = (before, after) if turn > 0 else (after, before)
        edges[start].append((end, axis, _zero(rho, axis, after)))
        leaving[start] += 1
        leaving[end] -= 1
    open_ends = [cell for cell, more in leaving.items() for _ in range(more)]
    found = [_walk(edges, start) for start in open_ends]
    while left := next((cell for cell, ways in edges.items() if ways), None):
        found.append(_walk(edges, left))
    return sorted(found, key=lambda curve: -len(curve.points))


def _walk(edges: dict[Cell, list[tuple[Cell, int, NDArray[np.float64]]]], start: Cell) -> Curve:
    """Follow the edges from a cell, and take them away, until there is no way on or the walk comes back to where it began."""
    points: list[NDArray[np.float64]] = []
    normals, cell = [], start
    while ways := edges[cell]:
        if len(ways) > 1 and len(points) > 1:
            heading = points[-1] - points[max(0, len(points) - 4)]
            steps = [way[2] - points[-1] for way in ways]
            best = int(np.argmax([step @ heading / max(float(np.linalg.norm(step)), 1e-9) for step in steps]))
        else:
            best = 0
        cell, axis, point = ways.pop(best)
        points.append(point)
        normals.append(axis)
        if cell == start:
            return Curve(np.array([*points, points[0]]), np.array([*normals, normals[0]]), True)
    return Curve(np.array(points), np.array(normals), False)


def _zero(rho: ComplexArray, axis: int, face: Cell) -> NDArray[np.float64]:
    """Find where a field, interpolated bilinearly between the corners of a face normal to `axis`, is zero (3,).

    With f = A + B s + C t + D s t, s = -(A + C t) / (B + D t) is real where Im (A + C t)(B + D t)^* = 0, a quadratic in t.
    """
    first, second = np.eye(3, dtype=int)[[(axis + 1) % 3, (axis + 2) % 3]]
    here = np.array(face)
    corners = [complex(rho[tuple(here + step)]) for step in (0 * first, first, second, first + second)]
    largest = max(map(abs, corners))
    f00, f10, f01, f11 = (value if abs(value) > _FAINT * largest else _FAINT * largest + 0j for value in corners)
    a, b, c, d = f00, f10 - f00, f01 - f00, f11 - f10 - f01 + f00
    quadratic = [(c * d.conjugate()).imag, (a * d.conjugate() + c * b.conjugate()).imag, (a * b.conjugate()).imag]
    best, off = (0.5, 0.5), np.inf
    for t in np.roots(quadratic) if any(quadratic[:2]) else ():
        share, below = float(t.real), b + d * float(t.real)
        s = (-(a + c * share) / below).real if below else 0.5
        outside = max(abs(s - 0.5), abs(share - 0.5)) - 0.5
        if abs(t.imag) < 1e-9 and outside < min(off, 1e-6):
            best, off = (float(np.clip(s, 0, 1)), float(np.clip(share, 0, 1))), outside
    return here + best[0] * first + best[1] * second


def smoothed(points: FloatArray, is_closed: bool, width: float = _SMOOTHING) -> NDArray[np.float64]:
    """Smooth a curve (n, 3) along itself; a closed curve stays closed, and the ends of an open one stay where they are.

    An open curve is continued beyond each end by its own image, turned by half a turn about the end.
    """
    if len(points) < 4:
        return np.asarray(points, dtype=np.float64)
    if is_closed:
        round_ = ndimage.gaussian_filter1d(points[:-1], width, axis=0, mode="wrap")
        return np.concatenate([round_, round_[:1]])
    more = min(len(points) - 1, round(4 * width))
    before = 2 * points[0] - points[more:0:-1]
    after = 2 * points[-1] - points[-2 : -2 - more : -1]
    return np.asarray(ndimage.gaussian_filter1d(np.concatenate([before, points, after]), width, axis=0)[more : more + len(points)])


def tangents(points: FloatArray, is_closed: bool) -> NDArray[np.float64]:
    """Compute the unit vectors (n, 3) along a curve, by central differences."""
    inner = np.asarray(points[:-1] if is_closed else points, dtype=np.float64)
    if is_closed:
        along = np.roll(inner, -1, axis=0) - np.roll(inner, 1, axis=0)
        along = np.concatenate([along, along[:1]])
    else:
        along = np.asarray(np.gradient(inner, axis=0)) if len(inner) > 1 else np.zeros_like(inner)
    return np.asarray(along / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-30))


def ring(axis: int, half: int) -> NDArray[np.int_]:
    """List the voxels around a square of 2 half + 1 faces normal to `axis` as steps (n, 3) from its middle face's first corner.

    They go around in the direction in which windings are positive, and the last is the first.
    """
    low, high = -half, half + 1
    steps = range(low, high)
    flat = [(i, low) for i in steps] + [(high, i) for i in steps] + [(low + high - i, high) for i in steps]
    flat += [(low, low + high - i) for i in steps] + [(low, low)]
    found = np.zeros((len(flat), 3), dtype=int)
    found[:, (axis + 1) % 3], found[:, (axis + 2) % 3] = np.array(flat).T
    return found


@dataclass(frozen=True)
class Rings:
    """Windings around squares of faces about the points of a curve, counted along the curve's direction.

    Parameters
    ----------
    windings : (starts, sizes, n) whole numbers
    whole : (sizes, n) True where all voxels around the square are trusted and the curve passes through it, not along it
    """

    windings: NDArray[np.int_]
    whole: BoolArray


def wind_around(phases: FloatArray, trusted: BoolArray, curve: Curve, halves: tuple[int, ...] = (1, 2)) -> Rings:
    """Count the turns of phases (starts, z, y, x) around squares of 2 half + 1 faces about the points of a curve.

    The squares are normal to the axis of the grid that is nearest to the curve's direction.
    """
    along = tangents(smoothed(curve.points, curve.is_closed), curve.is_closed)
    axes = np.argmax(np.abs(along), axis=1)
    direction = np.sign(np.take_along_axis(along, axes[:, None], axis=1)[:, 0]).astype(int)
    corner = np.floor(curve.points + 1e-9).astype(int)
    nearest = np.rint(curve.points).astype(int)
    corner[np.arange(len(axes)), axes] = nearest[np.arange(len(axes)), axes]
    windings = np.zeros((len(phases), len(halves), len(axes)), dtype=int)
    whole = np.zeros((len(halves), len(axes)), dtype=bool)
    last = np.array(trusted.shape) - 1
    for size, half in enumerate(halves):
        for axis in range(3):
            chosen = np.flatnonzero(axes == axis)
            places = corner[chosen, None] + ring(axis, half)
            held = np.clip(places, 0, last)
            index = tuple(np.moveaxis(held, -1, 0))
            whole[size, chosen] = trusted[index].all(axis=1) & (places == held).all(axis=(1, 2))
            turn = np.diff(phases[:, *index], axis=-1)
            turn -= 2 * np.pi * np.rint(turn / (2 * np.pi))
            windings[:, size, chosen] = np.rint(turn.sum(axis=-1) / (2 * np.pi)).astype(int) * direction[chosen]
    return Rings(windings, whole)


def join_parallel(curves: list[Curve], distance: float) -> list[Curve]:
    """Join curves that run side by side in one direction, nearer than `distance` [voxels], into one of their summed winding.

    A line of two turns splits into two of one turn each, because noise moves the zeros of a field apart. The joined curve lies in
    the middle; where only one of the two runs, it takes that one.
    """
    left, found = list(curves), list[Curve]()
    while left:
        one = left.pop(0)
        for other in list(left):
            apart = np.linalg.norm(one.points[:, None] - other.points[None], axis=2)
            beside = apart.min(axis=0) < distance
            along = (tangents(one.points, one.is_closed)[apart.argmin(axis=0)] * tangents(other.points, other.is_closed)).sum(
                axis=1
            )
            if beside.mean() < 0.7 or np.median(along) <= 0 or len(other.points) < 0.4 * len(one.points):
                continue
            near = apart.min(axis=1) < distance
            middle = (one.winding * one.points + other.winding * other.points[apart.argmin(axis=1)]) / (one.winding + other.winding)
            points = np.where(near[:, None], middle, one.points)
            one = replace(one, points=points, winding=one.winding + other.winding)
            left = [curve for curve in left if curve is not other]
        found.append(one)
    return found
