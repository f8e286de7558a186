"""Share one feed of contents among all open pages; each reconstruction is prepared only once.

Every page sends its own requests and keeps the choices of its user. So only the latest snapshot and a few prepared
reconstructions are shared here.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from braggshot.errors import BraggshotError
from braggshot.io import results
from braggshot.report import solid as solids
from braggshot.report import strain_section, text
from braggshot.report.solid import Mesh, Plane, Solid, View
from braggshot.snapshot import Feed, Snapshot
from braggshot.viewer import drawings, measured, model
from braggshot.viewer.measured import Pattern, Rocking
from braggshot.volumes import Facet, Reconstruction

T = TypeVar("T")
_NO_FRAMES = Rocking(np.zeros(0), True)  # empty rocking curve, for a scan that has no frames
_MAX_CONTENTS = 16  # number of prepared reconstructions that are kept, a few MB each
_MAX_DRAWINGS = 48  # number of surfaces and slices that are kept


@dataclass(frozen=True)
class Version:
    """The version of the contents, by which a page knows what it has to request again.

    Parameters
    ----------
    number : number of changes of the snapshot so far
    picture : number that grows with every new preview of the current scan
    scans : number of positions on the scan slider
    """

    number: int
    picture: int
    scans: int


@dataclass(frozen=True)
class ScanEntry:
    """A position on the scan slider: a finished scan with the path of its file, or the current scan without a path."""

    name: str
    row: Mapping[str, Any]
    path: Path | None


@dataclass(frozen=True, eq=False)
class PageContents:
    """All that a page shows of one reconstruction, prepared once; the diffraction is prepared when a page first requests it.

    If there is nothing to show, `note` tells why. `remark` tells what is special about the picture.
    """

    name: str
    note: str = ""
    remark: str = ""
    verdict: str = ""
    reasons: tuple[str, ...] = ()
    method: str = ""
    facts: tuple[text.Fact, ...] = ()
    facets: tuple[Facet, ...] = ()
    solid: Solid | None = None
    pattern: Callable[[], Pattern | None] = lambda: None
    rocking: Rocking = _NO_FRAMES
    error: tuple[NDArray[Any], NDArray[Any]] | None = None


def cached(make: Callable[[], T]) -> Callable[[], T]:
    """Return a function that calls `make` once, on its first call, and gives the same value from then on.

    After the first call `make`, and with it the data that it holds, is released.
    """
    lock, unused, made = threading.Lock(), [make], []

    def value() -> T:
        with lock:
            if unused:
                made.append(unused[0]())
                unused.clear()
            return made[0]

    return value


def scan_entries(snapshot: Snapshot) -> tuple[ScanEntry, ...]:
    """List the finished scans; add the current scan unless it is the last finished one."""
    rows = {str(row.get("name")): row for row in snapshot.series}
    aligned = len(snapshot.series) == len(snapshot.finished)
    about = snapshot.series if aligned else [rows.get(path.stem, {}) for path in snapshot.finished]
    entries = [ScanEntry(path.stem, row, path) for path, row in zip(snapshot.finished, about, strict=True)]
    is_new = snapshot.state != "waiting" or snapshot.result is not None or not entries
    if is_new and not (entries and entries[-1].name == snapshot.scan):
        entries.append(ScanEntry(snapshot.scan, rows.get(snapshot.scan, {}), None))
    return tuple(entries)


def make_contents(result: Reconstruction) -> PageContents:
    """Prepare everything that the page shows of a reconstruction."""
    strain = result.strain
    facts = text.quality_facts(result) + (() if strain is None else strain_section.facts(strain)) + text.crystal_facts(result)
    error = np.atleast_1d(np.asarray(result.history.get("error", ()), dtype=float))
    iteration = np.asarray(result.history.get("iteration", np.arange(error.size)))
    solid = solids.solid(result)
    return PageContents(
        name=result.volume.name,
        note="" if solid is not None else "There is no surface to show: the support is empty or the amplitude is zero.",
        remark=f"{window[0].upper()}{window[1:]}." if (window := result.choices.get("window", "")) else "",
        verdict=result.verdict,
        reasons=text.remarks(result) or (text.HEADLINES[result.verdict],),
        method=", ".join(part for part in (result.method, result.network) if part),
        facts=facts,
        facets=() if strain is None else strain.facets,
        solid=solid,
        pattern=cached(lambda: measured.pattern(result)),
        rocking=measured.rocking(Snapshot(), result, False),
        error=(iteration, error) if error.size > 1 else None,
    )


class LRUCache:
    """A cache of the values used last, shared by all threads; values are made one at a time."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._values: OrderedDict[Any, Any] = OrderedDict()

    def __call__(self, key: Any, make: Callable[[], T]) -> T:
        """Return the value of a key from the cache; if it is not there, `make` makes it."""
        with self._lock:
            if key not in self._values:
                self._values[key] = make()
            self._values.move_to_end(key)
            while len(self._values) > self._capacity:
                self._values.popitem(last=False)
            value: T = self._values[key]
            return value


class SharedFeed:
    """The latest contents of a feed, for all pages; any thread may use them."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._lock = threading.Lock()
        self._number, self._snapshot, self._preview_number = -1, Snapshot(), 0
        self._contents, self._drawings = LRUCache(_MAX_CONTENTS), LRUCache(_MAX_DRAWINGS)

    def latest(self) -> tuple[Version, Snapshot]:
        """Return the version of the latest contents, and their snapshot."""
        number, snapshot = self._feed.latest()
        with self._lock:
            if number > self._number:
                self._preview_number += snapshot.result is not self._snapshot.result
                self._number, self._snapshot = number, snapshot
            return Version(self._number, self._preview_number, len(scan_entries(self._snapshot))), self._snapshot

    def entry(self, position: int) -> ScanEntry:
        """Return the scan at a position of the slider, or at the nearest one that exists."""
        entries = scan_entries(self.latest()[1])
        return entries[min(max(position, 0), len(entries) - 1)]

    def key(self, position: int) -> str:
        """Return a text that changes when the contents at a position of the slider change."""
        version, snapshot = self.latest()
        entry = self.entry(position)
        ranges = [(c.low, c.high) for c in model.series_colours(snapshot.series).values()]
        return f"{entry.name} {_modified_ns(entry.path) or version.picture} {ranges} {self.is_growing(position)}"

    def is_growing(self, position: int) -> bool:
        """Tell whether the scan at a position is still measured or phased; if so, it is drawn with fewer triangles."""
        snapshot = self.latest()[1]
        return self.entry(position).name == snapshot.scan and snapshot.state in {"measuring", "phasing"}

    def contents(self, position: int) -> PageContents:
        """Return what the page shows of the scan at a position of the slider."""
        version, snapshot = self.latest()
        entry = self.entry(position)
        if entry.path is None or (entry.name == snapshot.scan and snapshot.result is not None):
            return self._contents(("now", version.picture), lambda: _load_contents(snapshot.result, entry.name))
        return self._contents((entry.path, _modified_ns(entry.path)), lambda: _load_contents(entry.path, entry.name))

    def reconstruction(self, position: int) -> Reconstruction | None:
        """Return the reconstruction at a position of the slider, read anew from its file; None if there is none.

        Raises
        ------
        FormatError : if its file cannot be read.
        """
        snapshot, entry = self.latest()[1], self.entry(position)
        if entry.path is None or (entry.name == snapshot.scan and snapshot.result is not None):
            return snapshot.result
        return results.read(entry.path)

    def solid(self, position: int) -> Solid | None:
        """Return the crystal at a position of the slider, in the colours of the series."""
        solid, rows = self.contents(position).solid, self.latest()[1].series
        if solid is None:
            return None
        ranges = tuple((name, c.low, c.high) for name, c in model.series_colours(rows).items())
        return self._drawings((solid, ranges), lambda: model.use_series_colours(solid, rows))

    def pair(self, position: int, other: Any) -> tuple[Solid | None, Solid | None]:
        """Return the crystal at a position of the slider, and the one to compare it with, in one box; None if there is none.

        `other` is a position as text, as the page sends it.
        """
        one, number = self.solid(position), int(other) if str(other).isdecimal() else -1
        two = self.solid(number) if 0 <= number < len(scan_entries(self.latest()[1])) else None
        if one is None or two is None:
            return one, None
        return self._drawings(("pair", one, two), lambda: model.in_one_box(one, two))

    def images(self) -> list[tuple[str, str]]:
        """Return title and picture (URL) of the newest frame and of the sum of frames, while the current scan is not done."""
        snapshot = self.latest()[1]
        if snapshot.images is None or snapshot.state == "done":
            return []
        shown = snapshot.images
        pairs = (("last frame", shown.last), (f"sum of {snapshot.received} frames", shown.total))
        return self._drawings(("images", shown), lambda: [(title, drawings.frame(image)) for title, image in pairs])

    def mesh(self, solid: Solid, view: View) -> Mesh | None:
        """Return the surface of a crystal in the view of a user, from the cache if it was made before."""
        return self._drawings(("mesh", solid, view), lambda: solids.mesh(solid, view))

    def heights(self, solid: Solid) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the histogram of the amplitude of a crystal, from the cache if it was made before."""
        return self._drawings(("heights", solid), lambda: model.height_histogram(solid))

    def planes(self, solid: Solid, view: View) -> tuple[Plane, ...]:
        """Return the slices of a crystal in the view of a user, from the cache if they were made before."""
        return self._drawings(("planes", solid, view), lambda: solids.planes(solid, view))


def _load_contents(source: Reconstruction | Path | None, name: str) -> PageContents:
    """Prepare a reconstruction; if it cannot be read or drawn, the contents are a note that tells why."""
    if source is None:
        return PageContents(name, note="There is no picture yet.")
    try:
        return make_contents(results.read(source) if isinstance(source, Path) else source)
    except (BraggshotError, ArithmeticError, ValueError, OSError) as error:
        return PageContents(name, note=f"It cannot be shown: {error}")


def _modified_ns(path: Path | None) -> int:
    """Return the modification time of a file [ns]; 0 if there is no file."""
    try:
        return 0 if path is None else path.stat().st_mtime_ns
    except OSError:
        return 0
