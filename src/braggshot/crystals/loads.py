"""Strain atomistic particles by grips, a substrate, contacts and dislocations.

A free particle without defects relaxes to zero strain, so a load must persist. A `Load` gives the displacements at which the
relaxation begins and the atoms that are held in place. A dislocation is not held: after enough iterations it glides to the surface.
So relaxation stops while the dislocation is still inside, with its core and field settled. Lengths are in lattice parameters,
and vectors have components along the cubic axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from braggshot.crystals.random import directions, uniform

# Function that loads a particle: (random numbers, lattice sites, strain) -> (displacements of the atoms, mask of the held atoms).
Load = Callable[[Generator, Tensor, float], tuple[Tensor, Tensor]]
GRIP = 0.12  # thickness of the held layer at an end of the particle / extent of the particle along the load's axis [1]


def free(generator: Generator, sites: Tensor, strain: float) -> tuple[Tensor, Tensor]:
    """Return zero displacements and no held atoms: this load leaves the particle free, and only dislocations strain it."""
    return torch.zeros_like(sites), torch.zeros(len(sites), dtype=torch.bool)


def tension(generator: Generator, sites: Tensor, strain: float) -> tuple[Tensor, Tensor]:
    """Pull two opposite ends apart, along the normal n of a facet: an atom at r moves by u = strain (n . r) n."""
    n = _facet(generator)
    height = sites @ n
    return strain * height[:, None] * n, _ends(height)


def compression(generator: Generator, sites: Tensor, strain: float) -> tuple[Tensor, Tensor]:
    """Push two opposite ends together: an atom at r moves by u = -strain (n . r) n, where n is the normal of a facet."""
    return tension(generator, sites, -strain)


def shear(generator: Generator, sites: Tensor, strain: float) -> tuple[Tensor, Tensor]:
    """Shear the particle: an atom at r moves by u = strain (n . r) t.

    n is the normal of a facet, and t a direction perpendicular to n. The atoms at both ends along n are held.
    """
    n = _facet(generator)
    height = sites @ n
    return strain * height[:, None] * _across(generator, n), _ends(height)


def bending(generator: Generator, sites: Tensor, strain: float) -> tuple[Tensor, Tensor]:
    """Bend the particle: turn two opposite ends against each other; `strain` is that of the outermost fibre."""
    n = _facet(generator)
    t = _across(generator, n)
    height, beside = (sites @ n)[:, None], (sites @ t)[:, None]
    return strain / beside.abs().max() * (height**2 / 2 * t - height * beside * n), _ends(height[:, 0])


def torsion(generator: Generator, sites: Tensor, strain: float) -> tuple[Tensor, Tensor]:
    """Twist two opposite ends against each other about their normal; `strain` is the shear at the rim."""
    n = _facet(generator)
    height, turned = (sites @ n)[:, None], torch.linalg.cross(n.expand_as(sites), sites)
    return strain * height * turned / torch.linalg.vector_norm(turned, dim=1).max(), _ends(height[:, 0])


def substrate(generator: Generator, sites: Tensor, strain: float) -> tuple[Tensor, Tensor]:
    """Hold the lowest layers of atoms, strained in their plane as on a misfitting substrate of normal n.

    An atom of the lowest layer at r moves by u = strain (r - (n . r) n). Above, the displacement falls exponentially with height.
    """
    n = _facet(generator)
    height = sites @ n
    above = (height - height.min())[:, None]
    in_plane = sites - height[:, None] * n
    return strain * in_plane * torch.exp(-2 * above / above.max()), above[:, 0] < GRIP * float(above.max())


def contacts(generator: Generator, sites: Tensor, strain: float) -> tuple[Tensor, Tensor]:
    """Move three to six patches of the surface, each in its own direction, by `strain` times the diameter."""
    radius = float(torch.linalg.vector_norm(sites, dim=1).max())
    count = int(torch.randint(3, 7, (), generator=generator))
    displacement, held = torch.zeros_like(sites), torch.zeros(len(sites), dtype=torch.bool)
    for towards, move in directions(generator, count, 2).double():
        distance = torch.linalg.vector_norm(sites - sites[(sites @ towards).argmax()], dim=1)
        width = float(uniform(generator, 0.25, 0.45)) * radius
        displacement += 2 * radius * strain * move * torch.exp(-((distance / (1.5 * width)) ** 2))[:, None]
        held |= distance < width
    return displacement, held


# Functions that draw a mechanical load on a particle, by the name of the kind of load.
LOADS: dict[str, Load] = {
    "free": free,
    "tension": tension,
    "compression": compression,
    "shear": shear,
    "bending": bending,
    "torsion": torsion,
    "substrate": substrate,
    "contacts": contacts,
}


def dislocation(generator: Generator, sites: Tensor, poisson_ratio: float = 0.35) -> Tensor:
    r"""Return the displacement field of a perfect dislocation b = <110>/2 near the middle.

    The dislocation is screw, 60 degrees or edge; its line lies in a {111} plane.

    .. math:: u_e = \frac{b_e}{2\pi}\left[\theta + \frac{\sin 2\theta}{4(1-\nu)}\right], \quad
              u_m = -\frac{b_e}{2\pi}\left[\frac{1-2\nu}{2(1-\nu)}\ln r + \frac{\cos 2\theta}{4(1-\nu)}\right], \quad
              u_\xi = b_s \frac{\theta}{2\pi}

    u_e, u_m and u_xi are the displacements along e = m x xi, along the normal m of the glide plane and along the line xi. b_e and
    b_s are the components of b along e and xi. r is the distance from the line, theta the angle around the line, and nu Poisson's
    ratio (Hirth & Lothe, Theory of Dislocations). The cut, theta = pi, lies in the glide plane. Its two sides fit after a slip by
    b, so no atom has to be added or removed.
    """
    signs = torch.randint(2, (3,), generator=generator).double() * 2 - 1
    order = torch.randperm(3, generator=generator)
    m = (signs / math.sqrt(3))[order]
    b = (torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64) * signs / 2)[order]
    angle = [0.0, math.pi / 3, math.pi / 2][int(torch.randint(3, (), generator=generator))]
    b_length = 1 / math.sqrt(2)
    xi = math.cos(angle) * b / b_length + math.sin(angle) * torch.linalg.cross(m, b / b_length)
    e = torch.linalg.cross(m, xi)

    radius = float(torch.linalg.vector_norm(sites, dim=1).max())
    place = directions(generator).double() * float(uniform(generator, 0, 0.3)) * radius
    # The cut runs halfway between two {111} planes.
    spacing, height = 1 / math.sqrt(3), sites @ m
    below = ((place @ m - height[0]) / spacing).floor() * spacing + height[0]
    y = height - below - spacing / 2
    x = (sites - place) @ e
    theta, log_r = torch.atan2(y, x), torch.log(torch.hypot(x, y).clamp_min(0.5))
    b_e, b_s, nu = float(b @ e), float(b @ xi), poisson_ratio
    along = theta + torch.sin(2 * theta) / (4 * (1 - nu))
    normal = (1 - 2 * nu) / (2 * (1 - nu)) * log_r + torch.cos(2 * theta) / (4 * (1 - nu))
    return (b_e * (along[:, None] * e - normal[:, None] * m) + b_s * theta[:, None] * xi) / (2 * math.pi)


def _facet(generator: Generator) -> Tensor:
    """Draw the unit normal of a {100}, {110} or {111} plane."""
    kind = int(torch.randint(1, 4, (), generator=generator))
    normal = torch.zeros(3, dtype=torch.float64)
    normal[:kind] = torch.randint(2, (kind,), generator=generator).double() * 2 - 1
    return normal[torch.randperm(3, generator=generator)] / math.sqrt(kind)


def _across(generator: Generator, n: Tensor) -> Tensor:
    """Draw a unit vector perpendicular to n."""
    v = directions(generator).double()
    return torch.nn.functional.normalize(v - (v @ n) * n, dim=0)


def _ends(height: Tensor) -> Tensor:
    """Return a mask of the atoms that the grips at both ends hold, from the `height` of the atoms along the axis of the load."""
    low, high = height.min(), height.max()
    return (height < low + GRIP * (high - low)) | (height > high - GRIP * (high - low))
