"""Hold the data that the browser page of the viewer shows at one moment, from a live session or from result files on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from braggshot.volumes import FloatArray, Reconstruction

State = Literal["waiting", "measuring", "phasing", "done", "failed", "aborted", "unphased"]
"""States that the current scan can be in, from waiting for the scan to the end of its phasing.

The verdict of a "failed" scan is "failed". An "unphased" scan has no result, because the program could not phase it.
"""


@dataclass(frozen=True)
class PreviewRecord:
    """Data about one preview, a crystal phased while its scan is measured: when it came, how it was made, how good it is.

    Parameters
    ----------
    seconds : time since the scan's first frame [s]
    frames : number of frames that the preview is made of
    method : strategy of `braggshot.phasing.strategies`
    chi2, llk_free : misfit of all valid voxels, and of the held-out voxels, as in `braggshot.volumes.Quality` [1]
    verdict : ``good | doubtful | failed``
    """

    seconds: float
    frames: int
    method: str
    chi2: float
    llk_free: float
    verdict: str


@dataclass(frozen=True)
class Work:
    """What the program does now, or waits for, in words.

    Parameters
    ----------
    words : what it does
    began : when it began, on the monotonic clock [s]
    expected : time that it is likely to take [s]; None if that is not known
    """

    words: str
    began: float
    expected: float | None = None


@dataclass(frozen=True)
class Advice:
    """What would make a scan better, in words; `kind` says it for programs.

    The kinds are ``enough`` (the scan may end), ``rock`` (further to one side), ``counts`` (too few), ``recentre``, ``step`` (too
    coarse) and ``saturating``.
    """

    kind: Literal["enough", "rock", "counts", "recentre", "step", "saturating"]
    words: str


@dataclass(frozen=True, eq=False)
class Images:
    """The newest frame of a scan and the sum of its frames so far, binned; (rows, columns) [counts]."""

    last: FloatArray
    total: FloatArray


@dataclass(frozen=True)
class Snapshot:
    """Everything that the browser page shows at one moment; a snapshot never changes after it was made.

    Parameters
    ----------
    scan : name of the current scan, empty while none has come
    state : state of the current scan
    reason : why the current scan could not be phased, or was aborted
    work : what the program does for the page now; None if nothing is to come
    images : the frames of the current scan; None before the first frame
    advice : what would make the current scan better, the most urgent first
    received, expected : number of frames of the scan that have arrived, and that are planned; `expected` is None if not known
    rocking : (n,) sum of each frame, NaN where no frame has come [counts]
    result : latest preview or final result of the scan
    previews : records of every preview so far, oldest first
    series : one row for each finished scan, as in the file ``series.csv``
    against : column of `series` that the series was run against; None if it was run against time
    finished : result files of finished scans, oldest first; row k of `series` belongs to file k if both are given
    trouble : error messages, newest last
    dropped : number of times that incoming data were dropped, by reason
    """

    scan: str = ""
    state: State = "waiting"
    reason: str = ""
    work: Work | None = None
    images: Images | None = None
    advice: tuple[Advice, ...] = ()
    received: int = 0
    expected: int | None = None
    rocking: FloatArray = field(default_factory=lambda: np.zeros(0))
    result: Reconstruction | None = None
    previews: tuple[PreviewRecord, ...] = ()
    series: tuple[Mapping[str, Any], ...] = ()
    against: str | None = None
    finished: tuple[Path, ...] = ()
    trouble: tuple[str, ...] = ()
    dropped: Mapping[str, int] | None = None


class Feed(Protocol):
    """A source of snapshots for the browser page; safe to call from any thread, and never slow."""

    def latest(self) -> tuple[int, Snapshot]:
        """Return the latest snapshot, and before it its version number, which grows with every change."""
        ...
