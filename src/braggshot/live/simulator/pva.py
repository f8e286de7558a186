"""Simulate an areaDetector: serve images as NTNDArray over PV Access, with the attributes of `braggshot.live.sources.pva`.

PV Access never makes a detector wait: images that a receiver does not fetch in time are lost, as at a beamline.
"""

from __future__ import annotations

import time
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggshot.errors import ConfigError
from braggshot.io.codecs import Codec, lz4_encode
from braggshot.live.simulator.player import PlayedScan, Sink
from braggshot.live.sources.pva import SCALAR_TYPES

SETTLE = 0.5
"""Pause between the connection of a receiver and the first image [s]; in this time the receiver subscribes to the images."""
LINGER = 3.0
"""Longest time for which a closing server waits until all receivers have disconnected [s]."""
UNION_NAMES = {"u1": "ubyte", "u2": "ushort", "u4": "uint", "u8": "ulong", "i1": "byte", "i2": "short", "i4": "int", "i8": "long",
         "f4": "float", "f8": "double"}  # fmt: skip
"""numpy type code -> name of the number type in the value of an NTNDArray."""


def serve(target: str, compress: str = "none", interface: str = "127.0.0.1", port: int | str = 5075) -> Sink:
    """Open the simulated detector for ``pva:CHANNEL``.

    Parameters
    ----------
    compress : none, lz4, bslz4 or blosc
    interface : address to listen at; the loopback address 127.0.0.1 admits only programs on this machine
    port : port to listen at; a free one is taken if it is 0 or in use

    Raises
    ------
    ConfigError : if the compression is unknown, or the server cannot listen at this address.
    """
    if compress not in {"none", "lz4", "bslz4", "blosc"}:
        raise ConfigError(f"this channel is not compressed by {compress!r}; known: none, lz4, bslz4, blosc.")
    return PvaSink(target, compress, interface, str(port))


class PvaSink:
    """A simulated detector that serves images over one PV Access channel."""

    def __init__(self, channel: str, compress: str, interface: str, port: str) -> None:
        from p4p import Value
        from p4p.nt import NTNDArray
        from p4p.server import Server
        from p4p.server.thread import SharedPV

        self.compress = "" if compress == "none" else compress
        self._codec: Codec | None = None
        self._unique, self._begun = 0, 0
        self._connected, self._disconnected = Event(), Event()
        self._type, self._value = NTNDArray.buildType(), Value
        self._pv = SharedPV(handler=_Listeners(self._connected, self._disconnected), initial=Value(self._type, {}))
        addresses = {"EPICS_PVAS_INTF_ADDR_LIST": interface, "EPICS_PVAS_SERVER_PORT": port, "EPICS_PVAS_BROADCAST_PORT": "0"}
        quiet = {"EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO", "EPICS_PVAS_BEACON_ADDR_LIST": ""}
        try:
            self._server = Server(providers=[{channel: self._pv}], conf={**addresses, **quiet}, useenv=False)
        except RuntimeError as error:
            raise ConfigError(f"pva:{channel}: cannot listen at {interface} port {port} ({error}).") from error
        self.url = f"pva:{channel}?address={interface}:{self._server.conf()['EPICS_PVAS_SERVER_PORT']}"

    def wait(self, stop: Event) -> None:
        """Wait until a receiver has connected, then half a second longer, in which the receiver subscribes to the images."""
        while not stop.is_set() and not self._connected.wait(0.2):
            pass
        stop.wait(SETTLE)

    def begin(self, scan: PlayedScan) -> None:
        """Store the announcement of a new scan, and make the codec that compresses its images; send nothing yet."""
        self.scan, self._begun = scan, self._unique
        kind = self.compress
        self._codec = Codec(kind, scan.shape, scan.dtype) if kind in {"bslz4", "blosc"} else None

    def frame(self, index: int, image: NDArray[Any], is_whole: bool) -> None:
        """Send an image, or, to imitate cut data, only the first half of its bytes."""
        flat = self._flat(np.ascontiguousarray(image))
        flat = flat if is_whole else flat[: len(flat) // 2]
        self._unique = self._begun + index + 1
        now = time.time()
        attributes = {"ScanId": self.scan.name, "FrameIndex": index, "FramesPlanned": self.scan.frames, "ColorMode": 0}
        names = {"rocking_angle_deg": "RockingAngle", "energy_ev": "ScanEnergy"}
        attributes |= {names[name]: value for name, value in self.scan.told(index).items()}
        self._pv.post(self._value(self._type, {
            "value": (f"{UNION_NAMES[flat.dtype.str[1:]]}Value", flat),
            "codec": {"name": self.compress, "parameters": SCALAR_TYPES.index(image.dtype.name) + 1 if self.compress else None},
            "compressedSize": flat.nbytes,
            "uncompressedSize": image.nbytes,
            "uniqueId": self._unique,
            "dimension": [{"size": side, "fullSize": side, "binning": 1} for side in reversed(image.shape)],
            "attribute": [{"name": name, "value": value} for name, value in attributes.items()],
            "timeStamp": {"secondsPastEpoch": int(now), "nanoseconds": int(now % 1 * 1e9)},
        }))  # fmt: skip

    def end(self, is_aborted: bool) -> None:
        """Count all planned frames as sent, so that the image numbers of the next scan begin after them.

        PV Access has no message for the end of a scan.
        """
        self._unique = self._begun + self.scan.frames

    def close(self) -> None:
        """Stop the server once all receivers have disconnected, or after 3 s; images that were not fetched by then are lost."""
        if self._connected.is_set():
            self._disconnected.wait(LINGER)
        self._server.stop()
        self._pv.close()

    def _flat(self, image: NDArray[Any]) -> NDArray[Any]:
        """Return the pixels of an image, or its compressed bytes, as a flat array."""
        if not self.compress:
            return image.ravel()
        payload = lz4_encode(image) if self._codec is None else self._codec.encode(image)
        return np.frombuffer(payload, np.uint8)


class _Listeners:
    """A handler that records when the first receiver connects and when the last one disconnects."""

    def __init__(self, connected: Event, disconnected: Event) -> None:
        self.connected, self.disconnected = connected, disconnected

    def onFirstConnect(self, pv: Any) -> None:
        """Record that at least one receiver is connected to the server."""
        self.disconnected.clear()
        self.connected.set()

    def onLastDisconnect(self, pv: Any) -> None:
        """Record that no receiver is connected to the server any more."""
        self.disconnected.set()
