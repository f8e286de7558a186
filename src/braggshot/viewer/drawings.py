"""Make figures as plain dictionaries in the format of plotly.js, which draws them in the browser; plotly is not imported.

The page's style sheet sets the colour of text in flat figures; their lines have colours that suit light and dark pages. Axes of
figures in space are drawn by the graphics card, in one grey for both kinds of page.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggshot.report import figures, html_parts
from braggshot.report.figures import Colours
from braggshot.snapshot import PreviewRecord
from braggshot.viewer.measured import Pattern, Rocking, SeriesCurve
from braggshot.viewer.model import Mesh, Plane, Solid

Figure = dict[str, Any]
LOOKS = {"oblique": (0.75, 0.42, 0.5), "x": (0.0, 0.0, 1.0), "y": (0.0, 1.0, 0.0), "z": (1.0, 0.0, 0.0)}
"""Name of a direction of view -> vector from the crystal to the eye, (z, y, x)."""
SHAPES = {"good": "circle", "doubtful": "diamond-open", "failed": "x"}  # verdict -> plotly's symbol of its mark in plots
HUES = {"good": "#2f9e68", "doubtful": "#c77d1a", "failed": "#d6453a"}
"""Verdict -> colour of its mark in plots."""
# Font of the text in figures.
_FONT = "system-ui, sans-serif"
# Colours of lines that stand out, and of other lines and text.
_ACCENT, _GREY = "#3d7cc9", "#808890"
_MASKED = (140, 146, 153)  # colour (RGB) of pixels that are not valid
_GRID = "#a9afb6"  # colour of grid lines of figures in space, opaque because transparency does not work for these figures
_GRID_FLAT = "rgba(128,136,144,0.28)"  # colour of grid lines of flat figures
_COLOUR_STOPS = 33  # number of colours that describe a colour map to the browser


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
    return {"eye": _to_plotly_axes(2.2 * direction / np.linalg.norm(direction)), "up": up, "projection": {"type": "orthographic"}}


def crystal(shown: Solid, surface: Mesh | None, colouring: str, camera: Figure) -> Figure:
    """Draw the surface of the crystal in space, with axes, the scattering vector and colours."""
    data = [] if surface is None else [_surface(surface, shown.colours[colouring])]
    low, high = shown.low, shown.high
    if shown.q is not None:
        start, end, text = _arrow_points(shown, shown.q)
        data += _arrow(start, end, text)
        low, high = np.minimum(low, text), np.maximum(high, text)
    axis: dict[str, Any] = {"color": _GREY, "gridcolor": _GRID, "showbackground": False, "zeroline": False, "nticks": 5}
    axis |= {"showspikes": False, "tickfont": {"size": 11}}
    scene = {"aspectmode": "data", "dragmode": "turntable", "camera": camera}
    for place, name in zip(("xaxis", "yaxis", "zaxis"), "zxy", strict=True):
        n = "zyx".index(name)
        margin = 0.06 * float((high - low).max())
        ends = [float(low[n]) - margin, float(high[n]) + margin]
        scene[place] = {**axis, "title": {"text": f"{name} [{shown.unit}]", "font": {"size": 12}}, "range": ends}
    return {"data": data, "layout": {**_layout(0), "scene": scene}}


def _to_plotly_axes(vector: Sequence[float] | NDArray[Any]) -> dict[str, float]:
    """Return the components of a vector (z, y, x) under plotly's names of the axes."""
    z, y, x = (float(value) for value in vector)
    return {"x": z, "y": x, "z": y}


def _surface(surface: Mesh, colours: Colours) -> Figure:
    """Draw the surface of the crystal without axes."""
    z, y, x = surface.points.T
    i, j, k = surface.triangles.T
    return {
        "type": "mesh3d",
        **{"x": pack(z), "y": pack(x), "z": pack(y), "i": pack(i), "j": pack(j), "k": pack(k)},
        "intensity": pack(surface.values),
        "intensitymode": "cell" if surface.is_by_triangle else "vertex",
        **{"colorscale": scale(colours), "cmin": colours.low, "cmax": colours.high, "showscale": False},
        "flatshading": False,
        "lighting": {"ambient": 0.78, "diffuse": 0.35, "specular": 0.06, "roughness": 0.7, "fresnel": 0.02},
        "lightposition": {"x": 4e4, "y": 2e4, "z": 9e4},
        "hovertemplate": "z %{x:.0f}, y %{z:.0f}, x %{y:.0f}<extra></extra>",
    }


def _arrow_points(shown: Solid, q: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return the points of an arrow along the scattering vector, beside the crystal: its two ends, and the place of its label."""
    size = float((shown.high - shown.low).max())
    start = (shown.high + shown.low) / 2 + q * (0.5 * float(np.abs(q) @ (shown.high - shown.low)) + 0.03 * size)
    return start, start + 0.12 * size * q, start + 0.22 * size * q


def _arrow(start: NDArray[Any], end: NDArray[Any], text: NDArray[Any]) -> list[Figure]:
    """Draw an arrow for the scattering vector: a line, a tip and a label."""
    still = {"hoverinfo": "skip", "showlegend": False}
    points = [_to_plotly_axes(point) for point in (start, end)]
    line = {"type": "scatter3d", "mode": "lines", "line": {"color": _ACCENT, "width": 6}, **still}
    name = {"type": "scatter3d", "mode": "text", "text": ["q"], "textfont": {"color": _ACCENT, "size": 16}, **still}
    along = _to_plotly_axes((end - start) / np.linalg.norm(end - start))
    tip: Figure = {"type": "cone", "anchor": "tail", "sizemode": "absolute", "sizeref": 0.5 * float(np.linalg.norm(end - start))}
    tip |= {"showscale": False, "colorscale": [[0, _ACCENT], [1, _ACCENT]], **still}
    tip |= {key: [value] for key, value in zip("uvw", along.values(), strict=True)}
    return [
        {**line, **{axis: [point[axis] for point in points] for axis in "xyz"}},
        {**tip, **{axis: [value] for axis, value in points[1].items()}},
        {**name, **{axis: [value] for axis, value in _to_plotly_axes(text).items()}},
    ]


def slice_figure(plane: Plane, others: tuple[float, float], colours: Colours, unit: str) -> Figure:
    """Draw one slice, with thin lines at the positions `others` (across, up), where the other two slices cross it."""
    heat = {
        "type": "heatmap",
        **{"x": pack(plane.x), "y": pack(plane.y), "z": pack(plane.values)},
        **{"colorscale": scale(colours), "zmin": colours.low, "zmax": colours.high, "showscale": False, "zsmooth": False},
        "hovertemplate": f"{plane.across} %{{x:.0f}}, {plane.up} %{{y:.0f}} {unit}<br>%{{z:.3g}} {colours.unit}<extra></extra>",
    }
    layout = _layout(34)
    layout["xaxis"] = {**_axis(f"{plane.across} [{unit}]"), "constrain": "domain", "showgrid": False}
    layout["yaxis"] = {**_axis(f"{plane.up} [{unit}]"), "constrain": "domain", "scaleanchor": "x", "showgrid": False}
    thin = {"type": "line", "line": {"color": _GREY, "width": 1, "dash": "dot"}}
    layout["shapes"] = [
        {**thin, "xref": "x", "yref": "paper", "x0": others[0], "x1": others[0], "y0": 0, "y1": 1},
        {**thin, "xref": "paper", "yref": "y", "x0": 0, "x1": 1, "y0": others[1], "y1": others[1]},
    ]
    return {"data": [heat], "layout": layout}


def counts(shown: Pattern, which: int, is_fitted: bool) -> str:
    """Draw one central plane of the counts, on a logarithmic scale, as an image in a URL; pixels that are not valid are grey."""
    values = (shown.fitted if is_fitted else shown.measured)[which]
    rgba = shown.colours(np.nan_to_num(values))
    rgba[np.isnan(values)] = (*_MASKED, 255)
    return html_parts.png(rgba)


def frame(image: NDArray[Any]) -> str:
    """Draw a detector image on a logarithmic scale, as an image in a URL."""
    positive = image[image > 0]
    high = float(positive.max()) if positive.size else 1.0
    low = min(max(float(np.median(positive)) / 2, 1e-5 * high), high / 10) if positive.size else 0.1
    return html_parts.png(Colours("inferno", low, high, "counts", logarithmic=True)(image))


def rocking(curve: Rocking) -> Figure:
    """Draw the counts of each frame, with marks at the bottom where a frame is missing."""
    number = np.arange(curve.counts.size)
    there = np.isfinite(curve.counts)
    data: list[Figure] = [
        {
            "type": "scatter",
            **{"x": number.tolist(), "y": [float(v) if ok else None for v, ok in zip(curve.counts, there, strict=True)]},
            **{"mode": "lines+markers", "line": {"color": _ACCENT, "width": 1.5}, "marker": {"size": 4}, "name": "received"},
            "hovertemplate": "frame %{x}: %{y:.3s} counts<extra></extra>",
        }
    ]
    if curve.is_over and (~there).any():
        missing = number[~there].tolist()
        data.append(
            {
                "type": "scatter",
                **{"x": missing, "y": [0] * len(missing), "mode": "markers", "name": "missing"},
                **{"marker": {"symbol": "x-thin-open", "size": 7, "color": HUES["failed"]}},
                "hovertemplate": "frame %{x}: missing<extra></extra>",
            }
        )
    layout = {**_layout(48), "showlegend": len(data) > 1, "legend": {"orientation": "h", "y": 1.12, "x": 0}}
    layout["xaxis"] = {**_axis("frame"), "range": [-0.5, max(1, curve.counts.size) - 0.5]}
    layout["yaxis"] = {**_axis("counts"), "rangemode": "tozero", "exponentformat": "power"}
    return {"data": data, "layout": layout}


def previews(records: Sequence[PreviewRecord]) -> Figure:
    """Draw the misfit of every preview of a scan over time, each with a mark for the verdict of the preview."""
    x = [one.seconds for one in records]
    y = [100 * float(np.sqrt(one.chi2)) for one in records]
    data: list[Figure] = [
        {
            "type": "scatter",
            "x": x,
            "y": y,
            "mode": "lines",
            "line": {"color": _GREY, "width": 1},
            "hoverinfo": "skip",
            "showlegend": False,
        }
    ]
    for verdict, symbol in SHAPES.items():
        chosen = [n for n, one in enumerate(records) if one.verdict == verdict]
        texts = [f"{records[n].method}, {records[n].frames} frames, llk_free {records[n].llk_free:.3g}" for n in chosen]
        data.append(
            {
                "type": "scatter",
                **{"x": [x[n] for n in chosen], "y": [y[n] for n in chosen], "text": texts, "mode": "markers", "name": verdict},
                "marker": {"symbol": symbol, "size": 10, "color": HUES[verdict], "line": {"width": 2}},
                "hovertemplate": "%{text}<br>%{x:.1f} s, √χ² %{y:.2f} %<extra>" + verdict + "</extra>",
            }
        )
    layout = {**_layout(48), "showlegend": True, "legend": {"orientation": "h", "y": 1.12, "x": 0}}
    layout["xaxis"] = {**_axis("time since the first frame [s]"), "rangemode": "tozero"}
    layout["yaxis"] = {**_axis("√χ² [%]"), "rangemode": "tozero"}
    return {"data": data, "layout": layout}


def convergence(iteration: NDArray[Any], error: NDArray[Any]) -> Figure:
    """Draw the error of a reconstruction over the iterations of its phasing."""
    line = {
        "type": "scatter",
        "x": iteration.tolist(),
        "y": error.tolist(),
        "mode": "lines",
        "line": {"color": _ACCENT, "width": 1.5},
    }
    layout = _layout(48)
    layout["xaxis"] = _axis("iteration")
    layout["yaxis"] = {**_axis("error"), "type": "log", "exponentformat": "power"}
    return {"data": [line], "layout": layout}


def series(shown: SeriesCurve, chosen: str) -> Figure:
    """Draw a quantity along the series, with a mark for the verdict of each scan, and a line at the scan that is shown."""
    data: list[Figure] = []
    for (name, y), colour in zip(shown.curves.items(), (_ACCENT, _GREY, HUES["doubtful"]), strict=False):
        kept = [n for n, verdict in enumerate(shown.verdicts) if verdict != "failed" and np.isfinite([shown.x[n], y[n]]).all()]
        curve: Figure = {
            "type": "scatter",
            **{
                "x": [float(shown.x[n]) for n in kept],
                "y": [float(y[n]) for n in kept],
                "customdata": [shown.names[n] for n in kept],
            },
            **{"mode": "lines+markers", "name": name, "line": {"color": colour, "width": 1.5}},
            "marker": {"size": 8, "color": colour, "symbol": [SHAPES.get(shown.verdicts[n], "circle") for n in kept]},
            **{
                "text": [f"{shown.names[n]}, {shown.verdicts[n]}" for n in kept],
                "hovertemplate": "%{text}<br>%{y:.4g}<extra></extra>",
            },
        }
        if shown.bars is not None:
            bars = [float(np.nan_to_num(shown.bars[n])) for n in kept]
            curve["error_y"] = {"type": "data", "array": bars, "thickness": 1, "width": 3, "color": colour}
        data.append(curve)
    layout = {**_layout(56), "showlegend": len(data) > 1, "legend": {"orientation": "h", "y": 1.12, "x": 0}, "clickmode": "event"}
    layout["xaxis"] = _axis(shown.label)
    layout["yaxis"] = {**_axis(shown.quantity), "exponentformat": "power"}
    at = shown.x[shown.names.index(chosen)] if chosen in shown.names else np.nan
    if np.isfinite(at):
        line = {"color": _ACCENT, "width": 1, "dash": "dot"}
        place = {"xref": "x", "yref": "paper", "x0": float(at), "x1": float(at), "y0": 0, "y1": 1}
        layout["shapes"] = [{"type": "line", **place, "line": line}]
    return {"data": data, "layout": layout}


def empty(text: str) -> Figure:
    """Draw a text that tells why there is nothing to draw yet."""
    layout = _layout(0)
    layout["xaxis"] = layout["yaxis"] = {"visible": False, "fixedrange": True}
    layout["annotations"] = [
        {"text": text, "showarrow": False, "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5, "font": {"size": 14}}
    ]
    return {"data": [], "layout": layout}


def ends(colours: Colours) -> tuple[str, str]:
    """Return the labels at the ends of a colour bar."""
    low, high = (figures.label(float(value), colours.unit) for value in (colours.low, colours.high))
    return low, high


def _axis(title: str) -> Figure:
    """Return the settings of an axis of a flat figure."""
    return {
        **{
            "title": {"text": title, "font": {"size": 12}},
            "color": _GREY,
            "gridcolor": _GRID_FLAT,
            "zeroline": False,
            "fixedrange": True,
        },
        **{"tickfont": {"size": 11}, "nticks": 6, "automargin": True},
    }


def _layout(margin: int) -> Figure:
    """Return a transparent layout without controls; `margin` is the left margin and an upper limit of the others [pixels]."""
    return {
        "margin": {"l": margin, "r": min(margin, 12), "t": min(margin, 24), "b": min(margin, 40)},
        **{"paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "font": {"family": _FONT, "color": _GREY}},
        **{"dragmode": False, "hoverlabel": {"font": {"size": 12}}, "showlegend": False},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": _GREY, "activecolor": _ACCENT},
    }
