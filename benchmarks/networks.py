"""What a forward pass and a training step cost, beside the published networks on the same machine.

Run ``asv run --python=same --quick --bench networks`` in this folder, or ``python networks.py`` for the table. The networks take
turns in one process, so that the ratios hold where the machine's speed does not.
"""

from __future__ import annotations

import statistics
import time

import torch

from braggshot.crystals.sample import CrystalSettings, random_volumes
from braggshot.nn import weights
from braggshot.nn.losses import LossConfig, data_term
from braggshot.nn.network import Measurement
from braggshot.nn.predict import fast_bfloat16
from braggshot.nn.two_scale import draw_start

KINDS = ["flagship", "two-scale", "autophasenn", "autophasenn-2024"]
ROUNDS = 3
PRECISIONS = [False, True] if fast_bfloat16(torch.device("cpu")) else [False]  # emulated, 16 bits take minutes


def pattern(size, n=1):
    """Counts of random crystals."""
    generator = torch.Generator().manual_seed(0)
    _, counts, valid = random_volumes(generator, n, CrystalSettings(shape=(size,) * 3, oversampling=(2.1, 4)))
    return Measurement.of(counts, valid)


def begun(network, data):
    """Where a network starts on counts."""
    return draw_start(network, data, torch.Generator().manual_seed(0))


def forward(network, data, begin, half):
    """One prediction; `half` takes convolutions in bfloat16."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
        return network(data.magnitude, data.valid, begin)


def train(network, data, begin, half):
    """Forward and backward through the transform loss."""
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        outputs = network(data.magnitude, data.valid, begin)
    sum(data_term(magnitude, data, LossConfig()) for _, magnitude in outputs).backward()


class Forward:
    """asv: seconds per forward pass at 64^3."""

    params = [KINDS, PRECISIONS]  # noqa: RUF012  # asv wants plain lists
    param_names = ["network", "bfloat16"]  # noqa: RUF012
    timeout = 300

    def setup(self, kind, half):
        torch.set_flush_denormal(True)
        self.network, self.data = weights.build_network(kind).eval(), pattern(64)
        self.begin = begun(self.network, self.data)

    def time_forward(self, kind, half):
        forward(self.network, self.data, self.begin, half)


class AgainstPublished:
    """asv: a forward pass at 64^3 in units of that of the published network in 32 bits."""

    params = [["flagship", "two-scale", "autophasenn-2024"], PRECISIONS]  # noqa: RUF012  # asv wants plain lists
    param_names = ["network", "bfloat16"]  # noqa: RUF012
    timeout = 600

    def setup_cache(self):
        torch.set_flush_denormal(True)
        return row(64, 1, forward)

    def track_forward_over_published(self, seconds, kind, half):
        return seconds[kind, half] / seconds["autophasenn", False]


def row(size, n, job):
    """Median seconds per crystal of every network in either precision."""
    data = pattern(size, n)
    networks = {kind: weights.build_network(kind).eval() for kind in KINDS}
    starts = {kind: begun(network, data) for kind, network in networks.items()}
    spent = {(kind, half): [] for kind in KINDS for half in PRECISIONS}
    for _ in range(ROUNDS + 1):
        for (kind, half), seconds in spent.items():
            began = time.perf_counter()
            job(networks[kind], data, starts[kind], half)
            seconds.append((time.perf_counter() - began) / n)
    return {key: statistics.median(seconds[1:]) for key, seconds in spent.items()}


def main():
    """Print the table; ratios are against the published network in 32 bits."""
    torch.set_flush_denormal(True)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, median of {ROUNDS}")
    print("| network | parameters [M] | precision | forward 64^3 [s] | / published | training 32^3 [s per crystal] |")
    print("|---|---|---|---|---|---|")
    alone, training = row(64, 1, forward), row(32, 4, train)
    for (kind, half), seconds in alone.items():
        size = sum(p.numel() for p in weights.build_network(kind).parameters()) / 1e6
        ratio = seconds / alone["autophasenn", False]
        precision = "bfloat16" if half else "32 bits"
        print(f"| {kind} | {size:.2f} | {precision} | {seconds:.3f} | {ratio:.2f} | {training[kind, half]:.3f} |")


if __name__ == "__main__":
    main()
