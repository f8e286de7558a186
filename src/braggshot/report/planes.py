"""Draw planes through a crystal with axes in nm and a colour bar, or its surface, for a notebook or a script."""

from __future__ import annotations

import io

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from braggshot.errors import ConfigError
from braggshot.report import strain_figures
from braggshot.report.drawing import Drawing
from braggshot.report.figures import Colours
from braggshot.report.solid import SLICES, TITLES, Plane, Solid, View, planes

UNITS = {
    "": {"1": 1.0, "%": 100.0, "‰": 1e3, "10⁻⁴": 1e4},
    "pm": {"pm": 1.0, "nm": 1e-3, "Å": 1e-2, "m": 1e-12},
    "Å": {"Å": 1.0, "nm": 0.1, "pm": 100.0, "m": 1e-10},
    "rad": {"rad": 1.0, "°": 180 / np.pi, "deg": 180 / np.pi},
    "√photons": {"√photons": 1.0},
}
"""Unit of the values of a `Solid` -> {unit that a user may choose: factor}; the first is the default."""
_SIDE, _BAR = 3.2, 1.1  # width of one plane, and of the colour bar with its text [inches]


class InlineFigure(Figure):
    """A matplotlib figure that a notebook shows as a picture; the state of pyplot stays unchanged."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.savefig(stream, format="png", bbox_inches="tight")
        return stream.getvalue()


def plane_figure(
    shown: Solid, quantity: str = "strain", unit: str | None = None, plane: str | None = None, at: float | None = None
) -> InlineFigure:
    """Draw a quantity on one plane through the crystal, or on three.

    Parameters
    ----------
    shown : the crystal
    quantity : key of `TITLES`
    unit : unit of the colour bar; None takes the usual one
    plane : "xy", "xz" or "yz"; None draws all three
    at : position of the plane along its normal [unit of the solid]; None takes the middle of the crystal

    Raises
    ------
    ConfigError : for a quantity that the crystal does not have, or a unit or plane that is not known.
    """
    if quantity not in shown.fields:
        raise ConfigError(f"{shown.name} has no quantity {quantity!r}; it has {', '.join(n for n in TITLES if n in shown.fields)}.")
    colours = shown.colours[quantity]
    unit, factor = _unit_of(colours, unit)
    chosen = _chosen(shown, quantity, plane, at)
    figure = InlineFigure(figsize=(_SIDE * len(chosen) + _BAR, _SIDE + 0.5), dpi=110, layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(chosen)))
    norm = Normalize(colours.low * factor, colours.high * factor)
    for axes, one in zip(panels, chosen, strict=True):
        _draw(axes, one, factor, norm, colours.name, shown.unit)
    _add_colour_bar(figure, list(panels), norm, colours.name, TITLES[quantity] + (f" [{unit}]" if unit != "1" else ""))
    figure.suptitle(shown.name, fontsize=11, parse_math=False)
    return figure


def surface_figure(drawing: Drawing, quantity: str) -> InlineFigure:
    """Draw the surface of the crystal from two sides; the quantities that it cannot show are drawn on planes.

    The crystal must have a surface.
    """
    shown = drawing.solid
    assert shown is not None
    quantity = shown.colouring(quantity)
    if drawing.material is not None and quantity in {"strain", "displacement", "amplitude"}:
        pictures = strain_figures.views(drawing.material, quantity, azimuths=strain_figures.VIEWS[:2])
    elif drawing.material is None and quantity == "phase":
        pictures = drawing.views[:2]
    else:
        return plane_figure(shown, quantity)
    figure = InlineFigure(figsize=(2 * _SIDE + _BAR, _SIDE + 0.5), dpi=110, layout="constrained")
    panels = list(figure.subplots(1, len(pictures)))
    for axes, picture in zip(panels, pictures, strict=True):
        axes.imshow(picture.rgba)
        axes.set_axis_off()
    colours = shown.colours[quantity]
    unit = f" [{colours.unit}]" if colours.unit else ""
    _add_colour_bar(figure, panels, Normalize(colours.low, colours.high), colours.name, TITLES[quantity] + unit)
    return figure


def _add_colour_bar(figure: InlineFigure, panels: list[Axes], norm: Normalize, name: str, label: str) -> None:
    """Add the colour bar."""
    figure.colorbar(ScalarMappable(norm, mpl.colormaps[name]), ax=panels, shrink=0.85).set_label(label)


def _unit_of(colours: Colours, unit: str | None) -> tuple[str, float]:
    """Return the chosen unit, and the factor by which values are multiplied."""
    known = UNITS[colours.unit]
    unit = next(iter(known)) if unit is None else unit
    if unit not in known:
        raise ConfigError(f"unit {unit!r} does not fit; known here: {', '.join(known)}.")
    return unit, known[unit]


def _chosen(shown: Solid, quantity: str, plane: str | None, at: float | None) -> list[Plane]:
    """Cut the crystal by the chosen planes."""
    names = ["".join(sorted(across + up)) for _, across, up in SLICES]
    if plane is not None and plane not in names:
        raise ConfigError(f"plane {plane!r} is not known; known: {', '.join(names)}.")
    if at is not None and plane is None:
        raise ConfigError("a position needs a plane: give plane as well.")
    shares = [0.5, 0.5, 0.5]
    if at is not None and plane is not None:
        n = "zyx".index(SLICES[names.index(plane)][0])
        shares[names.index(plane)] = float((at - shown.low[n]) / (shown.high[n] - shown.low[n]))
    made = planes(shown, View(quantity, places=(shares[0], shares[1], shares[2])))
    return [one for one, name in zip(made, names, strict=True) if plane in {None, name}]


def _draw(axes: Axes, plane: Plane, factor: float, norm: Normalize, name: str, unit: str) -> None:
    """Draw one plane; pixels are centred on their positions."""
    half = [(values[1] - values[0]) / 2 for values in (plane.x, plane.y)]
    extent = (plane.x[0] - half[0], plane.x[-1] + half[0], plane.y[0] - half[1], plane.y[-1] + half[1])
    axes.imshow(plane.values * factor, origin="lower", extent=extent, norm=norm, cmap=name, interpolation="nearest")
    axes.set(xlabel=f"{plane.across} [{unit}]", ylabel=f"{plane.up} [{unit}]")
    axes.set_title(f"{plane.normal} = {plane.at:.3g} {unit}", fontsize=9)
