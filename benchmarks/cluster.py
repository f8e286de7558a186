"""Many scans over dask: what spreading them costs, and what a facility's year of scans would need.

Processor seconds are compared, not the clock's, so the answer holds on a machine that others use too: those of one process that
phases the scans in turn, those of the workers for the same scans, and those of the client with the scheduler.

    python cluster.py --size 64 --scans 8 --method refine --workers 1
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from braggshot import cluster, pipeline
from braggshot.cluster import ClusterConfig, ClusterSettings, connect, reconstruct_many
from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.io import cxi

SECONDS_OF_BEAM = 5000 * 3600  # a beamline's year
YEAR = 365.25 * 86400


def scans(folder: Path, n: int, size: int) -> list[Path]:
    settings = CrystalSettings(shape=(size, size, size), counts=(1e5, 1e5))
    paths = [folder / f"scan{number}.cxi" for number in range(n)]
    for number, path in enumerate(paths):
        cxi.write_data(path, simulate_volume(number, settings)[1])
    return paths


def one_process(paths: list[Path], folder: Path, settings: ClusterSettings) -> dict[str, float]:
    """One thread, scan after scan; the first one, which loads libraries and network, does not count."""
    torch.set_num_threads(1)
    began = (time.perf_counter(), time.process_time())
    for number, path in enumerate(paths):
        if number == 1:
            began = (time.perf_counter(), time.process_time())
        pipeline.write(pipeline.finish(pipeline.run(path, settings)), folder, settings.output.formats)
    return {"wall": time.perf_counter() - began[0], "processor": time.process_time() - began[1]}


def many(paths: list[Path], folder: Path, settings: ClusterSettings, workers: int) -> dict[str, float]:
    """The same on workers that are up and have phased one scan each."""
    began = time.perf_counter()
    with connect("local", workers, ClusterConfig(dashboard=False)) as client:
        up = time.perf_counter() - began
        list(reconstruct_many(paths[:1] * workers, folder / "first", client, settings))
        ready = time.perf_counter() - began
        before = (time.perf_counter(), time.process_time(), sum(client.run(time.process_time).values()))
        reports = list(reconstruct_many(paths[1:], folder / "rest", client, settings))
        wall, client_seconds = time.perf_counter() - before[0], time.process_time() - before[1]
        processor = sum(client.run(time.process_time).values()) - before[2]
    assert not any(report.failed for report in reports)
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
    parser.add_argument("--formats", nargs="+", default=["cxi"])
    asked = parser.parse_args()
    table: dict[str, Any] = {"phasing": {"method": asked.method, "device": "cpu"}, "output": {"formats": asked.formats}}
    settings = cluster.resolve(table)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        paths = scans(place, asked.scans, asked.size)
        alone = one_process(paths, place / "alone", settings)
        spread = many(paths, place, settings, asked.workers)
        size = sum(path.stat().st_size for path in (place / "rest").iterdir()) / 1e6 / (asked.scans - 1)
    n = asked.scans - 1
    print(f"{asked.size}^3, {asked.method}, {n} scans after the first, {asked.workers} workers")
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
