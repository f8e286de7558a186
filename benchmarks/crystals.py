"""How fast crystals are drawn, which must not hold training up, and how often they have the phase range that was asked for.

Run ``asv run --python=same --quick --bench crystals`` in this folder, or ``python crystals.py`` for the tables. They state time of
the processor beside that of the clock: on a shared machine the former says more.
"""

from __future__ import annotations

import itertools
import math
import time

import torch

from braggshot.crystals.detector import DetectorSettings
from braggshot.crystals.kinematic import diffract_atoms
from braggshot.crystals.sample import CrystalSettings, random_volumes, simulate_volume

SIZES = [32, 48, 64]
BATCH = 16
EVERYTHING = DetectorSettings(
    background=(0, 0.1), point_spread=(0, 0.7), gaps=0.3, beam_stop=(0, 3), dead=1e-3, saturation=1e6, missing=2
)


class Batches:
    """asv: seconds per batch of 16 with a perfect detector and with every blemish."""

    params = [SIZES]  # noqa: RUF012  # asv wants plain lists
    param_names = ["size"]  # noqa: RUF012

    def setup(self, size):
        torch.set_flush_denormal(True)
        self.generator = torch.Generator().manual_seed(0)
        self.clean = CrystalSettings(shape=(size,) * 3)
        self.blemished = CrystalSettings(shape=(size,) * 3, detector=EVERYTHING)

    def time_clean(self, size):
        random_volumes(self.generator, BATCH, self.clean)

    def time_blemished(self, size):
        random_volumes(self.generator, BATCH, self.blemished)


class Atoms:
    """asv: seconds for the sum over a thousand atoms at 64^3."""

    def setup(self):
        self.positions = 1e-8 * torch.rand(1000, 3, dtype=torch.float64)
        self.q = torch.full((3,), 1.5e10, dtype=torch.float64)
        self.basis = 1.5e8 * torch.eye(3, dtype=torch.float64)

    def time_sum(self):
        diffract_atoms(self.positions, self.q, self.basis, (64, 64, 64))


def speed() -> None:
    """Milliseconds per crystal, the fastest of seven batches."""
    print("| size | detector | processor [ms] | clock [ms] | crystals/s |\n|---|---|---|---|---|")
    for size in SIZES:
        for name, detector in (("perfect", DetectorSettings()), ("blemished", EVERYTHING)):
            settings = CrystalSettings(shape=(size,) * 3, detector=detector)
            generator = torch.Generator().manual_seed(0)
            spent = []
            for _ in range(7):
                clock, processor = time.perf_counter(), time.process_time()
                random_volumes(generator, BATCH, settings)
                spent.append((time.perf_counter() - clock, time.process_time() - processor))
            clock, processor = (1e3 * min(column) / BATCH for column in zip(*spent, strict=True))
            print(f"| {size} | {name} | {processor:.1f} | {clock:.1f} | {1e3 / clock:.0f} |", flush=True)


def reach(crystals: int = 100) -> None:
    """Share of crystals with the phase range asked for, at oversampling 2 to 3; dislocations are left out, they add to it."""
    print("| size | range / pi | redraws | share | median that came out / pi |\n|---|---|---|---|---|")
    smooth = tuple(name for name in CrystalSettings().displacements if name not in ("screw", "edge"))
    for size, wanted, redraws in itertools.product((32, 64), (2, 4, 6), (0, 5)):
        settings = CrystalSettings(
            shape=(size,) * 3, oversampling=(2, 3), phase_range=(wanted * math.pi,) * 2, displacements=smooth, redraws=redraws
        )
        found = [simulate_volume(seed, settings)[1].provenance["phase_range"] / math.pi for seed in range(crystals)]
        share = sum(value > 0.99 * wanted for value in found) / crystals
        print(f"| {size} | {wanted} | {redraws} | {share:.2f} | {sorted(found)[crystals // 2]:.2f} |", flush=True)


if __name__ == "__main__":
    torch.set_flush_denormal(True)
    print(f"{torch.get_num_threads()} threads")
    speed()
    reach()
