"""Over loopback only: the server takes free ports, the client asks it by TCP, and no variable of the environment is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from p4p import Value
from p4p.nt import NTNDArray, NTScalar
from p4p.server import Server
from p4p.server.thread import SharedPV
from played import assert_equal, listen, playing, toy_scan

from braggshot.errors import ConfigError
from braggshot.io.codecs import Codec
from braggshot.live.messages import Arrived, Begin, Dropped, End
from braggshot.live.simulator.faults import Faults, fault_plan
from braggshot.live.simulator.player import open_sink
from braggshot.live.sources.decoding import ImageDecoder
from braggshot.live.sources.ledger import Ledger, ScanDefaults
from braggshot.live.sources.limits import UnusableError
from braggshot.live.sources.pva import Numbering, Options, PvaSource, Update, read_update
from braggshot.live.sources.registry import open_source
from braggshot.pipeline import drain

CHANNEL = "pva:TEST:Pva1:Image?port=0"
COUNTS = toy_scan().frames[:]


@pytest.fixture(autouse=True)
def no_settling(monkeypatch):
    """The tests know when a listener has subscribed."""
    monkeypatch.setattr("braggshot.live.simulator.pva.SETTLE", 0.0)


@pytest.mark.parametrize("compress", ["none", "lz4", "bslz4", "blosc"])
def test_every_frame_arrives_as_it_was_sent(compress):
    scan = toy_scan()
    sink = open_sink(CHANNEL, compress=compress)
    source = open_source(sink.url)
    heard = listen(source, playing(scan, sink, repeat=2, ready=source.connected), scans=2)
    assert heard.ends == [End("toy_0001"), End("toy_0002")]
    assert not heard.lost
    for begin in heard.begins:
        assert begin.frames == 12
        assert_equal(heard, scan, begin.scan)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.int64, np.float32])
def test_pixels_of_other_types(dtype):
    scan = toy_scan(3, dtype=dtype)
    sink = open_sink(CHANNEL)
    source = open_source(sink.url)
    assert_equal(listen(source, playing(scan, sink, ready=source.connected)), scan, "toy_0001")


def test_faults_are_counted():
    scan, faults = toy_scan(60), Faults(drop=0.1, duplicate=0.1, reorder=0.1, late=0.05, truncate=0.1)
    plan = fault_plan(60, faults, 5)
    whole = Counter(action.frame for action in plan if action.kind == "frame")
    sink = open_sink(CHANNEL)
    source = open_source(f"{sink.url}&timeout=0.5")
    heard = listen(source, playing(scan, sink, faults, 5, ready=source.connected))
    assert set(heard.frames("toy_0001")) == set(whole)
    for index, frame in heard.frames("toy_0001").items():
        np.testing.assert_array_equal(frame.image, scan.frames[index])
    assert heard.lost["truncated"] == sum(action.kind == "truncated" for action in plan) > 0
    assert heard.lost["duplicate"] == sum(whole.values()) - len(whole) > 0


def test_an_aborted_scan_is_followed_by_the_whole_one():
    scan = toy_scan()
    sink = open_sink(CHANNEL)
    source = open_source(sink.url)
    heard = listen(source, playing(scan, sink, Faults(abort=4), ready=source.connected), scans=2)
    assert heard.ends == [End("toy_0001", "the next scan began after frame 4 of 12"), End("toy_0002")]
    assert_equal(heard, scan, "toy_0002")


@pytest.fixture
def channel() -> Iterator[tuple[SharedPV, PvaSource]]:
    """A channel to post anything to, and a source that listens."""
    pv = SharedPV(initial=Value(NTNDArray.buildType(), {}))
    with Server(providers=[{"A": pv}], isolate=True) as server:
        address = f"127.0.0.1:{server.conf()['EPICS_PVAS_SERVER_PORT']}"
        yield pv, PvaSource("A", Options(address=address, timeout=0.5))


def update(unique_id: int, image=COUNTS[0], **changes) -> Value:
    rows, columns = image.shape
    fields = {
        "value": ("ushortValue", image.ravel()),
        "codec": {"name": ""},
        "uniqueId": unique_id,
        "dimension": [{"size": columns}, {"size": rows}],
        "attribute": [],
    }
    return Value(NTNDArray.buildType(), fields | changes)


def test_a_detector_without_attributes(channel):
    """uniqueId counts; a counter that starts again begins a scan, and so does a frame after silence."""
    pv, source = channel

    def play():
        assert source.connected.wait(10)
        for unique_id in (100, 101, 103, 7, 8):
            pv.post(update(unique_id, COUNTS[unique_id % 12]))

    heard = listen(source, play, scans=2)
    assert [begin.scan for begin in heard.begins] == ["A", "A_2"]
    assert sorted(heard.frames("A")) == [0, 1, 3]
    assert sorted(heard.frames("A_2")) == [0, 1]
    np.testing.assert_array_equal(heard.frames("A")[3].image, COUNTS[103 % 12])


def test_rubbish_is_counted_and_nothing_else_is_lost(channel):
    pv, source = channel

    def play():
        assert source.connected.wait(10)
        pv.post(update(1))
        pv.post(update(2, dimension=[{"size": 2**30}, {"size": 2**30}]))
        pv.post(update(3, dimension=[{"size": 3}, {"size": 5}, {"size": 7}]))
        pv.post(update(4, value=("booleanValue", np.zeros(620, bool))))
        pv.post(update(5, codec={"name": "jpeg", "parameters": 6}))
        pv.post(update(6, codec={"name": "bslz4", "parameters": 99}))
        pv.post(update(7, value=("ushortValue", COUNTS[0].ravel()[:100])))
        pv.post(update(8))

    heard = listen(source, play)
    assert heard.lost == {"oversized": 1, "shape": 1, "type": 2, "encoding": 1, "truncated": 1}
    assert sorted(heard.frames("A")) == [0, 7]


class Told:
    """A subscription that tells the given updates, then nothing."""

    def __init__(self, *updates):
        self.updates = list(updates)

    def pop(self):
        return self.updates.pop(0) if self.updates else None


@pytest.mark.parametrize(("held", "indices"), [(3, [0, 1, 2, 3]), (2, [0, 1, 3]), (None, [0, 1, 3])])
def test_the_image_that_came_while_the_connection_was_lost_is_taken(held, indices):
    """It is what the channel holds afterwards, unless that is known, or the server was started anew and holds none."""
    empty = Value(NTNDArray.buildType(), {})
    after = empty if held is None else update(held)
    source, numbering = PvaSource("A", Options()), Numbering(Ledger(ScanDefaults(frames=10)))
    told = Told(update(99), update(1), update(2), RuntimeError("Disconnect"), after, update(4))
    heard = []
    for message in source._take(told, Event(), numbering, ImageDecoder(), np.inf, Event()):
        heard.append(message)
        if not told.updates and message is None:
            break
    assert [message.frame.index for message in heard if isinstance(message, Arrived)] == indices
    assert not [message for message in heard if isinstance(message, Dropped)]


def test_a_channel_that_is_away_is_searched_anew(monkeypatch):
    """The library itself waits for 10 s where it knows the server by its address."""
    monkeypatch.setattr("braggshot.live.sources.pva.SEARCHES", (0.1, 5.0))
    source, numbering = PvaSource("A", Options()), Numbering(Ledger(ScanDefaults()))
    for told, was_there in ((Told(update(1), RuntimeError("Disconnect")), True), (Told(), False)):
        heard = []
        assert drain(source._take(told, Event(), numbering, ImageDecoder(), 0.3, Event()), heard.append) == was_there
        assert set(heard) == {None}
        assert not source.connected.is_set()


def test_a_channel_of_another_kind_is_only_counted():
    pv = SharedPV(nt=NTScalar("d"), initial=0.0)
    with Server(providers=[{"A": pv}], isolate=True) as server:
        source = PvaSource("A", Options(address=f"127.0.0.1:{server.conf()['EPICS_PVAS_SERVER_PORT']}"))
        stop, lost = Event(), []
        for message in source.messages(stop):
            if source.connected.is_set() and not lost:
                pv.post(1.0)
            if message is not None:
                lost.append(message.reason)
                stop.set()
    assert lost == ["malformed"]


def image(unique_id: int, scan: str | None = None, index: int | None = None, frames: int | None = None) -> Update:
    return Update(unique_id, COUNTS[0], scan, index, None, frames, None)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ([image(5), image(6), image(9)], ["a 0", "a 1", "a 4"]),
        ([image(5), image(6), image(2), image(3)], ["a 0", "a 1", "b 0", "b 1"]),
        ([image(n, frames=2) for n in (5, 7, 8, 9)], ["a 0", "b 0", "b 1", "c 0"]),
        ([image(n, "S1") for n in (5, 6)] + [image(7, "S2")], ["S1 0", "S1 1", "S2 0"]),
        ([image(n, index=i) for n, i in ((5, 0), (6, 1), (7, 2), (8, 0), (9, 1))], ["a 0", "a 1", "a 2", "b 0", "b 1"]),
        ([image(n, "S1", i) for n, i in ((5, 3), (6, 1))], ["S1 3", "S1 1"]),
    ],
)
def test_numbering(sent, expected):
    numbering = Numbering(Ledger(ScanDefaults()))
    names: dict[str, str] = {}
    found = []
    for one in sent:
        for message in numbering.messages(one, "a"):
            if isinstance(message, Begin):
                names[message.scan] = message.scan if message.scan.startswith("S") else "abc"[len(names)]
            elif not isinstance(message, End):
                found.append(f"{names[message.scan]} {message.frame.index}")
    assert found == expected


def test_an_identifier_that_nobody_changes():
    numbering = Numbering(Ledger(ScanDefaults()))
    said = [message for n in (0, 1, 0, 1) for message in numbering.messages(image(n, "S", n, 2), "a")]
    assert [message.scan for message in said if isinstance(message, End)] == ["S", "S_2"]


def fields(**changes):
    plain = {"uniqueId": 1, "value": COUNTS[0].ravel(), "codec": "", "parameters": None, "dimension": [31, 20], "attribute": []}
    return plain | {"time": 0.0} | changes


def test_attributes_as_drivers_send_them():
    said = [("ScanId", 54), ("FrameIndex", 3.0), ("RockingAngle", 10), ("FramesPlanned", "60"), ("FramesPlanned2", None)]
    found = read_update(fields(attribute=said), ImageDecoder(), Options())
    assert (found.scan, found.index, found.frames) == ("54", 3, 60)
    assert found.angle == pytest.approx(np.deg2rad(10))
    other = read_update(fields(attribute=[("th", 1.0)]), ImageDecoder(), Options(angle_attribute="th"))
    assert other.angle == pytest.approx(np.deg2rad(1))
    strange = [("ScanId", ""), ("FrameIndex", 1.5), ("RockingAngle", "x"), ("FramesPlanned", -1), ("FramesPlanned", float("nan"))]
    empty = read_update(fields(attribute=strange), ImageDecoder(), Options())
    assert replace(empty, image=None) == Update(1, None, None, None, None, None, 0.0)


ANY = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.lists(st.integers(), max_size=4)
PAIRS = st.lists(st.tuples(st.sampled_from(["ScanId", "FrameIndex", "RockingAngle", "FramesPlanned"]) | ANY, ANY), max_size=5)
ARRAYS = st.sampled_from(
    [np.zeros(620, kind) for kind in ("u1", "u2", "f8", "?", "U3", "c8")] + [np.zeros((2, 2), "u2"), np.zeros(0)]
)


STRANGE = {
    "uniqueId": ANY,
    "codec": ANY | st.sampled_from(["lz4", "bslz4", "blosc", "jpeg"]),
    "parameters": ANY | st.integers(0, 11),
    "value": ANY | ARRAYS,
    "dimension": ANY | st.lists(st.integers(-1, 20000), min_size=2, max_size=2),
    "attribute": ANY | PAIRS,
    "time": ANY,
}


def never_raises(changes):
    try:
        found = read_update(fields(**changes), ImageDecoder(), Options())
    except UnusableError:
        return
    assert isinstance(found, Update)


@settings(max_examples=200, deadline=None)
@given(st.fixed_dictionaries({}, optional=STRANGE))
def test_strange_fields_never_raise(changes):
    never_raises(changes)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["lz4", "bslz4", "blosc"]), st.binary(max_size=300), st.booleans())
def test_strange_payloads_never_raise(codec, payload, is_mutated):
    if is_mutated and codec != "lz4":
        whole = bytearray(Codec(codec, (20, 31), np.dtype("u2")).encode(COUNTS[0]))
        whole[: len(payload) // 2] = payload[: len(payload) // 2]
        payload = bytes(whole)
    never_raises({"codec": codec, "parameters": 6, "value": np.frombuffer(payload, np.uint8)})


def test_options_that_are_none():
    with pytest.raises(ConfigError, match="at least 2"):
        open_source("pva:A?queue=1")
    with pytest.raises(ConfigError, match="not compressed by 'zip'"):
        open_sink(CHANNEL, compress="zip")
    with pytest.raises(ConfigError, match="cannot listen"):
        open_sink("pva:A?interface=no.such.host.invalid")
