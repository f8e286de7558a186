"""What a user chose: colours, range and unit, marked points, and what an address says of them."""

import json

import numpy as np
import pytest
from sample_crystal import result

from braggshot.report import solid as solids
from braggshot.viewer import choices, contents, model
from braggshot.viewer.choices import from_address, picked_point, points, scale


@pytest.fixture(scope="module")
def solid():
    return solids.solid(result())


def test_a_range_is_in_the_unit_that_is_written(solid):
    chosen = scale(solid, "strain", from_address({"unit": "%", "low": "−0,02", "high": "0.03", "map": "viridis"}))
    assert (chosen.colours.low, chosen.colours.high, chosen.colours.name) == (pytest.approx(-2e-4), pytest.approx(3e-4), "viridis")
    assert (chosen.written.low, chosen.written.high, chosen.written.unit) == (pytest.approx(-0.02), pytest.approx(0.03), "%")
    assert scale(solid, "strain", from_address({"unit": "10⁻⁴"})).written.high == pytest.approx(1e4 * solid.colours["strain"].high)


@pytest.mark.parametrize(
    "said", [{"low": "1", "high": "-1"}, {"low": "wide"}, {"high": "nan"}, {"map": "../etc"}, {"unit": "parsec"}]
)
def test_what_is_no_range_map_or_unit_leaves_the_usual_one(solid, said):
    assert scale(solid, "strain", from_address(said)).written == solid.colours["strain"]


def test_a_unit_of_the_strain_leaves_other_quantities_alone(solid):
    assert scale(solid, "displacement", from_address({"unit": "%"})).written == solid.colours["displacement"]


def test_points_are_two_at_most_and_numbers():
    given = [[1, 2, 3], [4, 5], ["x", 1, 2], [True, 1, 2], [1e300, 0, 0], [7, 8, 9.5], [0, 0, 0]]
    assert points(given) == points(json.dumps(given)) == ((1, 2, 3), (7, 8, 9.5))
    assert points("no JSON") == points(None) == points({"a": 1}) == ()


def test_a_click_is_a_place_in_the_crystal(solid):
    low, high = solid.low, solid.high
    z, y, x = picked_point(solid, "slice-z", {"x": 11.0, "y": -7.0}, [25, 50, 75])
    assert (y, x) == (-7.0, 11.0)
    assert z == pytest.approx(low[0] + 0.25 * (high[0] - low[0]))
    assert picked_point(solid, "slice-y", {"x": 5.0, "y": 6.0}, [0, 100, 0]) == (5.0, pytest.approx(high[1]), 6.0)
    assert picked_point(solid, "crystal", {"x": 1.0, "y": 2.0, "z": 3.0}, []) == (1.0, 3.0, 2.0)  # plotly's x, y, z are z, x, y
    assert picked_point(solid, "slice-z", {"x": None, "y": 1.0}, [0, 0, 0]) is None


def test_the_line_between_two_points_has_the_values_there(solid):
    chosen = from_address({"picked": json.dumps([[0, -60, 0], [0, 60, 0]])})
    distance, values = solids.line(solid, chosen.view_of_slices, chosen.picked)
    assert distance[-1] == pytest.approx(120)
    assert np.nanmean(values[:80]) == pytest.approx(-4e-4, rel=0.05)
    assert np.nanmean(values[-80:]) == pytest.approx(4e-4, rel=0.05)
    beyond = solids.line(solid, chosen.view_of_slices, [[0, 0, 0], [0, 500, 0]])[1]
    assert np.isnan(beyond[-1])
    assert "120 nm apart (z +0, y +120, x +0 nm)" in contents.about_points(chosen.picked, "nm")


def test_the_histogram_counts_the_voxels_that_the_surface_holds(solid):
    amplitude, number = model.height_histogram(solid)
    assert number[amplitude >= 0.5].sum() == pytest.approx((solid.height >= 0.5).sum(), rel=0.05)


def test_two_crystals_are_drawn_in_one_box(solid):
    small = solids.solid(result(shape=(24, 24, 24), edge=4e-9))
    one, two = model.in_one_box(solid, small)
    assert np.array_equal(one.low, two.low)
    assert np.array_equal(one.high, two.high)
    assert (one.low <= small.low).all()
    assert (one.high >= solid.high).all()


def test_names_that_stand_twice_are_told_apart_by_their_folders():
    assert model.labels(["a", "b", "a"], ["x", "x", "y"]) == ["x/a", "b", "y/a"]


def test_every_control_has_its_place_in_the_choices():
    said = {name: f"value of {name}" for name in choices.NAMES}
    chosen = from_address(said)
    assert [chosen.colouring, chosen.colours, chosen.look, chosen.z, chosen.x, chosen.other] == [
        said[name] for name in ("colouring", "map", "look", "at-z", "at-x", "other")
    ]
