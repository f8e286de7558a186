"""Watch a scan while it is measured, from a notebook: start, look, stop.

>>> import braggshot.notebook                                                     # doctest: +SKIP
>>> live = braggshot.notebook.watch("replay:scan.cxi?rate=20", "out/")            # doctest: +SKIP
>>> live                                                                          # doctest: +SKIP
>>> live.status, live.stop()                                                      # doctest: +SKIP

The page is served by the kernel. The browser reaches it where both run on one machine, or through a tunnel of the same port.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from braggshot.live.config import resolve
from braggshot.live.session import Session
from braggshot.live.sources.registry import open_source
from braggshot.snapshot import Snapshot
from braggshot.viewer import access
from braggshot.viewer.app import serving
from braggshot.volumes import Scan

_HEIGHT = 900  # height of the page in a notebook [pixels]
_PATIENCE = 60.0  # longest time that a session takes to end after it was asked to [s]


def watch(
    source: str, folder: str | Path, settings: Mapping[str, Any] | None = None, *, like: Scan | None = None, port: int = 0
) -> Live:
    """Start a live session beside the notebook; each finished scan becomes a result file.

    Parameters
    ----------
    source : URL such as "folder:PATH", "pva:CHANNEL", "zmq:tcp://HOST:PORT" or "replay:FILE?rate=HZ"
    folder : folder of the results, and of events.jsonl
    settings : nested settings, such as ``{"phasing": {"method": "refine"}, "live": {"series": True}}``
    like : scan whose dark image, flat field, mask and geometry are used where the source sends none, from `braggshot.load`
    port : port of the page; 0 takes a free one

    Raises
    ------
    BraggshotError : for a source, folder or setting that cannot be used.
    """
    resolved = resolve(settings or {})
    frames = open_source(source)
    session, cleanup = Session(folder, resolved, like=like), ExitStack()
    try:
        url = cleanup.enter_context(serving(session.status, port=port, ancestors=access.NOTEBOOKS))
    except BaseException:
        session.journal.close()  # so that the next attempt may write into the folder
        raise
    thread = threading.Thread(target=session.run, args=(frames,), name="live", daemon=True)
    thread.start()
    return Live(url, session, thread, cleanup.close)


@dataclass(frozen=True)
class LiveStatus:
    """What a live session is doing: the scan, its state, its frames, the verdict of the latest picture, and what went wrong."""

    scan: str
    state: str
    received: int
    expected: int | None
    verdict: str | None
    trouble: tuple[str, ...]

    def __repr__(self) -> str:
        of = "" if self.expected is None else f" of {self.expected}"
        parts = (f"{self.scan or 'no scan yet'}: {self.state}, {self.received}{of} frames", self.verdict, *self.trouble)
        return "; ".join(part for part in parts if part)


class Live:
    """A live session that runs beside a notebook, with its page; it shows the page where a notebook shows it.

    Parameters
    ----------
    url : address of the page
    session : the session
    thread : thread in which it runs
    close : stops serving the page
    """

    def __init__(self, url: str, session: Session, thread: threading.Thread, close: Callable[[], None]) -> None:
        self.url, self.folder = url, session.folder
        self._session, self._thread, self._close = session, thread, close

    @property
    def status(self) -> LiveStatus:
        """What the session is doing now."""
        now = self._snapshot()
        verdict = None if now.result is None else now.result.verdict
        return LiveStatus(now.scan, now.state, now.received, now.expected, verdict, now.trouble)

    @property
    def results(self) -> tuple[Path, ...]:
        """Result files of the finished scans, oldest first."""
        return self._snapshot().finished

    def _snapshot(self) -> Snapshot:
        """Return what the page shows now."""
        return self._session.status.latest()[1]

    @property
    def is_running(self) -> bool:
        """Tell whether frames may still come, or scans are still phased."""
        return self._thread.is_alive()

    def wait(self, seconds: float | None = None) -> LiveStatus:
        """Wait until the source ends and its scans are phased, at most `seconds` [s]; an interrupt ends the wait only."""
        self._thread.join(seconds)
        return self.status

    def stop(self) -> LiveStatus:
        """End the session and its page; a scan that is not finished keeps its frames in the folder, and is resumed there."""
        self._session.stop.set()
        self._thread.join(_PATIENCE)
        self._close()
        return self.status

    def __repr__(self) -> str:
        return f"{self.status!r}; page {self.url}" if self.is_running else f"{self.status!r}; ended"

    def _repr_html_(self) -> str:
        """Show the page below the cell."""
        frame = f'<iframe src="{self.url}" title="live" style="width:100%;height:{_HEIGHT}px;border:0"></iframe>'
        return f'{frame}<p>The page by itself: <a href="{self.url}" target="_blank">{self.url}</a></p>'
