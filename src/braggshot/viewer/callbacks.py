"""Answer the requests of the browser: what is new, which scan is shown, its picture, its curves."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Sequence
from typing import Any

from dash import Dash, Input, Output, State, ctx, no_update
from dash.exceptions import PreventUpdate
from flask import Response, request

from braggshot.viewer import comparison, contents, parts
from braggshot.viewer.choices import NAMES, of_page, picked_point, points
from braggshot.viewer.pages import ASK, Pages, pause
from braggshot.viewer.scripts import ADDRESS, CLICKED, FORGET_RANGE, LINK_CAMERAS, SEEN, STORED, VALUES
from braggshot.viewer.shared import SharedFeed, scan_entries

CURVE_CHOICES = ("quantity", "over", "counts-scale")
"""Controls that the curves depend on."""


def register(app: Dash, shared: SharedFeed, pages: Pages) -> None:
    """Answer all requests of the page but those of its further tools."""
    _ask(app, shared, pages)
    _follow(app, shared)
    _show(app, shared)
    _plot(app, shared)
    _turn(app)
    _pick(app, shared)
    _echo(app)
    _keep_view(app)


def _ask(app: Dash, shared: SharedFeed, pages: Pages) -> None:
    """Tell the browser which version of the contents is present, and when to ask again; note what the page shows in full."""

    def moment() -> Response:
        now, snapshot = shared.latest()
        page, number, at = request.args.get("page"), request.args.get("number", type=int), request.args.get("at", type=int)
        if page is not None:
            is_current = at is not None and request.args.get("key") == shared.key(at)
            pages.note(page, number if is_current else None)
        answer = {"moment": vars(now), "pause": pause(snapshot), "work": contents.work(snapshot, time.monotonic())}
        return Response(json.dumps(answer), mimetype="application/json")

    app.server.add_url_rule("/moment", view_func=moment)
    app.clientside_callback(ASK, Input("page", "id"), State("moment", "data"))  # type: ignore[no-untyped-call]
    app.clientside_callback(SEEN, Input("drawn", "data"), prevent_initial_call=True)  # type: ignore[no-untyped-call]


def _follow(app: Dash, shared: SharedFeed) -> None:
    """Update the header and choose the scan to show: the newest one, unless the user has chosen an earlier one."""
    header = (("name", "children"), ("state", "children"), ("state", "className"), ("frames", "children"))
    below = (("advice", "children"), ("trouble", "children"), ("images", "children"))
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
        state = contents.state(snapshot), f"state {snapshot.state}"
        images = contents.images(shared.images() if at == newest else [])
        below = (contents.advice(snapshot), contents.trouble(snapshot), images)
        header = (snapshot.scan or "braggshot", *state, contents.frames(snapshot), *below)
        moved = no_update if at == given else at  # new slider position; none if unchanged, as the user may be dragging it
        changes, said = changed_parts([*header, newest, moved, newest < 1, contents.scan_name(places[at], at, newest + 1)], said)
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

    The first picture of a page comes in two answers, slices and verdict first: without a graphics card a browser takes seconds for
    its first drawing in space, and shows nothing meanwhile. The page asks for the rest when it has shown the slices.
    """
    outputs = (
        *parts.SURFACE,
        *parts.SLICES,
        *comparison.OUTPUTS,
        *parts.DETAILS,
        *parts.CURVES,
        ("plotted", "data"),
        ("drawn", "data"),
    )

    @app.callback(
        *(Output(*output) for output in outputs),
        Input("shown", "data"),
        *(Input(name, "value") for name in NAMES),
        Input("picked", "data"),
        Input("seen", "data"),
        *(State(name, "value") for name in CURVE_CHOICES),
        State("camera", "data"),
        State("drawn", "data"),
    )
    def show(shown: dict[str, Any] | None, *given: Any) -> Any:
        if shown is None:
            raise PreventUpdate
        *values, picked, _, quantity, over, scaling, turned, drawn = given
        chosen, at = of_page(values, picked), int(shown["at"])
        now = {**shown, "surface": chosen.of_surface, "slices": chosen.of_slices}
        is_same = drawn is not None and all(drawn.get(name) == shown[name] for name in ("at", "key"))
        is_done = is_same and drawn["surface"] == now["surface"] and drawn["slices"] == now["slices"]
        if is_done and ctx.triggered_id == "seen":
            raise PreventUpdate
        surface, slices = [no_update] * len(parts.SURFACE), [no_update] * len(parts.SLICES)
        is_first = drawn is None and shared.solid(at) is not None
        if not is_first and not (is_same and drawn["surface"] == now["surface"]):
            surface = parts.surface(shared, at, chosen, turned)
        if not (is_same and drawn["slices"] == now["slices"]):
            slices = parts.slices(shared, at, chosen)
        compared = [no_update] * len(comparison.OUTPUTS)
        if not is_done:
            compared = comparison.compared(shared, at, chosen, turned)
        if is_same:
            return *surface, *slices, *compared, *[no_update] * (len(parts.DETAILS) + len(parts.CURVES) + 1), now
        curves, marks = changed_parts(parts.curves(shared, at, quantity, over, scaling), None)
        done = {**now, "key": None} if is_first else now
        return *surface, *slices, *compared, *parts.details(shared, at), *curves, marks, done


def _turn(app: Dash) -> None:
    """Remember the camera as the user has turned it, and turn the second crystal with the first."""

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

    linked = Input("crystal", "relayoutData"), Input("crystal-b", "relayoutData")
    app.clientside_callback(LINK_CAMERAS, *linked, prevent_initial_call=True)  # type: ignore[no-untyped-call]


def _plot(app: Dash, shared: SharedFeed) -> None:
    """Draw the curves that changed while the picture stays the same: frames came, or the user chose a quantity."""

    @app.callback(
        *(Output(*part, allow_duplicate=True) for part in (*parts.CURVES, ("plotted", "data"))),
        Input("counted", "data"),
        *(Input(name, "value") for name in CURVE_CHOICES),
        State("drawn", "data"),
        State("plotted", "data"),
        prevent_initial_call=True,
    )
    def curves(_: Any, *given: Any) -> Any:
        *chosen, drawn, plotted = given
        if drawn is None:
            raise PreventUpdate
        changes, marks = changed_parts(parts.curves(shared, int(drawn["at"]), *chosen), plotted)
        return *changes, marks


def _echo(app: Dash) -> None:
    """Show the value of each slider, and set the colours of the page."""
    for name in ("level", "kept", "at-z", "at-y", "at-x"):
        app.callback(Output(f"{name}-value", "children"), Input(name, "value"))(lambda value: f"{value}")
    app.callback(Output("page", "className"), Input("theme", "value"))(
        lambda theme: f"page {theme if theme in {'light', 'dark'} else 'auto'}"
    )


def _pick(app: Dash, shared: SharedFeed) -> None:
    """Mark the points that the user clicks: on a slice, or on the surface; a third one begins anew."""
    slices = ("slice-z", "slice-y", "slice-x")
    app.clientside_callback(CLICKED, Output("clicked", "data"), Input("crystal", "clickData"))  # type: ignore[no-untyped-call]

    @app.callback(
        Output("picked", "data"),
        *(Input(name, "clickData") for name in slices),
        Input("clicked", "data"),
        Input("unpick", "n_clicks"),
        State("shown", "data"),
        *(State(f"at-{axis}", "value") for axis in "zyx"),
        State("picked", "data"),
        prevent_initial_call=True,
    )
    def pick(*given: Any) -> Any:
        clicks, (shown, *places, picked) = dict(zip((*slices, "clicked"), given, strict=False)), given[len(slices) + 2 :]
        if ctx.triggered_id == "unpick":
            return []
        solid = shared.solid(int(shown["at"])) if shown else None
        name = str(ctx.triggered_id)
        point = ((clicks.get(name) or {}).get("points") or [None])[0]
        graph = "crystal" if name == "clicked" else name
        place = None if solid is None or point is None else picked_point(solid, graph, point, places)
        if place is None:
            raise PreventUpdate
        known = list(points(picked))
        return [list(one) for one in [*known[: len(known) % 2], place]]


def _keep_view(app: Dash) -> None:
    """Keep the view in the address, and forget the range of colours of another quantity."""
    values, stores = [Input(name, "value") for name in VALUES], [Input(name, "data") for name in STORED]
    app.clientside_callback(ADDRESS, *values, *stores, Input("scan", "value"), State("scan", "max"))  # type: ignore[no-untyped-call]
    app.clientside_callback(  # type: ignore[no-untyped-call]
        FORGET_RANGE,
        *(Output(name, "value") for name in ("low", "high")),
        *(Input(name, "value") for name in ("colouring", "unit")),
        prevent_initial_call=True,
    )
