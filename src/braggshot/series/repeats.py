"""Group the scans of a series that repeat one condition; read a group and add its counts.

::

    every 3 scans:      54 55 56 | 57 58 59 | 60 61 62       each group becomes one row of the table
    column potential_V: 0.1 0.1  | 0.2 0.2 0.2 | 0.1         scans in a row with one value; the last is phased alone
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from braggshot.errors import ConfigError
from braggshot.io import registry
from braggshot.pipeline import Settings
from braggshot.prepare import sum_repeats
from braggshot.series.sources import Source, Value
from braggshot.volumes import Scan


def group_repeats(scans: Sequence[Source], by: str | int) -> list[Source]:
    """Group scans that repeat one condition, each group as one `Source` whose counts are added when it is read.

    Parameters
    ----------
    scans : from `list_sources`, in the order in which they were measured
    by : number of scans in a group; or the name of a column of their metadata, whose value all scans of a group share. Only scans
        that follow one another are grouped, because a value that comes back later need not bring the same crystal back

    Returns
    -------
    One source per group, with the mean of its scans' numbers in each column of the metadata. A group of one scan is this scan.

    Raises
    ------
    ConfigError : if the scans are no whole number of groups, or the column is unknown or empty somewhere.
    """
    size = int(by) if str(by).isdigit() else None
    if size is not None:
        if size < 2 or len(scans) % size:
            raise ConfigError(
                f"groups of {size} repeats: {len(scans)} scans are no whole number of groups of two or more; leave out scans "
                "that are no repeats, or name a column whose value the scans of a group share."
            )
        groups = [list(scans[first : first + size]) for first in range(0, len(scans), size)]
    else:
        name = str(by)
        if any(source.metadata.get(name) is None for source in scans):
            known = sorted({column for source in scans for column in source.metadata})
            raise ConfigError(
                f"{name!r} groups no repeats: not every scan has a value of it; columns: {', '.join(known) or 'none'}."
            )
        groups = [list(group) for _, group in itertools.groupby(scans, key=lambda source: source.metadata[name])]
    return [_one_source(group) for group in groups]


def read_source(source: Source, settings: Settings) -> Scan:
    """Read a scan, or read all repeats of a group and add those that match (`braggshot.sum_repeats`).

    Raises
    ------
    BraggshotError : for a scan that cannot be read, and for scans that cannot be added.
    """
    if source.repeats:
        return sum_repeats([read_source(one, settings) for one in source.repeats], settings.prepare, settings.repeats)
    return registry.read(source.path, source.format, **options_of(source, settings.input))


def options_of(source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with which a scan is read: those that are given, and the scan's number."""
    return dict(given) if source.scan is None else {**given, "scan": source.scan}


def say_repeats(scan: Scan) -> dict[str, Any]:
    """Return the columns of the table about a sum: the number of scans in it, and which were left out and why; else nothing."""
    if "repeats" not in scan.provenance:
        return {}
    return {"scans_summed": len(scan.provenance["kept"]), "repeats": scan.provenance["repeats"]}


def _one_source(group: Sequence[Source]) -> Source:
    first = group[0]
    if len(group) == 1:
        return first
    names = dict.fromkeys(name for source in group for name in source.metadata)
    metadata = {name: _shared([source.metadata.get(name) for source in group]) for name in names}
    return replace(first, metadata=metadata, repeats=tuple(group))


def _shared(values: Sequence[Value]) -> Value:
    """Return the mean of numbers; of texts, or of both, each once."""
    known = [value for value in values if value is not None]
    numbers = [value for value in known if not isinstance(value, str)]
    if numbers and len(numbers) == len(known):
        return numbers[0] if len(set(numbers)) == 1 else sum(numbers) / len(numbers)
    return ", ".join(dict.fromkeys(map(str, known))) or None


def each_scan(sources: Sequence[Source]) -> Iterator[Source]:
    """Yield every scan that is read, those of groups too."""
    for source in sources:
        yield from source.repeats or (source,)
