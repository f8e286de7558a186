"""Simulate a Bluesky run: write the frames into a growing HDF5 file, and publish the documents of the run."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

from numpy.typing import NDArray

from braggshot.errors import ConfigError, OutputError
from braggshot.live.simulator.folder import GrowingSink
from braggshot.live.simulator.player import PlayedScan, Sink

MOTOR, ENERGY, DETECTOR = "eta", "energy", "detector"
"""Data keys of the rocking angle, of the photon energy and of the frames."""


def serve(target: str, compress: str = "none", files: str = ".") -> Sink:
    """Publish at ``bluesky:tcp://INTERFACE:PORT?files=PATH``; port * takes a free port.

    Raises
    ------
    ConfigError : if nothing can be published at this address, or if the compression is unknown.
    OutputError : if the folder cannot be made.
    """
    if compress not in {"none", "bslz4"}:
        raise ConfigError(f"this file is not compressed by {compress!r}; known: none, bslz4.")
    return BlueskySink(target, make_folder(files), compress == "bslz4")


def make_folder(files: str) -> Path:
    """Make the folder that frames are written to, and return its path.

    Raises
    ------
    OutputError : if the folder cannot be made.
    """
    try:
        Path(files).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {files}: {error.strerror}; choose another folder.") from error
    return Path(files).resolve()


class PlayedRun:
    """A run of one scan, told document by document as a RunEngine does.

    Parameters
    ----------
    scan : the scan that is played
    path : the HDF5 file that its frames are appended to
    tell : function that is given the name of each document, and the document
    """

    def __init__(self, scan: PlayedScan, path: Path, tell: Callable[[str, dict[str, Any]], None]) -> None:
        self._scan, self._tell, self._sent = scan, tell, 0
        motor, unit = (MOTOR, "deg") if scan.energy is None else (ENERGY, "eV")
        self._motor = motor
        self._run, self._descriptor, self._resource = (str(uuid.uuid4()) for _ in range(3))
        self._say("start", uid=self._run, scan_id=scan.number, num_points=scan.frames, motors=[motor], plan_name="scan")
        image = {"shape": [1, *scan.shape], "dtype": "array", "dtype_numpy": scan.dtype.str, "external": "STREAM:"}
        keys: dict[str, Any] = {DETECTOR: {"source": "emit", **image}}
        if scan.told():
            keys[motor] = {"source": "emit", "shape": [], "dtype": "number", "units": unit}
        self._say(
            "descriptor", uid=self._descriptor, run_start=self._run, name="primary", data_keys=keys, configuration={}, hints={},
            object_keys={key: [key] for key in keys},
        )  # fmt: skip
        self._tell("stream_resource", {
            "uid": self._resource, "run_start": self._run, "data_key": DETECTOR, "uri": path.as_uri(),
            "mimetype": "application/x-hdf5", "parameters": {"dataset": "/entry/data/data"},
        })  # fmt: skip

    def frame(self, index: int) -> None:
        """Tell that the next frame is in the file, and at which angle or energy frame `index` of the scan was measured."""
        first, self._sent = self._sent, self._sent + 1
        self._tell("stream_datum", {
            "uid": f"{self._resource}/{first}", "stream_resource": self._resource, "descriptor": self._descriptor,
            "indices": {"start": first, "stop": self._sent}, "seq_nums": {"start": first + 1, "stop": self._sent + 1},
        })  # fmt: skip
        told, now = [*self._scan.told(index).values()], time.time()
        data, stamps = ({self._motor: told[0]}, {self._motor: now}) if told else ({}, {})
        event = {"descriptor": self._descriptor, "seq_num": self._sent, "data": data, "timestamps": stamps, "filled": {}}
        self._say("event", uid=str(uuid.uuid4()), **event)

    def end(self, is_aborted: bool) -> None:
        """Tell that the run has ended."""
        status = "abort" if is_aborted else "success"
        self._say("stop", uid=str(uuid.uuid4()), run_start=self._run, exit_status=status, num_events={"primary": self._sent})

    def _say(self, kind: str, /, **document: Any) -> None:
        """Tell a document with its time."""
        self._tell(kind, {"time": time.time(), **document})


class RunSink:
    """A writer of the frames of runs, one run for each scan; `tell` is given their documents, as in `PlayedRun`."""

    def __init__(self, root: Path, is_compressed: bool, tell: Callable[[str, dict[str, Any]], None]) -> None:
        self._file, self._tell = GrowingSink(root, is_compressed), tell

    def begin(self, scan: PlayedScan) -> None:
        """Open a new file, and tell of the run, of its detector and of the file."""
        self._file.begin(scan)
        self._run = PlayedRun(scan, self._file.root / f"{scan.name}.h5", self._tell)

    def frame(self, index: int, image: NDArray[Any], is_whole: bool) -> None:
        """Append a frame to the file, and tell of it and of its angle; they lie in the file in the order in which they are sent."""
        self._file.frame(index, image, is_whole)
        self._run.frame(index)

    def end(self, is_aborted: bool) -> None:
        """Close the file, and tell that the run has ended."""
        self._file.end(is_aborted)
        self._run.end(is_aborted)


class BlueskySink(RunSink):
    """A publisher of the documents of runs, and a writer of their frames."""

    def __init__(self, address: str, root: Path, is_compressed: bool) -> None:
        import zmq

        super().__init__(root, is_compressed, self._publish)
        self._stop = Event()
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
            if self._socket.poll(200) and self._socket.recv()[:1] == b"\1":  # a subscription, not the end of one
                return

    def close(self) -> None:
        """Close file and socket once all documents have been received, or after 10 s."""
        self._file.close()
        self._context.destroy(linger=0 if self._stop.is_set() else 10_000)

    def _publish(self, kind: str, document: dict[str, Any]) -> None:
        """Publish a document."""
        self._socket.send(b" ".join([b"", kind.encode(), json.dumps(document).encode()]))
