"""Leave out the frames behind the last one that was measured: a detector may write more frames than the scan has angles."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from braggshot.volumes import BoolArray, Circle, Frames, Scan


@dataclass(frozen=True, eq=False)
class FirstFrames:
    """The first `number` frames of a scan, read from `frames` as they are indexed."""

    frames: Frames
    number: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (frames, rows, columns)."""
        return self.number, self.frames.shape[1], self.frames.shape[2]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel."""
        return self.frames.dtype

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, region: Any, /) -> Any:
        first, *pixels = region if isinstance(region, tuple) else (region,)
        chosen: Any = np.arange(self.number)[first]
        if isinstance(first, slice) and first.step in (None, 1):
            start, stop, _ = first.indices(self.number)
            chosen = slice(start, max(start, stop))
        elif not np.ndim(chosen):
            chosen = int(chosen)
        return self.frames[(chosen, *pixels)]


def count_measured(empty: BoolArray) -> int:
    """Count the frames up to the last one that is not empty."""
    measured = np.flatnonzero(~empty)
    return int(measured[-1]) + 1 if len(measured) else len(empty)


def take_first(scan: Scan, number: int) -> Scan:
    """Return a scan of the first `number` frames, with what belongs to each of them."""
    n_frames = scan.frames.shape[0]

    def cut(values: Any) -> Any:
        return values[:number] if values is not None and np.shape(values)[:1] == (n_frames,) else values

    def turn(circle: Circle) -> Circle:
        return replace(circle, angle=cut(circle.angle)) if np.ndim(circle.angle) else circle

    geometry = scan.geometry
    if geometry is not None:
        sample, detector = (tuple(map(turn, circles)) for circles in (geometry.sample, geometry.detector))
        geometry = replace(geometry, energy=cut(geometry.energy), sample=sample, detector=detector)
    return replace(
        scan,
        frames=FirstFrames(scan.frames, number),
        valid=scan.valid if scan.valid is None or scan.valid.ndim == 2 else scan.valid[:number],
        monitor=cut(scan.monitor),
        rocking_angle=cut(scan.rocking_angle),
        arrived=cut(scan.arrived),
        geometry=geometry,
    )
