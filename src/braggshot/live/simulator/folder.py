"""Simulate a detector that writes files: TIFF images with a marker, one HDF5 file that grows in SWMR mode, or DECTRIS files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from threading import Event
from typing import Any

import h5py
import numpy as np
import tifffile
from numpy.typing import NDArray

from braggshot.errors import ConfigError, OutputError
from braggshot.io.atomic import check_room, refuse_target, replacing, sign
from braggshot.live.simulator.player import PlayedScan, Sink


def serve(target: str, hdf5: bool | str = False, compress: str = "", eiger: int | str = 0, swmr: bool | str = False) -> Sink:
    """Open the simulated detector for ``folder:PATH``.

    ``?eiger=16`` writes a master file and data files of 16 frames. With ``&swmr=1`` data files can be read while they grow.

    Raises
    ------
    ConfigError : for a compression that the files cannot have, or if options contradict each other. TIFF images are never
        compressed. A growing HDF5 file may be compressed by bitshuffle-LZ4 ("bslz4"). DECTRIS files always are.
    OutputError : if the folder cannot be made.
    """
    is_growing, is_followed = (str(value).lower() in {"true", "1", "yes"} for value in (hdf5, swmr))
    if not str(eiger).isdecimal() or (is_followed and not int(eiger)) or (is_growing and int(eiger)):
        raise ConfigError(
            f"eiger={eiger}: give the frames of a data file, such as eiger=100; swmr=1 goes with it, --hdf5 does not."
        )
    allowed = {"", "bslz4"} if int(eiger) else {"", "none", "bslz4"} if is_growing else {"", "none"}
    if compress not in allowed:
        raise ConfigError(f"a folder cannot be written with compression {compress!r}; with --hdf5 or eiger= there is bslz4.")
    try:
        Path(target).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {target}: {error.strerror}; choose another folder.") from error
    if int(eiger):
        from braggshot.live.simulator.eiger_files import EigerSink

        return EigerSink(Path(target), int(eiger), is_followed)
    return GrowingSink(Path(target), compress == "bslz4") if is_growing else ImageSink(Path(target))


class ImageSink:
    """A writer of images ``PATH/<scan>/<scan>_00012.tif``.

    The plan of the scan (.json) is written first, and a marker of its end (.done or .aborted) last.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.url = root, f"folder:{root}"
        self._sent: set[int] = set()

    def wait(self, stop: Event) -> None:
        """Return immediately; a program that reads the images may start later."""

    def begin(self, scan: PlayedScan) -> None:
        """Make the folder of the scan, and write its plan: name, number of frames and rocking angles."""
        self.base, self._inputs = self.root / scan.name / scan.name, scan.inputs
        note = self.base.with_name(f"{scan.name}.json")
        refuse_target(note, scan.inputs, force=False)
        if not note.exists() and self.base.parent.is_dir() and any(self.base.parent.iterdir()):
            raise OutputError(f"{self.base.parent} holds files that were not emitted; choose another folder.")
        check_room(self.root, int(np.prod(scan.shape)) * scan.dtype.itemsize, "a frame")
        self._sent.clear()
        plan = {"program": "braggshot", "scan": scan.name, "frames": scan.frames, "first": 0, **scan.told()}
        _write_whole(note, json.dumps(plan).encode())

    def frame(self, index: int, image: NDArray[Any], is_whole: bool) -> None:
        """Write a frame so that a reader never sees a part of it.

        A frame that is sent twice gets another name the second time. Of a frame that is cut on purpose, half of the file is kept.
        """
        digits = 7 if index in self._sent else 5
        self._sent.add(index)
        path = self.base.with_name(f"{self.base.name}_{index:0{digits}d}.tif")
        refuse_target(path, self._inputs)
        with replacing(path) as hidden:
            tifffile.imwrite(hidden, image, metadata=None)
            if not is_whole:
                os.truncate(hidden, hidden.stat().st_size // 2)

    def end(self, is_aborted: bool) -> None:
        """Write the marker that ends the scan."""
        _write_whole(self.base.with_name(f"{self.base.name}.{'aborted' if is_aborted else 'done'}"), b"")

    def close(self) -> None:
        """Do nothing; this writer has no open file, since each image file is closed once it is written."""


class GrowingSink:
    """A writer of a file ``PATH/<scan>.h5`` that grows frame by frame.

    The file holds ``entry/data/data`` (frames, rows, columns) and ``entry/data/angle`` [deg].

    All frames are appended in the order in which they are sent, even late, repeated and cut frames. The second half of a cut
    frame is zero.
    """

    def __init__(self, root: Path, is_compressed: bool) -> None:
        self.root, self.url, self.is_compressed = root, f"folder:{root}", is_compressed
        self._file: h5py.File | None = None

    def wait(self, stop: Event) -> None:
        """Return immediately; a program that reads the images may start later."""

    def begin(self, scan: PlayedScan) -> None:
        """Open a new file, and write the name and number of frames of the scan into a JSON file beside it."""
        from braggshot.io.codecs import bitshuffle_options

        self.close()
        self.scan, path = scan, self.root / f"{scan.name}.h5"
        refuse_target(path, scan.inputs, force=False)
        rows, columns = scan.shape
        check_room(self.root, scan.frames * rows * columns * scan.dtype.itemsize, scan.name)
        note = {"program": "braggshot", "scan": scan.name, "frames": scan.frames}
        _write_whole(path.with_suffix(".json"), json.dumps(note).encode())
        self._file = h5py.File(path, "w", libver="latest", locking=False)
        sign(self._file)
        group = self._file.create_group("entry/data")
        options = bitshuffle_options() if self.is_compressed else {}
        group.create_dataset(
            "data", (0, rows, columns), scan.dtype, maxshape=(None, rows, columns), chunks=(1, rows, columns), **options
        )
        angles = group.create_dataset("angle", (0,), float, maxshape=(None,), chunks=(64,))
        angles.attrs["units"] = "deg" if scan.energy is None else "eV"
        self._file.swmr_mode = True

    def frame(self, index: int, image: NDArray[Any], is_whole: bool) -> None:
        """Append the rocking angle or energy before the frame, so that a reader finds the angle of every frame in the file."""
        assert self._file is not None
        check_room(self.root, image.nbytes, self.scan.name)  # HDF5 ends the program on a full disk
        group = self._file["entry/data"]
        count = group["data"].shape[0]
        group["angle"].resize(count + 1, axis=0)
        group["angle"][count] = next(iter(self.scan.told(index).values()), np.nan)
        group["angle"].flush()
        group["data"].resize(count + 1, axis=0)
        group["data"][count] = image if is_whole else np.where(np.arange(len(image))[:, None] < len(image) // 2, image, 0)
        group["data"].flush()

    def end(self, is_aborted: bool) -> None:
        """Close the file, which tells a reader that the scan is over; if the scan is aborted, write a marker file first."""
        if is_aborted:
            _write_whole(self.root / f"{self.scan.name}.aborted", b"")
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader never sees a part of it."""
    with replacing(path) as hidden:
        hidden.write_bytes(content)
