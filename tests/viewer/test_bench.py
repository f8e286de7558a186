"""Scans are phased from the page: one at a time, by the printed command, and to be stopped."""

import json
import shlex
import time

import pytest
from live_runs import write_scan
from page_questions import ask, question

from braggshot.errors import ConfigError
from braggshot.io import results
from braggshot.viewer.app import serving
from braggshot.viewer.bench import Bench, bench_of

PATIENCE = 90  # longest time for a phasing on a busy machine [s]


@pytest.fixture
def bench(tmp_path):
    write_scan(tmp_path / "crystal.cxi")
    made = Bench(tmp_path)
    yield made
    made.close()


def wait(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_scan_is_phased_and_shown_and_its_command_stands_beside_it(bench, tmp_path):
    bench.look()
    assert bench.latest()[1].state == "waiting"
    assert bench.states() == {"crystal": "raw"}
    bench.run(bench.scans[0], "oneshot", [])
    assert bench.states() == {"crystal": "running"}
    assert "phasing crystal" in bench.latest()[1].work.words
    with pytest.raises(ConfigError, match="One phasing runs"):
        bench.run(bench.scans[0], "oneshot", [])
    wait(lambda: not bench.is_running)
    bench.look()
    snapshot, place = bench.latest()[1], tmp_path / "braggshot-results"
    assert (snapshot.state, snapshot.work, snapshot.trouble) == ("done", None, ())
    assert snapshot.finished == (place / "crystal-1.cxi",)
    assert bench.states() == {"crystal": results.read(place / "crystal-1.cxi").verdict}
    words = shlex.split((place / "crystal-1-command.txt").read_text())
    assert words == [
        "braggshot",
        "reconstruct",
        str(tmp_path / "crystal.cxi"),
        "--method",
        "oneshot",
        "-o",
        str(snapshot.finished[0]),
    ]


def test_a_phasing_is_stopped_without_a_result_and_one_that_fails_says_why(bench, tmp_path):
    bench.run(bench.scans[0], "iterative", [])
    bench.stop()
    assert not bench.is_running
    assert bench.latest()[1].trouble == ()
    assert list((tmp_path / "braggshot-results").glob("*.cxi")) == []
    (tmp_path / "crystal.cxi").rename(tmp_path / "gone.cxi")
    bench.run(bench.scans[0], "oneshot", [])
    wait(lambda: not bench.is_running)
    bench.look()
    assert "crystal: " in bench.latest()[1].trouble[0]
    assert "no such file" in bench.latest()[1].trouble[0]


def asked(url, output, **values):
    token = {"Authorization": "Bearer a-long-token"}
    body = question(url, output, headers=token, **values)
    status, _, answer = ask(url, "/_dash-update-component", "POST", body, Content_Type="application/json", **token)
    return json.loads(answer)["response"] if status == 200 else None


def test_the_page_says_the_command_of_what_was_drawn_and_takes_no_other_words(bench):
    with serving(bench, token="a-long-token", bench=bench) as url:
        url = url.partition("?")[0]
        drawn = [{"type": "rect", "x0": 4, "x1": 28, "y0": 6, "y1": 26}]
        said = asked(url, "command.children", raw="0", method="refine", shapes=drawn)["command"]["children"]
        assert "prepare.shape=32,20,24" in said
        assert "--method refine" in said
        assert asked(url, "sum.figure", raw="0")["sum"]["figure"]["layout"]["images"][0]["sizex"] == 32
        for wrong in ("../../etc", "7", "-1", {"a": 1}):
            assert asked(url, "command.children", raw=wrong, method="auto", shapes=[]) is None
        said = asked(url, "command.children", raw="0", method="auto --set x", shapes=[])["command"]["children"]
        assert said == "the page offers no such method or scan."
        assert ask(url, "/_dash-update-component", "POST", "{}")[0] == 401


def test_a_page_without_a_token_only_shows(bench):
    with serving(bench, bench=bench) as url:
        assert b"run.n_clicks" not in ask(url, "/_dash-dependencies")[2]
        assert b"bench-said" not in ask(url, "/_dash-layout")[2]


def test_a_folder_is_worked_on_if_it_holds_scans_and_is_no_series(bench, tmp_path):
    assert bench_of([tmp_path]).scans == bench.scans
    assert bench_of([tmp_path / "crystal.cxi"]) is None
    (tmp_path / "series.csv").touch()
    assert bench_of([tmp_path]) is None
    (tmp_path / "empty").mkdir()
    assert bench_of([tmp_path / "empty"]) is None
