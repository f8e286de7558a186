"""Simulate a DECTRIS detector that writes files: first a master file with links to data files, then the data files."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Event
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from braggshot.io.atomic import check_room, refuse_target, replacing_hdf5, sign
from braggshot.io.codecs import Codec, bitshuffle_options
from braggshot.live.simulator.player import PlayedScan

DETECTOR = "entry/instrument/detector"
"""HDF5 path of the detector's group in the master file."""


class EigerSink:
    """A writer of ``PATH/<scan>_master.h5`` and ``PATH/<scan>_data_000001.h5``, ..., compressed by bitshuffle-LZ4.

    Every frame has its own place in the data files: a repeated frame is stored once, and the place of a dropped frame stays empty.
    Of a cut frame only the first half of its compressed bytes is written. Without SWMR mode a data file is written as a whole, when
    the next data file begins or the scan ends. It is written again if one of its frames comes late.

    Parameters
    ----------
    root : folder to write into
    frames_per_file : number of frames of a data file
    is_growing : whether data files can be read while they grow, in SWMR mode
    """

    def __init__(self, root: Path, frames_per_file: int, is_growing: bool) -> None:
        self.root, self.frames_per_file, self.is_growing, self.url = root, frames_per_file, is_growing, f"folder:{root}"
        self._payloads: dict[int, dict[int, bytes]] = {}
        self._open: dict[int, h5py.File] = {}
        self._number = 0

    def wait(self, stop: Event) -> None:
        """Return without waiting until a program reads the files, because it may also read them later."""

    def begin(self, scan: PlayedScan) -> None:
        """Write the master file; the data files that it links to do not exist yet."""
        self.close()
        self.scan, self._payloads, self._number = scan, {}, 0
        self._codec = Codec("bslz4", scan.shape, scan.dtype)
        numbers = range(1, 1 - (-scan.frames // self.frames_per_file))
        for path in (self.root / f"{scan.name}_master.h5", *map(self._path, numbers)):
            refuse_target(path, scan.inputs, force=False)
        check_room(self.root, scan.frames * int(np.prod(scan.shape)) * scan.dtype.itemsize, scan.name)
        with replacing_hdf5(self.root / f"{scan.name}_master.h5") as file:
            group = file.create_group("entry/data")
            for number in numbers:
                group[f"data_{number:06d}"] = h5py.ExternalLink(self._path(number).name, "/entry/data/data")
            file[f"{DETECTOR}/description"] = "simulated"
            file[f"{DETECTOR}/detectorSpecific/nimages"] = scan.frames
            file[f"{DETECTOR}/detectorSpecific/ntrigger"] = 1
            file[f"{DETECTOR}/detectorSpecific/pixel_mask"] = np.zeros(scan.shape, np.uint32)
            if scan.rocking_angle is not None:
                file["entry/sample/goniometer/omega"] = np.rad2deg(scan.rocking_angle)
                file["entry/sample/goniometer/omega"].attrs["units"] = "degree"

    def frame(self, index: int, image: NDArray[Any], is_whole: bool) -> None:
        """Store a frame at its place; a data file is finished when a frame of the next data file comes."""
        number, place = index // self.frames_per_file + 1, index % self.frames_per_file
        payload = self._codec.encode(np.ascontiguousarray(image))
        payload = payload if is_whole else payload[: len(payload) // 2]
        if self.is_growing:
            self._append_frame(number, place, payload)
            return
        self._payloads.setdefault(number, {})[place] = payload
        if number < self._number:
            self._write_file(number)
        for finished in range(max(1, self._number), number):
            self._write_file(finished)
        self._number = max(self._number, number)

    def end(self, is_aborted: bool) -> None:
        """Finish the data files; an aborted scan gets a marker file, and no data files for frames after the abort."""
        if not self.is_growing:
            last = self._number if is_aborted else -(-self.scan.frames // self.frames_per_file)
            for number in range(max(1, self._number), last + 1):
                self._write_file(number)
        self.close()
        if is_aborted:
            (self.root / f"{self.scan.name}.aborted").touch()

    def close(self) -> None:
        """Close the data files that are open."""
        for file in self._open.values():
            file.close()
        self._open.clear()

    def _path(self, number: int) -> Path:
        """Return the path of the data file with this number."""
        return self.root / f"{self.scan.name}_data_{number:06d}.h5"

    def _frames_of(self, number: int) -> int:
        """Return the number of frames in the data file with this number."""
        return min(self.frames_per_file, self.scan.frames - (number - 1) * self.frames_per_file)

    def _make_dataset(self, file: h5py.File, number: int) -> h5py.Dataset:
        """Create the dataset of a data file, with the numbers of its first and last image."""
        shape = (self._frames_of(number), *self.scan.shape)
        chunks = (1, *self.scan.shape)
        data = file.create_dataset("entry/data/data", shape, self.scan.dtype, chunks=chunks, **bitshuffle_options())
        data.attrs["image_nr_low"] = (number - 1) * self.frames_per_file + 1
        data.attrs["image_nr_high"] = (number - 1) * self.frames_per_file + shape[0]
        return data

    def _write_file(self, number: int) -> None:
        """Write a data file so that a reader never sees a part of it; frames that did not come leave their places empty."""
        with replacing_hdf5(self._path(number)) as file:
            data = self._make_dataset(file, number)
            for place, payload in sorted(self._payloads.get(number, {}).items()):
                data.id.write_direct_chunk((place, 0, 0), payload)

    def _append_frame(self, number: int, place: int, payload: bytes) -> None:
        """Write a frame into a growing data file; the first frame of a data file creates it."""
        check_room(self.root, len(payload), self.scan.name)  # HDF5 ends the program on a full disk
        if number not in self._open:
            hidden = self._path(number).with_name(f".{self._path(number).name}")
            file = self._open[number] = h5py.File(hidden, "w", libver="latest", locking=False)
            sign(file)
            self._make_dataset(file, number)
            file.swmr_mode = True
            os.replace(hidden, self._path(number))
        data = self._open[number]["entry/data/data"]
        data.id.write_direct_chunk((place, 0, 0), payload)
        data.flush()
