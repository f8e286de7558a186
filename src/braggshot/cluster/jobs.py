"""One scan as a worker does it, and what says that it is done."""

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

Record = dict[str, Any]


def version() -> str:
    """Of braggshot, which client and workers must share."""
    return importlib.metadata.version("braggshot")


@dataclass(frozen=True)
class Job:
    """What a worker needs to know of one scan.

    Parameters
    ----------
    name : stem of its files, which no other scan of the run has
    label : how the user named it
    folder : where they go
    formats : of the files
    digest : of everything but the frames that decides what is written
    compute : the record and the result, which is not written yet; a scan that fails on the way may have a record alone
    version : of the client's braggshot
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
        """The file that says that the scan is done."""
        return self.folder / f"{self.name}.json"


def read_record(job: Job) -> Record | None:
    """What an earlier run wrote, if that still holds."""
    try:
        record: Record = json.loads(job.marker.read_text(encoding="utf-8"))
        holds = record["settings"] == job.digest and all((job.folder / file).exists() for file in record["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record if holds else None


def run_job(job: Job, plugin: str | None) -> Record:
    """One scan on a worker, with the network of a plugin.

    What goes wrong with it is part of the record: of an exception every worker would print the traceback.
    """
    try:
        return read_record(job) or _compute_and_write(job, None if plugin is None else _network_of_plugin(plugin))
    except Exception as error:
        return failure_record(job, error)


def _network_of_plugin(plugin: str) -> Trained:
    plugin_network = get_worker().plugins[plugin]
    assert isinstance(plugin_network, Network)
    return plugin_network.assemble()


def _compute_and_write(job: Job, network: Trained | None) -> Record:
    if version() != job.version:
        raise ConfigError(f"this worker has braggshot {version()}, the client {job.version}; install the same on both.")
    record, result = job.compute(network)
    if result is None:
        return record
    earlier_record = read_record(job)
    if earlier_record is not None:  # this worker was given up for dead, and another one was faster
        return earlier_record
    written = write(result, job.folder, job.formats)
    record = {**record, "name": job.name, "files": [file.name for file in written], "settings": job.digest}
    with replacing(job.marker) as temporary:
        temporary.write_text(json.dumps(record), encoding="utf-8")
    return record


def failure_record(job: Job, error: BaseException | None) -> Record:
    """The record of a scan that could not be computed."""
    reason = str(error) if isinstance(error, BraggshotError) else f"{type(error).__name__}: {error}"
    if isinstance(error, KilledWorker):
        died = f"its worker died {error.allowed_failures + 1} times, perhaps for want of memory"
        reason = f"{died}: use fewer workers or starts, crop, or bin."
    reasons = [" ".join(reason.split())]
    return {"input": job.label, "output": str(job.folder), "name": job.name, "verdict": "failed", "reasons": reasons}
