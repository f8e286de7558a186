"""Phase one scan on a worker, and write the record that marks the scan as done."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distributed import KilledWorker, get_worker

from braggshot.cluster.network import Network
from braggshot.errors import BraggshotError, ConfigError
from braggshot.io.atomic import replacing
from braggshot.output import OutputFormat, write
from braggshot.phasing.strategies import Trained
from braggshot.volumes import Reconstruction

# Report of one scan: its numbers such as chi2, its verdict, and the names of its files.
Record = dict[str, Any]


def version() -> str:
    """Return the version of braggshot; client and workers must have the same version."""
    return importlib.metadata.version("braggshot")


@dataclass(frozen=True)
class Job:
    """Job for a worker: how to phase one scan, and where to write its files.

    Parameters
    ----------
    name : stem of the scan's output files; no other scan of the run has the same
    label : name of the scan in reports: path of its file, with the scan number where the file holds several scans
    folder : folder of the output files
    formats : formats of the output files
    digest : hash of everything, except the frames, that decides the result
    compute : function that phases the scan; it returns a report of the scan, and its reconstruction or None if the scan failed
    version : version of braggshot in the program that made the job; a worker must have the same version
    """

    name: str
    label: str
    folder: Path
    formats: tuple[OutputFormat, ...]
    digest: str
    compute: Callable[[Trained | None], tuple[Record, Reconstruction | None]]
    version: str = field(default_factory=version)

    @property
    def marker(self) -> Path:
        """Path of the JSON file with the report of the scan; the scan is done if this file exists."""
        return self.folder / f"{self.name}.json"


def read_record(job: Job) -> Record | None:
    """Return the report of the scan, as an earlier run wrote it to ``<name>.json``.

    None is returned if there is no report, if its settings differ, or if one of the output files that it lists is missing.
    """
    try:
        record: Record = json.loads(job.marker.read_text(encoding="utf-8"))
        holds = record["settings"] == job.digest and all((job.folder / file).exists() for file in record["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record if holds else None


def run_job(job: Job, plugin: str | None) -> Record:
    """Phase one scan on a worker, and return the report of the scan; a scan that is done already is not phased again.

    The network is held on the worker by the dask plugin named `plugin`; None means that no network is used. An error is not
    raised, because the worker would print its traceback. The report states the error instead.
    """
    try:
        return read_record(job) or _compute_and_write(job, None if plugin is None else _network_of_plugin(plugin))
    except Exception as error:
        return failure_record(job, error)


def _network_of_plugin(plugin: str) -> Trained:
    """Return the network that a plugin of dask holds on this worker."""
    plugin_network = get_worker().plugins[plugin]
    assert isinstance(plugin_network, Network)
    return plugin_network.assemble()


def _compute_and_write(job: Job, network: Trained | None) -> Record:
    """Phase one scan as its `Job` says, write the output files, then mark the scan as done; return the report of the scan."""
    if version() != job.version:
        raise ConfigError(f"this worker has braggshot {version()}, the client {job.version}; install the same on both.")
    record, result = job.compute(network)
    if result is None:
        return record
    earlier_record = read_record(job)
    if earlier_record is not None:  # another worker was faster, because this one was taken for dead
        return earlier_record
    written = write(result, job.folder, job.formats)
    record = {**record, "name": job.name, "files": [file.name for file in written], "settings": job.digest}
    with replacing(job.marker) as temporary:
        temporary.write_text(json.dumps(record), encoding="utf-8")
    return record


def failure_record(job: Job, error: BaseException | None) -> Record:
    """Return the report of a scan that could not be computed; it states the error."""
    reason = str(error) if isinstance(error, BraggshotError) else f"{type(error).__name__}: {error}"
    if isinstance(error, KilledWorker):
        died = f"its worker died {error.allowed_failures + 1} times, perhaps for want of memory"
        reason = f"{died}: use fewer workers or starts, crop, or bin."
    reasons = [" ".join(reason.split())]
    return {"input": job.label, "output": str(job.folder), "name": job.name, "verdict": "failed", "reasons": reasons}
