"""Can a pattern alone tell that its crystal has a dislocation? Numbers of the pattern that do not turn with it, and a fit.

    python benchmarks/dislocation_flag.py --train 600 --test 90

Trained on gridded crystals (dislocations in smooth fields to 1.5 pi against smooth fields to 4 pi), tested on sums over atoms
(`benchmarks/dislocations.py`, seeds from 2000 on). Prints the area under the ROC curve and the time per pattern. Not a part of
braggshot.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence

import dislocations
import numpy as np
from scipy import ndimage

from braggshot.crystals import displacement
from braggshot.crystals.sample import CrystalSettings, simulate_volume

FAINTEST = 0.03  # least height of a lobe over the highest [1]
SHEETS, SHEET, AROUND = 60, 0.15, 1.2  # planes through the middle that are tried; their half thickness and extent [speckles]
RADII = (0.5, 1.0, 1.5, 2.0, 3.0)  # [speckles]
PENALTY = 100.0  # of the ridge regression


def features(intensity: np.ndarray, oversampling: Sequence[float]) -> list[float]:
    """Describe a pattern by numbers that do not change when it is turned; lengths in speckles, heights over the highest.

    A dislocation leaves a dark sheet or a dark line through the middle, between lobes; a smooth strain rarely does.
    """
    over = np.asarray(oversampling)
    share = (intensity / intensity.sum()).ravel()
    index = np.indices(intensity.shape).reshape(3, -1)
    middle = index @ share
    away = (index - middle[:, None]) / over[:, None]
    radius = np.sqrt((away**2).sum(axis=0))
    smooth = ndimage.gaussian_filter(intensity.astype(float), over / 4)
    smooth /= smooth.max()
    lobes, heights = find_lobes(smooth, over)
    saddle, gap = 1.0, 0.0
    if len(lobes) > 1:
        between = lobes[0] + np.linspace(0, 1, 31)[:, None] * (lobes[1] - lobes[0])
        saddle = float(ndimage.map_coordinates(smooth, between.T, order=1).min() / heights[1])
        gap = float(np.linalg.norm((lobes[1] - lobes[0]) / over))
    near = radius.reshape(intensity.shape) < RADII[0]
    widths = np.sort(np.linalg.eigvalsh((away * share) @ away.T))[::-1]
    spread = float((share * radius**4).sum() / (share * radius**2).sum() ** 2)
    speckles = [math.log(part.sum() ** 2 / (part**2).sum() / over.prod()) for part in (intensity.astype(float), smooth)]
    return [
        float(ndimage.map_coordinates(smooth, middle[:, None], order=1)[0]),
        *(saddle, gap, float(heights[1:2].sum()), float(heights[2:3].sum())),
        *speckles,
        *np.log(widths + 1e-6),
        *(float(width / widths[0]) for width in widths[1:]),
        *(float(share[radius < limit].sum()) for limit in RADII),
        *(spread, float(smooth[near].min(initial=1)), float(smooth[near].mean()) if near.any() else 0.0),
        darkest_sheet(smooth.ravel()[radius < AROUND], away[:, radius < AROUND]),
        float((heights > 0.3).sum()),
    ]


def find_lobes(smooth: np.ndarray, over: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find maxima at least a speckle apart, and their heights, the highest first."""
    size = [max(3, round(times) | 1) for times in over]
    found = np.argwhere((ndimage.maximum_filter(smooth, size) == smooth) & (smooth > FAINTEST))
    heights = smooth[tuple(found.T)]
    order = np.argsort(-heights)
    return found[order].astype(float), heights[order]


def darkest_sheet(heights: np.ndarray, away: np.ndarray) -> float:
    """Return the mean height in the darkest of many planes through the middle."""
    normals = np.random.default_rng(0).normal(size=(SHEETS, 3))
    normals /= np.linalg.norm(normals, axis=1)[:, None]
    inside = [np.abs(normal @ away) < SHEET for normal in normals]
    return min((float(heights[one].mean()) for one in inside if one.any()), default=0.0)


def products(values: np.ndarray) -> np.ndarray:
    """Return 1, all values and all their products, for a linear fit."""
    values = np.clip(values, -5, 5)
    first, second = np.triu_indices(values.shape[1])
    return np.column_stack([np.ones(len(values)), values, values[:, first] * values[:, second]])


def area_under_curve(scores: np.ndarray, has_line: np.ndarray) -> float:
    """Return the share of pairs, one with and one without a line, that the scores put in the right order."""
    return float((scores[has_line][:, None] > scores[~has_line][None]).mean())


def training(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw gridded crystals, every second with a dislocation; return their features, and which have one."""
    rows = []
    for seed in range(n):
        families = displacement.DISLOCATIONS if seed % 2 else displacement.FIELDS
        settings = CrystalSettings(
            phase_range=(0.0, (1.5 if seed % 2 else 4.0) * math.pi),
            oversampling=(2.2, 4.0),
            anisotropy=1.4,
            counts=(1e4, 1e6),
            shapes=("fcc",),
            displacements=tuple(families),
        )
        _, volume = simulate_volume(500_000 + seed, settings)
        rows.append(features(volume.intensity, volume.oversampling))
    return np.array(rows), np.arange(n) % 2 == 1


def main() -> None:
    """Fit on gridded crystals, test on atomistic ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=600)
    parser.add_argument("--test", type=int, default=90)
    arguments = parser.parse_args()
    known, has_line = training(arguments.train)
    mean, width = known.mean(axis=0), known.std(axis=0) + 1e-9
    design = products((known - mean) / width)
    weights = np.linalg.solve(design.T @ design + PENALTY * np.eye(design.shape[1]), design.T @ (2.0 * has_line - 1))
    scores, truth, spent = [], [], 0.0
    for seed in range(2000, 2000 + arguments.test):
        facts, _, _, volume = dislocations.measure(seed)
        if facts["kind"] != "none" and facts["g_b"] == 0:
            continue
        began = time.perf_counter()
        row = np.array([features(volume.intensity, volume.oversampling)])
        scores.append(float((products((row - mean) / width) @ weights)[0]))
        spent += time.perf_counter() - began
        truth.append(facts["kind"] != "none")
    area = area_under_curve(np.array(scores), np.array(truth))
    print(f"n = {len(truth)}, {sum(truth)} with a line: area {area:.3f}, {spent / len(truth):.2f} s a pattern")


if __name__ == "__main__":
    main()
