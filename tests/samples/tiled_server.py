"""A real Tiled server in a process of its own, and a real RunEngine that writes into it."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from pathlib import Path

from camera import Camera

from braggshot.live.sources.http_asking import Server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class RealServer:
    """Catalogue and tables in SQLite files; it may read what detectors write into ``detector``."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        (folder / "detector").mkdir()
        self._engine = self._client = None
        self._start("--init")

    def _start(self, *more: str) -> None:
        place = ["--read", str(self.folder / "detector"), "--write", str(self.folder / "arrays")]
        tables = ["--write", f"sqlite:///{self.folder / 'tables.db'}", "--api-key", "secret", "--port", str(self.port)]
        command = [sys.executable, "-m", "tiled", "serve", "catalog", str(self.folder / "catalogue.db"), *more, *place, *tables]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with contextlib.closing(Server(self.url, "/api/v1", {})) as server:
                try:
                    server.ask("", "", {}, missing=(401, 404))
                    return
                except ConnectionError:
                    time.sleep(0.1)
        raise AssertionError("the server did not start")

    def restart(self) -> None:
        self.end()
        self._start()

    def end(self) -> None:
        if self._client is not None:
            self._client.context.http_client.close()
            self._engine = self._client = None
        self._process.terminate()
        self._process.wait(20)

    def measure(self, name: str, images, steps: tuple[float, float, int]) -> None:
        """Measure a step scan of an axis with a camera."""
        from bluesky import RunEngine
        from bluesky.callbacks.tiled_writer import TiledWriter
        from bluesky.plans import scan
        from ophyd.sim import SynAxis
        from tiled.client import from_uri

        if self._engine is None:
            self._engine = RunEngine({}, context_managers=[])
            self._client = from_uri(self.url, api_key="secret")
            self._engine.subscribe(TiledWriter(self._client, batch_size=1))
        self._engine(scan([Camera(self.folder / "detector" / name, images)], SynAxis(name="eta"), *steps))
