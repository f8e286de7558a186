"""A file whose text HDF5 would read for ever is refused, and the session goes on."""

from __future__ import annotations

import struct

import h5py
import numpy as np
import pytest

from braggshot.live.sources.folder import text_in_hdf5
from braggshot.live.sources.folder.eiger_master import read_master
from braggshot.live.sources.folder.growing_hdf5 import GrowingFile
from braggshot.live.sources.limits import UnusableError


def write(path, axis):
    with h5py.File(path, "w", locking=False, libver="latest") as file:
        file["entry/data/data"] = np.ones((3, 4, 5), np.uint16)
        file[axis] = np.arange(3.0)
        file[axis].attrs["units"] = "degree"


def damage_heap(path):
    """Write a size to the heap's first object with which the next one lies at the same place."""
    content = bytearray(path.read_bytes())
    heap = content.index(b"GCOL")
    struct.pack_into("<Q", content, heap + 24, 2**64 - 16)
    path.write_bytes(content)


@pytest.mark.parametrize("axis", ["entry/angle", "entry/sample/goniometer/omega"])
def test_text_that_never_ends_is_refused(tmp_path, monkeypatch, axis):
    path = tmp_path / "a_master.h5"
    write(path, axis)
    text_in_hdf5.refuse_endless_text(path, False)
    damage_heap(path)
    monkeypatch.setattr(text_in_hdf5, "PATIENCE", 3.0)
    with pytest.raises(UnusableError, match="without an end"):
        list(GrowingFile(path, angle=axis).frames()) if axis == "entry/angle" else read_master(path, tmp_path)


def test_a_file_is_read_by_another_process_once(tmp_path, monkeypatch):
    path, runs = tmp_path / "a.h5", []
    write(path, "entry/angle")
    monkeypatch.setattr(text_in_hdf5.subprocess, "run", lambda command, **_: runs.append(command[3]))
    for _ in range(3):
        text_in_hdf5.refuse_endless_text(path, False)
    assert runs == [str(path)]
    text_in_hdf5.refuse_endless_text(tmp_path / "none.h5", False)
    assert len(runs) == 1, "a file that is not there is left to its reader"


def test_what_cannot_be_read_is_left_to_its_reader(tmp_path):
    path = tmp_path / "a.h5"
    path.write_bytes(b"no HDF5")
    text_in_hdf5.refuse_endless_text(path, False)
