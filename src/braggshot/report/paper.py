"""Draw the figure for a paper: surface with named facets, slices of strain and displacement, histogram."""

from __future__ import annotations

import re
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from braggshot.physics.strain import summary_table
from braggshot.report import figures
from braggshot.report.figures import Colours, Picture
from braggshot.report.strain_figures import Material, histogram, slices, views

_INK, _Q = "#1b1f24", "#1f5fa8"  # colours of text and lines, and of the scattering vector q
_SIDES, _PIXELS = (30, 210), 500  # azimuths [degrees] and size [pixels] of the views of the surface
_WIDTH, _HEIGHT = 7.2, 6.4  # size of the figure, two columns of a journal [inches]


def strain_figure(shown: Material) -> Figure:
    """Draw the strain of a crystal as a matplotlib figure of 7.2 x 6.4 inches; the state of pyplot stays unchanged."""
    figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=300, facecolor="white")
    left = 0.012
    for number, picture in enumerate(views(shown, "strain", _PIXELS, _SIDES)):
        axes = figure.add_axes((left + 0.32 * number, 0.635, 0.30, 0.30 * _WIDTH / _HEIGHT))
        draw(axes, picture, bar=number == 0)
        triad(axes, picture)
        _letter(axes, "ab"[number])
    _histogram(figure.add_axes((0.735, 0.715, 0.245, 0.21)), shown)
    rows = (("strain", "c", shown.strains, 0.345), ("displacement", "d", shown.displacements, 0.03))
    for what, letter, colours, bottom in rows:
        for number, picture in enumerate(slices(shown, what)):
            axes = figure.add_axes((0.03 + 0.285 * number, bottom, 0.255, 0.255 * _WIDTH / _HEIGHT))
            draw(axes, picture, bar=number == 0)
            _planes(axes, picture)
            if number == 0:
                _letter(axes, letter)
        _colour_bar(figure, (0.895, bottom + 0.03, 0.016, 0.225), what, colours)
    return figure


def draw(axes: Axes, picture: Picture, *, bar: bool) -> None:
    """Draw a panel, its scale bar (if `bar`), and the names of its facets."""
    axes.imshow(picture.rgba, extent=(0, picture.width, 0, picture.height), interpolation="nearest")
    axes.set_axis_off()
    for name, across, along in picture.labels:
        box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}
        place = (across * picture.width, along * picture.height)
        axes.text(*place, in_mathtext(name), fontsize=6.5, color=_INK, ha="center", va="center", bbox=box)
    if bar:
        size = figures.scale_bar(picture.width)
        end, height = 0.97 * picture.width, 0.04 * picture.height
        axes.plot([end - size, end], [height, height], color=_INK, linewidth=1.8, solid_capstyle="butt")
        axes.text(
            end - size / 2, 0.055 * picture.height, f"{size:g} {picture.unit}", fontsize=6.5, color=_INK, ha="center", va="bottom"
        )


def in_mathtext(name: str) -> str:
    """Write the name of a plane as mathtext, because most fonts misplace combining bars over negative indices."""
    return "$" + re.sub("(\\d)\N{COMBINING OVERLINE}", r"\\bar{\1}", name) + "$"


def triad(axes: Axes, picture: Picture) -> None:
    """Draw the coordinate axes and the scattering vector q as arrows from one point."""
    start, size = np.array([0.11, 0.11]) * picture.width, 0.075 * picture.width
    for name, right, up in picture.triad:
        end = start + size * np.array([right, up]) * (1.5 if name == "q" else 1.0)
        colour = _Q if name == "q" else _INK
        arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", (float(end[0]), float(end[1])), (float(start[0]), float(start[1])), arrowprops=arrow)
        across, along = start + 1.35 * (end - start)
        axes.text(across, along, name, fontsize=6, color=colour, ha="center", va="center")


def _planes(axes: Axes, picture: Picture) -> None:
    axes.text(0.02, 0.97, f"{picture.across}\n{picture.along}", transform=axes.transAxes, fontsize=6, color=_INK, va="top")


def _letter(axes: Axes, letter: str) -> None:
    axes.text(0.0, 0.995, letter, transform=axes.transAxes, fontsize=9, fontweight="bold", color=_INK, ha="left", va="bottom")


def _colour_bar(figure: Figure, place: Sequence[float], name: str, colours: Colours) -> None:
    left, bottom, width, height = place
    axes = figure.add_axes((left, bottom, width, height))
    norm = mpl.colors.Normalize(colours.low, colours.high)
    bar = figure.colorbar(mpl.cm.ScalarMappable(norm, colours.name), cax=axes, ticks=np.linspace(colours.low, colours.high, 5))
    bar.outline.set_linewidth(0.5)
    power = int(np.floor(np.log10(colours.high)))
    scaled = not colours.unit and power < -1
    bar.ax.set_yticklabels([f"{tick / 10.0**power if scaled else tick:g}".replace("-", "−") for tick in bar.get_ticks()])
    unit = f" [10$^{{{power}}}$]" if scaled else f" [{colours.unit}]" if colours.unit else ""
    bar.ax.tick_params(labelsize=6.5, width=0.5, length=2)
    bar.set_label(f"{name} along q{unit}", fontsize=7)


def _histogram(axes: Axes, shown: Material) -> None:
    strain, densities = histogram(shown)
    power = int(np.floor(np.log10(shown.strains.high)))
    for (name, density), colour in zip(densities.items(), (_INK, "#c2452d"), strict=True):
        axes.step(strain / 10.0**power, density * 10.0**power, where="mid", linewidth=0.9, color=colour, label=name)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"strain along q [10$^{{{power}}}$]", fontsize=7)
    axes.set_ylabel("density", fontsize=7)
    axes.tick_params(labelsize=6.5, width=0.5, length=2)
    axes.spines[["top", "right"]].set_visible(False)
    few = summary_table(shown.found)
    if few["strain_std"] is not None:
        axes.set_title(f"bulk: σ = {few['strain_std'] / 10.0**power:.2f} × 10$^{{{power}}}$", fontsize=7)
    axes.legend(fontsize=6, frameon=False, loc="upper right", handlelength=1.2)
    axes.text(-0.3, 1.08, "e", transform=axes.transAxes, fontsize=9, fontweight="bold", color=_INK)
