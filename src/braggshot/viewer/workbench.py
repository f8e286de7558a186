"""Lay out and answer the part of the page from which scans of a folder are phased."""

from __future__ import annotations

from typing import Any

from dash import Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.exceptions import PreventUpdate

from braggshot.errors import BraggshotError
from braggshot.report.interactive import Figure, layout_of
from braggshot.viewer import drawings, layout
from braggshot.viewer.bench import Bench
from braggshot.viewer.contents import aria
from braggshot.viewer.folder import METHODS, RawScan, Summed

# Plotly's options for the picture that a user draws on.
_DRAWING: Any = {
    **{"displaylogo": False, "responsive": True, "doubleClick": False, "displayModeBar": True, "showTips": False},
    "modeBarButtons": [["drawrect", "drawclosedpath", "eraseshape"]],
}
# Script that reads what is drawn on the summed frames; another scan begins with nothing drawn.
_READ_SHAPES = """() => {
    if (dash_clientside.callback_context.triggered_id === "raw") return [];
    const graph = document.querySelector("#sum .js-plotly-plot");
    return ((graph && graph.layout && graph.layout.shapes) || []).map(
        ({type, x0, x1, y0, y1, path}) => type === "path" ? {type, path} : {type, x0, x1, y0, y1});
}"""
_NOTE = (
    "The sum of all frames, logarithmic. A rectangle is the region to phase; an outline masks what is inside it, and there may be "
    "several. The tools are at the top right of the picture. Without them the program finds the peak and its window."
)


def section(bench: Bench) -> html.Section:
    """Lay out the list of scans, the picture to draw on, the method, the buttons, and the command."""
    methods = layout.choice("method", "method", {name: name for name in METHODS}, METHODS[0])
    buttons = [
        html.Button("Run", id="run", className="button strong"),
        html.Button("Stop", id="stop", className="button", disabled=True),
        html.Span(id="bench-state", className="note", role="status"),
        html.Span(id="bench-said", className="note", role="alert"),
    ]
    graph = dcc.Graph(id="sum", config=_DRAWING, figure=drawings.empty("choose a scan"))
    picture = html.Figure(graph, className="plot sum", role="img", **aria(label="sum of all frames, to draw on"))
    side = [methods, html.Div(buttons, className="line"), html.P("The same in a shell:", className="note"), html.Pre(id="command")]
    first = "0" if bench.scans else ""
    return html.Section(
        [
            dcc.Store(id="shapes", data=[]),
            dcc.Store(id="ran"),
            html.H2("Scans of this folder"),
            layout.select("raw", "scan", options(bench), first),
            html.Div([picture, html.Div([html.P(_NOTE, className="note"), *side], className="stack")], className="bench"),
        ],
        id="bench",
        className="card",
    )


def options(bench: Bench) -> list[dict[str, str]]:
    """Return the options of the list of scans: the name of each with its state."""
    states = bench.states()
    return [{"label": f"{scan.name}: {states[scan.name]}", "value": str(n)} for n, scan in enumerate(bench.scans)]


def picture(shown: Summed) -> Figure:
    """Draw summed frames so that a user can draw on them, in pixels of the detector."""
    _, rows, columns = shown.shape
    figure = layout_of(34)
    place = {"xref": "x", "yref": "y", "x": 0, "y": 0, "sizex": columns, "sizey": rows, "sizing": "stretch", "layer": "below"}
    figure["images"] = [{"source": drawings.frame(shown.image), **place}]
    figure["xaxis"] = {**drawings.axis("column [pixel]"), "range": [0, columns], "constrain": "domain", "showgrid": False}
    figure["yaxis"] = {**drawings.axis("row [pixel]"), "range": [rows, 0], "scaleanchor": "x", "constrain": "domain"}
    figure["yaxis"] |= {"showgrid": False}
    figure |= {"dragmode": "drawrect", "newshape": {"line": {"color": "#35c2ff", "width": 2}, "fillcolor": "rgba(53,194,255,0.15)"}}
    corners = {
        "type": "scatter",
        "x": [0, columns],
        "y": [0, rows],
        "mode": "markers",
        "marker": {"opacity": 0},
        "hoverinfo": "skip",
    }
    return {"data": [corners], "layout": figure}


def chosen(bench: Bench, value: Any) -> RawScan:
    """Return the scan at a position of the list, as text from the browser; raise `PreventUpdate` if there is none."""
    number = int(value) if str(value).isdecimal() else -1
    if not 0 <= number < len(bench.scans):
        raise PreventUpdate
    return bench.scans[number]


def register(app: Dash, bench: Bench) -> None:
    """Answer the requests of this part of the page."""

    @app.callback(Output("sum", "figure"), Input("raw", "value"))
    def draw(raw: Any) -> Any:
        try:
            return picture(bench.opened(chosen(bench, raw))[1])
        except (BraggshotError, OSError, ValueError) as error:
            return drawings.empty(f"It cannot be read: {error}"[:200])

    app.clientside_callback(  # type: ignore[no-untyped-call]
        _READ_SHAPES, Output("shapes", "data"), Input("sum", "relayoutData"), Input("raw", "value")
    )

    @app.callback(
        Output("command", "children"),
        Input("raw", "value"),
        Input("method", "value"),
        Input("shapes", "data"),
        Input("ran", "data"),
    )
    def say(raw: Any, method: Any, shapes: Any, _: Any) -> Any:
        try:
            return bench.order(chosen(bench, raw), str(method), shapes).command
        except (BraggshotError, OSError, ValueError) as error:
            return str(error)

    @app.callback(
        Output("bench-said", "children"),
        Output("ran", "data"),
        Input("run", "n_clicks"),
        Input("stop", "n_clicks"),
        State("raw", "value"),
        State("method", "value"),
        State("shapes", "data"),
        prevent_initial_call=True,
    )
    def act(started: Any, stopped: Any, raw: Any, method: Any, shapes: Any) -> Any:
        if ctx.triggered_id == "stop":
            bench.stop()
            return "Stopped.", [started, stopped]
        try:
            bench.run(chosen(bench, raw), str(method), shapes)
        except (BraggshotError, OSError, ValueError) as error:
            return str(error), no_update
        return "", [started, stopped]

    @app.callback(
        Output("raw", "options"),
        Output("run", "disabled"),
        Output("stop", "disabled"),
        Output("bench-state", "children"),
        Input("moment", "data"),
        Input("ran", "data"),
    )
    def state(_: Any, __: Any) -> Any:
        runs = bench.is_running
        return options(bench), runs, not runs, "It runs; its progress is at the top of the page." if runs else ""
