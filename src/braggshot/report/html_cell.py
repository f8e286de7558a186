"""Lay out a reconstruction as a notebook shows it: the verdict with its reasons, the slide, and a table of numbers."""

from __future__ import annotations

import base64
import io
from html import escape

from braggshot.report import strain_section, text
from braggshot.report.drawing import Drawing
from braggshot.report.html import SYMBOLS
from braggshot.report.slide import HUES, slide

_WIDTH = 1100  # width of the slide in a notebook [pixels]


def cell(drawing: Drawing) -> str:
    """Lay out a reconstruction as HTML without scripts, with styles of its own, for light and dark notebooks."""
    result = drawing.reconstruction
    verdict, name = result.verdict, escape(result.volume.name)
    chip = f"background:{HUES[verdict]};color:white;border-radius:0.8em;padding:0.1em 0.7em;font-weight:bold"
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in text.remarks(result))
    picture = f"data:image/png;base64,{base64.b64encode(small_slide(drawing)).decode('ascii')}"
    return (
        f'<div style="max-width:{_WIDTH}px"><p><span style="{chip}">{SYMBOLS[verdict]} {verdict}</span> <b>{name}</b> '
        f"{text.HEADLINES[verdict]}</p><ul>{reasons}</ul>"
        f'<img alt="{name}: the crystal, slices, counts" src="{picture}" style="width:100%">{_table(drawing)}</div>'
    )


def small_slide(drawing: Drawing) -> bytes:
    """Draw the slide as a PNG file, small enough that a saved notebook stays small."""
    figure = slide(drawing)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=_WIDTH / figure.get_figwidth(), pil_kwargs={"optimize": True})
    return stream.getvalue()


def _left(words: str) -> str:
    """Lay out a cell of the table; notebooks would set it to the right."""
    return f'<td style="text-align:left">{escape(words)}</td>'


def _table(drawing: Drawing) -> str:
    """List the numbers of the reconstruction, folded away, as the slide shows the most important ones."""
    result = drawing.reconstruction
    strain = () if result.strain is None else strain_section.facts(result.strain)
    facts = text.quality_facts(result) + strain + text.crystal_facts(result)
    rows = "".join(f"<tr>{''.join(map(_left, (fact.name, fact.value, fact.note)))}</tr>" for fact in facts)
    return f"<details><summary>all numbers</summary><table>{rows}</table></details>"
