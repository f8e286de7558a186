"""What the page and the slide share is drawn once, and never shown for another subject."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass

import pytest

from braggshot.report.once import once


@dataclass(frozen=True)
class Subject:
    name: str


@pytest.fixture
def drawing():
    made = []

    @once
    def draw(subject, size=1):
        made.append((subject.name, size))
        return [subject.name, size]

    return draw, made


def test_the_same_subject_is_drawn_once(drawing):
    draw, made = drawing
    subject = Subject("a")
    assert draw(subject) is draw(subject)
    assert draw(subject, size=2) == ["a", 2]
    assert made == [("a", 1), ("a", 2)]


def test_an_equal_subject_is_another_one(drawing):
    draw, made = drawing
    one, other = Subject("a"), Subject("a")
    assert draw(one) is not draw(other)
    assert len(made) == 2


def test_nothing_is_kept_alive(drawing):
    draw, _ = drawing
    subject = Subject("a")
    draw(subject)
    gone = weakref.ref(subject)
    del subject
    gc.collect()
    assert gone() is None
    assert draw.__closure__ is not None
    assert [] in [cell.cell_contents for cell in draw.__closure__ if isinstance(cell.cell_contents, list)]
