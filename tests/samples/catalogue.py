"""A stand-in for a Tiled server that holds runs of Bluesky: it answers as tiled 0.2.20 does, as far as braggshot asks."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np


@dataclass
class Run:
    """A run whose frames and events were told so far; `positions` is None where events carry none."""

    key: str
    frames: Any
    positions: list[Any] | None
    units: str | None = "deg"
    motor: str = "eta"
    number: int = 54
    stop: str = ""
    frames_told: int = 0
    events_told: int = 0
    per_event: int = 1

    def tell(self, frames: int, events: int | None = None) -> Run:
        self.frames_told, self.events_told = frames, frames // self.per_event if events is None else events
        return self

    def end(self, status: str = "success") -> Run:
        self.stop = status
        return self.tell(len(self.frames))


@dataclass
class Catalogue:
    """Runs, oldest first; `broken` routes answer with a status of their own."""

    path: str = ""
    runs: list[Run] = field(default_factory=list)
    broken: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def answer(self, route: str, path: str, query: dict[str, Any]) -> tuple[int, bytes]:
        """The status and content of an answer."""
        self.asked.append(route)
        if route in self.broken:
            return self.broken[route], b"{}"
        steps = path.strip("/").removeprefix(self.path).strip("/").split("/")
        run = next((run for run in self.runs if run.key == steps[0]), None)
        if not steps[0]:
            size, offset = int(query["page[limit]"]), int(query["page[offset]"])
            newest = list(reversed(self.runs))[offset : offset + size]
            return 200, self._entries([(run.key, self._about(run)) for run in newest])
        if run is None:
            return 404, b"{}"
        if route == "search":
            return 200, self._entries([("baseline", {"data_keys": {}}), ("primary", {"data_keys": self._keys(run)})])
        return self._content(route, run, steps, query)

    def _content(self, route: str, run: Run, steps: list[str], query: dict[str, Any]) -> tuple[int, bytes]:
        if route == "metadata":
            frames = np.asarray(run.frames)
            data_type = {"endianness": "little", "kind": frames.dtype.kind, "itemsize": frames.dtype.itemsize}
            structure = {"data_type": data_type, "shape": [run.frames_told, *frames.shape[1:]]}
            found = 200 if run.frames_told else 404
            return found, json.dumps({"data": {"id": steps[-1], "attributes": {"structure": structure}}}).encode()
        if route == "array/full":
            first, last = (int(part) for part in query["slice"].split(":"))
            return 200, np.ascontiguousarray(run.frames[first : min(last, run.frames_told)]).tobytes()
        if run.positions is None or not run.events_told:
            return 404, b"{}"
        numbers = list(range(1, run.events_told + 1))
        return 200, json.dumps({"seq_num": numbers, run.motor: run.positions[: run.events_told]}).encode()

    @staticmethod
    def _about(run: Run) -> dict[str, Any]:
        points = len(run.frames) // run.per_event
        start = {"scan_id": run.number, "num_points": points, "motors": [run.motor]}
        return {"start": start, "stop": {"exit_status": run.stop} if run.stop else None}

    @staticmethod
    def _keys(run: Run) -> dict[str, Any]:
        shape = [run.per_event, *np.shape(run.frames)[1:]]
        motor = {"dtype": "number", "shape": [], **({} if run.units is None else {"units": run.units})}
        motors = {} if run.positions is None else {run.motor: motor}
        return {**motors, "eiger": {"dtype": "array", "external": "STREAM:", "shape": shape}}

    @staticmethod
    def _entries(entries: list[tuple[str, Any]]) -> bytes:
        rows = [{"id": key, "attributes": {"metadata": {"selected": about}}} for key, about in entries]
        return json.dumps({"data": rows}).encode()

    def ask(self, route: str, path: str, query: dict[str, Any], most: int = 0, missing: tuple[int, ...] = (404,)) -> bytes | None:
        """Answer as `braggshot.live.sources.http_asking.Server.ask` does."""
        status, content = self.answer(route, path, query)
        if status in missing:
            return None
        if status != 200:
            raise ConnectionError(f"{route} {status}")
        return content


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        place = unquote(parts.path).removeprefix("/api/v1/")
        route = next(route for route in ("search", "metadata", "array/full", "table/full") if place.startswith(route))
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        status, content = self.server.catalogue.answer(route, place.removeprefix(route), query)
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words: Any) -> None:
        pass


class Serving(ThreadingHTTPServer):
    """The catalogue at an address of this machine."""

    daemon_threads = True

    def __init__(self, catalogue: Catalogue, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.catalogue, self.url = catalogue, f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def end(self) -> None:
        self.shutdown()
        self.server_close()
