"""Many scans over dask: what spreading them costs, and what a facility's year of scans would need.

Processor seconds are compared, not the clock's, so the answer holds on a machine that others use too: those of one process that
phases the scans in turn, those of the workers for the same scans, and those of the client with the scheduler.

    python cluster.py --size 64 --scans 8 --method refine --workers 1
    python cluster.py --size 64 --scans 8 --method iterative --starts 3 --series

The first scan does not count: it loads libraries and network, and of a series it is the one that all others follow.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from braggshot import cluster, pipeline, series
from braggshot.cluster import ClusterConfig, connect, reconstruct_many, run_series
from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.io.formats import cxi
from braggshot.pipeline import Settings
from braggshot.series import SeriesSettings, list_sources

SECONDS_OF_BEAM = 5000 * 3600  # a beamline's year
YEAR = 365.25 * 86400


def scans(folder: Path, n: int, size: int, one_crystal: bool) -> list[Path]:
    """Crystals that have nothing to do with each other, or one whose strain grows."""
    settings = CrystalSettings(shape=(size, size, size), counts=(1e5, 1e5))
    paths = [folder / f"scan{number}.cxi" for number in range(n)]
    for number, path in enumerate(paths):
        phases = (1 + number / n,) * 2 if one_crystal else settings.phase_range
        cxi.write_data(path, simulate_volume(0 if one_crystal else number, replace(settings, phase_range=phases))[1])
    return paths


def one_process(paths: list[Path], folder: Path, settings: Settings) -> dict[str, float]:
    """One thread, scan after scan."""
    torch.set_num_threads(1)
    running: Iterator[Any] = (pipeline.reconstruct(path, settings).save(folder, settings.output.formats) for path in paths)
    if isinstance(settings, SeriesSettings):
        running = series.run(list_sources(paths), folder, settings)
    next(running)
    began = (time.perf_counter(), time.process_time())
    for _ in paths[1:]:
        next(running)
    return {"wall": time.perf_counter() - began[0], "processor": time.process_time() - began[1]}


def many(paths: list[Path], folder: Path, settings: Settings, workers: int) -> dict[str, float]:
    """The same on workers that are up and have phased one scan each; of a series, on one that has."""
    began = time.perf_counter()
    with connect("local", workers, ClusterConfig(dashboard=False)) as client:
        up = time.perf_counter() - began
        if isinstance(settings, SeriesSettings):
            running: Iterator[Any] = run_series(list_sources(paths), folder / "rest", client, settings)
            next(running)
        else:
            list(reconstruct_many(paths[:1] * workers, folder / "first", client, settings))
            running = reconstruct_many(paths[1:], folder / "rest", client, settings)
        ready = time.perf_counter() - began
        before = (time.perf_counter(), time.process_time(), sum(client.run(time.process_time).values()))
        for _ in paths[1:]:
            next(running)
        wall, client_seconds = time.perf_counter() - before[0], time.process_time() - before[1]
        processor = sum(client.run(time.process_time).values()) - before[2]
    return {"up": up, "ready": ready, "wall": wall, "processor": processor, "client": client_seconds}


def year(seconds: float, megabytes: float, per_second: float) -> Mapping[str, float]:
    """Scans of a beamline's year at a rate, the cores that keep up with the beam, core-years, terabytes."""
    n = per_second * SECONDS_OF_BEAM
    return {"scans": n, "cores": per_second * seconds, "core_years": n * seconds / YEAR, "terabytes": n * megabytes / 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--scans", type=int, default=9)
    parser.add_argument("--method", default="refine")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--starts", type=int, default=10)
    parser.add_argument("--series", action="store_true", help="one crystal, each scan following the first")
    parser.add_argument("--formats", nargs="+", default=["cxi"])
    asked = parser.parse_args()
    phasing = {"method": asked.method, "starts": asked.starts, "device": "cpu"}
    table: dict[str, Any] = {"phasing": phasing, "output": {"formats": asked.formats}}
    settings = cluster.resolve_series(table) if asked.series else cluster.resolve(table)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        paths = scans(place, asked.scans, asked.size, asked.series)
        alone = one_process(paths, place / "alone", settings)
        spread = many(paths, place, settings, asked.workers)
        files = list((place / "rest").glob("*.*"))
        size = sum(path.stat().st_size for path in files) / 1e6 / len({path.stem for path in files})
    n = asked.scans - 1
    kind = "a series" if asked.series else "scans that stand alone"
    print(f"{asked.size}^3, {asked.method}, {kind}, {n} after the first, {asked.workers} workers")
    print(f"one process     {alone['processor'] / n:8.3f} processor s a scan, {alone['wall'] / n:8.3f} s by the clock")
    print(f"workers         {spread['processor'] / n:8.3f} processor s a scan, {spread['wall'] / n:8.3f} s by the clock")
    print(f"client, scheduler {spread['client'] / n:6.3f} processor s a scan")
    print(f"efficiency      {alone['processor'] / (spread['processor'] + spread['client']):8.3f} (processor time)")
    print(f"workers are up after {spread['up']:.1f} s, each has phased a scan after {spread['ready']:.1f} s")
    for per_second in (1.0, 1 / 60):
        need = year(spread["processor"] / n, size, per_second)
        print(
            f"{per_second:.3g} scans/s for 5000 h: {need['scans']:.3g} scans, {need['cores']:.3g} cores keep up, "
            f"{need['core_years']:.3g} core-years, {need['terabytes']:.3g} TB at {size:.2f} MB each"
        )


if __name__ == "__main__":
    main()
