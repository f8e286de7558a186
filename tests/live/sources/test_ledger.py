from __future__ import annotations

import numpy as np
import pytest

from braggshot.live.messages import Arrived, Begin, Dropped, End
from braggshot.live.sources.ledger import Ledger, ScanDefaults
from braggshot.volumes import Frame


def frame(index: int, shape: tuple[int, int] = (3, 4), dtype: str = "u2") -> Frame:
    return Frame(index, np.full(shape, abs(index), dtype))


def kinds(messages: list) -> list[str]:
    return [message.reason if isinstance(message, Dropped) else type(message).__name__ for message in messages]


def test_a_frame_of_an_unknown_scan_begins_it():
    said = Ledger(ScanDefaults()).frame("a", "one", frame(3))
    assert kinds(said) == ["Begin", "Arrived"]
    assert said[0] == Begin("one", None, (3, 4))


def test_the_last_planned_frame_ends_the_scan():
    ledger = Ledger(ScanDefaults(frames=2))
    ledger.frame("a", "one", frame(1))
    said = ledger.frame("a", "one", frame(0))
    assert said[-1] == End("one")
    assert ledger.end("a") == []


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (frame(1), "duplicate"),
        (frame(9), "unplanned"),
        (frame(-1), "unplanned"),
        (frame(2, (4, 3)), "shape"),
        (frame(2, dtype="u4"), "type"),
    ],
)
def test_what_does_not_fit_is_lost(bad, reason):
    ledger = Ledger(ScanDefaults(frames=9))
    ledger.frame("a", "one", frame(1))
    assert kinds(ledger.frame("a", "one", bad)) == [reason]


def test_a_frame_of_a_scan_that_ended_is_late():
    ledger = Ledger(ScanDefaults())
    ledger.frame("a", "one", frame(0))
    ledger.end("a")
    assert kinds(ledger.frame("a", "one", frame(1))) == ["late"]


def test_the_next_scan_ends_the_one_before_and_says_whether_it_was_whole():
    ledger = Ledger(ScanDefaults(frames=10))
    for index in range(4):
        ledger.frame("a", "one", frame(index))
    said = ledger.begin("b", "two")
    assert said[0] == End("one", "the next scan began after frame 4 of 10")
    ledger.frame("b", "two", frame(9))  # the last one came, others were lost on the way
    assert ledger.begin("c", "three")[0] == End("two")


def test_names_are_new_and_safe_for_files():
    ledger = Ledger(ScanDefaults())
    names = [ledger.begin(key, "../a b/c")[-1].scan for key in range(3)]
    assert names == ["a_b_c", "a_b_c_2", "a_b_c_3"]
    long = [ledger.begin(key, "x" * 1000)[-1].scan for key in range(3, 6)]
    assert len(set(long)) == 3
    assert max(map(len, long)) <= 100


def test_silence_ends_a_scan():
    now = [0.0]
    ledger = Ledger(ScanDefaults(frames=10, timeout=5), clock=lambda: now[0])
    ledger.frame("a", "one", frame(0))
    now[0] = 4.0
    assert ledger.end_if_silent() == []
    now[0] = 6.0
    assert ledger.end_if_silent() == [End("one", "nothing came for 5 s after frame 1 of 10")]
    assert ledger.end_if_silent() == []


def test_angles_come_from_the_plan_where_the_stream_has_none():
    ledger = Ledger(ScanDefaults(frames=3, start=10.0, step=0.5))
    begin, arrived = ledger.frame("a", "one", frame(2))
    np.testing.assert_allclose(np.rad2deg(begin.rocking_angle), [10, 10.5, 11])
    assert isinstance(arrived, Arrived)
    assert np.rad2deg(arrived.frame.rocking_angle) == pytest.approx(11)
    ledger = Ledger(ScanDefaults(step=0.5))
    assert ledger.frame("a", "one", frame(4))[-1].frame.rocking_angle == pytest.approx(np.deg2rad(2))
