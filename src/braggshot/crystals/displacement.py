"""Draw phase fields -q . u of strained crystals [rad], which are never wrapped.

q is the scattering vector, and u the displacement. A `Field` gives the phase at every voxel of a `Grid`, for bodies of unit size,
from the position of the voxel and its depth below the surface. `calibrate` removes the linear ramp of the phase, which shifts the
pattern and is no strain. It also sets the range of the phase, the maximum minus the minimum inside the crystal. Dislocations are
not scaled, because the phase must turn by exactly 2 pi around the line.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from braggshot.crystals.grid import Grid
from braggshot.crystals.random import directions, rotations, uniform

# Function that returns the phase at every voxel, from the grid and the depth of each voxel below the surface.
Field = Callable[[Grid, Tensor], Tensor]


def correlated(generator: Generator, n: int, waves: int = 64) -> Field:
    """Draw Gaussian random fields of covariance exp(-r^2 / 2 l^2), with a random length l.

    The fields are sums of plane waves whose wave vectors are normally distributed.
    """
    length = uniform(generator, 0.35, 1.2, n, 1, 1)
    vectors = torch.randn(n, waves, 3, generator=generator, device=generator.device) / length
    phases = uniform(generator, 0, 2 * math.pi, n, waves)
    coefficients = torch.polar(torch.full_like(phases, math.sqrt(2 / waves)), phases)
    return lambda grid, _: grid.waves(vectors, coefficients)


def bending(generator: Generator, n: int) -> Field:
    """Draw fields that are polynomials of second and third order in the position: bending, torsion, a strain gradient."""
    a, b, c = directions(generator, 3, n)
    cubic = uniform(generator, -0.3, 0.3, n, 1, 1, 1)
    return lambda grid, _: grid.dot(a) * grid.dot(b) + cubic * grid.dot(c) ** 3


def gaussians(generator: Generator, n: int) -> Field:
    """Draw fields of two Gaussian bumps, each of a random sign."""
    places = directions(generator, 2, n) * uniform(generator, 0, 0.9, 2, n, 1)
    widths = uniform(generator, 0.3, 0.8, 2, n, 1, 1, 1)
    signs = uniform(generator, -1, 1, 2, n, 1, 1, 1).sign()
    heights = uniform(generator, 0.5, 1, 2, n, 1, 1, 1) * signs

    def phase(grid: Grid, _: Tensor) -> Tensor:
        bumps = zip(places, widths, heights, strict=True)
        one, other = (h * torch.exp(-(_radius(grid.shift_origin(p)) ** 2) / (2 * w**2)) for p, w, h in bumps)
        return one + other

    return phase


def cosines(generator: Generator, n: int) -> Field:
    """Draw fields of two cosines, with periods of about the size of the crystal."""
    vectors = directions(generator, n, 2) * uniform(generator, 1.5, 4, n, 2, 1)
    coefficients = torch.polar(uniform(generator, 0.5, 1, n, 2), uniform(generator, 0, 2 * math.pi, n, 2))
    return lambda grid, _: grid.waves(vectors, coefficients)


def core_shell(generator: Generator, n: int) -> Field:
    """Draw phase fields of crystals with a misfitting core under a shell that follows the surface.

    The displacement grows linearly with the position in the core and fades in the shell.
    """
    along = directions(generator, n)
    thickness, width = uniform(generator, 0.15, 0.5, n, 1, 1, 1), uniform(generator, 0.05, 0.15, n, 1, 1, 1)
    return lambda grid, depth: grid.dot(along) * torch.sigmoid((depth * grid.pitch - thickness) / width)


def inclusion(generator: Generator, n: int) -> Field:
    """Draw a misfitting sphere of radius a (Eshelby).

    r is the vector from the sphere's centre. The displacement is proportional to r inside, and to (a / |r|)^3 r outside.
    """
    along, place = directions(generator, n), directions(generator, n) * uniform(generator, 0, 0.8, n, 1)
    radius = uniform(generator, 0.2, 0.5, n, 1, 1, 1)

    def phase(grid: Grid, _: Tensor) -> Tensor:
        seen = grid.shift_origin(place)
        return seen.dot(along) * (radius / _radius(seen)).clamp(max=1) ** 3

    return phase


def screw(generator: Generator, n: int) -> Field:
    """Draw a screw dislocation: the phase is the angle around the line (scattering vector q, Burgers vector b, q . b = 2 pi)."""
    polar = _around_line(generator, n)
    return lambda grid, _: polar(grid)[1]


def edge(generator: Generator, n: int, poisson_ratio: float = 0.35) -> Field:
    r"""Draw an edge dislocation (Hirth & Lothe, Theory of Dislocations).

    The scattering vector q is perpendicular to the line, and q . b = 2 pi for the Burgers vector b.

    .. math:: u_b = \frac{b}{2\pi}\left[\theta + \frac{\sin 2\theta}{4(1-\nu)}\right], \quad
              u_\perp = -\frac{b}{2\pi}\left[\frac{1-2\nu}{2(1-\nu)}\ln r + \frac{\cos 2\theta}{4(1-\nu)}\right]

    u_b and u_perp are the displacements along the Burgers vector and across it. r is the distance from the line, theta the angle
    around the line, and nu Poisson's ratio.
    """
    polar, aside = _around_line(generator, n), uniform(generator, -1, 1, n, 1, 1, 1)

    def phase(grid: Grid, _: Tensor) -> Tensor:
        radius, angle = polar(grid)
        along = angle + torch.sin(2 * angle) / (4 * (1 - poisson_ratio))
        logarithm = (1 - 2 * poisson_ratio) / (2 * (1 - poisson_ratio)) * torch.log(radius.clamp_min(0.05))
        return along - aside * (logarithm + torch.cos(2 * angle) / (4 * (1 - poisson_ratio)))

    return phase


# Functions that draw the families of smooth phase fields, by name.
FIELDS: dict[str, Callable[[Generator, int], Field]] = {
    "correlated": correlated,
    "bending": bending,
    "gaussians": gaussians,
    "cosines": cosines,
    "core_shell": core_shell,
    "inclusion": inclusion,
}
# Functions that draw dislocations, by name.
DISLOCATIONS: dict[str, Callable[[Generator, int], Field]] = {"screw": screw, "edge": edge}


@dataclass(frozen=True)
class Calibration:
    """Numbers that turn a raw field into the phase of a crystal: scale * (field - slope . r - middle), with the position r.

    `slope` is the gradient of the field's linear ramp. `middle` lies halfway between the lowest and the highest value inside the
    crystal, after the ramp is subtracted. `scale` gives the phase a chosen range inside the crystal. It is smaller for
    crystals whose phase would otherwise change too much from voxel to voxel; for these `limited` (batch,) is True.
    """

    scale: Tensor
    slope: Tensor
    middle: Tensor
    limited: Tensor

    def __call__(self, raw: Tensor, grid: Grid) -> Tensor:
        """Turn a raw field on `grid` into a phase [rad]: subtract the ramp, and scale the range."""
        return self.scale[:, None, None, None] * (raw - grid.dot(self.slope) - self.middle[:, None, None, None])


def calibrate(raw: Tensor, grid: Grid, depth: Tensor, phase_range: Tensor, steepest: float) -> Calibration:
    """Find the ramp to subtract from a field, and the factor that brings its range inside the body to `phase_range`.

    The factor is smaller for a crystal whose phase would change by more than `steepest` from one voxel to the next.

    Parameters
    ----------
    raw : field before it is scaled (batch, z, y, x)
    grid : voxel positions of the field
    depth : depth below the surface of the body on the same grid [voxels]
    phase_range : maximum minus minimum inside the body (batch,) [rad]
    steepest : largest change of the phase between neighbouring voxels [rad]
    """
    dims, inside = (1, 2, 3), depth > 0
    slope = _slope(raw, grid, inside)
    flat = raw - grid.dot(slope)
    low = torch.where(inside, flat, torch.inf).amin(dims)
    high = torch.where(inside, flat, -torch.inf).amax(dims)
    step = torch.zeros_like(low)
    for axis, size in zip(dims, grid.shape, strict=True):
        both = inside.narrow(axis, 1, size - 1) & inside.narrow(axis, 0, size - 1)
        step = torch.maximum(step, (flat.diff(dim=axis).abs() * both).amax(dims))
    wanted, allowed = phase_range / (high - low).clamp_min(1e-9), steepest / step.clamp_min(1e-9)
    return Calibration(torch.minimum(wanted, allowed), slope, (low + high) / 2, allowed < wanted)


def _slope(phase: Tensor, grid: Grid, inside: Tensor) -> Tensor:
    """Return the gradient (batch, 3) of the linear ramp that fits the phase inside the body best, per unit of length."""
    middle = torch.tensor([n / 2 for n in grid.shape], device=phase.device)
    axes = [torch.arange(n, device=phase.device) / (n / 2) - 1 for n in grid.shape]
    index = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
    design = torch.cat([torch.ones_like(index[:, :1]), index], dim=1)
    weight = inside.flatten(1).to(phase.dtype)
    products = (design[:, :, None] * design[:, None, :]).flatten(1)
    normal = (weight @ products).reshape(-1, 4, 4)
    ridge = 1e-6 * torch.eye(4, device=phase.device)  # added to make the matrix invertible for a body one voxel thick
    plane = torch.linalg.solve(normal + ridge, (weight * phase.flatten(1)) @ design)
    return torch.linalg.solve(grid.basis.mT, plane[:, 1:] / middle)


def _radius(grid: Grid) -> Tensor:
    """Return the distance |r| of every voxel from the point r = 0. It is never less than 1e-6, so that one can divide by it."""
    squared = [grid.dot(unit.expand(grid.batch, 3)) ** 2 for unit in torch.eye(3, device=grid.basis.device)]
    return torch.stack(squared).sum(0).clamp_min(1e-12).sqrt()


def _around_line(generator: Generator, n: int) -> Callable[[Grid], tuple[Tensor, Tensor]]:
    """Draw a line near the centre; return a function that gives every voxel's distance from the line and angle around it."""
    _, first, second = rotations(generator, n).unbind(1)
    place = directions(generator, n) * uniform(generator, 0, 0.5, n, 1)

    def polar(grid: Grid) -> tuple[Tensor, Tensor]:
        seen = grid.shift_origin(place)
        a, b = seen.dot(first), seen.dot(second)
        return torch.hypot(a, b), torch.atan2(b, a)

    return polar
