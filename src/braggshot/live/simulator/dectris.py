"""Simulate a DECTRIS detector: push series of images in either version of the stream (`braggshot.live.sources.dectris`)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggshot.errors import ConfigError
from braggshot.io.codecs import lz4_blocks_encode, lz4_encode, zstd_encode
from braggshot.live.simulator.player import PlayedScan, Sink
from braggshot.live.simulator.pushing import END_PATIENCE, Pusher

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
    return (DectrisSink if int(version) == 1 else CborSink)("zmq", target, compress)


class DectrisSink(Pusher):
    """A simulated detector that pushes version 1 of the DECTRIS stream; it waits while no receiver can take a message."""

    def begin(self, scan: PlayedScan) -> None:
        """Send the header of a scan; its appendix holds name, number of frames and rocking angles of the scan."""
        rows, columns = scan.shape
        config: dict[str, Any] = {"description": "simulated", "nimages": scan.frames, "ntrigger": 1}
        config |= {"x_pixels_in_detector": columns, "y_pixels_in_detector": rows, "bit_depth_image": 8 * scan.dtype.itemsize}
        user_data: dict[str, Any] = {"scan": scan.name, "frames": scan.frames, **scan.told()}
        if scan.rocking_angle is not None:
            degrees = np.rad2deg(scan.rocking_angle)
            config |= {"omega_start": float(degrees[0]), "omega_increment": float(np.median(np.diff(degrees, append=degrees[-1])))}
        self.prepare(scan)
        self.send({"htype": "dheader-1.0", "series": scan.number, "header_detail": "basic"}, config, user_data)

    def frame(self, index: int, image: NDArray[Any], is_whole: bool) -> None:
        """Send an image, or, to imitate a message that was cut, the first half of its bytes."""
        encoding, payload = self._encode(np.ascontiguousarray(image))
        payload = payload if is_whole else payload[: len(payload) // 2]
        rows, columns = image.shape
        described = {"htype": "dimage_d-1.0", "shape": [columns, rows], "type": image.dtype.name, "encoding": encoding}
        first = {"htype": "dimage-1.0", "series": self.scan.number, "frame": index, "hash": ""}
        times = {"htype": "dconfig-1.0", "start_time": 0, "stop_time": 0, "real_time": 0}
        told = self.scan.told(index)
        self.send(first, {**described, "size": len(payload)}, payload, times, *([told] if told else []))

    def end(self, is_aborted: bool) -> None:
        """Send the end of the series; a receiver can tell an aborted series only by its smaller number of images."""
        self.send({"htype": "dseries_end-1.0", "series": self.scan.number}, patience=END_PATIENCE)

    def _encode(self, image: NDArray[Any]) -> tuple[str, bytes]:
        """Encode an image; return the name of the encoding in the stream, and the encoded bytes."""
        if self.compress == "lz4":
            return "lz4<", lz4_encode(image)
        return f"bs{8 * image.dtype.itemsize}-lz4<" if self.compress == "bslz4" else "<", self.encode(image)


class CborSink(DectrisSink):
    """A simulated detector that pushes version 2 of the DECTRIS stream, where each message is one CBOR map."""

    def begin(self, scan: PlayedScan) -> None:
        """Send the start of a series; its user data hold name, number of frames and rocking angles of the scan."""
        self.prepare(scan)
        rows, columns = scan.shape
        user_data: dict[str, Any] = {"scan": scan.name, "frames": scan.frames, **scan.told()}
        start: dict[str, Any] = {"channels": ["threshold_1"], "detector_description": "simulated", "number_of_images": scan.frames}
        start |= {"image_size_x": columns, "image_size_y": rows}
        if scan.rocking_angle is not None:
            degrees = np.rad2deg(scan.rocking_angle)
            step = float(np.median(np.diff(degrees, append=degrees[-1])))
            start["goniometer"] = {"omega": {"start": float(degrees[0]), "increment": step}}
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
        user_data = {"user_data": told} if (told := self.scan.told(index)) else {}
        times = {name: [0, 1] for name in ("real_time", "start_time", "stop_time")}
        self._send_map("image", {"image_id": index, "data": {"threshold_1": array}, **times, **user_data})

    def end(self, is_aborted: bool) -> None:
        """Send the end of the series; a receiver can tell an aborted series only by its smaller number of images."""
        self._send_map("end", {}, patience=END_PATIENCE)

    def _send_map(self, kind: str, fields: dict[str, Any], patience: float = math.inf) -> None:
        """Send a CBOR message of the present series, of type `kind` (start, image or end) and with the given fields."""
        import cbor2

        self.send(cbor2.dumps({"type": kind, "series_id": self.scan.number, **fields}), patience=patience)
