"""Crystals whose shape and phase have a centre of inversion: radial and cosine fields in cubes, balls and cylinders.

    python benchmarks/even_fields.py --first-seed 100 --n 30 --size 32

Crystal and twin fill the same body there, and random starts stagnate between them. Each crystal is drawn and phased by its seed
alone, so a run may be made in parts. A crystal is found where the complex correlation with the truth is at least 0.95.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from braggshot.crystals.even import draw_even
from braggshot.phasing import PhasingConfig, phase
from braggshot.physics.metrics import align
from braggshot.pipeline import drain
from braggshot.volumes import DiffractionVolume

FOUND = 0.95


def draw(seed: int, size: int) -> tuple[str, torch.Tensor, DiffractionVolume]:
    """Draw a crystal, its name, and its counts."""
    name, _, rho, expected = draw_even(seed, size)
    counts = torch.poisson(expected, generator=torch.Generator().manual_seed(seed)).numpy()
    return name, rho, DiffractionVolume(counts.astype(np.float32), np.ones(counts.shape, bool), name=name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--n", type=int, default=30)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--method", default="auto")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = 0
    print("| seed | crystal | correlation | verdict | llk_free | how | processor s |\n|---|---|---|---|---|---|---|")
    for seed in range(given.first_seed, given.first_seed + given.n):
        name, rho, volume = draw(seed, given.size)
        began = time.process_time()
        result = drain(phase(volume, PhasingConfig(method=given.method, device="cpu")))
        seconds, correlation = time.process_time() - began, float(align(torch.from_numpy(result.rho), rho).correlation)
        found += correlation >= FOUND
        llk_free = result.quality.llk_free
        print(
            f"| {seed} | {name} | {correlation:.3f} | {result.verdict} | {llk_free:.2f} | {result.method} | {seconds:.0f} |",
            flush=True,
        )
    print(f"\n{found} of {given.n} found")


if __name__ == "__main__":
    main()
