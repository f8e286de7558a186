"""The scans of a folder, what is drawn on them, and the command that comes of it."""

import shlex

import numpy as np
import pytest
from sample_crystal import result

from braggshot.errors import ConfigError
from braggshot.io import results
from braggshot.viewer import folder as folders
from braggshot.viewer.folder import RawScan, order, raw_scans, read_shapes, results_of, sum_frames

PEAK = (3, 20, 30)


@pytest.fixture
def folder(tmp_path):
    counts = np.ones((8, 40, 64), np.uint16)
    counts[PEAK] = 500
    place = tmp_path / "scans"
    place.mkdir()
    np.save(place / "one scan.npy", counts)
    results.write(place / "two.cxi", result("two"))
    (place / "notes.txt").write_text("no scan")
    np.save(tmp_path / "outside.npy", counts)
    (place / "link.npy").symlink_to(tmp_path / "outside.npy")
    return place


def rectangle(y0, y1, x0, x1):
    return {"type": "rect", "y0": y0, "y1": y1, "x0": x0, "x1": x1}


def test_scans_and_results_are_told_apart_and_nothing_outside_is_listed(folder):
    assert raw_scans(folder) == (RawScan("one_scan", folder / "one scan.npy"),)
    assert [path.name for path in results_of(folder)] == ["two.cxi"]


def test_the_sum_of_all_frames_keeps_the_counts(folder):
    summed = sum_frames(raw_scans(folder)[0].read())
    assert summed.shape == (8, 40, 64)
    assert summed.image[PEAK[1:]] == 507
    large = sum_frames(RawScan("large", folder / "one scan.npy").read())
    assert large.image.sum() == 8 * 40 * 64 + 499


def test_a_rectangle_becomes_an_even_region_within_the_frame():
    assert read_shapes([rectangle(30.2, -5, 10.4, 41.4)], 40, 64).region == (0, 30, 10, 40)
    assert read_shapes([rectangle(0, 20, 0, 20), rectangle(0, 2, 0, 2)], 40, 64).region == (0, 20, 0, 20)  # the second is a slip


@pytest.mark.parametrize(
    "said",
    [
        "",
        None,
        [3],
        [{"type": "rect", "x0": "1; rm -rf /"}],
        [rectangle(float("nan"), 1, 2, 3)],
        [{"type": "path", "path": "$(ls)"}],
    ],
)
def test_what_is_no_shape_is_left_out(said):
    assert read_shapes(said, 40, 64) == folders.Drawn()


def test_the_command_cuts_the_region_out_about_its_brightest_frame(folder):
    scan = raw_scans(folder)[0]
    drawn = read_shapes([rectangle(10, 34, 20, 44)], 40, 64)
    made = order(folder, scan, scan.read(), "refine", drawn)
    words = shlex.split(made.command)
    assert words[:3] == ["braggshot", "reconstruct", str(folder / "one scan.npy")]
    assert words[words.index("--method") + 1] == "refine"
    assert {"prepare.centre=3,22,32", "prepare.shape=8,24,24", "prepare.binning=1,1,1"} <= set(words)
    assert made.output == folder / "braggshot-results" / "one_scan-1.cxi"


def test_an_outline_becomes_a_mask_of_what_is_inside_it(folder):
    scan = raw_scans(folder)[0]
    drawn = read_shapes([{"type": "path", "path": "M10,5L20,5L20,12L10,12Z"}], 40, 64)
    made = order(folder, scan, scan.read(), "auto", drawn)
    assert made.mask[5:12, 10:20].all()
    assert made.mask.sum() == 70
    assert shlex.split(made.command)[-4:-2] == ["--mask", str(made.mask_file)]


def test_each_run_has_a_name_of_its_own(folder):
    scan = raw_scans(folder)[0]
    (folder / "braggshot-results").mkdir()
    (folder / "braggshot-results" / "one_scan-4-log.txt").touch()
    assert order(folder, scan, scan.read(), "auto", folders.Drawn()).output.name == "one_scan-5.cxi"


def test_no_other_method_and_no_scan_outside_is_ordered(folder):
    scan = raw_scans(folder)[0]
    outside = RawScan("link", folder / "link.npy")
    for wrong, method in ((scan, "auto; rm -rf /"), (scan, "--config=x"), (outside, "auto")):
        with pytest.raises(ConfigError, match="offers no such"):
            order(folder, wrong, scan.read(), method, folders.Drawn())


def test_results_are_not_written_through_a_link(folder, tmp_path):
    (folder / "braggshot-results").symlink_to(tmp_path)
    scan = raw_scans(folder)[0]
    with pytest.raises(ConfigError):
        order(folder, scan, scan.read(), "auto", folders.Drawn())
