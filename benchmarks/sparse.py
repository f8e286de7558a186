"""A changing crystal scanned with few frames: phased alone, and in a series from the crystal of the scan before.

    python benchmarks/sparse.py -o out --arms full half quarter eighth exposure alone

Ten scans of each of three crystals: the charging and the corroding one of the examples, and one through which a screw dislocation
glides. Besides, the corroding one jumps between two states, and two crystals swap places, so that the neighbour is wrong.

The first scan has all its frames; of each other one every second, fourth or eighth is kept, from another one on each time. Or all
frames are kept and a quarter of the exposure. A row says how well the crystal correlates with the true one, and how well the change
of its strain since the scan before correlates with the true change, over the voxels inside both true crystals. Where the true
change spreads by less than 5e-5, its correlation says nothing, and is left out of the last table.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import charging
import corrosion
import operando as op

from braggshot import series
from braggshot.crystals import shapes
from braggshot.crystals.grid import Grid, centred_grid
from braggshot.io import registry, results
from braggshot.io.beamlines.aps_34idc import write_scan
from braggshot.physics import metrics
from braggshot.physics.fourier import fourier, inverse_fourier, inverted, pad
from braggshot.physics.geometry import direct_basis
from braggshot.physics.strain import gradient, mean_turn, phase_differences, without_ramp
from braggshot.physics.strain import strain as strain_of
from braggshot.pipeline import drain, prepare_and_phase
from braggshot.volumes import ComplexArray, FloatArray, Reconstruction

ARMS = {"full": (1, 1.0), "half": (2, 1.0), "quarter": (4, 1.0), "eighth": (8, 1.0), "exposure": (1, 0.25)}
LEAST = 5e-5  # spread of the true change of strain from which its correlation counts [1]
RADIUS = 165.0  # of the crystal with the gliding dislocation [nm]


@dataclass(frozen=True)
class Row:
    """One scan, phased in one way, against the truth: in the twin of the first scan, and in the better twin."""

    crystal: str
    arm: str
    scan: int
    correlation: float
    either_twin: float
    change_correlation: float
    change: float
    missed: float
    verdict: str
    start: str | None
    seconds: float


@dataclass(frozen=True)
class Measured:
    """A scan on disk, and the complex amplitude that it samples on the grid of all frames, from the first kept one on."""

    path: Path
    amplitude: torch.Tensor
    every: int


def gliding(t: float, experiment: op.Experiment) -> op.Crystal:
    """Make a gold crystal at time t, 0 to 1, while a screw dislocation glides from one side to the other."""
    body = shapes.polyhedron(
        op.normals(experiment, corrosion.OCTAHEDRON + corrosion.CUBE),
        torch.tensor([[0.97 * RADIUS] * 8 + [1.04 * RADIUS] * 6]),
    )
    a, b, line = (torch.from_numpy(v).float()[None] for v in experiment.orientation.T)
    place, strained = a * RADIUS * (1.3 * t - 0.65) + 0.12 * RADIUS * b, (0.35 * b + 0.3 * line) * RADIUS

    def phase(grid: Grid) -> torch.Tensor:
        away, seen = grid.shift_origin(strained), grid.shift_origin(place)
        squared = sum(away.dot(v) ** 2 for v in (a, b, line))
        return 1.5 * torch.exp(-squared / (2 * (0.5 * RADIUS) ** 2)) + torch.atan2(seen.dot(b), seen.dot(a))

    return op.Crystal(body, phase)


EXPERIMENTS = {
    "charging": charging.FULL,
    "corroding": replace(corrosion.FULL, step_deg=0.009),
    "gliding": replace(corrosion.FULL, step_deg=0.009),
    "jumping": replace(corrosion.FULL, step_deg=0.009),
    "swapped": replace(corrosion.FULL, step_deg=0.009),
}
JUMPS = (0.3, 0.4, 1.0, 0.95, 0.3, 0.9, 0.4, 0.35, 1.0, 0.3)  # times of the corroding crystal, again and again


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Parameters
    ----------
    crystal, n, seed : which crystal, number of its scans, and seed of the photons of the first
    every, exposure : frame that is kept of so many, and share of the photons, in all scans but the first
    side, window : frames, rows and columns of a scan; edge of the volume that is phased
    """

    crystal: str
    n: int
    seed: int
    every: int
    exposure: float
    side: int = 64
    window: int = 48

    @property
    def experiment(self) -> op.Experiment:
        """The experiment, with scans of `side` frames, rows and columns."""
        return replace(EXPERIMENTS[self.crystal], shape=(self.side,) * 3)


def crystals_of(plan: Plan) -> list[op.Crystal]:
    """List the crystals of a series: one that changes, one that jumps between two states, or two crystals in turn."""
    name, n, experiment = plan.crystal, plan.n, plan.experiment
    times = np.linspace(0, 1, n).tolist()
    if name == "jumping":
        return [corrosion.crystal(JUMPS[number % len(JUMPS)], experiment) for number in range(n)]
    if name == "swapped":
        return [(gliding if number % 2 else corrosion.crystal)(0.3 + 0.4 * t, experiment) for number, t in enumerate(times)]
    make = {"charging": charging.crystal, "corroding": corrosion.crystal, "gliding": gliding}[name]
    return [make(t, experiment) for t in times]


def amplitude(crystal: op.Crystal, experiment: op.Experiment, photons: float) -> torch.Tensor:
    """Return the complex amplitude on every pixel of every frame, with so many photons in the brightest [sqrt(photons)]."""
    reciprocal, q = experiment.grid
    z, y, x = (n // 2 for n in experiment.shape)
    grid = centred_grid(torch.from_numpy(direct_basis(reciprocal, experiment.shape) / op.NM).float()[None], (z, y, x))
    phase = grid.dot(torch.from_numpy((q - experiment.g) * op.NM).float()[None]) + crystal.phase(grid)
    field = fourier(pad(torch.polar(shapes.amplitude(crystal.depth(grid)), -phase), experiment.shape)[0])
    return field * (math.sqrt(photons) / field.abs().max())


def measure(folder: Path, plan: Plan) -> list[Measured]:
    """Write the scans: the first with all its frames and photons, of the others every so manieth frame."""
    experiment = plan.experiment
    angle, scans = np.asarray(experiment.geometry.sample[0].angle), []
    for number, crystal in enumerate(crystals_of(plan)):
        step, share = (1, 1.0) if number == 0 else (plan.every, plan.exposure)
        field = amplitude(crystal, experiment, share * experiment.counts)
        counts = torch.poisson(field.abs() ** 2, generator=torch.Generator().manual_seed(plan.seed + number)).int().numpy()
        first = (3 * number) % step
        path = write_scan(folder / f"t{number:02d}", counts[first::step], angle[first::step], experiment.geometry, 1)
        scans.append(Measured(path, field[first:], step))
    return scans


def true_crystal(scan: Measured, found: Reconstruction) -> ComplexArray:
    """Return the true crystal on the grid of a reconstruction, which may have all planes or only the measured ones."""
    window, field = found.volume.window, scan.amplitude.numpy()
    assert window is not None
    assert window.binning == (1, 1, 1)
    if window.raw_shape[0] == len(field[:: scan.every]):
        field = field[:: scan.every]
    whole = np.zeros(found.rho.shape, dtype=np.complex64)
    to, of = [], []
    for start, size, there in zip(window.start, found.rho.shape, field.shape, strict=True):
        low, high = max(0, start), min(there, start + size)
        of.append(slice(low, high))
        to.append(slice(low - start, high - start))
    whole[tuple(to)] = field[tuple(of)]
    return inverse_fourier(torch.from_numpy(whole)).numpy()


Pair = tuple[ComplexArray, ComplexArray]  # a recovered crystal and the true one, aligned


def strain_map(rho: ComplexArray, inside: np.ndarray, basis: FloatArray, q: FloatArray) -> FloatArray:
    """Compute the strain along q about its mean, inside a body."""
    flat = without_ramp(rho, mean_turn(np.where(inside, rho, 0)))
    return strain_of(gradient(phase_differences(flat, inside), basis), q)


def compare(scan: Measured, found: Reconstruction, twin: bool | None = None) -> tuple[float, bool, Pair]:
    """Align a crystal with the true one, sub-voxel; return their correlation, whether its twin was taken, and both fields.

    The twin is that of the first scan, if given: one that turns from scan to scan is a fault of the series.
    """
    true = torch.from_numpy(true_crystal(scan, found))
    rho = torch.from_numpy(np.where(found.support, found.rho, 0).astype(np.complex64))
    rho = inverted(rho).conj().resolve_conj() if twin else rho
    placed = metrics.align(rho, true, allow_twin=twin is None)
    return placed.correlation, placed.twin if twin is None else twin, (placed.field.numpy(), true.numpy())


def change(before: Pair | None, now: Pair, found: Reconstruction) -> tuple[float, float, float]:
    """Compare the change of the strain with the true one: their correlation, the spread of the true one, and of what is missed."""
    if before is None or found.basis is None or found.volume.q_bragg is None:
        return math.nan, math.nan, math.nan
    bodies = [np.abs(true) > 0.5 * np.abs(true).max() for _, true in (before, now)]
    bulk = ndimage.binary_erosion(bodies[0]) & ndimage.binary_erosion(bodies[1])
    maps = [
        [strain_map(rho, body, found.basis, found.volume.q_bragg)[bulk] for rho in pair]
        for pair, body in zip((before, now), bodies, strict=True)
    ]
    recovered, true = maps[1][0] - maps[0][0], maps[1][1] - maps[0][1]
    return float(np.corrcoef(recovered, true)[0, 1]), float(true.std()), float((recovered - true).std())


def settings_of(plan: Plan) -> series.SeriesSettings:
    """Return the settings of all arms: the defaults, on a volume of one size."""
    return series.resolve(
        {
            "prepare": {"shape": [plan.window] * 3, "binning": [1, 1, 1]},
            "strain": {"reflection": [1, 1, 1], "lattice": [plan.experiment.cell]},
            "phasing": {"device": "cpu", "max_tournaments": 2},
            "series": {"movie": False},
        }
    )


def follow(folder: Path, plan: Plan, arm: str) -> list[Row]:
    """Phase the scans as a series."""
    scans, name, settings = measure(folder / "raw", plan), plan.crystal, settings_of(plan)
    rows: list[Row] = []
    before: Pair | None = None
    twin: bool | None = None
    sources = [source for scan in scans for source in series.list_sources([scan.path])]
    for number, report in enumerate(series.run(sources, folder / "series", settings)):
        path = folder / "series" / f"{report.row['name']}.cxi"
        if not path.exists():
            rows.append(Row(name, arm, number, math.nan, math.nan, math.nan, math.nan, math.nan, "failed", None, math.nan))
            continue
        found = results.read(path)
        correlation, twin, now = compare(scans[number], found, None if name == "swapped" else twin)
        row, (either, _, _) = report.row, compare(scans[number], found)
        rows.append(
            Row(name, arm, number, correlation, either, *change(before, now, found), row["verdict"], row["start"], row["seconds"])
        )
        print(json.dumps(asdict(rows[-1])), flush=True)
        before = now
    return rows


def phase_alone(folder: Path, plan: Plan, arm: str) -> list[Row]:
    """Phase each scan but the first by itself."""
    scans, name, settings = measure(folder / "raw", plan), plan.crystal, settings_of(plan)
    rows: list[Row] = []
    shape = (plan.window // plan.every, plan.window, plan.window)
    for number, scan in enumerate(scans[1:], start=1):
        began = time.perf_counter()
        preparation = replace(settings.prepare, shape=shape)
        found = drain(prepare_and_phase(registry.read(scan.path), preparation, settings.phasing))
        correlation, _, _ = compare(scan, found)
        spent = time.perf_counter() - began
        rows.append(
            Row(name, f"{arm}, alone", number, correlation, correlation, math.nan, math.nan, math.nan, found.verdict, "cold", spent)
        )
        print(json.dumps(asdict(rows[-1])), flush=True)
    return rows


def table(rows: Sequence[Row]) -> str:
    """Write the last table: a line for each crystal and way; the first scan of a series does not count."""
    lines = [
        "| crystal | frames | >= 0.95 | in either twin | median | least | change: n | median | missed | good, of them < 0.95 | s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for crystal, arm in dict.fromkeys((row.crystal, row.arm) for row in rows):
        own = [row for row in rows if (row.crystal, row.arm) == (crystal, arm) and row.scan > 0]
        found = np.nan_to_num([row.correlation for row in own])
        told = [row for row in own if row.change >= LEAST]
        good = [row for row in own if row.verdict == "good"]
        either = sum(row.either_twin >= 0.95 for row in own)
        changes = np.median([row.change_correlation for row in told]) if told else math.nan
        missed = np.median([row.missed for row in told]) if told else math.nan
        lines.append(
            f"| {crystal} | {arm} | {(found >= 0.95).sum()} of {len(own)} | {either} | {np.median(found):.3f} | {found.min():.3f} "
            f"| {len(told)} | {changes:.2f} | {missed:.1e} | {len(good)}, {sum(row.correlation < 0.95 for row in good)} "
            f"| {np.nanmedian([row.seconds for row in own]):.0f} |"
        )
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    """Measure, phase, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("sparse-output"))
    parser.add_argument("--crystals", nargs="+", default=list(EXPERIMENTS)[:3], choices=list(EXPERIMENTS))
    parser.add_argument("--arms", nargs="+", default=["quarter"], choices=[*ARMS, *(f"{arm}-alone" for arm in ARMS)])
    parser.add_argument("--n", type=int, default=10, help="scans of each crystal")
    parser.add_argument("--first-seed", type=int, default=9_900_001)
    parser.add_argument("--side", type=int, default=Plan.side, help="frames, rows and columns of a scan")
    parser.add_argument("--window", type=int, default=Plan.window, help="edge of the volume that is phased")
    chosen, rows = parser.parse_args(words), []
    for crystal in chosen.crystals:
        for arm in chosen.arms:
            folder, (kind, _, alone) = chosen.output / crystal / arm, arm.partition("-")
            plan = Plan(crystal, chosen.n, chosen.first_seed, *ARMS[kind], chosen.side, chosen.window)
            rows += (phase_alone if alone else follow)(folder, plan, kind)
    (chosen.output / "rows.json").write_text(json.dumps([asdict(row) for row in rows], indent=1))
    print(table(rows))


if __name__ == "__main__":
    main()
