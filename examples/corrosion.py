"""A gold crystal that corrodes: some facets dissolve faster, it loses volume, its strain relaxes, and a dislocation leaves it.

    python examples/corrosion.py -o corrosion            # 8 scans
    python examples/corrosion.py -o corrosion --small    # 4 small ones, in seconds

The {100} facets and one {111} facet recede; a strained region relaxes exponentially; a screw dislocation with g . b = 2 pi glides
from its inside to the surface, and once it is out its field is gone. Nothing here solves equations of elasticity: the fields are
given, and what is tested is whether they come back.
"""

from __future__ import annotations

import argparse
import itertools
import math
from pathlib import Path

import numpy as np
import operando as op
import torch
from operando import Crystal, Experiment

from braggshot.crystals import shapes
from braggshot.crystals.grid import Grid

GOLD = 4.078e-10
DIAMETER = 340.0  # distance of opposite {111} facets at first [nm]
OCTAHEDRON = list(itertools.product((1, -1), repeat=3))
CUBE = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]
FULL = Experiment(GOLD, GOLD, 12.6, (96, 96, 96), 0.008)
SMALL = Experiment(GOLD, GOLD, 12.6, (44, 44, 44), 0.009)
DURATION = 6.0  # [h]
LEAVES = 0.6  # share of the time after which the dislocation is out


def crystal(t: float, experiment: Experiment) -> Crystal:
    """Make the crystal at time t, 0 to 1."""
    radius = DIAMETER / 2
    slow = [radius * (1 - (0.38 if plane == (1, -1, 1) else 0.02) * t) for plane in OCTAHEDRON]
    fast = [radius * (1.12 - 0.34 * t)] * 6
    body = shapes.polyhedron(op.normals(experiment, OCTAHEDRON + CUBE), torch.tensor([slow + fast]))
    a, b, line = (torch.from_numpy(v).float()[None] for v in experiment.orientation.T)
    place = a * radius * (0.3 + 0.7 * t / LEAVES) + 0.05 * radius * line
    strained = (0.45 * b - 0.25 * a + 0.2 * line) * radius

    def phase(grid: Grid) -> torch.Tensor:
        away = grid.shift_origin(strained)
        squared = sum(away.dot(v) ** 2 for v in (a, b, line))
        field = 2.2 * math.exp(-t / 0.35) * torch.exp(-squared / (2 * (0.42 * radius) ** 2))
        if t < LEAVES:
            seen = grid.shift_origin(place)
            field = field + torch.atan2(seen.dot(b), seen.dot(a))
        return field

    return Crystal(body, phase)


def main(folder: Path, small: bool = False) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Simulate, follow, compare."""
    experiment = SMALL if small else FULL
    times = np.array([0.0, 0.3, 0.65, 1.0]) if small else np.linspace(0, 1, 8)
    crystals = [crystal(float(t), experiment) for t in times]
    scans = op.measure(folder / "raw", crystals, experiment, DURATION * times)
    options = ["--set", "phasing.method=iterative", "--set", "phasing.partial_coherence=off"]
    if small:
        options += [
            "--set",
            "phasing.starts=6",
            "--set",
            "series.cold=3",
            "--set",
            "series.movie=false",
            "--set",
            "prepare.shape=[42,42,42]",
        ]
        options += ["--set", "phasing.iterative.recipe=2*(30*HIO+40*RAAR+10*ER)+DETWIN+3*(30*HIO+40*RAAR+10*ER)+40*ER"]
    else:
        options += ["--set", "phasing.starts=16", "--set", "series.cold=4", "--set", "prepare.shape=[72,72,72]"]
        options += ["--set", "phasing.iterative.recipe=2*(30*HIO+50*RAAR+20*ER)+DETWIN+3*(40*HIO+50*RAAR+20*ER)+60*ER"]
    rows = op.follow(scans, folder / "series", experiment, options)
    voxel = op.voxel_of(folder / "series", rows)
    curves = op.compared(rows, [op.truth(c, experiment, voxel) for c in crystals])
    op.plot(folder / "corrosion.png", (DURATION * times).tolist(), "time [h]", curves, "A corroding crystal, truth and recovered")
    print(op.report(curves))
    return curves


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("corrosion"))
    parser.add_argument("--small", action="store_true", help="a few small scans, as the tests run it")
    arguments = parser.parse_args()
    main(arguments.output, arguments.small)
