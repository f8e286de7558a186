"""Write a set of atomistic crystals to disk, one CXI each with its truth; relaxing them is too slow to do it on the fly.

    python benchmarks/atomistic.py -o DIR --n 40 --first-seed 0

A crystal that is there already is not made again. Needs the extra `atomistic`. Splits are by seed: sets for tests begin at 0, those
for training at 100 000.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch

from braggshot.config import parse_assignments, resolve
from braggshot.crystals.atomistic import AtomisticSettings, simulate_atomistic
from braggshot.io.formats import cxi


def main() -> None:
    """Print one row per crystal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--n", type=int, default=40)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], help="a setting of AtomisticSettings, such as oversampling=[2,3]")
    arguments = parser.parse_args()
    settings = resolve(AtomisticSettings, parse_assignments(arguments.set))
    arguments.output.mkdir(parents=True, exist_ok=True)
    torch.set_flush_denormal(True)
    print("| seed | element | load | hkl | dislocations | atoms | phase range / pi | clock [s] | processor [s] |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.n):
        path = arguments.output / f"atomistic_{seed:06d}.cxi"
        if path.exists():
            continue
        clock, processor = time.perf_counter(), time.process_time()
        rho, volume = simulate_atomistic(seed, settings)
        cxi.write_data(path, volume, rho)
        facts = volume.provenance["atomistic"]
        cells = [seed, *(facts[name] for name in ("element", "load", "reflection", "dislocations", "atoms"))]
        spent = f"{time.perf_counter() - clock:.0f} | {time.process_time() - processor:.0f}"
        numbers = f"{facts['phase_range'] / math.pi:.2f} | {spent}"
        print("|", " | ".join(map(str, cells)), "|", numbers, "|", flush=True)


if __name__ == "__main__":
    main()
