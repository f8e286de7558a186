"""Simulate a scan of BLISS: save frames in HDF5 files as Lima does, and publish the scan in a Redis server by blissdata."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from braggshot.errors import ConfigError
from braggshot.io.atomic import check_room, refuse_target
from braggshot.live.simulator.bluesky import make_folder
from braggshot.live.simulator.player import PlayedScan, Sink
from braggshot.live.sources.redis_asking import read_address

DATASET = "/entry_0000/measurement/data"
"""Where Lima puts the images in a file."""


def serve(target: str, compress: str = "none", files: str = ".", per_file: int | str = 10) -> Sink:
    """Publish in a running server, ``blissdata:redis://HOST:PORT?files=PATH``; an empty server is set up for blissdata first.

    Raises
    ------
    ConfigError : if the server does not answer, lacks the modules RedisJSON and RediSearch, or if an option cannot be used.
    OutputError : if the folder cannot be made.
    """
    import redis
    from blissdata import DataStore

    host, port = read_address(f"blissdata:{target}", target)
    if compress != "none" or not str(per_file).isdecimal() or not int(per_file):
        raise ConfigError(
            f"blissdata: files of per_file={per_file} frames with compression {compress!r}; give per_file=10 and none."
        )
    try:
        url = f"redis://{host}:{port}"
        with redis.Redis(host, port) as server:
            store = DataStore(url, init_db=not server.dbsize())
    except (redis.exceptions.RedisError, RuntimeError) as error:
        raise ConfigError(f"blissdata:{target}: cannot publish there ({str(error)[:200]}).") from error
    return BlissSink(target, store, make_folder(files), int(per_file))


class BlissSink:
    """A publisher of scans, and a writer of their frames; frames are saved in the order in which they come."""

    def __init__(self, address: str, store: Any, root: Path, per_file: int) -> None:
        self._store, self._root, self._per_file = store, root, per_file
        self.url = f"blissdata:{address}?files={root}"

    def wait(self, stop: Event) -> None:
        """Wait for nobody: the server keeps what is published."""

    def begin(self, scan: PlayedScan) -> None:
        """Publish the scan, its axis and its detector."""
        from blissdata.streams.default import Stream
        from blissdata.streams.lima.stream import LimaStream

        check_room(self._root, scan.frames * int(np.prod(scan.shape)) * scan.dtype.itemsize, scan.name)
        self._played, self._saved, self._pattern = scan, list[NDArray[Any]](), f"{scan.name}_%04d.h5"
        identity = {"name": "ascan", "number": scan.number, "data_policy": "ESRF", "session": "emit", "proposal": "emit",
                    "collection": "emit", "dataset": "emit"}  # fmt: skip
        axis, unit = ("axis:eta", "deg") if scan.energy is None else ("axis:energy", "eV")
        channels = {axis: {"unit": unit, "dim": 0}, "detector:image": {"dim": 2}}
        info = {
            "npoints": scan.frames,
            "scan_nb": scan.number,
            "type": "ascan",
            "title": scan.name,
            "channels": channels,
            "save": True,
        }
        self._scan = self._store.create_scan(identity, info=info)
        saving = {"file_offset": 0, "frames_per_file": self._per_file, "file_format": "hdf5", "data_path": DATASET}
        self._images = self._scan.create_stream(
            LimaStream.make_definition(
                "detector:image", scan.dtype, list(scan.shape), "emit/lima/1", 1, scan.frames, 0,
                saving={**saving, "file_path": str(self._root / self._pattern)},
            )
        )  # fmt: skip
        definition = Stream.make_definition(axis, float, info={"unit": unit})
        self._positions = self._scan.create_stream(definition) if scan.told() else None
        self._count = 0
        self._scan.prepare()
        self._scan.start()

    def frame(self, index: int, image: NDArray[Any], is_whole: bool) -> None:
        """Save a frame, and publish that it is saved, and its angle; a cut frame is saved with zeros for the rest."""
        counts = image if is_whole else np.where(np.arange(len(image))[:, None] < len(image) // 2, image, 0).astype(image.dtype)
        self._saved.append(counts)
        self._count += 1
        if len(self._saved) == self._per_file:
            self._write()
        if self._positions is not None:
            self._positions.send(next(iter(self._played.told(index).values())))
        self._images.send({"last_index": self._count - 1, "last_index_saved": self._count - 1 - len(self._saved)})

    def end(self, is_aborted: bool) -> None:
        """Save what is left, and publish that the scan has ended."""
        if self._saved:
            self._write()
            self._images.send({"last_index": self._count - 1, "last_index_saved": self._count - 1})
        self._scan.stop()
        self._scan.info["end_reason"] = "USER_ABORT" if is_aborted else "SUCCESS"
        self._scan.close()

    def close(self) -> None:
        """Close nothing: each scan was closed at its end."""

    def _write(self) -> None:
        """Write a file of the frames that wait; a file that is there is whole."""
        path = self._root / (self._pattern % ((self._count - 1) // self._per_file))
        refuse_target(path, self._played.inputs, force=False)
        part = path.with_suffix(".part")
        with h5py.File(part, "w") as file:
            file.create_dataset(DATASET, data=np.stack(self._saved), chunks=(1, *self._played.shape))
        part.replace(path)
        self._saved.clear()
