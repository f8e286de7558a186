"""The master file of a DECTRIS detector: places, number, angles and mask of the frames, within bounds and within its folder."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from braggshot.errors import FormatError
from braggshot.live.sources.folder import eiger_master
from braggshot.live.sources.folder.eiger_master import DETECTOR, is_inside, member_of, read_master
from braggshot.live.sources.limits import UnusableError

COUNTS = np.random.default_rng(3).poisson(9, (4, 6, 5)).astype(np.uint16)
SPECIFIC = f"{DETECTOR}/detectorSpecific"


@pytest.fixture
def path(tmp_path):
    folder = tmp_path / "watched"
    folder.mkdir()
    return folder / "a_master.h5"


def write(path, links=(), **values):
    with h5py.File(path, "w", locking=False) as file:
        group = file.create_group("entry/data")
        for number, target in enumerate(links, 1):
            group[f"data_{number:06d}"] = h5py.ExternalLink(str(target), "/entry/data/data")
        for name, value in values.items():
            file[{"mask": f"{SPECIFIC}/pixel_mask", "nimages": f"{SPECIFIC}/nimages", "ntrigger": f"{SPECIFIC}/ntrigger"}.get(
                name, f"entry/sample/goniometer/{name}"
            )] = value  # fmt: skip


def read(path):
    return read_master(path, path.parent)


@pytest.mark.parametrize(
    ("name", "member"),
    [("a_master.h5", ("a", 0)), ("a_data_000012.h5", ("a", 12)), ("a_data_master_master.h5", ("a_data_master", 0)),
     ("a_data_12.h5", None), ("_master.h5", None), ("master.h5", None), ("a.h5", None)],
)  # fmt: skip
def test_a_name_tells_the_set_and_the_place_in_it(name, member):
    assert member_of(Path(name)) == member


def test_links_lead_to_files_that_need_not_be_there(path):
    write(path, ["a_data_000001.h5", "sub/a_data_000002.h5"])
    master = read(path)
    assert master.links == {
        1: (path.parent / "a_data_000001.h5", "/entry/data/data"),
        2: (path.parent / "sub" / "a_data_000002.h5", "/entry/data/data"),
    }
    assert master.refused == ()


@pytest.mark.parametrize("target", ["../b.h5", "/etc/passwd", "link/b.h5"])
def test_a_link_out_of_the_folder_is_refused_and_the_others_stay(path, target):
    os.symlink("..", path.parent / "link")
    write(path, ["a_data_000001.h5", target, "a_data_000003.h5"])
    master = read(path)
    assert sorted(master.links) == [1, 3]
    assert master.refused == ("a_master.h5: data_000002 leads out of the watched folder",)


def test_a_soft_link_is_refused(path):
    write(path)
    with h5py.File(path, "a", locking=False) as file:
        file["entry/data/data_000001"] = h5py.SoftLink("/entry/elsewhere")
    assert not read(path).links
    assert len(read(path).refused) == 1


def test_a_master_may_hold_frames_itself(path):
    for name, place in (("data_000002", 2), ("data", 1)):
        write(path)
        with h5py.File(path, "a", locking=False) as file:
            file[f"entry/data/{name}"] = COUNTS
        assert read(path).links == {place: (path, f"entry/data/{name}")}


@pytest.mark.parametrize(
    ("values", "frames"),
    [({}, None), ({"nimages": 12}, 12), ({"nimages": 4, "ntrigger": 3}, 12), ({"nimages": 0}, None), ({"nimages": -1}, None),
     ({"nimages": 12.0}, None), ({"nimages": 10**6, "ntrigger": 2}, None), ({"nimages": 12, "ntrigger": 0}, None)],
)  # fmt: skip
def test_the_plan_is_images_times_triggers(path, values, frames):
    write(path, **values)
    assert read(path).frames == frames


def test_the_first_axis_that_turns_is_the_rocking_axis(path):
    chi = np.linspace(5.0, 6.0, 12)
    write(path, nimages=12, omega=np.zeros(12), phi=np.arange(3.0), chi=chi, kappa=np.arange(12.0))
    np.testing.assert_allclose(read(path).rocking_angle, np.deg2rad(chi))


def test_angles_are_radians_where_they_say_so_and_numbers_at_all(path):
    write(path, nimages=3, omega=[0.1, 0.2, 0.3])
    with h5py.File(path, "a", locking=False) as file:
        file["entry/sample/goniometer/omega"].attrs["units"] = "rad"
    np.testing.assert_allclose(read(path).rocking_angle, [0.1, 0.2, 0.3])
    write(path, nimages=3, omega=[0.1, np.nan, 0.3])
    assert read(path).rocking_angle is None
    write(path, omega=[0.1, 0.2, 0.3])  # without a plan no length is right
    assert read(path).rocking_angle is None


def test_zero_in_the_mask_is_a_good_pixel(path):
    mask = np.zeros((6, 5), np.uint32)
    mask[2, 3], mask[4, 1] = 1, 2**31
    write(path, mask=mask)
    np.testing.assert_array_equal(read(path).valid, mask == 0)
    write(path, mask=np.zeros((1, 6, 5), np.uint32))
    assert read(path).valid is None


@pytest.mark.parametrize(
    ("shape", "kind", "reason"),
    [((20000, 2), "u1", "oversized"), ((16384, 16384), "u4", "oversized"), ((4, 4), "c8", "type")],
)  # fmt: skip
def test_a_mask_has_bounds(path, shape, kind, reason):
    with h5py.File(path, "w", locking=False) as file:
        file.create_dataset(f"{SPECIFIC}/pixel_mask", shape, kind)
    with pytest.raises(UnusableError) as refused:
        read(path)
    assert refused.value.reason == reason


def test_a_mask_in_another_file_is_refused(path):
    with h5py.File(path, "w", locking=False) as file:
        file.create_dataset(f"{SPECIFIC}/pixel_mask", (4, 4), "u1", external=[("/etc/passwd", 0, 16)])
    with pytest.raises(UnusableError) as refused:
        read(path)
    assert refused.value.reason == "link"


def test_there_are_not_too_many_links(path, monkeypatch):
    monkeypatch.setattr(eiger_master, "MAX_LINKS", 2)
    write(path, ["1.h5", "2.h5"])
    assert len(read(path).links) == 2
    write(path, ["1.h5", "2.h5", "3.h5"])
    with pytest.raises(UnusableError) as refused:
        read(path)
    assert refused.value.reason == "oversized"


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\nnothing of the kind"])
def test_what_is_no_hdf5_cannot_be_read_yet(path, content):
    path.write_bytes(content)
    with pytest.raises(FormatError, match="cannot be read as HDF5"):
        read(path)


def test_a_master_that_says_nothing_is_empty(path):
    with h5py.File(path, "w", locking=False):
        pass
    master = read(path)
    assert (dict(master.links), master.refused, master.frames, master.rocking_angle, master.valid) == ({}, (), None, None, None)


def test_inside_is_below_after_links_were_followed(tmp_path):
    (tmp_path / "in").mkdir()
    os.symlink("/etc", tmp_path / "in" / "out")
    os.symlink("loop", tmp_path / "in" / "loop")
    inside = tmp_path / "in"
    assert is_inside(inside, inside / "a" / "b.h5")
    for path in ("../a.h5", "out/passwd", "loop/a.h5", "a\0b"):
        assert not is_inside(inside, inside / path)
