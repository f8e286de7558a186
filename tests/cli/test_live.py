"""The command as a person runs it, to its end; over real transports: tests/live/test_end_to_end.py."""

from __future__ import annotations

import json
import signal

import pytest
from command_line import run
from live_runs import live, write_scan
from page_questions import ask, surface

from braggshot.io import results

PATIENCE = 60  # seconds; a busy machine takes its time


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["kafka:x"], "kafka"),
        (["folder:frames", "--set", "live.evry=1"], "did you mean"),
        (["folder:frames", "--like", "none.cxi"], "no such file"),
        (["folder:frames", "--set", "input.dark=dark.tif"], "input.dark is about the file that --like names"),
        (["folder:frames", "--dark", "none.tif"], "none.tif: no such file"),
        (["folder:frames", "--no-token", "--token-file", "none"], "exclude each other"),
        (["folder:frames", "--base-path", "a b"], "--base-path"),
    ],
)
def test_what_cannot_be_watched_is_said_in_one_line(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("braggshot.cli.live.end_as_by_ctrl_c", lambda: None)
    assert run("live", *arguments, "-o", "out", "--no-browser") == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def moment(url, query=""):
    return json.loads(ask(url, f"/moment{query}")[2])["moment"]


def test_a_replay_waits_for_its_page_and_the_finished_crystal_stays_until_ctrl_c(tmp_path):
    out = tmp_path / "out"
    with live(f"replay:{write_scan(tmp_path / 'crystal.cxi')}", "-o", out, "--no-token") as process:
        url = process.stdout.readline().strip()
        assert "when the page is open" in process.stdout.readline()
        asked = [moment(url) for _ in range(2)]  # the session may say between the two that it waits
        assert all(found["number"] <= 1 and (found["picture"], found["scans"]) == (0, 1) for found in asked)
        assert surface(url)[1]["crystal"]["figure"]["data"] == []
        moment(url, "?page=p&number=0")
        said = "".join(process.stdout.readline() for _ in range(5))
        found, file = results.read(out / "crystal.cxi"), f"{out / 'crystal.cxi'}\n"
        result = f"crystal\n{found.verdict}\n  {' '.join(found.reasons)}\nwrote {file}"
        assert said == f"{result}to see it again: braggshot view {file}"
        assert "until Ctrl-C" in process.stdout.readline()
        assert surface(url)[1]["crystal"]["figure"]["data"][0]["type"] == "mesh3d"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
        assert process.stderr.read() == ""
