"""How often the verdict is right: many simulated crystals, easy to hopeless, each phased as a user would.

    python benchmarks/verdicts.py --first 21000 --crystals 60 -o verdicts.csv

Limits were set on the crystals from 20 000 on; the table in the documentation is of those from 21 000 on. The truth of a
reconstruction is its aligned complex correlation with the true crystal: right (>= 0.95), near (0.85 to 0.95) or wrong.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import torch

from braggshot.crystals.detector import DetectorSettings
from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.strategies import phase
from braggshot.phasing.verdict import noise_floor
from braggshot.physics.fourier import fourier
from braggshot.physics.metrics import align
from braggshot.volumes import ComplexArray, DiffractionVolume

COLUMNS = ("seed", "kind", "correlation", "verdict", "agreeing", "excess", "llk", "llk_free", "oversampling", "psf", "reasons")
KINDS = ("ordinary", "ordinary", "ordinary", "strained", "few photons", "undersampled", "saturated", "second crystal", "gaps")


def draw(seed: int, size: int) -> tuple[str, ComplexArray, DiffractionVolume]:
    """A crystal of the kind that its seed says, and its measurement."""
    kind = KINDS[seed % len(KINDS)]
    ordinary = CrystalSettings(shape=(size,) * 3, oversampling=(2.3, 4.0), phase_range=(0, math.pi), counts=(1e4, 1e6))
    settings = {
        "strained": replace(ordinary, phase_range=(2 * math.pi, 4 * math.pi)),
        "few photons": replace(ordinary, counts=(1e2, 5e2)),
        "undersampled": replace(ordinary, oversampling=(1.4, 1.8)),
        "gaps": replace(ordinary, detector=DetectorSettings(gaps=1, gap_widths=(6,))),
    }.get(kind, ordinary)
    rho, volume = simulate_volume(seed, settings)
    if kind == "saturated":
        cap = float(np.quantile(volume.intensity, 1 - 30 / volume.intensity.size))
        volume = replace(volume, intensity=np.minimum(volume.intensity, np.float32(cap)))
    if kind == "second crystal":
        other, _ = simulate_volume(seed + 500_000, ordinary)
        # Another grain, elsewhere in the beam and at half the amplitude: its pattern adds coherently.
        scale = 0.5 * np.linalg.norm(rho) / np.linalg.norm(other)
        both = rho + scale * np.roll(other, size // 2 - 2, axis=2)
        expected = fourier(torch.from_numpy(both.astype(np.complex64))).abs().square()
        counts = torch.poisson(expected, generator=torch.Generator().manual_seed(seed)).numpy()
        volume = replace(volume, intensity=counts)
    return kind, rho, volume


def main() -> None:
    """Print the confusion table and keep what each verdict was made of in a CSV file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=21_000)
    parser.add_argument("--crystals", type=int, default=54)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("-o", "--output", default="verdicts.csv")
    arguments = parser.parse_args()
    counter: Counter[tuple[str, str]] = Counter()
    with open(arguments.output, "w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(COLUMNS)
        for seed in range(arguments.first, arguments.first + arguments.crystals):
            kind, rho, volume = draw(seed, arguments.size)
            running = phase(volume, PhasingConfig(starts=arguments.starts, seed=seed, device="cpu"))
            try:
                while True:
                    next(running)
            except StopIteration as finished:
                result = finished.value
            correlation = align(torch.from_numpy(result.rho), torch.from_numpy(rho)).correlation
            quality = result.quality
            agreeing = (sum(value >= 0.95 for value in quality.agreement) - 1) / max(1, len(quality.agreement) - 1)
            excess = math.sqrt(max(0.0, quality.chi2 - noise_floor(volume.intensity, volume.valid)))
            truth = "right" if correlation >= 0.95 else "near" if correlation >= 0.85 else "wrong"
            counter[result.verdict, truth] += 1
            numbers = (agreeing, excess, quality.llk, quality.llk_free, min(volume.oversampling or (0.0,)))
            row = (seed, kind, f"{correlation:.3f}", result.verdict, *(f"{value:.4g}" for value in numbers))
            table.writerow((*row, result.psf is not None, " ".join(result.reasons)))
            stream.flush()
    print("| verdict | right (>= 0.95) | near (0.85 to 0.95) | wrong (< 0.85) |\n|---|---|---|---|")
    for verdict in ("good", "doubtful", "failed"):
        print(f"| {verdict} | " + " | ".join(str(counter[verdict, truth]) for truth in ("right", "near", "wrong")) + " |")


if __name__ == "__main__":
    main()
