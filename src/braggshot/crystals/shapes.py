"""Draw bodies of crystals: facetted, ellipsoidal, concave, rough, twinned.

A `Body` gives the depth of every voxel of a `Grid` below the surface, in voxels along the local normal and positive inside.
`amplitude` turns the depth into a density whose edges are anti-aliased over one voxel. Bodies are of unit size (inscribed radius
about 1) around r = 0.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor

from braggshot.crystals.grid import Grid
from braggshot.crystals.random import directions, rotations, uniform

# Function that returns the depth of every voxel of a grid below the surface [voxels].
Body = Callable[[Grid], Tensor]
REACH = 2.6  # largest distance of a body's surface from the point r = 0, in a unit in which its inscribed radius is about 1


def amplitude(depth: Tensor) -> Tensor:
    """Return the density of voxels whose centres lie `depth` voxels below the surface.

    The density is a step from 0 to 1 that is smoothed over one voxel.
    """
    return (0.5 + depth).clamp(0, 1)


def polyhedron(normals: Tensor, distances: Tensor) -> Body:
    """Return a polyhedron, the intersection of half spaces n_k . r <= d_k of positions r.

    The planes have `normals` n_k (batch, planes, 3) and `distances` d_k (batch, planes).
    """

    def depth(grid: Grid) -> Tensor:
        along = grid.edges(normals.transpose(0, 1)).transpose(0, 1)  # dot products of normals and voxel edges (batch, planes, 3)
        per_voxel = torch.linalg.vector_norm(along, dim=-1, keepdim=True)
        z, y, x = grid.separate(along / per_voxel)
        # Depth below each plane before the term of the x axis is subtracted (batch, planes, z, y) [voxels].
        below = (distances[..., None] / per_voxel - z)[..., None] - y[..., None, :]
        # One plane at a time, in place: all of them at once would need `planes` times the memory.
        lowest = below[:, 0, :, :, None] - x[:, 0, None, None, :]
        buffer = torch.empty_like(lowest)
        for plane, slope in zip(below.unbind(1)[1:], x.unbind(1)[1:], strict=True):
            torch.sub(plane[..., None], slope[:, None, None, :], out=buffer)
            torch.minimum(lowest, buffer, out=lowest)
        return lowest

    return depth


def ellipsoid(axes: Tensor) -> Body:
    """Return the ellipsoid of positions r with |r / axes| <= 1, where `axes` (batch, 3) are the semi-axes."""

    def depth(grid: Grid) -> Tensor:
        scaled = grid.transform(torch.diag_embed(1 / axes))
        parts = torch.stack([scaled.dot(unit.expand_as(axes)) for unit in torch.eye(3, device=axes.device)], dim=1)
        # Sums of squares: across a far axis they are several times faster than a vector norm.
        radius = parts.square().sum(1).sqrt().clamp_min(1e-6)
        slope = torch.einsum("bczyx,bca->bazyx", parts, scaled.basis).square().sum(1).sqrt() / radius
        return (1 - radius) / slope.clamp_min(1e-6)

    return depth


def rotate_body(body: Body, rotation: Tensor) -> Body:
    """Turn a body by `rotation` (batch, 3, 3)."""
    return lambda grid: body(grid.transform(rotation.mT))


def _family(*indices: float) -> list[tuple[float, ...]]:
    """List the normals of all cubic planes equivalent to (h, k, l)."""
    signed = itertools.product(*[(i, -i) if i else (i,) for i in indices])
    return sorted({p for plane in signed for p in itertools.permutations(plane)})


def _hexagonal(tilt: float) -> list[tuple[float, ...]]:
    """List the normals of six planes around the c axis, each at `tilt` radians from it; the first component is along c."""
    return [
        (math.cos(tilt), math.sin(tilt) * math.cos(k * math.pi / 3), math.sin(tilt) * math.sin(k * math.pi / 3)) for k in range(6)
    ]


PYRAMID = math.atan(1.633 / math.cos(math.pi / 6))  # angle from the c axis to the normal of (10-11), at the ideal c/a of hcp [rad]
# Families of planes of each lattice, each with the lowest and highest distance of its planes from the centre. Distances are in the
# ratio of surface energies (Wulff), so a family that lies far out does not appear on the crystal.
LATTICES: dict[str, list[tuple[list[tuple[float, ...]], float, float]]] = {
    "fcc": [(_family(1, 1, 1), 0.9, 1.1), (_family(1, 0, 0), 0.95, 1.6), (_family(1, 1, 0), 1.0, 1.5)],
    "bcc": [(_family(1, 1, 0), 0.9, 1.1), (_family(1, 0, 0), 0.95, 1.5), (_family(1, 1, 2), 1.0, 1.3)],
    "hcp": [
        (_hexagonal(math.pi / 2), 0.9, 1.1),
        ([(1.0, 0.0, 0.0), (-1.0, 0.0, 0.0)], 0.7, 1.5),
        (_hexagonal(PYRAMID) + [(-c, a, b) for c, a, b in _hexagonal(PYRAMID)], 0.9, 1.5),
    ],
}


def facetted(generator: Generator, n: int, lattice: str = "fcc", cuts: int = 2) -> Body:
    """Draw crystals like those of the Wulff construction.

    The families of planes lie at random distances, each plane a little nearer or farther than its family, and `cuts` random planes
    truncate the body.
    """
    normals, distances = [], []
    for planes, low, high in LATTICES[lattice]:
        family = torch.tensor(planes, dtype=torch.float32, device=generator.device)
        normals.append(torch.nn.functional.normalize(family, dim=-1).expand(n, -1, -1))
        distances.append(uniform(generator, low, high, n, 1) * uniform(generator, 0.85, 1.2, n, len(planes)))
    normals.append(directions(generator, n, cuts))
    distances.append(uniform(generator, 0.4, 1.6, n, cuts))
    return polyhedron(torch.cat(normals, dim=1), torch.cat(distances, dim=1))


def ellipsoidal(generator: Generator, n: int) -> Body:
    """Draw smooth particles with three different axes."""
    return ellipsoid(uniform(generator, 0.5, 1.5, n, 3))


def concave(generator: Generator, n: int) -> Body:
    """Draw facetted bodies that are not convex.

    A smaller body either cuts a notch or is grown together with the larger one, by a random choice for each crystal.
    """
    body, other = facetted(generator, n), facetted(generator, n)
    place = directions(generator, n) * uniform(generator, 0.8, 1.2, n, 1)
    shrink = rotations(generator, n) / uniform(generator, 0.4, 0.7, n, 1, 1)
    joined = uniform(generator, 0, 1, n, 1, 1, 1) < 0.5

    def depth(grid: Grid) -> Tensor:
        first, second = body(grid), other(grid.shift_origin(place).transform(shrink))
        return torch.where(joined, torch.maximum(first, second), torch.minimum(first, -second))

    return depth


def rough(generator: Generator, n: int, waves: int = 48) -> Body:
    """Draw facetted bodies with pits and furrows: the surface is lowered by the magnitude of a random sum of waves."""
    body = facetted(generator, n)
    vectors = directions(generator, n, waves) * (2 * math.pi / uniform(generator, 0.3, 0.9, n, waves, 1))
    height = uniform(generator, 0.03, 0.1, n, 1) * math.sqrt(2 / waves)
    coefficients = torch.polar(height.expand(-1, waves), uniform(generator, 0, 2 * math.pi, n, waves))
    return lambda grid: body(grid) - grid.waves(vectors, coefficients).abs() / grid.pitch


def twinned(generator: Generator, n: int) -> Body:
    """Draw fcc bodies with a twin boundary: the upper half is the mirror image of the lower half at a {111} plane."""
    plane = torch.ones(n, 3, device=generator.device) / math.sqrt(3)
    mirror = torch.eye(3, device=generator.device) - 2 * plane[:, :, None] * plane[:, None, :]
    offset = plane * uniform(generator, -0.3, 0.3, n, 1)
    body = facetted(generator, n, "fcc", cuts=0)

    def depth(grid: Grid) -> Tensor:
        seen = grid.shift_origin(offset)
        return torch.where(seen.dot(plane) > 0, body(seen.transform(mirror)), body(seen))

    return depth


# Functions that draw the families of bodies, by name.
SHAPES: dict[str, Callable[[Generator, int], Body]] = {
    "fcc": partial(facetted, lattice="fcc"),
    "bcc": partial(facetted, lattice="bcc"),
    "hcp": partial(facetted, lattice="hcp"),
    "ellipsoidal": ellipsoidal,
    "concave": concave,
    "rough": rough,
    "twinned": twinned,
}


def extent(body: Body, transform: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lowest and highest coordinates e of a body on skewed axes, where the position is r = transform @ e.

    The body is sampled on a coarse grid, so the range is a few percent too large, never too small.

    Parameters
    ----------
    body : body to be measured
    transform : (batch, 3, 3), columns are the axes, in the unit of length of the body

    Returns
    -------
    low, high : (batch, 3) coordinates [lengths of the axes]
    """
    high = REACH * torch.linalg.vector_norm(torch.linalg.inv(transform), dim=2)
    low = -high
    for samples in (16, 24):  # find it, then measure it
        step = (high - low) / (samples - 1)
        depth = body(Grid(transform * step[:, None, :], -low / step, (samples, samples, samples)))
        profile = torch.stack([depth.amax([1 + other for other in range(3) if other != axis]) for axis in range(3)], dim=1)
        seen = (profile > -0.5).float()
        first, last = seen.argmax(2), samples - 1 - seen.flip(2).argmax(2)
        # What the outermost slice still has below the surface, and a little for corners between the samples.
        before = profile.gather(2, first[..., None])[..., 0] + 0.2
        beyond = profile.gather(2, last[..., None])[..., 0] + 0.2
        low, high = low + step * (first - before), low + step * (last + beyond)
    return low, high
