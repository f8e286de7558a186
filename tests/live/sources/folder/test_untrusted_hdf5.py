"""Files of unknown origin: only data that a file holds itself are read, and one damaged frame costs no other."""

from __future__ import annotations

import h5py
import hdf5plugin
import numpy as np
import pytest

from braggshot.live.sources.decoding import ImageDecoder
from braggshot.live.sources.folder import untrusted_hdf5 as untrusted
from braggshot.live.sources.limits import MAX_FRAMES, UnusableError

COUNTS = np.random.default_rng(1).poisson(9, (7, 6, 5)).astype(np.uint16)
BITSHUFFLE = dict(hdf5plugin.Bitshuffle(cname="lz4"))


@pytest.fixture
def file(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w", locking=False) as file:
        yield file


def frames_of(data, indices=range(7)):
    return dict(untrusted.read_frames(data, list(indices), ImageDecoder()))


def test_a_dataset_is_reached_by_hard_links_only(file, tmp_path):
    file["entry/data"] = COUNTS
    with h5py.File(tmp_path / "b.h5", "w", locking=False) as other:
        other["entry/data"] = COUNTS
    file["soft"] = h5py.SoftLink("/entry/data")
    file["outside"] = h5py.ExternalLink("b.h5", "/entry/data")
    file["group"] = h5py.ExternalLink("b.h5", "/entry")
    file["hard"] = file["entry/data"]
    assert untrusted.own_dataset(file, "/entry/data").shape == untrusted.own_dataset(file, "hard").shape == (7, 6, 5)
    for name in ("soft", "outside", "group/data", "entry", "entry/none", "none/data", "entry/data/deeper", ""):
        assert untrusted.own_dataset(file, name) is None
    assert untrusted.own_group(file, "entry").name == "/entry"
    assert untrusted.own_group(file, "group") is None
    assert untrusted.own_group(file, "entry/data") is None


def test_data_that_lie_in_other_files_are_refused(file):
    layout = h5py.VirtualLayout((7, 6, 5), "u2")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "data", (7, 6, 5))
    file.create_virtual_dataset("virtual", layout)
    file.create_dataset("external", (7, 6, 5), "u1", external=[("/etc/passwd", 0, 210)])
    for name in ("virtual", "external"):
        with pytest.raises(UnusableError) as refused:
            untrusted.own_dataset(file, name)
        assert refused.value.reason == "link"


def test_one_integer_is_read_and_nothing_else(file):
    for name, value in {"scalar": 5, "one": [5], "two": [5, 6], "real": 5.0, "text": "5", "none": h5py.Empty("i4")}.items():
        file[name] = value
    names = ("scalar", "one", "two", "real", "text", "none", "absent")
    assert [untrusted.integer_in(file, name) for name in names] == [5, 5, None, None, None, None, None]


def test_an_attribute_is_the_number_of_an_image_or_none(file):
    data = file.create_dataset("data", data=COUNTS)
    attributes = {"good": 3, "array": [3], "two": [3, 4], "real": 3.0, "below": -1, "large": 2 * MAX_FRAMES + 1, "text": "3"}
    data.attrs.update(attributes)
    found = {name: untrusted.integer_attribute(data, name) for name in [*attributes, "absent"]}
    assert {name: value for name, value in found.items() if value is not None} == {"good": 3, "array": 3}


@pytest.mark.parametrize("chunks", [(1, 6, 5), (1, 4, 5)])
def test_a_frame_that_is_only_allocated_was_not_written(file, chunks):
    data = file.create_dataset("data", (7, 6, 5), "u2", chunks=chunks)
    data[2], data[5] = COUNTS[2], COUNTS[5]
    assert np.flatnonzero(untrusted.written_frames(data)).tolist() == [2, 5]
    if chunks == (1, 4, 5):
        data[3, :4] = COUNTS[3, :4]  # one of two chunks
        assert not untrusted.written_frames(data)[3]


def test_without_a_chunk_for_each_frame_all_count_as_written(file):
    assert untrusted.written_frames(file.create_dataset("whole", data=COUNTS)).all()
    assert untrusted.written_frames(file.create_dataset("thick", (7, 6, 5), "u2", chunks=(2, 6, 5))).all()


@pytest.mark.parametrize(
    "options",
    [
        {"chunks": None},
        {"chunks": (3, 6, 5)},
        {"chunks": (1, 3, 5), "compression": "gzip"},
        {"chunks": (1, 6, 5), **BITSHUFFLE},
        {"chunks": (1, 6, 5), "dtype": ">u2", **BITSHUFFLE},
        {"chunks": (1, 6, 5), **hdf5plugin.LZ4()},
        {"chunks": (1, 6, 5), "shuffle": True, **hdf5plugin.Bitshuffle(cname="zstd")},
    ],
)  # fmt: skip
def test_frames_are_exact_however_they_are_stored(file, options):
    data = file.create_dataset("data", data=COUNTS, **options)
    found = frames_of(data, [0, 1, 4, 6])
    assert list(found) == [0, 1, 4, 6]
    for index, image in found.items():
        assert image.dtype.isnative or "dtype" not in options
        np.testing.assert_array_equal(image, COUNTS[index])
    assert frames_of(data, []) == {}


def test_frames_are_read_in_blocks_of_neighbours(file, monkeypatch):
    monkeypatch.setattr(untrusted, "BLOCK_BYTES", 2 * 60)  # two frames
    found = frames_of(file.create_dataset("data", data=COUNTS), [0, 1, 2, 5, 6])
    assert list(found) == [0, 1, 2, 5, 6]
    for index, image in found.items():
        np.testing.assert_array_equal(image, COUNTS[index])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda whole: b"no frame at all", "truncated"),
        (lambda whole: whole[: len(whole) // 2], "truncated"),
        (lambda whole: (2**40).to_bytes(8, "big") + whole[8:], "truncated"),  # claims to be a terabyte
        (lambda whole: whole[:16] + b"\xff" * (len(whole) - 16), "damaged"),
        (lambda whole: bytes(100_000), "oversized"),
    ],
)  # fmt: skip
def test_a_damaged_frame_is_an_error_and_costs_no_other(file, spoil, reason):
    data = file.create_dataset("data", data=COUNTS, chunks=(1, 6, 5), **BITSHUFFLE)
    data.id.write_direct_chunk((3, 0, 0), spoil(data.id.read_direct_chunk((3, 0, 0))[1]))
    found = frames_of(data)
    damaged = found.pop(3)
    assert isinstance(damaged, UnusableError)
    assert damaged.reason == reason
    assert list(found) == [0, 1, 2, 4, 5, 6]
    for index, image in found.items():
        np.testing.assert_array_equal(image, COUNTS[index])


def test_a_frame_whose_filter_was_skipped_is_read_as_it_is(file):
    data = file.create_dataset("data", data=COUNTS, chunks=(1, 6, 5), **BITSHUFFLE)
    data.id.write_direct_chunk((3, 0, 0), COUNTS[4].tobytes(), filter_mask=1)
    file.flush()  # h5py tells of the filter only then
    np.testing.assert_array_equal(frames_of(data, [3])[3], COUNTS[4])
