from __future__ import annotations

import json
import socket as sockets
import threading
import time
from collections import Counter
from itertools import pairwise
from threading import Event

import numpy as np
import pytest
import zmq
from played import PATIENCE, assert_equal, listen, playing, toy_scan

from braggshot.errors import ConfigError
from braggshot.io.codecs import Codec
from braggshot.live.messages import Arrived, Begin, Dropped, End, Trouble
from braggshot.live.simulator.faults import Faults, fault_plan
from braggshot.live.simulator.player import open_sink
from braggshot.live.sources.decoding import ImageDecoder
from braggshot.live.sources.dectris.series import Header
from braggshot.live.sources.ledger import Ledger, ScanDefaults
from braggshot.live.sources.limits import UnusableError
from braggshot.live.sources.registry import open_source
from braggshot.live.sources.stins import MAX_WAITING, Numbered, Reader, read_message
from braggshot.volumes import Frame

ANY_PORT = "stins:tcp://127.0.0.1:*"
COUNTS = toy_scan().frames[:]
PACKED = Codec("bslz4", (20, 31), np.dtype("u2")).encode(COUNTS[1])


def encode(*parts):
    return [part if isinstance(part, bytes) else json.dumps(part).encode() for part in parts]


def image(number=5, frame=0, compression="none", payload=None, **changes):
    counts = COUNTS[frame % 12]
    first = {"htype": "image", "msg_number": number, "frame": frame, "shape": list(counts.shape), "type": counts.dtype.name}
    return encode(first | {"compression": compression} | changes, counts.tobytes() if payload is None else payload)


def header(number, name="scan_07", **more):
    return encode({"htype": "header", "msg_number": number, "filename": f"/data/raw/{name}.h5"}, more)


def end(number):
    return encode({"htype": "series_end", "msg_number": number})


def series(first, frames=12, name="scan_07"):
    """All messages of a series, in order."""
    images = [image(first + 1 + index, index) for index in range(frames)]
    return [header(first, name, frames=frames), *images, end(first + 1 + frames)]


def told(messages):
    """What a session is told of these messages, and of silence after them."""
    ledger, reader, heard = Ledger(ScanDefaults()), Reader(), []
    for parts in (*messages, None):
        heard += reader(parts, ledger)
    return heard


def outline(messages):
    names = {Begin: lambda m: f"begin {m.scan}", Arrived: lambda m: m.frame.index, End: lambda m: f"end {m.aborted}".strip()}
    return [names[type(message)](message) if type(message) in names else message.reason for message in messages]


WHOLE = ["begin scan_07", *range(12), "end"]


@pytest.mark.parametrize("compress", ["none", "bslz4"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.int32, np.float32])
def test_every_frame_arrives_as_it_was_sent(compress, dtype):
    scan = toy_scan(dtype=dtype)
    sink = open_sink(ANY_PORT, compress=compress)
    heard = listen(open_source(sink.url), playing(scan, sink, repeat=2), scans=2)
    assert heard.ends == [End("toy_0001"), End("toy_0002")]
    assert not heard.lost
    for begin in heard.begins:
        assert begin.frames == 12
        np.testing.assert_allclose(begin.rocking_angle, scan.rocking_angle)
        assert_equal(heard, scan, begin.scan)


def test_faults_are_counted():
    scan, faults = toy_scan(60), Faults(drop=0.1, duplicate=0.1, reorder=0.1, late=0.05, truncate=0.1)
    plan = fault_plan(60, faults, 5)
    whole = Counter(action.frame for action in plan if action.kind == "frame")
    sink = open_sink(ANY_PORT)
    heard = listen(open_source(sink.url), playing(scan, sink, faults, 5))
    assert set(heard.frames("toy_0001")) == set(whole)
    for index, frame in heard.frames("toy_0001").items():
        np.testing.assert_array_equal(frame.image, scan.frames[index])
    assert heard.lost["truncated"] == sum(action.kind == "truncated" for action in plan) > 0
    assert heard.lost["duplicate"] == sum(whole.values()) - len(whole) > 0


def test_an_aborted_series_is_followed_by_the_whole_one():
    scan, sink = toy_scan(), open_sink(ANY_PORT)
    heard = listen(open_source(sink.url), playing(scan, sink, Faults(abort=4)), scans=2)
    assert heard.ends == [End("toy_0001", "it ended after frame 4 of 12"), End("toy_0002")]
    assert_equal(heard, scan, "toy_0002")


def free_port():
    with sockets.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def send(port, messages, taken):
    """Push messages from a new socket, and close it once all were taken."""
    context = zmq.Context()
    try:
        socket = context.socket(zmq.PUSH)
        socket.bind(f"tcp://127.0.0.1:{port}")
        for parts in messages:
            socket.send_multipart(parts)
        end = time.monotonic() + PATIENCE
        while not taken() and time.monotonic() < end:
            time.sleep(0.01)
    finally:
        context.destroy(linger=2000)


def test_no_frame_is_lost_where_the_sender_goes_and_comes_back():
    port, messages, heard, stop = free_port(), series(100), [], Event()

    def play():
        send(port, messages[:7], lambda: sum(isinstance(m, Arrived) for m in heard) == 6)
        send(port, messages[7:], lambda: any(isinstance(m, End) for m in heard))
        stop.set()

    playing_thread = threading.Thread(target=play)
    playing_thread.start()
    for message in open_source(f"stins:tcp://127.0.0.1:{port}").messages(stop):
        heard += [] if message is None else [message]
    playing_thread.join(PATIENCE)
    assert outline(heard) == WHOLE


def test_no_frame_is_lost_where_a_connection_ends_with_a_message_that_is_too_large():
    """libzmq gives such a connection up for good: the source connects anew, and the series goes on."""
    port, messages, heard, stop = free_port(), series(100), [], Event()

    def lie(connection):
        """Speak ZMTP 3.0, and then announce a frame of 2**60 bytes."""
        connection.sendall(b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
        ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x04PUSH"
        connection.sendall(b"\x04" + bytes([len(ready)]) + ready)
        time.sleep(0.3)
        connection.sendall(b"\x02" + (2**60).to_bytes(8, "big") + bytes(64))

    def play():
        send(port, messages[:7], lambda: sum(isinstance(m, Arrived) for m in heard) == 6)
        with sockets.create_server(("127.0.0.1", port)) as server:
            connection, _ = server.accept()
            lie(connection)
            while not any(isinstance(message, Trouble) for message in heard):
                time.sleep(0.01)
            connection.close()
        send(port, messages[7:], lambda: any(isinstance(m, End) for m in heard))
        stop.set()

    playing_thread = threading.Thread(target=play)
    playing_thread.start()
    for message in open_source(f"stins:tcp://127.0.0.1:{port}").messages(stop):
        heard += [] if message is None else [message]
    playing_thread.join(PATIENCE)
    assert [message.reason for message in heard if isinstance(message, Trouble)] == [
        "the connection ended with a message that is too large or damaged; connecting anew"
    ]
    assert outline([message for message in heard if not isinstance(message, Trouble)]) == WHOLE


def test_neighbours_that_are_swapped_come_in_order():
    """Wherever it happens: header and first image, images, last image and end, end and next header."""
    both = [*series(100), *series(114, name="scan_08")]
    whole = [*WHOLE, "begin scan_08", *WHOLE[1:]]
    assert outline(told(both)) == whole
    for place in range(len(both) - 1):
        swapped = [*both[:place], both[place + 1], both[place], *both[place + 2 :]]
        assert outline(told(swapped)) == whole, place


def test_messages_that_come_twice_are_taken_once():
    for place, parts in enumerate(series(100)):
        messages = series(100)
        heard = outline(told([*messages[: place + 1], parts, *messages[place + 1 :]]))
        assert [item for item in heard if item not in ("duplicate", "late")] == WHOLE
        assert len(heard) == len(WHOLE) + (place < 13)  # the end of a series that has ended says nothing more


def test_any_order_within_reach_is_repaired():
    random = np.random.default_rng(4)
    for _ in range(50):
        order = np.argsort(np.arange(14) + random.uniform(0, MAX_WAITING / 2, 14))
        assert outline(told([series(100)[place] for place in order])) == WHOLE


def test_messages_that_never_come_are_told():
    messages = series(100)
    assert outline(told([*messages[:4], *messages[6:]])) == ["begin scan_07", 0, 1, 2, "missing", *range(5, 12), "end"]
    (lost,) = [message for message in told([*messages[:4], *messages[6:]]) if isinstance(message, Dropped)]
    assert lost.detail == "2 messages before message 106"


def test_a_listener_that_comes_late_takes_the_rest():
    heard = told([*series(100)[3:], *series(114, name="scan_08")])
    assert outline(heard) == ["begin series_103", *range(2, 12), "end", "begin scan_08", *WHOLE[1:]]


def test_a_series_whose_header_was_lost_is_a_series_of_its_own():
    heard = told([*series(100), *series(114)[1:]])
    assert outline(heard) == [*WHOLE, "begin series_115", *WHOLE[1:]]


def test_a_sender_that_begins_to_count_anew_is_followed():
    heard = told([*series(100), *series(0, name="scan_08"), *series(0, 4, "scan_09")[:3], *series(0, name="scan_10")])
    assert [message.scan for message in heard if isinstance(message, Begin)] == ["scan_07", "scan_08", "scan_09", "scan_10"]
    assert Counter(outline(heard))["end"] == 3
    assert not [message for message in heard if isinstance(message, Dropped)]


def read(parts):
    return read_message(parts, ImageDecoder())


def test_a_header_says_what_it_can():
    said = {"photon_energy": 8041.0, "nimages": 100000, "ntrigger": 1, "trigger_mode": "ints"}
    found = read(header(7, **said)).content
    assert (found.name, found.frames) == ("scan_07", None)  # what a detector was armed for is no plan
    found = read(header(7, **said, scan="S7", frames=2, rocking_angle_deg=[1.0, 2.0])).content
    assert (found.name, found.frames) == ("S7", 2)
    np.testing.assert_allclose(np.rad2deg(found.rocking_angle), [1, 2])
    assert read(encode({"htype": "header", "msg_number": 7, "filename": ""})).content.name == "series_7"
    assert read([*header(7)[:1], b"any text"]).content.name == "scan_07"


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([], "malformed"),
        ([b"not json"], "malformed"),
        ([b"[" * 100000], "malformed"),
        ([b" " * (2**20 + 1)], "oversized"),
        ([b"{}"] * 17, "malformed"),
        (encode({"htype": "image"}), "malformed"),
        (encode({"htype": "status", "msg_number": 1}), "malformed"),
        (encode({"htype": "header", "msg_number": -1}), "malformed"),
        (encode({"htype": "header", "msg_number": 2**63}), "malformed"),
        (image(frame=-1), "malformed"),
        (image(msg_number=True), "malformed"),
        (image()[:1], "truncated"),
        (image(shape=20), "shape"),
        (image(shape=[0, 31]), "shape"),
        (image(shape=[2, 20, 31]), "shape"),
        (image(shape=[2**40, 31]), "oversized"),
        (image(shape=[16384, 16384]), "oversized"),
        (image(type="object"), "type"),
        (image(compression="zip"), "encoding"),
        (image(compression=["none"]), "encoding"),
        (image(payload=b""), "truncated"),
        (image(payload=bytes(100000)), "oversized"),
        (image(compression="bslz4", payload=b""), "truncated"),
        (image(compression="bslz4", payload=PACKED[:16] + bytes(len(PACKED) - 16)), "damaged"),
    ],
)
def test_what_is_no_message_is_refused_in_a_word(parts, reason):
    with pytest.raises(UnusableError) as refused:
        read(parts)
    assert refused.value.reason == reason
    assert len(refused.value.detail) <= 300


def test_an_image_with_an_axis_of_length_one():
    np.testing.assert_array_equal(read(image(shape=[1, 20, 31])).content.image, COUNTS[0])


def test_mutated_messages_never_raise_and_keep_the_order():
    """2000 messages, of which each has other values, other bytes or another length; what is told of them keeps its order."""
    random, real = np.random.default_rng(1), [*series(0, 4), image(5, 1, "bslz4", PACKED)]
    values = [None, True, -1, 0, 3, 2**63, 1e300, "", "image", "header", "series_end", "bslz4", [], [20, 31], [1] * 9, {}]
    ledger, reader, heard = Ledger(ScanDefaults(timeout=0.001)), Reader(), []
    for _ in range(2000):
        parts = list(real[random.integers(len(real))])
        place = random.integers(len(parts))
        if random.random() < 0.5 and parts[place][:1] == b"{":
            said = json.loads(parts[place])
            said[random.choice([*said, "frames", "msg_number"])] = values[random.integers(len(values))]
            parts[place] = json.dumps(said).encode()
        else:
            content = bytearray(parts[place])
            for _ in range(random.integers(1, 6)):
                content[random.integers(len(content))] = random.integers(256)
            parts[place] = bytes(content[: random.integers(len(content) + 1)])
        heard += reader(parts, ledger)
        heard += reader(None, ledger) if random.random() < 0.05 else []
    scans = [message for message in heard if isinstance(message, Begin | End)]
    assert len(scans) > 50
    for first, second in pairwise(scans):
        assert isinstance(first, Begin) != isinstance(second, Begin)
    read_again = [read(parts) for parts in real]
    assert all(isinstance(message, Numbered) for message in read_again)
    assert Counter(type(message.content) for message in read_again) == {Frame: 5, Header: 1, type(None): 1}


def test_addresses_and_options_that_are_none():
    with pytest.raises(ConfigError, match="HOST:PORT"):
        open_source("stins:nanomax")
    with pytest.raises(ConfigError, match="cannot listen"):
        open_sink("stins:tcp://127.0.0.1:1:1")
    with pytest.raises(ConfigError, match="not compressed by 'lz4'"):
        open_sink(ANY_PORT, compress="lz4")
