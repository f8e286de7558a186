"""Bodies of crystals: facetted, ellipsoidal, concave, rough, twinned.

A `Body` gives the depth of every voxel of a `Grid` below the surface, in voxels along the local normal and positive inside.
`amplitude` turns it into a density whose edges are anti-aliased over one voxel. Bodies are of unit size (inscribed radius about 1)
around r = 0.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import reduce

import torch
from torch import Generator, Tensor

from braggshot.crystals.grid import Grid

Body = Callable[[Grid], Tensor]
REACH = 2.6  # no body of this module extends further from r = 0


def amplitude(depth: Tensor) -> Tensor:
    """Density of a voxel whose centre lies `depth` voxels below the surface: a step smoothed over one voxel."""
    return (0.5 + depth).clamp(0, 1)


def uniform(generator: Generator, low: float, high: float, *shape: int) -> Tensor:
    """Random numbers in [low, high)."""
    return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)


def directions(generator: Generator, *shape: int) -> Tensor:
    """Unit vectors without a preferred direction, (*shape, 3)."""
    return torch.nn.functional.normalize(torch.randn(*shape, 3, generator=generator, device=generator.device), dim=-1)


def rotations(generator: Generator, n: int) -> Tensor:
    """Random orientations, uniform on the rotation group (n, 3, 3): unit quaternions w + xi + yj + zk."""
    q = torch.nn.functional.normalize(torch.randn(n, 4, generator=generator, device=generator.device), dim=-1)
    w, x, y, z = q.unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def polyhedron(normals: Tensor, distances: Tensor) -> Body:
    """Intersection of the half spaces n_k . r <= d_k; `normals` (batch, planes, 3), `distances` (batch, planes)."""

    def depth(grid: Grid) -> Tensor:
        def below(normal: Tensor, distance: Tensor) -> Tensor:
            per_voxel = torch.linalg.vector_norm(grid.edges(normal), dim=-1)
            return (distance / per_voxel)[:, None, None, None] - grid.dot(normal / per_voxel[:, None])

        # One plane at a time: all of them at once would need `planes` times the memory.
        return reduce(torch.minimum, map(below, normals.unbind(1), distances.unbind(1)))

    return depth


def ellipsoid(axes: Tensor) -> Body:
    """|r / axes| <= 1 with semi-axes (batch, 3)."""

    def depth(grid: Grid) -> Tensor:
        scaled = grid.transformed(torch.diag_embed(1 / axes))
        parts = torch.stack([scaled.dot(unit.expand_as(axes)) for unit in torch.eye(3, device=axes.device)], dim=1)
        radius = torch.linalg.vector_norm(parts, dim=1).clamp_min(1e-6)
        slope = torch.linalg.vector_norm(torch.einsum("bczyx,bca->bazyx", parts, scaled.basis), dim=1) / radius
        return (1 - radius) / slope.clamp_min(1e-6)

    return depth


def oriented(body: Body, rotation: Tensor) -> Body:
    """The body turned by `rotation` (batch, 3, 3)."""
    return lambda grid: body(grid.transformed(rotation.mT))


def _family(*indices: float) -> list[tuple[float, ...]]:
    """All cubic planes equivalent to (h, k, l)."""
    signed = itertools.product(*[(i, -i) if i else (i,) for i in indices])
    return sorted({p for plane in signed for p in itertools.permutations(plane)})


def _hexagonal(tilt: float) -> list[tuple[float, ...]]:
    """Six planes around the c axis, first component along c, at `tilt` radians from it."""
    return [
        (math.cos(tilt), math.sin(tilt) * math.cos(k * math.pi / 3), math.sin(tilt) * math.sin(k * math.pi / 3)) for k in range(6)
    ]


# Plane families of each lattice with the range of their distance from the centre; the ratio of the distances is that of the surface
# energies (Wulff), so a family far out does not appear.
PYRAMID = math.atan(1.633 / math.cos(math.pi / 6))  # (10-11) from the c axis at the ideal c/a
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
    """Wulff-like crystals: the lattice's planes at random distances, each one jittered, plus `cuts` random truncations."""
    normals, distances = [], []
    for planes, low, high in LATTICES[lattice]:
        family = torch.tensor(planes, dtype=torch.float32, device=generator.device)
        normals.append(torch.nn.functional.normalize(family, dim=-1).expand(n, -1, -1))
        distances.append(uniform(generator, low, high, n, 1) * uniform(generator, 0.85, 1.2, n, len(planes)))
    normals.append(directions(generator, n, cuts))
    distances.append(uniform(generator, 0.4, 1.6, n, cuts))
    return polyhedron(torch.cat(normals, dim=1), torch.cat(distances, dim=1))


def extent(body: Body, transform: Tensor, samples: int = 32) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds (batch, 3) of a body along the axes e of r = transform @ e, safe by half a sampling step."""
    reach = REACH * torch.linalg.matrix_norm(torch.linalg.inv(transform), ord=2)
    step = 2 * reach / (samples - 1)
    basis = transform * step[:, None, None]
    depth = body(Grid(basis, torch.full_like(basis[:, 0], (samples - 1) / 2), (samples, samples, samples)))
    bounds = []
    for axis in range(3):
        profile = depth.amax([1 + other for other in range(3) if other != axis]) + 0.5
        inside = (profile > 0).float()
        first, last = inside.argmax(1), samples - 1 - inside.flip(1).argmax(1)
        bounds.append(torch.stack([_crossing(profile, first, -1), _crossing(profile, last, 1)]))
    low, high = ((torch.stack(bounds, dim=-1) - (samples - 1) / 2) * step[:, None]).unbind(0)
    return low, high


def _crossing(profile: Tensor, index: Tensor, outward: int) -> Tensor:
    """Where the profile, positive at `index`, falls to zero on the way to its outer neighbour [samples]."""
    inner = profile.gather(1, index[:, None])[:, 0]
    outer = profile.gather(1, (index + outward).clamp(0, profile.shape[1] - 1)[:, None])[:, 0]
    return index + outward * inner / (inner - outer).clamp_min(1e-6)
