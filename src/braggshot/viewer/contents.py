"""Lay out what fills the named parts of the page: verdict, numbers, colour bars, state of the scan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from dash import html

from braggshot.report import figures, interactive, strain_section, text
from braggshot.report.figures import Colours
from braggshot.report.html import SYMBOLS
from braggshot.report.solid import Solid
from braggshot.snapshot import Snapshot
from braggshot.viewer import drawings
from braggshot.viewer.measured import Pattern
from braggshot.viewer.shared import PageContents, ScanEntry
from braggshot.volumes import Facet

STATES = {
    "waiting": "waiting for a scan",
    "measuring": "measuring",
    "phasing": "all frames are there, phasing",
    "done": "done",
    "failed": "done, but no crystal can be trusted",
    "aborted": "aborted",
    "unphased": "could not be phased",
}
"""State of a scan -> words that tell it on the page."""


def aria(**names: str) -> Any:
    """Return HTML attributes that describe a part of the page to a screen reader."""
    return {f"aria-{name}": value for name, value in names.items()}


def diffraction(shown: Pattern) -> list[Any]:
    """Lay out the central planes of the measured counts above those of the fitted counts, with sharp pixels."""
    rows: list[Any] = []
    for title, is_fitted in (("measured", False), ("fitted", True)):
        if is_fitted and not shown.fitted:
            continue
        pictures = []
        for n, (down, across) in enumerate(shown.titles):
            image = html.Img(src=drawings.counts(shown, n, is_fitted), alt=f"{title} counts, {down} down, {across} across")
            pictures.append(html.Figure([image, html.Figcaption(f"{across} →, {down} ↓")], className="pixels"))
        rows.append(html.Div([html.H3(f"{title.capitalize()} counts"), html.Div(pictures, className="three")]))
    return rows


def frames(snapshot: Snapshot) -> list[Any]:
    """Lay out the number of frames that have come, and the number of planned frames."""
    if not snapshot.received and snapshot.expected is None:
        return []
    of = "" if snapshot.expected is None else f" of {snapshot.expected}"
    text = html.Span(f"{snapshot.received}{of} frames")
    if snapshot.expected is None:
        return [text]
    share = min(1.0, snapshot.received / max(1, snapshot.expected))
    return [text, html.Progress(value=str(round(share, 4)), max="1", **aria(label="frames received"))]


def verdict(shown: PageContents) -> list[Any]:
    """Lay out the verdict: its badge (a shape and a word, not a colour alone), its reasons, and advice."""
    if not shown.verdict:
        return [html.H2("Verdict"), html.P(shown.note or "There is no picture yet.", className="note")]
    badge = html.Strong(
        [html.Span(SYMBOLS[shown.verdict], className="symbol", **aria(hidden="true")), shown.verdict],
        id="badge",
        className="badge",
    )
    reasons = [html.Li(reason) for reason in shown.reasons]
    details = html.Details([html.Summary("what to do"), html.P(text.ADVICE[shown.verdict])])
    return [html.H2("Verdict"), badge, html.Span(f"{shown.name}, {shown.method}", className="of"), html.Ul(reasons), details]


def facts(shown: PageContents) -> list[Any]:
    """Lay out the numbers of a result as cards; each has a name, a value and a line that says how to read it."""
    return [
        html.Div([html.Dt(f.name), html.Dd([f.value, *_word(f)], className="value"), html.Dd(f.note, className="how")])
        for f in shown.facts
    ]


def _word(fact: text.Fact) -> list[Any]:
    """Lay out the word of what is good, where there is one."""
    return [html.Span(fact.word, className=f"word {fact.kind}")] if fact.word else []


def facets(found: Sequence[Facet]) -> list[Any]:
    """Lay out the facets as a table, the largest first; those without a name are folded."""
    if not found:
        return []
    named, nameless = strain_section.facet_rows(found)
    listed: list[Any] = [_table(strain_section.FACET_COLUMNS, named)] if named else []
    if nameless:
        about = f"{len(nameless)} without a name" if named else f"{len(nameless)} facets, none with a name"
        listed.append(html.Details([html.Summary(about), _table(strain_section.FACET_COLUMNS, nameless)]))
    return [html.H2("Facets"), html.P(strain_section.FACET_NOTE, className="note"), *listed]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> html.Div:
    """Lay out a table."""
    body = [html.Tr([html.Td(cell) for cell in row]) for row in rows]
    return html.Div(html.Table([html.Thead(html.Tr([html.Th(name) for name in head])), html.Tbody(body)]), className="wide")


def comparison(names: tuple[str, str], shown: tuple[PageContents, PageContents]) -> list[Any]:
    """Lay out verdict and numbers of two results side by side."""
    values = [{"verdict": page.verdict, **{fact.name: fact.value for fact in page.facts}} for page in shown]
    rows = [(name, *(one.get(name, "") for one in values)) for name in dict.fromkeys([*values[0], *values[1]])]
    return [html.H3("Numbers of both"), _table(("", *names), rows)]


def about_size(solid: Solid) -> str:
    """Say the frame of a crystal and how far it reaches."""
    size = " × ".join(f"{value:.3g}" for value in solid.high - solid.low)
    return f"{solid.frame.capitalize()}; the crystal spans {size} {solid.unit} in z × y × x."


def about_points(picked: Sequence[Sequence[float]], unit: str) -> str:
    """Say how far two marked points are apart, and along which axes."""
    difference = np.subtract(picked[1], picked[0])
    apart = ", ".join(f"{axis} {value:+.0f}".replace("-", "\N{MINUS SIGN}") for axis, value in zip("zyx", difference, strict=True))
    return f"The points are {np.linalg.norm(difference):.3g} {unit} apart ({apart} {unit}). A click begins anew."


def legend(title: str, colours: Colours) -> list[Any]:
    """Lay out a colour bar with its ends and unit."""
    low, high = figures.ends(colours)
    colour_stops = ", ".join(colour for _, colour in interactive.scale(colours))
    bar = html.I(style={"background": f"linear-gradient(90deg, {colour_stops})"})
    unit = f" {colours.unit}" if colours.unit and colours.unit != "rad" else ""
    scale = ", logarithmic" if colours.logarithmic else ""
    return [html.Span(low), bar, html.Span(f"{high}{unit} ({title}{scale})")]


def state(snapshot: Snapshot) -> str:
    """Say what is happening to the scan, and why, if it came to nothing."""
    return STATES[snapshot.state] + (f": {snapshot.reason}" if snapshot.reason else "")


def work(snapshot: Snapshot, now: float) -> str:
    """Say what the program does for the page, or waits for, how long it has done so, and how long that is likely to take."""
    if snapshot.work is None:
        return ""
    likely = "" if snapshot.work.expected is None else f", likely {max(1, round(snapshot.work.expected))} s"
    return f"{snapshot.work.words} ({max(0, int(now - snapshot.work.began))} s so far{likely})"


def images(shown: Sequence[tuple[str, str]]) -> list[Any]:
    """Lay out detector images, each given by its title and its URL."""
    return [
        html.Figure([html.Img(src=url, alt=title), html.Figcaption(f"{title}, logarithmic")], className="pixels")
        for title, url in shown
    ]


def advice(snapshot: Snapshot) -> list[Any]:
    """Lay out what would make the scan better, the most urgent first; the list is empty if nothing would."""
    return [html.Ul([html.Li(told.words, className=told.kind) for told in snapshot.advice])] if snapshot.advice else []


def trouble(snapshot: Snapshot) -> list[Any]:
    """Lay out what went wrong: the newest error and how much was dropped in one line, which opens to all errors, newest first.

    The list is empty if nothing went wrong.
    """
    dropped = ", ".join(f"{count} × {reason}" for reason, count in (snapshot.dropped or {}).items() if count)
    lines = [*reversed(snapshot.trouble), *([f"dropped: {dropped}"] if dropped else [])]
    if not lines:
        return []
    first = html.Strong(lines[0])
    if len(lines) == 1:
        return [first]
    rest = f"; {lines[-1]}" if dropped else ""
    return [html.Details([html.Summary([first, rest, html.Span(f" show all {len(lines)}")]), html.Ul([html.Li(t) for t in lines])])]


def scan_name(entry: ScanEntry, at: int, total: int) -> str:
    """Return the name of the scan at the slider's position, its number, and its verdict."""
    of = f" ({at + 1} of {total})" if total > 1 else ""
    kind = f", {entry.row['verdict']}" if entry.row.get("verdict") else ""
    return f"{entry.name or 'none yet'}{of}{kind}" + ("" if entry.path else ", now")


def quantities(names: Sequence[str]) -> list[dict[str, str]]:
    """Return the options of the control that chooses the quantity in the plot along the series, one for each of `names`."""
    return [{"label": name, "value": name} for name in names]


def abscissae(names: Sequence[str], against: str | None) -> list[dict[str, str]]:
    """Return the options of the control that chooses the horizontal axis of the plot along the series."""
    usual = {"label": against or "time", "value": ""}
    return [usual, *({"label": name, "value": name} for name in names if name != against)]
