from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from threading import Event, Thread
from types import SimpleNamespace

import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from played import assert_equal, listen, playing, toy_scan

from braggshot.errors import ConfigError
from braggshot.io.codecs import Codec, lz4_encode
from braggshot.live.messages import End
from braggshot.live.simulator.faults import Faults, fault_plan
from braggshot.live.simulator.player import open_sink
from braggshot.live.sources.decoding import ImageDecoder
from braggshot.live.sources.dectris.source import Header, Image, Reader, SeriesEnd, read_message, to_messages
from braggshot.live.sources.ledger import Ledger, ScanDefaults
from braggshot.live.sources.limits import UnusableError
from braggshot.live.sources.registry import open_source

ANY_PORT = "zmq:tcp://127.0.0.1:*"
PORTS = {1: ANY_PORT, 2: f"{ANY_PORT}?version=2"}
COUNTS = toy_scan().frames[:]
MASK = {"htype": "dpixelmask-1.0", "shape": [31, 20], "type": "uint32"}


def message(*parts):
    return [part if isinstance(part, bytes) else json.dumps(part).encode() for part in parts]


def image_message(image=COUNTS[0], encoding="<", payload=None, **changes):
    rows, columns = image.shape
    described = {"htype": "dimage_d-1.0", "shape": [columns, rows], "type": image.dtype.name, "encoding": encoding}
    first = {"htype": "dimage-1.0", "series": 3, "frame": 5, "hash": ""}
    payload = image.tobytes() if payload is None else payload
    return message(first, described | changes, payload, {"htype": "dconfig-1.0"})


def read(parts):
    return read_message(parts, ImageDecoder())


@pytest.mark.parametrize(("version", "compress"), [*itertools.product((1, 2), ("none", "lz4", "bslz4")), (2, "zstd")])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_every_frame_arrives_as_it_was_sent(version, compress, dtype):
    scan = toy_scan(dtype=dtype)
    sink = open_sink(PORTS[version], compress=compress)
    heard = listen(open_source(sink.url), playing(scan, sink, repeat=2), scans=2)
    assert heard.ends == [End("toy_0001"), End("toy_0002")]
    assert not heard.lost
    for begin in heard.begins:
        assert begin.frames == 12
        np.testing.assert_allclose(begin.rocking_angle, scan.rocking_angle)
        assert_equal(heard, scan, begin.scan)


@pytest.mark.parametrize("port", PORTS.values())
def test_faults_are_counted(port):
    scan, faults = toy_scan(60), Faults(drop=0.1, duplicate=0.1, reorder=0.1, late=0.05, truncate=0.1)
    plan = fault_plan(60, faults, 5)
    whole = Counter(action.frame for action in plan if action.kind == "frame")
    sink = open_sink(port)
    heard = listen(open_source(sink.url), playing(scan, sink, faults, 5))
    assert set(heard.frames("toy_0001")) == set(whole)
    for index, frame in heard.frames("toy_0001").items():
        np.testing.assert_array_equal(frame.image, scan.frames[index])
    assert heard.lost["truncated"] == sum(action.kind == "truncated" for action in plan) > 0
    assert heard.lost["duplicate"] == sum(whole.values()) - len(whole) > 0


@pytest.mark.parametrize("port", PORTS.values())
def test_an_aborted_series_is_followed_by_the_whole_one(port):
    scan, sink = toy_scan(), open_sink(port)
    heard = listen(open_source(sink.url), playing(scan, sink, Faults(abort=4)), scans=2)
    assert heard.ends == [End("toy_0001", "it ended after frame 4 of 12"), End("toy_0002")]
    assert_equal(heard, scan, "toy_0002")


def test_a_dead_detector_is_noticed():
    sink = open_sink(ANY_PORT)
    heard = listen(open_source(f"{sink.url}?timeout=0.3"), playing(toy_scan(), sink, Faults(dead=3)))
    assert heard.ends == [End("toy_0001", "nothing came for 0.3 s after frame 3 of 12")]


def test_rubbish_between_frames_is_counted_and_nothing_else_is_lost():
    context = zmq.Context()
    socket = context.socket(zmq.PUSH)
    port = socket.bind_to_random_port("tcp://127.0.0.1")

    def play():
        socket.send_multipart(message({"htype": "dheader-1.0", "series": 3, "header_detail": "none"}))
        socket.send_multipart([b"rubbish"])
        socket.send_multipart([b"{}"] * 100)
        socket.send_multipart(image_message())
        socket.send_multipart(image_message(shape=[30000, 30000]))
        socket.send_multipart(message({"htype": "dseries_end-1.0", "series": 3}))

    try:
        heard = listen(open_source(f"zmq:tcp://127.0.0.1:{port}"), play)
    finally:
        context.destroy(linger=0)
    assert heard.lost == {"malformed": 2, "oversized": 1}
    np.testing.assert_array_equal(heard.frames("series_3")[5].image, COUNTS[0])
    assert heard.ends == [End("series_3")]


def test_a_mask_fits_no_image_of_another_shape():
    """Whatever comes, a mask and frames that do not fit never reach the session."""
    ledger, mask = Ledger(ScanDefaults()), np.zeros((20, 31), np.uint32).tobytes()
    parts = message({"htype": "dheader-1.0", "series": 3, "header_detail": "all"}, {}, {}, b"", MASK, mask, {}, b"")
    begin = to_messages(parts, ledger, Reader())[0]
    assert begin.about.valid.all()
    (lost,) = to_messages(image_message(COUNTS[0][:, :10]), ledger, Reader())
    assert lost.reason == "shape"


def test_a_header_says_what_is_planned():
    config = {"nimages": 2, "ntrigger": 3, "phi_start": 0.0, "phi_increment": 0.0, "chi_start": 5.0, "chi_increment": 0.1}
    mask = np.zeros((20, 31), np.uint32)
    mask[3, 4] = 1
    parts = message(
        {"htype": "dheader-1.0", "series": 7, "header_detail": "all"}, config | {"photon_energy": 9000.0}, {}, b"",
        MASK, mask.tobytes(), {}, b"",
    )  # fmt: skip
    header = read(parts)
    assert isinstance(header, Header)
    assert (header.name, header.frames) == ("series_7", 6)
    np.testing.assert_allclose(np.rad2deg(header.rocking_angle), 5 + 0.1 * np.arange(6))
    np.testing.assert_array_equal(header.about.valid, mask == 0)
    assert header.about.frames.shape == (6, 20, 31)
    assert header.about.provenance["stream"]["photon_energy"] == 9000.0


def test_an_appendix_goes_over_the_configuration():
    said = {"scan": "S0054", "frames": 2, "rocking_angle_deg": [1.0, 2.0]}
    parts = message({"htype": "dheader-1.0", "series": 7, "header_detail": "basic"}, {"nimages": 9}, said)
    header = read(parts)
    assert (header.name, header.frames) == ("S0054", 2)
    np.testing.assert_allclose(np.rad2deg(header.rocking_angle), [1, 2])
    assert read([*parts[:2], b"any text"]).frames == 9


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([], "malformed"),
        ([b"not json"], "malformed"),
        ([b"[1]"], "malformed"),
        ([b"[" * 100000], "malformed"),
        ([b" " * (2**20 + 1)], "oversized"),
        ([b"{}"] * 17, "malformed"),
        (message({"htype": "dimage-2.0"}), "malformed"),
        (message({"htype": "dimage-1.0", "series": 1.5}), "malformed"),
        (message({"htype": "dimage-1.0", "series": 1, "frame": -1}), "malformed"),
        (message({"htype": "dimage-1.0", "series": 1, "frame": 1}), "truncated"),
        (image_message(shape=[31]), "shape"),
        (image_message(shape=[0, 20]), "shape"),
        (image_message(shape=[31, 20, 3]), "shape"),
        (image_message(shape=[31, 2**40]), "oversized"),
        (image_message(shape=[16384, 16384], type="uint16"), "oversized"),
        (image_message(type="object"), "type"),
        (image_message(type=["uint16"]), "type"),
        (image_message(encoding="bs32-lz4<"), "encoding"),
        (image_message(encoding="zstd<"), "encoding"),
        (image_message(encoding=None), "encoding"),
        (image_message(payload=b""), "truncated"),
        (image_message(payload=bytes(100000)), "oversized"),
        (image_message(encoding="lz4<", payload=b"\xff" * 50), "damaged"),
        (image_message(encoding="bs16-lz4<", payload=b""), "truncated"),
        (message({"htype": "dheader-1.0", "series": 1, "header_detail": "all"}, {}, {}, b"", MASK, b"", {}, b""), "truncated"),
    ],
)  # fmt: skip
def test_what_is_no_message_is_refused_in_a_word(parts, reason):
    with pytest.raises(UnusableError) as refused:
        read(parts)
    assert refused.value.reason == reason
    assert len(refused.value.detail) <= 300


def test_other_orders_of_bytes():
    found = read(image_message(COUNTS[0].astype(">u2"), ">", type="uint16"))
    np.testing.assert_array_equal(found.frame.image, COUNTS[0])


def test_a_series_end():
    assert read(message({"htype": "dseries_end-1.0", "series": 4})) == SeriesEnd(4)


REAL = [
    image_message(),
    image_message(encoding="lz4<", payload=lz4_encode(COUNTS[0])),
    image_message(encoding="bs16-lz4<", payload=Codec("bslz4", (20, 31), np.dtype("u2")).encode(COUNTS[0])),
    message({"htype": "dheader-1.0", "series": 1, "header_detail": "basic"}, {"nimages": 3}, {"frames": 3}),
]


def never_raises(parts):
    try:
        found = read(parts)
    except UnusableError:
        return
    assert isinstance(found, Header | Image | SeriesEnd)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=10))
def test_random_parts_never_raise(parts):
    never_raises(parts)


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
VALUES = PLAIN | st.lists(PLAIN, max_size=3) | st.dictionaries(st.text(max_size=5), PLAIN, max_size=3)
KEYS = st.sampled_from(
    ["htype", "series", "frame", "shape", "type", "encoding", "header_detail", "nimages", "ntrigger", "frames"]
) | (
    st.sampled_from(["omega_start", "omega_increment", "rocking_angle_deg", "scan", "x_pixels_in_detector", "y_pixels_in_detector"])
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(REAL), st.integers(0, 3), st.dictionaries(KEYS, VALUES, max_size=3))
def test_real_messages_with_other_values_never_raise(real, place, changes):
    parts = list(real)
    place %= len(parts)
    if parts[place][:1] == b"{":
        parts[place] = json.dumps(json.loads(parts[place]) | changes).encode()
    never_raises(parts)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(REAL), st.data())
def test_real_messages_with_other_bytes_never_raise(real, data):
    parts = list(real)
    place = data.draw(st.integers(0, len(parts) - 1))
    content = bytearray(parts[place])
    for _ in range(data.draw(st.integers(1, 4))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    parts[place] = bytes(content[:cut] if data.draw(st.booleans()) else content)
    never_raises(parts)


def test_addresses_and_ports_that_are_none():
    with pytest.raises(ConfigError, match="HOST:PORT"):
        open_source("zmq:eiger")
    with pytest.raises(ConfigError, match="cannot listen"):
        open_sink("zmq:tcp://127.0.0.1:1:1")
    with pytest.raises(ConfigError, match="not compressed by 'zip'"):
        open_sink(ANY_PORT, compress="zip")
    with pytest.raises(ConfigError, match="an option is unknown"):
        open_sink(ANY_PORT, hdf5=True)


def test_the_end_of_a_series_is_given_up_where_the_listener_left_just_before(monkeypatch):
    sink = open_sink(ANY_PORT)
    sink.scan, answers = SimpleNamespace(number=1), iter([True, False])
    monkeypatch.setattr(sink, "is_ready", lambda patience: next(answers))  # as a poll that was true while someone still pulled
    ending = Thread(target=sink.end, args=(False,), daemon=True)
    ending.start()
    ending.join(10.0)
    assert not ending.is_alive()
    sink.close()


def test_it_stops_soon_where_nothing_listens_or_sends():
    stop = Event()
    said = open_source("zmq:tcp://127.0.0.1:9").messages(stop)
    assert next(said) is None
    stop.set()
    assert list(said) in ([], [None])
    sink = open_sink(ANY_PORT)
    begin = time.monotonic()
    sink.wait(stop)
    sink.close()
    assert time.monotonic() - begin < 5
