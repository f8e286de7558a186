"""Ask a server over HTTP, with a bound for the size of each answer and for the time that is waited for it."""

from __future__ import annotations

import http.client
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from braggshot.errors import ConfigError
from braggshot.live.sources.limits import MAX_TEXT, UnusableError

PATIENCE = 10.0
"""Time for which an answer, or the next part of one, is waited for [s]."""


def read_address(url: str, target: str) -> None:
    """Refuse a target that does not have the form ``http://HOST:PORT/PATH``; `url` is the URL in the message.

    Raises
    ------
    ConfigError : if the target does not have this form, or holds a user name or a key.
    """
    if not re.fullmatch(r"https?://[^/\s@?#]+(/[^\s?#]*)?", target):
        raise ConfigError(f"{url}: give the server's address as http://HOST:PORT/PATH, without a key.")
    try:
        urlsplit(target).port  # noqa: B018  it raises if it is no port
    except ValueError as error:
        raise ConfigError(f"{url}: {error}.") from error


class Server:
    """A server that is asked one thing after the other; it is never followed to another address.

    Parameters
    ----------
    address : ``http://HOST:PORT/PATH``
    root : what stands before every route, such as ``/api/v1``
    headers : what is sent with every question
    """

    def __init__(self, address: str, root: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(address)
        self.path, self._root, self._headers = parts.path.strip("/"), root, dict(headers)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=PATIENCE)

    def ask(
        self, route: str, path: str, query: Mapping[str, Any], most: int = MAX_TEXT, missing: Sequence[int] = (404,)
    ) -> bytes | None:
        """Return the answer; None if its status is one of those that mean that there is nothing (yet).

        Raises
        ------
        UnusableError : if the answer is longer than `most` bytes.
        ConnectionError : if the server does not answer, or refuses.
        """
        place = f"{self._root}/{route}/{quote(path.strip('/'))}?{urlencode(query, doseq=True)}"
        is_fresh = self._connection.sock is None
        try:
            status, reason, content = self._exchange(place, most)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            if not is_fresh and isinstance(error, ConnectionError):  # servers close connections that were idle for a while
                return self.ask(route, path, query, most, missing)
            raise ConnectionError(f"no answer ({type(error).__name__}: {str(error)[:100]})") from error
        if status in missing:
            return None
        if status != 200:
            hint = ": its key is missing or wrong" if status in {401, 403} else ""
            raise ConnectionError(f"the server refuses {route} ({status} {reason[:60]}){hint}")
        if len(content) > most:
            raise UnusableError("oversized", f"an answer of more than {most} bytes")
        return content

    def _exchange(self, place: str, most: int) -> tuple[int, str, bytes]:
        """Ask, and return status, reason and content, of which at most `most` + 1 bytes are read."""
        self._connection.request("GET", place, headers={"Accept": "*/*", **self._headers})
        with self._connection.getresponse() as answer:
            content = answer.read(most + 1)
            if len(content) > most:
                self._connection.close()  # the rest is not waited for
            return answer.status, answer.reason, content

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
