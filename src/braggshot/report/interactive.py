"""Make the figure of a crystal in space as a plain dictionary in the format of plotly.js; plotly is not imported.

The page of the viewer, the notebook and the HTML report show this figure. The page draws it anew for each choice of its user
(`crystal`). A figure that no program stands behind carries its choices in itself (`figure`): a menu of quantities, and a slider
that cuts the crystal open. Axes are drawn by the graphics card, in one grey that suits light and dark pages.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggshot.report import figures
from braggshot.report.figures import Colours
from braggshot.report.solid import TITLES, Axis, Mesh, Solid, View, meshes

Figure = dict[str, Any]
LOOKS = {"oblique": (0.75, 0.42, 0.5), "x": (0.0, 0.0, 1.0), "y": (0.0, 1.0, 0.0), "z": (1.0, 0.0, 0.0)}
"""Name of a direction of view -> vector from the crystal to the eye, (z, y, x)."""
# Colours of lines that stand out, and of other lines and text.
ACCENT, GREY = "#3d7cc9", "#808890"
_LINE, _SEEN_THROUGH = "#d4a017", 0.55  # colour of dislocations on light and dark pages; opacity of a surface around them [1]
_FONT = "system-ui, sans-serif"  # font of the text in figures
_GRID = "#a9afb6"  # colour of grid lines in space, opaque because transparency does not work there
_COLOUR_STOPS = 33  # number of colours that describe a colour map to the browser
CUTS: tuple[tuple[Axis | None, float], ...] = (
    (None, 1.0),
    *((axis, kept) for axis in ("z", "y", "x") for kept in (0.75, 0.5, 0.25)),
)
"""Stops of the slider that cuts the crystal open: the axis across which it is cut, and the share of its extent that stays."""
_TRIANGLES = 8_000  # largest number of triangles of a surface of a figure that holds its choices, because it holds many surfaces
_ZOOM = 1.2  # size of the crystal in such a figure, relative to plotly's choice, which leaves much room [1]
_PAGE_ZOOM = 1.4  # the same on the page, where the crystal is to fill its panel [1]
_DIGITS = 11  # binary digits to which coordinates and values of such a figure are rounded; a picture shows no more


def layout_of(margin: int) -> Figure:
    """Return a transparent layout without controls; `margin` is the left margin and an upper limit of the others [pixels]."""
    return {
        "margin": {"l": margin, "r": min(margin, 12), "t": min(margin, 24), "b": min(margin, 40)},
        **{"paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "font": {"family": _FONT, "color": GREY}},
        **{"dragmode": False, "hoverlabel": {"font": {"size": 12}}, "showlegend": False},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": GREY, "activecolor": ACCENT},
    }


def pack(values: NDArray[Any]) -> Any:
    """Encode the bytes of an array as text, so that plotly.js reads it without parsing numbers."""
    array = np.ascontiguousarray(values)
    code = {"float32": "f4", "int32": "i4", "uint16": "u2"}[array.dtype.name]
    packed_array = {"dtype": code, "bdata": base64.b64encode(array.tobytes()).decode("ascii")}
    return packed_array if array.ndim == 1 else {**packed_array, "shape": ", ".join(str(n) for n in array.shape)}


def scale(colours: Colours) -> list[list[Any]]:
    """Return a colour map in the format of plotly.js: a list of pairs (position from 0 to 1, colour), at equal steps."""
    shares = np.linspace(0, 1, _COLOUR_STOPS)
    linear = Colours(colours.name, 0.0, 1.0, "")(shares)
    return [[float(share), "rgb({},{},{})".format(*rgba[:3].tolist())] for share, rgba in zip(shares, linear, strict=True)]


def camera_from(look: str) -> Figure:
    """Return a camera for the direction of view named `look`: "x", "y", "z" or "oblique".

    The axes (z, x, y) of the crystal take the places of plotly's x, y, z, so that y stays up when the crystal is turned.
    """
    direction = np.array(LOOKS.get(look, LOOKS["oblique"]))
    up = {"x": 1, "y": 0, "z": 0} if look == "y" else {"x": 0, "y": 0, "z": 1}
    return {
        "eye": _to_plotly_axes(2.2 * direction / np.linalg.norm(direction)),
        "up": up,
        "projection": {"type": "orthographic"},
    }


def crystal(shown: Solid, surface: Mesh | None, colouring: str, camera: Figure) -> Figure:
    """Draw the surface of the crystal in space, with axes and the scattering vector; the page draws the colour bar."""
    colours = _colour_range(shown.colours[colouring])
    data = [] if surface is None else [{**_trace(surface), **colours, **_opacity(shown), "showscale": False}]
    scene = _enlarged(_scene(shown, camera), _PAGE_ZOOM)
    scene["camera"] = {"center": _middle(shown, scene), **camera}
    return {"data": [*data, *_q_arrow(shown), *_lines(shown)], "layout": {**layout_of(0), "scene": scene}}


def figure(shown: Solid, colouring: str = "strain") -> Figure:
    """Draw the crystal with a menu of its quantities, and with a slider that cuts it open at the stops `CUTS`.

    The figure holds a surface for each stop. The slider shows one of them, and the menu changes the values of all of them.

    Parameters
    ----------
    shown : the crystal
    colouring : key of `TITLES` that colours the crystal at first; if the crystal does not have it, the first one that it has
    """
    names = [name for name in TITLES if name in shown.fields]
    first = shown.colouring(colouring)
    views = [View(cut=cut, kept=kept, max_triangles=_TRIANGLES) for cut, kept in CUTS]
    made = [(view, found) for view in views if (found := meshes(shown, view, names))]
    traces = [
        {**_trace(_rounded(found[first])), **_opacity(shown), "coloraxis": "coloraxis", "visible": place == 0}
        for place, (_, found) in enumerate(made)
    ]
    layout = {**layout_of(0), "scene": _enlarged(_scene(shown, camera_from("oblique"))), "coloraxis": _colour_axis(shown, first)}
    layout["updatemenus"] = [_menu(shown, [found for _, found in made], names, first)]
    layout["sliders"] = [_slider([view for view, _ in made])]
    layout["margin"] = {"l": 0, "r": 0, "t": 40, "b": 0}
    return {"data": [*traces, *_q_arrow(shown), *_lines(shown)], "layout": layout}


def _middle(shown: Solid, scene: Figure) -> Figure:
    """Return the middle of the crystal, which the camera looks at, in plotly's units from the middle of the scene."""
    middle = _to_plotly_axes((shown.low + shown.high) / 2)
    ends = {axis: scene[f"{axis}axis"]["range"] for axis in "xyz"}
    return {
        axis: float(scene["aspectratio"][axis] * ((middle[axis] - low) / (high - low) - 0.5)) for axis, (low, high) in ends.items()
    }


def _enlarged(scene: Figure, zoom: float = _ZOOM) -> Figure:
    """Enlarge a scene in true proportions, because the projection has no distance that could be made smaller."""
    sides = np.array([scene[f"{axis}axis"]["range"][1] - scene[f"{axis}axis"]["range"][0] for axis in "xyz"])
    ratio = zoom * sides / np.prod(sides) ** (1 / 3)
    return {**scene, "aspectmode": "manual", "aspectratio": dict(zip("xyz", ratio.tolist(), strict=True))}


def _menu(shown: Solid, made: Sequence[Mapping[str, Mesh]], names: Sequence[str], first: str) -> Figure:
    """Make the menu of quantities: each entry gives all surfaces its values, and the colour bar its range and title."""
    entries = []
    for name in names:
        surfaces = [_rounded(found[name]) for found in made]
        values = {"intensity": [pack(one.values) for one in surfaces], "intensitymode": [_mode(one) for one in surfaces]}
        change = [values, {"coloraxis": _colour_axis(shown, name)}, list(range(len(made)))]
        entries.append({"label": TITLES[name], "method": "update", "args": change})
    place = {"x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom", "pad": {"l": 4, "b": 6}, "showactive": True}
    return {"buttons": entries, "active": names.index(first), "bgcolor": "#eef1f4", "font": {"color": "#333a43"}, **place}


def _slider(views: Sequence[View]) -> Figure:
    """Make the slider whose stops show one surface each, and hide the others."""
    traces = list(range(len(views)))
    steps = [
        {
            "label": "whole" if view.cut is None else f"{view.cut} {100 * view.kept:.0f} %",
            "method": "restyle",
            "args": [{"visible": [place == other for other in traces]}, traces],
        }
        for place, view in enumerate(views)
    ]
    said = {"prefix": "cut open: ", "font": {"size": 12}, "xanchor": "left"}
    return {"steps": steps, "currentvalue": said, "pad": {"l": 12, "r": 12, "t": 4, "b": 8}, "x": 0, "len": 1, "ticklen": 4}


def _colour_axis(shown: Solid, name: str) -> Figure:
    """Return the colours of a quantity with their bar; the ticks are at the ends and in the middle."""
    colours = shown.colours[name]
    unit = f" [{colours.unit}]" if colours.unit and colours.unit != "rad" else ""
    low, high = figures.ends(colours)
    middle = (colours.low + colours.high) / 2
    bar: Figure = {"title": {"text": f"{TITLES[name]}{unit}", "side": "right"}, "thickness": 12, "len": 0.7, "outlinewidth": 0}
    bar |= {"tickvals": [colours.low, middle, colours.high], "ticktext": [low, figures.label(middle, colours.unit), high]}
    return {**_colour_range(colours), "colorbar": bar}


def _colour_range(colours: Colours) -> Figure:
    """Return a colour map and its ends in the format of plotly.js."""
    return {"colorscale": scale(colours), "cmin": colours.low, "cmax": colours.high}


def _rounded(surface: Mesh) -> Mesh:
    """Round coordinates and values, so that they take less space where they are compressed."""
    return replace(surface, points=round_to(surface.points), values=round_to(surface.values))


def round_to(values: NDArray[np.float32], digits: int = _DIGITS) -> NDArray[np.float32]:
    """Round values to multiples of a power of two, so that the largest magnitude has `digits` binary digits."""
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0:
        return values
    step = 2.0 ** (np.floor(np.log2(largest)) - digits)
    return (np.round(values / step) * step).astype(np.float32)


def _scene(shown: Solid, camera: Figure) -> Figure:
    """Return the axes around the crystal and its scattering vector, and the camera."""
    low, high = shown.low, shown.high
    if shown.q is not None:
        text = _arrow_points(shown, shown.q)[2]
        low, high = np.minimum(low, text), np.maximum(high, text)
    axis: dict[str, Any] = {"color": GREY, "gridcolor": _GRID, "showbackground": False, "zeroline": False, "nticks": 5}
    axis |= {"showspikes": False, "tickfont": {"size": 11}}
    scene = {"aspectmode": "data", "dragmode": "turntable", "camera": camera}
    for place, name in zip(("xaxis", "yaxis", "zaxis"), "zxy", strict=True):
        n = "zyx".index(name)
        margin = 0.06 * float((high - low).max())
        ends = [float(low[n]) - margin, float(high[n]) + margin]
        scene[place] = {**axis, "title": {"text": f"{name} [{shown.unit}]", "font": {"size": 12}}, "range": ends}
    return scene


def _to_plotly_axes(vector: Sequence[float] | NDArray[Any]) -> dict[str, float]:
    """Return the components of a vector (z, y, x) under plotly's names of the axes."""
    z, y, x = (float(value) for value in vector)
    return {"x": z, "y": x, "z": y}


def _trace(surface: Mesh) -> Figure:
    """Draw the surface of the crystal without axes and colours; its values are there."""
    z, y, x = surface.points.T
    i, j, k = surface.triangles.T
    return {
        "type": "mesh3d",
        **{"x": pack(z), "y": pack(x), "z": pack(y), "i": pack(i), "j": pack(j), "k": pack(k)},
        "intensity": pack(surface.values),
        "intensitymode": _mode(surface),
        "flatshading": False,
        "lighting": {"ambient": 0.78, "diffuse": 0.35, "specular": 0.06, "roughness": 0.7, "fresnel": 0.02},
        "lightposition": {"x": 4e4, "y": 2e4, "z": 9e4},
        "hovertemplate": "z %{x:.0f}, y %{z:.0f}, x %{y:.0f}<extra></extra>",
    }


def _mode(surface: Mesh) -> str:
    """Return plotly's name of the places that have a value: the triangles of the surface, or their corners."""
    return "cell" if surface.is_by_triangle else "vertex"


def _opacity(shown: Solid) -> Figure:
    """Let the surface of a crystal with dislocations be seen through; without any it is opaque."""
    return {"opacity": _SEEN_THROUGH} if shown.lines else {}


def _lines(shown: Solid) -> list[Figure]:
    """Draw the lines of dislocations; what each is shows beside the pointer."""
    drawn = []
    for points, said in shown.lines:
        z, y, x = round_to(points.astype(np.float32)).T
        trace = {
            "type": "scatter3d",
            "mode": "lines",
            "line": {"color": _LINE, "width": 8},
            "hovertemplate": f"{said}<extra></extra>",
        }
        drawn.append({**trace, "x": pack(z), "y": pack(x), "z": pack(y), "showlegend": False})
    return drawn


def _q_arrow(shown: Solid) -> list[Figure]:
    """Draw the scattering vector, where it is known."""
    return [] if shown.q is None else _arrow(*_arrow_points(shown, shown.q))


def _arrow_points(shown: Solid, q: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return the points of an arrow along the scattering vector, beside the crystal: its two ends, and the place of its label."""
    size = float((shown.high - shown.low).max())
    start = (shown.high + shown.low) / 2 + q * (0.5 * float(np.abs(q) @ (shown.high - shown.low)) + 0.03 * size)
    return start, start + 0.1 * size * q, start + 0.17 * size * q


def _arrow(start: NDArray[Any], end: NDArray[Any], text: NDArray[Any]) -> list[Figure]:
    """Draw an arrow for the scattering vector: a line, a tip and a label."""
    still = {"hoverinfo": "skip", "showlegend": False}
    points = [_to_plotly_axes(point) for point in (start, end)]
    line = {"type": "scatter3d", "mode": "lines", "line": {"color": ACCENT, "width": 6}, **still}
    name = {"type": "scatter3d", "mode": "text", "text": ["q"], "textfont": {"color": ACCENT, "size": 16}, **still}
    along = _to_plotly_axes((end - start) / np.linalg.norm(end - start))
    tip: Figure = {"type": "cone", "anchor": "tail", "sizemode": "absolute", "sizeref": 0.5 * float(np.linalg.norm(end - start))}
    tip |= {"showscale": False, "colorscale": [[0, ACCENT], [1, ACCENT]], **still}
    tip |= {key: [value] for key, value in zip("uvw", along.values(), strict=True)}
    return [
        {**line, **{axis: [point[axis] for point in points] for axis in "xyz"}},
        {**tip, **{axis: [value] for axis, value in points[1].items()}},
        {**name, **{axis: [value] for axis, value in _to_plotly_axes(text).items()}},
    ]
