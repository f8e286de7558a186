from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections import Counter
from threading import Event

import h5py
import numpy as np
import pytest
import tifffile
from played import assert_equal, listen, playing, toy_scan

from braggshot.errors import ConfigError, FormatError
from braggshot.live.messages import Arrived, Begin, End
from braggshot.live.simulator.faults import Faults, fault_plan
from braggshot.live.simulator.player import open_sink
from braggshot.live.sources.folder.growing_hdf5 import GrowingFile
from braggshot.live.sources.folder.listing import read_image
from braggshot.live.sources.folder.source import FolderSource, Options
from braggshot.live.sources.registry import open_source

QUICK = "settle=0.3&timeout=20"


def write(folder, names, suffix=".tif", shape=(5, 7)):
    folder.mkdir(exist_ok=True, parents=True)
    for name in names:
        image = np.full(shape, int(name[-1]) if name[-1].isdigit() else 0, np.uint16)
        tifffile.imwrite(folder / f"{name}.tif", image) if suffix == ".tif" else np.save(folder / f"{name}.npy", image)


@pytest.mark.parametrize("options", ["", "hdf5=1", "hdf5=1&compress=bslz4"])
def test_every_frame_arrives_as_it_was_sent(tmp_path, options):
    scan = toy_scan()
    sink = open_sink(f"folder:{tmp_path}?{options}")
    source = open_source(f"folder:{tmp_path}?angle=entry/data/angle" if options else f"folder:{tmp_path}")
    heard = listen(source, playing(scan, sink, repeat=2), scans=2)
    assert heard.ends == [End("toy_0001"), End("toy_0002")]
    assert not heard.lost
    for begin in heard.begins:
        assert begin.frames == 12
        assert_equal(heard, scan, begin.scan)


def test_scans_that_are_there_already_are_taken_or_not(tmp_path):
    scan = toy_scan()
    playing(scan, open_sink(f"folder:{tmp_path}"))()
    assert_equal(listen(open_source(f"folder:{tmp_path}"), lambda: None), scan, "toy_0001")
    source = open_source(f"folder:{tmp_path}?existing=0&frames=2")
    said = source.messages(Event())
    assert next(said) is None  # the folder was listed
    write(tmp_path, ["x_0", "x_1"])
    begin = next(message for message in said if message is not None)
    assert begin.scan == "x"


def test_faults_are_counted(tmp_path):
    scan, faults = toy_scan(60), Faults(drop=0.1, duplicate=0.1, reorder=0.1, late=0.05, truncate=0.1)
    plan = fault_plan(60, faults, 5)
    whole = Counter(action.frame for action in plan if action.kind == "frame")
    cut = [action.frame for action in plan if action.kind == "truncated"]
    heard = listen(open_source(f"folder:{tmp_path}?{QUICK}"), playing(scan, open_sink(f"folder:{tmp_path}"), faults, 5))
    assert set(heard.frames("toy_0001")) == set(whole)
    for index, frame in heard.frames("toy_0001").items():
        np.testing.assert_array_equal(frame.image, scan.frames[index])
    assert heard.lost["truncated"] == len(cut) > 0
    assert heard.lost["duplicate"] == sum(whole.values()) - len(whole) > 0


def test_an_aborted_scan_is_followed_by_the_whole_one(tmp_path):
    scan = toy_scan()
    heard = listen(open_source(f"folder:{tmp_path}"), playing(scan, open_sink(f"folder:{tmp_path}"), Faults(abort=4)), scans=2)
    assert heard.ends == [End("toy_0001", "the scan was aborted"), End("toy_0002")]
    assert sorted(heard.frames("toy_0001")) == [0, 1, 2, 3]
    assert_equal(heard, scan, "toy_0002")


def test_a_dead_detector_is_noticed(tmp_path):
    play = playing(toy_scan(), open_sink(f"folder:{tmp_path}"), Faults(dead=3))
    heard = listen(open_source(f"folder:{tmp_path}?timeout=0.3"), play)
    assert heard.ends == [End("toy_0001", "nothing came for 0.3 s after frame 3 of 12")]


def test_names_and_numbers_of_other_detectors(tmp_path):
    """A new prefix and a new folder are new scans; numbers may begin at 1; other files are left alone."""

    def play():
        write(tmp_path, [f"sample_S1_{n:05d}" for n in (1, 2, 3)])
        write(tmp_path, [f"sample_S2_{n:05d}" for n in (1, 2, 3)], ".npy")
        write(tmp_path / "run7", [f"{n}" for n in range(3)])
        (tmp_path / "notes.txt").write_text("nothing to see")
        write(tmp_path, ["background"])

    heard = listen(open_source(f"folder:{tmp_path}?frames=3&settle=0.3"), play, scans=3)
    assert [begin.scan for begin in heard.begins] == ["sample_S1", "sample_S2", "run7"]
    for begin in heard.begins:
        assert sorted(heard.frames(begin.scan)) == [0, 1, 2]
    assert heard.ends == [End(begin.scan) for begin in heard.begins]


def test_a_first_image_that_is_slow_is_still_the_first(tmp_path):
    write(tmp_path, ["s_0", "s_1"], ".npy")
    content = (tmp_path / "s_0.npy").read_bytes()
    (tmp_path / "s_0.npy").write_bytes(content[:-10])
    source = open_source(f"folder:{tmp_path}?frames=2&settle=20")
    said = (message for message in source.messages(Event()) if message is not None)
    assert [type(next(said)).__name__ for _ in range(2)] == ["Begin", "Arrived"]
    (tmp_path / "s_0.npy").write_bytes(content)
    assert next(said).frame.index == 0
    assert next(said) == End("s")


def test_a_marker_ends_no_other_scan_than_its_own(tmp_path):
    """The marker of one scan and the first files of the next are found at once."""
    source = open_source(f"folder:{tmp_path}")
    said = source.messages(Event())
    write(tmp_path, ["a_0"])
    assert [type(next(message for message in said if message)).__name__ for _ in range(2)] == ["Begin", "Arrived"]
    (tmp_path / "a.done").touch()
    write(tmp_path, ["a_1", "b_0"])
    heard = [next(message for message in said if message) for _ in range(4)]
    assert [type(message).__name__ for message in heard] == ["Arrived", "End", "Begin", "Arrived"]
    write(tmp_path, ["b_1"])
    assert next(message for message in said if message).frame.index == 1


@pytest.mark.parametrize("marker", ["run/s_.done", "run/s.done", "run/run.done", "run.done", "run.aborted"])
def test_a_marker_ends_the_scan(tmp_path, marker):
    def play():
        write(tmp_path / "run", ["s_0", "s_1"])
        (tmp_path / marker.replace("s_.", "s.")).touch()

    heard = listen(open_source(f"folder:{tmp_path}"), play)
    assert heard.ends == [End("run_s", "the scan was aborted" if marker.endswith("aborted") else "")]
    assert sorted(heard.frames("run_s")) == [0, 1]


def test_a_file_is_taken_when_it_is_whole(tmp_path):
    """A writer that takes its time: the first half stays for a while, then the second half comes."""
    image = np.arange(20000, dtype=np.uint32).reshape(100, 200)
    np.save(tmp_path / "whole.npy", image)
    content = (tmp_path / "whole.npy").read_bytes()
    (tmp_path / "whole.npy").unlink()
    writing = Event()

    def play():
        with (tmp_path / "slow_0.npy").open("wb") as stream:
            stream.write(content[:40000])
            stream.flush()
            writing.set()
            threading.Event().wait(0.3)
            stream.write(content[40000:])

    heard = listen(open_source(f"folder:{tmp_path}?frames=1&settle=20"), play)
    assert not heard.lost
    np.testing.assert_array_equal(heard.frames("slow")[0].image, image)


def test_no_image_is_lost_while_the_folder_is_away(tmp_path):
    """The images were seen, and could not be read before their disk was gone for a moment."""
    write(tmp_path / "run", [f"s_{n}" for n in range(4)])
    source = FolderSource(tmp_path / "run", Options(settle=0.1))
    paths = sorted((tmp_path / "run").glob("*.tif"))
    (tmp_path / "run").rename(tmp_path / "away")
    heard = list(source.take_files(paths))
    time.sleep(0.2)
    heard += source.take_files([])
    assert heard == []
    (tmp_path / "away").rename(tmp_path / "run")
    heard += source.take_files([])
    assert [type(message) for message in heard] == [Begin, *4 * [Arrived]]
    paths[0].unlink()
    source = FolderSource(tmp_path / "run", Options(settle=0.1))
    assert [message.reason for message in source.take_files([paths[0]])] == ["truncated"]  # that one was removed


def test_an_array_whose_head_is_damaged_is_lost_as_other_files_are(tmp_path):
    """numpy reads the head as Python, whose reader raises errors of its own."""
    np.save(tmp_path / "s_0.npy", np.ones((4, 5), "u2"))
    content = (tmp_path / "s_0.npy").read_bytes()
    for head in (content.replace(b"}", b"(", 1), content.replace(b"{", b"\0", 1), content.replace(b"'<u2'", b"   [", 1)):
        (tmp_path / "s_0.npy").write_bytes(head)
        with pytest.raises(FormatError):
            read_image(tmp_path / "s_0.npy")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.write_bytes(b"II*\0nothing of the kind"), "truncated"),
        (lambda path: path.write_bytes(b""), "truncated"),
        (lambda path: tifffile.imwrite(path, np.zeros((4, 5, 6), np.uint16), photometric="minisblack"), "shape"),
        (lambda path: tifffile.imwrite(path, np.zeros((4, 5), np.complex64), photometric="minisblack"), "type"),
        (lambda path: os.mkfifo(path.with_suffix(".fifo")) or path.write_bytes(b"MM\0*"), "truncated"),
    ],
)
def test_what_is_no_image_is_lost_and_nothing_else_is(tmp_path, make, reason):
    def play():
        make(tmp_path / "s_0.tif")
        write(tmp_path, ["s_1", "s_2"])
        (tmp_path / "s.done").touch()

    heard = listen(open_source(f"folder:{tmp_path}?{QUICK}&first=0"), play)
    assert sorted(heard.frames("s")) == [1, 2]
    assert heard.lost == {reason: 1}


def test_a_npy_header_is_not_believed(tmp_path):
    """Objects, which would need pickle; a shape that the file does not have; one that nothing could hold."""

    def header(shape, descr="'<u2'"):
        text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()

    def play():
        (tmp_path / "s_0.npy").write_bytes(header((3, 4), "'|O'") + b"\x80\x04.")
        (tmp_path / "s_1.npy").write_bytes(header((1000, 1000)) + bytes(100))
        (tmp_path / "s_2.npy").write_bytes(header((10**9, 10**9)))
        write(tmp_path, ["s_3"], ".npy")
        (tmp_path / "s.done").touch()

    heard = listen(open_source(f"folder:{tmp_path}?{QUICK}&first=0"), play)
    assert heard.lost == {"type": 1, "truncated": 1, "oversized": 1}
    assert sorted(heard.frames("s")) == [3]


def test_a_plan_that_is_none_is_lost(tmp_path):
    def play():
        (tmp_path / "s.json").write_text(json.dumps({"frames": "many"}))
        write(tmp_path, ["s_0"])
        (tmp_path / "s.done").touch()

    heard = listen(open_source(f"folder:{tmp_path}"), play)
    assert heard.lost == {"malformed": 1}
    assert heard.ends == [End("s")]


def test_a_file_that_was_not_made_for_swmr_is_opened_again(tmp_path):
    path = tmp_path / "plain.h5"
    counts = toy_scan().frames[:]
    follower = GrowingFile(path, "data")
    taken = []
    for count in (3, 3, 12):
        with h5py.File(path, "a", locking=False) as file:
            data = (
                file.require_dataset("data", (0, 20, 31), "u2", maxshape=(None, 20, 31), chunks=(4, 20, 31))
                if "data" not in file
                else file["data"]
            )
            data.resize(count, axis=0)
            data[...] = counts[:count]
        taken += [image for _, image, _ in follower.frames()]
    np.testing.assert_array_equal(taken, counts)


def test_frames_that_are_only_allotted_are_not_taken(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w", locking=False, libver="latest") as file:
        data = file.create_dataset("data", (5, 20, 31), "u2", chunks=(1, 20, 31))
        data[:2] = toy_scan().frames[:2]
    assert [index for index, _, _ in GrowingFile(tmp_path / "a.h5").frames()] == [0, 1]


def test_hdf5_that_is_no_scan_is_lost(tmp_path):
    def play():
        with h5py.File(tmp_path / "a.h5", "w", locking=False, libver="latest") as file:
            file["spectrum"] = np.arange(5)
        with h5py.File(tmp_path / "b.h5", "w", locking=False, libver="latest") as file:
            file["data"] = np.zeros((2, 3, 4), complex)
        (tmp_path / "c.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
        with h5py.File(tmp_path / "d.h5", "w", locking=False, libver="latest") as file:
            file["data"] = np.zeros((2, 3, 4), np.uint8)

    heard = listen(open_source(f"folder:{tmp_path}?settle=0.3"), play)
    assert heard.ends == [End("d")]
    assert heard.lost == {"unreadable": 2, "type": 1}


def test_frames_that_are_kept_elsewhere_are_refused(tmp_path):
    (tmp_path / "watched").mkdir()
    with h5py.File(tmp_path / "secret.h5", "w", locking=False) as file:
        file["data"] = np.zeros((2, 3, 4), np.uint8)

    def play():
        with h5py.File(tmp_path / "a.h5", "w", locking=False, libver="latest") as file:
            file["data"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "data")
        with h5py.File(tmp_path / "b.h5", "w", locking=False, libver="latest") as file:
            layout = h5py.VirtualLayout((2, 3, 4), "u1")
            layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "data", (2, 3, 4))
            file.create_virtual_dataset("data", layout)
        with h5py.File(tmp_path / "c.h5", "w", locking=False, libver="latest") as file:
            file["data"] = np.zeros((2, 3, 4), np.uint8)
        for name in ("a.h5", "b.h5", "c.h5"):
            os.replace(tmp_path / name, tmp_path / "watched" / name)

    heard = listen(open_source(f"folder:{tmp_path / 'watched'}?settle=0.3&dataset=data"), play)
    assert heard.ends == [End("c")]
    assert heard.lost == {"link": 2}


def test_one_growing_file_can_be_named(tmp_path):
    scan = toy_scan()
    playing(scan, open_sink(f"folder:{tmp_path}?hdf5=1"), repeat=2)()
    heard = listen(open_source(f"folder:{tmp_path}/toy_0002.h5?dataset=entry/data/data&angle=entry/data/angle"), lambda: None)
    assert_equal(heard, scan, "toy_0002")


def test_a_folder_must_be_there(tmp_path):
    with pytest.raises(ConfigError, match="make the folder first"):
        open_source(f"folder:{tmp_path}/nowhere")


def test_a_folder_that_goes_away_ends_nothing(tmp_path):
    folder = tmp_path / "run"

    def play():
        write(folder, ["s_0", "s_1"])
        seen.wait(10)
        shutil.rmtree(folder)
        write(tmp_path, ["t_0"])

    seen = Event()
    threading.Timer(0.5, seen.set).start()
    heard = listen(open_source(f"folder:{tmp_path}?timeout=1"), play, scans=2)
    assert [end.scan for end in heard.ends] == ["run_s", "t"]
