"""How much memory a scan takes from prepared counts to its result on disk, against what `braggshot.phasing.memory` asks for.

    python memory.py                                                  # every method on every shape
    python memory.py --methods iterative --shapes 128,128,128 --starts 10 --hypotheses 5

Each cell is a process of its own (Linux): it phases a small crystal, so that libraries, network and compiled code are there, and
then the large one. What grows is its resident size at the peak. Recipes are short; iterations do not gather memory.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

SHAPES = ("64,64,64", "96,96,96", "128,128,128", "118,180,230", "256,256,256")
METHODS = ["iterative", "refine", "oneshot", "auto"]


def resident(field: str = "VmRSS") -> int:
    """Bytes that this process holds; "VmHWM" since the peak was last forgotten."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(lines[field].split()[0])


def phased(shape: Sequence[int], method: str, starts: int, hypotheses: int, folder: Path) -> tuple[int, int, int, float]:
    """Bytes held before, and at the peak of phasing and of the whole; seconds."""
    import numpy as np

    from braggshot import output, pipeline
    from braggshot.crystals.sample import CrystalSettings, simulate_volume
    from braggshot.iterative.iterate import IterativeConfig
    from braggshot.phasing.config import PhasingConfig
    from braggshot.phasing.rounds import Round, TournamentConfig
    from braggshot.phasing.strategies import phase
    from braggshot.phasing.verdict import Limits

    z, y, x = shape
    _, volume = simulate_volume(1, CrystalSettings(shape=(z, y, x), counts=(1e6, 1e6), phase_range=(1, 1)))
    q = np.array([0.0, 2.7e10, 0.0])
    volume = replace(volume, reciprocal_basis=np.diag([2 * math.pi / (n * 8e-9) for n in shape]), q_bragg=q)  # voxels of 8 nm
    short = IterativeConfig(recipe="4*HIO+2*ER", shrink_wrap=replace(IterativeConfig().shrink_wrap, period=3))
    one = Round("4*HIO+2*ER", 2.0, 1.0)
    phasing = PhasingConfig(
        method=method,
        starts=starts,
        hypotheses=hypotheses,
        tournament=(quick := TournamentConfig(opening=one, narrowing=one, settling=one, finish=one)),
        volume_tournament=quick,
        device="cpu",
        refine=short,
        iterative=short,
        coherence_recipe="PSF+4*ER",
        limits=Limits(llk_free=0.0),  # never good, so that "auto" holds all its searches
    )
    settings = pipeline.Settings(phasing=phasing)
    Path("/proc/self/clear_refs").write_text("5")
    began, before = time.perf_counter(), resident()
    found = pipeline.drain(phase(volume, phasing))
    peak = resident("VmHWM")
    output.write(pipeline.drain(pipeline.finish_result(found, settings, {})), folder, ("cxi",))
    return before, peak, resident("VmHWM"), time.perf_counter() - began


def here(shape: Sequence[int], method: str, starts: int, hypotheses: int) -> dict[str, float]:
    """What phasing one volume takes and would be asked for, of this process [MB], and how long it was [s]."""
    from braggshot.phasing.config import PhasingConfig
    from braggshot.phasing.memory import needed
    from braggshot.phasing.strategies import find_strategy

    with tempfile.TemporaryDirectory() as folder:
        phased((32, 32, 32), method, starts, hypotheses, Path(folder))
        before, phasing, whole, seconds = phased(shape, method, starts, hypotheses, Path(folder))
    config, strategy = PhasingConfig(method=method, starts=starts, hypotheses=hypotheses), find_strategy(method)
    asked = needed(shape, strategy.host_bytes, strategy.kept_starts(config))
    bytes_of = {"phasing": phasing - before, "taken": whole - before, "asked": asked, "process": whole}
    return {**{name: count / 1e6 for name, count in bytes_of.items()}, "seconds": seconds}


def measured(shape: str, method: str, starts: int, hypotheses: int) -> dict[str, float]:
    """The same of a process of its own."""
    counts = ["--starts", str(starts), "--hypotheses", str(hypotheses)]
    command = [sys.executable, __file__, "--here", "--shapes", shape, "--methods", method, *counts]
    found: dict[str, float] = json.loads(
        subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
    )
    return found


class Memory:
    """asv: what phasing takes at its peak, over what is asked for before it begins."""

    params = METHODS
    param_names = ["method"]  # noqa: RUF012  # asv wants plain lists
    timeout = 600

    def track_taken_over_asked(self, method):
        found = measured("96,96,96", method, 2, 2)
        return found["taken"] / found["asked"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="Z,Y,X")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--starts", type=int, default=2)
    parser.add_argument("--hypotheses", type=int, default=2)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    counts = asked.starts, asked.hypotheses
    if asked.here:
        print(json.dumps(here([int(n) for n in asked.shapes[0].split(",")], asked.methods[0], *counts)))
        return
    print(f"{counts[0]} random starts, {counts[1]} hypotheses, {os.environ.get('OMP_NUM_THREADS', 'all')} threads")
    print("| volume | method | phasing [MB] | until written [MB] | [B/voxel] | asked for [MB] | taken / asked | process [GB] | s |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for shape in asked.shapes:
        voxels = math.prod(int(n) for n in shape.split(","))
        for method in asked.methods:
            found = measured(shape, method, *counts)
            taken, wanted, process = found["taken"], found["asked"], found["process"] / 1e3
            print(
                f"| {shape.replace(',', ' x ')} | `{method}` | {found['phasing']:.0f} | {taken:.0f} | {taken * 1e6 / voxels:.0f} | "
                f"{wanted:.0f} | {taken / wanted:.2f} | {process:.2f} | {found['seconds']:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
