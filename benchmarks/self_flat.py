"""Scans of detectors that count unevenly: without a flat field, with the one estimated from the scan, and with the true one.

    python benchmarks/self_flat.py --first-seed 9700001 --n 6

Each simulated crystal is measured by detectors whose pixels' gains have a standard deviation of 0, 5, 10 and 20 %, over a dim
background, and phased by `auto`. A line is printed for each result, and a table at the end.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.evaluation.rows import on_window
from braggshot.phasing.config import PhasingConfig
from braggshot.physics.forward import intensity
from braggshot.physics.scores import compare
from braggshot.pipeline import drain, prepare_and_phase
from braggshot.prepare import PrepareConfig
from braggshot.volumes import ComplexArray, FloatArray, Scan

SETTINGS = CrystalSettings(shape=(72, 64, 64), oversampling=(2.5, 4.0), phase_range=(0.5, 5.0), steepest=1.5, counts=(1e5, 1e6))
BACKGROUND = 0.01  # photons per voxel [1]
SPREADS = (0.0, 0.05, 0.1, 0.2)
ARMS = ("without", "from the scan", "true")


@dataclass(frozen=True)
class Row:
    """One result against its true crystal; `seconds` are of the processor."""

    seed: int
    spread: float
    arm: str
    correlation: float
    verdict: str
    seconds: float
    said: str
    gain: float


def measure(seed: int, spread: float, settings: CrystalSettings) -> tuple[ComplexArray, FloatArray, FloatArray]:
    """Draw a crystal, the gain of each pixel, and the counts; one seed gives the same crystal and pattern for each spread."""
    truth, _ = simulate_volume(seed, settings)
    random = np.random.default_rng(seed)
    gain = np.maximum(1 + spread * random.normal(size=settings.shape[1:]), 0.2)
    expected = intensity(torch.from_numpy(truth)).numpy() + BACKGROUND
    return truth, gain, random.poisson(gain * expected).astype(np.int32)


def phase(seed: int, spread: float, arm: str, settings: CrystalSettings) -> Row:
    """Measure a crystal and phase it."""
    truth, gain, counts = measure(seed, spread, settings)
    scan = Scan(counts, name=f"uneven_{seed}", flat=gain if arm == "true" else None)
    preparation = PrepareConfig(self_flat="auto" if arm == "from the scan" else "off")
    began = time.process_time()
    found = drain(prepare_and_phase(scan, preparation, PhasingConfig(device="cpu", seed=seed % 1000)))
    seconds = time.process_time() - began
    correlation = compare(on_window(truth, found.volume), found.rho).correlation
    told = found.volume.gain
    seen = counts.sum(0) > 300
    right = float("nan") if told is None or spread == 0 else float(np.corrcoef(told[seen], gain[seen])[0, 1])
    return Row(seed, spread, arm, correlation, found.verdict, seconds, found.choices.get("flat field", ""), right)


def tabulate(rows: Sequence[Row]) -> str:
    """Return the table of all cells."""
    lines = [
        "| gains spread | flat field | n | found | good | good, wrong | correlation, mean | least | kept | gains right | cpu s |",
        "|" + "---|" * 11,
    ]
    for spread in SPREADS:
        for arm in ARMS:
            cell = [row for row in rows if (row.spread, row.arm) == (spread, arm)]
            if not cell:
                continue
            correlation = np.array([row.correlation for row in cell])
            good = np.array([row.verdict == "good" for row in cell])
            right = [row.gain for row in cell if np.isfinite(row.gain)]
            lines.append(
                f"| {100 * spread:.0f} % | {arm} | {len(cell)} | {(correlation >= 0.95).sum()} | {good.sum()} "
                f"| {(good & (correlation < 0.95)).sum()} | {correlation.mean():.3f} | {correlation.min():.3f} "
                f"| {sum('estimated from the scan itself' in row.said and 'not used' not in row.said for row in cell)} "
                f"| {np.mean(right) if right else float('nan'):.2f} | {np.mean([row.seconds for row in cell]):.0f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Run all cells and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first-seed", type=int, default=9700001)
    parser.add_argument("--n", type=int, default=6, help="crystals")
    parser.add_argument(
        "--phase-range", type=float, nargs=2, default=SETTINGS.phase_range, help="range of the crystals' phase [rad]"
    )
    parser.add_argument("--spreads", type=float, nargs="+", default=SPREADS)
    arguments = parser.parse_args()
    settings = replace(SETTINGS, phase_range=tuple(arguments.phase_range))
    rows = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.n):
        for spread in arguments.spreads:
            for arm in ARMS if spread else ARMS[:2]:
                rows.append(phase(seed, spread, arm, settings))
                print(rows[-1], flush=True)
        print(tabulate(rows), flush=True)


if __name__ == "__main__":
    main()
