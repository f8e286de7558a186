"""What is shown comes as a file, and nothing else does."""

import csv
import io
import json
from urllib.parse import urlencode

import numpy as np
import pytest
from page_questions import ask
from sample_crystal import Changing, result, row

from braggshot.io import results
from braggshot.viewer.app import serving


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    for n, name in enumerate(("first", "second")):
        results.write(folder / f"{name}.cxi", result(name, 2e-4 * (n + 1)))
    files = (folder / "first.cxi", folder / "second.cxi")
    with serving(Changing(scan="second", state="done", finished=files, series=(row("first", 0), row("second", 1)))) as url:
        yield url


def rows(body):
    return list(csv.DictReader(io.StringIO(body.decode())))


def test_a_result_comes_back_as_it_was(page, tmp_path):
    status, headers, body = ask(page, "/download/cxi?scan=0")
    assert status == 200
    assert headers["Content-Disposition"] == 'attachment; filename="first.cxi"'
    (tmp_path / "came.cxi").write_bytes(body)
    assert np.array_equal(results.read(tmp_path / "came.cxi").rho, result("first", 2e-4).rho)


def test_the_newest_scan_comes_where_none_is_named_and_each_kind_is_what_it_says(page):
    assert ask(page, "/download/vti")[2].lstrip().startswith(b"<?xml")
    assert ask(page, "/download/png")[2].startswith(b"\x89PNG")
    listed = rows(ask(page, "/download/csv")[2])
    assert (listed[0]["name"], listed[0]["verdict"], float(listed[0]["chi2"])) == ("second", "good", 0.0081)
    assert [one["name"] for one in rows(ask(page, "/download/series")[2])] == ["first", "second"]


def test_a_line_profile_is_in_the_unit_of_the_page(page):
    view = urlencode({"picked": json.dumps([[0, 10, 0], [0, 60, 0]]), "unit": "%", "scan": 1})
    listed = rows(ask(page, f"/download/profile?{view}")[2])
    assert list(listed[0]) == ["distance [nm]", "strain [%]"]
    assert float(listed[-1]["distance [nm]"]) == pytest.approx(50)
    assert float(listed[100]["strain [%]"]) == pytest.approx(0.04, rel=0.02)


@pytest.mark.parametrize("path", ["/download/profile", "/download/html", "/download/..%2f..%2fetc%2fpasswd", "/download/"])
def test_what_is_not_offered_is_not_there(page, path):
    status, _, body = ask(page, path)
    assert b"root:" not in body
    assert status == 404 or b"_dash-component-suites" in body
