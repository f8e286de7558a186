"""Pull the messages that a detector pushes, or a program publishes, from a ZeroMQ socket.

ZeroMQ brings the messages of one connection in their order. It keeps messages at the sender while nobody pulls, and connects
again by itself when the other side closes a connection.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import Any, Literal

from braggshot.errors import ConfigError
from braggshot.live.messages import Message
from braggshot.live.sources.ledger import Ledger, ScanDefaults
from braggshot.live.sources.limits import MAX_BYTES, MAX_PARTS
from braggshot.live.sources.reconnecting import ConnectionLostError, keep_connected

GIVEN_UP = 0.5
"""Time without an attempt to connect again after which libzmq has given a connection up [s]; it tries every 0.1 s."""
SILENCE = 150
"""Time without a message after which the connection and the open scan are looked at [ms]."""
Part = bytes | memoryview
Read = Callable[[Sequence[Part] | None, Ledger], list[Message]]
"""Function that turns the parts of a message into messages for the live session; it is given None while no message comes."""


@dataclass(frozen=True)
class PullOptions(ScanDefaults):
    """Options of a source that pulls, in addition to those of `ScanDefaults`.

    Parameters
    ----------
    queue : number of messages that may wait in this program; further messages wait in the detector
    """

    queue: int = 1000


def check_address(url: str, target: str, example: str) -> None:
    """Refuse a target that does not have the form ``tcp://HOST:PORT``, before the first message is waited for.

    Raises
    ------
    ConfigError : if the target does not have this form; `url` is the URL in the message, `example` what was expected.
    """
    import zmq  # noqa: F401  missing libraries are reported when a source is opened

    if not re.fullmatch(r"tcp://[^/\s]+:\d{1,5}", target):
        raise ConfigError(f"{url}: give the detector's address as {example}.")


class PulledSource:
    """A source of what a detector pushes; messages wait in the detector's queue while this program is busy.

    Parameters
    ----------
    address : ``tcp://HOST:PORT``
    options : options of the source
    make_reader : function that makes the reader of this stream, which remembers what it needs between messages
    kind : "PULL", or "SUB" for a sender that publishes; what is published while nobody listens is lost
    """

    def __init__(
        self, address: str, options: PullOptions, make_reader: Callable[[], Read], kind: Literal["PULL", "SUB"] = "PULL"
    ) -> None:
        self.address, self.options, self._make_reader, self._kind = address, options, make_reader, kind

    def messages(self, stop: Event) -> Iterator[Message | None]:
        """Yield messages of scans and frames, and None at least every 0.2 s while none comes; end soon after `stop` is set."""
        ledger, read = Ledger(self.options), self._make_reader()
        yield from keep_connected(self.address, partial(self._listen, ledger, read), stop)

    def _listen(self, ledger: Ledger, read: Read, stop: Event) -> Iterator[Message | None]:
        """Connect to the detector, and yield messages until `stop` is set, or until libzmq gives the connection up."""
        import zmq

        context = zmq.Context()
        try:
            socket = context.socket(zmq.PULL if self._kind == "PULL" else zmq.SUB)
            if self._kind == "SUB":
                socket.set(zmq.SUBSCRIBE, b"")
            socket.set(zmq.RCVHWM, self.options.queue)
            socket.set(zmq.MAXMSGSIZE, MAX_BYTES + MAX_BYTES // 100 + 4096)  # a longer part ends the connection
            connection = _Connection(socket)
            socket.connect(self.address)
            while not stop.is_set():
                if socket.poll(SILENCE):
                    yield from read(_receive(socket), ledger)
                else:
                    yield from read(None, ledger)
                    connection.check()
                    yield from ledger.end_if_silent()
                    yield None
        finally:
            context.destroy(linger=0)


class _Connection:
    """A watch over the connection of a socket.

    libzmq connects again by itself when the other side closes a connection. It gives a connection up when a message is larger than
    allowed or no message at all; the socket would then be deaf for good.
    """

    def __init__(self, socket: Any) -> None:
        import zmq

        self._lost_at: float | None = None
        self._lost = zmq.EVENT_DISCONNECTED
        others = zmq.EVENT_CONNECTED | zmq.EVENT_CONNECT_DELAYED | zmq.EVENT_CONNECT_RETRIED
        self._monitor = socket.get_monitor_socket(self._lost | others)

    def check(self) -> None:
        """Raise `ConnectionLostError` if the connection was lost a while ago, and libzmq does not try to connect again."""
        from zmq.utils.monitor import recv_monitor_message

        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)
            self._lost_at = time.monotonic() if event["event"] == self._lost else None
        if self._lost_at is not None and time.monotonic() - self._lost_at > GIVEN_UP:
            raise ConnectionLostError("the connection ended with a message that is too large or damaged")


def _receive(socket: Any) -> list[memoryview]:
    """Receive one message, and return its parts; of a message with too many parts, return only the first `MAX_PARTS` + 1."""
    parts: list[memoryview] = []
    more = True
    while more:
        part = socket.recv(copy=False)
        more = part.more
        if len(parts) <= MAX_PARTS:
            parts.append(part.buffer)
    return parts
