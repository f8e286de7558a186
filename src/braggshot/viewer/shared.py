"""The feed as the pages see it: what changed, which scans there are, and each picture made ready once for all who look.

Every page asks for itself and keeps its own choices, so what is shared is here: the latest snapshot, and a few pictures.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from braggshot.errors import BraggshotError
from braggshot.io import results
from braggshot.report import strain_section, text
from braggshot.snapshot import Feed, Snapshot
from braggshot.viewer import measured, model
from braggshot.viewer.measured import Pattern, Rocking
from braggshot.viewer.model import Mesh, Plane, Solid, View
from braggshot.volumes import Reconstruction

T = TypeVar("T")
_NO_FRAMES = Rocking(np.zeros(0), True)
_KEPT = 16  # pictures ready to be drawn, a few MB each
_KEPT_ANSWERS = 48  # surfaces and slices of them


@dataclass(frozen=True)
class Moment:
    """What a page compares to know what to ask for anew.

    Parameters
    ----------
    number : of the snapshot
    picture : grows with every new picture of the current scan
    scans : places on the slider
    """

    number: int
    picture: int
    scans: int


@dataclass(frozen=True)
class Stop:
    """A place on the slider: a finished scan in its file, or the current one (no path)."""

    name: str
    row: Mapping[str, Any]
    path: Path | None


@dataclass(frozen=True, eq=False)
class Picture:
    """All that a page says of one reconstruction, made ready once, what is drawn last when it is asked for.

    `note` says why where there is none.
    """

    name: str
    note: str = ""
    verdict: str = ""
    reasons: tuple[str, ...] = ()
    method: str = ""
    facts: tuple[text.Fact, ...] = ()
    solid: Solid | None = None
    pattern: Callable[[], Pattern | None] = lambda: None
    rocking: Rocking = _NO_FRAMES
    error: tuple[NDArray[Any], NDArray[Any]] | None = None


class Later(Generic[T]):
    """What `make` gives, worked out once, when it is first asked for; what it is made of is let go then."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make: Callable[[], T] | None = make
        self._lock = threading.Lock()

    def __call__(self) -> T:
        """It."""
        with self._lock:
            if self._make is not None:
                self._made, self._make = self._make(), None
            return self._made


def stops(snapshot: Snapshot) -> tuple[Stop, ...]:
    """The finished scans, then the current one unless it is the last of them."""
    rows = {str(row.get("name")): row for row in snapshot.series}
    aligned = len(snapshot.series) == len(snapshot.finished)
    about = snapshot.series if aligned else [rows.get(path.stem, {}) for path in snapshot.finished]
    found = [Stop(path.stem, row, path) for path, row in zip(snapshot.finished, about, strict=True)]
    is_new = snapshot.state != "waiting" or snapshot.result is not None or not found
    if is_new and not (found and found[-1].name == snapshot.scan):
        found.append(Stop(snapshot.scan, rows.get(snapshot.scan, {}), None))
    return tuple(found)


def prepared(found: Reconstruction) -> Picture:
    """What a page says of a reconstruction."""
    strain = found.strain
    facts = text.quality_facts(found) + (() if strain is None else strain_section.facts(strain)) + text.crystal_facts(found)
    error = np.atleast_1d(np.asarray(found.history.get("error", ()), dtype=float))
    iteration = np.asarray(found.history.get("iteration", np.arange(error.size)))
    shown = model.solid(found)
    return Picture(
        name=found.volume.name,
        note="" if shown is not None else "There is no surface to show: the support is empty or the amplitude is zero.",
        verdict=found.verdict,
        reasons=found.reasons or (text.HEADLINES[found.verdict],),
        method=", ".join(part for part in (found.method, found.network) if part),
        facts=facts,
        solid=shown,
        pattern=Later(lambda: measured.pattern(found)),
        rocking=measured.rocking(Snapshot(), found, False),
        error=(iteration, error) if error.size > 1 else None,
    )


class Once:
    """The latest answers, each worked out once whoever asks, one at a time: ten pages cost no more than one."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._found: OrderedDict[Any, Any] = OrderedDict()

    def __call__(self, key: Any, make: Callable[[], T]) -> T:
        """What `make` gives, or gave for the same key."""
        with self._lock:
            if key not in self._found:
                self._found[key] = make()
            self._found.move_to_end(key)
            while len(self._found) > self._most:
                self._found.popitem(last=False)
            found: T = self._found[key]
            return found


class Watch:
    """The latest of a feed; safe from any thread."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._lock = threading.Lock()
        self._number, self._snapshot, self._picture = -1, Snapshot(), 0
        self._pictures, self._once = Once(_KEPT), Once(_KEPT_ANSWERS)

    def latest(self) -> tuple[Moment, Snapshot]:
        """The snapshot of now."""
        number, snapshot = self._feed.latest()
        with self._lock:
            if number > self._number:
                self._picture += snapshot.result is not self._snapshot.result
                self._number, self._snapshot = number, snapshot
            return Moment(self._number, self._picture, len(stops(self._snapshot))), self._snapshot

    def stop(self, at: int) -> Stop:
        """The scan at a place of the slider, or at the nearest that there is."""
        places = stops(self.latest()[1])
        return places[min(max(at, 0), len(places) - 1)]

    def key(self, at: int) -> str:
        """Changes when what is shown at a place of the slider does."""
        moment, snapshot = self.latest()
        place = self.stop(at)
        ranges = [(c.low, c.high) for c in model.series_colours(snapshot.series).values()]
        return f"{place.name} {_age(place.path) or moment.picture} {ranges} {self.is_growing(at)}"

    def is_growing(self, at: int) -> bool:
        """Whether the next picture of a scan is being made, so that this one is drawn quickly."""
        snapshot = self.latest()[1]
        return self.stop(at).name == snapshot.scan and snapshot.state in {"measuring", "phasing"}

    def picture(self, at: int) -> Picture:
        """What is at a place of the slider."""
        moment, snapshot = self.latest()
        place = self.stop(at)
        if place.path is None or (place.name == snapshot.scan and snapshot.result is not None):
            return self._pictures(("now", moment.picture), lambda: _prepared(snapshot.result, place.name))
        return self._pictures((place.path, _age(place.path)), lambda: _prepared(place.path, place.name))

    def solid(self, at: int) -> Solid | None:
        """The crystal at a place of the slider, in the colours of the series."""
        shown, rows = self.picture(at).solid, self.latest()[1].series
        if shown is None:
            return None
        ranges = tuple((name, c.low, c.high) for name, c in model.series_colours(rows).items())
        return self._once((shown, ranges), lambda: model.in_series(shown, rows))

    def mesh(self, shown: Solid, view: View) -> Mesh | None:
        """As `braggshot.viewer.model.mesh`."""
        return self._once(("mesh", shown, view), lambda: model.mesh(shown, view))

    def planes(self, shown: Solid, view: View) -> tuple[Plane, ...]:
        """As `braggshot.viewer.model.planes`."""
        return self._once(("planes", shown, view), lambda: model.planes(shown, view))


def _prepared(source: Reconstruction | Path | None, name: str) -> Picture:
    """A file that cannot be read, or a result that cannot be drawn, is a picture that says so: the page goes on."""
    if source is None:
        return Picture(name, note="The first picture comes when enough frames are there.")
    try:
        return prepared(results.read(source) if isinstance(source, Path) else source)
    except (BraggshotError, ArithmeticError, ValueError, OSError) as error:
        return Picture(name, note=f"It cannot be shown: {error}")


def _age(path: Path | None) -> int:
    """When a file was written; 0 where it is not there."""
    try:
        return 0 if path is None else path.stat().st_mtime_ns
    except OSError:
        return 0
