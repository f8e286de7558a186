"""Compute the parts of the page that show a crystal: values for named properties of the page, by the choices of its user.

Everything that shows one picture (surface, slices, curves, verdict, numbers, diffraction) is computed here for one answer. So a
page never shows a new surface beside old slices and an old verdict.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from braggshot.report import figures, interactive
from braggshot.report import solid as solids
from braggshot.report.solid import MAX_TRIANGLES, MAX_TRIANGLES_LIVE, TITLES, Solid, View
from braggshot.viewer import contents, drawings, measured
from braggshot.viewer.choices import Choices, Scale
from braggshot.viewer.choices import scale as choose_scale
from braggshot.viewer.shared import PageContents, SharedFeed

SURFACE = (
    ("crystal", "figure"),
    ("legend", "children"),
    ("caption", "children"),
    ("heights", "figure"),
    ("low", "placeholder"),
    ("high", "placeholder"),
    ("colouring", "options"),
    ("crystal-card", "className"),
)
"""Properties of the page that show the surface; the other names list those of slices, verdict and numbers, and curves."""
SLICES = (
    *((f"slice-{axis}", "figure") for axis in "zyx"),
    ("slices-note", "children"),
    ("slices-legend", "children"),
    ("profile", "figure"),
    ("profile-note", "children"),
    ("profile-card", "className"),
)
DETAILS = (
    ("verdict", "children"),
    ("verdict", "className"),
    ("facts", "children"),
    ("facets", "children"),
    ("diffraction", "children"),
    ("diffraction-note", "children"),
    ("counts", "children"),
)
CURVES = (
    ("rocking", "figure"),
    ("course", "figure"),
    ("course-title", "children"),
    ("series", "figure"),
    ("quantity", "options"),
    ("over", "options"),
)


def surface(shared: SharedFeed, at: int, choices: Choices, turned: dict[str, Any] | None) -> list[Any]:
    """Draw the surface of the crystal at a position of the slider; the values of `SURFACE`.

    `turned` holds the camera as the user turned it, None if the user did not.
    """
    page, (solid, _), own = shared.contents(at), shared.pair(at, choices.other), shared.solid(at)
    options = [
        {"label": title.removesuffix(" along q"), "value": name, "disabled": solid is not None and name not in solid.fields}
        for name, title in TITLES.items()
    ]
    if solid is None or own is None:
        return [drawings.empty(""), [], page.note, drawings.empty(""), "", "", options, "card crystal empty"]
    name = solid.colouring(choices.colouring)
    scale = choose_scale(solid, name, choices)
    caption = contents.about_size(own) + (f" {page.remark}" if page.remark else "")
    mesh = shared.mesh(solid, view_of(shared, at, choices))
    if mesh is None:
        caption = "Nothing is left at this level: lower it, or cut less away. " + caption
    figure = interactive.crystal(recoloured(solid, name, scale), mesh, name, camera(turned, choices.look))
    heights = drawings.heights(*shared.heights(solid), choices.view.level)
    ends = figures.ends(choose_scale(solid, name, replace(choices, low=None, high=None)).written)
    card = "card crystal" + (" strained" if solid.colours[name].unit == "" else "")
    return [figure, contents.legend(TITLES[name], scale.written), caption, heights, *ends, options, card]


def view_of(shared: SharedFeed, at: int, choices: Choices) -> View:
    """Return the view of the surface at a position of the slider; while a scan is measured it has few triangles."""
    return replace(choices.view, max_triangles=MAX_TRIANGLES_LIVE if shared.is_growing(at) else MAX_TRIANGLES)


def recoloured(solid: Solid, name: str, scale: Scale) -> Solid:
    """Return the crystal with the colours that the user chose for a quantity."""
    return replace(solid, colours={**solid.colours, name: scale.colours})


def slices(shared: SharedFeed, at: int, choices: Choices) -> list[Any]:
    """Draw the slices of the crystal at a position of the slider, and the line between marked points; the values of `SLICES`."""
    solid = shared.pair(at, choices.other)[0]
    if solid is None:
        return [*[drawings.empty("")] * 3, "", [], drawings.empty(""), "", "profile hidden"]
    name = solid.colouring(choices.colouring)
    scale = choose_scale(solid, name, choices)
    note = (
        f"{TITLES[name].capitalize()}, inside the iso-surface; dotted lines show where the other slices are. Click two points, "
        "here or on the crystal, for their distance and the values between them."
    )
    flat = slice_figures(shared, solid, choices, scale)
    return [*flat, note, contents.legend(TITLES[name], scale.written), *_profile(solid, choices, scale)]


def slice_figures(shared: SharedFeed, solid: Solid, choices: Choices, scale: Scale) -> list[interactive.Figure]:
    """Draw the three slices of a crystal."""
    across = shared.planes(solid, choices.view_of_slices)
    places = {plane.normal: plane.at for plane in across}
    return [drawings.slice_figure(p, (places[p.across], places[p.up]), scale, solid.unit, choices.picked) for p in across]


def _profile(solid: Solid, choices: Choices, scale: Scale) -> list[Any]:
    """Draw the quantity along the line between two marked points, and say how far apart they are."""
    if len(choices.picked) < 2:
        first = "Click a second point." if choices.picked else ""
        return [drawings.empty(""), first, "profile" if first else "profile hidden"]
    name = solid.colouring(choices.colouring)
    distance, values = solids.line(solid, choices.view_of_slices, choices.picked)
    figure = drawings.profile(distance, values, TITLES[name], scale, solid.unit)
    return [figure, contents.about_points(choices.picked, solid.unit), "profile"]


def details(shared: SharedFeed, at: int) -> list[Any]:
    """Lay out verdict, numbers and diffraction of the scan at a position of the slider; the values of `DETAILS`."""
    page = shared.contents(at)
    values = [contents.verdict(page), f"card verdict {page.verdict}", contents.facts(page), contents.facets(page.facets)]
    pattern = page.pattern()
    if pattern is None:
        return [*values, [], "Prepared counts come with the first picture.", []]
    note = "Central planes of the prepared volume; grey is masked or missing."
    return [*values, contents.diffraction(pattern), note, contents.legend("counts", pattern.colours)]


def curves(shared: SharedFeed, at: int, quantity: str, over: str | None, scaling: str | None) -> list[Any]:
    """Draw the rocking curve, the misfit over time, and a quantity along the series; the values of `CURVES`."""
    page = shared.contents(at)
    moment, snapshot = shared.latest()
    is_current = at >= moment.scans - 1
    counted = measured.rocking(snapshot, snapshot.result, True) if is_current and snapshot.rocking.size else page.rocking
    rocking = drawings.rocking(counted, scaling == "log")
    curve = measured.series_curve(snapshot.series, quantity, over or snapshot.against)
    series = drawings.empty("no numbers yet") if curve is None else drawings.series(curve, shared.entry(at).name)
    over_time = _progress_figure(page, measured.latest_previews(snapshot) if is_current else ())
    named = contents.quantities(measured.known_quantities(snapshot.series))
    return [rocking, *over_time, series, named, contents.abscissae(measured.abscissae(snapshot.series), snapshot.against)]


def _progress_figure(page: PageContents, records: Any) -> tuple[interactive.Figure, str]:
    """Draw the misfit of the previews over time, or, for a result file, the error over the iterations of the phasing."""
    if records:
        return drawings.previews(records), "Error and verdict over time"
    if page.error is not None:
        return drawings.convergence(*page.error), "Error while it was phased"
    return drawings.empty("no picture yet"), "Error and verdict over time"


def camera(turned: dict[str, Any] | None, look: str) -> interactive.Figure:
    """Return the camera as the user turned it, or the camera of the direction `look` if the user did not turn it."""
    if turned is None or turned.get("look") != look:
        return interactive.camera_from(look)
    kept = {part: {axis: float(turned["camera"][part][axis]) for axis in "xyz"} for part in ("eye", "up", "center")}
    return {**interactive.camera_from(look), **kept}
