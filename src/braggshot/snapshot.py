"""What there is to see at one moment of a scan, or in results on disk: live fills it in, the viewer shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from braggshot.volumes import FloatArray, Reconstruction

State = Literal["waiting", "measuring", "phasing", "done", "failed", "aborted"]


@dataclass(frozen=True)
class PreviewRecord:
    """One picture of a scan: when it came, how it was made, what it is worth.

    Parameters
    ----------
    seconds : since the scan's first frame [s]
    frames : of the scan that it is made of
    method : as in `braggshot.phasing.strategies`
    chi2, llk_free : as in `braggshot.volumes.Quality` [1]
    verdict : ``good | doubtful | failed``
    """

    seconds: float
    frames: int
    method: str
    chi2: float
    llk_free: float
    verdict: str


@dataclass(frozen=True)
class Snapshot:
    """Everything a page shows; nothing in it changes after it was made.

    Parameters
    ----------
    scan : name of the current scan, empty while none has come
    state : what is happening to it
    received, expected : frames of it; None where no plan says how many will come
    rocking : (n,) counts per frame, NaN where no frame has come [counts]
    result : the latest picture of it
    previews : every picture so far, oldest first
    series : one row per finished scan, as in ``series.csv``
    finished : result files of finished scans, oldest first; row k of `series` is of file k where both are there
    trouble : what went wrong, in words, newest last
    dropped : counts of what a source lost or sent that was no use, by reason
    """

    scan: str = ""
    state: State = "waiting"
    received: int = 0
    expected: int | None = None
    rocking: FloatArray = field(default_factory=lambda: np.zeros(0))
    result: Reconstruction | None = None
    previews: tuple[PreviewRecord, ...] = ()
    series: tuple[Mapping[str, Any], ...] = ()
    finished: tuple[Path, ...] = ()
    trouble: tuple[str, ...] = ()
    dropped: Mapping[str, int] | None = None


class Feed(Protocol):
    """Where a page gets its snapshots from; safe to call from any thread, and never slow."""

    def latest(self) -> tuple[int, Snapshot]:
        """A number that grows with every change, and the snapshot as of then."""
        ...
