"""Draw the figure of an evaluation: which phasing methods find the test crystals, how well, and in what time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from braggshot.io.atomic import replacing

Rows = Sequence[Mapping[str, Any]]
_SIZE = (11, 7)  # width and height of the figure [inches]
_MARKS = "osD^vPX*<>hd"  # matplotlib's markers, one for each method in turn


def write_evaluation_figure(path: str | Path, title: str, rows: Rows) -> None:
    """Write a figure of four panels that compares phasing methods on groups of test crystals.

    `rows` has one entry for each method and crystal, as the list ``rows`` in the file ``results.json``.

    Raises
    ------
    OutputError : if the file cannot be written.
    """
    figure = evaluation_figure(title, rows)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=Path(path).suffix[1:] or "png", dpi=150)


def evaluation_figure(title: str, rows: Rows) -> Figure:
    """Draw four panels that compare phasing methods.

    They show the share of crystals found in each group, the correlation of each crystal with the truth, the share found against
    the time per crystal, and how well the found support overlaps the true one. The overlap (intersection over union) is
    plotted against a threshold. The found support holds the voxels whose amplitude, relative to its typical value, is above it.
    """
    figure = Figure(figsize=_SIZE, layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=11, parse_math=False)
    groups, methods = (list(dict.fromkeys(row[name] for row in rows)) for name in ("group", "method"))
    colours = {method: mpl.colormaps["tab20"](number % 20) for number, method in enumerate(methods)}
    panels = figure.subplots(2, 2)
    for panel, draw in zip(panels.flat, (_success, _correlations, _times, _overlaps), strict=True):
        draw(panel, rows, groups, colours)
        panel.spines[["top", "right"]].set_visible(False)
    handles, names = panels[0, 0].get_legend_handles_labels()
    legend = figure.legend(handles, names, loc="outside lower center", ncols=min(len(methods), 6), fontsize=8, frameon=False)
    for name in legend.get_texts():
        name.set_parse_math(False)  # a network may have any name
    return figure


def _of(rows: Rows, method: str, group: str | None = None) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["method"] == method and group in (None, row["group"])]


def _rate(rows: Rows) -> float:
    return float(np.mean([row["success"] for row in rows])) if rows else np.nan


def _name_groups(axes: Axes, groups: list[str]) -> None:
    slanted: dict[str, Any] = {"rotation": 35, "ha": "right", "fontsize": 8} if len(groups) > 7 else {}  # else they overlap
    axes.set_xticks(range(len(groups)), groups, **slanted)


def _success(axes: Axes, rows: Rows, groups: list[str], colours: Mapping[str, Any]) -> None:
    for mark, (method, colour) in zip(_MARKS * len(colours), colours.items(), strict=False):
        rates = [_rate(_of(rows, method, group)) for group in groups]
        axes.plot(range(len(groups)), rates, marker=mark, color=colour, label=method, alpha=0.85)
    _name_groups(axes, groups)
    axes.set_ylim(-0.03, 1.03)
    axes.set_ylabel("share of crystals found")


def _correlations(axes: Axes, rows: Rows, groups: list[str], colours: Mapping[str, Any]) -> None:
    step = 0.8 / len(colours)
    for number, (method, colour) in enumerate(colours.items()):
        for place, group in enumerate(groups):
            values = [row["correlation"] for row in _of(rows, method, group)]
            where = np.full(len(values), place - 0.4 + (number + 0.5) * step)
            axes.scatter(where, values, s=6, color=colour, alpha=0.6, linewidths=0)
            if values:
                axes.plot([where[0] - step / 2, where[0] + step / 2], [np.median(values)] * 2, color=colour, linewidth=2)
    axes.axhline(0.95, color="0.5", linewidth=0.8, linestyle=":")
    _name_groups(axes, groups)
    axes.set_ylabel("aligned correlation, median")


def _times(axes: Axes, rows: Rows, groups: list[str], colours: Mapping[str, Any]) -> None:
    for mark, (method, colour) in zip(_MARKS * len(colours), colours.items(), strict=False):
        chosen = _of(rows, method)
        axes.scatter([np.median([row["seconds"] for row in chosen])], [_rate(chosen)], marker=mark, color=colour, s=45)
    axes.set_xscale("log")
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("median time per crystal [s]")
    axes.set_ylabel("share found, all groups")


def _overlaps(axes: Axes, rows: Rows, groups: list[str], colours: Mapping[str, Any]) -> None:
    for method, colour in colours.items():
        curves = [row["iou"] for row in _of(rows, method) if row.get("iou")]
        if curves:
            thresholds = sorted(curves[0], key=float)
            medians = [np.median([curve[t] for curve in curves]) for t in thresholds]
            axes.plot([float(t) for t in thresholds], medians, color=colour)
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("threshold on the amplitude")
    axes.set_ylabel("support, intersection over union")
