"""Compute the parts of the page that show a second result beside the first: with the same view, colours and places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dash import no_update

from braggshot.report import interactive
from braggshot.viewer import contents, model, parts
from braggshot.viewer.choices import Choices
from braggshot.viewer.choices import scale as choose_scale
from braggshot.viewer.shared import SharedFeed, scan_entries

OUTPUTS = (
    ("crystal-b", "figure"),
    ("space", "className"),
    ("crystal-name", "children"),
    ("crystal-b-name", "children"),
    *((f"slice-b-{axis}", "figure") for axis in "zyx"),
    ("slices-b", "hidden"),
    ("slices-b-name", "children"),
    ("compared", "children"),
    ("other", "options"),
    ("compare", "hidden"),
)
"""Properties of the page that show the second result."""


def scan_names(shared: SharedFeed) -> list[str]:
    """List the names of the scans, each different from the others where their folders are."""
    entries = scan_entries(shared.latest()[1])
    folders = ["" if entry.path is None else entry.path.parent.name for entry in entries]
    return model.labels([entry.name for entry in entries], folders)


def others(names: Sequence[str]) -> list[dict[str, str]]:
    """Return the options of the control that chooses the scan to compare with."""
    return [{"label": "nothing", "value": ""}, *({"label": name or "now", "value": str(n)} for n, name in enumerate(names))]


def compared(shared: SharedFeed, at: int, choices: Choices, turned: dict[str, Any] | None) -> list[Any]:
    """Draw the result that the user compares with; the values of `OUTPUTS`."""
    names = scan_names(shared)
    listed = others(names)
    solid, other = shared.pair(at, choices.other)
    if solid is None or other is None:  # the figures are hidden, and stay as they are
        return [no_update, "space", "", "", *[no_update] * 3, True, "", [], listed, len(names) < 2]
    name = solid.colouring(choices.colouring)
    own = other.colouring(name)  # another quantity where the second result does not have this one
    scale = choose_scale(solid if own == name else other, own, choices)
    mesh = shared.mesh(other, parts.view_of(shared, at, choices))
    figure = interactive.crystal(parts.recoloured(other, own, scale), mesh, own, parts.camera(turned, choices.look))
    number = int(choices.other)
    called = names[number] + ("" if own == name else f", coloured by {own}")
    flat = parts.slice_figures(shared, other, choices, scale)
    table = contents.comparison((names[at], names[number]), (shared.contents(at), shared.contents(number)))
    return [figure, "space pair", names[at], called, *flat, False, called, table, listed, False]
