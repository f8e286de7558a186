"""Messages become recordings: nothing guessed, nothing lost, nothing twice."""

from __future__ import annotations

import numpy as np
import pytest

from braggshot.errors import DataError
from braggshot.io.formats import recorded
from braggshot.io.frames import ArrayFrames
from braggshot.live.assemble import Assembly, FrameAdded, ScanClosed, ScanOpened, recordings_in, shrink
from braggshot.live.given import read_images, refuse_unfit
from braggshot.live.messages import Arrived, Begin, Dropped, End
from braggshot.physics.geometry import rocking_angle
from braggshot.volumes import Circle, Frame, Geometry, Scan

IMAGES = np.random.default_rng(0).poisson(3, (6, 5, 7)).astype(np.uint16)


def arrived(index, scan="s", image=None):
    return Arrived(scan, Frame(index, IMAGES[index] if image is None else image))


@pytest.fixture
def assembly(tmp_path):
    return Assembly(tmp_path)


def told(assembly, *messages):
    return [change for message in messages for change in assembly.take(message)]


def test_a_scan_from_begin_to_end(assembly, tmp_path):
    changes = told(assembly, Begin("s", 6), *(arrived(k) for k in (0, 2, 1, 5)), End("s"))
    assert [type(change) for change in changes] == [ScanOpened, FrameAdded, FrameAdded, FrameAdded, FrameAdded, ScanClosed]
    scan = changes[-1].scan
    assert changes[-1].aborted == ""
    assert scan.received == 4
    assert np.array_equal(np.isfinite(scan.rocking), [1, 1, 1, 0, 0, 1])
    assert scan.rocking[2] == IMAGES[2].sum()
    back = recorded.read(tmp_path / "s")
    assert back.arrived.tolist() == [True, True, True, False, False, True]
    assert np.array_equal(back.frames[5], IMAGES[5])


def test_all_frames_are_the_end(assembly):
    changes = told(assembly, Begin("s", 2), arrived(0), arrived(1), End("s"))
    assert [type(change) for change in changes] == [ScanOpened, FrameAdded, FrameAdded, ScanClosed]  # and the end is no news


def test_a_scan_that_is_cut_short_by_the_next(assembly):
    changes = told(assembly, Begin("s", 6), arrived(0), Begin("s", 6), arrived(0))
    assert isinstance(changes[2], ScanClosed)
    assert changes[2].aborted == "the next scan began"
    assert [change.scan.name for change in changes if isinstance(change, ScanOpened)] == ["s", "s-2"]
    assert [(path.name, end and end["aborted"]) for path, end in recordings_in(assembly.folder)] == [
        ("s", "the next scan began"),
        ("s-2", None),
    ]


def test_what_is_of_no_use_is_counted(assembly):
    changes = told(
        assembly, arrived(0), Begin("s", 3), arrived(0), arrived(0), arrived(5), arrived(1, image=np.zeros((2, 2), np.uint16)),
        arrived(1, scan="t"), Dropped("truncated", "x"),
    )  # fmt: skip
    assert [change.reason for change in changes if isinstance(change, Dropped)] == [
        "no scan", "duplicate", "beyond the plan", "shape", "no scan", "truncated",
    ]  # fmt: skip


def test_nothing_came(assembly):
    changes = told(assembly, Begin("s", 6), End("s", "shutter closed"))
    assert changes[-1].scan.recorder is None
    assert changes[-1].aborted == "shutter closed"


def test_names_are_file_names_and_unique(tmp_path):
    assembly = Assembly(tmp_path, is_taken=lambda name: name == "etc_passwd")
    (change,) = told(assembly, Begin("../../etc/passwd", 1))
    assert change.scan.name == "etc_passwd-2"
    changes = told(assembly, Begin("...", 1))
    assert changes[-1].scan.name == "scan"


def test_the_largest_number_is_not_a_count(tmp_path):
    assembly = Assembly(tmp_path)
    image = IMAGES[0].copy()
    image[1, 1] = 65535
    changes = told(assembly, Begin("s", 2), arrived(0, image=image))
    assert changes[-1].scan.rocking[0] == IMAGES[0].sum() - IMAGES[0][1, 1]
    assert recorded.read(tmp_path / "s").provenance["no_count"] == 65535


def test_dark_and_mask_of_another_scan(tmp_path):
    good = np.ones((5, 7), dtype=bool)
    good[0] = False
    like = Scan(ArrayFrames(IMAGES), "other", valid=good, dark=np.ones((5, 7)), monitor=np.ones(6), rocking_angle=np.arange(6.0))
    assembly = Assembly(tmp_path, like)
    changes = told(assembly, Begin("s", 6), arrived(0))
    assert changes[-1].scan.rocking[0] == IMAGES[0][1:].sum()
    back = recorded.read(tmp_path / "s")
    assert np.array_equal(back.valid, good)
    assert np.array_equal(back.dark, like.dark)
    assert back.monitor is None
    assert back.rocking_angle is None


def test_what_a_stream_says_of_a_detector_is_completed(tmp_path):
    """A header knows no geometry and no dark, nor that a detector's largest number is no count."""
    mask = np.ones((5, 7), dtype=bool)
    like = Scan(ArrayFrames(IMAGES), "other", valid=mask, dark=np.ones((5, 7)))
    header = Scan(ArrayFrames(np.zeros((6, 50, 70))), "s", provenance={"stream": {"photon_energy": 9000.0}})
    image = IMAGES[0].copy()
    image[2, 3] = 65535
    told(Assembly(tmp_path, like), Begin("s", 6, about=header), arrived(0, image=image))
    back = recorded.read(tmp_path / "s")
    assert np.array_equal(back.dark, like.dark)
    assert np.array_equal(back.valid, mask)
    assert back.provenance["no_count"] == 65535
    assert back.provenance["stream"] == {"photon_energy": 9000.0}


def test_what_no_count_was_is_no_count_on_the_rocking_curve(tmp_path):
    header = Scan(ArrayFrames(np.zeros((6, 5, 7))), "s", provenance={"stream": {}})
    image = np.full((5, 7), 65535, np.uint16)
    (*_, grew) = told(Assembly(tmp_path), Begin("s", 6, about=header), arrived(0, image=image))
    assert grew.scan.rocking[0] == 0


def test_given_images_replace_those_of_the_source_and_of_another_scan(tmp_path):
    np.save(tmp_path / "dark.npy", np.full((5, 7), 3.0))
    np.save(tmp_path / "flat.npy", np.full((9, 9), 2.0))  # of the whole chip
    np.save(tmp_path / "mask.npy", np.arange(35).reshape(5, 7) == 8)
    given = read_images(tmp_path / "dark.npy", tmp_path / "flat.npy", tmp_path / "mask.npy")
    like = Scan(ArrayFrames(IMAGES), "other", dark=np.ones((5, 7)), provenance={"region": [[2, 7], [1, 8]]})
    refuse_unfit(given, like)
    (*_, grew) = told(Assembly(tmp_path / "out", like, given), Begin("s", 6), arrived(0))
    back = recorded.read(tmp_path / "out" / "s")
    assert (back.dark == 3).all()
    assert (back.flat == 2).all()
    assert back.valid.sum() == 34
    assert not back.valid[1, 1]
    assert grew.scan.rocking[0] == IMAGES[0].sum() - IMAGES[0][1, 1]


def test_a_given_image_of_another_shape_is_told_and_left_out(tmp_path):
    np.save(tmp_path / "dark.npy", np.zeros((4, 4)))
    given = read_images(tmp_path / "dark.npy", None, None)
    with pytest.raises(DataError, match=r"dark.npy: the dark field has shape \(4, 4\), the frames \(5, 7\)"):
        refuse_unfit(given, Scan(ArrayFrames(IMAGES), "other"))
    changes = told(Assembly(tmp_path / "out", images=given), Begin("s", 6), arrived(0))
    assert [change.reason for change in changes if isinstance(change, Dropped)] == ["dark field of another shape"]
    assert recorded.read(tmp_path / "out" / "s").dark is None
    np.save(tmp_path / "many.npy", np.zeros((3, 4, 4)))
    with pytest.raises(DataError, match="expected one image"):
        read_images(tmp_path / "many.npy", None, None)
    np.save(tmp_path / "flat.npy", np.ones((5, 7)))
    flat = read_images(None, tmp_path / "flat.npy", None)
    with pytest.raises(DataError, match="corrected already; leave --flat out"):
        refuse_unfit(flat, Scan(ArrayFrames(IMAGES), "other", prepared=True))


def test_last_frame_and_sum_are_there_from_the_first_frame_on(assembly):
    *_, first = told(assembly, Begin("s", 6), arrived(2))
    assert np.array_equal(first.scan.last, IMAGES[2])
    assert np.array_equal(first.scan.total, IMAGES[2])
    told(assembly, arrived(0))
    assert np.array_equal(first.scan.last, IMAGES[0])
    assert np.array_equal(first.scan.total, IMAGES[[0, 2]].sum(0))
    small = shrink(np.ones((1000, 500), np.uint16), 200)
    assert small.shape == (200, 100)
    assert (small == 25).all()


@pytest.mark.parametrize(("factor", "frames", "is_said"), [(1.0, 40, False), (-1.0, 40, True), (2.0, 40, True), (1.0, 30, True)])
def test_a_rocking_scan_of_another_step_has_voxels_of_its_own_step(factor, frames, is_said, tmp_path):
    """The example scan gives the middle of the angles; a step of its own, used in silence, would give wrong voxels."""
    angles = np.deg2rad(0.01) * np.arange(40)
    geometry = Geometry(1.5e-15, 1.0, (55e-6, 55e-6), (Circle("y+", 0.3 + angles, "Theta"),), (), (0, 0))
    like = Scan(ArrayFrames(np.zeros((40, 5, 7), np.uint16)), "like", rocking_angle=0.3 + angles, geometry=geometry)
    assembly = Assembly(tmp_path, like)
    sent = [Arrived("s", Frame(k, IMAGES[0], factor * float(angles[k]))) for k in range(frames)]
    told(assembly, Begin("s", frames), *sent, End("s"))
    back = recorded.read(tmp_path / "s")
    found = rocking_angle(back.geometry)
    np.testing.assert_allclose(np.diff(found), factor * np.deg2rad(0.01), rtol=1e-6)
    assert found.mean() == pytest.approx(0.3 + angles.mean())
    assert any("their step is the scan's own" in words for words in back.provenance.get("noticed", ())) is is_said
