"""Summarise rows of results in a table: medians with bootstrap intervals, rates with Wilson intervals.

Medians and rates count also the crystals that a method did not find.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from braggshot.evaluation.rows import Row
from braggshot.evaluation.suites import SUITES
from braggshot.io.atomic import replacing
from braggshot.physics.scores import BLENDED

RESAMPLES = 2000  # number of bootstrap samples for the interval of a median


@dataclass(frozen=True)
class Interval:
    """Median or rate with the bounds of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Line:
    """Line of the table: the results of one method on the crystals of one group.

    Parameters
    ----------
    suite, group, method : names of the suite, the group and the method
    rows : results, one row per crystal
    """

    suite: str
    group: str
    method: str
    rows: Sequence[Row]

    def median(self, name: str) -> Interval:
        """Return the median of one result over the crystals, such as the phase error; `name` says which result.

        Crystals without this result are left out; for example, there is no phase error where phasing stopped with an error.
        """
        return median([row[name] for row in self.rows if row.get(name) is not None])

    def rate(self, holds: Callable[[Row], bool]) -> Interval:
        """Return the share of the crystals for which `holds` is true."""
        return wilson_interval(sum(holds(row) for row in self.rows), len(self.rows))


def group_rows(rows: Sequence[Row]) -> list[Line]:
    """Group rows of results by suite, group and method, as lines of the table.

    Suites and groups are in the order of `SUITES`; methods are in the order of their first rows.
    """
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["suite"], row["group"], row["method"]), []).append(row)
    order = {name: number for number, name in enumerate(SUITES)}
    groups = {name: list(suite.groups) for name, suite in SUITES.items()}

    def place(line: Line) -> tuple[int, int]:
        known = groups.get(line.suite, [])
        return order.get(line.suite, len(order)), known.index(line.group) if line.group in known else len(known)

    return sorted((Line(*names, members) for names, members in found.items()), key=place)


def median(values: Sequence[float]) -> Interval:
    """Return the median with a 95 % bootstrap interval.

    Values are drawn anew with replacement, `RESAMPLES` (2000) times. The bounds are the 2.5 and 97.5 percentiles of the medians of
    these samples.
    """
    if not len(values):
        return Interval(math.nan, math.nan, math.nan)
    sample = np.asarray(values, float)
    draws = np.random.default_rng(0).integers(len(sample), size=(RESAMPLES, len(sample)))
    low, high = np.percentile(np.median(sample[draws], axis=1), [2.5, 97.5])
    return Interval(float(np.median(sample)), float(low), float(high))


def wilson_interval(successes: int, n: int) -> Interval:
    """Return the rate successes / n with its 95 % Wilson interval, which is valid also at rates of 0 and 1."""
    low, high = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    return Interval(successes / n, float(low), float(high))


# Columns of the table of results: heading of each column -> function that returns the column's text for one line of results.
COLUMNS: dict[str, Callable[[Line], str]] = {
    "group": lambda line: line.group,
    "method": lambda line: line.method,
    "n": lambda line: str(len(line.rows)),
    "success [%]": lambda line: _percent(line.rate(lambda row: row["success"])),
    "correlation": lambda line: _shown(line.median("correlation"), "{:.3f}"),
    "chi2 (floor)": lambda line: f"{_shown(line.median('chi2'), '{:.1e}')} ({_value(line.median('chi2_floor'), '{:.0e}')})",
    "R (floor)": lambda line: f"{_value(line.median('r_factor'), '{:.3f}')} ({_value(line.median('r_factor_floor'), '{:.3f}')})",
    "llk_free (floor)": lambda line: f"{_value(line.median('llk_free'))} ({_value(line.median('llk_free_floor'))})",
    "SSIM": lambda line: _value(line.median("ssim"), "{:.3f}"),
    "IoU 0.1 / 0.3 / 0.5": lambda line: " / ".join(_value(iou(line, threshold), "{:.2f}") for threshold in ("0.1", "0.3", "0.5")),
    "phase MAE [rad]": lambda line: _shown(line.median("phase_mae"), "{:.3f}"),
    "strain RMSE [%]": lambda line: _percent_of(line.median("strain_rmse")),
    "twin / blend [%]": lambda line: f"{_rate(line, 'twin')} / {_rate_of(line, is_blend)}",
    "good [%]": lambda line: _rate_of(line, lambda row: row.get("verdict") == "good"),
    "noticed [%]": lambda line: _rate(line, "noticed") if any("noticed" in row for row in line.rows) else "-",
    "seconds": lambda line: _value(line.median("seconds"), "{:.2g}"),
    "volumes/s": lambda line: _value(Interval(1 / max(line.median("seconds").value, 1e-9), 0, 0), "{:.2g}"),
}


def is_blend(row: Row) -> bool:
    """Tell whether phasing missed the crystal because its result is a blend of the crystal with the twin."""
    return not row["success"] and (row.get("blend") or 0) >= BLENDED


def iou(line: Line, threshold: str) -> Interval:
    """Return the median over crystals of the intersection over union of found and true support.

    The found support holds the voxels whose amplitude, divided by the typical amplitude, is above `threshold`.
    """
    return median([row["iou"][threshold] for row in line.rows if row.get("iou")])


def markdown(rows: Sequence[Row], command: str = "") -> str:
    """Return the table of results in Markdown, with one section for each suite; `command` is shown at the top."""
    parts = [f"`{command}`\n" if command else "", _LEGEND]
    suite = ""
    for line in group_rows(rows):
        if line.suite != suite:
            suite = line.suite
            about = SUITES[suite].about if suite in SUITES else ""
            parts += [f"\n## {suite}\n\n{about}\n", "| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
        parts.append("| " + " | ".join(column(line) for column in COLUMNS.values()) + " |")
    failed = [row for row in rows if row.get("error")]
    if failed:
        parts.append(
            "\n## Not phased\n\n" + "\n".join(f"- {r['suite']}, {r['crystal']}, {r['method']}: {r['error']}" for r in failed)
        )
    return "\n".join(part for part in parts if part) + "\n"


_LEGEND = """
Medians, with 95 % bootstrap intervals in brackets; success is an aligned complex correlation with the truth of at least 0.95,
with its Wilson interval. The floor is what the truth itself leaves, from photon noise alone. twin: the conjugate inversion came
out; blend: a failure that mixes both. good: the verdict, which does not know the truth. noticed: something was said about the scan.
Strain by the field's convention, Au(111) and voxels of 10 nm.
"""


def write(path: Path, rows: Sequence[Row], command: str = "", more: str = "") -> None:
    """Write the table of results in Markdown to `path`; `command` is shown at the top, and `more` sections follow.

    Raises
    ------
    OutputError : if the file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(markdown(rows, command) + more, encoding="utf-8")


def _value(interval: Interval, form: str = "{:.2f}") -> str:
    return "-" if math.isnan(interval.value) else form.format(interval.value)


def _shown(interval: Interval, form: str) -> str:
    return "-" if math.isnan(interval.value) else f"{form} [{form}, {form}]".format(interval.value, interval.low, interval.high)


def _percent(interval: Interval) -> str:
    return f"{100 * interval.value:.0f} [{100 * interval.low:.0f}, {100 * interval.high:.0f}]"


def _percent_of(interval: Interval) -> str:
    return "-" if math.isnan(interval.value) else f"{100 * interval.value:.3f}"


def _rate(line: Line, name: str) -> str:
    return _rate_of(line, lambda row: bool(row.get(name)))


def _rate_of(line: Line, holds: Callable[[Any], bool]) -> str:
    return f"{100 * line.rate(holds).value:.0f}"
