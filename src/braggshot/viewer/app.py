r"""Serve the page with Dash: the browser asks, a thread answers, plotly.js draws.

::

    feed --SharedFeed--> Version --(the page asks again and again)--> header, frames, shown (scan, picture)
                                                                          \--> surface, slices, verdict, curves, numbers

SharedFeed shares one feed of results among all pages. The browser asks several times a second for the Version, a few numbers that
change with the results. It then requests what is new. Everything that shows a picture comes in one answer (`parts`), so that what
a page shows is of one moment. Requests are few, because Dash notifies every part of the page about each one. The browser sends its
user's choices with each request. So users do not disturb each other, and an open page continues after a restart of the program.
"""

from __future__ import annotations

import importlib.resources
import json
import logging
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from braggshot.errors import ConfigError, OutputError
from braggshot.snapshot import Feed
from braggshot.viewer import access
from braggshot.viewer.pages import ASK, Pages, pause
from braggshot.viewer.shared import SharedFeed, scan_entries

try:
    from dash import Dash, Input, Output, State, ctx, no_update
    from dash.exceptions import PreventUpdate
    from flask import Response, request
    from waitress import create_server

    from braggshot.viewer import layout, parts
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
# Script that says what is shown, when the screen shows it. A hidden page draws nothing, so it says so as soon as it has everything.
_SEEN = """drawn => new Promise(then => {
    const done = () => { clearTimeout(late); then({at: drawn.at, key: drawn.key}); };
    const late = setTimeout(done, document.hidden ? 0 : 2000);
    if (!document.hidden) requestAnimationFrame(() => requestAnimationFrame(done));
})"""


def serve(
    feed: Feed,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    base: str = "/",
    on_ready: Callable[[str], None],
    stop: threading.Event | None = None,
) -> None:
    """Serve the page until `stop` is set or Ctrl-C is pressed; first call `on_ready` with the URL of the page."""
    with serving(feed, host=host, port=port, token=token, base=base) as url, suppress(KeyboardInterrupt):
        on_ready(url)
        (stop or threading.Event()).wait()


@contextmanager
def serving(
    feed: Feed,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    base: str = "/",
    pages: Pages | None = None,
    ancestors: str = access.NOBODY,
) -> Iterator[str]:
    """Serve the page from threads of this process while the context lasts; the value of the context is the URL of the page.

    Parameters
    ----------
    feed : the results or the live session to show
    host, port : address to serve at; port 0 takes a free port
    token : access token that every visitor needs; it is part of the URL
    base : base path of the page behind a proxy, with a slash at its beginning and its end; the page is also served at "/"
    pages : record of the open pages that the caller reads; None if it needs none
    ancestors : pages that may show this one inside them, as `access.protect` takes them

    Raises
    ------
    ConfigError : if other machines can reach the address and there is no token.
    OutputError : if the address is in use, or does not belong to this machine.
    """
    if token is None and not access.is_loopback(host):
        raise ConfigError(f"others reach {host}, so the page needs a token; leave --no-token or --host out.")
    page = access.protect(build(feed, pages or Pages(), base).server.wsgi_app, token, base, ancestors)
    sockets: dict[int, Any] = {}
    # An answer stays in memory until it is sent: one with a whole picture has a megabyte or two.
    limits = {
        "outbuf_overflow": 64 * 2**20,
        "max_request_body_size": access.LONGEST_REQUEST,
        "max_request_header_size": 16 * 1024,
        "connection_limit": 200,
    }
    try:
        server = create_server(page, map=sockets, host=host, port=port, threads=_THREADS, ident=None, **limits)
    except OSError as error:
        close_all(sockets)
        raise OutputError(f"cannot serve on {host}:{port} ({error.strerror or error}); choose another --port or --host.") from error
    thread = threading.Thread(target=server.run, name="viewer", daemon=True)
    thread.start()
    name = f"[{host}]" if ":" in host else host
    try:
        yield f"http://{name}:{server.effective_port}{base}" + (f"?token={token}" if token else "")
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


def build(feed: Feed, pages: Pages, base: str = "/") -> Dash:
    """Make the Dash application, without serving it; it keeps a record of the open pages in `pages`.

    The browser asks under the base path `base`; the application sees the requests without it.
    """
    style = importlib.resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    app = Dash(
        "braggshot",
        title="braggshot",
        update_title="",
        requests_pathname_prefix=base,
        routes_pathname_prefix="/",
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
    _show(app, shared)
    _plot(app, shared)
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
        answer = {"moment": vars(now), "pause": pause(snapshot), "work": layout.work(snapshot, time.monotonic())}
        return Response(json.dumps(answer), mimetype="application/json")

    app.server.add_url_rule("/moment", view_func=moment)
    app.clientside_callback(ASK, Input("page", "id"), State("moment", "data"))  # type: ignore[no-untyped-call]
    app.clientside_callback(_SEEN, Output("seen", "data"), Input("drawn", "data"), prevent_initial_call=True)  # type: ignore[no-untyped-call]


def _follow(app: Dash, shared: SharedFeed) -> None:
    """Update the header and choose the scan to show: the newest one, unless the user has chosen an earlier one."""
    header = (("name", "children"), ("state", "children"), ("state", "className"), ("frames", "children"))
    below = (("trouble", "children"), ("images", "children"))
    slider = (("scan", "max"), ("scan", "value"), ("scans", "hidden"), ("scan-name", "children"))

    @app.callback(
        Output("shown", "data"),
        *(Output(*part) for part in (*header, *below, *slider)),
        Output("said", "data"),
        Output("counted", "data"),
        Output("answered", "data"),
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
        state = layout.state(snapshot), f"state {snapshot.state}"
        images = layout.images(shared.images() if at == newest else [])
        header = (snapshot.scan or "braggshot", *state, layout.frames(snapshot), layout.trouble(snapshot), images)
        moved = no_update if at == given else at  # new slider position; none if unchanged, as the user may be dragging it
        changes, said = changed_parts([*header, newest, moved, newest < 1, layout.scan_name(places[at], at, newest + 1)], said)
        # Curves of another reconstruction wait until it is drawn; those of the same one are drawn as frames come.
        picture, curves = (no_update, moment.number) if now == known else (now, no_update)
        return picture, *changes, said, curves, moment.number


def changed_parts(parts: Sequence[Any], known: list[int] | None) -> tuple[list[Any], list[int]]:
    """Return the parts of a page, with `no_update` in place of unchanged parts, and the checksums of all parts."""
    marks = [zlib.crc32(repr(part).encode()) for part in parts]
    same = [mark == old for mark, old in zip(marks, known or [-1] * len(marks), strict=True)]
    return [no_update if is_same else part for part, is_same in zip(parts, same, strict=True)], marks


def _show(app: Dash, shared: SharedFeed) -> None:
    """Draw the picture of a scan in one answer; after a choice of the user draw only what depends on it.

    What has to be drawn follows from what the page says it has drawn, not from what the user touched last: Dash drops the answer to
    a request that a later one has overtaken.
    """
    outputs = (*parts.SURFACE, *parts.SLICES, *parts.DETAILS, *parts.CURVES, ("plotted", "data"), ("drawn", "data"))
    choices = ("colouring", "level", "cut", "kept", "look", "at-z", "at-y", "at-x")

    @app.callback(
        *(Output(*output) for output in outputs),
        Input("shown", "data"),
        *(Input(name, "value") for name in choices),
        State("quantity", "value"),
        State("camera", "data"),
        State("drawn", "data"),
    )
    def show(shown: dict[str, Any] | None, *given: Any) -> Any:
        if shown is None:
            raise PreventUpdate
        *values, quantity, turned, drawn = given
        chosen, at = parts.Choices(*values), int(shown["at"])
        now = {**shown, "surface": chosen.of_surface, "slices": chosen.of_slices}
        is_same = drawn is not None and all(drawn.get(name) == shown[name] for name in ("at", "key"))
        surface, slices = [no_update] * len(parts.SURFACE), [no_update] * len(parts.SLICES)
        if not (is_same and drawn["surface"] == now["surface"]):
            surface = parts.surface(shared, at, chosen, turned)
        if not (is_same and drawn["slices"] == now["slices"]):
            slices = parts.slices(shared, at, chosen)
        if is_same:
            return *surface, *slices, *[no_update] * (len(parts.DETAILS) + len(parts.CURVES) + 1), now
        curves, marks = changed_parts(parts.curves(shared, at, quantity), None)
        return *surface, *slices, *parts.details(shared, at), *curves, marks, now

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


def _plot(app: Dash, shared: SharedFeed) -> None:
    """Draw the curves that changed while the picture stays the same: frames came, or the user chose a quantity."""

    @app.callback(
        *(Output(*part, allow_duplicate=True) for part in (*parts.CURVES, ("plotted", "data"))),
        Input("counted", "data"),
        Input("quantity", "value"),
        State("drawn", "data"),
        State("plotted", "data"),
        prevent_initial_call=True,
    )
    def curves(_: Any, quantity: str, drawn: dict[str, Any] | None, plotted: list[int] | None) -> Any:
        if drawn is None:
            raise PreventUpdate
        changes, marks = changed_parts(parts.curves(shared, int(drawn["at"]), quantity), plotted)
        return *changes, marks


def _echo(app: Dash) -> None:
    """Show the value of each slider, and set the colours of the page."""
    for name in ("level", "kept", "at-z", "at-y", "at-x"):
        app.callback(Output(f"{name}-value", "children"), Input(name, "value"))(lambda value: f"{value}")
    app.callback(Output("page", "className"), Input("theme", "value"))(
        lambda theme: f"page {theme if theme in {'light', 'dark'} else 'auto'}"
    )
