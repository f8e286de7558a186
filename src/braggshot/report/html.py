"""Write the report as a page: one HTML file that needs no other, for light and dark screens, wide and narrow.

Only the crystal to turn needs scripts, which are in the file; all else shows without them.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import importlib.resources
import json
import math
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

import numpy as np

from braggshot.report import figures, html_crystal, html_parts, strain_section, text
from braggshot.report.drawing import Drawing
from braggshot.report.surface import LEVEL
from braggshot.volumes import Reconstruction

# Symbol of each verdict.
SYMBOLS = {"good": "✔", "explained": "≈", "doubtful": "!", "failed": "✖", "not judged": "?"}


def page(drawing: Drawing) -> str:
    """Write the whole report as HTML text, with a section on the strain map where there is one."""
    reconstruction = drawing.reconstruction
    name = escape(reconstruction.volume.name)
    version = importlib.metadata.version("braggshot")
    now = datetime.datetime.now().astimezone()
    parts = [
        _header(reconstruction),
        _in_space(drawing),
        *(_surface(drawing) if drawing.material is None else strain_section.section(drawing.material, drawing.strain_views)),
        *_slices(drawing.crystal),
        "<h2>Numbers</h2>",
        html_parts.facts(text.quality_facts(reconstruction) + text.crystal_facts(reconstruction)),
        *_reciprocal_space(drawing.diffraction),
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
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in text.remarks(reconstruction))
    how = escape(", ".join(part for part in (f"method {reconstruction.method}", reconstruction.network) if part))
    return f"""<header><h1>{escape(reconstruction.volume.name)}</h1><p>Bragg coherent diffraction imaging, {how}</p></header>
<section class="verdict {verdict}">
<strong><b>{SYMBOLS[verdict]} {verdict}</b>{text.HEADLINES[verdict]}</strong>
<ul>{reasons}</ul><p>{text.ADVICE[verdict]}</p>
</section>
"""


def _in_space(drawing: Drawing) -> str:
    """Lay out the crystal to turn, cut and colour."""
    if drawing.solid is None:
        return ""
    found = html_crystal.MISSING if html_crystal.plotly_js() is None else ""
    return "<h2>The crystal in space</h2>" + (
        f'<p class="note">{escape(found)}</p>' if found else html_crystal.panel(drawing.in_space or {})
    )


def _surface(drawing: Drawing) -> Iterable[str]:
    """Show the surface of the crystal from four sides, coloured by its phase, on a page without a strain map."""
    reconstruction, views = drawing.reconstruction, drawing.views
    yield "<h2>The crystal</h2>"
    if views:
        axes = "The file holds no geometry: voxels are drawn as cubes, and z, y, x are rocking, row, column."
        if reconstruction.basis is not None:
            frame = text.FRAMES[reconstruction.frame]
            axes = f"True proportions; x, y, z are the axes of the {frame}, q is the scattering vector."
        yield (
            f'<p class="note">Surface at {text.percent(LEVEL)} of the median amplitude, coloured by the phase there '
            f"(mean phase zero). {axes}</p>"
        )
        yield html_parts.row(views, "views")
    else:
        yield '<p class="note">There is no surface to show: the support is empty or the amplitude is zero.</p>'
    yield html_parts.legend("phase", drawing.crystal.phases)


def _slices(shown: figures.Crystal) -> Iterable[str]:
    amplitudes, phases = figures.slices(shown)
    yield "<h2>Slices through its centre of mass</h2>"
    yield '<p class="note">Cartesian planes as phased, interpolated; phase inside the support only.</p>'
    yield "<h3>Amplitude</h3>" + html_parts.row(amplitudes) + html_parts.legend("amplitude", shown.amplitudes)
    yield "<h3>Phase</h3>" + html_parts.row(phases) + html_parts.legend("phase", shown.phases)


def _reciprocal_space(compared: figures.Diffraction | None) -> Iterable[str]:
    yield "<h2>Measured against fitted</h2>"
    if compared is None:
        yield '<p class="note">There are no measured counts on this grid to compare with.</p>'
        return
    yield (
        '<p class="note">Central planes of the prepared volume; grey voxels are masked. Photon noise alone gives a difference of '
        "about ±0.5 √photons.</p>"
    )
    yield "<h3>Measured counts</h3>" + html_parts.row(compared.measured, voxels=True)
    yield "<h3>Fitted counts</h3>" + html_parts.row(compared.fitted, voxels=True) + html_parts.legend("counts", compared.counts)
    yield "<h3>Difference of magnitudes, fitted − measured</h3>" + html_parts.row(compared.difference, voxels=True)
    yield html_parts.legend("difference", compared.errors)


def _curves(reconstruction: Reconstruction) -> Iterable[str]:
    plots = []
    history, ensemble = reconstruction.history, reconstruction.ensemble
    for name, label, logarithmic in (("error", "error", True), ("support_fraction", "support / grid", False)):
        if name in history and len(history[name]):
            iteration = history.get("iteration", np.arange(len(history[name]), dtype=float))
            plots.append(html_parts.plot(iteration, {name: history[name]}, "iteration", label, logarithmic=logarithmic))
    if ensemble is not None and len(ensemble.prtf):
        geometry = reconstruction.volume.reciprocal_basis is not None
        frequency = ensemble.prtf_frequency * (1e-9 if geometry else 1)
        label = "|q − q$_B$| [nm⁻¹]" if geometry else "frequency / Nyquist"
        plots.append(html_parts.plot(frequency, {"PRTF": ensemble.prtf}, label, "PRTF", level=math.exp(-1)))
    if plots:
        yield f'<h2>Convergence and resolution</h2><div class="row plots">{"".join(plots)}</div>'


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
    share = ", ".join(text.percent(float(weight)) for weight in reconstruction.ensemble.mode_weights[:4])
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
    """Flatten nested settings to pairs of a joined name, such as ``a.b.c``, and the value as text."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
