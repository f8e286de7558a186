"""Follow one crystal through many scans."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from braggshot.cli.cluster import Cluster, Where, Workers, phase_series
from braggshot.cli.metadata import with_metadata
from braggshot.cli.options import Config, Force, Format, Inputs, Sets, examples, forced, layered
from braggshot.cli.progress import phasing_bar
from braggshot.cli.terminal import say

commands = typer.Typer()


@commands.command(epilog=examples("braggshot series exp.spec --scans 54-60 --column potential_V=0,0.1,0.2,0.3,0.4,0.5,0.6 -o out/"))
@with_metadata("scan")
def series(
    inputs: Inputs,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder; a second call goes on with what is missing.")],
    scans: Annotated[
        str | None, typer.Option("--scans", "--scan", help="Scans of a file with several, such as 54-60,63 (default all).")
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="Further column of the table, one value per scan.", metavar="NAME=V1,V2,...")
    ] = None,
    add: Annotated[
        str | None,
        typer.Option(
            "--sum", help="Add repeats first: every N scans, or scans in a row with one value in COLUMN.", metavar="N|COLUMN"
        ),
    ] = None,
    metadata: Annotated[Path | None, typer.Option(help="CSV file with such columns; 'input' or 'scan' names the scan.")] = None,
    force: Force = False,
    cluster: Cluster = None,
    workers: Workers = None,
    format: Format = None,
    config: Config = None,
    sets: Sets = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per scan.")] = False,
    *,
    stated: dict[str, Any],
) -> None:
    """Follow one crystal through many scans; write a row of numbers for each scan, curves, a movie and a page."""
    from braggshot import series as job
    from braggshot.io.atomic import refuse_target

    for name in ("series.csv", "series.parquet", "series.png", "series.gif", "series.html"):
        refuse_target(output / name, [*inputs, *(path for path in (metadata, config) if path is not None)])
    listed = job.list_sources(inputs, scans, column or (), metadata, format)
    if add is not None:
        listed = job.group_repeats(listed, add)
    with contextlib.ExitStack() as stack:
        table = layered(config, sets, {**stated, **forced(force)})
        if cluster is not None:
            reports = phase_series(listed, output, table, Where(cluster, workers))
        else:
            settings = job.resolve(table)
            reports = job.run(listed, output, settings, stack.enter_context(phasing_bar(str(output))))
        for report in reports:
            kept = " (kept)" if report.reused else ""
            text = f"{report.done}/{report.total} {job.describe_row(report.row)}{kept}"
            say(json.dumps(report.row) if as_json else text)
    say(job.closing_message(output), to_stderr=as_json)
