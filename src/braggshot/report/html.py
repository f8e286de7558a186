"""The page: one HTML file without scripts and without anything to fetch, for light and dark screens, wide and narrow."""

from __future__ import annotations

import base64
import datetime
import importlib.metadata
import importlib.resources
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imsave

from braggshot.report import figures, words
from braggshot.report.figures import Colours, Picture
from braggshot.report.surface import LEVEL
from braggshot.volumes import FloatArray, Reconstruction

_SYMBOLS = {"good": "✔", "doubtful": "!", "failed": "✖"}
_INK, _LINE = "#010203", "#040506"  # stand for the page's own colours in a drawing


def page(reconstruction: Reconstruction) -> str:
    """The whole report as HTML text."""
    name = escape(reconstruction.volume.name)
    version = importlib.metadata.version("braggshot")
    now = datetime.datetime.now().astimezone()
    parts = [
        _header(reconstruction),
        *_direct_space(reconstruction),
        "<h2>Numbers</h2>",
        _facts(words.quality_facts(reconstruction) + words.crystal_facts(reconstruction)),
        *_reciprocal_space(reconstruction),
        *_curves(reconstruction),
        _starts(reconstruction),
        *_details(reconstruction),
    ]
    style = importlib.resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{name} – {reconstruction.verdict} – braggshot</title>
<style>
{style}</style>
</head>
<body>
{"".join(part for part in parts if part)}
<footer>braggshot {escape(version)}, {now:%Y-%m-%d %H:%M %Z}. Arrays are (z, y, x) = (rocking, row, column); laboratory frame: z
downstream, y up, x outboard; phase = −q·u.</footer>
</body>
</html>
"""


def _header(reconstruction: Reconstruction) -> str:
    verdict = reconstruction.verdict
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in reconstruction.reasons)
    how = escape(", ".join(part for part in (f"method {reconstruction.method}", reconstruction.network) if part))
    return f"""<header><h1>{escape(reconstruction.volume.name)}</h1><p>Bragg coherent diffraction imaging, {how}</p></header>
<section class="verdict {verdict}">
<strong><b>{_SYMBOLS[verdict]} {verdict}</b>{words.HEADLINES[verdict]}</strong>
<ul>{reasons}</ul><p>{words.ADVICE[verdict]}</p>
</section>
"""


def _direct_space(reconstruction: Reconstruction) -> Iterable[str]:
    shown = figures.crystal(reconstruction)
    views = figures.views(shown)
    yield "<h2>The crystal</h2>"
    if views:
        axes = "The file holds no geometry: voxels are drawn as cubes, and z, y, x are rocking, row, column."
        if reconstruction.basis is not None:
            frame = "crystal" if reconstruction.frame == "crystal" else "laboratory"
            axes = f"True proportions; x, y, z are the axes of the {frame} frame, q is the scattering vector."
        yield (
            f'<p class="note">Surface at {words.percent(LEVEL)} of the median amplitude, coloured by the phase there '
            f"(mean phase zero). {axes}</p>"
        )
        yield _row(views, "views")
    else:
        yield '<p class="note">There is no surface to show: the support is empty or the amplitude is zero.</p>'
    yield _legend("phase", shown.phases)
    amplitudes, phases = figures.slices(shown)
    yield "<h2>Slices through its centre of mass</h2>"
    yield '<p class="note">Cartesian planes, interpolated; phase inside the support only.</p>'
    yield "<h3>Amplitude</h3>" + _row(amplitudes) + _legend("amplitude", shown.amplitudes)
    yield "<h3>Phase</h3>" + _row(phases) + _legend("phase", shown.phases)


def _reciprocal_space(reconstruction: Reconstruction) -> Iterable[str]:
    compared = figures.diffraction(reconstruction)
    yield "<h2>Measured against fitted</h2>"
    if compared is None:
        yield '<p class="note">There are no measured counts on this grid to compare with.</p>'
        return
    yield (
        '<p class="note">Central planes of the prepared volume; grey voxels are masked. Photon noise alone gives a difference of '
        "about ±0.5 √photons.</p>"
    )
    yield "<h3>Measured counts</h3>" + _row(compared.measured, voxels=True)
    yield "<h3>Fitted counts</h3>" + _row(compared.fitted, voxels=True) + _legend("counts", compared.counts)
    yield "<h3>Difference of magnitudes, fitted − measured</h3>" + _row(compared.difference, voxels=True)
    yield _legend("difference", compared.errors)


def _row(pictures: Sequence[Picture], kind: str = "", *, voxels: bool = False) -> str:
    return f'<div class="row {kind}">{"".join(_figure(p, voxels=voxels) for p in pictures)}</div>'


def _figure(picture: Picture, *, voxels: bool) -> str:
    bar = figures.scale_bar(picture.width)
    caption = f"{picture.across}, {picture.along}" if picture.across else picture.title
    kind = "bar on-dark" if picture.is_dark else "bar"
    return (
        f'<figure style="flex:{picture.width / picture.height:.4g}">'
        f'<div class="frame" style="aspect-ratio:{picture.width:.6g}/{picture.height:.6g}">'
        f'<img class="{"voxels" if voxels else ""}" alt="{escape(caption)}" src="{_png(picture)}">'
        f'<span class="{kind}" style="width:{100 * bar / picture.width:.2f}%">{bar:g} {picture.unit}</span>'
        f"{_triad(picture)}</div><figcaption>{escape(caption)}</figcaption></figure>"
    )


def _png(picture: Picture) -> str:
    stream = io.BytesIO()
    imsave(stream, picture.rgba, format="png")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _triad(picture: Picture) -> str:
    """The coordinate axes, and q, as arrows from one point."""
    lines = [
        f'<g class="{name}"><line x2="{30 * right:.1f}" y2="{-30 * up:.1f}"/>'
        f'<text stroke="none" x="{40 * right:.1f}" y="{-40 * up + 4:.1f}">{name}</text></g>'
        for name, right, up in picture.triad
    ]
    return f'<svg viewBox="-50 -50 100 100">{"".join(lines)}</svg>' if lines else ""


def _legend(name: str, colours: Colours) -> str:
    stops = ", ".join(mpl.colors.to_hex(mpl.colormaps[colours.name](x)) for x in np.linspace(0, 1, 13))
    low, high = (figures.label(value, colours.unit) for value in (colours.low, colours.high))
    scale = ", logarithmic" if colours.logarithmic else ""
    return (
        f'<div class="legend"><span>{low}</span><i style="background:linear-gradient(90deg, {stops})"></i>'
        f"<span>{high} {colours.unit} ({name}{scale})</span></div>"
    )


def _facts(facts: Sequence[words.Fact]) -> str:
    cards = (
        f'<div><dt>{escape(fact.name)}</dt><dd class="value">{escape(fact.value)}</dd>'
        f'<dd class="how">{escape(fact.note)}</dd></div>'
        for fact in facts
    )
    return f'<dl class="facts">{"".join(cards)}</dl>'


def _curves(reconstruction: Reconstruction) -> Iterable[str]:
    plots = []
    history, ensemble = reconstruction.history, reconstruction.ensemble
    for name, label, logarithmic in (("error", "error", True), ("support_fraction", "support / grid", False)):
        if name in history and len(history[name]):
            iteration = history.get("iteration", np.arange(len(history[name]), dtype=float))
            plots.append(_plot(iteration, history[name], "iteration", label, logarithmic=logarithmic))
    if ensemble is not None and len(ensemble.prtf):
        geometry = reconstruction.volume.reciprocal_basis is not None
        frequency = ensemble.prtf_frequency * (1e-9 if geometry else 1)
        label = "|q − q$_B$| [nm⁻¹]" if geometry else "frequency / Nyquist"
        plots.append(_plot(frequency, ensemble.prtf, label, "PRTF", level=1 / np.e))
    if plots:
        yield f'<h2>Convergence and resolution</h2><div class="row plots">{"".join(plots)}</div>'


def _plot(x: FloatArray, y: FloatArray, across: str, along: str, *, logarithmic: bool = False, level: float | None = None) -> str:
    """A curve as inline SVG in the page's own colours."""
    style: Any = dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK)
    style |= {"svg.hashsalt": along, "axes.spines.top": False, "axes.spines.right": False}
    with mpl.rc_context(style):
        figure = Figure(figsize=(4.2, 2.9), layout="constrained")
        axes = figure.add_subplot(xlabel=across, ylabel=along)
        axes.plot(x, y, color=_LINE, linewidth=1.8)
        if level is not None:
            axes.axhline(level, color=_INK, linewidth=0.8, linestyle="--")
        if logarithmic and np.all(y > 0):
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True)
    svg = re.sub(r"^.*?(?=<svg)|<metadata>.*?</metadata>| xmlns(:xlink)?=\"[^\"]*\"", "", stream.getvalue(), flags=re.DOTALL)
    svg = svg.replace("xlink:href", "href").replace(_INK, "currentColor").replace(_LINE, "var(--accent)")
    return f'<figure class="plot">{svg}</figure>'


def _starts(reconstruction: Reconstruction) -> str:
    if reconstruction.ensemble is None or not reconstruction.ensemble.table:
        return ""
    table = reconstruction.ensemble.table
    chosen = int(np.argmax(table["correlation"])) if "correlation" in table else -1
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in table)
    rows = []
    for index, values in enumerate(zip(*table.values(), strict=True)):
        mark = ' class="chosen"' if index == chosen else ""
        rows.append(f"<tr{mark}>{''.join(f'<td>{value:.5g}</td>' for value in values)}</tr>")
    share = ", ".join(words.percent(float(weight)) for weight in reconstruction.ensemble.mode_weights[:4])
    return (
        f'<h2>Starts</h2><p class="note">The chosen one stands out. Shares of the first modes of all starts: {share}.</p>'
        f'<div class="wide"><table class="starts"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _details(reconstruction: Reconstruction) -> Iterable[str]:
    volume = reconstruction.volume
    yield "<h2>How it was made</h2>"
    for title, content in (
        ("Preparation", dict(enumerate(volume.steps, start=1))),
        ("Choices", reconstruction.choices),
        ("Settings", reconstruction.configuration),
        ("Provenance", volume.provenance),
        ("Seconds per stage", reconstruction.seconds),
    ):
        rows = "".join(f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in _flat(content))
        if rows:
            yield f'<details><summary>{title}</summary><div class="wide"><table>{rows}</table></div></details>'


def _flat(tree: Mapping[Any, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Nested settings as ``a.b.c`` and text."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
