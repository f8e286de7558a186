from __future__ import annotations

import itertools
from collections import Counter

import pytest

from braggshot.errors import ConfigError
from braggshot.live.simulator.faults import Action, Faults, fault_plan, parse


def frames(plan: list[Action]) -> list[int]:
    return [action.frame for action in plan if action.kind in {"frame", "truncated"}]


def test_without_faults_every_frame_comes_once_in_order():
    plan = fault_plan(5, Faults(), seed=0)
    assert [action.kind for action in plan] == ["begin", *["frame"] * 5, "end"]
    assert frames(plan) == list(range(5))


def test_the_same_seed_gives_the_same_plan_and_another_one_another():
    faults = parse("drop=0.1,duplicate=0.1,reorder=0.1,late=0.1,truncate=0.1")
    assert fault_plan(200, faults, 1) == fault_plan(200, faults, 1)
    assert fault_plan(200, faults, 1) != fault_plan(200, faults, 2)


def test_dropped_frames_never_come():
    sent = frames(fault_plan(1000, Faults(drop=0.1), 0))
    assert 850 < len(sent) < 950
    assert sent == sorted(set(sent))


def test_duplicates_come_twice():
    counts = Counter(frames(fault_plan(1000, Faults(duplicate=0.1), 0)))
    assert set(counts.values()) == {1, 2}
    assert 50 < sum(count == 2 for count in counts.values()) < 150


def test_reordered_frames_are_all_there():
    sent = frames(fault_plan(200, Faults(reorder=0.2), 0))
    assert sent != sorted(sent)
    assert sorted(sent) == list(range(200))


def test_late_frames_come_last_but_before_the_end():
    plan = fault_plan(200, Faults(late=0.05), 0)
    sent = frames(plan)
    assert sorted(sent) == list(range(200))
    turns = sum(later < earlier for earlier, later in itertools.pairwise(sent))
    assert turns == 1
    assert plan[-1].kind == "end"


def test_truncated_frames_are_marked():
    kinds = Counter(action.kind for action in fault_plan(1000, Faults(truncate=0.1), 0))
    assert 50 < kinds["truncated"] < 150
    assert kinds["truncated"] + kinds["frame"] == 1000


def test_a_dead_detector_does_nothing_more():
    plan = fault_plan(20, Faults(dead=7), 0)
    assert plan[-1].kind == "dead"
    assert frames(plan) == list(range(7))


def test_an_aborted_scan_is_started_anew():
    plan = fault_plan(10, Faults(abort=4), 0)
    kinds = [action.kind for action in plan]
    assert kinds == ["begin", *["frame"] * 4, "abort", "begin", *["frame"] * 10, "end"]


@pytest.mark.parametrize("text", ["drop", "drop=much", "drop=1.5", "drop=-1", "dead=soon", "loss=0.1"])
def test_what_is_no_fault_is_refused(text):
    with pytest.raises(ConfigError, match="fault"):
        parse(text)


def test_faults_are_read_as_they_are_written():
    assert parse("drop=0.02,dead=after:30,abort=at:10") == Faults(drop=0.02, dead=30, abort=10)
    assert parse("") == Faults()
