"""Lay out the crystal to turn, cut and colour as HTML that needs no other file, with plotly.js compressed in it.

The browser decompresses plotly.js and the figure. Where it cannot, or draws nothing in space, a note says so, and what stands
beside the figure has to do: pictures on a page, one picture in a notebook.
"""

from __future__ import annotations

import base64
import gzip
import importlib.resources
import importlib.util
import json
from functools import cache
from html import escape
from pathlib import Path

from braggshot.report.interactive import Figure

MISSING = "To turn, cut and colour the crystal here, an extra is needed: pip install 'braggshot[view]'."
"""What is said where plotly.js is not installed."""
_LEVEL = 5  # of gzip: plotly.js gets 1 % larger than with the highest level, 9, in half of the time
_HEIGHT = 560  # height of the figure [pixels]


@cache
def plotly_js() -> str | None:
    """Return the script plotly.js, compressed and encoded as text; None where the package plotly is not installed."""
    found = importlib.util.find_spec("plotly")
    places = (
        []
        if found is None
        else [Path(place) / "package_data" / "plotly.min.js" for place in found.submodule_search_locations or ()]
    )
    return next((_packed(path.read_bytes()) for path in places if path.is_file()), None)


def _packed(content: bytes) -> str:
    """Compress bytes, and encode them as text."""
    return base64.b64encode(gzip.compress(content, _LEVEL, mtime=0)).decode("ascii")


def panel(figure: Figure) -> str:
    """Lay out a figure with the scripts that draw it, for one place on a page; a note where plotly.js is not installed."""
    library = plotly_js()
    if library is None:
        return f'<p class="note">{escape(MISSING)}</p>'
    draw = importlib.resources.files(__package__).joinpath("crystal.js").read_text(encoding="utf-8")
    drawn = _packed(json.dumps(figure, allow_nan=False, separators=(",", ":")).encode())
    return (
        f'<div id="crystal" style="height:{_HEIGHT}px" role="img" aria-label="the crystal, to turn, cut and colour" hidden></div>'
        '<p class="note" id="crystal-note"></p>'
        f'<script type="text/plain" id="plotly-js">{library}</script>'
        f'<script type="text/plain" id="crystal-figure">{drawn}</script>'
        f"<script>\n{draw}</script>"
    )


def frame(figure: Figure, name: str) -> str:
    """Lay out a figure as a page inside a page, as a cell of a notebook shows it; a note where plotly.js is not installed."""
    if plotly_js() is None:
        return panel(figure)
    style = "body { margin: 0; font: 14px system-ui, sans-serif; } .note { margin: 0; color: #808890; }"
    page = f'<!DOCTYPE html><meta charset="utf-8"><title>{escape(name)}</title><style>{style}</style>{panel(figure)}'
    height = _HEIGHT + 24
    return f'<iframe title="{escape(name)}" style="width:100%;height:{height}px;border:0" srcdoc="{escape(page)}"></iframe>'
