"""Simulate a Bluesky run that is written into a Tiled catalogue: frames into a growing HDF5 file, documents by a TiledWriter."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Event
from typing import Any

from braggshot.errors import ConfigError, OutputError
from braggshot.live.simulator.bluesky import RunSink, make_folder
from braggshot.live.simulator.player import Sink
from braggshot.live.sources.http_asking import read_address


def serve(target: str, compress: str = "none", files: str = ".") -> Sink:
    """Write into the catalogue of a running server, ``tiled:http://HOST:PORT/CATALOGUE?files=PATH``.

    The server must be allowed to read the files (``tiled serve catalog ... --read PATH``). Its key is ``TILED_API_KEY``.

    Raises
    ------
    ConfigError : if the server does not answer or refuses, or if the compression is unknown.
    OutputError : if the folder cannot be made.
    """
    from bluesky.callbacks.tiled_writer import TiledWriter
    from tiled.client import from_uri

    read_address(f"tiled:{target}", target)
    if compress not in {"none", "bslz4"}:
        raise ConfigError(f"this file is not compressed by {compress!r}; known: none, bslz4.")
    try:
        client = from_uri(target, api_key=os.environ.get("TILED_API_KEY"))
    except Exception as error:  # the client raises errors of several libraries
        raise ConfigError(f"tiled:{target}: cannot write there ({type(error).__name__}: {str(error)[:100]}).") from error
    return TiledSink(target, client, TiledWriter(client, batch_size=1), make_folder(files), compress == "bslz4")


class TiledSink(RunSink):
    """A writer of runs into a catalogue, and of their frames."""

    def __init__(self, address: str, client: Any, writer: Any, root: Path, is_compressed: bool) -> None:
        super().__init__(root, is_compressed, self._write)
        self.url, self._client, self._writer = f"tiled:{address}", client, writer

    def wait(self, stop: Event) -> None:
        """Wait for nobody: the catalogue keeps what it holds."""

    def _write(self, name: str, document: dict[str, Any]) -> None:
        """Write a document of the run.

        Raises
        ------
        OutputError : if the server does not take it.
        """
        try:
            self._writer(name, document)
        except Exception as error:  # the client raises errors of several libraries
            refusal = f"the server does not take the {name} document ({type(error).__name__}: {str(error)[:100]})"
            room = f"--write arrays/ --write sqlite:///tables.db --read {self._file.root}"
            raise OutputError(
                f"{self.url}: {refusal}. It needs room for arrays and tables, and to read frames: tiled serve catalog ... {room}."
            ) from error

    def close(self) -> None:
        """Close the file, and the connection to the server."""
        self._file.close()
        self._client.context.http_client.close()
