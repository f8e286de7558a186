"""Repeats of one scan: the sum of several weak ones against one scan of their total exposure, and which of them are left out.

    python benchmarks/repeats.py --first-seed 9800001 --n 6
    python benchmarks/repeats.py --settle --first-seed 9810001 --n 20

Six scans of each crystal lie up to 1.5 voxels from each other, have different masks, and have a quarter of the photons each. One of
them is another state: its strain changed, or the crystal turned away. With ``--settle`` nothing is phased: it prints how much the
scans differ, from which the limits of `braggshot.prepare.repeats` were settled.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.evaluation.rows import on_window
from braggshot.phasing.config import PhasingConfig
from braggshot.physics.forward import intensity
from braggshot.physics.scores import compare
from braggshot.pipeline import drain, prepare_and_phase
from braggshot.prepare import PrepareConfig, RepeatsConfig, sum_repeats
from braggshot.prepare.alignment import measure_shift
from braggshot.prepare.repeats import choose_reference, match
from braggshot.volumes import BoolArray, ComplexArray, FloatArray, Scan

SETTINGS = CrystalSettings(
    shape=(48, 48, 48), oversampling=(2.5, 4.0), phase_range=(math.pi, 2 * math.pi), steepest=1.5, counts=(4e4, 4e5)
)
SCANS, CHANGED = 6, 3  # scans of each crystal, and the one among them that is another state
CHANGES = ("more strain", "less strain", "another place", "turned")
FAR = 14.0  # voxels by which the pattern of a crystal that has turned lies away
NOTHING = PrepareConfig(self_flat="off")


@dataclass(frozen=True)
class Row:
    """One way to phase a crystal, against the truth."""

    seed: int
    change: str
    arm: str
    correlation: float
    verdict: str
    left_out: tuple[int, ...]


def ramp(rho: ComplexArray, shift: FloatArray) -> ComplexArray:
    """Return a crystal with the ramp of the phase that moves its pattern by a shift in voxels."""
    ramps = [np.exp(2j * np.pi * part * (np.arange(n) - n // 2) / n) for part, n in zip(shift, rho.shape, strict=True)]
    return (rho * ramps[0][:, None, None] * ramps[1][:, None] * ramps[2]).astype(np.complex64)


def pattern(rho: ComplexArray, shift: FloatArray) -> FloatArray:
    """Return the expected photons of a crystal, the pattern moved by a shift in voxels."""
    return intensity(torch.from_numpy(ramp(rho, shift))).numpy()


def change(rho: ComplexArray, kind: str, random: np.random.Generator) -> ComplexArray:
    """Return another state of a crystal: a third more or less strain, or a new bend of one radian between its ends."""
    if kind == "turned":
        return rho
    inside = np.abs(rho) > 0
    if kind == "another place":
        axes = np.indices(rho.shape) - np.array(rho.shape)[:, None, None, None] // 2
        along = np.tensordot(random.normal(size=3), axes, 1)
        along = along / np.abs(along[inside]).max()
        return (rho * np.exp(1j * along**2 * 1.5)).astype(np.complex64)
    from skimage.restoration import unwrap_phase

    phase = np.ma.filled(unwrap_phase(np.ma.masked_array(np.angle(rho), ~inside)), 0.0)
    return (rho * np.exp(1j * phase * (0.33 if kind == "more strain" else -0.33))).astype(np.complex64)


def draw_mask(random: np.random.Generator, shape: Sequence[int]) -> BoolArray:
    """Draw a mask: 1 % of the pixels, and a gap of three columns away from the peak."""
    mask = np.ones(tuple(shape), dtype=bool)
    mask &= random.random(tuple(shape[1:])) > 0.01
    middle = shape[2] // 2
    gap = int(random.choice([*range(6, middle - 6), *range(middle + 6, shape[2] - 6)]))
    mask[:, :, gap : gap + 3] = False
    return mask


def draw_repeats(
    seed: int, kind: str, settings: CrystalSettings = SETTINGS, share: float = 0.25
) -> tuple[ComplexArray, list[Scan], Scan]:  # fmt: skip
    """Draw a crystal, its repeats with one in another state, and one scan with the exposure of all the others."""
    truth, _ = simulate_volume(seed, settings)
    random = np.random.default_rng(seed)
    changed = change(truth, kind, random)
    scans = []
    for index in range(SCANS):
        is_other = index == CHANGED and kind != "none"
        shift = random.uniform(-1.5, 1.5, 3) + (FAR if is_other and kind == "turned" else 0)
        mask = draw_mask(random, settings.shape)
        counts = random.poisson(share * pattern(changed if is_other else truth, shift)) * mask
        scans.append(Scan(counts.astype(np.int32), f"repeat_{seed}_{index}", valid=mask))
    whole = random.poisson(share * (SCANS - 1) * pattern(truth, np.zeros(3))).astype(np.int32)
    return truth, scans, Scan(whole, f"single_{seed}")


def phase(seed: int, kind: str, arm: str, truth: ComplexArray, scan: Scan, left_out: Sequence[int] = ()) -> Row:
    """Phase a scan and compare the crystal with the truth."""
    expected = pattern(truth, np.zeros(3))
    valid = np.ones(expected.shape, dtype=bool) if scan.valid is None else scan.valid
    moved = measure_shift(np.asarray(scan.frames, np.float32), valid, expected, np.ones_like(valid))
    truth = ramp(truth, moved)  # where the peak lies is no property of the crystal
    found = drain(prepare_and_phase(scan, NOTHING, PhasingConfig(device="cpu", seed=seed % 1000)))
    correlation = compare(on_window(truth, found.volume), found.rho).correlation
    return Row(seed, kind, arm, correlation, found.verdict, tuple(left_out))


def left_out(scans: Sequence[Scan], total: Scan) -> tuple[int, ...]:
    """List the numbers of the scans that a sum leaves out."""
    return tuple(index for index, scan in enumerate(scans) if f"left out {scan.name}:" in str(total.provenance["repeats"]))


def settle(seed: int, kind: str, share: float) -> str:
    """Return how far each scan of a crystal lies and differs from the others, in a line."""
    _, scans, _ = draw_repeats(seed, kind, share=share)
    patches = [(np.asarray(scan.frames, np.float32), scan.valid) for scan in scans]
    first, shifts = choose_reference(patches)
    matches = match(patches, first, shifts, RepeatsConfig())
    told = " ".join(
        f"{found.difference.unlike:.3f}/{found.difference.chi2:.2f}/{found.difference.voxels}{'x' if found.fault else ''}"
        for found in matches
    )
    return f"{seed} {kind} {share:g} ref {first}: {told}"


def main() -> None:
    """Run all crystals and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first-seed", type=int, default=9800001)
    parser.add_argument("--n", type=int, default=6, help="crystals")
    parser.add_argument("--share", type=float, nargs="+", default=[0.25], help="photons of one scan over those of the crystal")
    parser.add_argument("--settle", action="store_true", help="phase nothing, print how much the scans differ")
    parser.add_argument("--arms", nargs="+", default=["single", "sum", "fractions left", "one"])
    arguments = parser.parse_args()
    for number, seed in enumerate(range(arguments.first_seed, arguments.first_seed + arguments.n)):
        kind = CHANGES[number % len(CHANGES)]
        for share in arguments.share:
            if arguments.settle:
                print(settle(seed, kind, share), flush=True)
                continue
            truth, scans, single = draw_repeats(seed, kind, share=share)
            total = sum_repeats(scans, NOTHING)
            left = sum_repeats(scans, NOTHING, RepeatsConfig(interpolate=False))
            brightest = max((scan for index, scan in enumerate(scans) if index != CHANGED), key=lambda scan: scan.frames.sum())
            arms = {"single": single, "sum": total, "fractions left": left, "one": brightest}
            for arm in arguments.arms:
                gone = left_out(scans, arms[arm]) if arm in {"sum", "fractions left"} else ()
                print(share, phase(seed, kind, arm, truth, arms[arm], gone), flush=True)


if __name__ == "__main__":
    main()
