"""Dislocations in files: they come back from CXI, ParaView gets them as lines in nm, and folders hold them where there are any."""

from __future__ import annotations

import dataclasses
import re

import h5py
import numpy as np
import pytest
from sample_reconstruction import sample_reconstruction

from braggshot.crystal_frame import StrainConfig, strain_map
from braggshot.errors import FormatError
from braggshot.io import results
from braggshot.io.results import vtp
from braggshot.output import Result, load_result, summary
from braggshot.report import text
from braggshot.volumes import Dislocation

LINES = (
    Dislocation(np.array([[0.0, 0.0, 0.0], [3e-8, 0.0, 4e-8], [6e-8, 0.0, 8e-8]]), False, 1, 0.9),
    Dislocation(np.array([[0.0, 0.0, 0.0], [0.0, 1e-8, 0.0], [0.0, 0.0, 1e-8], [0.0, 0.0, 0.0]]), True, 2, 0.8),
)


@pytest.fixture(scope="module")
def found():
    crystal = sample_reconstruction(shape=(20, 22, 25))
    smooth = np.exp(0.1j * np.indices(crystal.rho.shape)[1] ** 1.5)
    crystal = dataclasses.replace(crystal, rho=(np.abs(crystal.rho) * smooth).astype(np.complex64))
    return dataclasses.replace(crystal, strain=dataclasses.replace(strain_map(crystal, StrainConfig()), lines=LINES))


def test_lines_come_back_from_the_result(found, tmp_path):
    results.write(tmp_path / "a.cxi", found)
    for before, after in zip(LINES, load_result(tmp_path / "a.cxi").strain.lines, strict=True):
        assert np.array_equal(before.points, after.points)
        assert (before.is_closed, before.winding, before.confidence) == (after.is_closed, after.winding, after.confidence)
    with h5py.File(tmp_path / "a.cxi") as file:
        line = file["entry_1/strain_1/lines/line_1"]
        assert line["length"][()] == pytest.approx(1e-7)
        assert line["points"].attrs["units"] == "m"
        assert line["points"].attrs["frame"] == "crystal"


def test_a_result_without_the_group_has_no_lines(found, tmp_path):
    results.write(tmp_path / "a.cxi", found)
    with h5py.File(tmp_path / "a.cxi", "a") as file:
        del file["entry_1/strain_1/lines"]
    assert load_result(tmp_path / "a.cxi").strain.lines == ()


def test_damaged_points_are_refused(found, tmp_path):
    results.write(tmp_path / "a.cxi", found)
    with h5py.File(tmp_path / "a.cxi", "a") as file:
        line = file["entry_1/strain_1/lines/line_1"]
        del line["points"]
        line["points"] = np.zeros(5)
    with pytest.raises(FormatError, match="points"):
        load_result(tmp_path / "a.cxi")


def test_paraview_gets_x_y_z_in_nanometres(found, tmp_path):
    vtp.write(tmp_path / "a.vtp", found)
    written = (tmp_path / "a.vtp").read_text()
    arrays = {name: numbers.split() for name, numbers in re.findall(r'Name="(\w+)"[^>]*>([^<]*)<', written)}
    points = np.array(arrays["Points"], float).reshape(-1, 3)
    assert points[2].tolist() == [80, 0, 60]
    assert arrays["offsets"] == ["3", "7"]
    assert arrays["connectivity"] == list("0123456")
    assert arrays["G_dot_b"] == ["1", "2"]
    assert arrays["is_closed"] == ["0", "1"]


def test_a_folder_holds_lines_where_there_are_any_and_none_of_earlier_results(found, tmp_path):
    names = {path.name for path in Result(found).save(tmp_path, formats=("cxi", "vti"))}
    assert any(name.endswith(".vtp") for name in names)
    bare = dataclasses.replace(found, strain=dataclasses.replace(found.strain, lines=()))
    (lines,) = [path for path in Result(bare).save(tmp_path, formats=("vti",)) if path.suffix == ".vtp"]
    assert 'NumberOfLines="0"' in lines.read_text()
    assert {path.suffix for path in Result(bare).save(tmp_path / "other", formats=("cxi", "vti"))} == {".cxi", ".vti"}


def test_it_is_said_in_one_line(found):
    assert text.dislocations(LINES[:1]) == "One dislocation line of 100 nm, G·b = 1"
    assert text.dislocations(LINES) == "2 dislocations: line of 100 nm, G·b = 1; loop of 34.1 nm, G·b = 2"
    assert text.dislocations(()) == ""
    said = summary(found, "a", "b")
    assert [line["g_dot_b"] for line in said["dislocations"]] == [1, 2]
    assert said["strain"]["dislocation_lines"] == 2
    assert said["strain"]["dislocation_length_m"] == pytest.approx(1.341e-7, rel=1e-3)


def test_page_and_slide_show_the_lines(found):
    from braggshot.report import Drawing, page, slide

    drawing = Drawing(found)
    assert 'class="inside"' in page(drawing)
    traces = [one for one in drawing.in_space["data"] if "dislocation" in one.get("hovertemplate", "")]
    assert len(traces) == 2
    assert all(one["opacity"] < 1 for one in drawing.in_space["data"] if one["type"] == "mesh3d")
    assert any("dislocations" in words.get_text() for axes in slide(drawing).axes for words in axes.texts)
    bare = Drawing(dataclasses.replace(found, strain=dataclasses.replace(found.strain, lines=())))
    assert 'class="inside"' not in page(bare)
    assert not any("opacity" in one for one in bare.in_space["data"])
