"""Simulate a detector of MAX IV: push series of images as `braggshot.live.sources.stins` reads them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggshot.errors import ConfigError
from braggshot.live.simulator.player import PlayedScan, Sink
from braggshot.live.simulator.pushing import END_PATIENCE, Pusher
from braggshot.live.sources.stins import COMPRESSIONS


def serve(target: str, compress: str = "bslz4") -> Sink:
    """Open the simulated detector at ``stins:tcp://INTERFACE:PORT``; port * takes a free port.

    Raises
    ------
    ConfigError : if the detector cannot listen at this address, or if the compression is unknown.
    """
    if compress not in COMPRESSIONS:
        raise ConfigError(f"this stream is not compressed by {compress!r}; known: {', '.join(COMPRESSIONS)}.")
    return StinsSink(target, compress)


class StinsSink(Pusher):
    """A simulated detector that pushes the stream of MAX IV; it waits while no receiver can take a message."""

    def __init__(self, address: str, compress: str) -> None:
        super().__init__("stins", address, compress)
        self._numbers = itertools.count()

    def begin(self, scan: PlayedScan) -> None:
        """Send the header of a scan; its second part holds the number of frames and the rocking angles of the scan."""
        self.prepare(scan)
        known: dict[str, Any] = {"frames": scan.frames, **scan.told()}
        self.send({"htype": "header", "msg_number": next(self._numbers), "filename": f"/data/{scan.name}.h5"}, known)

    def frame(self, index: int, image: NDArray[Any], is_whole: bool) -> None:
        """Send an image, or, to imitate a message that was cut, the first half of its bytes."""
        payload = self.encode(np.ascontiguousarray(image))
        first: dict[str, Any] = {"htype": "image", "msg_number": next(self._numbers), "frame": index}
        first |= {"shape": list(image.shape), "type": image.dtype.name, "compression": self.compress}
        first |= self.scan.told(index)
        self.send(first, payload if is_whole else payload[: len(payload) // 2])

    def end(self, is_aborted: bool) -> None:
        """Send the end of the series; a receiver can tell an aborted series only by its smaller number of images."""
        self.send({"htype": "series_end", "msg_number": next(self._numbers)}, patience=END_PATIENCE)
