"""Version 2 of a DECTRIS stream, CBOR: what is said in a message. What both versions do is in `test_dectris`."""

from __future__ import annotations

import json

import cbor2
import numpy as np
import pytest
import zmq
from cbor2 import CBORTag
from hypothesis import given, settings
from hypothesis import strategies as st
from played import listen, toy_scan

from braggshot.errors import ConfigError
from braggshot.io.codecs import Codec, lz4_blocks_encode, zstd_encode
from braggshot.live.simulator.player import open_sink
from braggshot.live.sources.dectris.series import Header, Image, SeriesEnd
from braggshot.live.sources.dectris.source import Reader
from braggshot.live.sources.dectris.stream2 import is_cbor
from braggshot.live.sources.limits import MAX_TEXT, UnusableError
from braggshot.live.sources.registry import open_source

PORT = "zmq:tcp://127.0.0.1:*?version=2"
COUNTS = toy_scan().frames[:]
MASK = np.zeros((20, 31), np.uint32)
MASK[3, 4] = 1


def array(image, payload=None, tag=None, sides=None):
    tags = {"u1": 64, "u2": 69, "u4": 70, "i4": 78, ">u2": 65, "f2": 84}
    kind = image.dtype.str[1:] if image.dtype.isnative else image.dtype.str
    content = image.tobytes() if payload is None else payload
    return CBORTag(40, [sides or list(image.shape), CBORTag(tag or tags[kind], content)])


def compressed(algorithm, payload, element=2):
    return CBORTag(56500, [algorithm, element, payload])


def image_message(data=None, **changes):
    data = {"threshold_1": array(COUNTS[0])} if data is None else data
    return cbor2.dumps({"type": "image", "series_id": 3, "image_id": 5, "data": data} | changes)


def start_message(**changes):
    return cbor2.dumps({"type": "start", "series_id": 3, "number_of_images": 12} | changes)


def read(message, channel=""):
    return Reader(channel).read([message])


def test_rubbish_between_frames_is_counted_and_nothing_else_is_lost():
    """Both versions, and neither, from one address; images of another shape than the mask's are none of the series."""
    context = zmq.Context()
    socket = context.socket(zmq.PUSH)
    port = socket.bind_to_random_port("tcp://127.0.0.1")

    def play():
        socket.send(start_message(pixel_mask={"threshold_1": array(MASK)}))
        for rubbish in (b"", b"rubbish", b"\xa1", b"\xbf", cbor2.dumps({"type": "image"}), image_message({})):
            socket.send(rubbish)
        socket.send(image_message({"threshold_1": array(COUNTS[0, :10])}, image_id=6))
        socket.send(image_message())
        socket.send(cbor2.dumps({"type": "end", "series_id": 3}))
        socket.send_multipart([json.dumps({"htype": "dheader-1.0", "series": 4, "header_detail": "none"}).encode()])
        socket.send_multipart([json.dumps({"htype": "dseries_end-1.0", "series": 4}).encode()])

    try:
        heard = listen(open_source(f"zmq:tcp://127.0.0.1:{port}"), play, scans=2)
    finally:
        context.destroy(linger=0)
    assert heard.lost == {"malformed": 6, "shape": 1}
    np.testing.assert_array_equal(heard.frames("series_3")[5].image, COUNTS[0])
    np.testing.assert_array_equal(heard.begins[0].about.valid, MASK == 0)
    assert [end.scan for end in heard.ends] == ["series_3", "series_4"]


def test_a_start_says_what_is_planned():
    goniometer = {"omega": {"start": 1.0, "increment": 0.0}, "chi": {"start": 5.0, "increment": 0.1}, "phi": 7}
    header = read(
        start_message(goniometer=goniometer, incident_energy=9000.0, saturation_value=50000, image_size_x=31, image_size_y=20)
    )
    assert isinstance(header, Header)
    assert (header.name, header.frames) == ("series_3", 12)
    np.testing.assert_allclose(np.rad2deg(header.rocking_angle), 5 + 0.1 * np.arange(12))
    assert header.about.frames.shape == (12, 20, 31)
    assert header.about.valid is None
    assert header.about.provenance["stream"] == {"description": "", "photon_energy": 9000.0, "saturation_value": 50000}


@pytest.mark.parametrize("wrap", [dict, json.dumps])
def test_user_data_go_over_the_configuration(wrap):
    header = read(start_message(user_data=wrap({"scan": "S0054", "frames": 2, "rocking_angle_deg": [1.0, 2.0]})))
    assert (header.name, header.frames) == ("S0054", 2)
    np.testing.assert_allclose(np.rad2deg(header.rocking_angle), [1, 2])
    assert read(start_message(user_data="any text")).frames == 12
    assert np.isclose(read(image_message(user_data={"rocking_angle_deg": 180.0})).frame.rocking_angle, np.pi)


def test_the_mask_is_that_of_the_channel():
    other = np.zeros_like(MASK)
    other[7, 8] = 2
    packed = Codec("bslz4", other.shape, other.dtype).encode(other)
    masks = {"threshold_1": array(MASK), "threshold_2": array(other, compressed("bslz4", packed, 4))}
    start = start_message(channels=["threshold_2", "threshold_1"], pixel_mask=masks)
    data = {"threshold_1": array(COUNTS[0]), "threshold_2": array(COUNTS[1])}
    for channel, mask, counts in (("", other, COUNTS[1]), ("threshold_1", MASK, COUNTS[0]), ("threshold_2", other, COUNTS[1])):
        reader = Reader(channel)
        np.testing.assert_array_equal(reader.read([start]).about.valid, mask == 0)
        np.testing.assert_array_equal(reader.read([image_message(data)]).frame.image, counts)
    with pytest.raises(UnusableError, match="channel"):
        read(image_message(data), "threshold_3")


@pytest.mark.parametrize(
    "tagged",
    [
        array(COUNTS[0]),
        array(COUNTS[0].astype(">u2")),
        array(COUNTS[0].astype("i4")),
        array(COUNTS[0], compressed("bslz4", Codec("bslz4", (20, 31), np.dtype("u2")).encode(COUNTS[0]))),
        array(COUNTS[0], compressed("lz4", lz4_blocks_encode(COUNTS[0]), 0)),
        array(COUNTS[0], compressed("zstd", zstd_encode(COUNTS[0]), 0)),
        array(COUNTS[0].astype(">u2"), compressed("lz4", lz4_blocks_encode(COUNTS[0].astype(">u2")), 0)),
    ],
)
def test_arrays_of_all_kinds(tagged):
    found = read(image_message({"threshold_1": tagged}))
    assert found.frame.index == 5
    assert found.frame.image.dtype.isnative
    assert found.frame.image.flags.writeable
    np.testing.assert_array_equal(found.frame.image, COUNTS[0])


def test_a_message_may_say_that_it_is_cbor_and_leave_lengths_open():
    end = {"type": "end", "series_id": 4, "end_date": "today"}
    assert read(b"\xd9\xd9\xf7" + cbor2.dumps(end)) == SeriesEnd(4)
    assert read(b"\xbf" + cbor2.dumps(end)[1:] + b"\xff") == SeriesEnd(4)
    assert read(cbor2.dumps(end | {"when": CBORTag(0, "no date at all")})) == SeriesEnd(4)
    said = {"rocking_angle_deg": [1.0] * 12}
    assert len(read(b"\xd9\xd9\xf7" + start_message(user_data=said)).rocking_angle) == 12
    assert not any(map(is_cbor, (b"", b"{", b'{"htype"', b"\x83\x01\x02\x03")))


def items(count):
    return cbor2.dumps({"type": "end", "series_id": 4, "much": [0] * count})


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"\xa1", "malformed"),
        (b"\xa1\x61a\x1c", "malformed"),
        (b"\xa1\x61a\x19\x01", "truncated"),
        (b"\xbb" + b"\xff" * 8, "malformed"),
        (b"\xa1\x61a\x5b" + b"\xff" * 8, "truncated"),
        (b"\xa1\x61a" + b"\x81" * 100_000 + b"\x01", "malformed"),
        (items(2 * MAX_TEXT), "oversized"),
        (cbor2.dumps({"type": "end", "series_id": 4, "a": CBORTag(4, [10**9, 1])}), "malformed"),
        (cbor2.dumps({"type": "end", "series_id": 4, "a": CBORTag(35, "(a+)+$")}), "malformed"),
        (b"\xa2\x64type\x63end\x64type\x63end", "malformed"),
        (b"\xa1\x81\x01\x01", "malformed"),
        (cbor2.dumps({"type": "pixel", "series_id": 4}), "malformed"),
        (cbor2.dumps({"type": ["end"], "series_id": 4}), "malformed"),
        (cbor2.dumps({"type": "end", "series_id": True}), "malformed"),
        (image_message(image_id=-1), "malformed"),
        (image_message([1]), "malformed"),
        (image_message({"a": 3}), "malformed"),
        (image_message({"a": CBORTag(40, 3)}), "shape"),
        (image_message({"a": CBORTag(40, [[20, 31], b"plain"])}), "shape"),
        (image_message({"a": array(COUNTS[0], sides=[20, 31, 1])}), "shape"),
        (image_message({"a": array(COUNTS[0], sides=[0, 31])}), "shape"),
        (image_message({"a": array(COUNTS[0], sides=[2**40, 31])}), "oversized"),
        (image_message({"a": array(COUNTS[0], sides=[16384, 16384])}), "oversized"),
        (image_message({"a": array(COUNTS[0].astype("f2"))}), "type"),
        (image_message({"a": CBORTag(40, [[20, 31], CBORTag(40, [[20, 31], b""])])}), "type"),
        (image_message({"a": array(COUNTS[0], payload=b"")}), "truncated"),
        (image_message({"a": array(COUNTS[0], payload=bytes(100_000))}), "oversized"),
        (image_message({"a": array(COUNTS[0], payload="text")}), "malformed"),
        (image_message({"a": array(COUNTS[0], payload=CBORTag(56500, ["lz4", 0]))}), "malformed"),
        (image_message({"a": array(COUNTS[0], payload=compressed("lz4", 7))}), "malformed"),
        (image_message({"a": array(COUNTS[0], payload=compressed("gzip", b"x"))}), "encoding"),
        (image_message({"a": array(COUNTS[0], payload=compressed(b"lz4", b"x"))}), "encoding"),
        (image_message({"a": array(COUNTS[0], payload=compressed("bslz4", b"x", 4))}), "encoding"),
        (image_message({"a": array(COUNTS[0], payload=compressed("lz4", b""))}), "truncated"),
        (image_message({"a": array(COUNTS[0], payload=compressed("zstd", b""))}), "truncated"),
        (image_message({"a": array(COUNTS[0], payload=compressed("zstd", b"\x28\xb5\x2f\xfd" + bytes(9)))}), "damaged"),
        (start_message(pixel_mask={"a": array(MASK, sides=[2**20, 2])}), "oversized"),
    ],
)
def test_what_is_no_message_is_refused_in_a_word(message, reason):
    with pytest.raises(UnusableError) as refused:
        read(message)
    assert refused.value.reason == reason
    assert len(refused.value.detail) <= 300


REAL = [
    image_message(user_data={"rocking_angle_deg": 1.0}),
    image_message({"a": array(COUNTS[0], compressed("lz4", lz4_blocks_encode(COUNTS[0]), 0))}),
    image_message({"a": array(COUNTS[0], compressed("bslz4", Codec("bslz4", (20, 31), np.dtype("u2")).encode(COUNTS[0])))}),
    image_message({"a": array(COUNTS[0], compressed("zstd", zstd_encode(COUNTS[0]), 0))}),
    start_message(pixel_mask={"a": array(MASK)}, channels=["a"], goniometer={"omega": {"start": 1.0, "increment": 0.1}}),
    start_message(user_data={"frames": 3, "scan": "a", "rocking_angle_deg": [1.0, 2.0, 3.0]}),
]
READER = Reader()
"""One for all, as in a session: what came before must not matter."""


def never_raises(message):
    try:
        found = READER.read([message])
    except UnusableError:
        return
    assert isinstance(found, Header | Image | SeriesEnd)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_never_raise(tail):
    for head in (b"", b"\xa2\x64type\x63end\x69series_id", b"\xbf", b"\xd9\xd9\xf7"):
        never_raises(head + tail)


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=20)
LISTS = st.lists(PLAIN, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), PLAIN, max_size=3)
TAGGED = st.builds(CBORTag, st.sampled_from([0, 1, 2, 28, 29, 40, 64, 69, 85, 256, 1040, 55799, 56500]), PLAIN | LISTS)
VALUES = PLAIN | LISTS | TAGGED | st.builds(lambda sides, inner: CBORTag(40, [sides, inner]), LISTS, TAGGED)
FIELDS = ["type", "series_id", "image_id", "data", "channels", "pixel_mask", "goniometer", "number_of_images", "user_data"]
CHANGES = st.dictionaries(st.sampled_from([*FIELDS, "image_size_x", "saturation_value"]), VALUES, max_size=3)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(REAL), CHANGES, st.booleans())
def test_real_messages_with_other_values_never_raise(real, changes, inside):
    fields = cbor2.loads(real)
    if inside:
        changes = {name: {"a": value, "omega": value, "rocking_angle_deg": value} for name, value in changes.items()}
    never_raises(cbor2.dumps(fields | changes))


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(REAL), st.data())
def test_real_messages_with_other_bytes_never_raise(real, data):
    content = bytearray(real)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1) | st.integers(0, 120))
        content[min(place, len(content) - 1)] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    never_raises(bytes(content[:cut] if data.draw(st.booleans()) else content))


def test_versions_and_compressions_that_are_none():
    with pytest.raises(ConfigError, match="no version '3'"):
        open_sink("zmq:tcp://127.0.0.1:*?version=3")
    with pytest.raises(ConfigError, match="known: none, lz4, bslz4, zstd"):
        open_sink(PORT, compress="zip")
    with pytest.raises(ConfigError, match=r"known: none, lz4, bslz4\."):
        open_sink("zmq:tcp://127.0.0.1:*", compress="zstd")
