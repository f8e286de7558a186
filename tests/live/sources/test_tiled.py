from __future__ import annotations

import contextlib
import gc
import json
import time
from itertools import pairwise

import numpy as np
import pytest
from catalogue import Catalogue, Run, Serving
from played import assert_equal, listen, playing, toy_scan
from scipy.constants import electron_volt
from tiled_server import RealServer

from braggshot.errors import ConfigError
from braggshot.live.messages import Arrived, Begin, Dropped, End, Trouble
from braggshot.live.simulator.player import open_sink
from braggshot.live.sources import tiled
from braggshot.live.sources.http_asking import Server
from braggshot.live.sources.ledger import Ledger, ScanDefaults
from braggshot.live.sources.limits import UnusableError
from braggshot.live.sources.registry import open_source
from braggshot.live.sources.tiled import Options, Reader

COUNTS = toy_scan().frames[:]
ANGLES = np.rad2deg(toy_scan().rocking_angle).tolist()


def run(key="r1", **facts):
    return Run(key, **{"frames": COUNTS, "positions": ANGLES, **facts})


class Looking:
    """A reader that looks at a catalogue whenever it is told to."""

    def __init__(self, catalogue, **options):
        self.catalogue, self.reader, self.ledger, self.heard = catalogue, Reader(Options(**options)), Ledger(ScanDefaults()), []

    def look(self):
        fresh = [message for message in self.reader.look(self.catalogue, self.ledger) if message is not None]
        self.heard += fresh
        return fresh

    @property
    def frames(self):
        return [message.frame for message in self.heard if isinstance(message, Arrived)]


def test_frames_come_with_their_events(monkeypatch):
    monkeypatch.setattr(tiled, "TABLE_EVERY", 0.0)
    live = run()
    looking = Looking(Catalogue(runs=[run("old").end(), live]))
    assert looking.look() == []  # a run that was over before is not taken
    live.tell(5, 3)
    assert [type(message) for message in looking.look()] == [Begin, Arrived, Arrived, Arrived]  # two frames wait for their events
    live.tell(9, 9)
    assert len(looking.look()) == 6
    live.end()
    assert looking.look()[-1] == End("scan_0054")
    for index, frame in enumerate(looking.frames):
        np.testing.assert_array_equal(frame.image, COUNTS[index])
        assert abs(frame.rocking_angle - np.deg2rad(ANGLES[index])) < 1e-12
    assert looking.heard[0] == Begin("scan_0054", 12, (20, 31))
    assert looking.look() == []


def test_the_last_frames_do_not_wait_for_the_stop_document(monkeypatch):
    monkeypatch.setattr(tiled, "TABLE_EVERY", 1e9)
    live = run()
    looking = Looking(Catalogue(runs=[live]))
    live.tell(12, 11)
    looking.look()
    live.tell(12, 12)
    looking.look()
    assert len(looking.frames) == 12


def test_runs_between_two_looks_come_in_their_order(monkeypatch):
    monkeypatch.setattr(tiled, "PAGE", 4)
    catalogue = Catalogue(runs=[run("old").end()])
    looking = Looking(catalogue)
    looking.look()
    catalogue.runs += [run(f"r{number}", number=number).end() for number in range(11)]
    catalogue.runs[4].end("abort").tell(8)
    looking.look()
    ends = [message for message in looking.heard if isinstance(message, End)]
    assert [end.scan for end in ends] == [f"scan_{number:04d}" for number in range(11)]
    assert [end.aborted for end in ends] == ["", "", "", "the run ended by abort", *7 * [""]]
    assert len(looking.frames) == 10 * 12 + 8


def test_a_run_that_never_stopped_ends_when_the_next_begins():
    first = run("r1").tell(12, 12)
    catalogue = Catalogue(runs=[first])
    looking = Looking(catalogue)
    looking.look()
    catalogue.runs.append(run("r2", number=55))
    looking.look()
    assert looking.heard[-1] == End("scan_0054")


def test_no_frame_loses_its_angle_where_the_server_fails_to_give_them():
    live = run().end()
    catalogue = Catalogue(runs=[run("old").end()])
    looking = Looking(catalogue)
    looking.look()
    catalogue.runs.append(live)
    catalogue.broken["table/full"] = 500
    assert looking.look() == []
    catalogue.broken = {"array/full": 500}
    assert looking.look() == []
    catalogue.broken = {}
    assert looking.look()[-1] == End("scan_0054")
    assert all(frame.rocking_angle is not None for frame in looking.frames)


def test_frames_that_never_come_are_told(monkeypatch):
    catalogue = Catalogue(runs=[run("old").end()])
    looking = Looking(catalogue)
    looking.look()
    catalogue.runs.append(run().end())
    catalogue.broken["array/full"] = 500
    looking.look()
    monkeypatch.setattr(tiled, "PATIENCE", -1.0)
    assert looking.look() == [Dropped("unreadable", "frames 0 to 11 of scan_0054")]


@pytest.mark.parametrize("route", ["table/full", "array/full"])
def test_patience_begins_when_a_run_is_followed_and_when_the_server_is_back(route, monkeypatch):
    """Angles and frames were given up that failed once, if their run had waited, or the server had been away, for long."""
    moment = [1000.0]
    monkeypatch.setattr(tiled.time, "monotonic", lambda: moment[0])
    live, catalogue = run(), Catalogue(runs=[run("old").end()])
    looking = Looking(catalogue)
    looking.look()
    catalogue.runs.append(live.end())
    looking.reader._find_runs(catalogue)
    moment[0] += 60  # it waits
    catalogue.broken[route] = 500
    assert looking.look() == []
    moment[0] += 60  # the server is away
    looking.reader.resume()
    assert looking.look() == []
    catalogue.broken = {}
    assert looking.look()[-1] == End("scan_0054")
    assert [frame.rocking_angle is None for frame in looking.frames] == 12 * [False]


def test_energies_and_angles_by_their_units():
    for units, size in (("keV", 1e3 * electron_volt), ("eV", electron_volt)):
        looking = Looking(Catalogue(runs=[run(units=units, motor="mono_energy").tell(12)]))
        looking.look()
        np.testing.assert_allclose([frame.energy for frame in looking.frames], np.array(ANGLES) * size)
        assert all(frame.rocking_angle is None for frame in looking.frames)
    looking = Looking(Catalogue(runs=[run(units="mrad").tell(12)]))
    looking.look()
    np.testing.assert_allclose([frame.rocking_angle for frame in looking.frames], np.array(ANGLES) * 1e-3)


@pytest.mark.parametrize(("motor", "units", "said"), [("samx", "mm", "in 'mm'"), ("mono_energy", None, "an unknown unit")])
def test_a_motor_that_is_no_angle_and_no_energy_is_refused(motor, units, said):
    looking = Looking(Catalogue(runs=[run(motor=motor, units=units).tell(12)]))
    (told,) = looking.look()
    assert isinstance(told, Trouble)
    assert said in told.reason
    assert looking.look() == []
    looking = Looking(Catalogue(runs=[run(motor=motor, units=units).tell(12)]), units="keV")
    looking.look()
    assert len(looking.frames) == 12


def test_several_frames_of_an_event_share_its_angle():
    looking = Looking(Catalogue(runs=[run(per_event=3, positions=ANGLES[:4]).tell(12)]))
    looking.look()
    assert looking.heard[0].frames == 12
    angles = [frame.rocking_angle for frame in looking.frames]
    np.testing.assert_allclose(angles, np.deg2rad(np.repeat(ANGLES[:4], 3)))


def test_a_run_without_motor_has_no_angles():
    looking = Looking(Catalogue(runs=[run(positions=None).tell(12)]))
    looking.look()
    assert [frame.rocking_angle for frame in looking.frames] == 12 * [None]


def test_nothing_is_lost_while_the_server_is_away(monkeypatch):
    monkeypatch.setattr("braggshot.live.sources.reconnecting.PAUSE", 0.1)
    live, catalogue = run(), Catalogue(runs=[run("old").end()])
    serving = [Serving(catalogue)]

    def play():
        port = serving[0].server_port
        time.sleep(0.5)
        catalogue.runs.append(live)
        for frames in range(1, 13):
            live.tell(frames)
            if frames in {4, 8}:
                serving.pop().end()
                time.sleep(0.4)
                serving.append(Serving(catalogue, port))
            time.sleep(0.05)
        live.end()
        catalogue.runs.append(run("r2", number=55).end())

    heard = listen(open_source(f"tiled:{serving[0].url}"), play, scans=2)
    serving[0].end()
    assert [message for message in heard.messages if isinstance(message, Trouble)]
    assert heard.ends == [End("scan_0054"), End("scan_0055")]
    assert not heard.lost
    for name in ("scan_0054", "scan_0055"):
        assert_equal(heard, toy_scan(), name)


def test_answers_are_bounded_before_they_are_read():
    serving = Serving(Catalogue(runs=[run().end()]))
    server = Server(serving.url, "/api/v1", {})
    path, query = "r1/primary/eiger", {"slice": "0:12"}
    assert len(server.ask("array/full", path, query, COUNTS.nbytes)) == COUNTS.nbytes
    with pytest.raises(UnusableError, match="oversized"):
        server.ask("array/full", path, query, COUNTS.nbytes - 1)
    assert server.ask("metadata", "none", {}) is None
    serving.catalogue.broken["search"] = 403
    with pytest.raises(ConnectionError, match="key is missing or wrong"):
        server.ask("search", "r1", {})
    serving.end()
    server.close()
    with pytest.raises(ConnectionError, match="no answer"):
        server.ask("search", "r1", {})


@pytest.mark.parametrize("target", ["beamline", "tcp://a:1", "http://user:word@host", "http://host:x", "http://host?a"])
def test_addresses_that_are_none(target):
    with pytest.raises(ConfigError):
        open_source(f"tiled:{target}")


def test_mutated_answers_never_raise_and_keep_the_order():
    random, values = np.random.default_rng(1), [None, True, -1, 0, 3, 2**63, 1e300, "", "r1", "u", [], [12, 20, 31], {}, {"a": {}}]
    catalogue, looking = Catalogue(), None

    def mutated(route, path, query, most=0, missing=(404,)):
        content = bytearray(good(route, path, query, most, missing) or b"{}")
        if random.random() < 0.1 and content:
            content[random.integers(len(content))] = random.integers(256)
        elif random.random() < 0.15 and route != "array/full":
            text = json.loads(content)
            place = text.get("data", text)
            place = place[0] if isinstance(place, list) and place else place
            place = place["attributes"] if isinstance(place, dict) and "attributes" in place and random.random() < 0.7 else place
            place = place.get("structure", place) if isinstance(place, dict) else place
            if isinstance(place, dict):
                place[str(random.choice([*place, "data"]))] = values[random.integers(len(values))]
            content = json.dumps(text).encode()
        return bytes(content)

    good, catalogue.ask = catalogue.ask, mutated
    looking = Looking(catalogue)
    for number in range(400):
        catalogue.runs = [*catalogue.runs[-3:], run(f"r{number}", number=number).tell(int(random.integers(1, 13)))]
        for _ in range(2):
            with contextlib.suppress(UnusableError):  # a list of runs that is none: told, and asked for again
                looking.look()
            catalogue.runs[-1].end()
    scans = [message for message in looking.heard if isinstance(message, Begin | End)]
    assert len(scans) > 200
    for first, second in pairwise(scans):
        assert isinstance(first, Begin) != isinstance(second, Begin)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # of the libraries
def test_a_real_server_and_a_real_run_engine(tmp_path, monkeypatch):
    """A run that a RunEngine writes, and one that `emit` plays; the server is started anew in between."""
    pytest.importorskip("tiled.server.app")
    pytest.importorskip("bluesky")
    pytest.importorskip("ophyd")
    monkeypatch.setenv("TILED_API_KEY", "secret")
    server = RealServer(tmp_path)

    def play():
        time.sleep(1)
        server.measure("frames.h5", COUNTS, (10.0, 11.1, 12))
        server.restart()
        sink = open_sink(f"tiled:{server.url}?files={tmp_path / 'detector'}")
        playing(toy_scan(), sink)()

    try:
        heard = listen(open_source(f"tiled:{server.url}"), play, scans=2, patience=180.0)
    finally:
        server.end()
        gc.collect()  # what the libraries leave open is theirs
    assert not heard.lost
    assert heard.ends == [End("scan_0001"), End("scan_0001_2")]
    for begin in heard.begins:
        assert_equal(heard, toy_scan(), begin.scan)
