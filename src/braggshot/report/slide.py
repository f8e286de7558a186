"""Draw the slide: one 16:9 picture with the crystal from four sides, slices, diffraction, verdict and numbers."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from braggshot.report import figures, strain_figures, text
from braggshot.report.drawing import Drawing
from braggshot.report.figures import Colours, Picture
from braggshot.report.paper import in_mathtext
from braggshot.volumes import Reconstruction

# Colour of each verdict.
HUES = {"good": "#1a7f4b", "explained": "#1b5e9e", "doubtful": "#a15c00", "failed": "#b3261e", "not judged": "#5f6368"}
_INK, _SOFT, _Q = "#1b1f24", "#59636e", "#1f5fa8"  # colours of text, of less important text, and of the scattering vector q


def slide(drawing: Drawing) -> Figure:
    """Draw the slide of a reconstruction as a matplotlib figure of 2000 x 1125 pixels; the state of pyplot stays unchanged."""
    figure = Figure(figsize=(13.333, 7.5), dpi=150, facecolor="white")
    reconstruction = drawing.reconstruction
    _title(figure, reconstruction)
    if drawing.material is None:
        shown = drawing.crystal
        views, (amplitudes, others) = drawing.views, figures.slices(shown)
        bright, colours, name, title = shown.amplitudes, shown.phases, "phase", "phase"
    else:
        known = drawing.material
        views = drawing.strain_views
        amplitudes, others = strain_figures.slices(known, "amplitude"), strain_figures.slices(known)
        bright, colours, name = known.amplitudes, known.strains, "strain along q"
        title = f"{name}, {text.FRAMES[known.found.frame]}"
    for number, picture in enumerate(views):
        axes = figure.add_axes((0.005 + 0.205 * (number % 2), 0.49 - 0.365 * (number // 2), 0.2, 0.3556))
        _draw(axes, picture, bar=number == 3)
        _triad(axes, picture)
    _legend(figure, (0.115, 0.07), name, colours)
    _strip(figure, amplitudes, (0.425, 0.625), "amplitude", bright)
    _strip(figure, others, (0.425, 0.345), title, colours)
    _numbers(figure, reconstruction)
    compared = drawing.diffraction
    if compared is not None:
        _strip(figure, compared.measured, (0.718, 0.625), "measured counts", compared.counts)
        _strip(figure, compared.fitted, (0.718, 0.345), "fitted counts", compared.counts)
        _strip(figure, compared.difference, (0.718, 0.065), "fitted − measured", compared.errors)
    return figure


def _title(figure: Figure, reconstruction: Reconstruction) -> None:
    verdict = reconstruction.verdict
    figure.text(0.015, 0.96, reconstruction.volume.name, fontsize=20, fontweight="bold", color=_INK, va="center", parse_math=False)
    pill = {"boxstyle": "round,pad=0.35", "facecolor": HUES[verdict], "edgecolor": "none"}
    figure.text(0.985, 0.96, verdict, fontsize=17, fontweight="bold", color="white", va="center", ha="right", bbox=pill)
    reasons = reconstruction.reasons or (text.HEADLINES[verdict],)
    for line, reason in enumerate(reasons[:2]):
        more = f"   (and {len(reasons) - 2} more)" if line == 1 and len(reasons) > 2 else ""
        shortened = textwrap.shorten(reason, 165, placeholder=" …") + more
        figure.text(0.015, 0.913 - 0.025 * line, shortened, fontsize=11, color=HUES[verdict], va="center", parse_math=False)


def _numbers(figure: Figure, reconstruction: Reconstruction) -> None:
    facts = text.quality_facts(reconstruction) + text.crystal_facts(reconstruction)
    for row, fact in enumerate(facts):
        height = 0.295 - 0.0205 * row
        figure.text(0.425, height, fact.name, fontsize=9, color=_SOFT)
        figure.text(0.52, height, fact.value, fontsize=9, color=_INK, parse_math=False)


def _strip(figure: Figure, pictures: Sequence[Picture], corner: tuple[float, float], name: str, colours: Colours) -> None:
    """Draw three panels side by side, their common name above and their colour bar below."""
    left, bottom = corner
    figure.text(left, bottom + 0.234, name, fontsize=10.5, color=_INK, fontweight="bold")
    for number, picture in enumerate(pictures):
        axes = figure.add_axes((left + 0.091 * number, bottom + 0.045, 0.088, 0.165))
        _draw(axes, picture, bar=number == 0)
        axes.text(0.5, 1.02, picture.title, transform=axes.transAxes, fontsize=7.5, color=_SOFT, ha="center", va="bottom")
    _legend(figure, (left + 0.04, bottom + 0.02), "", colours)


def _draw(axes: Axes, picture: Picture, *, bar: bool) -> None:
    axes.imshow(picture.rgba, extent=(0, picture.width, 0, picture.height), interpolation="nearest")
    axes.set_axis_off()
    axes.set_anchor("N")
    for name, across, along in picture.labels:
        place = (across * picture.width, along * picture.height)
        axes.text(*place, in_mathtext(name), fontsize=8, color=_INK, ha="center", va="center")
    if bar:
        size = figures.scale_bar(picture.width)
        colour = "white" if picture.is_dark else _INK
        end, height = 0.96 * picture.width, 0.05 * picture.height
        axes.plot([end - size, end], [height, height], color=colour, linewidth=2, solid_capstyle="butt")
        label = f"{size:g} {picture.unit}"
        axes.text(end, 0.07 * picture.height, label, fontsize=7.5, color=colour, ha="right", va="bottom")


def _triad(axes: Axes, picture: Picture) -> None:
    """Draw the coordinate axes and the scattering vector q as lines from one point."""
    start, size = np.array([0.1, 0.1]) * picture.width, 0.07 * picture.width
    for name, right, up in picture.triad:
        end = start + size * np.array([right, up])
        colour = _Q if name == "q" else _SOFT
        axes.plot(*zip(start, end, strict=True), color=colour, linewidth=1.4)
        across, along = start + 1.35 * (end - start)
        axes.text(across, along, name, fontsize=8, color=colour, ha="center", va="center")


def _legend(figure: Figure, corner: tuple[float, float], name: str, colours: Colours) -> None:
    axes = figure.add_axes((*corner, 0.14, 0.013))
    axes.imshow(mpl.colormaps[colours.name](np.linspace(0, 1, 256))[None], aspect="auto", extent=(0, 1, 0, 1))
    axes.set_axis_off()
    low, high = figures.ends(colours)
    axes.text(-0.03, 0.4, low, transform=axes.transAxes, fontsize=8, color=_INK, ha="right", va="center")
    axes.text(1.03, 0.4, f"{high} {colours.unit} {name}", transform=axes.transAxes, fontsize=8, color=_INK, va="center")
