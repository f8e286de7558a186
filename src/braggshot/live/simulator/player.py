"""Play a measured or simulated scan over the transports that real detectors use.

`braggshot.live.simulator.faults` plans the actions of the simulated detector. A sink, the sending side of a transport, carries
out these actions.
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
from braggshot.live.sources.limits import ELECTRON_VOLT, scan_name
from braggshot.live.sources.registry import explain_missing, split
from braggshot.live.sources.replay import Pace
from braggshot.output import files_of
from braggshot.physics.geometry import steps_energy
from braggshot.volumes import FloatArray, Scan

SINKS = {
    "folder": "braggshot.live.simulator.folder",
    "pva": "braggshot.live.simulator.pva",
    "zmq": "braggshot.live.simulator.dectris",
    "stins": "braggshot.live.simulator.stins",
    "bluesky": "braggshot.live.simulator.bluesky",
    "tiled": "braggshot.live.simulator.tiled",
    "blissdata": "braggshot.live.simulator.blissdata",
}
"""URL scheme -> module of the simulated detector that sends over this transport."""
MAX_BYTES_IN_MEMORY = 2**31
"""Largest scan that is kept in memory while it is played [bytes]; a larger one is read frame by frame."""


@dataclass(frozen=True)
class PlayedScan:
    """The announcement of a scan that the simulated detector begins.

    Parameters
    ----------
    name : name of the scan; each repeat of a scan has a name of its own
    number : number of the scan among those that the detector begins, from 1
    frames : number of planned frames
    shape, dtype : shape and number type of each frame
    rocking_angle : rocking angle of each frame [rad]; None if the file holds no angles
    energy : photon energy of each frame of an energy scan [J]; None for other scans
    inputs : files that the scan is read from; the simulated detector must not write over them
    """

    name: str
    number: int
    frames: int
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    rocking_angle: FloatArray | None
    inputs: tuple[Path, ...] = ()
    energy: FloatArray | None = None

    def angle_deg(self, index: int) -> float | None:
        """Return the rocking angle of one frame [deg]; None if the scan has no angles."""
        return None if self.rocking_angle is None else float(np.rad2deg(self.rocking_angle[index]))

    def told(self, index: int | None = None) -> dict[str, Any]:
        """Return what a stream tells of a frame, or of all: its angle or its photon energy, by the name that sources read."""
        known, name = (self.rocking_angle, "rocking_angle_deg") if self.energy is None else (self.energy, "energy_ev")
        if known is None:
            return {}
        values = np.rad2deg(known) if self.energy is None else known / ELECTRON_VOLT
        return {name: values.tolist() if index is None else float(values[index])}


class Sink(Protocol):
    """The sending side of a transport; a source connects to its `url`."""

    url: str

    def wait(self, stop: Event) -> None:
        """Wait until a receiver is connected; do not wait if the transport has no connections, as with files."""
        ...

    def begin(self, scan: PlayedScan) -> None:
        """Begin a scan."""
        ...

    def frame(self, index: int, image: NDArray[Any], is_whole: bool) -> None:
        """Send a frame, or only its first half to imitate cut data; a repeated frame is sent with the same index again."""
        ...

    def end(self, is_aborted: bool) -> None:
        """End the scan."""
        ...

    def close(self) -> None:
        """Close the transport, after waiting at most 10 s until receivers have fetched the data that were sent last."""
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
    ConfigError : if no simulated detector has this scheme, a library is missing, or the address cannot be used.
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
    faults : faults of the detector; None for a detector without faults
    seed : seed of the random faults; each repeat has other faults
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
    dtype, geometry = np.dtype(scan.frames.dtype), scan.geometry
    energy = np.asarray(geometry.energy) if geometry is not None and steps_energy(geometry) else None
    return PlayedScan(name, number, frames, (rows, columns), dtype, scan.rocking_angle, tuple(files_of(scan)), energy)


def _load_frames(scan: Scan) -> Any:
    """Read all frames before playing if they fit into memory, so that reading does not slow down the playing."""
    size = int(np.prod(scan.frames.shape, dtype=object)) * scan.frames.dtype.itemsize
    return np.asarray(scan.frames[:]) if size <= MAX_BYTES_IN_MEMORY else _LazyFrames(scan)


@dataclasses.dataclass(frozen=True)
class _LazyFrames:
    """The frames of a scan, of which each is read from disk only when it is indexed."""

    scan: Scan

    def __len__(self) -> int:
        return int(self.scan.frames.shape[0])

    def __getitem__(self, index: int) -> NDArray[Any]:
        return np.asarray(self.scan.frames[index])
