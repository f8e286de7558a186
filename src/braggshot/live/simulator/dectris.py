"""Simulate a DECTRIS detector: push series of images in either version of the stream (`braggshot.live.sources.dectris`)."""

from __future__ import annotations

import json
import math
import time
from contextlib import suppress
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggshot.errors import ConfigError
from braggshot.io.codecs import Codec, lz4_blocks_encode, lz4_encode, zstd_encode
from braggshot.live.simulator.player import PlayedScan, Sink

LINGER = 10_000
"""Longest time for which the simulated detector, when it closes, waits until a receiver has fetched all messages [ms]."""
END_PATIENCE = 2.0
"""Longest wait until a receiver can take the message that ends a series [s].

Without this limit the simulated detector would wait for ever for a receiver that has left after the last image.
"""


COMPRESSIONS = {1: ("none", "lz4", "bslz4"), 2: ("none", "lz4", "bslz4", "zstd")}
"""Version of the stream -> names of the compressions that it knows."""
TYPED_ARRAY_TAGS = {
    "uint8": 64, "uint16": 69, "uint32": 70, "uint64": 71, "int8": 72, "int16": 77, "int32": 78, "int64": 79,
    "float32": 85, "float64": 86,
}  # fmt: skip
"""Number type -> CBOR tag of a little-endian array of that type."""


def serve(target: str, compress: str = "bslz4", version: int | str = 1) -> Sink:
    """Open the simulated detector at ``zmq:tcp://INTERFACE:PORT``; port * takes a free port.

    The option ``?version=2`` chooses version 2 of the stream.

    Raises
    ------
    ConfigError : if the detector cannot listen at this address, or if the version or the compression is unknown.
    """
    if str(version) not in {"1", "2"}:
        raise ConfigError(f"there is no version {version!r} of this stream; known: 1, 2.")
    if compress not in COMPRESSIONS[int(version)]:
        raise ConfigError(f"this stream is not compressed by {compress!r}; known: {', '.join(COMPRESSIONS[int(version)])}.")
    return DectrisSink(target, compress) if int(version) == 1 else CborSink(target, compress)


class DectrisSink:
    """A simulated detector that pushes version 1 of the DECTRIS stream; it waits while no receiver can take a message."""

    def __init__(self, address: str, compress: str) -> None:
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
            raise ConfigError(f"zmq:{address}: cannot listen there ({error.strerror}); such as tcp://127.0.0.1:9999.") from error
        self.url = f"zmq:{self._socket.getsockopt_string(zmq.LAST_ENDPOINT)}"

    def wait(self, stop: Event) -> None:
        """Wait until a receiver is connected."""
        self._stop = stop
        self.is_ready()

    def begin(self, scan: PlayedScan) -> None:
        """Send the header of a scan; its appendix holds name, number of frames and rocking angles of the scan."""
        rows, columns = scan.shape
        config: dict[str, Any] = {"description": "simulated", "nimages": scan.frames, "ntrigger": 1}
        config |= {"x_pixels_in_detector": columns, "y_pixels_in_detector": rows, "bit_depth_image": 8 * scan.dtype.itemsize}
        user_data: dict[str, Any] = {"scan": scan.name, "frames": scan.frames}
        if scan.rocking_angle is not None:
            degrees = np.rad2deg(scan.rocking_angle)
            config |= {"omega_start": float(degrees[0]), "omega_increment": float(np.median(np.diff(degrees, append=degrees[-1])))}
            user_data["rocking_angle_deg"] = degrees.tolist()
        self._prepare(scan)
        self._send({"htype": "dheader-1.0", "series": scan.number, "header_detail": "basic"}, config, user_data)

    def frame(self, index: int, image: NDArray[Any], is_whole: bool) -> None:
        """Send an image, or, to imitate a message that was cut, the first half of its bytes."""
        encoding, payload = self._encode(np.ascontiguousarray(image))
        payload = payload if is_whole else payload[: len(payload) // 2]
        rows, columns = image.shape
        described = {"htype": "dimage_d-1.0", "shape": [columns, rows], "type": image.dtype.name, "encoding": encoding}
        first = {"htype": "dimage-1.0", "series": self.scan.number, "frame": index, "hash": ""}
        times = {"htype": "dconfig-1.0", "start_time": 0, "stop_time": 0, "real_time": 0}
        angle = self.scan.angle_deg(index)
        appendix = [] if angle is None else [{"rocking_angle_deg": angle}]
        self._send(first, {**described, "size": len(payload)}, payload, times, *appendix)

    def end(self, is_aborted: bool) -> None:
        """Send the end of the series; a receiver can tell an aborted series only by its smaller number of images."""
        self._send({"htype": "dseries_end-1.0", "series": self.scan.number}, patience=END_PATIENCE)

    def close(self) -> None:
        """Close the socket once all sent messages have been received, or after 10 s."""
        self._context.destroy(linger=0 if self._stop.is_set() else LINGER)

    def _prepare(self, scan: PlayedScan) -> None:
        """Store the announcement of a new scan, and make the codec that compresses its images, if one is needed."""
        self.scan = scan
        self._codec = Codec(self.compress, scan.shape, scan.dtype) if self.compress == "bslz4" else None

    def _encode(self, image: NDArray[Any]) -> tuple[str, bytes]:
        """Encode an image; return the name of the encoding in the stream, and the encoded bytes."""
        if self._codec is not None:
            return f"bs{8 * image.dtype.itemsize}-lz4<", self._codec.encode(image)
        return ("lz4<", lz4_encode(image)) if self.compress == "lz4" else ("<", image.tobytes())

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

    def _send(self, *parts: dict[str, Any] | bytes, patience: float = math.inf) -> None:
        """Send a message of several parts, if a receiver comes within `patience` [s]."""
        import zmq

        encoded = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in parts]
        while self.is_ready(patience):
            with suppress(zmq.Again):  # the receiver has gone in the meantime
                self._socket.send_multipart(encoded, zmq.DONTWAIT)
                return


class CborSink(DectrisSink):
    """A simulated detector that pushes version 2 of the DECTRIS stream, where each message is one CBOR map."""

    def begin(self, scan: PlayedScan) -> None:
        """Send the start of a series; its user data hold name, number of frames and rocking angles of the scan."""
        self._prepare(scan)
        rows, columns = scan.shape
        user_data: dict[str, Any] = {"scan": scan.name, "frames": scan.frames}
        start: dict[str, Any] = {"channels": ["threshold_1"], "detector_description": "simulated", "number_of_images": scan.frames}
        start |= {"image_size_x": columns, "image_size_y": rows}
        if scan.rocking_angle is not None:
            degrees = np.rad2deg(scan.rocking_angle)
            step = float(np.median(np.diff(degrees, append=degrees[-1])))
            start["goniometer"] = {"omega": {"start": float(degrees[0]), "increment": step}}
            user_data["rocking_angle_deg"] = degrees.tolist()
        self._send_map("start", {**start, "user_data": user_data})

    def frame(self, index: int, image: NDArray[Any], is_whole: bool) -> None:
        """Send an image, or, to imitate damaged data, the first half of its bytes in a complete message."""
        from cbor2 import CBORTag

        little = np.ascontiguousarray(image, image.dtype.newbyteorder("<"))
        encoders = {"lz4": lz4_blocks_encode, "zstd": zstd_encode}
        payload: Any = encoders[self.compress](little) if self.compress in encoders else self._encode(little)[1]
        payload = payload if is_whole else payload[: len(payload) // 2]
        if self.compress != "none":
            element = image.dtype.itemsize if self.compress == "bslz4" else 0
            payload = CBORTag(56500, [self.compress, element, payload])
        array = CBORTag(40, [list(image.shape), CBORTag(TYPED_ARRAY_TAGS[image.dtype.name], payload)])
        angle = self.scan.angle_deg(index)
        user_data = {} if angle is None else {"user_data": {"rocking_angle_deg": angle}}
        times = {name: [0, 1] for name in ("real_time", "start_time", "stop_time")}
        self._send_map("image", {"image_id": index, "data": {"threshold_1": array}, **times, **user_data})

    def end(self, is_aborted: bool) -> None:
        """Send the end of the series; a receiver can tell an aborted series only by its smaller number of images."""
        self._send_map("end", {}, patience=END_PATIENCE)

    def _send_map(self, kind: str, fields: dict[str, Any], patience: float = math.inf) -> None:
        """Send a CBOR message of the present series, of type `kind` (start, image or end) and with the given fields."""
        import cbor2

        self._send(cbor2.dumps({"type": kind, "series_id": self.scan.number, **fields}), patience=patience)
