"""A detector plays over a real transport, a session listens, and the result is that of the files."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from live_runs import QUICK, is_same_but_for_twin_and_place
from played import PATIENCE, playing

from braggshot import pipeline
from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.io import registry, results
from braggshot.io.formats import recorded
from braggshot.io.frames import ArrayFrames
from braggshot.live.config import resolve
from braggshot.live.session import Session
from braggshot.live.simulator.faults import Faults, fault_plan
from braggshot.live.simulator.player import open_sink
from braggshot.live.sources.registry import open_source
from braggshot.prepare import prepare
from braggshot.volumes import Scan

FAULTS = Faults(drop=0.06, duplicate=0.06, reorder=0.1, truncate=0.06)


@pytest.fixture(scope="module")
def scan():
    """Counts of a crystal as a detector has them."""
    crystal = CrystalSettings(shape=(32, 32, 32), phase_range=(1, 1), counts=(5e4, 5e4), shapes=("fcc",))
    _, volume = simulate_volume(5, crystal)
    assert volume.intensity.max() < 2**16
    frames = ArrayFrames(np.round(volume.intensity).astype(np.uint16))
    return Scan(frames, "crystal", rocking_angle=np.deg2rad(np.linspace(10, 10.31, 32)))


def listened(tmp_path, url, sink, scan, faults=None, seed=0):
    session = Session(tmp_path, resolve({**QUICK, "live": {"improve": False, "keep": True}}))
    source = open_source(url, {"timeout": 5})  # where the last frame is lost, nothing else says that a scan is over
    player = threading.Thread(target=playing(scan, sink, faults, seed, ready=getattr(source, "connected", None)), daemon=True)
    giving_up = threading.Timer(4 * PATIENCE, session.stop.set)
    giving_up.start()
    player.start()
    session.run(source, once=True)
    giving_up.cancel()
    player.join(PATIENCE)
    return session, [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("place", ["zmq:*", "zmq:*?version=2", "stins:*", "bluesky:*?files=FOLDER"])
def test_a_whole_scan_over_zmq_is_the_scan(place, scan, tmp_path):
    sink = open_sink(place.replace("*", "tcp://127.0.0.1:*").replace("FOLDER", f"{tmp_path}/frames"), compress="bslz4")
    _, events = listened(tmp_path, sink.url, sink, scan)
    (result,) = [event for event in events if event["event"] == "result"]
    live = results.read(tmp_path / result["file"])
    offline = pipeline.reconstruct(replace(scan, provenance={"no_count": 65535}), {"phasing": QUICK["phasing"]})
    assert np.array_equal(live.volume.intensity, offline.volume.intensity)
    assert np.array_equal(live.volume.valid, offline.volume.valid)
    assert is_same_but_for_twin_and_place(live, offline)


@pytest.mark.parametrize("options", ["eiger=10", "eiger=10&swmr=1"])
def test_files_of_a_detector_that_appear_are_those_that_are_read_later(options, scan, tmp_path):
    """The finished set read offline and the same set followed while it grew: one volume, one result, bit by bit."""
    (tmp_path / "frames").mkdir()
    sink = open_sink(f"folder:{tmp_path / 'frames'}?{options}")
    session, events = listened(tmp_path / "out", sink.url, sink, scan)
    (result,) = [event for event in events if event["event"] == "result"]
    live = results.read(tmp_path / "out" / result["file"])
    found = registry.read(next((tmp_path / "frames").glob("*_master.h5")), "petra_p10")
    offline = pipeline.reconstruct(found, {"phasing": QUICK["phasing"]})
    assert not session.status.latest()[1].dropped
    assert np.array_equal(live.volume.intensity, offline.volume.intensity)
    assert np.array_equal(live.volume.valid, offline.volume.valid)
    assert is_same_but_for_twin_and_place(live, offline)


@pytest.mark.parametrize("transport", ["zmq", "pva", "folder", "zmq 2", "stins", "eiger"])
def test_what_faults_took_is_masked_and_the_rest_is_exact(transport, scan, tmp_path):
    seed = next(
        seed
        for seed in range(1_000)
        if 2 <= sum(action.kind == "truncated" for action in fault_plan(32, FAULTS, seed)) + 32
        - len({action.frame for action in fault_plan(32, FAULTS, seed) if action.kind in {"frame", "truncated"}}) <= 4
    )  # fmt: skip
    (tmp_path / "frames").mkdir()
    place = {"zmq": "zmq:tcp://127.0.0.1:*", "pva": "pva:test:live:image", "folder": f"folder:{tmp_path / 'frames'}"}
    place |= {"stins": "stins:tcp://127.0.0.1:*", "zmq 2": f"{place['zmq']}?version=2", "eiger": f"{place['folder']}?eiger=10"}
    sink = open_sink(place[transport])
    session, events = listened(tmp_path / "out", sink.url, sink, scan, FAULTS, seed)
    is_complete = {action.frame for action in fault_plan(32, FAULTS, seed) if action.kind == "frame"}
    (started,) = [event["scan"] for event in events if event["event"] == "scan started"]
    found = recorded.read(tmp_path / "out" / ".live" / started)
    here = np.ones(32, dtype=bool) if found.arrived is None else found.arrived
    assert set(np.flatnonzero(here).tolist()) == is_complete
    for index in is_complete:
        assert np.array_equal(found.frames[index], scan.frames[index])
    ends = Counter(event["event"] for event in events)
    if ends["result"]:
        volume = results.read(tmp_path / "out" / f"{started}.cxi").volume
        assert np.array_equal(volume.intensity, prepare(found).intensity)
    else:  # so much was lost that the scan counts as aborted: its frames are kept
        assert ends["scan aborted"] == 1
    assert session.status.latest()[1].dropped is not None


@pytest.mark.slow
def test_the_commands_play_together(scan, tmp_path):
    """`braggshot emit` into a folder, `braggshot live` out of it; the first line is the page; ``input`` is for ``--like`` only."""
    np.save(tmp_path / "crystal.npy", scan.frames[:])
    np.save(tmp_path / "mask.npy", np.arange(32 * 32).reshape(32, 32) == 100)
    (tmp_path / "frames").mkdir()
    settings = [
        "--set=phasing.starts=2",
        "--set=phasing.method=iterative",
        "--set=phasing.iterative.recipe=60*RAAR+30*ER",
        '--set=output.formats=["cxi"]',
    ]
    command = [
        sys.executable,
        "-m",
        "braggshot",
        "live",
        f"folder:{tmp_path / 'frames'}?frames=32",
        "-o",
        tmp_path / "out",
        "--once",
        *("--like", tmp_path / "crystal.npy", f"--set=input.mask={tmp_path / 'mask.npy'}"),
    ]
    with subprocess.Popen([*command, "--no-browser", "--no-token", *settings], stdout=subprocess.PIPE, text=True) as live:
        assert live.stdout is not None
        url = live.stdout.readline().strip()
        with urllib.request.urlopen(url, timeout=PATIENCE) as page:
            assert "braggshot" in page.read().decode()
        emit = [sys.executable, "-m", "braggshot", "emit", tmp_path / "crystal.npy", "--to", f"folder:{tmp_path / 'frames'}"]
        said = subprocess.run([*emit, "--rate", "200"], check=True, capture_output=True, text=True)
        assert json.loads(said.stdout.splitlines()[-1])["frames"] == 32
        assert live.wait(4 * PATIENCE) == 0
        said_live = live.stdout.read()
    events = [json.loads(line) for line in (tmp_path / "out" / "events.jsonl").read_text().splitlines()]
    (result,) = [event for event in events if event["event"] == "result"]
    assert result["frames"] == 32
    found = results.read(tmp_path / "out" / result["file"])
    assert found.verdict == result["verdict"]
    assert not found.volume.valid.reshape(32, -1)[:, 100].any()  # the mask of --like
    assert f"\n{result['verdict']}\n" in said_live
    assert f"wrote {tmp_path / 'out' / result['file']}\n" in said_live
    assert said_live.endswith(f"braggshot view {tmp_path / 'out' / result['file']}\n")
