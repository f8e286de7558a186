"""Take messages from Python code of the same process, in tests or for a detector that is read by Python code."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from threading import Event

from braggshot.live.messages import Message


class MemorySource:
    """A source that yields the messages given to `put`, in the same order, until `close` ends it.

    Examples
    --------
    >>> from braggshot.live.messages import Begin
    >>> source = MemorySource([Begin("one")])
    >>> source.close()
    >>> list(source.messages(Event()))
    [Begin(scan='one', frames=None, shape=None, rocking_angle=None, about=None)]
    """

    def __init__(self, messages: list[Message] | None = None) -> None:
        self._queue: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        for message in messages or []:
            self.put(message)

    def put(self, message: Message) -> None:
        """Add a message that the source will yield; any thread may call this."""
        self._queue.put(message)

    def close(self) -> None:
        """End the source once it has yielded the messages that were given so far."""
        self._queue.put(None)

    def messages(self, stop: Event) -> Iterator[Message | None]:
        """Yield the messages given to `put`, and None at least every 0.2 s while there is none; end soon after `stop` is set."""
        while not stop.is_set():
            try:
                message = self._queue.get(timeout=0.1)
            except queue.Empty:
                yield None
                continue
            if message is None:
                return
            yield message
