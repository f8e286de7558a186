"""Lay out the page as named parts, which the callbacks of `braggshot.viewer.callbacks` fill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dash import dcc, html

from braggshot.report.solid import TITLES
from braggshot.viewer import drawings
from braggshot.viewer.choices import MAPS
from braggshot.viewer.contents import aria
from braggshot.viewer.downloads import KINDS
from braggshot.viewer.shared import Version

Lists = Mapping[str, Sequence[Mapping[str, str]]]  # name of a list to choose from -> its options
# Plotly's options for flat figures, Plotly's options for the figure in space, Dash's options to let the browser keep a choice.
_FLAT: Any = {"displayModeBar": False, "responsive": True, "doubleClick": False, "showTips": False}
_SPACE: Any = {"displaylogo": False, "responsive": True, "modeBarButtons": [["toImage", "resetCameraDefault3d"]]}
_REMEMBERED: Any = {"persistence": True, "persistence_type": "local"}


def page(version: Version, lists: Lists, tools: Sequence[Any] = ()) -> html.Div:
    """Lay out the whole page, as it is before the server has sent any contents.

    `lists` holds the options of "other" and "over"; the address of a view may choose one of them before the server has answered.
    `tools` are further parts, which come first.
    """
    stores = [
        dcc.Store(id="moment", data=vars(version)),
        *(
            dcc.Store(id=name)
            for name in ("shown", "drawn", "seen", "camera", "said", "counted", "plotted", "answered", "clicked", "picked")
        ),
    ]
    main = html.Main(
        [
            *tools,
            html.Section(id="scans", className="card scans", **aria(label="series"), children=_scans(version, lists)),
            html.Div([_crystal(lists), html.Div([_verdict(), _rocking(), _progress()], className="side")], className="first"),
            _slices(),
            _diffraction(),
            html.Section(
                [html.H2("Numbers"), html.Dl(id="facts", className="facts"), html.Div(id="facets")], className="card later"
            ),
            _downloads(),
        ]
    )
    trouble = html.Section(id="trouble", className="card trouble", **aria(live="polite"))
    advice = html.Section(id="advice", className="card advice", **aria(live="polite", label="advice"))
    return html.Div([*stores, _header(), _lost(), advice, trouble, main], id="page", className="page auto")


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
            html.Div([html.H1(id="name"), html.P(id="state", **aria(live="polite")), html.P(id="work")], className="title"),
            html.Div(id="frames", className="frames"),
            choice("theme", "page colours", {"auto": "auto", "light": "light", "dark": "dark"}, "auto", is_quiet=True),
        ]
    )


def _scans(version: Version, lists: Lists) -> list[Any]:
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
        choice("quantity", "along the series", {}, "strain", is_quiet=True),
        select("over", "over", lists["over"], ""),
        _graph("series", "quantity along the series, one mark per scan", "plot"),
    ]


def _crystal(lists: Lists) -> html.Section:
    """Lay out the picture of the crystal in space, with controls for its colour, surface, direction of view and cut."""
    return html.Section(
        [
            html.H2("Crystal"),
            choice("colouring", "coloured by", {name: title.removesuffix(" along q") for name, title in TITLES.items()}, "strain"),
            html.Div(id="images", className="images"),
            html.Div(select("other", "compare with", lists["other"], ""), id="compare", hidden=True),
            html.Div([_in_space("crystal"), _in_space("crystal-b")], className="space", id="space"),
            html.Div(id="legend", className="legend"),
            _colours(),
            html.P(id="caption", className="note"),
            html.Div([_level(), html.Div([*_view(), *_cut()], className="stack")], className="controls"),
        ],
        id="crystal-card",
        className="card crystal empty",
    )


def _in_space(name: str) -> html.Div:
    """Lay out a picture in space, below the name of its scan, which is empty while nothing is compared."""
    graph = dcc.Graph(id=name, config=_SPACE, figure=drawings.empty(""))
    return html.Div([html.H3(id=f"{name}-name"), html.Div(graph, className="fill")], id=f"{name}-side")


def _colours() -> html.Div:
    """Lay out the choice of colour map, range and unit, which surface and slices share."""
    maps = [{"label": name.removesuffix("_r").removesuffix("_shifted"), "value": name} for name in MAPS]
    unit = html.Div(choice("unit", "in", {"1": "plain", "%": "%", "10⁻⁴": "10⁻⁴"}, "1"), className="unit")
    return html.Div(
        [select("map", "colours", maps, "auto"), _number("low", "from"), _number("high", "to"), unit], className="colours"
    )


def _level() -> html.Div:
    """Lay out the slider of the iso-surface, and the histogram of what it is a level of."""
    slider = _slider("level", "iso-surface", 5, 95, 50, "% of the median amplitude")
    return html.Div([slider, _graph("heights", "number of voxels by amplitude, and the level of the iso-surface", "plot low")])


def _view() -> list[Any]:
    """Lay out the choice of a direction to look along."""
    return [choice("look", "seen", {"oblique": "obliquely", "x": "along x", "y": "along y", "z": "along z"}, "oblique")]


def _cut() -> list[Any]:
    """Lay out the choice of a cut."""
    cut = choice("cut", "cut open", {"": "no", "x": "across x", "y": "across y", "z": "across z"}, "")
    return [cut, _slider("kept", "cut at", 0, 100, 50, "% of its extent")]


def _verdict() -> html.Section:
    """Lay out the empty card of the verdict."""
    return html.Section(id="verdict", className="card verdict", **aria(live="polite"))


def _rocking() -> html.Section:
    """Lay out the card of the rocking curve."""
    scaling = choice("counts-scale", "counts", {"linear": "linear", "log": "logarithmic"}, "linear", is_quiet=True)
    graph = _graph("rocking", "counts of every frame", "plot small")
    return html.Section([html.H2("Rocking curve"), scaling, graph], className="card")


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
    legend = html.Div(id="slices-legend", className="legend")
    head = [html.H2("Slices"), html.P(id="slices-note", className="note")]
    others = [_graph(f"slice-b-{axis}", f"slice across {axis} of the other scan", "plot square") for axis in "zyx"]
    compared = html.Div([html.H3(id="slices-b-name"), html.Div(others, className="three")], id="slices-b", hidden=True)
    table = html.Div(id="compared")
    return html.Section([*head, html.Div(parts, className="three"), compared, legend, _profile(), table], className="card later")


def _profile() -> html.Div:
    """Lay out the line profile between two marked points, and the button that takes them away."""
    said = [html.P(id="profile-note", className="note"), html.Button("Remove the points", id="unpick", className="button")]
    graph = _graph("profile", "values along the line between the marked points", "plot")
    return html.Div([html.Div(said, className="line"), graph], id="profile-card", className="profile hidden")


def _downloads() -> html.Section:
    """Lay out the links to files of what is shown."""
    links = [_link(kind, name) for kind, name in KINDS.items()]
    note = "Files of the scan that is shown. The address of this page restores the view: keep it, or send it."
    return html.Section(
        [html.H2("Download"), html.Div(links, className="line"), html.P(note, className="note")], className="card later"
    )


def _link(kind: str, name: str) -> html.A:
    """Lay out a link to a file; the script that keeps the view in the address adds the view to it."""
    kind_of: Any = {"data-kind": kind}
    return html.A(name, href=f"download/{kind}", className="download button", **kind_of)


def _diffraction() -> html.Section:
    """Lay out the empty card of the diffraction."""
    parts = [html.H2("Diffraction"), html.P(id="diffraction-note", className="note")]
    parts += [html.Div(id="diffraction"), html.Div(id="counts", className="legend")]
    return html.Section(parts, className="card later")


def _graph(name: str, described: str, kind: str) -> html.Figure:
    """Lay out a flat figure with a description for screen readers."""
    graph = dcc.Graph(id=name, config=_FLAT, figure=drawings.empty(""))
    return html.Figure(graph, className=kind, role="img", **aria(label=described))


def choice(name: str, label: str, options: dict[str, str], value: str, is_quiet: bool = False) -> html.Fieldset:
    """Lay out radio buttons for a choice, which the browser remembers; the arrow keys work, too."""
    listed = [{"label": text, "value": key} for key, text in options.items()]
    buttons = dcc.RadioItems(id=name, options=listed, value=value, inline=True, className="options", **_REMEMBERED)
    return html.Fieldset([html.Legend(label), buttons], className="choice quiet" if is_quiet else "choice")


def select(name: str, label: str, options: Sequence[Any], value: str) -> html.Div:
    """Lay out a list to choose from, which opens when it is used."""
    chosen = dcc.Dropdown(id=name, options=list(options), value=value, clearable=False, searchable=False)
    return html.Div([html.Label(label, htmlFor=name), chosen], className="select")


def _number(name: str, label: str) -> html.Div:
    """Lay out a field for a number; while it is empty it shows the usual value."""
    return html.Div([html.Label(label, htmlFor=name), dcc.Input(id=name, type="text", debounce=True)], className="number")


def _slider(name: str, label: str, low: int, high: int, value: int, unit: str) -> html.Div:
    """Lay out a slider with its value and unit."""
    return html.Div(
        [
            html.Label([f"{label} ", html.Output(id=f"{name}-value"), f" {unit}"], htmlFor=name),
            dcc.Input(id=name, type="range", min=low, max=high, step=1, value=value, debounce=0.05),
        ],
        className="slider",
    )
