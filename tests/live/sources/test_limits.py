"""Checks of data from the wire: what is within bounds passes unchanged, all else is refused by one kind of error."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braggshot.live.sources import limits
from braggshot.live.sources.limits import UnusableError


def reason_of(check, *arguments):
    with pytest.raises(UnusableError) as refused:
        check(*arguments)
    assert len(refused.value.detail) <= 300
    return refused.value.reason


def test_sides_of_an_image_have_bounds():
    assert limits.image_shape(1, limits.MAX_SIDE) == (1, limits.MAX_SIDE)
    assert limits.image_shape(np.int32(3), np.uint8(4)) == (3, 4)
    assert reason_of(limits.image_shape, 0, 4) == "shape"
    assert reason_of(limits.image_shape, 4, limits.MAX_SIDE + 1) == "oversized"
    for side in (-1, 2.0, True, "4", None, 2**70):
        assert reason_of(limits.image_shape, 4, side) == "malformed"


def test_only_numbers_are_counts():
    for name in ("uint8", "int64", "float32", "float64"):
        assert limits.counts_type(name) == np.dtype(name)
    for name in ("object", "complex64", "float16", "bool", "S5", "datetime64", "u2", ["uint8"], None, "x" * 1000):
        assert reason_of(limits.counts_type, name) == "type"


def test_an_image_takes_no_more_than_is_allowed():
    assert limits.image_bytes((3, 5), np.dtype("u2")) == 30
    rows = limits.MAX_BYTES // (4 * limits.MAX_SIDE)
    assert limits.image_bytes((rows, limits.MAX_SIDE), np.dtype("u4")) == limits.MAX_BYTES
    assert reason_of(limits.image_bytes, (rows + 1, limits.MAX_SIDE), np.dtype("u4")) == "oversized"


def test_whole_numbers_have_bounds_and_a_type():
    assert limits.whole_number(0, "x") == 0
    assert limits.whole_number(np.uint16(7), "x", 1, 7) == 7
    assert type(limits.whole_number(np.int64(7), "x")) is int
    for value in (-1, 8, True, np.True_, 3.0, "3", None, [3]):
        assert reason_of(limits.whole_number, value, "x", 0, 7) == "malformed"


@pytest.mark.parametrize("value", [True, np.False_, "1", None, math.nan, math.inf, -math.inf, 10**400, [1.0]])
def test_what_is_no_finite_number_is_none(value):
    assert limits.real_number(value) is None


@pytest.mark.parametrize("value", [0, -3, 1.5, np.float32(1.5), np.int8(-3)])
def test_a_finite_number_is_itself(value):
    assert limits.real_number(value) == value


@settings(max_examples=200, deadline=None)
@given(st.text() | st.binary() | st.integers() | st.none())
def test_any_name_becomes_a_safe_file_name(text):
    name = limits.scan_name(text)
    assert 0 < len(name) <= limits.MAX_NAME
    assert set(name) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
    assert not name.startswith(".")
    assert limits.scan_name(name) == name


def test_a_plain_name_stays():
    assert limits.scan_name("S0054_a-1.5") == "S0054_a-1.5"
    assert limits.scan_name("../../etc/passwd") == "etc_passwd"
    assert limits.scan_name("...") == limits.scan_name("") == "scan"


def test_a_json_object_is_read_from_any_bytes():
    for part in (b'{"a": [1]}', bytearray(b'{"a": [1]}'), memoryview(b'{"a": [1]}')):
        assert limits.json_object(part) == {"a": [1]}


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (b"", "malformed"),
        (b"[1]", "malformed"),
        (b"{", "malformed"),
        (b"\xff\xfe", "malformed"),
        (b"[" * 100_000, "malformed"),
        (b'{"a": "' + b"x" * limits.MAX_TEXT + b'"}', "oversized"),
    ],
)  # fmt: skip
def test_what_is_no_json_object_is_refused(part, reason):
    assert reason_of(limits.json_object, part) == reason


def test_the_size_of_a_text_is_checked_before_it_is_parsed(monkeypatch):
    monkeypatch.setattr(limits.json, "loads", lambda text: pytest.fail("a text beyond the limit was parsed"))
    assert reason_of(limits.json_object, b" " * (limits.MAX_TEXT + 1)) == "oversized"


def test_angles_are_radians_one_for_each_planned_frame():
    np.testing.assert_allclose(limits.angles([0, 90.0, 180], 3), [0, np.pi / 2, np.pi])
    np.testing.assert_allclose(limits.angles([90], None), [np.pi / 2])
    for value in ([0, 90.0], [], [0, None, 1], [0, "1", 2], [0, math.nan, 1], (0, 1, 2), "012", None):
        assert limits.angles(value, 3) is None
    assert limits.angles([0.0] * (limits.MAX_FRAMES + 1), None) is None


def test_an_error_is_never_longer_than_a_log_line():
    error = UnusableError("type", "x" * 10_000)
    assert (error.reason, len(error.detail), len(str(error))) == ("type", 300, 300)
