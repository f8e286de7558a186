"""Every method on the same crystals: how long it takes in units of five random starts, and how often it is right.

Run ``asv run --python=same --quick --bench methods`` in this folder, or ``python methods.py --crystals 6 --size 64`` for the table;
``braggshot evaluate`` does the same at length. Processor seconds, so that the ratios hold on a machine that others use too.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.evaluation.methods import Choice, phasing_of
from braggshot.phasing.strategies import phase
from braggshot.physics.metrics import align
from braggshot.pipeline import drain

METHODS = ["oneshot", "refine", "auto", "iterative-1", "iterative-5"]
UNIT = "iterative-5"


def phased(method: str, seed: int, size: int) -> dict[str, float]:
    """Processor seconds, correlation with the truth and sqrt(chi2) of one crystal."""
    settings = CrystalSettings(shape=(size,) * 3, oversampling=(2.2, 4), phase_range=(3, 3), counts=(1e5, 1e5))
    truth, volume = simulate_volume(seed, settings)
    config = phasing_of(method, Choice(device="cpu"), coherent=True)
    began = time.process_time()
    found = drain(phase(volume, config))
    seconds = time.process_time() - began
    correlation = align(torch.from_numpy(found.rho), torch.from_numpy(truth)).correlation
    return {"seconds": seconds, "correlation": correlation, "chi": found.quality.chi2**0.5}


def table(crystals: int, size: int) -> dict[str, dict[str, float]]:
    """Medians of each method; the first crystal, which loads what is loaded once, is done twice and counts once."""
    torch.set_flush_denormal(True)
    found: dict[str, list[dict[str, float]]] = {method: [] for method in METHODS}
    for seed in (16_000, *range(16_000, 16_000 + crystals)):
        for method, rows in found.items():
            rows.append(phased(method, seed, size))
    medians = {}
    for method, rows in found.items():
        columns = {name: [row[name] for row in rows[1:]] for name in rows[0]}
        medians[method] = {name: statistics.median(column) for name, column in columns.items()}
        medians[method]["success"] = sum(value >= 0.95 for value in columns["correlation"]) / crystals
    for row in medians.values():
        row["over"] = row["seconds"] / medians[UNIT]["seconds"]
    return medians


class Methods:
    """asv: speed and quality side by side, so that neither is bought with the other."""

    params = METHODS
    param_names = ["method"]  # noqa: RUF012  # asv wants plain lists
    timeout = 1800

    def setup_cache(self):
        return table(crystals=3, size=48)

    def track_seconds_over_five_starts(self, medians, method):
        return medians[method]["over"]

    def track_correlation(self, medians, method):
        return medians[method]["correlation"]

    def track_chi(self, medians, method):
        return medians[method]["chi"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crystals", type=int, default=6)
    parser.add_argument("--size", type=int, default=64)
    asked = parser.parse_args()
    print(
        "| method | processor [s] | / five starts | success | median correlation | median sqrt(chi2) |\n|---|---|---|---|---|---|"
    )
    for method, row in table(asked.crystals, asked.size).items():
        print(
            f"| `{method}` | {row['seconds']:.2f} | {row['over']:.2f} | {row['success']:.2f} | {row['correlation']:.3f} | "
            f"{row['chi']:.4f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
