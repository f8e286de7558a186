"""Phase many scans of one crystal on one grid, with one choice of twin, sign and origin; write a table with one row per scan.

sources        list the scans in their order, with metadata of each (time, charge, potential, ...)
repeats        group the scans that repeat one condition; read a group and add its counts
registration   define the common grid; begin the phasing with the neighbour's crystal; align every crystal with its neighbour
settings       say how a scan depends on its neighbour, an earlier scan of the series
table          write and read the rows as CSV and Parquet; tell which rows of an earlier run are still valid
scan           phase one scan, given the result of its neighbour
run            loop over the scans, as a generator
"""

from __future__ import annotations

from braggshot.series.repeats import group_repeats
from braggshot.series.run import Report, run
from braggshot.series.scan import Task, phase_scan
from braggshot.series.settings import SeriesConfig, SeriesSettings, resolve
from braggshot.series.sources import Source, list_sources, unique_names
from braggshot.series.table import closing_message, describe_row

__all__ = [
    "Report",
    "SeriesConfig",
    "SeriesSettings",
    "Source",
    "Task",
    "closing_message",
    "describe_row",
    "group_repeats",
    "list_sources",
    "phase_scan",
    "resolve",
    "run",
    "unique_names",
]
