"""Read the choices of a user, as the browser or an address sends them; choose colours, unit and view by them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from braggshot.report.figures import Colours
from braggshot.report.planes import UNITS
from braggshot.report.solid import SLICES, Solid, View

DEFAULTS: Mapping[str, Any] = {
    **{"colouring": "strain", "map": "auto", "unit": "1", "low": None, "high": None},
    **{"level": 50, "cut": "", "kept": 50, "look": "oblique", "at-z": 50, "at-y": 50, "at-x": 50, "other": ""},
}
"""Name of a control, which is also its name in the address of a view -> its value at first."""
NAMES = tuple(DEFAULTS)
MAPS = ("auto", "coolwarm", "RdBu_r", "twilight_shifted", "viridis", "cividis", "inferno", "turbo", "gray")
"""Colour maps that a user may choose; "auto" is the usual one of the quantity."""
_LARGEST = 1e12  # coordinates beyond this are not those of a crystal [nm]


@dataclass(frozen=True)
class Choices:
    """The choices of a user, one for each of `NAMES`; each is limited to its range where it is used.

    `other` is the position on the scan slider of the result to compare with, as text, and empty for none.
    `picked` holds up to two points that the user has marked in the crystal, (z, y, x) [unit of the solid].
    """

    colouring: str
    colours: str
    unit: str
    low: Any
    high: Any
    level: Any
    cut: Any
    kept: Any
    look: str
    z: Any
    y: Any
    x: Any
    other: Any
    picked: tuple[tuple[float, float, float], ...] = ()

    @property
    def of_surface(self) -> list[Any]:
        """Choices that the surface depends on."""
        return [*self._of_colours, self.level, self.cut, self.kept, self.look, self.other]

    @property
    def of_slices(self) -> list[Any]:
        """Choices that the slices depend on."""
        return [*self._of_colours, self.level, self.z, self.y, self.x, self.other, [list(point) for point in self.picked]]

    @property
    def _of_colours(self) -> list[Any]:
        return [self.colouring, self.colours, self.unit, self.low, self.high]

    @property
    def view(self) -> View:
        """The surface that the user wants, cut open or whole, and the places of the slices."""
        cut = self.cut if self.cut in {"x", "y", "z"} else None
        level = max(_share(self.level), 0.05)
        return View(self.colouring, level, cut, _share(self.kept), (_share(self.z), _share(self.y), _share(self.x)))

    @property
    def view_of_slices(self) -> View:
        """The same for slices, which a cut leaves whole."""
        return replace(self.view, cut=None, kept=0.5)


@dataclass(frozen=True)
class Scale:
    """Colours of a quantity with values in the solid's unit, and the unit in which they are written: value × `factor`."""

    colours: Colours
    factor: float
    unit: str

    @property
    def written(self) -> Colours:
        """The same colours with their ends in the written unit."""
        low, high = self.colours.low * self.factor, self.colours.high * self.factor
        return replace(self.colours, low=low, high=high, unit="" if self.unit == "1" else self.unit)


def from_address(given: Mapping[str, str]) -> Choices:
    """Read the choices from the address of a view; what it does not say is as at first."""
    return of_page([given.get(name, value) for name, value in DEFAULTS.items()], given.get("picked"))


def of_page(values: Sequence[Any], picked: Any) -> Choices:
    """Read the choices from the values of the controls `NAMES`, and from the marked points."""
    return replace(Choices(*values), picked=points(picked))


def points(given: Any) -> tuple[tuple[float, float, float], ...]:
    """Read up to two marked points, as a list or as JSON text; what is no point is left out."""
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            given = []
    listed = given if isinstance(given, list) else []
    found = [point for point in listed if isinstance(point, Sequence) and len(point) == 3 and all(_is_number(v) for v in point)]
    return tuple((float(z), float(y), float(x)) for z, y, x in found[:2])


def picked_point(shown: Solid, graph: str, point: Mapping[str, Any], places: Sequence[Any]) -> tuple[float, ...] | None:
    """Return the place (z, y, x) that a user has clicked; None if the click names none.

    Parameters
    ----------
    graph : "crystal", whose axes x, y, z of plotly are z, x, y; or "slice-z" and so on
    point : what plotly says about the click
    places : positions of the slices across z, y and x, in percent of the crystal's extent
    """
    named = [point.get(axis) for axis in ("x", "y", "z")]
    if graph == "crystal":
        found: dict[str, Any] = dict(zip("zxy", named, strict=True))
    else:
        normal, across, up = next(axes for axes in SLICES if graph == f"slice-{axes[0]}")
        n = "zyx".index(normal)
        at = float(shown.low[n] + _share(places[n]) * (shown.high[n] - shown.low[n]))
        found = {normal: at, across: named[0], up: named[1]}
    if not all(_is_number(value) for value in found.values()):
        return None
    return tuple(float(found[axis]) for axis in "zyx")


def scale(shown: Solid, name: str, choices: Choices) -> Scale:
    """Return the colours of a quantity in the range, map and unit of the user; the usual ones where the user left them.

    The ends that a user gives are in the written unit. They are left out if they are in the wrong order.
    """
    usual = shown.colours[name]
    units = UNITS.get(usual.unit, {usual.unit: 1.0})
    unit = choices.unit if choices.unit in units else next(iter(units))
    low, high = (_number(end) for end in (choices.low, choices.high))
    low = usual.low if low is None else low / units[unit]
    high = usual.high if high is None else high / units[unit]
    if not low < high:
        low, high = usual.low, usual.high
    wished = choices.colours if choices.colours in MAPS[1:] else usual.name
    return Scale(replace(usual, name=wished, low=low, high=high), units[unit], unit)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and abs(value) < _LARGEST


def _number(value: Any) -> float | None:
    """Return a number that a user has typed, such as 2e-4 or −0.5; None if it is none."""
    try:
        number = float(str(value).replace("\N{MINUS SIGN}", "-").replace(",", "."))
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def _share(percent: Any) -> float:
    """Turn percent into a share from 0 to 1."""
    return min(max(float(percent or 0) / 100, 0.0), 1.0)
