"""One crystal, many scans: each phased on one grid, with one twin, sign and origin; a row of numbers per scan.

::

    sources       which scans, in which order, and what else is known about each (time, charge, potential, ...)
    registration  the common grid; the neighbour as a start; every crystal laid onto the one before
    table         rows: columns, CSV and Parquet, which rows of an earlier run still hold
    run           the loop, as a generator that its caller owns
"""

from __future__ import annotations

from braggshot.series.run import Report, SeriesConfig, SeriesSettings, resolve, run
from braggshot.series.sources import Source, sources
from braggshot.series.table import closing, line

__all__ = ["Report", "SeriesConfig", "SeriesSettings", "Source", "closing", "line", "resolve", "run", "sources"]
