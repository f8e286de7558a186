"""The files of a DECTRIS detector, while they appear."""

from __future__ import annotations

import os
import threading
import time
from threading import Event

import h5py
import hdf5plugin
import numpy as np
import pytest
from played import assert_equal, listen, playing, toy_scan

from braggshot.errors import ConfigError
from braggshot.io import registry
from braggshot.live.messages import Arrived, Begin, Dropped, End
from braggshot.live.simulator.faults import Faults, fault_plan
from braggshot.live.simulator.player import open_sink
from braggshot.live.sources.folder import eiger_master as masters
from braggshot.live.sources.folder.eiger_files import FileSet
from braggshot.live.sources.registry import open_source

COUNTS = toy_scan().frames[:]
QUICK = "settle=0.3&timeout=20"


def write_master(
    folder, links=("a_data_000001.h5", "a_data_000002.h5", "a_data_000003.h5"), name="a", frames=None, mask=None, **more
):
    path = folder / f".{name}_master.h5"
    with h5py.File(path, "w", locking=False) as file:
        file.create_group("entry/instrument/detector")
        group = file.create_group("entry/data")
        for number, target in enumerate(links, 1):
            group[f"data_{number:06d}"] = h5py.ExternalLink(target, "/entry/data/data")
        for key, value in {"nimages": frames, "pixel_mask": mask}.items():
            if value is not None:
                file[f"entry/instrument/detector/detectorSpecific/{key}"] = value
        for key, value in more.items():
            file[f"entry/sample/goniometer/{key}"] = value
    os.replace(path, folder / f"{name}_master.h5")


# Files are written without a lock here: a process that the watched source starts meanwhile carries the lock on for a moment, and
# the same file could not be opened again. (A camera is another process: its locks are not carried on.)
def write_data(folder, number, name="a", each=4, low=True, counts=COUNTS, **options):
    path = folder / f".{name}_data_{number:06d}.h5"
    with h5py.File(path, "w", locking=False) as file:
        options = options or {"chunks": (1, 20, 31), **hdf5plugin.Bitshuffle(cname="lz4")}
        data = file.create_dataset("entry/data/data", data=counts[(number - 1) * each : number * each], **options)
        if low:
            data.attrs["image_nr_low"] = (number - 1) * each + 1
    target = folder / f"{name}_data_{number:06d}.h5"
    os.replace(path, target)
    return target


@pytest.fixture
def made(tmp_path_factory):
    """Where files are made that nobody looks at yet."""
    return tmp_path_factory.mktemp("made")


def said(folder, options=QUICK):
    """Messages as they come; the test decides what happens in between."""
    stop = Event()
    threading.Timer(30, stop.set).start()
    return (message for message in open_source(f"folder:{folder}?{options}").messages(stop) if message is not None)


def several(messages, count):
    return [next(messages) for _ in range(count)]


def indices(messages):
    return [message.frame.index for message in messages if isinstance(message, Arrived)]


@pytest.mark.parametrize("options", ["eiger=5", "eiger=5&swmr=1", "eiger=100", "eiger=1"])
def test_every_frame_arrives_as_it_was_sent(tmp_path, options):
    scan = toy_scan()
    sink = open_sink(f"folder:{tmp_path}?{options}")
    heard = listen(open_source(f"folder:{tmp_path}"), playing(scan, sink, repeat=2), scans=2)
    assert heard.ends == [End("toy_0001"), End("toy_0002")]
    assert not heard.lost
    for begin in heard.begins:
        assert begin.frames == 12
        assert begin.about.valid.all()
        np.testing.assert_allclose(begin.rocking_angle, scan.rocking_angle)
        assert_equal(heard, scan, begin.scan)
        offline = registry.read(tmp_path / f"{begin.scan}_master.h5")
        np.testing.assert_array_equal(offline.frames[:], [heard.frames(begin.scan)[index].image for index in range(12)])


def test_no_file_counts_as_missing_while_the_folder_is_away(tmp_path):
    playing(toy_scan(), open_sink(f"folder:{tmp_path / 'run'}?eiger=3"))()
    last = tmp_path / "run" / "toy_0001_data_000004.h5"
    last.rename(tmp_path / "last")
    files = FileSet(tmp_path / "run", tmp_path / "run" / "toy_0001_master.h5", settle=0.0)
    assert [found[0] for found in files.new_frames()] == list(range(9))
    (tmp_path / "run").rename(tmp_path / "away")
    assert list(files.new_frames()) == []
    assert not files.is_quiet()
    (tmp_path / "away").rename(tmp_path / "run")
    (tmp_path / "last").rename(last)
    assert [found[0] for found in files.new_frames()] == [9, 10, 11]


@pytest.mark.parametrize("options", ["eiger=7", "eiger=7&swmr=1"])
def test_faults_are_counted(tmp_path, options):
    scan, faults = toy_scan(60), Faults(drop=0.1, duplicate=0.1, reorder=0.1, late=0.05, truncate=0.1)
    plan = fault_plan(60, faults, 5)
    whole = {action.frame for action in plan if action.kind == "frame"}
    cut = {action.frame for action in plan if action.kind == "truncated"} - whole
    sink = open_sink(f"folder:{tmp_path}?{options}")
    heard = listen(open_source(f"folder:{tmp_path}?{QUICK}"), playing(scan, sink, faults, 5))
    assert set(heard.frames("toy_0001")) == whole
    for index, frame in heard.frames("toy_0001").items():
        np.testing.assert_array_equal(frame.image, scan.frames[index])
    assert len(cut) <= heard.lost["truncated"] <= sum(action.kind == "truncated" for action in plan)
    assert set(heard.lost) == {"truncated"}


@pytest.mark.parametrize("options", ["eiger=3", "eiger=3&swmr=1"])
def test_an_aborted_scan_is_followed_by_the_whole_one(tmp_path, options):
    scan = toy_scan()
    sink = open_sink(f"folder:{tmp_path}?{options}")
    heard = listen(open_source(f"folder:{tmp_path}?{QUICK}"), playing(scan, sink, Faults(abort=4)), scans=2)
    assert heard.ends == [End("toy_0001", "the scan was aborted"), End("toy_0002")]
    assert sorted(heard.frames("toy_0001")) == [0, 1, 2, 3]
    assert_equal(heard, scan, "toy_0002")


def test_a_dead_detector_is_noticed(tmp_path):
    play = playing(toy_scan(), open_sink(f"folder:{tmp_path}?eiger=2"), Faults(dead=5))
    heard = listen(open_source(f"folder:{tmp_path}?settle=0.3&timeout=1"), play)
    assert heard.ends == [End("toy_0001", "nothing came for 1 s after frame 4 of 12")]


def test_frames_come_with_each_file(tmp_path):
    mask = np.zeros((20, 31), np.uint32)
    mask[3, 4] = 8
    messages = said(tmp_path)
    write_master(tmp_path, frames=12, mask=mask, omega=np.zeros(12), chi=np.linspace(5, 6, 12))
    write_data(tmp_path, 1)
    begin, *frames = several(messages, 5)
    assert (begin.scan, begin.frames) == ("a", 12)
    np.testing.assert_array_equal(begin.about.valid, mask == 0)
    np.testing.assert_allclose(np.rad2deg(begin.rocking_angle), np.linspace(5, 6, 12))
    assert indices(frames) == [0, 1, 2, 3]
    write_data(tmp_path, 2)
    assert indices(several(messages, 4)) == [4, 5, 6, 7]
    write_data(tmp_path, 3)
    *frames, end = several(messages, 5)
    assert indices(frames) == [8, 9, 10, 11]
    assert end == End("a")


@pytest.mark.parametrize("low", [True, False])
def test_a_file_that_is_missing_is_a_gap(tmp_path, low):
    def play():
        write_master(tmp_path, frames=12)
        for number in (1, 3):
            write_data(tmp_path, number, low=low)
        (tmp_path / "a.done").touch()

    heard = listen(open_source(f"folder:{tmp_path}?{QUICK}"), play)
    assert sorted(heard.frames("a")) == [0, 1, 2, 3, 8, 9, 10, 11]
    for index, frame in heard.frames("a").items():
        np.testing.assert_array_equal(frame.image, COUNTS[index])
    assert heard.lost == {"missing": 1}
    assert heard.ends == [End("a")]


def test_a_file_that_comes_out_of_order_is_waited_for(tmp_path):
    messages = said(tmp_path, "settle=3")
    write_master(tmp_path, frames=12)
    write_data(tmp_path, 2)
    threading.Timer(0.3, write_data, (tmp_path, 1)).start()
    _, *frames = several(messages, 9)
    assert indices(frames) == [*range(8)]


def test_a_file_that_was_missing_is_taken_when_it_comes(tmp_path):
    messages = said(tmp_path, "settle=0.1")
    write_master(tmp_path, frames=12)
    for number in (2, 3):
        write_data(tmp_path, number)
    lost, begin, *frames = several(messages, 10)
    assert (lost, begin.scan) == (Dropped("missing", "a_data_000001.h5"), "a")
    assert indices(frames) == [*range(4, 12)]
    write_data(tmp_path, 1)
    *frames, end = several(messages, 5)
    assert indices(frames) == [*range(4)]
    assert end == End("a")


def test_a_file_is_tried_again_until_it_does_not_change(tmp_path):
    messages = said(tmp_path, "settle=5")
    content = write_data(tmp_path, 1).read_bytes()
    (tmp_path / "a_data_000001.h5").write_bytes(content[: len(content) // 2])
    write_master(tmp_path, frames=12)
    write_data(tmp_path, 2)
    threading.Timer(0.5, (tmp_path / "a_data_000001.h5").write_bytes, (content,)).start()
    begin, *frames = several(messages, 9)
    assert isinstance(begin, Begin)
    assert indices(frames) == [*range(8)]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: os.truncate(path, path.stat().st_size // 2), "unreadable"),
        (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\nnothing of the kind"), "unreadable"),
        (lambda path: path.write_bytes(b""), "unreadable"),
        (lambda path: rewrite(path, lambda file: file.create_dataset("entry/data/other", data=COUNTS)), "unreadable"),
        (lambda path: rewrite(path, lambda file: file.create_dataset("entry/data/data", data=COUNTS[0])), "shape"),
        (lambda path: rewrite(path, lambda file: file.create_dataset("entry/data/data", data=COUNTS.astype(complex))), "type"),
        (lambda path: rewrite(path, large), "oversized"),
        (lambda path: rewrite(path, linked("/elsewhere.h5")), "unreadable"),
        (lambda path: rewrite(path, virtual), "link"),
        (lambda path: rewrite(path, external), "link"),
    ],
)
def test_a_file_that_cannot_be_read_is_counted_and_dropped(tmp_path, spoil, reason):
    folder = tmp_path / "watched"
    folder.mkdir()

    def play():
        write_master(folder, frames=12)
        write_data(folder, 1)
        path = write_data(tmp_path, 2)
        spoil(path)
        os.replace(path, folder / path.name)
        write_data(folder, 3)

    heard = listen(open_source(f"folder:{folder}?{QUICK}"), play)
    assert sorted(heard.frames("a")) == [0, 1, 2, 3, 8, 9, 10, 11]
    assert heard.lost == {reason: 1}
    assert heard.ends == [End("a")]  # all files are there: nothing more is expected


def rewrite(path, change):
    with h5py.File(path, "w", locking=False) as file:
        change(file)


def linked(target):
    return lambda file: file.__setitem__("entry/data/data", h5py.ExternalLink(target, "/entry/data/data"))


def large(file):
    file.create_dataset("entry/data/data", (4, 20000, 3), "u2", chunks=True)


def virtual(file):
    layout = h5py.VirtualLayout((4, 20, 31), "u2")
    layout[:] = h5py.VirtualSource("/elsewhere.h5", "data", (4, 20, 31))
    file.create_virtual_dataset("entry/data/data", layout)


def external(file):
    file.create_dataset("entry/data/data", (4, 20, 31), "u1", external=[("/etc/passwd", 0, 2480)])


@pytest.mark.parametrize("way", ["../b_data_000001.h5", "absolute", "symbolic"])
def test_a_link_that_leaves_the_folder_is_refused(tmp_path, way):
    folder = tmp_path / "watched"
    folder.mkdir()
    outside = write_data(tmp_path, 1, "b")
    if way == "symbolic":
        (folder / "a_data_000002.h5").symlink_to(outside)
    link = {"absolute": str(outside), "symbolic": "a_data_000002.h5"}.get(way, way)

    def play():
        write_master(folder, ["a_data_000001.h5", link, "a_data_000003.h5"], frames=12)
        for number in (1, 3):
            write_data(folder, number)
        (folder / "a.done").touch()

    heard = listen(open_source(f"folder:{folder}?{QUICK}"), play)
    assert sorted(heard.frames("a")) == [0, 1, 2, 3, 8, 9, 10, 11]
    assert heard.lost["link"] >= 1
    assert set(heard.lost) == {"link"}


def test_links_below_the_folder_are_followed(tmp_path):
    (tmp_path / "data").mkdir()

    def play():
        write_master(tmp_path, ["data/a_data_000001.h5", str(tmp_path / "data" / "a_data_000002.h5")], frames=8)
        for number in (1, 2):
            write_data(tmp_path / "data", number)
        write_master(tmp_path, ["b_data_000001.h5"], "b", frames=4)
        write_data(tmp_path, 1, "b")

    heard = listen(open_source(f"folder:{tmp_path}?{QUICK}"), play, scans=2)
    assert [begin.scan for begin in heard.begins] == ["a", "b"]
    assert sorted(heard.frames("a")) == [*range(8)]
    assert not heard.lost


def test_data_files_that_are_listed_before_the_master_in_another_folder_belong_to_it(tmp_path):
    (tmp_path / "data").mkdir()
    data = [write_data(tmp_path / "data", number) for number in (1, 2)]
    write_master(tmp_path, ["data/a_data_000001.h5", "data/a_data_000002.h5"], frames=8)
    source = open_source(f"folder:{tmp_path}?{QUICK}")
    messages = [*source.take_files(data), *source.take_files([tmp_path / "a_master.h5"]), *source.take_files([])]
    assert [message.scan for message in messages if isinstance(message, (Begin, End))] == ["a", "a"]
    assert not [message for message in messages if isinstance(message, Dropped)]


@pytest.mark.parametrize("content", [None, b"\x89HDF\r\n\x1a\nnothing of the kind"])
def test_a_set_without_its_master_is_taken_after_a_while(tmp_path, content):
    def play():
        if content:
            (tmp_path / "a_master.h5").write_bytes(content)
        for number in (1, 2):
            write_data(tmp_path, number)
        (tmp_path / "a.done").touch()

    heard = listen(open_source(f"folder:{tmp_path}?settle=0.1"), play)
    assert sorted(heard.frames("a")) == [*range(8)]
    assert heard.lost == ({"unreadable": 1} if content else {})
    assert heard.begins[0].frames is None


def test_a_master_may_hold_the_frames(tmp_path):
    for name, path in (("a", "data_000001"), ("b", "data")):
        with h5py.File(tmp_path / f"{name}_master.h5", "w", locking=False) as file:
            file[f"entry/data/{path}"] = COUNTS
            file["entry/instrument/detector/detectorSpecific/nimages"] = 12
    heard = listen(open_source(f"folder:{tmp_path}?{QUICK}"), lambda: None, scans=2)
    for name in ("a", "b"):
        np.testing.assert_array_equal([heard.frames(name)[index].image for index in range(12)], COUNTS)


@pytest.mark.parametrize(
    "options",
    [
        {"chunks": None},
        {"chunks": (4, 20, 31)},
        {"chunks": (1, 7, 31), "compression": "gzip"},
        {"chunks": (1, 20, 31), "dtype": ">u2", **hdf5plugin.Bitshuffle(cname="lz4")},
        {"chunks": (1, 20, 31), **hdf5plugin.Bitshuffle(cname="zstd")},
        {"chunks": (1, 20, 31), **hdf5plugin.LZ4()},
    ],
)
def test_frames_are_read_however_they_are_stored(tmp_path, options):
    def play():
        write_master(tmp_path, frames=12)
        for number in (1, 2, 3):
            write_data(tmp_path, number, **options)

    heard = listen(open_source(f"folder:{tmp_path}?{QUICK}"), play)
    assert not heard.lost
    np.testing.assert_array_equal([heard.frames("a")[index].image for index in range(12)], COUNTS)


def test_a_frame_that_is_damaged_costs_no_other(tmp_path, made):
    def play():
        write_master(tmp_path, frames=12)
        for number in (1, 2, 3):
            path = write_data(made, number)
            with h5py.File(path, "a", locking=False) as file:
                file["entry/data/data"].id.write_direct_chunk((1, 0, 0), b"no frame at all")
            os.replace(path, tmp_path / path.name)

    heard = listen(open_source(f"folder:{tmp_path}?{QUICK}"), play)
    assert sorted(heard.frames("a")) == [0, 2, 3, 4, 6, 7, 8, 10, 11]
    assert sum(heard.lost.values()) == 3


def test_the_first_image_may_have_any_number(tmp_path, made):
    def play():
        write_master(tmp_path, frames=12)
        for number in (1, 2, 3):
            path = write_data(made, number)
            with h5py.File(path, "a", locking=False) as file:
                file["entry/data/data"].attrs["image_nr_low"] = 1000 + 4 * number
            os.replace(path, tmp_path / path.name)

    heard = listen(open_source(f"folder:{tmp_path}?{QUICK}"), play)
    assert sorted(heard.frames("a")) == [*range(12)]


def test_a_note_goes_over_the_master(tmp_path):
    def play():
        (tmp_path / "a.json").write_text('{"scan": "other", "frames": 4}')
        write_master(tmp_path, frames=12, omega=np.arange(12.0))
        write_data(tmp_path, 1)

    heard = listen(open_source(f"folder:{tmp_path}?{QUICK}"), play)
    assert (heard.begins[0].scan, heard.begins[0].frames, heard.begins[0].rocking_angle) == ("other", 4, None)
    assert heard.ends == [End("other")]


def test_a_mask_of_another_shape_is_left_out(tmp_path):
    def play():
        write_master(tmp_path, frames=4, mask=np.ones((5, 7), np.uint32))
        write_data(tmp_path, 1)

    heard = listen(open_source(f"folder:{tmp_path}?{QUICK}"), play)
    assert heard.lost == {"shape": 1}
    assert heard.begins[0].about.valid is None
    assert len(heard.frames("a")) == 4


def test_a_master_says_no_more_than_is_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(masters, "MAX_LINKS", 2)

    def play():
        write_master(tmp_path, frames=12)
        write_data(tmp_path, 1)
        (tmp_path / "a.done").touch()

    heard = listen(open_source(f"folder:{tmp_path}?{QUICK}"), play)
    assert heard.lost == {"oversized": 1}
    assert sorted(heard.frames("a")) == [0, 1, 2, 3]  # by its name


def test_files_of_a_scan_that_has_ended_are_late(tmp_path):
    messages = said(tmp_path, "settle=0.2&timeout=0.5")
    write_master(tmp_path, frames=12)
    write_data(tmp_path, 1)
    assert End("a", "nothing came for 0.5 s after frame 4 of 12") in several(messages, 6)
    time.sleep(0.5)
    write_data(tmp_path, 7, each=1)
    assert any(message.reason == "late" for message in several(messages, 3))


def test_a_file_that_is_listed_after_the_master_has_led_to_it_is_not_late(tmp_path):
    write_master(tmp_path, frames=4)
    write_data(tmp_path, 1)
    source = open_source(f"folder:{tmp_path}?settle=0.1")
    master, data = tmp_path / "a_master.h5", tmp_path / "a_data_000001.h5"
    heard, end = list(source.take_files([master])), time.monotonic() + 10
    while End("a") not in heard and time.monotonic() < end:
        time.sleep(0.05)
        heard += source.take_files([])
    assert sum(isinstance(message, Arrived) for message in heard) == 4
    assert End("a") in heard
    assert master.exists()
    assert data.exists()
    assert not list(source.take_files([data, master]))


@pytest.mark.parametrize("options", ["eiger=some", "swmr=1", "eiger=5&hdf5=1"])
def test_what_cannot_be_written_is_said(tmp_path, options):
    with pytest.raises(ConfigError, match="give the frames of a data file"):
        open_sink(f"folder:{tmp_path}?{options}")
    with pytest.raises(ConfigError, match="cannot be written with compression"):
        open_sink(f"folder:{tmp_path}?eiger=5", compress="none")
