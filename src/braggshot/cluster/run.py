"""Phase scans that are independent of each other, and report each as soon as it is done."""

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
from braggshot.cluster.jobs import Job, Record, read_record
from braggshot.cluster.workers import workers_of
from braggshot.io import registry
from braggshot.io.atomic import sweep
from braggshot.output import check_writable, inputs_of, summary
from braggshot.phasing.strategies import Trained
from braggshot.pipeline import Settings
from braggshot.series import Source, table, unique_names
from braggshot.volumes import Reconstruction


@dataclass(frozen=True, repr=False)
class ClusterSettings(Settings):
    """Settings of phasing one scan, from reading to writing, and settings of the cluster."""

    cluster: ClusterConfig = field(default_factory=ClusterConfig)


@dataclass(frozen=True)
class Report:
    """Report of one scan that is done, or that cannot be computed.

    Parameters
    ----------
    done, total : number of scans that are done so far, and number of all scans
    record : what ``braggshot reconstruct --json`` prints of the scan, with `name` and `files`; a scan that could not be computed
        has only `input`, `output`, `name`, `verdict` and `reasons`
    reused : whether an earlier call phased the scan
    """

    done: int
    total: int
    record: Record
    reused: bool = False

    @property
    def failed(self) -> bool:
        """True if the scan could not be computed; a computed scan with the verdict ``failed`` does not count."""
        return "chi2" not in self.record


def resolve(settings: Mapping[str, Any]) -> ClusterSettings:
    """Turn nested settings into `ClusterSettings`; every name and value is checked."""
    return configuration.resolve(ClusterSettings, settings)


def reconstruct_many(
    scans: Sequence[str | Path | Source],
    folder: str | Path,
    client: Client,
    settings: Settings | Mapping[str, Any] | None = None,
) -> Iterator[Report]:
    """Phase scans on a cluster, and yield a report of each scan as soon as it is done.

    The caller may stop at any time; a second call phases only the scans that are missing. A scan whose files were made by an
    earlier call with the same settings is reported without computing. Only one call at a time may write to a folder.

    Parameters
    ----------
    scans : paths of files, or `Source` records, which name one scan of a file that holds several
    folder : gets ``<name>.cxi``, the other formats asked for, and ``<name>.json`` for each scan
    client : connection to the cluster, from `connect`
    settings : resolved settings, or nested tables as in a TOML file

    Raises
    ------
    ConfigError : if a setting is unknown or has an impossible value, or the network is missing.
    OutputError : if the folder cannot be written.
    ClusterError : if the scheduler is gone and does not come back.
    """
    resolved = settings if isinstance(settings, Settings) else resolve(settings or {})
    folder = Path(folder).absolute()
    sources = [scan if isinstance(scan, Source) else Source(Path(scan)) for scan in scans]
    read = [path for source in sources for path in inputs_of({"path": source.path, "options": resolved.input})]
    check_writable(folder, read, unique_names(sources, resolved.input), resolved.output.formats, resolved.output.force)
    with workers_of(client, resolved) as workers:
        jobs = jobs_of(sources, folder, resolved, None if workers.network is None else workers.network.digest)
        missing: list[Job] = []
        done = 0
        for job in jobs:
            record = read_record(job)
            if record is None:
                missing.append(job)
            else:
                done += 1
                yield Report(done, len(jobs), record, reused=True)
        for _, record in workers.run(missing):
            done += 1
            yield Report(done, len(jobs), record)
    sweep(folder)  # unfinished files of killed workers


def jobs_of(sources: Sequence[Source], folder: Path, settings: Settings, network: str | None) -> list[Job]:
    """Make the `Job` that phases each scan; `network` is the hash of the network's weights, or None if no network is used."""
    plain = Settings(**{part.name: getattr(settings, part.name) for part in fields(Settings)})
    jobs = []
    for source, name in zip(sources, unique_names(sources, plain.input), strict=True):
        parts = [table.digest(plain, source), source.label, plain.output.formats, network]
        digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
        absolute = replace(source, path=source.path.absolute())
        compute = partial(_reconstruct, absolute, source.label, name, folder, plain)
        jobs.append(Job(name, source.label, folder, plain.output.formats, digest, compute))
    return jobs


def _reconstruct(
    source: Source, label: str, name: str, folder: Path, settings: Settings, network: Trained | None
) -> tuple[Record, Reconstruction]:
    """Read and phase a scan on a worker; return a report of the scan, and its reconstruction."""
    began = time.perf_counter()
    options = settings.input if source.scan is None else {**settings.input, "scan": source.scan}
    scan = replace(registry.read(source.path, source.format, **options), name=name)
    read = time.perf_counter() - began
    result = pipeline.drain(pipeline.run(scan, settings, network=network))
    result = replace(result, seconds={**result.seconds, "read": read, "total": time.perf_counter() - began})
    return summary(result, label, str(folder)), result
