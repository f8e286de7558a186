"""Scans whose frames are off their rocking angles, phased as if they were even, and with the angles found.

    python benchmarks/drift.py --first-seed 9800001 --n 10

Each simulated crystal is measured at even angles, at angles that drift by a smooth curve (given by its largest deviation), and at
angles with white jitter (given by its standard deviation), and phased by `refine`. A line is printed for each result, and a table
at the end.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from braggshot.crystals import displacement
from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.evaluation.rows import on_window
from braggshot.evaluation.trust import drift_curve, resample_frames
from braggshot.phasing.config import PhasingConfig
from braggshot.physics.forward import intensity
from braggshot.physics.scores import SUCCESS, compare
from braggshot.physics.uneven_frames import without_line
from braggshot.pipeline import drain, prepare_and_phase
from braggshot.prepare import PrepareConfig
from braggshot.volumes import Scan

SETTINGS = CrystalSettings(
    shape=(48, 48, 48), oversampling=(2.4, 3.5), phase_range=(0, 2 * math.pi), displacements=tuple(displacement.FIELDS), redraws=8,
    counts=(1e5, 1e6),
)  # fmt: skip
CASES = ("even", "drift 4", "white 0.5", "drift 1", "drift 2", "drift 16")
ARMS = ("off", "auto")


@dataclass(frozen=True)
class Row:
    """One result against its true crystal; `wrong` is the rms error of the angles [steps], `seconds` are of the processor."""

    seed: int
    case: str
    arm: str
    correlation: float
    verdict: str
    seconds: float
    wrong: float
    said: str


def measure(seed: int, case: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw a crystal, the deviations of its frames [steps], and the counts."""
    truth, _ = simulate_volume(seed, SETTINGS)
    generator, frames = torch.Generator().manual_seed(seed), SETTINGS.shape[0]
    kind, _, size = case.partition(" ")
    moved = torch.zeros(frames, dtype=torch.float64)
    if kind == "drift":
        moved = drift_curve(generator, frames, float(size))
    elif kind == "white":
        moved = float(size) * torch.randn(frames, generator=generator, dtype=torch.float64)
    expected = resample_frames(intensity(torch.from_numpy(truth)), moved)
    return truth, moved.numpy(), torch.poisson(expected, generator=generator).numpy().astype(np.int32)


def phase(seed: int, case: str, arm: str, method: str) -> Row:
    """Measure a crystal and phase it."""
    truth, moved, counts = measure(seed, case)
    began = time.process_time()
    settings = PhasingConfig(device="cpu", seed=seed % 1000, method=method)
    found = drain(prepare_and_phase(Scan(counts, name=f"drift_{seed}"), PrepareConfig(drift=arm), settings))
    seconds = time.process_time() - began
    told = found.volume.provenance.get("frames_off")
    wrong = float("nan") if told is None else float(np.std(np.array(told) - without_line(moved)))
    correlation = compare(on_window(truth, found.volume), found.rho).correlation
    return Row(seed, case, arm, correlation, found.verdict, seconds, wrong, found.choices.get("rocking angles", ""))


def tabulate(rows: Sequence[Row]) -> str:
    """Return the table of all cells."""
    lines = [
        "| frames | angles | n | found | 0.98 | correlation, median | least | good, doubtful, failed | told | rms error | cpu s |",
        "|" + "---|" * 11,
    ]
    for case in CASES:
        for arm in ARMS:
            cell = [row for row in rows if (row.case, row.arm) == (case, arm)]
            if not cell:
                continue
            correlation = np.array([row.correlation for row in cell])
            verdicts = ", ".join(str(sum(row.verdict == one for row in cell)) for one in ("good", "doubtful", "failed"))
            wrong = [row.wrong for row in cell if np.isfinite(row.wrong)]
            lines.append(
                f"| {case} | {arm} | {len(cell)} | {(correlation >= SUCCESS).sum()} | {(correlation >= 0.98).sum()} "
                f"| {np.median(correlation):.3f} | {correlation.min():.3f} | {verdicts} | {len(wrong)} "
                f"| {np.median(wrong) if wrong else float('nan'):.3f} | {np.mean([row.seconds for row in cell]):.0f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Run all cells and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first-seed", type=int, default=9800001)
    parser.add_argument("--n", type=int, default=10, help="crystals")
    parser.add_argument("--cases", nargs="+", default=CASES)
    parser.add_argument("--method", default="refine")
    arguments = parser.parse_args()
    rows = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.n):
        for case in arguments.cases:
            for arm in ARMS:
                rows.append(phase(seed, case, arm, arguments.method))
                print(rows[-1], flush=True)
        print(tabulate(rows), flush=True)


if __name__ == "__main__":
    main()
