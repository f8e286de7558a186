"""Find the source for a URL: ``folder:PATH``, ``pva:CHANNEL``, ``zmq:tcp://HOST:PORT``, ``replay:FILE``, and so on.

A transport is a module with a frozen dataclass ``Options`` (filled from the URL) and ``connect(target, options) -> Source``.
Other packages register their transports as entry points ``braggshot.sources``. A transport is imported only when a URL names it,
because it may need a library that only some beamlines have.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl

from braggshot.config import resolve
from braggshot.errors import ConfigError
from braggshot.live.messages import Source


@dataclass(frozen=True)
class Transport:
    """A transport, a way in which frames reach this program.

    Parameters
    ----------
    scheme : the part of a URL before its first colon
    module : import path of the module that receives the frames
    summary : one line that describes the transport to users
    needs : package that users install to get the libraries of the transport
    """

    scheme: str
    module: str
    summary: str
    needs: str = "braggshot[live]"


BUILT_IN = (
    Transport(
        "folder",
        "braggshot.live.sources.folder.source",
        "folder:PATH, where images, growing HDF5 files or DECTRIS file sets appear",
    ),
    Transport("pva", "braggshot.live.sources.pva", "pva:CHANNEL, images of an EPICS areaDetector"),
    Transport("zmq", "braggshot.live.sources.dectris.source", "zmq:tcp://HOST:PORT, the stream of a DECTRIS detector"),
    Transport("stins", "braggshot.live.sources.stins", "stins:tcp://HOST:PORT, the stream of the detectors of MAX IV"),
    Transport(
        "bluesky", "braggshot.live.sources.bluesky", "bluesky:tcp://HOST:PORT?files=PATH, the documents of Bluesky and their files"
    ),
    Transport(
        "tiled",
        "braggshot.live.sources.tiled",
        "tiled:http://HOST:PORT/CATALOGUE, runs in a Tiled catalogue",
        "braggshot[tiled]",
    ),
    Transport(
        "blissdata",
        "braggshot.live.sources.blissdata.source",
        "blissdata:redis://HOST:PORT?files=PATH, scans of BLISS",
        "blissdata",
    ),
    Transport("replay", "braggshot.live.sources.replay", "replay:FILE?rate=HZ, a scan that was measured before"),
)
"""Transports that are part of this program."""


def transports() -> tuple[Transport, ...]:
    """List all known transports, without importing any."""
    plugins = []
    for point in importlib.metadata.entry_points(group="braggshot.sources"):
        package = point.dist.name if point.dist else "?"
        plugins.append(Transport(point.name, point.value, f"from the package {package}", package))
    return (*BUILT_IN, *plugins)


def open_source(url: str, options: Mapping[str, Any] | None = None) -> Source:
    """Return the source that a URL names; the source connects only when its `messages` are read.

    Parameters
    ----------
    url : ``scheme:target?option=value&...``
    options : more options of the transport; options in the URL take precedence

    Raises
    ------
    ConfigError : if the scheme or an option is unknown, the target cannot be used, or a library is missing.
    """
    scheme, target, url_options = split(url)
    with explain_missing(scheme):
        module = load(scheme, url)
        return module.connect(target, resolve(module.Options, {**(options or {}), **url_options}))


def split(url: str) -> tuple[str, str, dict[str, str]]:
    """Split a URL into scheme, target and options.

    Raises
    ------
    ConfigError : if the URL has no scheme or no target.

    Examples
    --------
    >>> split("replay:scans/a.cxi?rate=50")
    ('replay', 'scans/a.cxi', {'rate': '50'})
    """
    scheme, colon, rest = url.partition(":")
    target, mark, query = rest.rpartition("?")
    if not mark or (query and "=" not in query):
        target, query = rest, ""
    if not colon or not target:
        raise ConfigError(f"{url!r} is no source; give SCHEME:TARGET, one of {_list_known()}.")
    return scheme, target, dict(parse_qsl(query, keep_blank_values=True))


def load(scheme: str, url: str = "") -> ModuleType:
    """Import the module of the transport that a URL scheme names.

    Raises
    ------
    ConfigError : if the scheme is unknown.
    ImportError : if a library is missing.
    """
    by_scheme = {transport.scheme: transport for transport in transports()}
    if scheme not in by_scheme:
        raise ConfigError(f"unknown source {url or scheme!r}; known: {_list_known()}.")
    return importlib.import_module(by_scheme[scheme].module)


@contextmanager
def explain_missing(scheme: str) -> Iterator[None]:
    """Turn the error of a missing library into a `ConfigError` that tells what to install."""
    try:
        yield
    except ImportError as error:
        needs = next((transport.needs for transport in transports() if transport.scheme == scheme), "braggshot[live]")
        missing = (error.name or "a package").split(".")[0]
        raise ConfigError(f"{scheme}: needs {missing}, which is not installed: pip install '{needs}'") from error


def _list_known() -> str:
    """Return a list of all known transports as one line of text for an error message."""
    return "; ".join(transport.summary for transport in transports())
