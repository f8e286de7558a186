from __future__ import annotations

import builtins
import itertools
from threading import Event

import numpy as np
import pytest
from played import assert_equal, check_order, listen, toy_scan

from braggshot.errors import ConfigError, FormatError
from braggshot.live.messages import Arrived, Begin, End
from braggshot.live.sources import registry
from braggshot.live.sources.memory import MemorySource
from braggshot.live.sources.replay import Pace, ReplaySource
from braggshot.volumes import Frame


def test_an_unknown_scheme_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"unknown source 'kafka:x'.*folder:PATH.*pva:CHANNEL.*zmq:tcp.*replay:FILE"):
        registry.open_source("kafka:x")


@pytest.mark.parametrize("url", ["", "folder", "folder:", "just/a/path"])
def test_what_is_no_url_is_refused(url):
    with pytest.raises(ConfigError, match="SCHEME:TARGET"):
        registry.open_source(url)


def test_an_unknown_option_names_the_nearest_one(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'timeout'"):
        registry.open_source(f"folder:{tmp_path}?timeot=3")


def test_a_missing_library_says_what_to_install(monkeypatch, tmp_path):
    def without(name, *arguments, **options):
        if name.split(".")[0] in {"watchfiles", "zmq", "p4p"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *arguments, **options)

    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"needs watchfiles.*pip install 'braggshot\[live\]'"):
        registry.open_source(f"folder:{tmp_path}")


def test_options_of_the_url_go_over_those_of_the_program(tmp_path):
    source = registry.open_source(f"folder:{tmp_path}?frames=5&existing=0", {"frames": 7, "timeout": 3})
    assert (source.options.frames, source.options.timeout, source.options.existing) == (5, 3.0, False)


def test_other_packages_bring_their_own(monkeypatch):
    point = type("Point", (), {"name": "kafka", "value": "braggshot.live.sources.replay", "dist": None})
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [point] if group == "braggshot.sources" else [])
    assert registry.load("kafka").__name__ == "braggshot.live.sources.replay"


def test_memory_says_what_it_was_given():
    messages = [Begin("a"), Arrived("a", Frame(0, np.ones((2, 2)))), End("a")]
    source = MemorySource(messages)
    source.close()
    assert list(source.messages(Event())) == messages


def test_memory_says_nothing_often_and_stops():
    stop = Event()
    said = MemorySource().messages(stop)
    assert next(said) is None
    stop.set()
    assert list(itertools.islice(said, 5)) in ([], [None])


def test_replay_is_the_scan(tmp_path):
    scan = toy_scan()
    np.savez(tmp_path / "toy.npz", data=scan.frames[:])
    heard = listen(registry.open_source(f"replay:{tmp_path}/toy.npz?repeat=2"), lambda: None, scans=2)
    assert [begin.scan for begin in heard.begins] == ["toy", "toy_2"]
    assert heard.begins[0].frames == 12
    for name in ("toy", "toy_2"):
        np.testing.assert_array_equal([heard.frames(name)[index].image for index in range(12)], scan.frames[:])
    assert heard.ends == [End("toy"), End("toy_2")]


def test_replay_brings_angles_and_what_is_known():
    scan = toy_scan()
    heard = listen(ReplaySource(scan), lambda: None)
    assert heard.begins[0].about is scan
    assert_equal(heard, scan, "toy")


def test_replay_waits_between_frames_without_falling_silent():
    stop = Event()
    said = []
    for message in ReplaySource(toy_scan(), rate=0.1).messages(stop):
        said.append(message)
        if len(said) == 4:
            stop.set()
    assert [type(message).__name__ for message in said[:4]] == ["Begin", "Arrived", "NoneType", "NoneType"]
    check_order([message for message in said if message is not None])


def test_a_replay_that_is_held_sends_nothing_and_can_be_stopped():
    scan, stop = toy_scan(), Event()
    running = ReplaySource(scan, hold=[None, None]).messages(stop)
    assert [type(message).__name__ for message in itertools.islice(running, 4)] == ["NoneType", "NoneType", "Begin", "Arrived"]
    running = ReplaySource(scan, hold=itertools.repeat(None)).messages(stop)
    assert next(running) is None
    stop.set()
    assert list(running) == []


def test_replay_refuses_what_it_cannot_play():
    with pytest.raises(FormatError, match="no such file"):
        registry.open_source("replay:nowhere.cxi")
    with pytest.raises(ConfigError, match="rate"):
        ReplaySource(toy_scan(), rate=-1)


def test_pace_keeps_the_rate():
    pace, stop = Pace(1000.0), Event()
    begin = pace.due
    for _ in range(50):
        while pace.is_early(stop):
            pass
    assert pace.due - begin == pytest.approx(0.05)
