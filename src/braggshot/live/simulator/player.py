"""Play a measured or simulated scan over the transports that real detectors use.

`braggshot.live.simulator.faults` plans the actions of the simulated detector. A sink, the sending side of a transport, carries
them out.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from braggshot.errors import ConfigError
from braggshot.live.simulator.faults import Faults, fault_plan
from braggshot.live.sources.limits import scan_name
from braggshot.live.sources.registry import explain_missing, split
from braggshot.live.sources.replay import Pace
from braggshot.output import files_of
from braggshot.volumes import FloatArray, Scan

SINKS = {
    "folder": "braggshot.live.simulator.folder",
    "pva": "braggshot.live.simulator.pva",
    "zmq": "braggshot.live.simulator.dectris",
}
"""URL scheme -> module of the simulated detector that sends over this transport."""
MAX_BYTES_IN_MEMORY = 2**31
"""Largest scan that is kept in memory while it is played [bytes]; a larger one is read frame by frame."""


@dataclass(frozen=True)
class PlayedScan:
    """The announcement of a scan that the simulated detector begins.

    Parameters
    ----------
    name : name of the scan in this run; each repeat has its own
    number : 1, 2, ... in the order in which the detector begins scans
    frames : number of planned frames
    shape, dtype : shape and number type of each frame
    rocking_angle : rocking angle of each frame [rad]; None if the file holds no angles
    inputs : files that the scan is read from; the simulated detector must not write over them
    """

    name: str
    number: int
    frames: int
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    rocking_angle: FloatArray | None
    inputs: tuple[Path, ...] = ()

    def angle_deg(self, index: int) -> float | None:
        """Return the rocking angle of one frame in the unit of beamlines [deg]."""
        return None if self.rocking_angle is None else float(np.rad2deg(self.rocking_angle[index]))


class Sink(Protocol):
    """The sending side of a transport; a source connects to its `url`."""

    url: str

    def wait(self, stop: Event) -> None:
        """Wait until a receiver is connected, if the transport shows that."""
        ...

    def begin(self, scan: PlayedScan) -> None:
        """Begin a scan."""
        ...

    def frame(self, index: int, image: NDArray[Any], is_whole: bool) -> None:
        """Send a frame, or, to imitate cut data, its first half; the same index again means that the frame is repeated."""
        ...

    def end(self, is_aborted: bool) -> None:
        """End the scan."""
        ...

    def close(self) -> None:
        """Stop serving; data that were sent still arrive."""
        ...


@dataclass(frozen=True)
class EmitProgress:
    """The progress of the simulated detector: number of scans begun, and number of frames sent, complete or cut."""

    scans: int
    frames: int


def open_sink(url: str, **options: Any) -> Sink:
    """Open the simulated detector for a URL of the form that `braggshot.live.sources.registry` describes.

    Raises
    ------
    ConfigError : if no simulated detector has this scheme, a library is missing, or it cannot serve at this address.
    """
    scheme, target, url_options = split(url)
    if scheme not in SINKS:
        raise ConfigError(f"cannot emit to {url!r}; known: {', '.join(f'{name}:' for name in SINKS)}.")
    try:
        with explain_missing(scheme):
            module = importlib.import_module(SINKS[scheme])
            return module.serve(target, **{**options, **url_options})
    except TypeError as error:
        raise ConfigError(f"emit to {url!r}: an option is unknown ({error}).") from error


def emit(
    scan: Scan, sink: Sink, stop: Event, rate: float = 0.0, faults: Faults | None = None, seed: int = 0, repeat: int = 1
) -> Iterator[EmitProgress]:
    """Send the frames of `scan` to `sink`, and yield the progress after every frame.

    Parameters
    ----------
    rate : frames a second; 0 sends as fast as the sink takes frames
    faults : faults of the detector; None for none
    seed : seed of the faults; every repeat has faults of its own
    repeat : number of times that the scan is sent; a dead detector sends no more
    """
    frames = _load_frames(scan)
    sent, begun, pace = 0, 0, Pace(rate)
    for number in range(repeat):
        for action in fault_plan(len(frames), faults or Faults(), seed + number):
            if action.kind == "begin":
                begun += 1
                sink.begin(_played_scan(scan, begun))
            elif action.kind in {"frame", "truncated"}:
                while pace.is_early(stop):
                    pass
                if stop.is_set():
                    return
                sink.frame(action.frame, frames[action.frame], action.kind == "frame")
                sent += 1
                yield EmitProgress(begun, sent)
            elif action.kind == "dead":
                return
            else:
                sink.end(action.kind == "abort")


def _played_scan(scan: Scan, number: int) -> PlayedScan:
    """Make the announcement of a scan; `number` counts the scans that the simulated detector has begun."""
    frames, rows, columns = scan.frames.shape
    name = f"{scan_name(scan.name)[:80]}_{number:04d}"
    dtype = np.dtype(scan.frames.dtype)
    return PlayedScan(name, number, frames, (rows, columns), dtype, scan.rocking_angle, tuple(files_of(scan)))


def _load_frames(scan: Scan) -> Any:
    """Read all frames beforehand if they fit into memory, so that the disk does not set the pace."""
    size = int(np.prod(scan.frames.shape, dtype=object)) * scan.frames.dtype.itemsize
    return np.asarray(scan.frames[:]) if size <= MAX_BYTES_IN_MEMORY else _LazyFrames(scan)


@dataclasses.dataclass(frozen=True)
class _LazyFrames:
    """The frames of a scan, each read when it is asked for."""

    scan: Scan

    def __len__(self) -> int:
        return int(self.scan.frames.shape[0])

    def __getitem__(self, index: int) -> NDArray[Any]:
        return np.asarray(self.scan.frames[index])
