"""One HDF5 file that grows: each frame once, in order, with its angle, and nothing beyond bounds."""

from __future__ import annotations

import time

import h5py
import numpy as np
import pytest

from braggshot.errors import FormatError
from braggshot.live.sources.folder import growing_hdf5 as growing
from braggshot.live.sources.folder.growing_hdf5 import GrowingFile
from braggshot.live.sources.limits import MAX_FRAMES, UnusableError

COUNTS = np.random.default_rng(2).poisson(9, (6, 5, 4)).astype(np.uint16)


class Writer:
    """A beamline's file in SWMR mode, to which the test appends."""

    def __init__(self, path):
        self.file = h5py.File(path, "w", libver="latest", locking=False)
        self.data = self.file.create_dataset("entry/data", (0, 5, 4), "u2", maxshape=(None, 5, 4), chunks=(1, 5, 4))
        self.angle = self.file.create_dataset("entry/angle", (0,), float, maxshape=(None,), chunks=(8,))
        self.file.swmr_mode = True

    def append(self, last, angles=True):
        first = len(self.data)
        for dataset, values in ((self.angle, np.arange(first, last) * 0.5), (self.data, COUNTS[first:last])):
            if dataset is self.data or angles:
                dataset.resize(last, axis=0)
                dataset[first:last] = values
            dataset.flush()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.h5"


@pytest.fixture
def writer(path):
    writer = Writer(path)
    yield writer
    writer.file.close()


def test_each_look_brings_what_is_new(path, writer):
    file = GrowingFile(path, angle="entry/angle", name="entry/data")
    assert list(file.frames()) == []
    for first, last in ((0, 2), (2, 5), (5, 5), (5, 6)):
        writer.append(last)
        found = list(file.frames())
        assert [index for index, _, _ in found] == list(range(first, last))
        for index, image, angle in found:
            np.testing.assert_array_equal(image, COUNTS[index])
            assert angle == pytest.approx(np.deg2rad(0.5 * index))
    file.close()


def test_a_damaged_block_does_not_hold_up_its_reader(tmp_path):
    """In a file made for SWMR, HDF5 by default reads a block of a wrong checksum again and again, and waits ever longer."""
    with h5py.File(tmp_path / "a.h5", "w", locking=False, libver="latest") as file:
        file["entry/data/data"] = np.ones((3, 4, 5), "u2")
        place = h5py.h5o.get_info(file["entry"].id).addr
    content = bytearray((tmp_path / "a.h5").read_bytes())
    content[place + 20] ^= 255
    (tmp_path / "a.h5").write_bytes(content)
    began = time.monotonic()
    with pytest.raises(FormatError, match="checksum"):
        list(GrowingFile(tmp_path / "a.h5", "entry/data/data").frames())
    assert time.monotonic() - began < 5


def test_it_is_complete_once_its_writer_has_closed_it(path, writer):
    file = GrowingFile(path, "entry/data")
    writer.append(3)
    assert len(list(file.frames())) == 3
    assert not file.is_complete()
    file.close()  # within one process HDF5 marks a file as closed only when all its handles are
    writer.file.close()
    assert file.is_complete()


def test_an_angle_that_is_not_there_yet_is_none(path, writer):
    writer.append(2)
    writer.append(4, angles=False)
    file = GrowingFile(path, "entry/data", "entry/angle")
    assert [angle is None for _, _, angle in file.frames()] == [False, False, True, True]
    assert [angle for _, _, angle in GrowingFile(path, "entry/data").frames()] == [None] * 4
    file.close()


def test_angles_may_be_radians(path):
    with h5py.File(path, "w", locking=False) as file:
        file["data"], file["angle"] = COUNTS, np.arange(6.0)
        file["angle"].attrs["units"] = "rad"
    assert [angle for _, _, angle in GrowingFile(path, "data", "angle").frames()] == list(range(6))


def test_blocks_change_nothing(path, monkeypatch):
    with h5py.File(path, "w", locking=False) as file:
        file["data"] = COUNTS
    monkeypatch.setattr(growing, "BLOCK_BYTES", 4 * COUNTS[0].nbytes)
    found = list(GrowingFile(path).frames())  # the only stack needs no name
    assert [index for index, _, _ in found] == list(range(6))
    np.testing.assert_array_equal([image for _, image, _ in found], COUNTS)


def test_a_file_not_made_for_following_is_opened_again_each_time(path):
    file = GrowingFile(path, "data")
    for last in (2, 6):
        with h5py.File(path, "w", locking=False) as beamline:
            beamline["data"] = COUNTS[:last]
        taken = file.taken
        assert [index for index, _, _ in file.frames()] == list(range(taken, last))
        assert not file.is_complete()  # such a file cannot tell


def test_only_frames_before_the_first_empty_place_are_written(path):
    with h5py.File(path, "w", locking=False) as file:
        data = file.create_dataset("data", (6, 5, 4), "u2", chunks=(1, 5, 4))
        data[:2], data[4] = COUNTS[:2], COUNTS[4]
        assert [growing.count_written(data, first) for first in (0, 2, 4)] == [2, 2, 5]
        whole = file.create_dataset("whole", data=COUNTS)
        assert growing.count_written(whole, 0) == 6
    assert [index for index, _, _ in GrowingFile(path, "data").frames()] == [0, 1]


def test_what_cannot_be_read_yet_is_tried_again(path):
    file = GrowingFile(path, "data")
    with pytest.raises(FormatError):
        list(file.frames())
    path.write_bytes(b"\x89HDF\r\n\x1a\nhalf a file")
    with pytest.raises(FormatError, match="cannot be read as HDF5"):
        list(file.frames())
    with h5py.File(path, "w", locking=False) as beamline:
        beamline["other"] = COUNTS
    with pytest.raises(FormatError):
        list(file.frames())
    with h5py.File(path, "w", locking=False) as beamline:
        beamline["data"] = COUNTS
    assert len(list(file.frames())) == 6


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda file: file.create_dataset("data", data=COUNTS[0]), "shape"),
        (lambda file: file.create_dataset("data", (MAX_FRAMES + 1, 2, 2), "u1", chunks=(1, 2, 2)), "shape"),
        (lambda file: file.create_dataset("data", (2, 20000, 3), "u2", chunks=(1, 20000, 3)), "oversized"),
        (lambda file: file.create_dataset("data", (5000, 300, 300), "u2", chunks=(3000, 300, 300)), "oversized"),
        (lambda file: file.create_dataset("data", data=COUNTS.astype(complex)), "type"),
        (lambda file: file.create_dataset("data", (6, 5, 4), "u1", external=[("/etc/passwd", 0, 120)]), "link"),
    ],
)  # fmt: skip
def test_what_is_no_stack_within_bounds_is_refused_before_it_is_read(path, make, reason):
    with h5py.File(path, "w", locking=False) as file:
        make(file)
    with pytest.raises(UnusableError) as refused:
        list(GrowingFile(path, "data").frames())
    assert refused.value.reason == reason


def test_a_dataset_in_another_file_is_refused(path, tmp_path):
    with h5py.File(tmp_path / "b.h5", "w", locking=False) as file:
        file["data"] = COUNTS
    with h5py.File(path, "w", locking=False) as file:
        file["data"] = h5py.ExternalLink("b.h5", "/data")
    with pytest.raises(UnusableError, match="another file") as refused:
        list(GrowingFile(path, "data").frames())
    assert refused.value.reason == "link"


def test_the_first_block_tells_who_writes(path, writer, tmp_path):
    assert growing.superblock(path)[0] >= 3
    assert growing.superblock(path)[1] & 1
    writer.file.close()
    assert not growing.superblock(path)[1] & 1
    (tmp_path / "short").write_bytes(b"\x89HDF")
    assert growing.superblock(tmp_path / "short") == growing.superblock(tmp_path / "none") == (0, 0)
