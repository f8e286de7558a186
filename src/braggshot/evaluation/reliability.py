"""Count how often each verdict is right, per class of crystals and overall, and how much of a crystal one sigma covers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from scipy.stats import binomtest

from braggshot.evaluation.rows import Row
from braggshot.evaluation.table import Line, group_rows, median

SUITE = "trust"  # suite whose rows are counted


def lower_bound(successes: int, n: int) -> float:
    """Return the exact one-sided 95 % lower bound of the rate successes / n (Clopper-Pearson); NaN where n is 0.

    Where all n succeed this is 0.05^(1 / n): 51 of 51 prove no more than 94.3 %.
    """
    if not n:
        return math.nan
    return float(binomtest(successes, n, alternative="greater").proportion_ci(0.95, method="exact").low)


def markdown(rows: Sequence[Row]) -> str:
    """Return the tables of reliability in Markdown, one for each method; empty without rows of the suite "trust"."""
    lines = group_rows([row for row in rows if row["suite"] == SUITE])
    parts = []
    for method in dict.fromkeys(line.method for line in lines):
        chosen = [line for line in lines if line.method == method]
        every = Line(SUITE, "all", method, [row for line in chosen for row in line.rows])
        parts += [f"\n## Reliability of {method}\n{_LEGEND}", "| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
        parts += ["| " + " | ".join(column(line) for column in COLUMNS.values()) + " |" for line in (*chosen, every)]
    return "\n".join(parts) + "\n" if parts else ""


def _count(line: Line, verdict: str | None, right: bool | None = None) -> int:
    """Count the rows with a verdict (None where phasing gave none) that are right or wrong, or both."""
    return sum(row.get("verdict") == verdict and right in (None, row["success"]) for row in line.rows)


def _pair(verdict: str) -> Callable[[Line], str]:
    return lambda line: f"{_count(line, verdict, True)} / {_count(line, verdict, False)}"


def _bound(line: Line) -> str:
    return _percent(lower_bound(_count(line, "good", True), _count(line, "good")))


def _recall(line: Line) -> str:
    right = sum(row["success"] for row in line.rows)
    return _percent(_count(line, "good", True) / right if right else math.nan)


def _covered(name: str) -> Callable[[Line], str]:
    """Return a function that writes the median coverage of one sigma over the right crystals, and their number."""

    def text(line: Line) -> str:
        shares = [row["coverage"][name] for row in line.rows if row["success"] and name in (row.get("coverage") or {})]
        return f"{median(shares).value:.2f} ({len(shares)})" if shares else "-"

    return text


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


# Heading of each column -> function that returns the column's text for one line.
COLUMNS: dict[str, Callable[[Line], str]] = {
    "class": lambda line: line.group,
    "n": lambda line: str(len(line.rows)),
    "good": lambda line: str(_count(line, "good")),
    "good and right": lambda line: str(_count(line, "good", True)),
    "lower bound [%]": _bound,
    "doubtful right / wrong": _pair("doubtful"),
    "failed right / wrong": _pair("failed"),
    "no result": lambda line: str(_count(line, None)),
    "recall of good [%]": _recall,
    "phase within sigma (n)": _covered("phase"),
    "strain within sigma (n)": _covered("strain"),
}

_LEGEND = """
Right: an aligned complex correlation with the truth of at least 0.95. Lower bound: exact one-sided 95 % bound (Clopper-Pearson) of
the rate at which good is right. Recall: share of the right crystals that are called good. Within sigma: share of the bulk whose
error is at most one sigma, median over the right crystals that have a sigma.
"""
