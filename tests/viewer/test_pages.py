"""Which pages are open, and what each has shown: a wait ends when it should, and no sooner."""

from __future__ import annotations

import threading
import time

from braggshot.snapshot import PreviewRecord, Snapshot
from braggshot.viewer import pages as module
from braggshot.viewer.pages import Pages, pause

LONG = 20.0
"""Seconds that no wait of these tests takes, unless it is wrong."""


def waited(wait):
    """How long a wait takes [s], and a thread in which it runs."""
    took = []

    def run():
        began = time.monotonic()
        wait()
        took.append(time.monotonic() - began)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return took, thread


def test_a_page_asks_more_often_while_the_picture_of_a_whole_scan_is_made():
    def picture(frames):
        return PreviewRecord(1.0, frames, "oneshot", 0.1, 1.0, "doubtful")

    waiting, measuring = Snapshot(), Snapshot(state="measuring", received=9)
    over = Snapshot(state="phasing", received=64, previews=(picture(40),))
    shown = Snapshot(state="phasing", received=64, previews=(picture(40), picture(64)))
    assert pause(over) < pause(measuring) == pause(shown) < pause(waiting)


def test_the_first_page_that_shows_something_ends_the_wait_for_it():
    pages = Pages()
    took, thread = waited(lambda: list(pages.wait_for_first(LONG)))
    thread.join(0.2)
    assert not took
    pages.note("a", None)
    thread.join(0.2)
    assert not took  # it draws
    pages.note("a", 0)
    thread.join(LONG)
    assert took[0] < LONG / 4


def test_a_first_page_that_draws_for_long_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(module, "FIRST_DRAWING", 0.2)
    pages = Pages()
    pages.note("a", None)
    took, thread = waited(lambda: list(pages.wait_for_first(LONG)))
    thread.join(LONG)
    assert 0.1 < took[0] < LONG / 2


def test_every_open_page_must_have_shown_the_version():
    pages = Pages()
    pages.note("a", 7)
    pages.note("b", 6)
    took, thread = waited(lambda: pages.wait_until_shown(7, LONG))
    pages.note("a", None)  # what it has shown stays shown while it draws
    pages.note("b", None)
    thread.join(0.3)
    assert not took
    pages.note("b", 8)
    thread.join(LONG)
    assert took[0] < LONG / 2


def test_a_closed_page_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(module, "OPEN", 0.3)
    pages = Pages()
    pages.note("a", None)
    took, thread = waited(lambda: pages.wait_until_shown(1, LONG))
    thread.join(LONG)
    assert 0.2 < took[0] < LONG / 2


def test_no_wait_is_longer_than_it_may_be():
    pages = Pages()
    first, thread = waited(lambda: list(pages.wait_for_first(0.2)))
    thread.join(LONG)
    pages.note("a", None)
    shown, thread = waited(lambda: pages.wait_until_shown(1, 0.2))
    thread.join(LONG)
    assert 0.1 < first[0] < LONG / 2
    assert 0.1 < shown[0] < LONG / 2


def test_without_a_page_nothing_is_waited_for():
    took, thread = waited(lambda: Pages().wait_until_shown(1, LONG))
    thread.join(LONG)
    assert took[0] < LONG / 2
