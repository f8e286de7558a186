"""Measure the size of simulated crystals from their counts, and hold it against the true size.

    python benchmarks/crystal_size.py --first-seed 9000001 --n 200 --fine 100

Printed: the measured extent of a crystal over its true extent, per axis, for the size that braggshot measures and for that of the
plain autocorrelation. The true extent is where the amplitude exceeds a tenth of its 99.9th percentile. Crystals of all families;
phase range 0 to 8.5 pi; 1e4 to 1e7 photons in the brightest voxel; a third with gaps of 4 to 12 pixels and dead pixels, a fifth
with a lost frame, a third with background. `--fine` crystals are made on a grid three times as fine, so that the pattern goes on
beyond the window, as a measured one does.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from braggshot.crystals.detector import DetectorSettings
from braggshot.crystals.sample import CrystalSettings, random_crystals, simulate_volume
from braggshot.physics.autocorrelation import autocorrelation, coherent_extent
from braggshot.physics.fourier import fourier, inverse_fourier
from braggshot.physics.sampling import crystal_extent, object_extent

PHASES = ((0, 1), (1, 2.5), (2.5, 4.5), (4.5, 6.5), (6.5, 8.5))  # ranges of the phase range, taken in turn [pi]
OVERSAMPLINGS = (3.2, 3.2, 4.5, 6.0)  # highest oversampling, drawn; the lowest is 2.1 [1]
SIZE = 64  # edge of the pattern [voxels]
FINER = 3  # grid of the fine crystals over that of the pattern

Case = tuple[NDArray[np.float32], NDArray[np.bool_], tuple[int, int, int], float, bool]


def coarse(seed: int) -> Case:
    """Draw a crystal on the grid of its pattern; return counts, valid voxels, true extent, phase range [pi], and whether gaps."""
    rng = np.random.default_rng(seed)
    low, high = PHASES[seed % 5]
    finest = OVERSAMPLINGS[rng.integers(4)]
    gaps, lost, background = rng.random(3) < (1 / 3, 0.2, 0.3)
    detector = DetectorSettings(
        gaps=float(gaps), gap_widths=(4, 6, 8, 12), dead=0.001 * gaps, missing=int(lost), background=(0, 0.05 * background)
    )
    settings = CrystalSettings(
        oversampling=(2.1, finest), phase_range=(low * math.pi, high * math.pi), steepest=2.8, redraws=8, detector=detector
    )
    rho, volume = simulate_volume(seed, settings)
    return np.asarray(volume.intensity), np.asarray(volume.valid), crystal_extent(rho), (low + high) / 2, bool(gaps)


def fine(seed: int) -> Case:
    """Draw a crystal on a finer grid and keep the middle of its pattern; returns the same as `coarse`."""
    rng = np.random.default_rng(seed)
    low, high = PHASES[seed % 5]
    settings = CrystalSettings(
        shape=(FINER * SIZE,) * 3, oversampling=(2.1, OVERSAMPLINGS[rng.integers(4)]),
        phase_range=(low * math.pi, high * math.pi), steepest=2.8 / FINER, redraws=4,
    )  # fmt: skip
    whole = fourier(random_crystals(torch.Generator().manual_seed(seed), 1, settings)[0])
    first = (FINER * SIZE) // 2 - SIZE // 2
    field = whole[(slice(first, first + SIZE),) * 3]
    expected = field.abs().square().numpy()
    counts = rng.poisson(expected * 10 ** rng.uniform(4, 7) / expected.max()).astype(np.float32)
    valid = np.ones(counts.shape, bool)
    gaps = rng.random() < 1 / 3
    if gaps:
        width = (4, 6, 8, 12)[rng.integers(4)]
        row, column = rng.integers(8, SIZE - 8 - width, 2)
        valid[:, row : row + width] = valid[:, :, column : column + width] = False
    return counts * valid, valid, crystal_extent(inverse_fourier(field).numpy()), (low + high) / 2, bool(gaps)


def cases(first_seed: int, number: int, number_fine: int) -> Iterator[Case]:
    """Draw all crystals of a run; the seeds of the fine ones begin 100 000 later."""
    yield from (coarse(seed) for seed in range(first_seed, first_seed + number))
    yield from (fine(seed) for seed in range(first_seed + 100_000, first_seed + 100_000 + number_fine))


def line(name: str, ratios: NDArray[np.float64]) -> str:
    """Return a row of the table for measured over true extents."""
    within, short = np.mean((ratios >= 0.85) & (ratios <= 1.2)), np.mean(ratios < 0.77)
    low, middle, high = np.quantile(ratios, (0.05, 0.5, 0.95))
    return f"| {name} | {ratios.size} | {within:.1%} | {short:.1%} | {low:.2f} {middle:.2f} {high:.2f} | {ratios.min():.2f} |"


def main(arguments: list[str] | None = None) -> None:
    """Print a table with a row for each measure, and for the parts of the set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first-seed", type=int, default=7_000_001)
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--fine", type=int, default=50)
    given = parser.parse_args(arguments)
    white, plain, phases, gaps = [], [], [], []
    for counts, valid, extent, phase, has_gaps in cases(given.first_seed, given.n, given.fine):
        white.append(np.array(object_extent(counts, valid).size) / extent)
        plain.append(np.array(coherent_extent(*autocorrelation(counts, valid))) / extent)
        phases.append(phase)
        gaps.append(has_gaps)
    measured, usual, phase_ranges, with_gaps = np.array(white), np.array(plain), np.array(phases), np.array(gaps)
    print("| measured over true extent | axes | 0.85 to 1.2 | below 0.77 | 5 %, median, 95 % | least |")
    print("|---|---|---|---|---|---|")
    print(line("plain autocorrelation", usual))
    print(line("braggshot", measured))
    for low, high in ((0, 2), (2, 4), (4, 6), (6, 9)):
        chosen = (phase_ranges >= low) & (phase_ranges < high)
        if chosen.any():
            print(line(f"phase range {low} to {high} pi", measured[chosen]))
    for name, chosen in (("without gaps", ~with_gaps), ("with gaps", with_gaps)):
        if chosen.any():
            print(line(name, measured[chosen]))


if __name__ == "__main__":
    main()
