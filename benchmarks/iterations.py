"""What one iteration costs beside one bare pair of transforms, what a start weighs, and what a fixed budget achieves.

Run ``asv run --python=same --quick`` in this folder, or ``python iterations.py`` for the table of ratios: the pair and the
iteration are timed in turn in one process, so that the ratio holds where the machine's speed does not.
"""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import time

import torch

from braggshot.iterative.iterate import IterativeConfig, run_starts
from braggshot.iterative.projections import measured
from braggshot.physics.fourier import AXES

SHAPES = [(64, 64, 64), (128, 128, 128), (160, 128, 128)]


def ball(shape, counts=1e6):
    """Noise-free counts of a ball with a bent phase, prepared."""
    z, y, x = torch.meshgrid(*((torch.arange(n) - n // 2) / n for n in shape), indexing="ij")
    rho = (z**2 + y**2 + x**2 < 0.15**2).to(torch.complex64) * torch.exp(20j * z * y)
    intensity = torch.fft.fftshift(torch.fft.fftn(rho, norm="ortho").abs().square())
    valid = torch.ones(shape, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    return measured(intensity * (counts / intensity.max()), valid, (torch.rand(shape, generator=generator) < 0.05))


class Iteration:
    """asv: seconds per iteration averaged over the default recipe, and per bare pair."""

    params = [SHAPES]  # noqa: RUF012  # asv wants plain lists
    param_names = ["shape"]  # noqa: RUF012
    timeout = 600

    def setup(self, shape):
        torch.set_flush_denormal(True)
        self.field = torch.randn(shape, dtype=torch.complex64)
        self.data = ball(shape)

    def time_pair(self, shape):
        torch.fft.ifftn(torch.fft.fftn(self.field, dim=AXES), dim=AXES)

    def time_100_iterations(self, shape):
        for _ in run_starts(self.data, IterativeConfig(recipe="2*(40*HIO+10*ER)"), 1):
            pass

    def peakmem_start(self, shape):
        for _ in run_starts(self.data, IterativeConfig(recipe="5*HIO"), 1):
            pass

    def track_iteration_over_pair(self, shape):
        """The ratio that the goal of 1.6 is about, both timed in turn."""
        (pair, _, iteration), _ = ratio(shape, rounds=3)
        return iteration / pair

    def track_error_after_300(self, shape):
        """Quality after a fixed budget, so that speed is never bought with it."""
        *_, last = run_starts(self.data, IterativeConfig(recipe="5*(40*HIO+10*ER)+50*ER"), 1, seed=1)
        return float(last.error)


def ratio(shape, rounds=7):
    """Median over rounds of (iteration, allocating pair, in-place pair), each timed in turn [ms]."""
    torch.set_flush_denormal(True)
    data, field = ball(shape), torch.randn(shape, dtype=torch.complex64)
    out = torch.empty_like(field)
    recipe = IterativeConfig()
    n = max(3, int(2e7 / field.numel()))
    rows = []
    for _ in range(rounds):
        marks = [time.perf_counter()]
        for _ in range(n):
            torch.fft.ifftn(torch.fft.fftn(field, dim=AXES), dim=AXES)
        marks.append(time.perf_counter())
        for _ in range(n):
            torch.fft.fftn(field, dim=AXES, out=out)
            torch.fft.ifftn(out, dim=AXES, out=out)
        marks.append(time.perf_counter())
        running = run_starts(data, recipe, 1)
        next(running)  # what happens once per start is not an iteration's cost
        began, done = time.perf_counter(), 0
        for done, _ in enumerate(running, 1):
            if done >= 200 and field.numel() > 1e6:
                break
        rows.append([(marks[1] - marks[0]) / n, (marks[2] - marks[1]) / n, (time.perf_counter() - began) / done])
    return [1e3 * statistics.median(column) for column in zip(*rows, strict=True)], rows


def memory(shape):
    """Bytes per voxel that one start adds while it runs: resident size between iterations, in a process of its own (Linux)."""
    code = (
        "import sys; sys.path.insert(0, '.')\n"
        "from iterations import *\n"
        "resident = lambda: int(open('/proc/self/statm').read().split()[1]) * 4096\n"
        "list(run_starts(ball((8, 8, 8)), IterativeConfig('30*HIO+10*ER'), 1))  # what is loaded and compiled once is no start's\n"
        f"d = ball({shape}); before = resident()\n"
        "print(max(resident() for _ in run_starts(d, IterativeConfig('30*HIO+10*ER'), 1)) - before)"
    )
    added = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return int(added) / math.prod(shape)


def main():
    """Print the table of ratios."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print("| shape | pair [ms] | pair, out= [ms] | iteration [ms] | iteration / pair | / pair, out= | bytes per voxel |")
    print("|---|---|---|---|---|---|---|")
    for shape in SHAPES:
        (pair, in_place, iteration), _ = ratio(shape)
        print(
            f"| {'x'.join(map(str, shape))} | {pair:.2f} | {in_place:.2f} | {iteration:.2f} | {iteration / pair:.2f} |"
            f" {iteration / in_place:.2f} | {memory(shape):.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
