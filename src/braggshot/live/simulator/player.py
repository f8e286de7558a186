"""A detector that does not exist: plays a scan that was measured, or simulated, over the transports that real ones use.

What it does is planned by `braggshot.live.simulator.faults`; a sink, one per transport, does it.
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
from braggshot.live.sources.registry import explained, split
from braggshot.live.sources.replay import Pace
from braggshot.output import files_of
from braggshot.volumes import FloatArray, Scan

SINKS = {
    "folder": "braggshot.live.simulator.folder",
    "pva": "braggshot.live.simulator.pva",
    "zmq": "braggshot.live.simulator.dectris",
}
LARGEST = 2**31
"""Bytes of a scan that is kept in memory while it is played; a larger one is read frame by frame."""


@dataclass(frozen=True)
class Playing:
    """A scan that begins: what a detector says of it in advance.

    Parameters
    ----------
    name : of this run of it
    number : 1, 2, ... of the scans that the detector has begun
    frames : planned
    shape, dtype : of each
    rocking_angle : of each, None where the file does not say [rad]
    inputs : files that the scan is read from, which no detector may write over
    """

    name: str
    number: int
    frames: int
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    rocking_angle: FloatArray | None
    inputs: tuple[Path, ...] = ()

    def angle_deg(self, index: int) -> float | None:
        """Rocking angle of one frame, as beamlines say it [deg]."""
        return None if self.rocking_angle is None else float(np.rad2deg(self.rocking_angle[index]))


class Sink(Protocol):
    """How a transport is served; `url` is what a source connects to."""

    url: str

    def wait(self, stop: Event) -> None:
        """Until someone listens, where the transport can tell."""
        ...

    def begin(self, scan: Playing) -> None:
        """A scan begins."""
        ...

    def frame(self, index: int, image: NDArray[Any], is_whole: bool) -> None:
        """Send a frame, or the first half of it; whether it is sent again is told by its index."""
        ...

    def end(self, is_aborted: bool) -> None:
        """The scan ends."""
        ...

    def close(self) -> None:
        """Serve no longer; what was sent still arrives."""
        ...


@dataclass(frozen=True)
class Sent:
    """How far the simulated detector is: scans begun and frames sent, whole ones and parts."""

    scans: int
    frames: int


def open_sink(url: str, **options: Any) -> Sink:
    """The simulated detector for a URL as of `braggshot.live.sources.registry`.

    Raises
    ------
    ConfigError : if there is none for that scheme, a library is missing, or it cannot serve there.
    """
    scheme, target, said = split(url)
    if scheme not in SINKS:
        raise ConfigError(f"cannot emit to {url!r}; known: {', '.join(f'{name}:' for name in SINKS)}.")
    try:
        with explained(scheme):
            module = importlib.import_module(SINKS[scheme])
            return module.serve(target, **{**options, **said})
    except TypeError as error:
        raise ConfigError(f"emit to {url!r}: an option is unknown ({error}).") from error


def emit(
    scan: Scan, sink: Sink, stop: Event, rate: float = 0.0, faults: Faults | None = None, seed: int = 0, repeat: int = 1
) -> Iterator[Sent]:
    """Play `scan` to `sink`, yielding after every frame that was sent; the caller's loop sees how far it is.

    Parameters
    ----------
    rate : frames a second; 0 is as fast as the sink takes them
    faults : what shall go wrong; None is nothing
    seed : of the faults; every repeat draws its own
    repeat : how many scans; a dead detector plays no more
    """
    frames = _in_memory(scan)
    sent, begun, pace = 0, 0, Pace(rate)
    for number in range(repeat):
        for action in fault_plan(len(frames), faults or Faults(), seed + number):
            if action.kind == "begin":
                begun += 1
                sink.begin(_playing(scan, begun))
            elif action.kind in {"frame", "truncated"}:
                while pace.early(stop):
                    pass
                if stop.is_set():
                    return
                sink.frame(action.frame, frames[action.frame], action.kind == "frame")
                sent += 1
                yield Sent(begun, sent)
            elif action.kind == "dead":
                return
            else:
                sink.end(action.kind == "abort")


def _playing(scan: Scan, number: int) -> Playing:
    frames, rows, columns = scan.frames.shape
    name = f"{scan_name(scan.name)[:80]}_{number:04d}"
    dtype = np.dtype(scan.frames.dtype)
    return Playing(name, number, frames, (rows, columns), dtype, scan.rocking_angle, tuple(files_of(scan)))


def _in_memory(scan: Scan) -> Any:
    """The frames, read beforehand if they are not too many, so that the disk does not set the pace."""
    size = int(np.prod(scan.frames.shape, dtype=object)) * scan.frames.dtype.itemsize
    return np.asarray(scan.frames[:]) if size <= LARGEST else _Indexed(scan)


@dataclasses.dataclass(frozen=True)
class _Indexed:
    scan: Scan

    def __len__(self) -> int:
        return int(self.scan.frames.shape[0])

    def __getitem__(self, index: int) -> NDArray[Any]:
        return np.asarray(self.scan.frames[index])
