"""Pictures that the page and the slide share are drawn once."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
A = TypeVar("A")
R = TypeVar("R")


def once(draw: Callable[Concatenate[A, P], R]) -> Callable[Concatenate[A, P], R]:
    """The same function, which remembers its last answer: for the same first argument (that very object) and equal others."""
    last: list[tuple[weakref.ref[A], object, R]] = []

    @wraps(draw)
    def drawn(subject: A, /, *args: P.args, **others: P.kwargs) -> R:
        asked = (args, others)
        for known, before, made in last[:]:  # a copy: another thread may draw something else meanwhile
            if known() is subject and before == asked:
                return made
        made = draw(subject, *args, **others)
        last[:] = [(weakref.ref(subject, lambda _: last.clear()), asked, made)]
        return made

    return drawn
