"""The figure of the crystal in space: what its menu and its slider do, as numbers."""

import base64
import json

import numpy as np
import pytest
from sample_crystal import result

from braggshot.report import interactive
from braggshot.report import solid as solids
from braggshot.report.solid import View


@pytest.fixture(scope="module")
def solid():
    return solids.solid(result())


@pytest.fixture(scope="module")
def figure(solid):
    return interactive.figure(solid)


def unpacked(values):
    return np.frombuffer(base64.b64decode(values["bdata"]), {"f4": np.float32, "u2": np.uint16}[values["dtype"]])


def test_corners_are_counted_in_two_bytes_where_that_is_enough(solid):
    surface = solids.mesh(solid, View())
    figure = interactive.crystal(solid, surface, "strain", interactive.camera_from("oblique"))["data"][0]
    found = np.stack([np.frombuffer(base64.b64decode(figure[axis]["bdata"]), np.uint16) for axis in "ijk"], axis=1)
    assert {figure[axis]["dtype"] for axis in "ijk"} == {"u2"}
    assert np.array_equal(found, surface.triangles)


def test_the_figure_is_json_and_small(figure):
    assert len(json.dumps(figure, allow_nan=False)) < 4e6


def test_each_quantity_gives_each_surface_a_value_for_each_corner(figure, solid):
    (menu,) = figure["layout"]["updatemenus"]
    assert [entry["label"] for entry in menu["buttons"]] == [solids.TITLES[name] for name in solid.fields]
    for entry in menu["buttons"]:
        values, layout, places = entry["args"]
        assert places == list(range(len(interactive.CUTS)))
        for place, given in zip(places, values["intensity"], strict=True):
            assert len(unpacked(given)) == len(unpacked(figure["data"][place]["x"]))
        title = layout["coloraxis"]["colorbar"]["title"]["text"]
        assert title.startswith(entry["label"])
    assert "[pm]" in menu["buttons"][1]["args"][1]["coloraxis"]["colorbar"]["title"]["text"]


def test_the_menu_begins_with_what_is_asked_for(solid):
    chosen = interactive.figure(solid, "displacement")
    values = unpacked(chosen["data"][0]["intensity"])
    assert values == pytest.approx(solids.mesh(solid, View("displacement", max_triangles=8000)).values, abs=0.05)
    (menu,) = chosen["layout"]["updatemenus"]
    assert menu["buttons"][menu["active"]]["label"] == "displacement along q"


def test_each_stop_of_the_slider_shows_one_surface_cut_where_it_says(figure, solid):
    (slider,) = figure["layout"]["sliders"]
    axes = {"z": "x", "x": "y", "y": "z"}  # plotly's name of each axis
    for place, (step, (cut, kept)) in enumerate(zip(slider["steps"], interactive.CUTS, strict=True)):
        visible, traces = step["args"]
        assert [n for n in traces if visible["visible"][n]] == [place]
        if cut is not None:
            n = "zyx".index(cut)
            plane = solid.low[n] + kept * (solid.high[n] - solid.low[n])
            assert unpacked(figure["data"][place][axes[cut]]).max() == pytest.approx(plane, abs=0.1)
            assert step["label"] == f"{cut} {100 * kept:.0f} %"
    assert [trace["visible"] for trace in figure["data"] if trace["type"] == "mesh3d"] == [True] + [False] * (len(traces) - 1)


def test_rounding_keeps_what_a_picture_shows():
    values = np.random.default_rng(0).normal(0, 4e-4, 1000).astype(np.float32)
    rounded = interactive.round_to(values, 11)
    assert np.abs(rounded - values).max() < np.abs(values).max() / 1500
    assert len(np.unique(rounded)) < 4096
    assert np.array_equal(interactive.round_to(np.zeros(3, np.float32)), np.zeros(3))
