"""Make the flat figures of the page as plain dictionaries in the format of plotly.js, which draws them in the browser.

The page's style sheet sets the colour of text; the lines have colours that suit light and dark pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggshot.report import html_parts
from braggshot.report.figures import Colours
from braggshot.report.interactive import ACCENT, GREY, Figure, layout_of, pack, scale
from braggshot.report.solid import Plane
from braggshot.snapshot import PreviewRecord
from braggshot.viewer.choices import Scale
from braggshot.viewer.measured import Pattern, Rocking, SeriesCurve

Points = Sequence[tuple[float, float, float]]
# Verdict -> plotly's symbol of its mark in plots.
SHAPES = {"good": "circle", "explained": "square", "doubtful": "diamond-open", "failed": "x", "not judged": "circle-open"}
HUES = {"good": "#2f9e68", "explained": "#3b82c4", "doubtful": "#c77d1a", "failed": "#d6453a", "not judged": "#8a9099"}
"""Verdict -> colour of its mark in plots."""
_MASKED = (140, 146, 153)  # colour (RGB) of pixels that are not valid
_GRID_FLAT = "rgba(128,136,144,0.28)"  # colour of grid lines of flat figures


def slice_figure(plane: Plane, others: tuple[float, float], scale_: Scale, unit: str, picked: Points = ()) -> Figure:
    """Draw one slice, with thin lines at the positions `others` (across, up), where the other two slices cross it.

    Points that a user has marked are drawn at their place across the slice, and joined by a line.
    """
    colours = scale_.written
    heat = {
        "type": "heatmap",
        **{"x": pack(plane.x), "y": pack(plane.y), "z": pack((plane.values * scale_.factor).astype(np.float32))},
        **{"colorscale": scale(colours), "zmin": colours.low, "zmax": colours.high, "showscale": False, "zsmooth": False},
        "hovertemplate": f"{plane.across} %{{x:.0f}}, {plane.up} %{{y:.0f}} {unit}<br>%{{z:.3g}} {colours.unit}<extra></extra>",
    }
    layout = layout_of(34)
    layout["xaxis"] = {**axis(f"{plane.across} [{unit}]"), "constrain": "domain", "showgrid": False}
    layout["yaxis"] = {**axis(f"{plane.up} [{unit}]"), "constrain": "domain", "scaleanchor": "x", "showgrid": False}
    thin = {"type": "line", "line": {"color": GREY, "width": 1, "dash": "dot"}}
    layout["shapes"] = [
        {**thin, "xref": "x", "yref": "paper", "x0": others[0], "x1": others[0], "y0": 0, "y1": 1},
        {**thin, "xref": "paper", "yref": "y", "x0": 0, "x1": 1, "y0": others[1], "y1": others[1]},
    ]
    return {"data": [heat, *_marks(plane, picked)], "layout": layout}


def _marks(plane: Plane, picked: Points) -> list[Figure]:
    """Draw marked points on a slice, the first one filled."""
    if not picked:
        return []
    a, u = ("zyx".index(axis) for axis in (plane.across, plane.up))
    place = {"x": [point[a] for point in picked], "y": [point[u] for point in picked]}
    symbols = ["circle", "circle-open"][: len(picked)]
    marker = {"symbol": symbols, "size": 9, "color": "#111418", "line": {"color": "#ffffff", "width": 1.5}}
    look = {"mode": "lines+markers", "line": {"color": "#111418", "width": 1.5}, "marker": marker}
    return [{"type": "scatter", **place, **look, "hoverinfo": "skip", "showlegend": False}]


def profile(distance: NDArray[Any], values: NDArray[Any], title: str, scale_: Scale, unit: str) -> Figure:
    """Draw a quantity along the line between two marked points; the line has a gap where it leaves the crystal."""
    y = [float(value) if np.isfinite(value) else None for value in values * scale_.factor]
    line = {"type": "scatter", "x": distance.tolist(), "y": y, "mode": "lines", "line": {"color": ACCENT, "width": 1.5}}
    line["hovertemplate"] = f"%{{x:.0f}} {unit}: %{{y:.3g}} {scale_.written.unit}<extra></extra>"
    layout = layout_of(56)
    layout["xaxis"] = axis(f"distance from the first point [{unit}]")
    layout["yaxis"] = {**axis(title + (f" [{scale_.written.unit}]" if scale_.written.unit else "")), "exponentformat": "power"}
    return {"data": [line], "layout": layout}


def heights(amplitude: NDArray[Any], number: NDArray[Any], level: float) -> Figure:
    """Draw how many voxels have which amplitude, and the level of the iso-surface; what is outside the surface is grey."""
    colours = [ACCENT if value >= level else GREY for value in amplitude]
    bars = {"type": "bar", "x": (100 * amplitude).tolist(), "y": number.tolist(), "marker": {"color": colours}}
    layout = {**layout_of(34), "bargap": 0.05}
    layout["xaxis"] = axis("amplitude [% of the median]")
    layout["yaxis"] = {**axis("voxels"), "nticks": 3}
    line = {"color": ACCENT, "width": 2}
    place = {"xref": "x", "yref": "paper", "x0": 100 * level, "x1": 100 * level, "y0": 0, "y1": 1}
    layout["shapes"] = [{"type": "line", **place, "line": line}]
    return {"data": [{**bars, "hovertemplate": "%{x:.0f} %: %{y} voxels<extra></extra>"}], "layout": layout}


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


def rocking(curve: Rocking, is_logarithmic: bool = False) -> Figure:
    """Draw the counts of each frame over its angle, or its number where no angle is known; mark where a frame is missing."""
    there = np.isfinite(curve.counts)
    number = np.arange(curve.counts.size)
    x = number if curve.angles is None else np.degrees(curve.angles)
    floor = float(curve.counts[there & (curve.counts > 0)].min(initial=np.inf)) if is_logarithmic else 0.0
    shown = there & (curve.counts > 0) if is_logarithmic else there
    told = "frame %{customdata}" + ("" if curve.angles is None else ", %{x:.3f}°")
    data: list[Figure] = [
        {
            "type": "scatter",
            **{"x": x.tolist(), "y": [float(v) if ok else None for v, ok in zip(curve.counts, shown, strict=True)]},
            **{"mode": "lines+markers", "line": {"color": ACCENT, "width": 1.5}, "marker": {"size": 4}, "name": "received"},
            **{"customdata": number.tolist(), "hovertemplate": told + ": %{y:.3s} counts<extra></extra>"},
        }
    ]
    if curve.is_over and (~there).any():
        missing = number[~there].tolist()
        data.append(
            {
                "type": "scatter",
                **{"x": x[~there].tolist(), "y": [floor if np.isfinite(floor) else 1.0] * len(missing), "mode": "markers"},
                **{"name": "missing", "marker": {"symbol": "x-thin-open", "size": 7, "color": HUES["failed"]}},
                **{"customdata": missing, "hovertemplate": told + ": missing<extra></extra>"},
            }
        )
    layout = {**layout_of(48), "showlegend": len(data) > 1, "legend": {"orientation": "h", "y": 1.12, "x": 0}}
    layout["xaxis"] = axis("frame" if curve.angles is None else f"{curve.motor} [°]")
    if curve.angles is None:
        layout["xaxis"]["range"] = [-0.5, max(1, curve.counts.size) - 0.5]
    layout["yaxis"] = {**axis("counts"), "exponentformat": "power"}
    layout["yaxis"] |= {"type": "log"} if is_logarithmic else {"rangemode": "tozero"}
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
            "line": {"color": GREY, "width": 1},
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
    layout = {**layout_of(48), "showlegend": True, "legend": {"orientation": "h", "y": 1.12, "x": 0}}
    layout["xaxis"] = {**axis("time since the first frame [s]"), "rangemode": "tozero"}
    layout["yaxis"] = {**axis("√χ² [%]"), "rangemode": "tozero"}
    return {"data": data, "layout": layout}


def convergence(iteration: NDArray[Any], error: NDArray[Any]) -> Figure:
    """Draw the error of a reconstruction over the iterations of its phasing."""
    line = {
        "type": "scatter",
        "x": iteration.tolist(),
        "y": error.tolist(),
        "mode": "lines",
        "line": {"color": ACCENT, "width": 1.5},
    }
    layout = layout_of(48)
    layout["xaxis"] = axis("iteration")
    layout["yaxis"] = {**axis("error"), "type": "log", "exponentformat": "power"}
    return {"data": [line], "layout": layout}


def series(shown: SeriesCurve, chosen: str) -> Figure:
    """Draw a quantity along the series, with a mark for the verdict of each scan, and a line at the scan that is shown."""
    data: list[Figure] = []
    for (name, y), colour in zip(shown.curves.items(), (ACCENT, GREY, HUES["doubtful"]), strict=False):
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
    layout = {**layout_of(56), "showlegend": len(data) > 1, "legend": {"orientation": "h", "y": 1.12, "x": 0}, "clickmode": "event"}
    layout["xaxis"] = axis(shown.label)
    if shown.label == "scan":  # numbers of scans are whole
        layout["xaxis"]["dtick"] = max(1, len(shown.x) // 6)
    layout["yaxis"] = {**axis(shown.quantity), "exponentformat": "power"}
    at = shown.x[shown.names.index(chosen)] if chosen in shown.names else np.nan
    if np.isfinite(at):
        line = {"color": ACCENT, "width": 1, "dash": "dot"}
        place = {"xref": "x", "yref": "paper", "x0": float(at), "x1": float(at), "y0": 0, "y1": 1}
        layout["shapes"] = [{"type": "line", **place, "line": line}]
    return {"data": data, "layout": layout}


def empty(text: str) -> Figure:
    """Draw a text that tells why there is nothing to draw yet."""
    layout = layout_of(0)
    layout["xaxis"] = layout["yaxis"] = {"visible": False, "fixedrange": True}
    layout["annotations"] = [
        {"text": text, "showarrow": False, "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5, "font": {"size": 14}}
    ]
    return {"data": [], "layout": layout}


def axis(title: str) -> Figure:
    """Return the settings of an axis of a flat figure."""
    return {
        **{
            "title": {"text": title, "font": {"size": 12}},
            "color": GREY,
            "gridcolor": _GRID_FLAT,
            "zeroline": False,
            "fixedrange": True,
        },
        **{"tickfont": {"size": 11}, "nticks": 6, "automargin": True},
    }
