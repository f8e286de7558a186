"""Simulate a scan of BLISS: save frames in HDF5 files as Lima does, and publish the scan in a Redis server by blissdata."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from braggshot.errors import ConfigError, OutputError
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


@contextmanager
def _publishing() -> Iterator[None]:
    """Say that the server is gone, or refuses what is published, as an `OutputError`."""
    import redis

    try:
        yield
    except redis.exceptions.RedisError as error:
        raise OutputError(f"blissdata: the server does not take what is published ({str(error)[:200]}).") from error


class BlissSink:
    """A publisher of scans, and a writer of their frames; frames are saved in the order in which they come."""

    def __init__(self, address: str, store: Any, root: Path, per_file: int) -> None:
        self._store, self._root, self._per_file = store, root, per_file
        self._file: h5py.File | None = None
        self.url = f"blissdata:{address}?files={root}"

    def wait(self, stop: Event) -> None:
        """Wait for nobody: the server keeps what is published."""

    @_publishing()
    def begin(self, scan: PlayedScan) -> None:
        """Publish the scan, its axis and its detector."""
        from blissdata.streams.default import Stream
        from blissdata.streams.lima.stream import LimaStream

        check_room(self._root, scan.frames * int(np.prod(scan.shape)) * scan.dtype.itemsize, scan.name)
        self._played, self._pattern = scan, f"{scan.name}_%04d.h5"
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

    @_publishing()
    def frame(self, index: int, image: NDArray[Any], is_whole: bool) -> None:
        """Save a frame in the file that grows, and publish it with its angle; a cut frame is saved with zeros for the rest."""
        counts = image if is_whole else np.where(np.arange(len(image))[:, None] < len(image) // 2, image, 0).astype(image.dtype)
        self._save(counts)
        if self._positions is not None:
            self._positions.send(next(iter(self._played.told(index).values())))
        self._images.send({"last_index": self._count - 1, "last_index_saved": self._count - 1})

    @_publishing()
    def end(self, is_aborted: bool) -> None:
        """Close the last file, and publish that the scan has ended."""
        self.close()
        self._scan.stop()
        self._scan.info["end_reason"] = "USER_ABORT" if is_aborted else "SUCCESS"
        self._scan.close()

    def close(self) -> None:
        """Close the file that is being written; each scan was closed at its end."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _save(self, image: NDArray[Any]) -> None:
        """Append a frame to the present file, or to the next one once that is full."""
        number, inside = divmod(self._count, self._per_file)
        if inside == 0:
            self.close()
            path, size = self._root / (self._pattern % number), self._played.shape
            refuse_target(path, self._played.inputs, force=False)
            self._file = h5py.File(path, "w")
            self._file.create_dataset(DATASET, (0, *size), image.dtype, chunks=(1, *size), maxshape=(self._per_file, *size))
        assert self._file is not None
        data = self._file[DATASET]
        data.resize(inside + 1, axis=0)
        data[inside] = image
        self._file.flush()
        self._count += 1
