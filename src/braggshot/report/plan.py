"""Draw the slide of a planned measurement: its numbers, and the pattern that such a crystal would give."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from braggshot.io.atomic import replacing
from braggshot.volumes import FloatArray

_INK, _SOFT, _WARN = "#1b1f24", "#59636e", "#a15c00"  # colours of text, of less important text, and of advice
PLANES = ("middle frame", "frames and columns", "frames and rows")


def write_plan_slide(
    path: str | Path, title: str, facts: Iterable[tuple[str, str]], advice: Iterable[str], counts: FloatArray | None
) -> None:
    """Write the slide as PNG.

    Parameters
    ----------
    path, title : file to write, and heading
    facts, advice : names and values; sentences below them
    counts : (frames, rows, columns) of the expected pattern [photons]; None leaves the pattern out

    Raises
    ------
    OutputError : if the file cannot be written.
    """
    figure = plan_slide(title, facts, advice, counts)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": "braggshot"})


def plan_slide(title: str, facts: Iterable[tuple[str, str]], advice: Iterable[str], counts: FloatArray | None) -> Figure:
    """Draw the slide as a matplotlib figure of 2000 x 1125 pixels; arguments as in `write_plan_slide`."""
    figure = Figure(figsize=(13.333, 7.5), dpi=150, facecolor="white")
    figure.text(0.015, 0.955, title, fontsize=20, fontweight="bold", color=_INK, va="center", parse_math=False)
    _list(figure, (0.015, 0.135), facts, 72, _INK)
    _list(figure, (0.59, 0.6), (("•", sentence) for sentence in advice), 62, _WARN)
    if counts is not None:
        _draw_pattern(figure, counts)
    return figure


def _list(figure: Figure, places: tuple[float, float], facts: Iterable[tuple[str, str]], width: int, colour: str) -> None:
    """Write names and values below each other, each value wrapped after `width` letters."""
    height = 0.905
    for name, value in facts:
        figure.text(places[0], height, name, fontsize=10, color=_SOFT, va="baseline")
        for line in textwrap.wrap(value, width):
            figure.text(places[1], height, line, fontsize=10, color=colour, va="baseline", parse_math=False)
            height -= 0.026


def _draw_pattern(figure: Figure, counts: FloatArray) -> None:
    """Draw the three central planes of a pattern, with one scale of colours."""
    z, y, x = (size // 2 for size in counts.shape)
    planes = (counts[z], counts[:, y], counts[:, :, x])
    shades = LogNorm(0.5, max(float(counts.max()), 1.0))
    for number, (plane, name) in enumerate(zip(planes, PLANES, strict=True)):
        axes = figure.add_axes((0.015 + 0.33 * number, 0.1, 0.31, 0.335))
        image = axes.imshow(np.maximum(plane, 0.5), norm=shades, cmap="viridis", interpolation="nearest", aspect="auto")
        axes.set_title(f"{name}, {plane.shape[0]} x {plane.shape[1]}", fontsize=9, color=_SOFT)
        axes.set_xticks([])
        axes.set_yticks([])
    bar = figure.add_axes((0.015, 0.065, 0.97, 0.015))
    figure.colorbar(image, cax=bar, orientation="horizontal").set_label("photons", fontsize=9, labelpad=0)
