r"""A cathode particle while the cell charges: lithium leaves from the surface, a front moves inwards, the lattice contracts.

    python examples/charging.py -o charging            # 8 scans
    python examples/charging.py -o charging --small    # 4 small ones, in seconds

A spinel particle, a = 8.17 A with all its lithium. The outer shell has lost it and wants a lattice smaller by 0.4 %; the front at
radius c moves from the surface to a quarter of the radius. In a coherent sphere of radius R the misfit e(r) strains both sides
(Timoshenko & Goodier, Theory of Elasticity, on thermal stress in spheres):

.. math::
    u_r = \frac{1+\nu}{1-\nu} \frac{1}{r^2} \int_0^r e\, s^2 ds + \frac{2(1-2\nu)}{1-\nu} \frac{r}{R^3} \int_0^R e\, s^2 ds

The lattice that the peak's position gives follows the state of charge; the strain's spread is largest when the front is halfway.
The particle is that sphere with three flats, which the formula ignores, and its centre of contraction lies beside the middle.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import operando as op
import torch
from operando import Crystal, Experiment

from braggshot.crystals import shapes
from braggshot.crystals.grid import Grid

SPINEL, MIDWAY = 8.17e-10, 8.155e-10
RADIUS = 170.0  # [nm]
MISFIT = -4e-3  # of the delithiated lattice
WIDTH = 12.0  # of the front [nm]
POISSON = 0.27
FULL = Experiment(SPINEL, MIDWAY, 6.5, (96, 96, 96), 0.018)
SMALL = Experiment(SPINEL, MIDWAY, 6.5, (48, 48, 48), 0.018)
FLATS = [(1, 0, 0), (1, 1, -1), (0, -1, -1)]


def radial(front: float) -> tuple[np.ndarray, np.ndarray]:
    """Radii [nm] and the displacement u_r there [nm], by the formula above."""
    r = np.linspace(0, 1.6 * RADIUS, 1200)
    misfit = MISFIT / (1 + np.exp(-(r - front) / WIDTH))
    total = np.concatenate([[0], np.cumsum((misfit * r**2)[1:] * np.diff(r))])
    whole = np.interp(RADIUS, r, total)
    near = np.divide(total, r**2, out=np.zeros_like(r), where=r > 0)
    return r, (1 + POISSON) / (1 - POISSON) * near + 2 * (1 - 2 * POISSON) / (1 - POISSON) * r / RADIUS**3 * whole


def crystal(charge: float, experiment: Experiment) -> Crystal:
    """Make the particle at a state of charge, 0 to 1: the front's radius shrinks evenly."""
    ball = shapes.ellipsoid(torch.full((1, 3), RADIUS))
    cut = shapes.polyhedron(op.normals(experiment, FLATS), torch.tensor([[0.82, 0.9, 0.76]]) * RADIUS)
    r, u = radial(RADIUS * (1.12 - 0.85 * charge))
    g = torch.from_numpy(experiment.g * op.NM).float()[None]
    middle = torch.from_numpy(experiment.orientation @ np.array([0.1, -0.08, 0.06]) * RADIUS).float()[None]

    def phase(grid: Grid) -> torch.Tensor:
        seen = grid.shift_origin(middle)
        distance = torch.stack([seen.dot(unit[None]) for unit in torch.eye(3)]).square().sum(0).sqrt()
        ratio = torch.from_numpy(np.interp(distance.numpy(), r[1:], u[1:] / r[1:])).float()
        return seen.dot(g) * ratio

    return Crystal(lambda grid: torch.minimum(ball(grid), cut(grid)), phase)


def main(folder: Path, small: bool = False) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Simulate, follow, compare."""
    experiment = SMALL if small else FULL
    charges = np.array([0.0, 0.3, 0.6, 1.0]) if small else np.linspace(0, 1, 8)
    crystals = [crystal(float(charge), experiment) for charge in charges]
    scans = op.measure(folder / "raw", crystals, experiment, 4.0 * charges)
    column = f"charge={','.join(f'{charge:.3f}' for charge in charges)}"
    options = ["--column", column, "--set", "series.against=charge"]
    options += ["--set", "phasing.method=iterative", "--set", "phasing.partial_coherence=off"]
    if small:
        options += ["--set", "phasing.starts=2", "--set", "prepare.shape=[40,40,40]"]
        options += ["--set", "phasing.iterative.recipe=3*(20*HIO+30*RAAR+10*ER)+20*ER"]
    else:
        options += ["--set", "phasing.starts=5", "--set", "series.cold=3", "--set", "prepare.shape=[72,72,72]"]
        options += ["--set", "phasing.iterative.recipe=4*(40*HIO+50*RAAR+20*ER)+60*ER"]
    rows = op.follow(scans, folder / "series", experiment, options)
    voxel = op.voxel_of(folder / "series", rows)
    curves = op.compared(rows, [op.truth(c, experiment, voxel) for c in crystals])
    op.plot(folder / "charging.png", charges.tolist(), "state of charge", curves, "A charging particle, truth and recovered")
    print(op.report(curves))
    return curves


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("charging"))
    parser.add_argument("--small", action="store_true", help="a few small scans, as the tests run it")
    arguments = parser.parse_args()
    main(arguments.output, arguments.small)
