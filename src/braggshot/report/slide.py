"""Draw the slide: one 16:9 picture with the crystal from four sides, slices, diffraction, verdict and numbers."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from braggshot.report import figures, strain_figures, text
from braggshot.report.drawing import Drawing
from braggshot.report.figures import Colours, Picture, Pixels
from braggshot.report.paper import in_mathtext
from braggshot.volumes import Reconstruction

_SIZE = (13.333, 7.5)  # width and height of the slide [inches]
# Colour of each verdict.
HUES = {"good": "#1a7f4b", "explained": "#1b5e9e", "doubtful": "#a15c00", "failed": "#b3261e", "not judged": "#5f6368"}
_INK, _SOFT, _Q = "#1b1f24", "#59636e", "#1f5fa8"  # colours of text, of less important text, and of the scattering vector q
_LINE = "#111111"  # colour of the lines of dislocations


@dataclass(frozen=True)
class Place:
    """Lower left corner and size of a panel, as shares of the slide's width and height."""

    left: float
    bottom: float
    width: float
    height: float

    def at(self, across: float, along: float) -> tuple[float, float]:
        """Return the point of the slide that lies at the given shares of the panel's width and height."""
        return self.left + across * self.width, self.bottom + along * self.height

    def fitted(self, picture: Picture) -> Place:
        """Return the largest part, at the top and in the middle, that shows the picture in true proportions."""
        ratio = picture.width / picture.height * _SIZE[1] / _SIZE[0]
        width, height = min(self.width, self.height * ratio), min(self.height, self.width / ratio)
        return Place(self.left + (self.width - width) / 2, self.bottom + self.height - height, width, height)


def slide(drawing: Drawing) -> Figure:
    """Draw the slide of a reconstruction as a matplotlib figure of 2000 x 1125 pixels; the state of pyplot stays unchanged."""
    figure = Figure(figsize=_SIZE, dpi=150, facecolor="white")
    # One pair of axes holds all panels: matplotlib makes ticks and grids for each pair, even for those that show none.
    canvas = figure.add_axes((0, 0, 1, 1), autoscale_on=False)
    canvas.set_axis_off()
    reconstruction = drawing.reconstruction
    _title(canvas, reconstruction)
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
        place = Place(0.005 + 0.205 * (number % 2), 0.49 - 0.365 * (number // 2), 0.2, 0.3556).fitted(picture)
        _draw(canvas, picture, place, bar=number == 3)
        _triad(canvas, picture, place)
    _legend(canvas, (0.115, 0.07), name, colours)
    if drawing.material is not None and drawing.material.found.lines:
        said = text.dislocations(drawing.material.found.lines)
        canvas.text(0.115, 0.045, f"{said} (black, seen through)", fontsize=9, color=_INK, va="center", parse_math=False)
    _strip(canvas, amplitudes, (0.425, 0.625), "amplitude", bright)
    _strip(canvas, others, (0.425, 0.345), title, colours)
    _numbers(canvas, reconstruction)
    compared = drawing.diffraction
    if compared is not None:
        _strip(canvas, compared.measured, (0.718, 0.625), "measured counts", compared.counts)
        _strip(canvas, compared.fitted, (0.718, 0.345), "fitted counts", compared.counts)
        _strip(canvas, compared.difference, (0.718, 0.065), "fitted − measured", compared.errors)
    return figure


def _title(canvas: Axes, reconstruction: Reconstruction) -> None:
    verdict = reconstruction.verdict
    canvas.text(0.015, 0.96, reconstruction.volume.name, fontsize=20, fontweight="bold", color=_INK, va="center", parse_math=False)
    pill = {"boxstyle": "round,pad=0.35", "facecolor": HUES[verdict], "edgecolor": "none"}
    canvas.text(0.985, 0.96, verdict, fontsize=17, fontweight="bold", color="white", va="center", ha="right", bbox=pill)
    reasons = reconstruction.reasons or (text.HEADLINES[verdict],)
    for line, reason in enumerate(reasons[:2]):
        more = f"   (and {len(reasons) - 2} more)" if line == 1 and len(reasons) > 2 else ""
        shortened = textwrap.shorten(reason, 165, placeholder=" …") + more
        canvas.text(0.015, 0.913 - 0.025 * line, shortened, fontsize=11, color=HUES[verdict], va="center", parse_math=False)


def _numbers(canvas: Axes, reconstruction: Reconstruction) -> None:
    facts = text.quality_facts(reconstruction) + text.crystal_facts(reconstruction)
    for row, fact in enumerate(facts):
        height = 0.295 - 0.0205 * row
        canvas.text(0.425, height, fact.name, fontsize=9, color=_SOFT)
        canvas.text(0.52, height, fact.value, fontsize=9, color=_INK, parse_math=False)


def _strip(canvas: Axes, pictures: Sequence[Picture], corner: tuple[float, float], name: str, colours: Colours) -> None:
    """Draw three panels side by side, their common name above and their colour bar below."""
    left, bottom = corner
    canvas.text(left, bottom + 0.234, name, fontsize=10.5, color=_INK, fontweight="bold")
    for number, picture in enumerate(pictures):
        place = Place(left + 0.091 * number, bottom + 0.045, 0.088, 0.165).fitted(picture)
        _draw(canvas, picture, place, bar=number == 0)
        canvas.text(*place.at(0.5, 1.02), picture.title, fontsize=7.5, color=_SOFT, ha="center", va="bottom")
    _legend(canvas, (left + 0.04, bottom + 0.02), "", colours)


def _image(canvas: Axes, rgba: Pixels, place: Place) -> None:
    extent = (place.left, place.left + place.width, place.bottom, place.bottom + place.height)
    canvas.imshow(rgba, extent=extent, aspect="auto", interpolation="nearest")


def _draw(canvas: Axes, picture: Picture, place: Place, *, bar: bool) -> None:
    _image(canvas, picture.rgba, place)
    for line in picture.lines:  # seen through the surface
        across, along = np.transpose([place.at(*point) for point in line.tolist()])
        canvas.plot(across, along, color="white", linewidth=3.2, solid_capstyle="round")
        canvas.plot(across, along, color=_LINE, linewidth=1.8, solid_capstyle="round")
    for name, across, along in picture.labels:
        canvas.text(*place.at(across, along), in_mathtext(name), fontsize=8, color=_INK, ha="center", va="center")
    if bar:
        size = figures.scale_bar(picture.width)
        colour = "white" if picture.is_dark else _INK
        ends = place.at(0.96 - size / picture.width, 0.05), place.at(0.96, 0.05)
        canvas.plot(*zip(*ends, strict=True), color=colour, linewidth=2, solid_capstyle="butt")
        label = f"{size:g} {picture.unit}"
        canvas.text(*place.at(0.96, 0.07), label, fontsize=7.5, color=colour, ha="right", va="bottom")


def _triad(canvas: Axes, picture: Picture, place: Place) -> None:
    """Draw the coordinate axes and the scattering vector q as lines from one point."""
    start = np.array([0.1, 0.1])
    for name, right, up in picture.triad:
        along = 0.07 * np.array([right, up])
        colour = _Q if name == "q" else _SOFT
        ends = place.at(*start), place.at(*(start + along))
        canvas.plot(*zip(*ends, strict=True), color=colour, linewidth=1.4)
        canvas.text(*place.at(*(start + 1.35 * along)), name, fontsize=8, color=colour, ha="center", va="center")


def _legend(canvas: Axes, corner: tuple[float, float], name: str, colours: Colours) -> None:
    place = Place(*corner, 0.14, 0.013)
    _image(canvas, mpl.colormaps[colours.name](np.linspace(0, 1, 256), bytes=True)[None], place)
    low, high = figures.ends(colours)
    canvas.text(*place.at(-0.03, 0.4), low, fontsize=8, color=_INK, ha="right", va="center")
    canvas.text(*place.at(1.03, 0.4), f"{high} {colours.unit} {name}", fontsize=8, color=_INK, va="center")
