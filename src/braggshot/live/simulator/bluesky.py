"""Simulate a Bluesky run: write the frames into a growing HDF5 file, and publish the documents of the run."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from threading import Event
from typing import Any

from numpy.typing import NDArray

from braggshot.errors import ConfigError, OutputError
from braggshot.live.simulator.folder import GrowingSink
from braggshot.live.simulator.player import PlayedScan, Sink

MOTOR, DETECTOR = "eta", "detector"
"""Data keys of the rocking angle and of the frames."""


def serve(target: str, compress: str = "none", files: str = ".") -> Sink:
    """Publish at ``bluesky:tcp://INTERFACE:PORT?files=PATH``; port * takes a free port.

    Raises
    ------
    ConfigError : if nothing can be published at this address, or if the compression is unknown.
    OutputError : if the folder cannot be made.
    """
    if compress not in {"none", "bslz4"}:
        raise ConfigError(f"this file is not compressed by {compress!r}; known: none, bslz4.")
    try:
        Path(files).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {files}: {error.strerror}; choose another folder.") from error
    return BlueskySink(target, Path(files).resolve(), compress == "bslz4")


class BlueskySink:
    """A publisher of the documents of runs, one for each scan, and a writer of their frames."""

    def __init__(self, address: str, root: Path, is_compressed: bool) -> None:
        import zmq

        self._stop, self._file = Event(), GrowingSink(root, is_compressed)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.set(zmq.SNDHWM, 0)  # no document is thrown away while a listener is busy
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise ConfigError(
                f"bluesky:{address}: cannot publish there ({error.strerror}); such as tcp://127.0.0.1:5578."
            ) from error
        self.url = f"bluesky:{self._socket.getsockopt_string(zmq.LAST_ENDPOINT)}?files={root}"

    def wait(self, stop: Event) -> None:
        """Wait until somebody listens."""
        self._stop = stop
        while not stop.is_set():
            if self._socket.poll(200):
                self._socket.recv()  # the subscription
                return

    def begin(self, scan: PlayedScan) -> None:
        """Open a new file, and tell of the run, of its detector and of the file."""
        self._file.begin(scan)
        self._ids = {name: str(uuid.uuid4()) for name in ("run", "descriptor", "resource")}
        self._sent, self._scan = 0, scan
        rows, columns = scan.shape
        self._tell("start", uid=self._ids["run"], scan_id=scan.number, num_points=scan.frames, motors=[MOTOR])
        keys: dict[str, Any] = {DETECTOR: {"shape": [1, rows, columns], "dtype": "array", "external": "STREAM:"}}
        keys |= {} if scan.rocking_angle is None else {MOTOR: {"shape": [], "dtype": "number", "units": "deg"}}
        self._tell("descriptor", uid=self._ids["descriptor"], run_start=self._ids["run"], name="primary", data_keys=keys)
        path = self._file.root / f"{scan.name}.h5"
        self._tell(
            "stream_resource", uid=self._ids["resource"], run_start=self._ids["run"], data_key=DETECTOR, uri=path.as_uri(),
            mimetype="application/x-hdf5", parameters={"dataset": "/entry/data/data"},
        )  # fmt: skip

    def frame(self, index: int, image: NDArray[Any], is_whole: bool) -> None:
        """Append a frame to the file, and tell of it and of its angle; they lie in the file in the order in which they are sent."""
        self._file.frame(index, image, is_whole)
        first, self._sent = self._sent, self._sent + 1
        place = {"start": first, "stop": self._sent}
        self._tell(
            "stream_datum", uid=f"{self._ids['resource']}/{first}", stream_resource=self._ids["resource"], indices=place,
            descriptor=self._ids["descriptor"], seq_nums={"start": first + 1, "stop": self._sent + 1},
        )  # fmt: skip
        angle = self._scan.angle_deg(index)
        data = {} if angle is None else {MOTOR: angle}
        self._tell("event", uid=str(uuid.uuid4()), descriptor=self._ids["descriptor"], seq_num=self._sent, data=data)

    def end(self, is_aborted: bool) -> None:
        """Close the file, and tell that the run has ended."""
        self._file.end(is_aborted)
        self._tell("stop", uid=str(uuid.uuid4()), run_start=self._ids["run"], exit_status="abort" if is_aborted else "success")

    def close(self) -> None:
        """Close file and socket once all documents have been received, or after 10 s."""
        self._file.close()
        self._context.destroy(linger=0 if self._stop.is_set() else 10_000)

    def _tell(self, kind: str, /, **document: Any) -> None:
        """Publish a document."""
        self._socket.send(b" ".join([b"", kind.encode(), json.dumps({"time": time.time(), **document}).encode()]))
