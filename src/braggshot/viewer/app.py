r"""Serve the page with Dash: the browser asks, a thread answers, plotly.js draws.

::

    feed --SharedFeed--> Version --(the page asks again and again)--> header, frames, shown (scan, picture)
                                                                          \--> surface --> slices, curves, diffraction, numbers

SharedFeed shares one feed of results among all pages. The browser asks several times a second for the Version, a few numbers that
change with the results. It then requests what is new, in the order of the arrows: the surface is drawn before slices and curves
are requested. Requests are few, because Dash notifies every part of the page about each one. The browser sends its user's choices
with each request. So users do not disturb each other, and an open page continues after a restart of the program.
"""

from __future__ import annotations

import importlib.resources
import json
import logging
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from braggshot.errors import ConfigError, OutputError
from braggshot.report import interactive
from braggshot.report.solid import MAX_TRIANGLES, MAX_TRIANGLES_LIVE, TITLES, View
from braggshot.snapshot import Feed
from braggshot.viewer import access, drawings, measured
from braggshot.viewer.pages import ASK, Pages, pause
from braggshot.viewer.shared import PageContents, SharedFeed, scan_entries

try:
    from dash import Dash, Input, Output, State, ctx, no_update
    from dash.exceptions import PreventUpdate
    from flask import Response, request
    from waitress import create_server

    from braggshot.viewer import layout
except ModuleNotFoundError as error:
    raise ConfigError(f"the page needs {error.name}: pip install 'braggshot[view]'.") from error

_LOG = logging.getLogger(__name__)
_THREADS = 12  # number of threads that answer requests of browsers; each request takes milliseconds
# HTML frame of the page; STYLE is replaced by the style sheet.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>{%metas%}<title>{%title%}</title>{%favicon%}{%css%}<style>STYLE</style></head>
<body>{%app_entry%}<footer>{%config%}{%scripts%}{%renderer%}</footer></body>
</html>"""
# Script that requests slices, curves and numbers two screen frames after the surface was drawn, if the reconstruction changed.
_REST = """(_, shown, drawn) => new Promise(then => requestAnimationFrame(() => requestAnimationFrame(() =>
    then(JSON.stringify(shown) === JSON.stringify(drawn) ? dash_clientside.no_update : shown))))"""
# Script that says what is shown in full; Dash calls it when slices, curves and numbers of what was drawn have all come.
_SEEN = "(slices, curves, numbers, drawn) => drawn"


def serve(
    feed: Feed,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    on_ready: Callable[[str], None],
    stop: threading.Event | None = None,
) -> None:
    """Serve the page until `stop` is set or Ctrl-C is pressed; first call `on_ready` with the URL of the page."""
    with serving(feed, host=host, port=port, token=token) as url, suppress(KeyboardInterrupt):
        on_ready(url)
        (stop or threading.Event()).wait()


@contextmanager
def serving(
    feed: Feed,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    pages: Pages | None = None,
    ancestors: str = access.NOBODY,
) -> Iterator[str]:
    """Serve the page from threads of this process while the context lasts; the value of the context is the URL of the page.

    Parameters
    ----------
    feed : the results or the live session to show
    host, port : address to serve at; port 0 takes a free port
    token : access token that every visitor needs; it is part of the URL
    pages : record of the open pages that the caller reads; None if it needs none
    ancestors : pages that may show this one inside them, as `access.protect` takes them

    Raises
    ------
    ConfigError : if other machines can reach the address and there is no token.
    OutputError : if the address is in use, or does not belong to this machine.
    """
    if token is None and not access.is_loopback(host):
        raise ConfigError(f"others reach {host}, so the page needs a token; give one with --token, or leave --host out.")
    page = access.protect(build(feed, pages or Pages()).server.wsgi_app, token, ancestors)
    sockets: dict[int, Any] = {}
    limits = {"max_request_body_size": access.LONGEST_REQUEST, "max_request_header_size": 16 * 1024, "connection_limit": 200}
    try:
        server = create_server(page, map=sockets, host=host, port=port, threads=_THREADS, ident=None, **limits)
    except OSError as error:
        close_all(sockets)
        raise OutputError(f"cannot serve on {host}:{port} ({error.strerror or error}); choose another --port or --host.") from error
    thread = threading.Thread(target=server.run, name="viewer", daemon=True)
    thread.start()
    name = f"[{host}]" if ":" in host else host
    try:
        yield f"http://{name}:{server.effective_port}/" + (f"?token={token}" if token else "")
    finally:
        # The server's loop ends when no socket is left; the loop itself has to close them.
        server.trigger.pull_trigger(lambda: _shut_down(server, sockets))
        thread.join(10)


def _shut_down(server: Any, sockets: dict[int, Any]) -> None:
    """Stop the server: finish the answers that have begun, which need the sockets, then close all sockets.

    Call this function from the server's event loop. The loop takes no new requests while the function runs.
    """
    server.task_dispatcher.shutdown()
    close_all(sockets)


def close_all(sockets: dict[int, Any]) -> None:
    """Close all sockets of the server."""
    for one in list(sockets.values()):
        one.close()


def build(feed: Feed, pages: Pages) -> Dash:
    """Make the Dash application, without serving it; it keeps a record of the open pages in `pages`."""
    style = importlib.resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    app = Dash(
        "braggshot",
        title="braggshot",
        update_title="",
        index_string=_PAGE.replace("STYLE", style),
        assets_folder="nowhere",
        include_assets_files=False,
        on_error=_log_unanswered,
        meta_tags=[
            {"name": "viewport", "content": "width=device-width, initial-scale=1"},
            {"name": "color-scheme", "content": "light dark"},
        ],
    )
    shared = SharedFeed(feed)
    app.layout = lambda: layout.page(shared.latest()[0])
    _ask(app, shared, pages)
    _follow(app, shared)
    _draw(app, shared)
    _slice(app, shared)
    _plot(app, shared)
    _tell(app, shared)
    _echo(app)
    return app


def _log_unanswered(error: Exception) -> None:
    """Log a request that cannot be answered, and leave the page as it is; such requests come from other programs."""
    _LOG.warning("the page asked what could not be answered: %s: %.200s", type(error).__name__, error)


def _ask(app: Dash, shared: SharedFeed, pages: Pages) -> None:
    """Tell the browser which version of the contents is present, and when to ask again; note what the page shows in full."""

    def moment() -> Response:
        now, snapshot = shared.latest()
        page, number, at = request.args.get("page"), request.args.get("number", type=int), request.args.get("at", type=int)
        if page is not None:
            is_current = at is not None and request.args.get("key") == shared.key(at)
            pages.note(page, number if is_current else None)
        return Response(json.dumps({"moment": vars(now), "pause": pause(snapshot)}), mimetype="application/json")

    app.server.add_url_rule("/moment", view_func=moment)
    app.clientside_callback(ASK, Input("page", "id"), State("moment", "data"))  # type: ignore[no-untyped-call]
    come = (Input("slices-note", "children"), Input("plotted", "data"), Input("counts", "children"))
    app.clientside_callback(_SEEN, Output("seen", "data"), *come, State("drawn", "data"))  # type: ignore[no-untyped-call]


def _follow(app: Dash, shared: SharedFeed) -> None:
    """Update the header and choose the scan to show: the newest one, unless the user has chosen an earlier one."""
    header = (("name", "children"), ("state", "children"), ("state", "className"), ("frames", "children"), ("trouble", "children"))
    slider = (("scan", "max"), ("scan", "value"), ("scans", "hidden"), ("scan-name", "children"))

    @app.callback(
        Output("shown", "data"),
        *(Output(*part) for part in (*header, *slider)),
        Output("said", "data"),
        Output("counted", "data"),
        Input("moment", "data"),
        Input("scan", "value"),
        Input("series", "clickData"),
        State("scan", "max"),
        State("shown", "data"),
        State("said", "data"),
    )
    def follow(_: Any, at: Any, click: Any, last: Any, known: dict[str, Any] | None, said: list[int] | None) -> Any:
        """Return the parts of the header and of the scan slider that changed, and which scan is shown."""
        moment, snapshot = shared.latest()
        places = scan_entries(snapshot)
        newest = len(places) - 1
        at = given = int(at or 0)
        if ctx.triggered_id == "series":
            name = ((click or {}).get("points") or [{}])[0].get("customdata")
            at = next((n for n, place in enumerate(places) if place.name == name), at)
        elif at >= int(last or 0):
            at = newest
        at = min(max(at, 0), newest)
        now = {"at": at, "key": shared.key(at)}
        state = layout.STATES[snapshot.state], f"state {snapshot.state}"
        parts = (snapshot.scan or "braggshot", *state, layout.frames(snapshot), layout.trouble(snapshot))
        moved = no_update if at == given else at  # new slider position; none if unchanged, as the user may be dragging it
        changes, said = changed_parts([*parts, newest, moved, newest < 1, layout.scan_name(places[at], at, newest + 1)], said)
        # Curves of another reconstruction wait until it is drawn; those of the same one are drawn as frames come.
        return (no_update, *changes, said, moment.number) if now == known else (now, *changes, said, no_update)


def changed_parts(parts: Sequence[Any], known: list[int] | None) -> tuple[list[Any], list[int]]:
    """Return the parts of a page, with `no_update` in place of unchanged parts, and the checksums of all parts."""
    marks = [zlib.crc32(repr(part).encode()) for part in parts]
    same = [mark == old for mark, old in zip(marks, known or [-1] * len(marks), strict=True)]
    return [no_update if is_same else part for part, is_same in zip(parts, same, strict=True)], marks


def _plot(app: Dash, shared: SharedFeed) -> None:
    """Draw the curves: rocking curve, misfit over time, and the chosen quantity along the series."""

    @app.callback(
        Output("rocking", "figure"),
        Output("course", "figure"),
        Output("course-title", "children"),
        Output("series", "figure"),
        Output("quantity", "options"),
        Output("plotted", "data"),
        Input("counted", "data"),
        Input("drawn", "data"),
        Input("quantity", "value"),
        State("plotted", "data"),
    )
    def curves(_: Any, shown: Any, quantity: str, plotted: list[int] | None) -> Any:
        contents = _contents_of(shared, shown)
        moment, snapshot = shared.latest()
        is_current = shown["at"] >= moment.scans - 1
        rocking = measured.rocking(snapshot, None, True) if is_current and snapshot.rocking.size else contents.rocking
        curve = measured.series_curve(snapshot.series, quantity)
        name = shared.entry(int(shown["at"])).name
        series = drawings.empty("no numbers yet") if curve is None else drawings.series(curve, name)
        options = layout.quantities(measured.known_quantities(snapshot.series))
        over_time = _progress_figure(contents, measured.latest_previews(snapshot) if is_current else ())
        changes, plotted = changed_parts([drawings.rocking(rocking), *over_time, series, options], plotted)
        return *changes, plotted


def _progress_figure(contents: PageContents, records: Any) -> tuple[interactive.Figure, str]:
    """Draw the misfit of the previews over time, or, for a result file, the error over the iterations of the phasing."""
    if records:
        return drawings.previews(records), "Error and verdict over time"
    if contents.error is not None:
        return drawings.convergence(*contents.error), "Error while it was phased"
    return drawings.empty("no picture yet"), "Error and verdict over time"


def _tell(app: Dash, shared: SharedFeed) -> None:
    """Update the verdict, the numbers and the diffraction on the page."""

    @app.callback(
        Output("verdict", "children"),
        Output("verdict", "className"),
        Output("facts", "children"),
        Output("diffraction", "children"),
        Output("diffraction-note", "children"),
        Output("counts", "children"),
        Input("drawn", "data"),
    )
    def details(shown: dict[str, Any] | None) -> Any:
        contents = _contents_of(shared, shown)
        parts = (layout.verdict(contents), f"card verdict {contents.verdict}", layout.facts(contents))
        pattern = contents.pattern()
        if pattern is None:
            return *parts, [], "No counts yet.", []
        note = "Central planes of the prepared volume; grey is masked or missing."
        return *parts, layout.diffraction(pattern), note, layout.legend("counts", pattern.colours)


def _draw(app: Dash, shared: SharedFeed) -> None:
    """Draw the surface of the crystal, when the scan or a choice of the user changes."""

    @app.callback(
        Output("crystal", "figure"),
        Output("legend", "children"),
        Output("caption", "children"),
        Output("colouring", "options"),
        Input("shown", "data"),
        Input("colouring", "value"),
        Input("level", "value"),
        Input("cut", "value"),
        Input("kept", "value"),
        Input("look", "value"),
        State("camera", "data"),
    )
    def crystal(shown: Any, colouring: str, level: Any, cut: Any, kept: Any, look: str, turned: Any) -> Any:
        contents = _contents_of(shared, shown)
        solid = shared.solid(shown["at"])
        if solid is None:
            return drawings.empty(""), [], contents.note, no_update
        max_triangles = MAX_TRIANGLES_LIVE if shared.is_growing(shown["at"]) else MAX_TRIANGLES
        view = replace(_view(colouring, level, cut, kept), max_triangles=max_triangles)
        name, surface = solid.colouring(view.colouring), shared.mesh(solid, view)
        size = " × ".join(f"{value:.3g}" for value in solid.high - solid.low)
        caption = f"{solid.frame.capitalize()}; the crystal spans {size} {solid.unit} in z × y × x."
        options = [{"label": t.removesuffix(" along q"), "value": k, "disabled": k not in solid.fields} for k, t in TITLES.items()]
        if surface is None:
            caption = "Nothing is left at this level: lower it, or cut less away. " + caption
        return (
            interactive.crystal(solid, surface, name, _camera(turned, look)),
            layout.legend(TITLES[name], solid.colours[name]),
            caption,
            options,
        )

    drawn, *known = Output("drawn", "data"), State("shown", "data"), State("drawn", "data")
    app.clientside_callback(_REST, drawn, Input("crystal", "figure"), *known)  # type: ignore[no-untyped-call]

    @app.callback(
        Output("camera", "data"),
        Input("crystal", "relayoutData"),
        Input("look", "value"),
        prevent_initial_call=True,
    )
    def turned(moved: dict[str, Any] | None, look: str) -> Any:
        """Return the camera after the user turned the crystal, or None after the user chose a fixed direction of view.

        Plotly's own memory of the camera (uirevision) is lost when Dash draws again, which it does after each turn.
        """
        if ctx.triggered_id == "look":
            return None
        return {"look": look, "camera": moved["scene.camera"]} if moved and "scene.camera" in moved else no_update


def _camera(turned: dict[str, Any] | None, look: str) -> interactive.Figure:
    """Return the camera as the user turned it, or the camera of the direction `look` if the user did not turn it."""
    if turned is None or turned.get("look") != look:
        return interactive.camera_from(look)
    kept = {part: {axis: float(turned["camera"][part][axis]) for axis in "xyz"} for part in ("eye", "up", "center")}
    return {**interactive.camera_from(look), **kept}


def _slice(app: Dash, shared: SharedFeed) -> None:
    """Draw the slices separately from the surface, so that the surface is not sent again when a slice is moved."""

    @app.callback(
        *(Output(f"slice-{axis}", "figure") for axis in "zyx"),
        Output("slices-note", "children"),
        Input("drawn", "data"),
        Input("colouring", "value"),
        Input("level", "value"),
        *(Input(f"at-{axis}", "value") for axis in "zyx"),
    )
    def slices(shown: Any, colouring: str, level: Any, z: Any, y: Any, x: Any) -> Any:
        _contents_of(shared, shown)
        solid = shared.solid(shown["at"])
        if solid is None:
            return *[drawings.empty("")] * 3, ""
        view = _view(colouring, level, None, 50, (z, y, x))
        name = solid.colouring(view.colouring)
        across = shared.planes(solid, view)
        at = {plane.normal: plane.at for plane in across}
        figures = [drawings.slice_figure(p, (at[p.across], at[p.up]), solid.colours[name], solid.unit) for p in across]
        return *figures, f"{TITLES[name].capitalize()}, inside the iso-surface; dotted lines show where the other slices are."


def _contents_of(shared: SharedFeed, shown: dict[str, Any] | None) -> PageContents:
    """Return the contents of the scan that the page shows; leave the page unchanged if it shows no scan."""
    if shown is None:
        raise PreventUpdate
    return shared.contents(int(shown["at"]))


def _view(colouring: str, level: Any, cut: Any, kept: Any, places: tuple[Any, Any, Any] = (50, 50, 50)) -> View:
    """Turn the user's choices, as the browser sent them, into a `View`; each is limited to its range."""

    def share(value: Any) -> float:
        return min(max(float(value or 0) / 100, 0.0), 1.0)

    z, y, x = (share(place) for place in places)
    return View(colouring, max(share(level), 0.05), cut if cut in {"x", "y", "z"} else None, share(kept), (z, y, x))


def _echo(app: Dash) -> None:
    """Show the value of each slider, and set the colours of the page."""
    for name in ("level", "kept", "at-z", "at-y", "at-x"):
        app.callback(Output(f"{name}-value", "children"), Input(name, "value"))(lambda value: f"{value}")
    app.callback(Output("page", "className"), Input("theme", "value"))(
        lambda theme: f"page {theme if theme in {'light', 'dark'} else 'auto'}"
    )
