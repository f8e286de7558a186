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
import logging
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from braggshot.errors import ConfigError, OutputError
from braggshot.snapshot import Feed
from braggshot.viewer import access
from braggshot.viewer.bench import Bench
from braggshot.viewer.pages import Pages
from braggshot.viewer.shared import SharedFeed

try:
    from dash import Dash
    from flask import Response, request
    from werkzeug.exceptions import HTTPException

    from braggshot.viewer import callbacks, comparison, contents, downloads, layout, measured, server, workbench
except ModuleNotFoundError as error:
    raise ConfigError(f"the page needs {error.name}: pip install 'braggshot[view]'.") from error

_LOG = logging.getLogger(__name__)
# Beginnings of paths -> status where Dash fails on a request; faults of the page's own callbacks do not get so far.
_OF_OTHERS = {"/_dash-component-suites/": 404, "/_dash-update-component": 400}
# HTML frame of the page; STYLE is replaced by the style sheet.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>{%metas%}<title>{%title%}</title>{%favicon%}{%css%}<style>STYLE</style></head>
<body>{%app_entry%}<footer>{%config%}{%scripts%}{%renderer%}</footer></body>
</html>"""


def serve(
    feed: Feed,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    base: str = "/",
    on_ready: Callable[[str], None],
    stop: threading.Event | None = None,
    bench: Bench | None = None,
) -> None:
    """Serve the page until `stop` is set or Ctrl-C is pressed; first call `on_ready` with the URL of the page."""
    with serving(feed, host=host, port=port, token=token, base=base, bench=bench) as url, suppress(KeyboardInterrupt):
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
    bench: Bench | None = None,
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
    bench : scans to phase from the page; only a page with a token offers that

    Raises
    ------
    ConfigError : if other machines can reach the address and there is no token.
    OutputError : if the address is in use, or does not belong to this machine.
    """
    if token is None and not access.is_loopback(host):
        raise ConfigError(f"others reach {host}, so the page needs a token; leave --no-token or --host out.")
    page = access.protect(build(feed, pages or Pages(), base, bench if token else None).server.wsgi_app, token, base, ancestors)
    with ExitStack() as opened:
        try:
            port = opened.enter_context(server.serving(page, host, port))
        except OSError as error:
            raise OutputError(
                f"cannot serve on {host}:{port} ({error.strerror or error}); choose another --port or --host."
            ) from error
        yield f"http://{_name_to_open(host)}:{port}{base}" + (f"?token={token}" if token else "")


def _name_to_open(host: str) -> str:
    """Return the name under which a browser reaches an address; where that is all addresses of this machine, one of them."""
    name = _own_address() if host in {"0.0.0.0", "::"} else host
    return f"[{name}]" if ":" in name else name


def _own_address() -> str:
    """Return the address of this machine at which others reach it; a loopback one if there is no network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking, suppress(OSError):
        asking.connect(("192.0.2.1", 9))  # an address of no machine; nothing is sent, but the route to it has a beginning
        return str(asking.getsockname()[0])
    return "127.0.0.1"


def build(feed: Feed, pages: Pages, base: str = "/", bench: Bench | None = None) -> Dash:
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
    app.server.register_error_handler(Exception, _refuse)
    shared = SharedFeed(feed)
    app.layout = lambda: _lay_out(shared, [] if bench is None else [workbench.section(bench)])
    callbacks.register(app, shared, pages)
    downloads.register(app.server, shared)
    if bench is not None:
        workbench.register(app, bench)
    return app


def _lay_out(shared: SharedFeed, tools: Sequence[Any]) -> Any:
    """Lay out the page, with the lists to choose from as they are now."""
    version, snapshot = shared.latest()
    over = contents.abscissae(measured.abscissae(snapshot.series), snapshot.against)
    return layout.page(version, {"other": comparison.others(comparison.scan_names(shared)), "over": over}, tools)


def _log_unanswered(error: Exception) -> None:
    """Log a request that cannot be answered, and leave the page as it is; such requests come from other programs."""
    _LOG.warning("the page asked what could not be answered: %s", server.one_line(error))


def _refuse(error: Exception) -> HTTPException | Response:
    """Answer a request that no page sends, such as a question to a callback that does not exist; log it in one line."""
    if isinstance(error, HTTPException):
        return error
    _log_unanswered(error)
    status = next((status for start, status in _OF_OTHERS.items() if request.path.startswith(start)), 500)
    return Response("This request cannot be answered.", status, mimetype="text/plain")
