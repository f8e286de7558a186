"""cohere (AdvancedPhotonSource/cohere) and braggshot on the same counts: what an iteration costs and what comes out.

    python -m venv /tmp/cohere && /tmp/cohere/bin/pip install cohere_core
    python cohere.py --python /tmp/cohere/bin/python --package np

cohere runs in the environment of its own that ``--python`` names; it needs nothing of braggshot and braggshot nothing of it. Both
start from the same number of random objects. Three rows per volume: cohere with the recipe of its example for 34-ID-C, this engine
with that same recipe and its settings, and this engine as it is shipped. A bare pair of transforms is timed before each. Processor
seconds, so that the ratios hold on a machine that others use too. Nothing is held out, because cohere sees all voxels.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.io import registry
from braggshot.iterative.iterate import FirstSupport, IterativeConfig, run_starts
from braggshot.iterative.projections import ShrinkWrap
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.problem import prepare_measured
from braggshot.physics.fourier import AXES, to_centre, to_corner
from braggshot.physics.metrics import align, misfit
from braggshot.prepare import prepare
from braggshot.volumes import DiffractionVolume

SEQUENCE = "3*(20*ER+180*HIO)+20*ER"
N_ITERATIONS = 3 * (20 + 180) + 20
AS_COHERE = IterativeConfig(
    recipe=SEQUENCE,
    shrink_wrap=ShrinkWrap(period=1, sigma_start=1, sigma_end=1, threshold=(0.1, 0.1), relative_to="max"),
)
SUPPORT_OF_COHERE = FirstSupport(extent=0.5)
CHILD = """
import contextlib, io, sys, time
import numpy as np
folder, package, starts, sequence = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
from cohere_core.controller import phasing
for seed in range(starts):
    np.random.seed(seed)
    if package == "torch":
        import torch
        torch.manual_seed(seed)
        torch.set_num_threads(1)
    settings = dict(algorithm_sequence=sequence, shrink_wrap_trigger=[1, 1], shrink_wrap_type="GAUSS", shrink_wrap_threshold=0.1,
                    shrink_wrap_gauss_sigma=1.0, twin_trigger=[2], twin_halves=[0, 0])
    with contextlib.redirect_stdout(io.StringIO()):
        found = phasing.create_rec(settings, folder + "/data.npy", package, -1, debug=True)
        began = time.process_time()
        found.iterate()
        spent = time.process_time() - began
    to = lambda array: np.asarray(array.cpu() if hasattr(array, "cpu") else array)
    np.savez(f"{folder}/{seed}.npz", image=to(found.ds_image), support=to(found.support), spent=spent)
"""


def peer(volume: DiffractionVolume, python: str, package: str, starts: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, float]]:
    """Object in the corner layout, support, processor seconds an iteration, of each start of cohere.

    Its object goes to the detector by the inverse transform: it is the conjugate of ours.
    """
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "data.npy", np.sqrt(np.where(volume.valid, volume.intensity, 0)).astype(np.float32))
        subprocess.run([python, "-c", CHILD, folder, package, str(starts), SEQUENCE], check=True)
        for seed in range(starts):
            with np.load(Path(folder) / f"{seed}.npz") as found:
                image = to_corner(torch.from_numpy(found["image"].conj().astype(np.complex64)))
                yield image, to_corner(torch.from_numpy(found["support"] > 0)), float(found["spent"]) / N_ITERATIONS


def own(
    volume: DiffractionVolume, recipe: IterativeConfig, first: FirstSupport, starts: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, float]]:
    """The same of braggshot."""
    data = prepare_measured(volume, PhasingConfig(device="cpu", free=0))
    for seed in range(starts):
        running = run_starts(data, recipe, 1, seed, first_support=first)
        next(running)  # what happens once per start is not an iteration's cost
        began, n = time.process_time(), 0
        try:
            while True:
                next(running)
                n += 1
        except StopIteration as finished:
            (start,) = finished.value
        yield start.rho, start.support, (time.process_time() - began) / n


def pair(shape: tuple[int, int, int]) -> float:
    """Processor seconds of a bare pair of transforms."""
    field = torch.randn(shape, dtype=torch.complex64)
    began = time.process_time()
    for _ in range(30):
        torch.fft.ifftn(torch.fft.fftn(field, dim=AXES), dim=AXES)
    return (time.process_time() - began) / 30


def row(volume: DiffractionVolume, truth: torch.Tensor | None, found: Any) -> dict[str, list[float]]:
    """What each start costs and achieves; chi2 over all valid voxels, of the object inside its support."""
    counts, valid = (to_corner(torch.from_numpy(np.ascontiguousarray(array))) for array in (volume.intensity, volume.valid))
    columns: dict[str, list[float]] = {"seconds": [], "chi": [], "correlation": []}
    fields = []
    for rho, support, seconds in found:
        inside = rho * support
        columns["seconds"].append(seconds)
        columns["chi"].append(misfit(torch.fft.fftn(inside, norm="ortho").abs(), counts.float(), valid).chi2 ** 0.5)
        fields.append(to_centre(inside))
    if truth is not None:
        columns["correlation"] = [align(field, truth).correlation for field in fields]
    else:  # nobody knows the truth: whether starts agree
        columns["correlation"] = [align(a, b).correlation for a, b in itertools.combinations(fields, 2)]
    return columns


class Cohere:
    """asv: this engine in units of cohere on a simulated 64^3 crystal, where BRAGGSHOT_COHERE names an interpreter that has it."""

    params = ["braggshot, cohere's recipe", "braggshot"]  # noqa: RUF012  # asv wants plain lists
    param_names = ["recipe"]  # noqa: RUF012
    timeout = 1800

    def setup_cache(self):
        python = os.environ.get("BRAGGSHOT_COHERE")
        if not python:
            return {}  # asv hands on what is there, and of None nothing
        torch.set_flush_denormal(True)
        torch.set_num_threads(1)
        truth, volume = simulate_volume(15_000, settings(64))
        return {engine: row(volume, torch.from_numpy(truth), found) for engine, found in runs(volume, python, ["np"], 2)}

    def setup(self, found, recipe):
        if not found:
            raise NotImplementedError("set BRAGGSHOT_COHERE to a Python that has cohere_core")

    def track_iteration_over_cohere(self, found, recipe):
        return statistics.median(found[recipe]["seconds"]) / statistics.median(found["cohere, np"]["seconds"])

    def track_chi_over_cohere(self, found, recipe):
        return statistics.median(found[recipe]["chi"]) / statistics.median(found["cohere, np"]["chi"])

    def track_correlation_minus_cohere(self, found, recipe):
        return statistics.median(found[recipe]["correlation"]) - statistics.median(found["cohere, np"]["correlation"])


def runs(volume: DiffractionVolume, python: str, packages: list[str], starts: int) -> Iterator[tuple[str, Any]]:
    """The engines, each with what its starts find."""
    for package in packages:
        yield f"cohere, {package}", peer(volume, python, package, starts)
    yield "braggshot, cohere's recipe", own(volume, AS_COHERE, SUPPORT_OF_COHERE, starts)
    yield "braggshot", own(volume, IterativeConfig(), FirstSupport(), starts)


def settings(size: int) -> CrystalSettings:
    """Crystals of a phase range of 3 rad, 1e5 photons in the brightest voxel."""
    return CrystalSettings(shape=(size,) * 3, oversampling=(2.2, 4), phase_range=(3, 3), counts=(1e5, 1e5))


def volumes(asked: argparse.Namespace) -> Iterator[tuple[str, DiffractionVolume, torch.Tensor | None]]:
    """Simulated crystals with their truth, and measured counts without."""
    for seed in range(asked.first, asked.first + asked.crystals):
        truth, volume = simulate_volume(seed, settings(asked.size))
        yield f"crystal {seed}", volume, torch.from_numpy(truth)
    if asked.measured is not None:
        volume = prepare(registry.read(asked.measured))
        yield asked.measured.stem, volume, None


def main() -> None:
    """Print a table per volume."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="interpreter of an environment that has cohere_core")
    parser.add_argument("--package", nargs="+", default=["np"], help="np or torch, what cohere computes with")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--first", type=int, default=15_000)
    parser.add_argument("--crystals", type=int, default=2)
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--measured", type=Path, help="a scan, such as ft_crop_64.tif")
    asked = parser.parse_args()
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    print("| volume | engine | pair [ms] | iteration [ms] | / pair | sqrt(chi2) median (best) | correlation median (best) |")
    print("|---|---|---|---|---|---|---|")
    for name, volume, truth in volumes(asked):
        for engine, found in runs(volume, asked.python, asked.package, asked.starts):
            bare = pair(volume.shape)
            columns = row(volume, truth, found)
            seconds = statistics.median(columns["seconds"])
            chi, same = columns["chi"], columns["correlation"]
            print(
                f"| {name} | {engine} | {1e3 * bare:.2f} | {1e3 * seconds:.2f} | {seconds / bare:.1f} | "
                f"{statistics.median(chi):.4f} ({min(chi):.4f}) | {statistics.median(same):.3f} ({max(same):.3f}) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
