"""The mailbox between receiver and worker: the newest preview wins, no finished scan is lost, and waiting ends in time."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from braggshot.io.frames import ArrayFrames
from braggshot.live.mailbox import FinishedScan, Mailbox, PreviewRequest
from braggshot.volumes import Scan

SCAN = Scan(ArrayFrames(np.zeros((3, 4, 5))), "s")


def request(frames, name="s", is_complete=False, has_passed_peak=False):
    return PreviewRequest(name, SCAN, 0, frames, 0.0, is_complete, has_passed_peak)


def finished(name):
    return FinishedScan(name, Path(name), 3, 0.0)


def test_only_the_newest_request_is_kept_and_it_is_taken_once():
    mailbox = Mailbox()
    mailbox.request(request(1))
    mailbox.request(request(2))
    assert mailbox.take_request().frames == 2
    assert mailbox.take_request() is None


def test_every_finished_scan_is_kept_in_its_order():
    mailbox = Mailbox()
    for name in "abc":
        mailbox.submit(finished(name))
    assert [mailbox.take_finished().name for _ in range(3)] == ["a", "b", "c"]
    assert mailbox.take_finished() is None


@pytest.mark.parametrize(("name", "is_urgent"), [("s", True), ("t", False)])
def test_a_request_takes_over_the_peak_of_the_one_it_replaces_within_a_scan(name, is_urgent):
    mailbox = Mailbox()
    mailbox.request(request(1, has_passed_peak=True))
    mailbox.request(request(2, name))
    assert mailbox.take_request().has_passed_peak is is_urgent


def test_only_a_more_urgent_request_overtakes():
    usual, peak, complete = request(1), request(2, has_passed_peak=True), request(3, is_complete=True)
    order = [usual, peak, complete]
    assert [one.urgency for one in order] == [0, 1, 2]
    for waiting in order:
        mailbox = Mailbox()
        mailbox.request(waiting)
        assert [mailbox.is_overtaken(current) for current in order] == [waiting.urgency > current.urgency for current in order]
    assert not Mailbox().is_overtaken(usual)


def test_what_waits_is_work():
    mailbox = Mailbox()
    assert not mailbox.has_work()
    mailbox.submit(finished("a"))
    assert mailbox.has_work()
    mailbox.take_finished()
    mailbox.request(request(1))
    assert mailbox.has_work()


def test_waiting_ends_with_its_time_with_work_and_with_the_end():
    mailbox = Mailbox()
    assert mailbox.wait(0.01)  # nothing came, but something may
    began = time.monotonic()
    threading.Timer(0.1, mailbox.request, (request(1),)).start()
    assert mailbox.wait(30)
    assert time.monotonic() - began < 20
    mailbox.close()
    assert mailbox.wait(30)  # what was asked for before the end is still served
    mailbox.take_request()
    assert not mailbox.wait(30)


def test_the_end_wakes_who_waits():
    mailbox, answers = Mailbox(), []
    waiting = threading.Thread(target=lambda: answers.append(mailbox.wait(30)))
    waiting.start()
    mailbox.close()
    waiting.join(20)
    assert answers == [False]


def test_of_many_threads_no_scan_is_lost_or_given_twice():
    mailbox, taken = Mailbox(), []

    def work():
        while mailbox.wait(1):
            scan = mailbox.take_finished()
            if scan is not None:
                taken.append(scan.name)

    def submit(first):
        for number in range(first, first + 50):
            mailbox.submit(finished(str(number)))

    workers = [threading.Thread(target=work) for _ in range(4)]
    senders = [threading.Thread(target=submit, args=(first,)) for first in (0, 50, 100)]
    for thread in [*workers, *senders]:
        thread.start()
    for thread in senders:
        thread.join(20)
    mailbox.close()
    for thread in workers:
        thread.join(20)
    assert sorted(map(int, taken)) == list(range(150))
