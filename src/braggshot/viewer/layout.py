"""Lay out the page as named parts, which the callbacks of `braggshot.viewer.app` fill."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dash import dcc, html

from braggshot.report import figures, interactive, text
from braggshot.report.figures import Colours
from braggshot.report.html import SYMBOLS
from braggshot.report.solid import TITLES
from braggshot.snapshot import Snapshot
from braggshot.viewer import drawings
from braggshot.viewer.measured import Pattern
from braggshot.viewer.shared import PageContents, ScanEntry, Version

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
# Plotly's options for flat figures, Plotly's options for the figure in space, Dash's options to let the browser keep a choice.
_FLAT: Any = {"displayModeBar": False, "responsive": True, "doubleClick": False, "showTips": False}
_SPACE: Any = {"displaylogo": False, "responsive": True, "modeBarButtons": [["toImage", "resetCameraDefault3d"]]}
_REMEMBERED: Any = {"persistence": True, "persistence_type": "local"}


def _aria(**names: str) -> Any:
    """Return HTML attributes that describe a part of the page to a screen reader."""
    return {f"aria-{name}": value for name, value in names.items()}


def page(version: Version) -> html.Div:
    """Lay out the whole page, as it is before the server has sent any contents."""
    stores = [
        dcc.Store(id="moment", data=vars(version)),
        *(dcc.Store(id=name) for name in ("shown", "drawn", "seen", "camera", "said", "counted", "plotted", "answered")),
    ]
    main = html.Main(
        [
            html.Section(id="scans", className="card scans", **_aria(label="series"), children=_scans(version)),
            html.Div([_crystal(), html.Div([_verdict(), _rocking(), _progress()], className="side")], className="first"),
            _slices(),
            _diffraction(),
            html.Section([html.H2("Numbers"), html.Dl(id="facts", className="facts")], className="card later"),
        ]
    )
    trouble = html.Section(id="trouble", className="card trouble", **_aria(live="polite"))
    return html.Div([*stores, _header(), _lost(), trouble, main], id="page", className="page auto")


def _lost() -> html.Div:
    """Lay out the line that is seen while the page gets no answer; the script that asks shows and hides it."""
    return html.Div(
        [
            html.Strong("Connection lost. "),
            html.Span(
                "The program has ended or cannot be reached; the page shows what came last, and asks again.", className="gone"
            ),
            html.Span("The program asks for another token: open the address that it printed.", className="refused"),
        ],
        id="lost",
        className="card lost",
        role="alert",
    )


def _header() -> html.Header:
    """Lay out the name, the state and the frames of the scan, and the choice of page colours."""
    return html.Header(
        [
            html.Div([html.H1(id="name"), html.P(id="state", **_aria(live="polite")), html.P(id="work")], className="title"),
            html.Div(id="frames", className="frames"),
            _choice("theme", "page colours", {"auto": "auto", "light": "light", "dark": "dark"}, "auto", is_quiet=True),
        ]
    )


def _scans(version: Version) -> list[Any]:
    """Lay out the slider that chooses a scan, and the plot of a quantity along the series."""
    last = max(0, version.scans - 1)
    return [
        html.Div(
            [
                html.Label(["Scan ", html.Output(id="scan-name")], htmlFor="scan"),
                dcc.Input(id="scan", type="range", min=0, max=last, step=1, value=last, debounce=0.05),
            ],
            className="slider wide",
        ),
        _choice("quantity", "along the series", {}, "strain", is_quiet=True),
        _graph("series", "quantity along the series, one mark per scan", "plot"),
    ]


def _crystal() -> html.Section:
    """Lay out the picture of the crystal in space, with controls for its colour, surface, direction of view and cut."""
    return html.Section(
        [
            html.H2("Crystal"),
            _choice("colouring", "coloured by", {name: title.removesuffix(" along q") for name, title in TITLES.items()}, "strain"),
            html.Div(id="images", className="images"),
            html.Div(dcc.Graph(id="crystal", config=_SPACE, figure=drawings.empty("")), className="space"),
            html.Div(id="legend", className="legend"),
            html.P(id="caption", className="note"),
            html.Div(
                [
                    _slider("level", "iso-surface", 5, 95, 50, "% of the median amplitude"),
                    _choice("look", "seen", {"oblique": "obliquely", "x": "along x", "y": "along y", "z": "along z"}, "oblique"),
                    _choice("cut", "cut open", {"": "no", "x": "across x", "y": "across y", "z": "across z"}, ""),
                    _slider("kept", "cut at", 0, 100, 50, "% of its extent"),
                ],
                className="controls",
            ),
        ],
        id="crystal-card",
        className="card crystal empty",
    )


def _verdict() -> html.Section:
    """Lay out the empty card of the verdict."""
    return html.Section(id="verdict", className="card verdict", **_aria(live="polite"))


def _rocking() -> html.Section:
    """Lay out the card of the rocking curve."""
    return html.Section([html.H2("Rocking curve"), _graph("rocking", "counts of every frame", "plot small")], className="card")


def _progress() -> html.Section:
    """Lay out the card with the plot of misfit over time."""
    graph = _graph("course", "misfit of every picture, a mark per verdict", "plot small")
    return html.Section([html.H2("Error and verdict", id="course-title"), graph], className="card")


def _slices() -> html.Section:
    """Lay out the three slices with their sliders."""
    parts = [
        html.Div(
            [
                _graph(f"slice-{axis}", f"slice across {axis}", "plot square"),
                _slider(f"at-{axis}", f"across {axis} at", 0, 100, 50, "%"),
            ]
        )
        for axis in "zyx"
    ]
    return html.Section(
        [html.H2("Slices"), html.P(id="slices-note", className="note"), html.Div(parts, className="three")], className="card later"
    )


def _diffraction() -> html.Section:
    """Lay out the empty card of the diffraction."""
    parts = [html.H2("Diffraction"), html.P(id="diffraction-note", className="note")]
    parts += [html.Div(id="diffraction"), html.Div(id="counts", className="legend")]
    return html.Section(parts, className="card later")


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


def _graph(name: str, described: str, kind: str) -> html.Figure:
    """Lay out a flat figure with a description for screen readers."""
    graph = dcc.Graph(id=name, config=_FLAT, figure=drawings.empty(""))
    return html.Figure(graph, className=kind, role="img", **_aria(label=described))


def _choice(name: str, label: str, options: dict[str, str], value: str, is_quiet: bool = False) -> html.Fieldset:
    """Lay out radio buttons for a choice, which the browser remembers; the arrow keys work, too."""
    listed = [{"label": text, "value": key} for key, text in options.items()]
    buttons = dcc.RadioItems(id=name, options=listed, value=value, inline=True, className="options", **_REMEMBERED)
    return html.Fieldset([html.Legend(label), buttons], className="choice quiet" if is_quiet else "choice")


def _slider(name: str, label: str, low: int, high: int, value: int, unit: str) -> html.Div:
    """Lay out a slider with its value and unit."""
    return html.Div(
        [
            html.Label([f"{label} ", html.Output(id=f"{name}-value"), f" {unit}"], htmlFor=name),
            dcc.Input(id=name, type="range", min=low, max=high, step=1, value=value, debounce=0.05),
        ],
        className="slider",
    )


def frames(snapshot: Snapshot) -> list[Any]:
    """Lay out the number of frames that have come, and the number of planned frames."""
    if not snapshot.received and snapshot.expected is None:
        return []
    of = "" if snapshot.expected is None else f" of {snapshot.expected}"
    text = html.Span(f"{snapshot.received}{of} frames")
    if snapshot.expected is None:
        return [text]
    share = min(1.0, snapshot.received / max(1, snapshot.expected))
    return [text, html.Progress(value=str(round(share, 4)), max="1", **_aria(label="frames received"))]


def verdict(shown: PageContents) -> list[Any]:
    """Lay out the verdict: its badge (a shape and a word, not a colour alone), its reasons, and advice."""
    if not shown.verdict:
        return [html.H2("Verdict"), html.P(shown.note or "There is no picture yet.", className="note")]
    badge = html.Strong(
        [html.Span(SYMBOLS[shown.verdict], className="symbol", **_aria(hidden="true")), shown.verdict],
        id="badge",
        className="badge",
    )
    reasons = [html.Li(reason) for reason in shown.reasons]
    details = html.Details([html.Summary("what to do"), html.P(text.ADVICE[shown.verdict])])
    return [html.H2("Verdict"), badge, html.Span(f"{shown.name}, {shown.method}", className="of"), html.Ul(reasons), details]


def facts(shown: PageContents) -> list[Any]:
    """Lay out the numbers of a result as cards; each has a name, a value and a line that says how to read it."""
    return [html.Div([html.Dt(f.name), html.Dd(f.value, className="value"), html.Dd(f.note, className="how")]) for f in shown.facts]


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
