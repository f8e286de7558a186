"""Offer result files to the viewer's page: first the list of files, later the table of their numbers, which takes longer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from braggshot.errors import BraggshotError, FormatError
from braggshot.io import results
from braggshot.snapshot import Snapshot


class ResultFiles:
    """A source of contents for the viewer's page (a feed), made from the result files of finished scans."""

    def __init__(self, files: Sequence[Path], rows: Sequence[Any] = ()) -> None:
        against = run_against(files[-1]) if rows else None
        shown = Snapshot(scan=files[-1].stem, state="done", finished=tuple(files), series=tuple(rows), against=against)
        self._latest = 1, shown

    def latest(self) -> tuple[int, Snapshot]:
        """Return the number of changes so far, and the latest snapshot of the page's contents."""
        return self._latest

    def tabulate(self) -> None:
        """Make the table of the result files if there is none yet, by reading every file."""
        number, snapshot = self._latest
        if not snapshot.series and len(snapshot.finished) > 1:
            self._latest = number + 1, replace(snapshot, series=tuple(table(snapshot.finished)))


def files_of(given: Sequence[Path]) -> tuple[list[Path], list[Any]]:
    """Return result files, and the rows of their table if there is one.

    Parameters
    ----------
    given : result files, or folders with result files, such as the folder of a series

    Raises
    ------
    FormatError : if a path does not exist, or holds no result.
    """
    from braggshot.series import table as tables

    files: list[Path] = []
    rows: list[Any] = []
    for path in given:
        if path.is_dir():
            listed = [row for row in tables.read(path / "series.csv") if row.get("name") and (path / f"{row['name']}.cxi").exists()]
            paths = [path / f"{row['name']}.cxi" for row in listed] or sorted(path.glob("*.cxi"))
            if not paths:
                raise FormatError(f"{path} holds no result (.cxi); give the folder of a series, or result files.")
            files, rows = files + paths, rows + listed
        elif path.exists():
            files.append(path)
        else:
            raise FormatError(f"{path}: there is no such file or folder.")
    results.read(files[-1])  # raises at once, with the reason in words, if this is no result
    return files, rows if len(rows) == len(files) else []


def run_against(file: Path) -> str | None:
    """Return the column that the series of a result was run against, as its settings say; None if they say none."""
    chosen = results.read(file).configuration.get("series")
    against = chosen.get("against") if isinstance(chosen, Mapping) else None
    return against if isinstance(against, str) else None


def table(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Make a table with one row of measured values for each file; an unreadable file gets the verdict "failed"."""
    from braggshot.series.table import fail_row, summarise_result

    rows: list[dict[str, Any]] = []
    first: float | None = None
    for path in files:
        row: dict[str, Any] = {"input": str(path), "name": path.stem, "time": None}
        try:
            facts: Any = summarise_result(results.read(path), first)
            first = first or facts.get("d_spacing_m")
            rows.append({**row, **facts})
        except BraggshotError as error:
            rows.append(fail_row(row, str(error)))
    return rows
