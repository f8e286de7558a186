"""Phase many scans of one crystal on one grid, with one twin, sign and origin; a row of numbers for each scan.

sources        which scans, in which order, and what else is known of each (time, charge, potential, ...)
registration   the common grid; the neighbour as a start; every crystal laid onto its neighbour
settings       how the scans hang together
table          rows: columns, CSV and Parquet, which rows of an earlier run still hold
scan           one scan, and what it needs of those before it
run            the loop, as a generator
"""

from __future__ import annotations

from braggshot.series.run import Report, run
from braggshot.series.scan import Task, phased
from braggshot.series.settings import SeriesConfig, SeriesSettings, resolve
from braggshot.series.sources import Source, names, sources
from braggshot.series.table import closing, line

__all__ = [
    "Report",
    "SeriesConfig",
    "SeriesSettings",
    "Source",
    "Task",
    "closing",
    "line",
    "names",
    "phased",
    "resolve",
    "run",
    "sources",
]
