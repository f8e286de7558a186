"""List the scans of a series in their order, with metadata of each."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from braggshot.errors import BraggshotError, ConfigError
from braggshot.io import registry

Value = float | str | None


@dataclass(frozen=True)
class Source:
    """One scan of a series.

    Parameters
    ----------
    path : file, folder or pattern
    scan : number of the scan, in a file that holds several; else None
    format : format of the file; None chooses it by looking at the file
    metadata : further columns of the table, such as charge or potential
    repeats : scans that repeat one condition, whose counts are added; the first has the path, the number and the format above
    """

    path: Path
    scan: str | None = None
    format: str | None = None
    metadata: Mapping[str, Value] = field(default_factory=dict)
    repeats: tuple[Source, ...] = ()

    @property
    def label(self) -> str:
        """Name of the scan in the table: its path, and its number where the file holds several; of a group, that of each scan."""
        if self.repeats:
            return ", ".join(source.label for source in self.repeats)
        return str(self.path) if self.scan is None else f"{self.path}#{self.scan}"

    def absolute(self) -> Source:
        """Return the same scan with an absolute path."""
        return replace(self, path=self.path.absolute(), repeats=tuple(source.absolute() for source in self.repeats))


def list_sources(
    inputs: Sequence[str | Path],
    scans: str | None = None,
    columns: Sequence[str] = (),
    metadata: str | Path | None = None,
    format: str | None = None,
) -> list[Source]:
    """List the scans of a series in the order in which they are given.

    Parameters
    ----------
    inputs : files; all scans of a file are taken
    scans : numbers of the scans to take from each file, such as "54-60,63"; None takes all
    columns : ``name=v1,v2,...`` with one value per scan
    metadata : CSV file; its rows are matched by a column ``input`` (path, file name or stem) or ``scan``, else by their order
    format : format of the files; None chooses it by looking at them

    Raises
    ------
    ConfigError : if numbers, columns or rows do not fit the scans.
    """
    listed = [source for path in inputs for source in _list_scans(Path(path), scans, format)]
    if not listed:
        raise ConfigError("a series needs at least one scan; give files, or the scans of a file that holds several.")
    extra: list[dict[str, Value]] = [{} for _ in listed] if metadata is None else _match_rows(Path(metadata), listed)
    for column in columns:
        name, values = _parse_column(column, len(listed))
        extra = [{**row, name: value} for row, value in zip(extra, values, strict=True)]
    return [replace(source, metadata=row) for source, row in zip(listed, extra, strict=True)]


def unique_names(scans: Sequence[Source], options: Mapping[str, Any]) -> list[str]:
    """Return a unique stem of the output files of each scan: the stem of the input file or pattern, and the scan's number.

    Names are known before any file is read, so scans can be phased in any order. `options` are the options of the reader.
    """
    stems: dict[str, None] = {}
    for source in scans:
        stem = source.path.name if source.path.is_dir() else source.path.stem
        stem = re.sub(r"[^\w.+-]+", "_", stem).strip("_.") or "scan"
        number = source.scan or options.get("scan")
        stem = f"{stem if number is None else f'{stem}-{number}'}{'-sum' if source.repeats else ''}"
        stems[next(n for n in (stem, *(f"{stem}-{k}" for k in range(2, len(scans) + 2))) if n not in stems)] = None
    return list(stems)


def _list_scans(path: Path, scans: str | None, format: str | None) -> list[Source]:
    if scans is not None:
        return [Source(path, number, format) for number in parse_numbers(scans)]
    try:
        _, module = registry.choose(path, format)
        several = module.scans(path) if hasattr(module, "scans") else []
    except BraggshotError:
        several = []  # reading the scan later reports the error, and the other scans go on
    return [Source(path, number, format) for number in several] if len(several) > 1 else [Source(path, None, format)]


def parse_numbers(text: str) -> list[str]:
    """List the scan numbers of a text: "54-56,60" gives ["54", "55", "56", "60"].

    Raises
    ------
    ConfigError : if the text is no list of numbers and ranges.
    """
    numbers = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if not match or int(match.group(2) or match.group(1)) < int(match.group(1)):
            raise ConfigError(f"the choice of scans expects numbers and ranges such as 54-60,63; found {text!r}.")
        numbers += [str(n) for n in range(int(match.group(1)), int(match.group(2) or match.group(1)) + 1)]
    return numbers


def _parse_column(text: str, n: int) -> tuple[str, list[Value]]:
    name, given, listed = text.partition("=")
    values = [parse_value(word) for word in listed.split(",")]
    if not given or not name.strip():
        raise ConfigError(f"a column is given as name=v1,v2,..., found {text!r}.")
    if len(values) != n:
        raise ConfigError(f"column {name}: found {len(values)} values for {n} scans; give one per scan, in their order.")
    return name.strip(), values


def parse_value(text: str) -> Value:
    """Return the number in a text, None for an empty text, else the text itself."""
    try:
        return float(text)
    except ValueError:
        return text.strip() or None


def _match_rows(path: Path, scans: Sequence[Source]) -> list[dict[str, Value]]:
    """Return, for each scan, its row of a CSV file; the row is empty if none fits the scan."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"cannot read the metadata {path}: {error}") from error
    if rows and "input" in rows[0]:
        keyed = {row["input"]: row for row in rows}
        chosen: list[dict[str, Any] | None] = [
            next((keyed[key] for key in (s.label, str(s.path), s.path.name, s.path.stem) if key in keyed), None) for s in scans
        ]
    elif rows and "scan" in rows[0] and all(source.scan for source in scans):
        keyed = {row["scan"]: row for row in rows}
        chosen = [keyed.get(source.scan or "") for source in scans]
    elif len(rows) == len(scans):
        chosen = list(rows)
    else:
        raise ConfigError(f"{path}: {len(rows)} rows for {len(scans)} scans; add a column 'input' or 'scan', or one row per scan.")
    kept = {"input", "scan", None}
    return [{k: parse_value(v or "") for k, v in row.items() if k not in kept} if row else {} for row in chosen]
