"""Serve a page with waitress such that no client keeps others from an answer by sending, reading or asking slowly.

Waitress gives each connection to a thread only while it makes an answer, and reads and sends everything else in one loop. Its own
limits are not enough among strangers: a byte renews its timeout, a client that does not read is never closed, and at the limit of
connections no new client is heard. So between two rounds of the loop `_keep_room` closes the connections that are too slow, and
those that have asked nothing for the longest time where there are too many. Thus a new client is always heard.
"""

from __future__ import annotations

import logging
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from waitress import create_server, wasyncore
from waitress.channel import HTTPChannel

LONGEST_REQUEST = 64 * 1024  # longest body of a request [bytes]; a page sends about one kilobyte
MOST_CONNECTIONS = 200
_THREADS = 12  # number of threads that make answers; each answer takes milliseconds
LONGEST_QUESTION = 20.0  # time within which a connection has to ask its next question in full [s]; pages ask twice a second
LONGEST_STALL = 10.0  # time within which a client has to read a part of its answer [s]
_SLOWEST_READING = 16e3  # slowest client that is given its whole answer [bytes/s]
_LONGEST_END = 5.0  # time for which the end of the server waits for answers that are being made [s]
_LIMITS = {
    "max_request_body_size": LONGEST_REQUEST,
    "max_request_header_size": 16 * 1024,
    "connection_limit": 2 * MOST_CONNECTIONS,  # never reached: `_keep_room` makes room before
    "outbuf_overflow": 64 * 2**20,  # an answer stays in memory until it is sent: one with a whole picture has a megabyte or two
    "asyncore_use_poll": True,  # a live session may have more files open than select() can tell apart
    "threads": _THREADS,
    "ident": None,
}

_LOG = logging.getLogger(__name__)


class Connection(HTTPChannel):  # type: ignore[misc]
    """A connection of a client, with the times that tell how slow the client is."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.asked = self.answered = self.creation_time
        self._is_greedy = False

    def received(self, data: bytes) -> bool:
        """Take a part of a question; drop the questions that follow before the first is answered, which no browser sends.

        Their answers would fill the memory and hold a thread if the client does not read.
        """
        is_taken: bool = super().received(data)
        with self.requests_lock:
            self._is_greedy |= len(self.requests) > 1
            del self.requests[1:]
        if self.requests:
            self.asked = time.time()
        return is_taken

    def service(self) -> None:
        """Make an answer; end the connection with it if questions after it were dropped, so that the client asks them again."""
        super().service()
        if self._is_greedy:
            self.close_when_flushed = True
            self.server.pull_trigger()

    def is_slow(self, now: float) -> bool:
        """Tell whether the client takes too long to ask, or to read its answer; it is not slow while its answer is being made."""
        if self.requests:
            self.answered = now
            return False
        if unsent := self.total_outbufs_len:
            self.answered = now
            return now - self.last_activity > LONGEST_STALL or now - self.asked > LONGEST_STALL + unsent / _SLOWEST_READING
        return now - max(self.asked, self.answered) > LONGEST_QUESTION


def one_line(error: BaseException | None) -> str:
    """Write an error as a short line that holds no control characters; clients choose the words of many errors."""
    return f"{type(error).__name__}: {ascii(str(error))[1:-1]:.200}"


@contextmanager
def serving(page: Callable[..., Any], host: str, port: int) -> Iterator[int]:
    """Serve a WSGI application from threads of this process while the context lasts; the value of the context is the port.

    Answers that are being made are finished when the context ends.

    Raises
    ------
    OSError : if the address is in use, or does not belong to this machine.
    """

    def answer(environ: Any, start: Callable[..., Any]) -> Any:
        """Answer a request; whatever it raises is one line of the log."""
        try:
            return page(environ, start)
        except Exception as error:
            _LOG.warning("a request failed: %s", one_line(error))
            body = b"This request failed."
            start("500 Internal Server Error", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
            return [body]

    sockets: dict[int, Any] = {}
    listening = _listen(host, port)
    server = create_server(answer, map=sockets, sockets=[listening], **_LIMITS)
    server.channel_class = Connection
    # By default a fault in accepting one client would close the server for all.
    server.handle_error = lambda: _LOG.warning("a client could not be accepted: %s", one_line(sys.exc_info()[1]))
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # many questions at once are no news
    ended = threading.Event()
    thread = threading.Thread(target=_run, args=(server, sockets, ended), name="viewer", daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        # One thread after the other: a thread that still wrote to a closed pipe of the server could write into a file of others.
        ended.set()
        server.pull_trigger()
        thread.join()
        server.task_dispatcher.shutdown(timeout=_LONGEST_END)
        close_all(server, sockets)


def _listen(host: str, port: int) -> socket.socket:
    """Make the socket that listens at an address; of a name with several addresses it takes the first."""
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return socket.create_server(address[:2], family=family)


def _run(server: Any, sockets: dict[int, Any], ended: threading.Event) -> None:
    """Accept, read and send until `ended` is set; a fault in one round ends no other."""
    while not ended.is_set():
        try:
            wasyncore.loop(timeout=1.0, use_poll=True, map=sockets, count=1)
            _keep_room(list(server.active_channels.values()), time.time())
        except Exception as error:
            _LOG.warning("the server of the page goes on after a fault: %s", one_line(error))
            ended.wait(0.1)


def _keep_room(connections: list[Connection], now: float) -> None:
    """Close the connections that are slow; where there are still too many, those that have asked nothing for the longest time.

    A client that holds more connections than others loses its own first. Waitress would wait for a client to read before it closes
    the connection, so the connections are closed here.
    """
    kept = []
    for one in connections:
        if one.is_slow(now):
            _drop(one)
        else:
            kept.append(one)
    if len(kept) <= MOST_CONNECTIONS:
        return
    held = Counter(one.addr[0] for one in kept)
    for _ in range(len(kept) - MOST_CONNECTIONS):
        dropped = max(kept, key=lambda one: (not one.requests, held[one.addr[0]], -one.asked))
        kept.remove(dropped)
        held[dropped.addr[0]] -= 1
        _drop(dropped)


def _drop(connection: Connection) -> None:
    """Close a connection at once; without this option the system would keep what the client has not read."""
    with suppress(OSError):
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.handle_close()


def close_all(server: Any, sockets: dict[int, Any]) -> None:
    """Send what is left of the answers as far as the clients take it at once, and close all connections.

    The server stays open if one of its threads still works; it would write to what is closed.
    """
    for one in list(server.active_channels.values()):
        one.handle_write()
        one.handle_close()
    server.del_channel(sockets)
    server.socket.close()
    if not server.task_dispatcher.threads:
        server.trigger.close()
