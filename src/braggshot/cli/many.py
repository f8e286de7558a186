"""What ``--cluster`` does: many scans at once, a line or a JSON object of each as it is done."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from braggshot.cli.completion import proposing
from braggshot.cli.options import progress_bar
from braggshot.errors import ConfigError, DataError

if TYPE_CHECKING:
    from braggshot.cluster import ClusterSettings, Report

Cluster = Annotated[
    str | None,
    typer.Option(
        help="Phase all scans at once: local, slurm, or a scheduler's tcp://HOST:PORT; -o is a folder.",
        autocompletion=proposing("--cluster"),
    ),
]
Workers = Annotated[int | None, typer.Option(help="Processes of --cluster local (default one per core), jobs of slurm.")]


def settings_of(config: Path | None, sets: list[str] | None, flags: dict[str, Any]) -> ClusterSettings:
    """As `braggshot.cli.options.settings_of`, with a table ``cluster``."""
    _need_dask()
    from braggshot import config as configuration
    from braggshot.cluster import resolve

    layers = [configuration.read_toml(config)] if config else []
    return resolve(configuration.merge(*layers, flags, configuration.parse_assignments(sets or [])))


def _need_dask() -> None:
    from importlib.util import find_spec

    if find_spec("distributed") is None:
        raise ConfigError("--cluster needs dask: pip install 'braggshot[cluster]'.")


@dataclass(frozen=True)
class Where:
    """Which cluster, how many workers, and the format of the files."""

    cluster: str
    workers: int | None
    format: str | None


def run(inputs: list[Path], output: Path | None, settings: ClusterSettings, where: Where, as_json: bool) -> None:
    """Phase all scans of the inputs into a folder.

    Raises
    ------
    DataError : at the end, if a scan could not be computed.
    """
    from braggshot.cluster import connect, reconstruct_many
    from braggshot.series import Source, sources

    if output is None or output.suffix:
        raise ConfigError("--cluster writes into a folder; name it with -o.")
    one = "scan" in settings.input  # of each file, else all that it holds
    scans = [Source(path, None, where.format) for path in inputs] if one else sources(inputs, format=where.format)
    failed: list[Report] = []
    with connect(where.cluster, where.workers, settings.cluster) as client, progress_bar() as bar:
        pages = f", pages {client.dashboard_link}" if settings.cluster.dashboard else ""
        print(f"scheduler {client.scheduler_info()['address']}{pages}", file=sys.stderr)
        task = bar.add_task(str(output), total=len(scans), note="")
        for report in reconstruct_many(scans, output, client, settings):
            bar.update(task, completed=report.done, note=f"{report.done}/{report.total}")
            failed += [report] if report.failed else []
            print(json.dumps(report.record) if as_json else _line(report), flush=True)
    if failed:
        reason = failed[0].record["reasons"][0]
        raise DataError(f"{len(failed)} of {len(scans)} scans could not be computed; the first said: {reason}")


def _line(report: Report) -> str:
    record = report.record
    said = record["reasons"][0] if report.failed else f"sqrt(chi2) {record['chi2'] ** 0.5:.4f}"
    return f"{report.done}/{report.total} {record['name']}: {record['verdict']}, {said}{' (kept)' if report.reused else ''}"
