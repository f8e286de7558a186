"""Check who may see the page: a WSGI layer that every request passes before any code of the page runs.

Without an access token only this machine can reach the page, and only under a loopback name such as localhost. So requests of a
foreign web site are refused even if its name is made to point to this machine (DNS rebinding). With an access token every request
needs the token: in the URL, in a cookie, or as ``Authorization: Bearer``. A token in the URL sets the cookie, and the browser is
redirected to the URL without the token, so that the token stays out of bookmarks.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections.abc import Callable, Iterable
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

Environ = dict[str, Any]
Start = Callable[..., Any]
Application = Callable[[Environ, Start], Iterable[bytes]]
LONGEST_REQUEST = 64 * 1024  # longest body of a request [bytes]; a page sends about one kilobyte
_LONGEST_QUERY = 1024  # longest query of a URL that is searched for an access token [characters]
# Content security policy: what the browser may load and run for the page.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; worker-src 'self' blob:; form-action 'none'; base-uri 'none'; frame-ancestors "
)
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


def token_for(host: str, given: str | None) -> str | None:
    """Return the access token of a page: the given one, or a new one if other machines can reach the address, else None."""
    return given or (None if is_loopback(host) else secrets.token_urlsafe(24))


def protect(page: Application, token: str | None, ancestors: str = NOBODY) -> Application:
    """Guard a page: a request passes only with the access token, or, if there is none, only under a loopback name.

    `ancestors`, `NOBODY` or `NOTEBOOKS`, says which other pages may show this page inside them.
    """

    def guard(environ: Environ, start: Start) -> Iterable[bytes]:
        """Pass an allowed request on to the page, and refuse others."""

        def start_with_headers(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            """Begin the answer, with the security headers added."""
            return start(status, [*headers, ("Content-Security-Policy", _POLICY + ancestors), *_HEADERS], *rest)

        if token is None:
            name = environ.get("HTTP_HOST", "").rpartition(":")[0] or environ.get("HTTP_HOST", "")
            if not is_loopback(name):
                return _refuse(start_with_headers, "421 Misdirected Request", "This page answers to 127.0.0.1 and localhost only.")
            return page(environ, start_with_headers)
        cookie = f"braggshot-{environ.get('SERVER_PORT', '')}"  # name of the cookie; ports share cookies, so it has the port
        given = _token_in_url(environ)
        if given is not None and hmac.compare_digest(given.encode(), token.encode()):
            flags = f"{cookie}={token}; HttpOnly; SameSite=Lax; Path=/"
            start_with_headers("303 See Other", [("Location", "/"), ("Set-Cookie", flags), ("Content-Length", "0")])
            return [b""]
        if any(hmac.compare_digest(known.encode(), token.encode()) for known in _tokens_in_headers(environ, cookie)):
            return page(environ, start_with_headers)
        return _refuse(start_with_headers, "401 Unauthorized", "Open the address with its token, as the program printed it.")

    return guard


def _token_in_url(environ: Environ) -> str | None:
    """Return the access token in the URL of a request for the page ("/"); None for other paths, or without a token."""
    query = environ.get("QUERY_STRING", "")
    if environ.get("PATH_INFO") != "/" or len(query) > _LONGEST_QUERY:
        return None
    return next(iter(parse_qs(query).get("token", [])), None)


def _tokens_in_headers(environ: Environ, cookie: str) -> Iterable[str]:
    """Yield the access tokens in the headers of a request."""
    scheme, _, value = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() == "bearer":
        yield value.strip()
    try:
        morsel = SimpleCookie(environ.get("HTTP_COOKIE", "")).get(cookie)
    except CookieError:
        return
    if morsel is not None:
        yield morsel.value


def _refuse(start: Start, status: str, text: str) -> Iterable[bytes]:
    """Refuse a request: answer with an HTTP status and one line of text."""
    body = text.encode()
    start(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]
