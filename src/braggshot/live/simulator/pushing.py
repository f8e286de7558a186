"""Push messages to whoever pulls them from a ZeroMQ socket, as detectors do."""

from __future__ import annotations

import json
import math
import time
from contextlib import suppress
from threading import Event
from typing import Any

from braggshot.errors import ConfigError
from braggshot.io.codecs import Codec
from braggshot.live.simulator.player import PlayedScan

LINGER = 10_000
"""Longest time for which the simulated detector, when it closes, waits until a receiver has fetched all messages [ms]."""
END_PATIENCE = 2.0
"""Longest wait until a receiver can take the message that ends a series [s].

Without this limit the simulated detector would wait for ever for a receiver that has left after the last image.
"""


class Pusher:
    """A simulated detector that pushes messages; it waits while no receiver can take a message.

    Raises
    ------
    ConfigError : if the detector cannot listen at `address`.
    """

    def __init__(self, scheme: str, address: str, compress: str) -> None:
        import zmq

        self.compress, self._stop = compress, Event()
        self._codec: Codec | None = None
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUSH)
        self._socket.set(zmq.LINGER, LINGER)
        self._socket.set(zmq.SNDHWM, 100)
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise ConfigError(
                f"{scheme}:{address}: cannot listen there ({error.strerror}); such as tcp://127.0.0.1:9999."
            ) from error
        self.url = f"{scheme}:{self._socket.getsockopt_string(zmq.LAST_ENDPOINT)}"

    def wait(self, stop: Event) -> None:
        """Wait until a receiver is connected."""
        self._stop = stop
        self.is_ready()

    def close(self) -> None:
        """Close the socket once all sent messages have been received, or after 10 s."""
        self._context.destroy(linger=0 if self._stop.is_set() else LINGER)

    def prepare(self, scan: PlayedScan) -> None:
        """Store the announcement of a new scan, and make the codec that compresses its images, if one is needed."""
        self.scan = scan
        self._codec = Codec(self.compress, scan.shape, scan.dtype) if self.compress == "bslz4" else None

    def encode(self, image: Any) -> bytes:
        """Compress an image by bitshuffle and LZ4, if that was asked for."""
        return bytes(image.tobytes()) if self._codec is None else self._codec.encode(image)

    def is_ready(self, patience: float = math.inf) -> bool:
        """Wait until a receiver can take a message; return True once one can.

        Return False if none can within `patience` [s], or if the simulation is stopped.
        """
        import zmq

        end = time.monotonic() + patience
        while not self._stop.is_set() and time.monotonic() < end:
            if self._socket.poll(200, zmq.POLLOUT):
                return True
        return False

    def send(self, *parts: dict[str, Any] | bytes, patience: float = math.inf) -> None:
        """Send a message of several parts, if a receiver comes within `patience` [s]."""
        import zmq

        encoded = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in parts]
        while self.is_ready(patience):
            with suppress(zmq.Again):  # the receiver has gone in the meantime
                self._socket.send_multipart(encoded, zmq.DONTWAIT)
                return
