"""Check who may see the page: a WSGI layer that every request passes before any code of the page runs.

With an access token every request needs the token, in the URL or as ``Authorization: Bearer``, or the cookie. A token in the URL
sets the cookie, and the browser is redirected to the URL without the token, so that the token stays out of bookmarks. The cookie is
derived from the token, because a browser sends it to all servers of a host. After some wrong tokens an address is refused for a
while, except with the cookie, which nobody can guess. The name under which the page is reached does not matter then, so that it may
stand behind a proxy.

Without a token only this machine can reach the page, and only under a loopback name such as localhost. So requests of a foreign web
site are refused even if its name is made to point to this machine (DNS rebinding).

The page is served under a base path and at "/": a proxy may keep the base path in the requests that it hands on, or remove it.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from braggshot.errors import ConfigError

Environ = dict[str, Any]
Start = Callable[..., Any]
Application = Callable[[Environ, Start], Iterable[bytes]]
_MOST_GUESSES = 20  # number of wrong tokens that an address may try at once
_FORGETS_GUESS = 3.0  # time after which one of them is forgotten [s]
_MOST_GUESSERS = 1000  # number of addresses whose guesses are counted
_LONGEST_QUERY = 4096  # longest query of a URL that is searched for an access token [characters]
_TOKEN = r"[A-Za-z0-9._~-]{8,200}"  # what a token may be: hard to guess, and the same in addresses and cookies
# Content security policy: what the browser may load and run for the page.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; worker-src 'self' blob:; form-action 'none'; base-uri 'none'; frame-ancestors "
)
_NO_STORE = ("Cache-Control", "no-store")
NOBODY = "'none'"
NOTEBOOKS = "http://localhost:* http://127.0.0.1:* https://localhost:* vscode-webview:"
"""Pages that may show this page inside them: none at all, or notebooks that this machine serves."""
# Security headers that are added to every answer, besides the content security policy.
_HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
]


def is_loopback(host: str) -> bool:
    """Tell whether an address or a host name is a loopback one, which only this machine can reach."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def find_token(file: Path | None = None) -> str:
    """Return the access token of a page: from a file, else from the environment variable ``BRAGGSHOT_TOKEN``, else a new one.

    A file that does not exist is made, with a new token. A token is never an argument of the command, because every user of the
    machine can read the arguments.

    Raises
    ------
    ConfigError : if others may read the file, or the token could be guessed or cannot stand in an address.
    """
    if file is not None and not file.exists():
        try:
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
                stream.write(secrets.token_urlsafe(24) + "\n")
        except OSError as error:
            raise ConfigError(f"{file}: the file of the token cannot be made ({error.strerror}).") from error
    if file is None:
        place, token = "BRAGGSHOT_TOKEN", os.environ.get("BRAGGSHOT_TOKEN") or secrets.token_urlsafe(24)
    else:
        if os.name == "posix" and file.stat().st_mode & 0o077:
            raise ConfigError(f"{file}: others may read or change this token; first do: chmod 600 {file}")
        try:
            place, token = str(file), file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file}: the token cannot be read ({error}).") from error
    if not re.fullmatch(_TOKEN, token):
        raise ConfigError(f"{place}: a token has at least 8 characters, only letters, digits and . _ ~ -.")
    return token


def clean_base(path: str) -> str:
    """Return a base path with one slash at its beginning and its end.

    Raises
    ------
    ConfigError : if it has other characters than those of a plain path.
    """
    parts = [part for part in path.split("/") if part]
    if not all(re.fullmatch(r"[A-Za-z0-9._~@%-]+", part) for part in parts) or {".", ".."} & set(parts):
        raise ConfigError(f"--base-path {path!r}: expected a path such as /user/me/proxy/8050/.")
    return "/" + "".join(f"{part}/" for part in parts)


def protect(page: Application, token: str | None, base: str = "/", ancestors: str = NOBODY) -> Application:
    """Guard a page: a request passes only with the access token, or, if there is none, only under a loopback name.

    Parameters
    ----------
    page : the page; it sees paths without the base path
    token : access token
    base : base path under which browsers see the page, with a slash at its beginning and its end
    ancestors : `NOBODY` or `NOTEBOOKS`, the pages that may show this page inside them
    """
    from werkzeug.sansio.utils import get_host  # here, because the commands read this module also where the page is not installed

    guesses = Guesses()

    def guard(environ: Environ, start: Start) -> Iterable[bytes]:
        """Pass an allowed request on to the page, and refuse others."""
        environ = _without_base(environ, base)
        is_script = environ["PATH_INFO"].startswith("/_dash-component-suites/")

        def start_with_headers(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            """Begin the answer, with the security headers added; a browser keeps nothing but scripts."""
            kept = headers if is_script else [*((name, value) for name, value in headers if name != "Cache-Control"), _NO_STORE]
            return start(status, [*kept, ("Content-Security-Policy", _POLICY + ancestors), *_HEADERS], *rest)

        if token is None:
            if not is_loopback(urlsplit(f"//{get_host('http', environ.get('HTTP_HOST', ''))}").hostname or ""):
                return _refuse(start_with_headers, "421 Misdirected Request", "This page answers to 127.0.0.1 and localhost only.")
            return page(environ, start_with_headers)
        cookie = f"braggshot-{environ.get('SERVER_PORT', '')}"  # name of the cookie; ports share cookies, so it has the port
        word = hmac.digest(token.encode(), cookie.encode(), "sha256").hex()
        in_url, client = _token_in_url(environ), environ.get("REMOTE_ADDR", "")
        is_known = hmac.compare_digest(_cookie(environ, cookie).encode(), word.encode())
        given = [one for one in (in_url, _bearer(environ)) if one is not None]
        if given and not is_known and guesses.are_too_many(client):
            return _refuse(start_with_headers, "429 Too Many Requests", "Too many wrong tokens; wait a minute, then try again.")
        right = [one for one in given if hmac.compare_digest(one.encode(), token.encode())]
        if in_url in right:
            flags = f"{cookie}={word}; HttpOnly; SameSite=Lax; Path={base}"
            location = base + _view_in_url(environ)
            start_with_headers("303 See Other", [("Location", location), ("Set-Cookie", flags), ("Content-Length", "0")])
            return [b""]
        if is_known or right:
            return page(environ, start_with_headers)
        if given:
            guesses.note(client)
        return _refuse(start_with_headers, "401 Unauthorized", "Open the address with its token, as the program printed it.")

    return guard


class Guesses:
    """The wrong tokens that each address has tried of late; any thread may use them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tried: OrderedDict[str, tuple[float, float]] = OrderedDict()  # address -> number of guesses, time of the last [s]

    def are_too_many(self, client: str) -> bool:
        """Tell whether an address has to wait before it may try again."""
        with self._lock:
            return self._left(client, time.monotonic()) > _MOST_GUESSES - 1

    def note(self, client: str) -> None:
        """Count a wrong guess; of too many addresses those that have guessed nothing for the longest time are forgotten."""
        now = time.monotonic()
        with self._lock:
            self._tried[client] = self._left(client, now) + 1, now
            self._tried.move_to_end(client)
            while len(self._tried) > _MOST_GUESSERS:
                self._tried.popitem(last=False)

    def _left(self, client: str, now: float) -> float:
        """Return how many guesses of an address still count; they are forgotten one after the other."""
        number, last = self._tried.get(client, (0.0, now))
        return max(0.0, number - (now - last) / _FORGETS_GUESS)


def _without_base(environ: Environ, base: str) -> Environ:
    """Return a request as if the page were served at "/"; a proxy that removes the base path hands it on so already."""
    path = environ.get("PATH_INFO", "")
    return {**environ, "PATH_INFO": path[len(base) - 1 :] or "/"} if f"{path}/".startswith(base) else environ


def _token_in_url(environ: Environ) -> str | None:
    """Return the access token in the URL of a request for the page ("/"); None for other paths, or without a token."""
    query = environ.get("QUERY_STRING", "")
    if environ.get("PATH_INFO") != "/" or len(query) > _LONGEST_QUERY:
        return None
    return next(iter(parse_qs(query).get("token", [])), None)


def _view_in_url(environ: Environ) -> str:
    """Return the query of a URL without its token: the view that the page restores; empty if there is nothing else."""
    rest = [(name, value) for name, value in parse_qsl(environ.get("QUERY_STRING", "")) if name != "token"]
    return f"?{urlencode(rest)}" if rest else ""


def _bearer(environ: Environ) -> str | None:
    """Return the access token in the headers of a request; None if there is none."""
    scheme, _, value = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else None


def _cookie(environ: Environ, name: str) -> str:
    """Return the value of a cookie; empty if there is none."""
    try:
        morsel = SimpleCookie(environ.get("HTTP_COOKIE", "")).get(name)
    except CookieError:
        return ""
    return "" if morsel is None else morsel.value


def _refuse(start: Start, status: str, text: str) -> Iterable[bytes]:
    """Refuse a request: answer with an HTTP status and one line of text."""
    body = text.encode()
    start(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]
