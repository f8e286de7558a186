"""The present state of a session and its journal: numbered changes, bounded lists, whole lines, from any thread."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from pathlib import Path

import pytest

from braggshot.live.status import MAX_TROUBLES, Journal, Status
from braggshot.snapshot import Snapshot


def test_it_begins_empty():
    assert Status().latest()[0] == 0
    assert Status().latest()[1].state == Snapshot().state == "waiting"


def test_each_change_has_a_number_and_leaves_the_snapshot_before_as_it_was():
    status = Status()
    before = status.latest()[1]
    changed = status.change(scan="s", state="measuring")
    assert status.latest() == (1, changed)
    assert (changed.scan, changed.state, before.scan) == ("s", "measuring", "")
    status.change(received=3)
    number, latest = status.latest()
    assert (number, latest.scan, latest.received) == (2, "s", 3)  # other fields stay


def test_a_field_that_does_not_exist_changes_nothing():
    status = Status()
    with pytest.raises(TypeError):
        status.change(nothing=1)
    assert status.latest()[0] == 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        status.latest()[1].scan = "s"


def test_the_latest_errors_are_kept_in_order():
    status = Status()
    for number in range(MAX_TROUBLES + 5):
        status.add_trouble(str(number))
    number, snapshot = status.latest()
    assert number == MAX_TROUBLES + 5
    assert snapshot.trouble == tuple(str(number) for number in range(5, MAX_TROUBLES + 5))


def test_no_change_of_many_threads_is_lost():
    status = Status()

    def change(name):
        for _ in range(200):
            status.change(scan=name)
        status.add_trouble(name)

    threads = [threading.Thread(target=change, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    number, snapshot = status.latest()
    assert number == 4 * 201
    assert sorted(snapshot.trouble) == list("abcd")


def events(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_event_is_one_line_that_can_be_read_at_once(tmp_path):
    path = tmp_path / "new" / "events.jsonl"
    journal = Journal(path)
    journal.write("result", "s", 12, file=Path("s.cxi"), reason="two\nlines, µ")
    (event,) = events(path)  # before the journal is closed
    assert event.pop("time") == pytest.approx(time.time(), abs=60)
    assert event == {"event": "result", "scan": "s", "frames": 12, "file": "s.cxi", "reason": "two\nlines, µ"}
    journal.close()


def test_a_second_session_goes_on_in_the_same_file(tmp_path):
    path = tmp_path / "events.jsonl"
    for name in "ab":
        journal = Journal(path)
        journal.write("session started", name)
        journal.close()
    assert [event["scan"] for event in events(path)] == ["a", "b"]


def test_who_listens_hears_each_event_after_it_is_written(tmp_path):
    path, heard = tmp_path / "events.jsonl", []
    journal = Journal(path, lambda event: heard.append((event, len(events(path)))))
    journal.write("result", "s", files=["s.cxi"])
    journal.close()
    assert heard == [(events(path)[0], 1)]


def test_lines_of_many_threads_stay_whole(tmp_path):
    journal = Journal(tmp_path / "events.jsonl")
    threads = [threading.Thread(target=lambda: [journal.write("x", "s" * 500) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    journal.close()
    assert [event["scan"] for event in events(tmp_path / "events.jsonl")] == ["s" * 500] * 200


def test_dropped_data_are_counted_by_reason(tmp_path):
    journal = Journal(tmp_path / "events.jsonl")
    for reason in ("shape", "late", "shape"):
        journal.dropped[reason] += 1
    assert journal.dropped == {"shape": 2, "late": 1}
    journal.close()
