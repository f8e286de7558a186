"""The loop over the scans of a series; each row is yielded, and on disk, as soon as it is known.

A scan that cannot be computed, or whose verdict is ``failed``, has its row with the reason and is nobody's neighbour. A second call
goes on with what is missing: a row holds if its scan, the settings and the rows that it follows are the same, its CXI file there.

::

    neighbour = "previous":  0 -> 1 -> 2 -> 3         one scan at a time is ready
    neighbour = "first":     0 -> 1, 0 -> 2, 0 -> 3   all others are, once the first is accepted
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from braggshot import pipeline
from braggshot.errors import DataError
from braggshot.io.atomic import sweep
from braggshot.iterative.iterate import Progress
from braggshot.output import check_writable, inputs_of, write
from braggshot.series import table
from braggshot.series.scan import Chain, Task, phased
from braggshot.series.settings import SeriesSettings
from braggshot.series.sources import Source, names
from braggshot.series.table import Row

Compute = Callable[[Sequence[Task]], Iterator[tuple[Task, Row]]]
"""Tasks that do not depend on each other to their rows, in any order; files are written before a row is given."""


@dataclass(frozen=True)
class Report:
    """A row, how many are done and will be, and whether it was there already."""

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
) -> Iterator[Report]:
    """Phase a series into `folder`, yielding each row as it is done; the caller may stop at any time and call again.

    One run at a time writes to a folder; what a killed one left half-written there is removed.

    At the end ``series.parquet`` (with pyarrow), ``series.png``, ``series.gif`` and ``series.html`` are written too.

    Parameters
    ----------
    scans : from `sources`, in the order in which the crystal changed
    folder : gets ``series.csv`` and a result CXI per scan
    settings : resolved
    on_progress : called after each iteration of the phasing
    compute : does the work somewhere else; None does it here, scan after scan

    Raises
    ------
    ConfigError : for settings that fit no scan.
    DataError : at the end, if not one scan could be computed.
    OutputError : if a file cannot be written.
    """
    settings, folder = settings or SeriesSettings(), Path(folder).absolute()
    compute = compute or partial(_in_turn, on_progress=on_progress)
    called = names(scans, settings.input)
    read = [path for scan in scans for path in inputs_of({"path": scan.path, "options": settings.input})]
    check_writable(folder, read, called, ("cxi", *settings.output.formats))
    sweep(folder)
    earlier = {row["name"]: row for row in table.read(folder / "series.csv")}
    rows = {number: earlier[name] for number, name in enumerate(called) if name in earlier}  # until the turn of their scan comes
    waiting, done, chain = list(range(len(scans))), 0, Chain()
    while waiting:
        ready = waiting if settings.series.neighbour == "first" and chain.neighbour is not None else waiting[:1]
        waiting = waiting[len(ready) :]
        tasks = []
        for number in ready:
            source = scans[number]
            begun = table.begun(source, table.digest(settings, source, chain.digest))
            absolute = replace(source, path=source.path.absolute())
            tasks.append(Task(number, called[number], absolute, begun, folder, settings, chain))
        for task, row, reused in _rows(tasks, earlier, compute):
            done, rows[task.number] = done + 1, row
            written = _written(folder, rows)
            yield Report(done, len(scans), written[task.number], reused)
        chain = chain.after(rows[ready[0]], folder, settings.series.neighbour)
    sweep(folder)  # what a killed worker was writing
    _finish(folder, list(_written(folder, rows).values()), settings)


def _rows(tasks: Sequence[Task], earlier: Mapping[str, Row], compute: Compute) -> Iterator[tuple[Task, Row, bool]]:
    """Rows of an earlier run that hold, then the others."""
    missing = []
    for task in tasks:
        row = earlier.get(task.name)
        if row is not None and table.holds(row, task.row, task.folder):
            yield task, {**row, **task.source.metadata}, True
        else:
            missing.append(task)
    for task, row in compute(missing):
        yield task, row, False


def _in_turn(tasks: Sequence[Task], on_progress: Callable[[Progress], None] | None) -> Iterator[tuple[Task, Row]]:
    for task in tasks:
        row, result = pipeline.drain(phased(task), on_progress)
        if result is not None:
            write(result, task.folder, task.formats)
        yield task, row


def _written(folder: Path, rows: Mapping[int, Row]) -> dict[int, Row]:
    """The rows with what follows from all of them, by the number of the scan and in its order; on disk, too."""
    numbers = sorted(rows)
    whole = table.with_one_resolution(table.with_elapsed([rows[number] for number in numbers]))
    table.write(folder / "series.csv", whole)
    return dict(zip(numbers, whole, strict=True))


def _finish(folder: Path, rows: Sequence[Row], settings: SeriesSettings) -> None:
    """Table, curves, movie and page."""
    from braggshot.report.series import write as write_report

    if all(row["chi2"] is None for row in rows):
        raise DataError(f"none of the {len(rows)} scans could be computed; the first said: {rows[0]['reasons']}")
    if importlib.util.find_spec("pyarrow") is not None:
        table.write_parquet(folder / "series.parquet", rows)
    write_report(folder, rows, settings.series.against, settings.series.movie)
