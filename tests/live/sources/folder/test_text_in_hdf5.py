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


def test_the_next_file_is_read_after_one_that_never_ended(tmp_path, monkeypatch):
    good, bad = tmp_path / "good.h5", tmp_path / "bad.h5"
    for path in (good, bad):
        write(path, "entry/angle")
    damage_heap(bad)
    monkeypatch.setattr(text_in_hdf5, "PATIENCE", 3.0)
    with pytest.raises(UnusableError, match="without an end"):
        text_in_hdf5.refuse_endless_text(bad, False)
    monkeypatch.undo()
    text_in_hdf5.refuse_endless_text(good, False)


def test_files_are_read_by_one_other_process_and_each_once(tmp_path, monkeypatch):
    paths, asked = [tmp_path / name for name in ("a.h5", "b.h5")], []
    for path in paths:
        write(path, "entry/angle")
    text_in_hdf5.refuse_endless_text(paths[0], False)
    process = text_in_hdf5._other_process._process
    text_in_hdf5.refuse_endless_text(paths[1], False)
    assert text_in_hdf5._other_process._process is process
    assert process.poll() is None
    monkeypatch.setattr(text_in_hdf5._other_process, "read", lambda path, is_swmr: asked.append(path))
    text_in_hdf5.refuse_endless_text(paths[1], False)
    text_in_hdf5.refuse_endless_text(tmp_path / "none.h5", False)
    assert asked == [], "it knows the one, and leaves a file that is not there to its reader"


@pytest.mark.parametrize(("ending", "is_refused"), [("os.kill(os.getpid(), 11)", True), ("sys.exit(1)", False)])
def test_a_file_that_crashes_hdf5_is_refused_and_one_that_fails_is_left_to_its_reader(tmp_path, monkeypatch, ending, is_refused):
    path = tmp_path / "a.h5"
    write(path, "entry/angle")
    text_in_hdf5._other_process.stop()
    monkeypatch.setattr(text_in_hdf5, "_READ", f"import os, sys; sys.stdin.readline(); {ending}")
    if is_refused:
        with pytest.raises(UnusableError, match="crashes"):
            text_in_hdf5.refuse_endless_text(path, False)
    else:
        text_in_hdf5.refuse_endless_text(path, False)
    monkeypatch.undo()
    assert text_in_hdf5._other_process.read(path, False) is None, "another process was started"


def test_what_cannot_be_read_is_left_to_its_reader(tmp_path):
    path = tmp_path / "a.h5"
    path.write_bytes(b"no HDF5")
    text_in_hdf5.refuse_endless_text(path, False)
