"""Ask a Redis server over its own protocol (RESP, version 2), with a bound for the size of each answer.

The common client (redis-py) reads an answer of any size into memory, and a stranger may have written it.

An answer is one of these, each line ending with CR LF::

    +OK        a word           :12        a whole number
    -ERR ...   a refusal        *2         so many answers that follow; *-1 none
    $5         so many bytes that follow, and CR LF; $-1 none
"""

from __future__ import annotations

import re
import socket
from typing import Any, BinaryIO

from braggshot.errors import ConfigError
from braggshot.live.sources.limits import MAX_BYTES, UnusableError

PATIENCE = 5.0
"""Time for which an answer, or the next part of one, is waited for [s]."""
MAX_LINE, MAX_DEPTH, MAX_ITEMS = 1024, 8, 2**17
"""Longest line [bytes], deepest nesting and largest number of parts of an answer."""

Answer = bytes | int | list[Any] | None


def read_address(url: str, target: str) -> tuple[str, int]:
    """Return host and port of a target of the form ``redis://HOST:PORT``; `url` is the URL in the message.

    Raises
    ------
    ConfigError : if the target does not have this form.
    """
    found = re.fullmatch(r"redis://([^/\s:@]+):(\d{1,5})/?", target)
    if found is None or int(found[2]) > 65535:
        raise ConfigError(f"{url}: give the server's address as redis://HOST:PORT.")
    return found[1], int(found[2])


class Server:
    """A connection to a Redis server.

    Raises
    ------
    OSError : if there is no such server.
    """

    def __init__(self, host: str, port: int) -> None:
        self._place = host, port
        self._open()

    def _open(self) -> None:
        self._socket = socket.create_connection(self._place, PATIENCE)
        self._answers = self._socket.makefile("rb")

    def ask(self, *words: str | int, most: int = MAX_BYTES) -> Answer:
        """Return the answer to a command.

        Raises
        ------
        UnusableError : if the answer is malformed, larger than `most` bytes, or a refusal. What else comes of it is not read.
        OSError : if the connection is lost.
        """
        encoded = [str(word).encode() for word in words]
        parts = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)
        self._socket.sendall(b"*%d\r\n%s" % (len(encoded), parts))
        try:
            return read_answer(self._answers, most)
        except UnusableError as error:
            if error.reason != "refused":
                self.close()
                self._open()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._answers.close()
        self._socket.close()


def read_answer(stream: BinaryIO, most: int = MAX_BYTES) -> Answer:
    """Read one answer from a stream of bytes.

    Raises
    ------
    UnusableError : if the answer is malformed, larger than `most` bytes, or a refusal; no other error is raised by what is read.
    ConnectionError : if the stream ends within the answer.
    """
    left = [most, MAX_ITEMS]
    return _read(stream, left, 0)


def _read(stream: BinaryIO, left: list[int], depth: int) -> Answer:
    """Read one answer; `left` holds the bytes and the parts that may still follow."""
    line = stream.readline(MAX_LINE)
    if not line:
        raise ConnectionError("the server closed the connection")
    kind, text, left[1] = line[:1], line[1:-2], left[1] - 1
    if not line.endswith(b"\r\n") or left[1] < 0 or depth > MAX_DEPTH:
        raise UnusableError("malformed", "no answer of Redis, or one of too many parts")
    if kind == b"+":
        return text
    if kind == b"-":
        raise UnusableError("refused", text.decode(errors="replace")[:200])
    if not re.fullmatch(rb"-?\d{1,18}", text) or kind not in b":$*":
        raise UnusableError("malformed", "no answer of Redis")
    number = int(text)
    if kind == b":":
        return number
    if number < 0:
        return None
    if kind == b"*":
        if number > left[1]:
            raise UnusableError("oversized", f"an answer of {number} parts")
        return [_read(stream, left, depth + 1) for _ in range(number)]
    left[0] -= number
    if left[0] < 0:
        raise UnusableError("oversized", f"an answer with a part of {number} bytes")
    content = stream.read(number + 2)
    if len(content) < number + 2:
        raise ConnectionError("the server closed the connection")
    return content[:-2]
