r"""A measurement is planned, then made as planned; the error of its strain is held against the sigma that the plan said.

    python examples/plan.py            # three crystals
    python examples/plan.py --small    # one small crystal, in seconds

The plan says the rocking step, the frames and the photons in the brightest voxel that a wanted sigma of the strain takes. A gold
crystal with a known displacement is measured with just these, on the detector of the plan, and phased. The strain is the derivative
of the phase along q, by central differences over one voxel of the planned resolution; its error is compared one layer inside the
surface, where the crystal and the truth overlap, the mean removed. One sigma of the plan is a law for ordinary crystals: single
ones differ from it by up to a factor of two (docs/howto/plan.md). The three here have 1.2 to 1.6 of it.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from scipy.constants import electron_volt

import braggshot
from braggshot.crystal_frame import to_lab
from braggshot.crystals.scan import ScanSettings, simulate_scan
from braggshot.physics.fourier import pad
from braggshot.physics.lattice import Lattice
from braggshot.physics.metrics import align
from braggshot.physics.strain import phase_differences
from braggshot.plan import Plan, Wish, make_plan

GOLD = 4.078e-10  # edge of the unit cell [m]


@dataclass(frozen=True)
class Outcome:
    """One sigma of the strain that was planned, that came back, and how like the truth the crystal is."""

    planned: float
    measured: float
    correlation: float
    verdict: str


def plan_of(small: bool) -> Plan:
    """Plan gold (111) on the diffractometer of 34-ID-C for a wanted sigma of the strain."""
    size = 180e-9 if small else 300e-9
    return make_plan(
        Wish(
            energy=9000 * electron_volt,
            distance=0.5,
            pixel_size=55e-6,
            shape=(128, 128) if small else (256, 256),
            size=(size, size, size),
            lattice=Lattice((GOLD, GOLD, GOLD)),
            reflection=(1, 1, 1),
            instrument="34idc",
            rate=2e4,
            strain=3e-4,
            resolution=size / 12,
        )
    )


def measure(plan: Plan, seed: int) -> Outcome:
    """Measure a crystal as planned, phase it, and compare its strain with the truth."""
    voxel, frames = plan.resolution, plan.window[0]
    peak = (frames // 2, plan.wish.shape[0] // 2, plan.wish.shape[1] // 2)
    settings = ScanSettings(
        detector_shape=plan.wish.shape, peak=peak, diameter=plan.wish.size[0], phase_range=1.5, counts=plan.exposure.peak,
        hot=0, dead=0, alien=0.0, truth_voxel=voxel,
    )  # fmt: skip
    scan, truth = simulate_scan(seed, plan.geometry, settings)
    found = braggshot.reconstruct(scan, progress=False, method="refine", seed=seed)
    lab = to_lab(found.reconstruction, voxel_size=voxel)
    shape = [max(a, b) for a, b in zip(truth.rho.shape, lab.rho.shape, strict=True)]
    true = pad(torch.from_numpy(truth.rho), shape)
    aligned = align(pad(torch.from_numpy(lab.rho), shape), true)
    unit = truth.q_bragg / np.linalg.norm(truth.q_bragg)
    body = np.abs(true.numpy()) > 0.5
    turns = [phase_differences(field.numpy(), body) for field in (aligned.field, true)]
    wrong = np.angle(np.exp(1j * (turns[0] - turns[1])))[:, ndimage.binary_erosion(body)]
    strain = unit @ wrong / (np.linalg.norm(truth.q_bragg) * voxel)
    planned = float(np.exp(np.interp(
        math.log(plan.exposure.peak), np.log(list(plan.exposure.strain_at)), np.log(list(plan.exposure.strain_at.values()))
    )))  # fmt: skip
    return Outcome(planned, float(np.std(strain)), aligned.correlation, found.verdict)


def main(small: bool = False) -> list[Outcome]:
    """Plan, measure, compare."""
    plan = plan_of(small)
    seconds = plan.exposure.seconds or math.nan
    print(f"planned: {plan.window[0]} frames of {math.degrees(plan.step):.3g} degrees, oversampling "
          f"{', '.join(f'{value:.1f}' for value in plan.oversampling)}, {plan.exposure.peak:.2g} photons in the brightest voxel, "
          f"{seconds:.0f} s")  # fmt: skip
    outcomes = [measure(plan, seed) for seed in range(1, 2 if small else 4)]
    for number, outcome in enumerate(outcomes, 1):
        ratio = outcome.measured / outcome.planned
        print(f"crystal {number}: sigma of the strain planned {outcome.planned:.1e}, measured {outcome.measured:.1e} ({ratio:.2f} "
              f"of it); correlation with the truth {outcome.correlation:.3f}")  # fmt: skip
    return outcomes


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="one small crystal, as the tests run it")
    main(parser.parse_args().small)
