import errno
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from braggshot.errors import OutputError
from braggshot.io.atomic import replacing, replacing_hdf5


def fail_half_way(target, failure):
    with replacing(target) as temporary:
        temporary.write_text("half")
        raise failure


def test_a_finished_file_replaces_the_old_one_and_leaves_nothing_else(tmp_path):
    target = tmp_path / "new" / "folder" / "result.cxi"
    for text in ("old", "new"):
        with replacing(target) as temporary:
            assert temporary.parent == target.parent
            assert temporary.suffix == ".cxi"
            assert temporary.name.startswith(".")
            temporary.write_text(text)
    assert target.read_text() == "new"
    assert os.listdir(target.parent) == ["result.cxi"]


@pytest.mark.parametrize("failure", [ValueError("a bug"), KeyboardInterrupt()])
def test_a_failure_removes_the_part_and_keeps_the_old_file(tmp_path, failure):
    target = tmp_path / "result.cxi"
    target.write_text("old")
    with pytest.raises(type(failure)):
        fail_half_way(target, failure)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["result.cxi"]


@pytest.mark.parametrize(
    ("number", "advice"), [(errno.ENOSPC, "free some space"), (errno.EACCES, "may write to"), (errno.EIO, "another folder")]
)
def test_a_failing_disk_is_one_line_that_says_what_to_do(tmp_path, number, advice):
    with pytest.raises(OutputError, match=advice) as caught:
        fail_half_way(tmp_path / "result.cxi", OSError(number, os.strerror(number)))
    assert os.strerror(number) in str(caught.value)
    assert "result.cxi" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_refuses(tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with (
        pytest.raises(OutputError, match="Permission denied; choose a folder that you may write to"),
        replacing(tmp_path / "a" / "b"),
    ):
        pytest.fail("the body must not run")


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="a part of this path is a file"), replacing(tmp_path / "file" / "result.cxi"):
        pytest.fail("the body must not run")


def test_a_folder_where_the_file_should_be(tmp_path):
    (tmp_path / "result.cxi").mkdir()
    with pytest.raises(OutputError, match="give a file name"), replacing(tmp_path / "result.cxi") as temporary:
        temporary.write_text("whole")
    assert os.listdir(tmp_path) == ["result.cxi"]


def test_hdf5_appears_whole(tmp_path):
    with replacing_hdf5(tmp_path / "result.cxi") as file:
        file["data"] = np.arange(5)
        assert not (tmp_path / "result.cxi").exists()
    with h5py.File(tmp_path / "result.cxi") as file:
        assert file["data"][()].tolist() == [0, 1, 2, 3, 4]


def test_hdf5_on_a_full_disk(tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left on device; free some space"), replacing_hdf5(tmp_path / "x.cxi") as file:
        file["data"] = np.arange(5)
    assert os.listdir(tmp_path) == []


def test_hdf5_that_is_interrupted_leaves_nothing(tmp_path):
    def write():
        with replacing_hdf5(tmp_path / "x.cxi") as file:
            file["data"] = np.arange(5)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert os.listdir(tmp_path) == []
