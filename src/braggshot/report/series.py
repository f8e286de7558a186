"""Draw a series of scans: curves along time or any column, every crystal in one range of colours, a movie, a page.

Scans whose verdict is ``failed`` are left out of the curves and shown as crosses on the axis. Hollow marks are ``doubtful`` scans.
"""

from __future__ import annotations

import base64
import datetime
import importlib.metadata
import importlib.resources
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from braggshot.errors import ConfigError
from braggshot.io import results
from braggshot.io.atomic import replacing
from braggshot.report import html_parts
from braggshot.report.figures import Colours, Picture
from braggshot.report.movie import film
from braggshot.report.strain_figures import Material, material, slices, views
from braggshot.report.strain_section import METHODS, scientific
from braggshot.volumes import StrainMap

Rows = Sequence[Mapping[str, Any]]
# Panels of curves, each: label of the vertical axis, factor from SI units to those of the label, column -> name of its curve.
PANELS: tuple[tuple[str, float, dict[str, str]], ...] = (
    ("volume [µm³]", 1e18, {"volume_m3": ""}),
    ("lattice parameter [Å]", 1e10, {"lattice_parameter_m": ""}),
    ("lattice spacing [Å]", 1e10, {"d_spacing_m": ""}),
    ("spread of strain", 1.0, {"strain_std": "bulk", "strain_std_surface": "surface"}),
    ("dislocated voxels", 1.0, {"dislocation_voxels": ""}),
    ("correlation", 1.0, {"correlation_to_previous": "with its neighbour", "warm_cold_correlation": "warm with cold start"}),
    ("√χ²", 1.0, {"chi2": ""}),
    ("resolution [nm]", 1e9, {"resolution_m": ""}),
)  # fmt: skip
# Column of the table -> column that is shown in its place, on curves and page, if any scan has a value in the second column.
_INSTEAD = {"d_spacing_m": "lattice_parameter_m"}
# Columns of the table on the page: name, heading, factor from SI units, format; an empty format writes a power of ten.
_CELLS = (
    ("volume_m3", "volume<br>[µm³]", 1e18, "{:.4g}"), ("lattice_parameter_m", "a<br>[Å]", 1e10, "{:.5f}"),
    ("d_spacing_m", "d<br>[Å]", 1e10, "{:.5f}"), ("strain_std", "spread of<br>strain", 1.0, ""),
    ("strain_std_surface", "at the<br>surface", 1.0, ""), ("dislocation_voxels", "dislocated<br>voxels", 1.0, "{:.0f}"),
    ("resolution_m", "resolution<br>[nm]", 1e9, "{:.1f}"), ("chi2", "χ²", 1.0, ""), ("llk_free", "llk<br>free", 1.0, "{:.3g}"),
    ("agreement", "starts<br>that agree", 1.0, "{:.0%}"), ("correlation_to_previous", "like its<br>neighbour", 1.0, "{:.3f}"),
    ("warm_cold_correlation", "warm like<br>cold", 1.0, "{:.3f}"),
)  # fmt: skip
# Column that a curve shows -> columns of the lower and the upper bound of the band around the curve.
_BANDS = {"volume_m3": ("volume_low_m3", "volume_high_m3")}
_FLAT = 1e-4  # least range of a vertical axis, as a share of its values, so that tiny changes look flat [1]
_COARSE = {"resolution_m": 0.1}  # table column -> least range of its vertical axis, as a share of its values [1]
_VIEW = 30  # azimuth from which the surface of each crystal is drawn [degrees]
_NO_STRAIN = (
    '<h2>The crystal</h2><p class="note">No good or doubtful scan has a strain map, so there are no pictures and no movie.</p>'
)
_STRIP = 8  # largest number of crystals in the row of pictures on the page


@dataclass(frozen=True)
class Stage:
    """Colours, half width of the slices [nm] and radius of the views [nm] that all crystals of a series share."""

    colours: Colours
    half: float
    radius: float


def write(folder: Path, rows: Rows, against: str | None = None, movie: bool = True) -> None:
    """Write curves (PNG), movie (GIF) and page (HTML) of a series to `folder`, from its table and the CXI files in `folder`.

    Raises
    ------
    ConfigError : if `rows` have no column `against`.
    OutputError : if a file cannot be written.
    """
    x, label = abscissa(rows, against)
    with replacing(folder / "series.png") as temporary:
        curves(rows, x, label).savefig(temporary, format="png", dpi=110)
    stage = staged(folder, rows)
    animated = b""
    if stage is not None and movie:
        with replacing(folder / "series.gif") as temporary:
            film(temporary, frames(_maps(folder, rows), stage), stage.colours)
        animated = (folder / "series.gif").read_bytes()
    with replacing(folder / "series.html") as temporary:
        temporary.write_text(page(folder, rows, x, label, stage, animated), encoding="utf-8", errors="replace")


def abscissa(rows: Rows, against: str | None = None) -> tuple[NDArray[np.float64], str]:
    """Choose the abscissa of the plots, and its label: a column, the time since the first scan, or the number of the scan.

    Raises
    ------
    ConfigError : if the column is not there or holds no numbers.
    """
    if against is not None:
        values = [row.get(against) for row in rows]
        if not any(isinstance(value, int | float) for value in values):
            known = sorted({name for row in rows for name, value in row.items() if isinstance(value, int | float)})
            raise ConfigError(f"series.against: there are no numbers in {against!r}; columns with numbers: {', '.join(known)}.")
        return np.array([value if isinstance(value, int | float) else np.nan for value in values], dtype=float), against
    elapsed = np.array([np.nan if row.get("elapsed_s") is None else row["elapsed_s"] for row in rows], dtype=float)
    if len(set(elapsed.tolist())) < len(rows) or np.isnan(elapsed).any():
        return np.arange(1.0, len(rows) + 1), "scan"
    unit, seconds = next((u, s) for u, s in (("h", 3600.0), ("min", 60.0), ("s", 1.0)) if np.ptp(elapsed) >= 2 * s or s == 1.0)
    return elapsed / seconds, f"time [{unit}]"


def curves(rows: Rows, x: NDArray[np.float64], label: str) -> Figure:
    """Draw the curves of a series in one figure, with a panel for each kind of quantity that has values."""
    shown = list(_panels(rows))
    across = max(1, min(3, len(shown)))
    down = max(1, -(-len(shown) // across))
    figure = Figure(figsize=(3.7 * across, 2.9 * down), layout="constrained", facecolor="white")
    for panel, (name, scale, named) in zip(figure.subplots(down, across, squeeze=False).flat, shown, strict=False):
        _draw(panel, rows, x, (name, scale, named), mpl.rcParams["axes.prop_cycle"].by_key()["color"])
        panel.set_xlabel(label, parse_math=False)
    for spare in figure.axes[len(shown) :]:
        spare.set_visible(False)
    if not shown:
        figure.text(0.5, 0.5, "no scan that counts", ha="center", va="center")
    return figure


def _panels(rows: Rows) -> Iterator[tuple[str, float, dict[str, str]]]:
    """Yield the panels of curves with a value other than zero in at least one scan whose verdict is not failed."""
    known = {column for row in rows if row["verdict"] != "failed" for column, value in row.items() if value}
    for name, scale, named in PANELS:
        shown = {column: text for column, text in named.items() if column in known}
        if shown and not any(_INSTEAD.get(column) in known for column in shown):
            yield name, scale, shown


def _draw(axes: Axes, rows: Rows, x: NDArray[np.float64], panel: tuple[str, float, dict[str, str]], colours: Sequence[str]) -> None:
    name, scale, named = panel

    def column(key: str) -> NDArray[np.float64]:
        return scale * np.array([np.nan if row.get(key) is None else row[key] for row in rows], dtype=float)

    fine = np.array([row["verdict"] != "failed" for row in rows])
    good = np.array([row["verdict"] == "good" for row in rows])
    for (key, text), colour in zip(named.items(), colours, strict=False):
        y = np.sqrt(column(key)) if key == "chi2" else column(key)
        kept = fine & np.isfinite(x) & np.isfinite(y)
        if key in _BANDS:
            low, high = (column(bound)[kept] for bound in _BANDS[key])
            axes.fill_between(x[kept], low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(x[kept], y[kept], color=colour, linewidth=1.4, label=text)
        axes.plot(x[kept & good], y[kept & good], "o", color=colour, markersize=4)
        axes.plot(x[kept & ~good], y[kept & ~good], "o", color=colour, markerfacecolor="none", markersize=4)
    bottom, top = axes.get_ylim()
    # Least range (top minus bottom) of the vertical axis, divided by the larger absolute value of its two ends [1].
    flat = max(_COARSE.get(key, _FLAT) for key in named)
    middle, half = (bottom + top) / 2, max(top - bottom, flat * max(abs(bottom), abs(top))) / 2
    axes.set_ylim(middle - half, middle + half)
    _span(axes, x)
    if not fine.all():  # nothing drawn would still be laid out
        axes.plot(x[~fine], np.zeros(int((~fine).sum())), "x", color="#b3261e", transform=axes.get_xaxis_transform(), clip_on=False)
    axes.set_ylabel(name)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.spines[["top", "right"]].set_visible(False)
    if len(named) > 1:
        axes.legend(frameon=False, fontsize=8)


def _span(axes: Axes, x: NDArray[np.float64]) -> None:
    """Set the horizontal range of a panel so that it holds all scans, failed ones included."""
    known = x[np.isfinite(x)]
    first, last = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    margin = 0.05 * (last - first) or 0.5
    axes.set_xlim(first - margin, last + margin)


def _maps(folder: Path, rows: Rows) -> Iterator[tuple[Mapping[str, Any], StrainMap]]:
    """Yield pairs of a table row and its strain map; failed scans, and scans without a strain map, are left out."""
    for row in rows:
        if row["verdict"] != "failed" and row.get("name"):
            found = results.read_strain(folder / f"{row['name']}.cxi")
            if found is not None and found.support.any():
                yield row, found


def staged(folder: Path, rows: Rows) -> Stage | None:
    """Choose colours and widths of the pictures that suit every crystal of a series; None if no crystal has a surface."""
    limits, halves, radii = [], [], []
    for _, found in _maps(folder, rows):
        shown = material(found)
        if shown.surface is None:
            continue
        corners = shown.surface.corners + shown.surface.centre
        limits.append(float(np.nanpercentile(np.abs(found.strain[found.bulk if found.bulk.any() else found.support]), 97)))
        halves.append(1.1 * float(np.abs(corners).max()))
        radii.append(1.05 * float(np.linalg.norm(corners, axis=-1).max()))
    if not limits:
        return None
    power = 10.0 ** np.floor(np.log10(max([*limits, 1e-12])))
    limit = float(np.ceil(max(limits) / power) * power) or power
    return Stage(Colours("coolwarm", -limit, limit, ""), max(halves), max(radii))


def on_stage(found: StrainMap, stage: Stage) -> Material:
    """Prepare a crystal for drawing with the colours and widths of its series; the origin of the strain map is in the middle."""
    shown = replace(material(found), strains=stage.colours, half=stage.half)
    if shown.surface is None:
        return shown
    corners = shown.surface.corners + shown.surface.centre
    return replace(shown, surface=replace(shown.surface, corners=corners, centre=np.zeros(3), radius=stage.radius))


def frames(maps: Iterable[tuple[Mapping[str, Any], StrainMap]], stage: Stage) -> Iterator[tuple[str, tuple[Picture, ...]]]:
    """Yield title and pictures of each frame of the movie: the surface and two slices, coloured by strain."""
    for row, found in maps:
        shown = on_stage(found, stage)
        yield caption(row), (*views(shown, "strain", azimuths=(_VIEW,)), *slices(shown, "strain")[:2])


def caption(row: Mapping[str, Any]) -> str:
    """Write the caption of a scan from its row: its name, at most three of the user's own columns, its verdict."""
    names = list(row)
    own = [
        name for name in names[names.index("time") + 1 : names.index("volume_m3")] if name != "elapsed_s" and row[name] is not None
    ]
    said = [f"{name} {row[name]:g}" if isinstance(row[name], float) else f"{name} {row[name]}" for name in own]
    return "   ".join([str(row["name"]), *said[:3], str(row["verdict"])])


def page(folder: Path, rows: Rows, x: NDArray[np.float64], label: str, stage: Stage | None, animated: bytes) -> str:
    """Write the page of a series as HTML text that needs no other file."""
    count = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in ("good", "doubtful", "failed")}
    style = importlib.resources.files("braggshot.report").joinpath("page.css").read_text(encoding="utf-8")
    now = datetime.datetime.now().astimezone()
    title = f"Series of {len(rows)} scan{'s' if len(rows) > 1 else ''}"
    told = ", ".join(f"{number} {verdict}" for verdict, number in count.items() if number)
    parts = [
        f"<header><h1>{title}</h1><p>One crystal along {escape(label)}: {told}</p></header>",
        _plots(rows, x, label),
        *(_strip(folder, rows, stage) if stage is not None else (_NO_STRAIN,)),
        _movie(animated),
        _table(rows, x, label),
        _reasons(rows),
        _repeats(rows),
    ]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title} – braggshot</title>
<style>
{style}</style>
</head>
<body>
{"".join(parts)}
<footer>braggshot {escape(importlib.metadata.version("braggshot"))}, {now:%Y-%m-%d %H:%M %Z}. The same numbers, in SI units, are in
series.csv; every crystal is in a CXI file of its name.</footer>
</body>
</html>
"""


def _plots(rows: Rows, x: NDArray[np.float64], label: str) -> str:
    drawn = []
    for panel in _panels(rows):

        def draw(axes: Axes, ink: str, accent: str, panel: Any = panel) -> None:
            axes.set_xlabel(label, parse_math=False)
            _draw(axes, rows, x, panel, (accent, ink))

        drawn.append(html_parts.drawing(draw, panel[0]))
    if not drawn:
        return '<h2>How it changed</h2><p class="note">No scan counts, so there is nothing to plot.</p>'
    lines = ["".join(drawn[first : first + 3]) for first in range(0, len(drawn), 3)]
    note = (
        "Volume and strain are those inside the iso-surface; shaded, the volume inside surfaces a fifth above and below its level, "
        "which moves all scans alike. Filled marks are good, hollow ones doubtful, crosses on the axis failed scans."
    )
    shown = "".join(f'<div class="row plots">{text}</div>' for text in lines)
    return f'<h2>How it changed</h2><p class="note">{note}</p>{shown}'


def _strip(folder: Path, rows: Rows, stage: Stage) -> Iterator[str]:
    """Show the surface of a few crystals, chosen evenly through the series."""
    kept = [row for row in rows if row["verdict"] != "failed" and row.get("name")]
    chosen = [kept[index] for index in np.unique(np.linspace(0, len(kept) - 1, min(_STRIP, len(kept))).round().astype(int))]
    pictures = []
    for row, found in _maps(folder, chosen):
        shown = on_stage(found, stage)
        pictures += [replace(picture, title=caption(row), labels=()) for picture in views(shown, "strain", 280, (_VIEW,))]
    yield '<h2>The crystal</h2><p class="note">Surface coloured by the strain along q below it; one scale, one range of colours, '
    yield "one origin.</p>"
    for first in range(0, len(pictures), 4):
        yield html_parts.row(pictures[first : first + 4], "views")
    yield html_parts.legend("strain", stage.colours)


def _movie(animated: bytes) -> str:
    if not animated:
        return ""
    source = base64.b64encode(animated).decode("ascii")
    return f'<h2>Movie</h2><img style="max-width:100%" alt="the series as a movie" src="data:image/gif;base64,{source}">'


def _table(rows: Rows, x: NDArray[np.float64], label: str) -> str:
    known = {name for row in rows for name, value in row.items() if value is not None}
    cells = [cell for cell in _CELLS if cell[0] in known and _INSTEAD.get(cell[0]) not in known]
    names = ("scan", escape(label), "verdict", *(cell[1] for cell in cells), "start")
    body = []
    for row, place in zip(rows, x, strict=True):
        values = [_text(row.get(name), scale, form) for name, _, scale, form in cells]
        first = (escape(str(row["name"] or row["input"])), f"{place:.4g}", str(row["verdict"]))
        body.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in (*first, *values, row.get("start") or "")) + "</tr>")
    return (
        f'<h2>Table</h2>{_resolutions(rows)}<div class="wide"><table class="starts"><thead><tr>'
        f"{''.join(f'<th>{name}</th>' for name in names)}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _resolutions(rows: Rows) -> str:
    """Say by which method the resolutions were measured, or that several methods were used."""
    methods = {str(row["resolution_method"]) for row in rows if row.get("resolution_method")}
    if not methods:
        return ""
    said = f"Resolution: {METHODS[methods.pop()]}."
    if methods:
        said = "The resolutions are not of one kind: no method was there for all scans. The column resolution_method says which."
    return f'<p class="note">{said}</p>'


def _text(value: Any, scale: float, form: str) -> str:
    """Write the value of a table cell by a format; without a format, write two digits and a power of ten."""
    if value is None:
        return ""
    return form.format(value * scale) if form else scientific(value * scale)


def _reasons(rows: Rows) -> str:
    listed = [(row["name"] or row["input"], row["verdict"], row["reasons"]) for row in rows if row["verdict"] != "good"]
    if not listed:
        return ""
    lines = "".join(f"<tr><th>{escape(str(n))}</th><td>{v}</td><td>{escape(str(r))}</td></tr>" for n, v, r in listed)
    return f'<h2>What speaks against scans</h2><div class="wide"><table class="reasons">{lines}</table></div>'


def _repeats(rows: Rows) -> str:
    """Say for each sum of repeats what was added, and which scans were left out and why."""
    listed = [(row["name"] or row["input"], row["repeats"]) for row in rows if row.get("repeats")]
    if not listed:
        return ""
    lines = "".join(f"<tr><th>{escape(str(name))}</th><td>{escape(str(said))}</td></tr>" for name, said in listed)
    return f'<h2>Repeats that were added</h2><div class="wide"><table class="reasons">{lines}</table></div>'
