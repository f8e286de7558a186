"""Listen to a transport for as long as a session runs: whatever fails is reported, and the transport is connected anew."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from threading import Event

from braggshot.live.messages import Message, Trouble

PAUSE = 1.0
"""Time before a transport is connected anew [s]."""


class ConnectionLostError(Exception):
    """Signal that a connection will not come back by itself."""


def keep_connected(name: str, listen: Callable[[Event], Iterator[Message | None]], stop: Event) -> Iterator[Message | None]:
    """Yield what `listen` yields; when it fails, report why once, and call it again, until `stop` is set.

    Parameters
    ----------
    name : what is listened to, for the report
    listen : function that connects, and yields messages until `stop` is set
    """
    told = ""
    while not stop.is_set():
        try:
            for message in listen(stop):
                told = told if message is None else ""  # what fails again after it has worked is told again
                yield message
        except Exception as error:
            words = str(error) if isinstance(error, ConnectionLostError) else f"{type(error).__name__}: {error}"
            if words != told or isinstance(error, ConnectionLostError):
                yield Trouble(name, f"{words}; connecting anew")
            told, until = words, time.monotonic() + PAUSE
            while time.monotonic() < until and not stop.wait(0.1):
                yield None
