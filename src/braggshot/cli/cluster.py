"""Phase many scans in parallel with ``--cluster``; print a line or a JSON object for each scan as soon as it is done."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from braggshot.cli.options import proposing
from braggshot.cli.progress import progress_bar
from braggshot.cli.terminal import say
from braggshot.errors import ConfigError, DataError

if TYPE_CHECKING:
    from braggshot.cluster import ClusterConfig, Report
    from braggshot.series import Report as Row
    from braggshot.series import Source

# Names of clusters that ``--cluster`` accepts; it also accepts the address of a scheduler.
PLACES = ("local", "slurm")


def _check(place: str | None) -> str | None:
    if place is not None and place not in PLACES and "://" not in place:
        raise typer.BadParameter(f"{place!r} is not one of {', '.join(map(repr, PLACES))}, nor an address as tcp://host:8786.")
    return place


Cluster = Annotated[
    str | None,
    typer.Option(
        help="Phase all scans at once: local, slurm, or a scheduler's tcp://HOST:PORT; -o is a folder.",
        callback=_check,
        autocompletion=proposing(lambda: (*PLACES, "tcp://")),
    ),
]
Workers = Annotated[int | None, typer.Option(help="Processes of --cluster local (default one per core), jobs of slurm.")]


@dataclass(frozen=True)
class Where:
    """Cluster that the user chose: its name or address, and its number of workers (None takes the number from the settings)."""

    cluster: str
    workers: int | None


def phase_many(
    inputs: list[Path], output: Path | None, table: Mapping[str, Any], where: Where, format: str | None, as_json: bool
) -> None:
    """Phase all scans of the input files on a cluster, and write the results into a folder.

    Raises
    ------
    DataError : at the end, if a scan could not be computed.
    """
    _need_dask()
    from braggshot.cluster import reconstruct_many, resolve
    from braggshot.series import Source, list_sources

    if output is None or output.suffix:
        raise ConfigError("--cluster writes into a folder; name it with -o.")
    settings = resolve(table)
    # True if the settings name one scan to phase in each file; otherwise all scans of a file are phased.
    one = "scan" in settings.input
    scans = [Source(path, None, format) for path in inputs] if one else list_sources(inputs, format=format)
    failed: list[Report] = []
    with _connected(where, settings.cluster, output, len(scans)) as (client, show):
        for report in reconstruct_many(scans, output, client, settings):
            show(report.done)
            failed += [report] if report.failed else []
            say(json.dumps(report.record) if as_json else _line(report))
    if failed:
        reason = failed[0].record["reasons"][0]
        raise DataError(f"{len(failed)} of {len(scans)} scans could not be computed; the first said: {reason}")


def phase_series(scans: Sequence[Source], output: Path, table: Mapping[str, Any], where: Where) -> Iterator[Row]:
    """Phase a series of scans on a cluster, write the results into a folder, and yield a report of each scan."""
    _need_dask()
    from braggshot.cluster import resolve_series, run_series

    settings = resolve_series(table)
    with _connected(where, settings.cluster, output, len(scans)) as (client, show):
        for report in run_series(scans, output, client, settings):
            show(report.done)
            yield report


def _need_dask() -> None:
    from importlib.util import find_spec

    if find_spec("distributed") is None:
        raise ConfigError("--cluster needs dask: pip install 'braggshot[cluster]'.")


@contextmanager
def _connected(where: Where, config: ClusterConfig, output: Path, total: int) -> Iterator[tuple[Any, Callable[[int], None]]]:
    """Connect to a dask cluster; yield the connection, and a function that shows the number of finished scans in a progress bar."""
    from braggshot.cluster import connect

    with connect(where.cluster, where.workers, config) as client, progress_bar() as bar:
        pages = f", pages {client.dashboard_link}" if config.dashboard else ""
        say(f"scheduler {client.scheduler_info()['address']}{pages}", to_stderr=True)
        task = bar.add_task(str(output), total=total, note="")
        yield client, lambda done: bar.update(task, completed=done, note=f"{done}/{total}")


def _line(report: Report) -> str:
    record = report.record
    said = record["reasons"][0] if report.failed else f"sqrt(chi2) {record['chi2'] ** 0.5:.4f}"
    return f"{report.done}/{report.total} {record['name']}: {record['verdict']}, {said}{' (kept)' if report.reused else ''}"
