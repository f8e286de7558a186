"""Loop over the scans of a series; each row of the table is yielded, and written to disk, as soon as it is known.

The neighbour of a scan is the earlier scan that its crystal is compared with. A scan that cannot be computed, or whose verdict is
``failed``, gets a row with the reason, and is never a neighbour. A second call continues with the missing scans. A row of an
earlier run stays valid if its scan, the settings and the row of its neighbour are the same and its CXI file exists. In the diagram,
0 -> 1 means that scan 0 is the neighbour of scan 1, so that scan 1 must wait for it.

::

    neighbour = "previous":  0 -> 1 -> 2 -> 3         scans are phased one after another
    neighbour = "first":     0 -> 1, 0 -> 2, 0 -> 3   after scan 0 is accepted, the others may run in parallel
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from braggshot import pipeline
from braggshot.errors import DataError
from braggshot.io.atomic import sweep
from braggshot.iterative.iterate import Progress
from braggshot.output import check_writable, inputs_of, write
from braggshot.series import table
from braggshot.series.repeats import each_scan
from braggshot.series.scan import Chain, Place, Task, phase_scan
from braggshot.series.settings import SeriesSettings
from braggshot.series.sources import Source, unique_names
from braggshot.series.table import Row

Compute = Callable[[Sequence[Task]], Iterator[tuple[Task, Row]]]
"""Type of a function that phases independent scans; it yields a scan and its table row when the scan's files are written."""


@dataclass(frozen=True)
class Report:
    """One finished row of the table, the numbers of rows done and in total, and whether the row comes from an earlier run."""

    done: int
    total: int
    row: Row
    reused: bool


def run(
    scans: Sequence[Source],
    folder: str | Path,
    settings: SeriesSettings | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    compute: Compute | None = None,
    place: Place | None = None,
) -> Iterator[Report]:
    """Phase a series into `folder`, yielding each row as it is done.

    The caller may stop at any time, and continue with a second call. Only one run at a time may write to a folder; half-written
    files of a killed run are removed. At the end ``series.parquet`` (with pyarrow), ``series.png``, ``series.gif`` and
    ``series.html`` are written too.

    Parameters
    ----------
    scans : list from `list_sources`, in the order in which the crystal changed; `group_repeats` groups repeats to be added
    folder : output folder: ``series.csv``, and a result CXI per scan
    settings : settings of phasing and series; None takes the defaults
    on_progress : function called after each iteration of the phasing
    compute : function that phases scans elsewhere, such as on a cluster; None phases one scan after another in this process
    place : function that turns and moves the first crystal, as `phase_scan` uses it in this process; None leaves it as it came out

    Raises
    ------
    ConfigError : if a setting does not fit.
    DataError : at the end, if not one scan could be computed.
    OutputError : if a file cannot be written.
    """
    settings, folder = settings or SeriesSettings(), Path(folder).absolute()
    compute = compute or partial(_compute_here, on_progress=on_progress, place=place)
    called = unique_names(scans, settings.input)
    read = [path for scan in each_scan(scans) for path in inputs_of({"path": scan.path, "options": settings.input})]
    check_writable(folder, read, called, ("cxi", *settings.output.formats), settings.output.force)
    earlier = {row["name"]: row for row in table.read(folder / "series.csv")}
    # Number of a scan -> its row of an earlier run, which is replaced when the scan is done.
    rows = {number: earlier[name] for number, name in enumerate(called) if name in earlier}
    waiting, done, chain = list(range(len(scans))), 0, Chain()
    while waiting:
        ready = waiting if settings.series.neighbour == "first" and chain.neighbour is not None else waiting[:1]
        waiting = waiting[len(ready) :]
        tasks = []
        for number in ready:
            source = scans[number]
            begun = table.new_row(source, table.digest(settings, source, chain.digest))
            tasks.append(Task(number, called[number], source.absolute(), begun, folder, settings, chain))
        for task, row, reused in _reuse_or_compute(tasks, earlier, compute):
            done, rows[task.number] = done + 1, row
            written = _write_table(folder, rows)
            yield Report(done, len(scans), written[task.number], reused)
        chain = chain.after(rows[ready[0]], folder, settings.series.neighbour)
    sweep(folder)  # remove the half-written files of a killed worker
    _finish(folder, list(_write_table(folder, rows).values()), settings)


def _reuse_or_compute(tasks: Sequence[Task], earlier: Mapping[str, Row], compute: Compute) -> Iterator[tuple[Task, Row, bool]]:
    """Yield the rows of an earlier run that are still valid, then the rows that are computed now."""
    missing = []
    for task in tasks:
        row = earlier.get(task.name)
        if row is not None and table.is_current(row, task.row, task.folder):
            yield task, {**row, **task.source.metadata}, True
        else:
            missing.append(task)
    for task, row in compute(missing):
        yield task, row, False


def _compute_here(
    tasks: Sequence[Task], on_progress: Callable[[Progress], None] | None, place: Place | None
) -> Iterator[tuple[Task, Row]]:
    for task in tasks:
        row, result = pipeline.drain(phase_scan(task, place=place), on_progress)
        if result is not None:
            write(result, task.folder, task.formats)
        yield task, row


def _write_table(folder: Path, rows: Mapping[int, Row]) -> dict[int, Row]:
    """Add the columns that depend on all rows, write the table, and return the rows by the number of their scan."""
    numbers = sorted(rows)
    whole = table.unify_resolution(table.add_elapsed([rows[number] for number in numbers]))
    table.write(folder / "series.csv", whole)
    return dict(zip(numbers, whole, strict=True))


def _finish(folder: Path, rows: Sequence[Row], settings: SeriesSettings) -> None:
    """Write the Parquet table, the curves, the movie and the HTML page."""
    from braggshot.report.series import write as write_report

    if all(row["chi2"] is None for row in rows):
        raise DataError(f"none of the {len(rows)} scans could be computed; the first said: {rows[0]['reasons']}")
    if importlib.util.find_spec("pyarrow") is not None:
        table.write_parquet(folder / "series.parquet", rows)
    write_report(folder, rows, settings.series.against, settings.series.movie)
