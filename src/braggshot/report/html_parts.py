"""Lay out parts of a page as plain HTML text: rows of pictures, colour bars, cards of numbers, curves."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.layout_engine import TightLayoutEngine

from braggshot.report import figures, text
from braggshot.report.figures import Colours, Picture, Pixels
from braggshot.volumes import FloatArray

# Placeholder colours in a drawing: the first is replaced by the page's colour of text, the second by its accent colour.
_INK, _LINE = "#010203", "#040506"


def row(pictures: Sequence[Picture], kind: str = "", *, voxels: bool = False) -> str:
    """Lay pictures out side by side at one height; with `voxels` their pixels are shown without smoothing."""
    return f'<div class="row {kind}">{"".join(_figure(p, voxels=voxels) for p in pictures)}</div>'


def _figure(picture: Picture, *, voxels: bool) -> str:
    bar = figures.scale_bar(picture.width)
    caption = f"{picture.across}, {picture.along}" if picture.across else picture.title
    kind = "bar on-dark" if picture.is_dark else "bar"
    return (
        f'<figure style="flex:{picture.width / picture.height:.4g}">'
        f'<div class="frame" style="aspect-ratio:{picture.width:.6g}/{picture.height:.6g}">'
        f'<img class="{"voxels" if voxels else ""}" alt="{escape(caption)}" src="{png(picture.rgba)}">'
        f'<span class="{kind}" style="width:{100 * bar / picture.width:.2f}%">{bar:g} {picture.unit}</span>'
        f"{_inside(picture)}{_triad(picture)}{_labels(picture)}</div><figcaption>{escape(caption)}</figcaption></figure>"
    )


def png(rgba: Pixels) -> str:
    """Encode an image as a data URL."""
    stream = io.BytesIO()
    imsave(stream, rgba, format="png", pil_kwargs=figures.PNG)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _labels(picture: Picture) -> str:
    """Write the names of facets at their places on the picture."""
    spans = (
        f'<span class="label" style="left:{100 * across:.1f}%;bottom:{100 * along:.1f}%">{escape(name)}</span>'
        for name, across, along in picture.labels
    )
    return "".join(spans)


def _inside(picture: Picture) -> str:
    """Draw lines inside the crystal, seen through its surface."""
    paths = (" ".join(f"{100 * across:.1f},{100 - 100 * along:.1f}" for across, along in line.tolist()) for line in picture.lines)
    drawn = "".join(f'<polyline class="edge" points="{path}"/><polyline points="{path}"/>' for path in paths)
    return f'<svg class="inside" viewBox="0 0 100 100">{drawn}</svg>' if drawn else ""


def _triad(picture: Picture) -> str:
    """Draw the coordinate axes and the scattering vector q as lines from one point."""
    lines = [
        f'<g class="{name}"><line x2="{30 * right:.1f}" y2="{-30 * up:.1f}"/>'
        f'<text stroke="none" x="{40 * right:.1f}" y="{-40 * up + 4:.1f}">{name}</text></g>'
        for name, right, up in picture.triad
    ]
    return f'<svg viewBox="-50 -50 100 100">{"".join(lines)}</svg>' if lines else ""


def legend(name: str, colours: Colours) -> str:
    """Draw a colour bar with the values at its ends and their unit."""
    stops = ", ".join(map(mpl.colors.to_hex, mpl.colormaps[colours.name](np.linspace(0, 1, 13))))
    low, high = figures.ends(colours)
    scale = ", logarithmic" if colours.logarithmic else ""
    return (
        f'<div class="legend"><span>{low}</span><i style="background:linear-gradient(90deg, {stops})"></i>'
        f"<span>{high} {colours.unit} ({name}{scale})</span></div>"
    )


def facts(facts: Sequence[text.Fact]) -> str:
    """Lay out numbers as cards; each has a name, a value and a line that says how to read it."""
    cards = (
        f'<div><dt>{escape(fact.name)}</dt><dd class="value">{escape(fact.value)}{_word(fact)}</dd>'
        f'<dd class="how">{escape(fact.note)}</dd></div>'
        for fact in facts
    )
    return f'<dl class="facts">{"".join(cards)}</dl>'


def _word(fact: text.Fact) -> str:
    """Lay out the word of what is good, where there is one."""
    return f' <span class="word {fact.kind}">{escape(fact.word)}</span>' if fact.word else ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table."""
    titles = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table class="starts"><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'


def plot(
    x: FloatArray,
    curves: Mapping[str, FloatArray],
    across: str,
    along: str,
    *,
    logarithmic: bool = False,
    level: float | None = None,
) -> str:
    """Draw curves as inline SVG in the page's colours, the first one in the accent colour; several curves get a legend."""

    def draw(axes: Axes, ink: str, accent: str) -> None:
        axes.set(xlabel=across, ylabel=along)
        for number, (name, y) in enumerate(curves.items()):
            axes.plot(x, y, color=ink if number else accent, linewidth=1.0 if number else 1.8, label=name)
        if len(curves) > 1:
            axes.legend(frameon=False)
        if level is not None:
            axes.axhline(level, color=ink, linewidth=0.8, linestyle="--")
        if logarithmic and all(np.all(y > 0) for y in curves.values()):
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)

    return drawing(draw, along)


def drawing(draw: Callable[[Axes, str, str], None], salt: str) -> str:
    """Call `draw(axes, ink, accent)`, and return the drawing as inline SVG in the page's colours.

    `salt` makes the ids in the SVG unique on the page.
    """
    style: Any = dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK)
    style |= {"svg.hashsalt": salt, "axes.spines.top": False, "axes.spines.right": False}
    with mpl.rc_context(style):
        figure = Figure(figsize=(4.2, 2.9), layout=TightLayoutEngine(pad=0.3))
        draw(figure.add_subplot(), _INK, _LINE)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True)
    svg = re.sub(r"^.*?(?=<svg)|<metadata>.*?</metadata>| xmlns(:xlink)?=\"[^\"]*\"", "", stream.getvalue(), flags=re.DOTALL)
    svg = svg.replace("xlink:href", "href").replace(_INK, "currentColor").replace(_LINE, "var(--accent)")
    return f'<figure class="plot">{svg}</figure>'
