"""The loop over the scans of a cluster run; each is reported as soon as it is done, in the order in which they are."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distributed import Client, Future, as_completed

from braggshot import config as configuration
from braggshot import pipeline
from braggshot.cluster.connect import LOST, ClusterConfig
from braggshot.cluster.jobs import Job, Record, failed, jobs_of, recorded, work
from braggshot.cluster.network import Network
from braggshot.errors import ClusterError
from braggshot.io.atomic import sweep
from braggshot.nn import weights
from braggshot.pipeline import Settings
from braggshot.series import Source

MOST_IDLE = 5  # rounds without a single scan done


@dataclass(frozen=True)
class ClusterSettings(Settings):
    """The settings of the main job, and those of the cluster."""

    cluster: ClusterConfig = field(default_factory=ClusterConfig)


@dataclass(frozen=True)
class Report:
    """One scan that is done, or cannot be.

    Parameters
    ----------
    done, total : scans so far, and in all
    record : as ``braggshot reconstruct --json`` prints it, with `name` and `files`; of a scan that could not be computed only
        `input`, `output`, `name`, `verdict`, `reasons`
    reused : whether an earlier call had done it
    """

    done: int
    total: int
    record: Record
    reused: bool = False

    @property
    def failed(self) -> bool:
        """Whether the scan could not be computed; a verdict of ``failed`` alone is a result."""
        return "chi2" not in self.record


def resolve(settings: Mapping[str, Any]) -> ClusterSettings:
    """Nested settings to `ClusterSettings`, every name and value checked."""
    return configuration.resolve(ClusterSettings, settings)


def reconstruct_many(
    scans: Sequence[str | Path | Source],
    folder: str | Path,
    client: Client,
    settings: Settings | Mapping[str, Any] | None = None,
) -> Iterator[Report]:
    """Phase scans on a cluster, yielding a report of each as it is done; the caller may stop at any time and call again.

    A scan whose files are there, made with the same settings, is reported and not computed. One call at a time writes to a folder.

    Parameters
    ----------
    scans : paths, or scans of files that hold several
    folder : gets ``<name>.cxi``, the other formats asked for, and ``<name>.json``, per scan
    client : of `connect`
    settings : resolved or nested, as in a TOML file

    Raises
    ------
    ConfigError : for settings that fit no scan.
    OutputError : if the folder cannot be written.
    ClusterError : if the scheduler is gone and does not come back.
    """
    resolved = settings if isinstance(settings, Settings) else resolve(settings or {})
    folder = Path(folder).absolute()
    pipeline.check_writable(folder)
    sweep(folder)
    network, name = None, resolved.phasing.network
    if resolved.phasing.method != "iterative":
        network = Network(*weights.read(weights.locate(name)), name)
    jobs = jobs_of(scans, folder, resolved, None if network is None else network.digest)
    missing: dict[str, Job] = {}
    done = 0
    for job in jobs:
        record = recorded(job)
        if record is None:
            missing[job.name] = job
        else:
            done += 1
            yield Report(done, len(jobs), record, reused=True)
    idle = 0
    while missing:
        before = done
        for finished, record in _round(client, list(missing.values()), network):
            del missing[finished]
            done += 1
            yield Report(done, len(jobs), record)
        if missing:
            idle = idle + 1 if done == before else 0
            _wait_for_scheduler(client, idle)
    sweep(folder)  # what a killed worker was writing


def _round(client: Client, jobs: Sequence[Job], network: Network | None) -> Iterator[tuple[str, Record]]:
    """Submit jobs and yield what comes back; ends early, and silently, if the scheduler is lost on the way."""
    token = uuid.uuid4().hex[:8]
    plugin = None if network is None else f"braggshot-network-{token}"
    futures: dict[Future[Record], Job] = {}
    try:
        with suppress(*LOST):
            if network is not None:
                client.register_plugin(network, plugin)
            for number, job in enumerate(jobs):
                # Keys of one group let the scheduler keep scans back until a worker is free, whichever that is.
                futures[client.submit(work, job, plugin, key=(f"reconstruct-{token}", number), pure=False)] = job
        for future in as_completed(list(futures), loop=client.loop):
            job, record = futures.pop(future), None
            with suppress(*LOST):
                record = failed(job, future.exception()) if future.status == "error" else future.result()
            if record is not None:
                yield job.name, record
    finally:
        if client.status == "running":
            with suppress(*LOST):
                client.cancel(list(futures))
                if plugin is not None:
                    client.unregister_worker_plugin(plugin)


def _wait_for_scheduler(client: Client, idle: int) -> None:
    """Until dask has connected again, which it tries for `ClusterConfig.patience`; `idle` rounds have brought nothing."""
    time.sleep(1)
    while client.status == "connecting":
        time.sleep(0.2)
    if client.status != "running" or idle > MOST_IDLE:
        raise ClusterError("the scheduler is gone; start it and call again: what is done stays, and only the rest is computed.")
