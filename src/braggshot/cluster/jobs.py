"""One scan as a worker does it, and what says that it is done."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from distributed import KilledWorker, get_worker

from braggshot import pipeline
from braggshot.cluster.network import Network
from braggshot.errors import BraggshotError, ConfigError
from braggshot.io import registry
from braggshot.io.atomic import replacing
from braggshot.phasing import Trained
from braggshot.pipeline import Settings
from braggshot.series import Source, table

Record = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What a worker needs to know of one scan.

    Parameters
    ----------
    source : with an absolute path
    label : how the user named it
    name : stem of its files, which no other scan of the run has
    folder : where they go
    settings : of the main job
    digest : of everything but the frames that decides what is written
    version : of the client's braggshot
    """

    source: Source
    label: str
    name: str
    folder: Path
    settings: Settings
    digest: str
    version: str

    @property
    def marker(self) -> Path:
        """The file that says that the scan is done."""
        return self.folder / f"{self.name}.json"


def jobs_of(scans: Sequence[str | Path | Source], folder: Path, settings: Settings, network: str | None) -> list[Job]:
    """A job per scan; `network` is the digest of its weights."""
    plain = Settings(**{part.name: getattr(settings, part.name) for part in fields(Settings)})
    version = importlib.metadata.version("braggshot")
    jobs: dict[str, Job] = {}
    for scan in scans:
        source = scan if isinstance(scan, Source) else Source(Path(scan))
        stem = _stem(source, plain)
        name = next(n for n in (stem, *(f"{stem}-{k}" for k in range(2, len(scans) + 2))) if n not in jobs)
        parts = [table.digest(plain, source), source.label, plain.output.formats, network]
        digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
        absolute = replace(source, path=source.path.absolute())
        jobs[name] = Job(absolute, source.label, name, folder, plain, digest, version)
    return list(jobs.values())


def _stem(source: Source, settings: Settings) -> str:
    """A file name from that of the scan, which may be a pattern, and its number."""
    stem = re.sub(r"[^\w.+-]+", "_", source.path.stem).strip("_.") or "scan"
    number = source.scan or settings.input.get("scan")
    return stem if number is None else f"{stem}-{number}"


def recorded(job: Job) -> Record | None:
    """What an earlier run wrote, if that still holds."""
    try:
        record: Record = json.loads(job.marker.read_text(encoding="utf-8"))
        holds = record["settings"] == job.digest and all((job.folder / file).exists() for file in record["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record if holds else None


def work(job: Job, plugin: str | None) -> Record:
    """One scan on a worker, with the network of a plugin.

    What goes wrong with it is part of the record: of an exception every worker would print the traceback.
    """
    try:
        return recorded(job) or _phased(job, None if plugin is None else _network(plugin))
    except Exception as error:
        return failed(job, error)


def _network(plugin: str) -> Trained:
    held = get_worker().plugins[plugin]
    assert isinstance(held, Network)
    return held.trained()


def _phased(job: Job, network: Trained | None) -> Record:
    version = importlib.metadata.version("braggshot")
    if version != job.version:
        raise ConfigError(f"this worker has braggshot {version}, the client {job.version}; install the same on both.")
    began, source, settings = time.perf_counter(), job.source, job.settings
    options = settings.input if source.scan is None else {**settings.input, "scan": source.scan}
    scan = replace(registry.read(source.path, source.format, **options), name=job.name)
    read = time.perf_counter() - began
    result = pipeline.finish(pipeline.run(scan, settings, network=network))
    result = replace(result, seconds={**result.seconds, "read": read, "total": time.perf_counter() - began})
    earlier = recorded(job)
    if earlier is not None:  # this worker was given up for dead, and another one was faster
        return earlier
    written = pipeline.write(result, job.folder, settings.output.formats)
    record = {
        **pipeline.summary(result, job.label, str(job.folder)),
        "name": job.name,
        "files": [file.name for file in written],
        "settings": job.digest,
    }
    with replacing(job.marker) as temporary:
        temporary.write_text(json.dumps(record), encoding="utf-8")
    return record


def failed(job: Job, error: BaseException | None) -> Record:
    """The record of a scan that could not be computed."""
    reason = str(error) if isinstance(error, BraggshotError) else f"{type(error).__name__}: {error}"
    if isinstance(error, KilledWorker):
        died = f"its worker died {error.allowed_failures + 1} times, perhaps for want of memory"
        reason = f"{died}: use fewer workers or starts, crop, or bin."
    reasons = [" ".join(reason.split())]
    return {"input": job.label, "output": str(job.folder), "name": job.name, "verdict": "failed", "reasons": reasons}
