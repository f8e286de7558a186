"""Does one sigma cover 68 %? Errors of phase and amplitude against the known crystal, over the sigma that the result carries.

    python benchmarks/calibration.py [FIRST SEED] [CRYSTALS] [METHOD]

The factors in `braggshot.phasing.calibration` were set on crystals of the suite ``trust`` (`docs/lab/strain.md`); these are others.
Counted are voxels of the bulk (one layer inside the surface) of crystals whose reconstruction is right; a
crystal counts once, whatever its size.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.evaluation.coverage import bulk_of, errors
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.strategies import phase
from braggshot.phasing.uncertainty import together, with_photon_noise
from braggshot.physics.metrics import align
from braggshot.pipeline import drain

Q = np.array([1.0, 0.0, 0.0])  # so the strain is the turn of the phase from slice to slice
SETTINGS = CrystalSettings(shape=(48, 48, 48), oversampling=(2.2, 3.5), phase_range=(1.0, 1.5 * math.pi), steepest=2.0)
PEAKS = (1e3, 1e4, 1e5, 1e6)


def rows(first: int, number: int, method: str) -> Iterator[tuple[float, str, str, float, float, float]]:
    """Photons in the peak, source, quantity, coverage of one sigma, the factor that would make it 68 %, median sigma."""
    for k, peak in itertools.product(range(number), PEAKS):
        truth, volume = simulate_volume(first + k, replace(SETTINGS, counts=(peak, peak)))
        volume = replace(volume, reciprocal_basis=2 * np.pi * np.eye(3) / np.array(volume.shape), q_bragg=Q)
        config = PhasingConfig(method=method, starts=5, device="cpu", partial_coherence="off")  # type: ignore[arg-type]
        found = drain(phase(volume, config))
        if found.uncertainty is None or align(torch.from_numpy(found.rho), torch.from_numpy(truth)).correlation < 0.95:
            continue
        bulk = bulk_of(found)
        wrong = errors(found, truth, bulk)
        noise = drain(with_photon_noise(replace(found, uncertainty=None), 10)).uncertainty
        for source, spread in (("starts", found.uncertainty), ("photons", noise), ("both", together(found.uncertainty, noise))):
            for name, error in wrong.items():
                sigma = getattr(spread, name)[bulk]
                ratio = np.abs(error) / np.maximum(sigma, 1e-12)
                yield peak, source, name, float((ratio <= 1).mean()), float(np.quantile(ratio, 0.683)), float(np.median(sigma))


def main() -> None:
    """Print a table of medians over crystals."""
    first, number, method = (*sys.argv[1:], *("60000", "6", "iterative")[len(sys.argv) - 1 :])
    found = list(rows(int(first), int(number), method))
    print("| quantity | source | peak | crystals | within 1 sigma | factor to 68 % | median sigma |\n|---|---|---|---|---|---|---|")
    for name, source, peak in itertools.product(("phase", "strain", "amplitude"), ("starts", "photons", "both"), (*PEAKS, None)):
        chosen = np.array([row[3:] for row in found if row[1:3] == (source, name) and peak in (row[0], None)])
        if len(chosen):
            within, factor, sigma = np.median(chosen, 0)
            label = "all" if peak is None else f"{peak:.0e}"
            print(f"| {name} | {source} | {label} | {len(chosen)} | {within:.2f} | {factor:.2f} | {sigma:.3g} |")


if __name__ == "__main__":
    main()
