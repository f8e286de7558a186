"""Scans that stand alone, each reported as soon as it is done, in the order in which they are."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from distributed import Client

from braggshot import config as configuration
from braggshot import pipeline
from braggshot.cluster.connect import ClusterConfig
from braggshot.cluster.jobs import Job, Record, recorded
from braggshot.cluster.workers import crew
from braggshot.io import registry
from braggshot.io.atomic import sweep
from braggshot.output import check_writable, inputs_of, summary
from braggshot.phasing.strategies import Trained
from braggshot.pipeline import Settings
from braggshot.series import Source, table, unique_names
from braggshot.volumes import Reconstruction


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
    sources = [scan if isinstance(scan, Source) else Source(Path(scan)) for scan in scans]
    read = [path for source in sources for path in inputs_of({"path": source.path, "options": resolved.input})]
    check_writable(folder, read, unique_names(sources, resolved.input), resolved.output.formats)
    sweep(folder)
    with crew(client, resolved) as workers:
        jobs = jobs_of(sources, folder, resolved, None if workers.network is None else workers.network.digest)
        missing: list[Job] = []
        done = 0
        for job in jobs:
            record = recorded(job)
            if record is None:
                missing.append(job)
            else:
                done += 1
                yield Report(done, len(jobs), record, reused=True)
        for _, record in workers.done(missing):
            done += 1
            yield Report(done, len(jobs), record)
    sweep(folder)  # what a killed worker was writing


def jobs_of(sources: Sequence[Source], folder: Path, settings: Settings, network: str | None) -> list[Job]:
    """A job per scan; `network` is the digest of its weights."""
    plain = Settings(**{part.name: getattr(settings, part.name) for part in fields(Settings)})
    jobs = []
    for source, name in zip(sources, unique_names(sources, plain.input), strict=True):
        parts = [table.digest(plain, source), source.label, plain.output.formats, network]
        digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
        absolute = replace(source, path=source.path.absolute())
        compute = partial(_alone, absolute, source.label, name, folder, plain)
        jobs.append(Job(name, source.label, folder, plain.output.formats, digest, compute))
    return jobs


def _alone(
    source: Source, label: str, name: str, folder: Path, settings: Settings, network: Trained | None
) -> tuple[Record, Reconstruction]:
    began = time.perf_counter()
    options = settings.input if source.scan is None else {**settings.input, "scan": source.scan}
    scan = replace(registry.read(source.path, source.format, **options), name=name)
    read = time.perf_counter() - began
    result = pipeline.drain(pipeline.run(scan, settings, network=network))
    result = replace(result, seconds={**result.seconds, "read": read, "total": time.perf_counter() - began})
    return summary(result, label, str(folder)), result
