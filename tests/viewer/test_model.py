"""What is drawn, as numbers: nothing here needs a page."""

import gc
import json
import threading
import time
import weakref
from dataclasses import replace

import numpy as np
import pytest
from sample_crystal import Changing, result, row
from sample_reconstruction import GEOMETRY, sample_reconstruction

from braggshot.errors import FormatError
from braggshot.io import results
from braggshot.report import interactive
from braggshot.report import solid as solids
from braggshot.report.solid import View
from braggshot.snapshot import PreviewRecord, Snapshot
from braggshot.viewer import choices, drawings, measured, model, result_files
from braggshot.viewer.shared import LRUCache, SharedFeed, cached, make_contents, scan_entries
from braggshot.volumes import Circle, Window


@pytest.fixture(scope="module")
def found():
    return result()


@pytest.fixture(scope="module")
def solid(found):
    return solids.solid(found)


def test_an_empty_crystal_has_nothing_to_show(found):
    empty = replace(found, rho=np.zeros_like(found.rho), support=np.zeros_like(found.support), strain=None)
    assert "nothing" in make_contents(empty).note or "no surface" in make_contents(empty).note


def test_a_series_has_one_range_of_colours_without_its_failed_scans(solid):
    rows = [row("a", 0), row("b", 1), {**row("c", 9), "verdict": "failed"}]
    assert model.use_series_colours(solid, rows).colours["strain"].high == pytest.approx(1e-3)
    assert model.use_series_colours(solid, rows[:1]).colours["strain"] == solid.colours["strain"]


def test_diffraction_has_gaps_and_its_fit(found):
    shown = measured.pattern(found)
    assert np.isnan(shown.measured[0][5]).all()
    assert np.isfinite(shown.fitted[0]).all()
    assert len(shown.measured) == len(shown.fitted) == len(shown.titles) == 3
    assert drawings.counts(shown, 0, False).startswith("data:image/png;base64,")


def test_large_planes_are_binned_and_keep_their_counts():
    values = np.ones((3, 300, 200), np.float32)
    values[:, :3] = np.nan
    plane = measured.central_plane(values, 0)
    assert plane.shape == (100, 100)
    assert np.isnan(plane[0]).all()
    assert np.nanmax(plane) == 1


def test_a_rocking_curve_tells_missing_frames_from_those_to_come(found):
    counts = np.array([1.0, np.nan, 3.0])
    going = measured.rocking(Snapshot(state="measuring", rocking=counts, expected=5), None, True)
    assert (going.received, len(going.counts), going.is_over) == (2, 5, False)
    assert len(drawings.rocking(going)["data"]) == 1
    over = measured.rocking(Snapshot(state="done", rocking=counts, expected=3), None, True)
    assert drawings.rocking(over)["data"][1]["x"] == [1]
    assert measured.rocking(Snapshot(), found, False).received == 28


def test_a_rocking_curve_is_over_the_angle_of_each_plane_of_the_window():
    """Planes are binned from two frames each; the first one lies before the scan, and gets the angle that its steps lead to."""
    angles = np.radians(10 + 0.1 * np.arange(12))
    circles = (Circle("x-", 0.1, "mu"), Circle("y+", angles, "theta"))
    made = sample_reconstruction((6, 12, 15))
    geometry = replace(GEOMETRY, sample=circles)
    volume = replace(made.volume, geometry=geometry, window=Window((-2, 0, 0), (2, 1, 1), (12, 12, 15)))
    shown = measured.rocking(Snapshot(), replace(made, volume=volume), False)
    assert np.degrees(shown.angles) == pytest.approx([9.85, 10.05, 10.25, 10.45, 10.65, 10.85])
    figure = drawings.rocking(shown, is_logarithmic=True)
    assert figure["layout"]["xaxis"]["title"]["text"] == "theta [°]"
    assert figure["layout"]["yaxis"]["type"] == "log"
    live = Snapshot(state="done", rocking=np.ones(12), expected=12)
    assert np.array_equal(measured.rocking(live, replace(made, volume=volume), True).angles, angles)
    assert measured.rocking(replace(live, rocking=np.ones(9), expected=9), replace(made, volume=volume), True).angles is None


def test_a_series_is_drawn_over_what_it_was_run_against(tmp_path):
    rows = [{**row("a", 0), "charge": 0.2}, {**row("b", 1), "charge": 0.7}]
    course = measured.series_curve(rows, "strain", "charge")
    assert (course.label, course.x.tolist()) == ("charge", [0.2, 0.7])
    assert measured.series_curve(rows, "strain", "no such column").label.startswith("time")
    assert measured.abscissae(rows) == ["charge"]
    results.write(tmp_path / "a.cxi", replace(result("a"), configuration={"series": {"against": "charge"}}))
    feed = result_files.ResultFiles([tmp_path / "a.cxi"], rows[:1])
    assert feed.latest()[1].against == "charge"
    results.write(tmp_path / "b.cxi", result("b"))
    assert result_files.ResultFiles([tmp_path / "b.cxi"], rows[1:]).latest()[1].against is None


def test_a_quantity_along_the_series_keeps_names_and_verdicts():
    rows = [row("a", 0), {**row("b", 1), "verdict": "doubtful"}, {"name": "c", "verdict": "failed"}]
    course = measured.series_curve(rows, "strain")
    figure = drawings.series(course, "b")
    assert figure["data"][0]["customdata"] == ["a", "b"]
    assert figure["data"][0]["marker"]["symbol"] == ["circle", "diamond-open"]
    assert figure["data"][0]["error_y"]["array"] == pytest.approx([2e-4, 4e-4])
    assert len(figure["layout"]["shapes"]) == 1
    titles = [figure["layout"][axis]["title"]["text"] for axis in ("xaxis", "yaxis")]
    assert titles == [course.label, "strain of the mean lattice"]
    assert course.label != course.quantity
    assert measured.series_curve(rows, "no such thing").quantity == course.quantity
    assert measured.series_curve([{"name": "c", "verdict": "failed"}], "strain") is None
    assert "volume" in measured.known_quantities(rows)


def test_figures_are_valid_json_without_nan(solid, found):
    view = View()
    judged = [PreviewRecord(1.0, 20, "refine", 0.04, 0.9, "doubtful"), PreviewRecord(2.0, 40, "refine", 0.01, 0.8, "good")]
    usual = choices.scale(solid, "strain", choices.from_address({}))
    drawn = [
        interactive.crystal(solid, solids.mesh(solid, view), "strain", interactive.camera_from("x")),
        interactive.crystal(solid, None, "strain", interactive.camera_from("no such look")),
        *(drawings.slice_figure(plane, (0.0, 0.0), usual, "nm", ((0.0, 1.0, 2.0),)) for plane in solids.planes(solid, view)),
        drawings.rocking(measured.rocking(Snapshot(state="done", rocking=np.array([1.0, np.nan]), expected=3), None, True)),
        drawings.previews(judged),
        drawings.convergence(np.arange(3), np.ones(3)),
        drawings.series(measured.series_curve([row("a", 0), row("b", 1)], "strain"), ""),
        drawings.empty("nothing"),
    ]
    for figure in drawn:
        json.dumps(figure, allow_nan=False)


def test_the_slider_has_every_finished_scan_and_the_one_that_is_new(tmp_path):
    a, b = tmp_path / "a.cxi", tmp_path / "b.cxi"
    assert [stop.name for stop in scan_entries(Snapshot())] == [""]
    assert [stop.name for stop in scan_entries(Snapshot(finished=(a, b)))] == ["a", "b"]
    rows = ({"name": "x", "verdict": "failed"}, {"name": "b", "verdict": "good"})
    listed = scan_entries(Snapshot(scan="c", state="measuring", finished=(a, b), series=(*rows, {"name": "y"})))
    assert [(stop.name, stop.path, stop.row.get("verdict")) for stop in listed] == [
        ("a", a, None),
        ("b", b, "good"),
        ("c", None, None),
    ]
    assert [stop.path for stop in scan_entries(Snapshot(scan="b", state="done", finished=(a, b)))] == [a, b]


def test_a_picture_is_new_only_when_the_result_is(found):
    feed = Changing(scan="scan_1", state="measuring")
    shared = SharedFeed(feed)
    first = shared.latest()[0]
    feed.show(received=3)
    assert shared.latest()[0].number > first.number
    assert shared.latest()[0].picture == first.picture
    key = shared.key(0)
    feed.show(result=found)
    assert shared.latest()[0].picture > first.picture
    assert shared.key(0) != key
    assert shared.contents(0).verdict == "good"
    assert shared.contents(99) is shared.contents(0)
    assert shared.solid(0) is shared.solid(0)
    assert shared.mesh(shared.solid(0), View()) is shared.mesh(shared.solid(0), View())


def test_a_picture_that_the_next_one_replaces_is_drawn_anew_when_it_stays(found):
    feed = Changing(scan="scan_1", state="phasing", result=found)
    shared = SharedFeed(feed)
    key = shared.key(0)
    assert shared.is_growing(0)
    feed.show(state="done")
    assert not shared.is_growing(0)
    assert shared.key(0) != key


class Source:
    number = 1


def test_what_is_drawn_last_is_worked_out_once_and_then_lets_go():
    made = []
    source = Source()
    released = weakref.ref(source)
    later = cached(lambda source=source: made.append(source.number) or len(made))
    del source
    assert made == []
    assert released() is not None
    assert [later(), later()] == [1, 1]
    gc.collect()
    assert released() is None


def test_what_cannot_be_read_is_a_picture_that_says_so(tmp_path):
    (tmp_path / "broken.cxi").write_bytes(b"no HDF5")
    shared = SharedFeed(Changing(finished=(tmp_path / "broken.cxi", tmp_path / "gone.cxi")))
    assert "cannot" in shared.contents(0).note
    assert "cannot" in shared.contents(1).note
    assert shared.solid(0) is None


def test_ten_who_ask_cost_no_more_than_one():
    once, made = LRUCache(2), []

    def make():
        time.sleep(0.01)
        made.append(1)
        return len(made)

    threads = [threading.Thread(target=once, args=("key", make)) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]
    assert [once(key, make) for key in ("b", "c", "key")] == [2, 3, 4]  # two are kept, the oldest was let go


def test_results_on_disk_are_a_feed_with_a_table(tmp_path):
    for number in range(2):
        found = result(f"s{number}", strain=(number + 1) * 2e-4)
        results.write(tmp_path / f"s{number}.cxi", found)
    files, rows = result_files.files_of([tmp_path])
    assert [path.name for path in files] == ["s0.cxi", "s1.cxi"]
    feed = result_files.ResultFiles(files, rows)
    number, snapshot = feed.latest()
    assert (snapshot.state, snapshot.scan, snapshot.series) == ("done", "s1", ())
    feed.tabulate()
    assert feed.latest()[0] > number
    made = feed.latest()[1].series
    assert [line["verdict"] for line in made] == ["good", "good"]
    assert made[1]["strain_std"] == pytest.approx(2 * made[0]["strain_std"])
    assert SharedFeed(feed).contents(0).solid.colours["strain"].high > 0


def test_what_is_no_result_is_refused_in_words(tmp_path):
    with pytest.raises(FormatError, match="no such file"):
        result_files.files_of([tmp_path / "gone.cxi"])
    with pytest.raises(FormatError, match="no result"):
        result_files.files_of([tmp_path])
    (tmp_path / "x.cxi").write_bytes(b"text")
    with pytest.raises(FormatError, match="cannot be opened as HDF5"):
        result_files.files_of([tmp_path / "x.cxi"])
