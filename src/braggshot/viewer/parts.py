"""Compute the parts of the page that show a crystal: values for named properties of the page, by the choices of its user.

Everything that shows one picture (surface, slices, curves, verdict, numbers, diffraction) is computed here for one answer. So a
page never shows a new surface beside old slices and an old verdict.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from braggshot.report import interactive
from braggshot.report.solid import MAX_TRIANGLES, MAX_TRIANGLES_LIVE, TITLES, View
from braggshot.viewer import drawings, layout, measured
from braggshot.viewer.shared import PageContents, SharedFeed

SURFACE = (
    ("crystal", "figure"),
    ("legend", "children"),
    ("caption", "children"),
    ("colouring", "options"),
    ("crystal-card", "className"),
)
"""Properties of the page that show the surface; the other names list those of slices, verdict and numbers, and curves."""
SLICES = (("slice-z", "figure"), ("slice-y", "figure"), ("slice-x", "figure"), ("slices-note", "children"))
DETAILS = (
    ("verdict", "children"),
    ("verdict", "className"),
    ("facts", "children"),
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
)


@dataclass(frozen=True)
class Choices:
    """The choices of a user, as the browser sends them; each is limited to its range where it is used."""

    colouring: str
    level: Any
    cut: Any
    kept: Any
    look: str
    z: Any
    y: Any
    x: Any

    @property
    def of_surface(self) -> list[Any]:
        """Choices that the surface depends on."""
        return [self.colouring, self.level, self.cut, self.kept, self.look]

    @property
    def of_slices(self) -> list[Any]:
        """Choices that the slices depend on."""
        return [self.colouring, self.level, self.z, self.y, self.x]


def surface(shared: SharedFeed, at: int, choices: Choices, turned: dict[str, Any] | None) -> list[Any]:
    """Draw the surface of the crystal at a position of the slider; the values of `SURFACE`.

    `turned` holds the camera as the user turned it, None if the user did not.
    """
    contents, solid = shared.contents(at), shared.solid(at)
    options = [
        {"label": title.removesuffix(" along q"), "value": name, "disabled": solid is not None and name not in solid.fields}
        for name, title in TITLES.items()
    ]
    if solid is None:
        return [drawings.empty(""), [], contents.note, options, "card crystal empty"]
    max_triangles = MAX_TRIANGLES_LIVE if shared.is_growing(at) else MAX_TRIANGLES
    view = replace(_view(choices.colouring, choices.level, choices.cut, choices.kept), max_triangles=max_triangles)
    name, mesh = solid.colouring(view.colouring), shared.mesh(solid, view)
    size = " × ".join(f"{value:.3g}" for value in solid.high - solid.low)
    caption = f"{solid.frame.capitalize()}; the crystal spans {size} {solid.unit} in z × y × x."
    if contents.remark:
        caption += f" {contents.remark}"
    if mesh is None:
        caption = "Nothing is left at this level: lower it, or cut less away. " + caption
    figure = interactive.crystal(solid, mesh, name, _camera(turned, choices.look))
    return [figure, layout.legend(TITLES[name], solid.colours[name]), caption, options, "card crystal"]


def slices(shared: SharedFeed, at: int, choices: Choices) -> list[Any]:
    """Draw the slices of the crystal at a position of the slider; the values of `SLICES`."""
    solid = shared.solid(at)
    if solid is None:
        return [*[drawings.empty("")] * 3, ""]
    view = _view(choices.colouring, choices.level, None, 50, (choices.z, choices.y, choices.x))
    name = solid.colouring(view.colouring)
    across = shared.planes(solid, view)
    places = {plane.normal: plane.at for plane in across}
    figures = [drawings.slice_figure(p, (places[p.across], places[p.up]), solid.colours[name], solid.unit) for p in across]
    return [*figures, f"{TITLES[name].capitalize()}, inside the iso-surface; dotted lines show where the other slices are."]


def details(shared: SharedFeed, at: int) -> list[Any]:
    """Lay out verdict, numbers and diffraction of the scan at a position of the slider; the values of `DETAILS`."""
    contents = shared.contents(at)
    values = [layout.verdict(contents), f"card verdict {contents.verdict}", layout.facts(contents)]
    pattern = contents.pattern()
    if pattern is None:
        return [*values, [], "Prepared counts come with the first picture.", []]
    note = "Central planes of the prepared volume; grey is masked or missing."
    return [*values, layout.diffraction(pattern), note, layout.legend("counts", pattern.colours)]


def curves(shared: SharedFeed, at: int, quantity: str) -> list[Any]:
    """Draw the rocking curve, the misfit over time, and a quantity along the series; the values of `CURVES`."""
    contents = shared.contents(at)
    moment, snapshot = shared.latest()
    is_current = at >= moment.scans - 1
    rocking = measured.rocking(snapshot, None, True) if is_current and snapshot.rocking.size else contents.rocking
    curve = measured.series_curve(snapshot.series, quantity)
    series = drawings.empty("no numbers yet") if curve is None else drawings.series(curve, shared.entry(at).name)
    options = layout.quantities(measured.known_quantities(snapshot.series))
    over_time = _progress_figure(contents, measured.latest_previews(snapshot) if is_current else ())
    return [drawings.rocking(rocking), *over_time, series, options]


def _progress_figure(contents: PageContents, records: Any) -> tuple[interactive.Figure, str]:
    """Draw the misfit of the previews over time, or, for a result file, the error over the iterations of the phasing."""
    if records:
        return drawings.previews(records), "Error and verdict over time"
    if contents.error is not None:
        return drawings.convergence(*contents.error), "Error while it was phased"
    return drawings.empty("no picture yet"), "Error and verdict over time"


def _camera(turned: dict[str, Any] | None, look: str) -> interactive.Figure:
    """Return the camera as the user turned it, or the camera of the direction `look` if the user did not turn it."""
    if turned is None or turned.get("look") != look:
        return interactive.camera_from(look)
    kept = {part: {axis: float(turned["camera"][part][axis]) for axis in "xyz"} for part in ("eye", "up", "center")}
    return {**interactive.camera_from(look), **kept}


def _view(colouring: str, level: Any, cut: Any, kept: Any, places: tuple[Any, Any, Any] = (50, 50, 50)) -> View:
    """Turn the user's choices, as the browser sent them, into a `View`; each is limited to its range."""

    def share(value: Any) -> float:
        return min(max(float(value or 0) / 100, 0.0), 1.0)

    z, y, x = (share(place) for place in places)
    return View(colouring, max(share(level), 0.05), cut if cut in {"x", "y", "z"} else None, share(kept), (z, y, x))
