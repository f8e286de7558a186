"""How large is the error of the strain for so many photons? The law that ``braggshot plan`` uses, fitted and tested.

    nice python benchmarks/plan.py rows.jsonl                            # seeds 80000 to 80007, on which the law is fitted
    nice python benchmarks/plan.py rows.jsonl --first 80100 --crystals 6 # other seeds, on which it is tested
    python benchmarks/plan.py rows.jsonl --table                         # fit and tables only

Each row is one crystal (32^3, 40^3 or 48^3 voxels, mild strain) at one exposure, phased. The error is the root mean square of the
difference between the phase gradient found and the true one, central differences, over the axes and over the voxels one layer
inside the surface, the mean removed [rad per voxel]. Rows that are in the file already are not computed again. Crystals that were
not found (correlation below 0.95) are counted and left out of the fit. Only one tournament is held, to save time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, optimize

from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.strategies import phase
from braggshot.physics import exposure, strain
from braggshot.physics.metrics import align
from braggshot.pipeline import drain
from braggshot.volumes import ComplexArray

SIZES = (32, 40, 48)  # edge of the pattern, in turn [voxels]
PEAKS = (1e3, 1e4, 1e5, 1e6)  # photons expected in the brightest voxel
FITTED = 80000  # first seed on which the law is fitted; from 100 seeds on it is tested
Row = dict[str, Any]


def gradient_error(found: ComplexArray, truth: ComplexArray) -> float:
    """Return the root mean square error of the phase gradient [rad per voxel], and NaN for a crystal without inside."""
    aligned = align(torch.from_numpy(found), torch.from_numpy(truth)).field.numpy()
    body = np.abs(truth) > 0.5 * np.quantile(np.abs(truth)[np.abs(truth) > 0], 0.9)
    bulk = ndimage.binary_erosion(body)
    turns = [strain.phase_differences(field, body) for field in (aligned, truth)]
    wrong = np.angle(np.exp(1j * (turns[0] - turns[1])))[:, bulk]
    return float(np.sqrt(((wrong - wrong.mean(1, keepdims=True)) ** 2).mean()))


def measure(seed: int, peak: float, method: str) -> Row:
    """Phase one crystal at one exposure."""
    size = SIZES[seed % len(SIZES)]
    settings = CrystalSettings(
        shape=(size,) * 3, oversampling=(2.3, 3.5), phase_range=(0.5, 3.0), steepest=1.5, counts=(peak, peak),
        displacements=("correlated", "gaussians", "cosines", "bending"),
    )  # fmt: skip
    truth, volume = simulate_volume(seed, settings)
    config = PhasingConfig(method=method, device="cpu", partial_coherence="off", seed=seed, max_tournaments=1)
    began = time.process_time()
    found = drain(phase(volume, config))
    correlation = align(torch.from_numpy(found.rho), torch.from_numpy(truth)).correlation
    inside = int((np.abs(truth) > 0.5 * np.quantile(np.abs(truth)[np.abs(truth) > 0], 0.9)).sum())
    return {
        "seed": seed, "peak": peak, "method": method, "size": size, "photons": float(volume.intensity.sum()), "voxels": inside,
        "correlation": correlation, "error": gradient_error(found.rho, truth), "seconds": round(time.process_time() - began, 2),
    }  # fmt: skip


def photons_per_voxel(row: Row) -> float:
    """Return the photons per voxel of the crystal."""
    return float(row["photons"] / row["voxels"])


def fit(rows: list[Row]) -> dict[float, float]:
    """Fit the values of `exposure.LAW` at its points: least absolute deviations of the logarithms, so outliers do not pull."""
    points = np.array(list(exposure.LAW))
    places = np.log([photons_per_voxel(row) for row in rows])
    errors = np.log([row["error"] for row in rows])

    def misfit(values: NDArray[np.float64]) -> float:
        return float(np.abs(np.interp(places, np.log(points), values) - errors).sum())

    found = optimize.minimize(misfit, np.log(list(exposure.LAW.values())), method="Nelder-Mead", options={"maxiter": 4000})
    return {float(point): float(np.exp(value)) for point, value in zip(points, found.x, strict=True)}


def table(name: str, rows: list[Row]) -> str:
    """Return measured over predicted error for one set of crystals, a row for each exposure."""
    lines = []
    for peak in (*PEAKS, None):
        all_ = [row for row in rows if peak in {row["peak"], None}]
        found = [row for row in all_ if row["correlation"] >= 0.95]
        if found:
            ratio = np.array([row["error"] / exposure.gradient_error(photons_per_voxel(row)) for row in found])
            noise = np.array([row["error"] / exposure.photon_noise(photons_per_voxel(row)) for row in found])
            low, middle, high = np.quantile(ratio, (0.05, 0.5, 0.95))
            within = int(((ratio >= 0.75) & (ratio <= 1.25)).sum())
            start = f"| {name} | {'all' if peak is None else f'{peak:.0e}'} | {len(found)} of {len(all_)} |"
            lines.append(f"{start} {low:.2f} {middle:.2f} {high:.2f} | {within} | {np.median(noise):.2f} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Compute the rows that are missing, then print the fit and the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--first", type=int, default=FITTED)
    parser.add_argument("--crystals", type=int, default=8)
    parser.add_argument("--method", default="auto")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args(arguments)
    rows: list[Row] = [json.loads(line) for line in given.rows.read_text().splitlines()] if given.rows.exists() else []
    done = {(row["seed"], row["peak"], row["method"]) for row in rows}
    for seed, peak in itertools.product(range(given.first, given.first + given.crystals), PEAKS):
        if not given.table and (seed, peak, given.method) not in done:
            rows.append(measure(seed, peak, given.method))
            with given.rows.open("a") as file:
                print(json.dumps(rows[-1]), file=file)
    rows = [row for row in rows if row["method"] == given.method]
    sets = {"fitted": [r for r in rows if r["seed"] < FITTED + 100], "tested": [r for r in rows if r["seed"] >= FITTED + 100]}
    law = fit([row for row in sets["fitted"] if row["correlation"] >= 0.95])
    print("law:", ", ".join(f"{photons:g}: {error:.4f}" for photons, error in law.items()))
    print("| crystals | peak | found | measured / predicted, 5 %, median, 95 % | within 25 % | measured / photon noise |")
    print("|---|---|---|---|---|---|")
    for name, chosen in sets.items():
        if chosen:
            print(table(name, chosen))


if __name__ == "__main__":
    main()
