"""Phase a series of scans of one crystal on a cluster, as `braggshot.series.run` does on one machine.

Scans that start from the result of the same earlier scan are phased in parallel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from distributed import Client

from braggshot import config as configuration
from braggshot import pipeline
from braggshot.cluster.connect import ClusterConfig
from braggshot.cluster.jobs import Job, Record
from braggshot.cluster.workers import Workers, workers_of
from braggshot.phasing.strategies import Trained
from braggshot.series import Report, SeriesSettings, Source, Task, phase_scan, run, table
from braggshot.series.table import Row
from braggshot.volumes import Reconstruction


@dataclass(frozen=True, repr=False)
class ClusterSeriesSettings(SeriesSettings):
    """Settings of phasing a series of scans, and settings of the cluster."""

    cluster: ClusterConfig = field(default_factory=ClusterConfig)


def resolve_series(settings: Mapping[str, Any]) -> ClusterSeriesSettings:
    """Turn nested settings into `ClusterSeriesSettings`; every name and value is checked.

    By default every scan uses the result of the first one. If each used the result of the scan before it, only one scan at a time
    could be phased.
    """
    return configuration.resolve(ClusterSeriesSettings, configuration.merge({"series": {"neighbour": "first"}}, settings))


def run_series(
    scans: Sequence[Source], folder: str | Path, client: Client, settings: SeriesSettings | None = None
) -> Iterator[Report]:
    """Phase a series of scans on a cluster, and yield a report of each scan as soon as it is done.

    The caller may stop at any time; a second call goes on with the scans that are missing.

    The results equal those of `braggshot.series.run` with the same settings, bit for bit if the number of threads is the same.

    Parameters
    ----------
    scans : from `braggshot.series.list_sources`, in the order in which the crystal changed
    folder : gets the table ``series.csv``, and for each scan a result CXI, and ``<name>.json`` with the scan's row of the table
    client : connection to the cluster, from `connect`
    settings : resolved settings

    Raises
    ------
    DataError : at the end, if not one scan could be computed.
    OutputError : if a file cannot be written.
    ClusterError : if the scheduler is gone and does not come back.
    """
    settings = settings or resolve_series({})
    plain = SeriesSettings(**{part.name: getattr(settings, part.name) for part in fields(SeriesSettings)})
    with workers_of(client, plain) as workers:
        yield from run(scans, folder, plain, compute=partial(_run_tasks, workers))


def _run_tasks(workers: Workers, tasks: Sequence[Task]) -> Iterator[tuple[Task, Row]]:
    """Phase the scans of a series on the workers; for each finished scan yield its `Task`, and its row of the results table."""
    weights = "" if workers.network is None else workers.network.digest
    by_name = {task.name: task for task in tasks}
    for job, record in workers.run([_job(task, weights) for task in tasks]):
        task = by_name[job.name]
        if "chi2" not in record:  # the scan could not be computed
            yield task, table.fail_row(task.row, record["reasons"][0])
        else:
            yield task, {**{name: cell for name, cell in record.items() if name != "files"}, "settings": task.row["settings"]}


def _job(task: Task, weights: str) -> Job:
    """Make the `Job` by which a worker phases one scan of the series; `weights` is the hash of the network's weights, or empty."""
    decides = [task.row["settings"], task.row["input"], *task.formats, weights]
    digest = hashlib.sha256(" ".join(decides).encode()).hexdigest()[:12]
    return Job(task.name, task.row["input"], task.folder, task.formats, digest, partial(_phase_task, task))


def _phase_task(task: Task, network: Trained | None) -> tuple[Record, Reconstruction | None]:
    """Phase one scan of a series on a worker; return a report of the scan, and its reconstruction or None if the scan failed."""
    return pipeline.drain(phase_scan(task, network))
