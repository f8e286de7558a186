"""What a live session keeps up with: latency, first picture, intake, many viewers, a long run.

``python live.py latency --scans 20``   from the last frame to the picture on the page, and how early the crystal is recognised
``python live.py intake``               frames of 256 x 256 a second, taken in while reconstructing, none lost
``python live.py soak --minutes 60``    scans one after the other at a reduced rate: memory, results, troubles
``python live.py streams --scans 5``    from the last frame that is sent over each transport to the session, and to the picture
``python live_faults.py``               frames over connections that break, each compared with what was sent

The page is asked as a browser asks it: as often as it says for what is new, then for the surface. Drawing it is the browser's.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from braggshot.crystals.scan import ScanSettings, simulate_scan
from braggshot.io import results
from braggshot.live.config import resolve
from braggshot.live.messages import Arrived, Begin, Dropped, End, Trouble
from braggshot.live.session import Session
from braggshot.live.simulator.player import PlayedScan, open_sink
from braggshot.live.sources.memory import MemorySource
from braggshot.live.sources.registry import open_source
from braggshot.physics.metrics import align
from braggshot.report import interactive
from braggshot.report.solid import View
from braggshot.viewer.pages import pause
from braggshot.viewer.shared import SharedFeed
from braggshot.volumes import Frame

EVERY = 3  # of the simulated frames, so that 64 remain
SHORT = {"phasing": {"method": "refine"}, "output": {"formats": ["cxi"]}, "prepare": {"shape": [64, 64, 64], "drift": "off"}}


def scans(n, first=0):
    """Rocking scans of 64 frames of 256 x 256, the peak at frame 32."""
    for seed in range(first, first + n):
        scan, _ = simulate_scan(seed, settings=ScanSettings(phase_range=2.0, counts=3e5))
        chosen = slice(0, 64 * EVERY, EVERY)
        circles = tuple(
            replace(circle, angle=circle.angle[chosen]) if np.ndim(circle.angle) else circle for circle in scan.geometry.sample
        )
        yield replace(
            scan,
            frames=np.asarray(scan.frames)[chosen].astype(np.uint32),
            rocking_angle=scan.rocking_angle[chosen],
            monitor=scan.monitor[chosen],
            geometry=replace(scan.geometry, sample=circles),
        )


class Beam(MemorySource):
    """Plays scans at a rate, and waits for the results of each before the next; notes when frames were sent."""

    def __init__(self, played, rate, status):
        super().__init__()
        self.played, self.rate, self.status, self.sent = played, rate, status, {}

    def messages(self, stop):
        for number, scan in enumerate(self.played):
            name = f"scan_{number:04d}"
            sent = self.sent[name] = []
            yield Begin(name, len(scan.frames), scan.frames.shape[1:], scan.rocking_angle, scan)
            for index, image in enumerate(scan.frames):
                time.sleep(1 / self.rate)
                sent.append((time.monotonic(), time.process_time()))
                yield Arrived(name, Frame(index, image, float(scan.rocking_angle[index])))
            yield End(name)
            while len(self.status.latest()[1].finished) <= number and not stop.is_set():
                yield None
                time.sleep(0.05)


class Page(threading.Thread):
    """Asks for what is new, and for its surface, as a browser does; notes when it had each picture."""

    def __init__(self, status):
        super().__init__(daemon=True)
        self.watch, self.stop, self.camera_from = SharedFeed(status), threading.Event(), []

    def run(self):
        known, wait = None, 0
        while not self.stop.wait(wait / 1e3):
            now, snapshot = self.watch.latest()
            wait = pause(snapshot)
            if snapshot.result is None or (snapshot.scan, now.picture) == known:
                continue
            known = (snapshot.scan, now.picture)
            shown = self.watch.solid(now.scans - 1)
            if shown is not None:
                surface = self.watch.mesh(shown, View())
                json.dumps(interactive.crystal(shown, surface, shown.colouring("strain"), interactive.camera_from("oblique")))
            moment = time.monotonic(), time.process_time()
            self.camera_from.append((moment, snapshot.scan, snapshot.previews[-1], snapshot.result))


def share(values, q):
    return float(np.quantile(values, q))


def latency(options):
    """Time from the last frame to the picture of the whole scan; share of the frames at the first recognised one."""
    with tempfile.TemporaryDirectory() as folder:
        session = Session(folder, resolve(SHORT))
        beam, pages = (
            Beam(scans(options.scans), options.rate, session.status),
            [Page(session.status) for _ in range(options.viewers)],
        )
        for page in pages:
            page.start()
        session.run(beam)
        for page in pages:
            page.stop.set()
            page.join()
        waits, spent, firsts = [], [], []
        for name, sent in beam.sent.items():
            whole = [at for page in pages for at, scan, picture, _ in page.camera_from if scan == name and picture.frames == 64]
            final = results.read(Path(folder) / f"{name}.cxi")
            waits.append(min(whole)[0] - sent[-1][0])
            spent.append(min(whole)[1] - sent[-1][1])
            firsts.append(first_recognised(pages[0], name, final, sent))
        how = f"{options.rate} Hz; {options.viewers} viewers; {torch.get_num_threads()} threads"
        print(f"{len(waits)} scans of 64 frames, 256 x 256, at {how}")
        median, most = statistics.median(waits), max(waits)
        print(f"last frame to picture: median {median:.2f} s, 95 % {share(waits, 0.95):.2f} s, worst {most:.2f} s")
        known = sum(value is not None for value in firsts)
        print("  each: " + ", ".join(f"{wait:.2f}" for wait in waits))
        print(f"  processor time of the program meanwhile: median {statistics.median(spent):.2f} s, most {max(spent):.2f} s")
        print(f"first recognised (>= 0.8 with the final) before the end in {known} of {len(firsts)}, at a share of the frames of")
        print("  made of: " + ", ".join("-" if value is None else f"{value[0]:.2f}" for value in firsts))
        print("  sent when it was on the page: " + ", ".join("-" if value is None else f"{value[1]:.2f}" for value in firsts))


def first_recognised(page, name, final, sent):
    """Shares of the frames, in the first picture that correlates with the final answer, and sent when the page had it.

    None where no picture did before the end.
    """
    for at, scan, picture, result in page.camera_from:
        if scan != name or picture.frames >= 64 or picture.verdict == "failed" or result.rho.shape != final.rho.shape:
            continue
        if align(torch.from_numpy(result.rho), torch.from_numpy(final.rho)).correlation >= 0.8:
            return picture.frames / 64, sum(moment <= at for moment in sent) / 64
    return None


def intake(options):
    """Frames as fast as they are produced, while pictures are made."""
    (scan,) = scans(1)
    images = scan.frames
    with tempfile.TemporaryDirectory() as folder:
        session = Session(folder, resolve({**SHORT, "live": {"every": 32}}))

        class Flood(MemorySource):
            def messages(self, stop):
                self.began = time.monotonic()
                yield Begin("flood", options.frames + 1, images.shape[1:])
                for index in range(options.frames):
                    if options.rate:
                        time.sleep(max(0.0, self.began + index / options.rate - time.monotonic()))
                    yield Arrived("flood", Frame(index, images[index * 64 // options.frames]))
                    self.spent = time.monotonic() - self.began
                yield End("flood", "measured")

        flood = Flood()
        session.run(flood)
        kept = sum(1 for _ in (Path(folder) / "events.jsonl").open())
        shown = session.status.latest()[1]
        print(f"{shown.received} of {options.frames} frames in {flood.spent:.2f} s: {options.frames / flood.spent:.0f} frames/s, "
              f"lost {shown.dropped or 0}, {len(shown.previews)} pictures meanwhile, {kept} events")  # fmt: skip


def soak(options):
    """One scan after the other for a time; resident memory after each, late against early (a sixth of the time each)."""
    (scan,) = scans(1)
    begin = time.monotonic()
    end = begin + 60 * options.minutes

    def until():
        while time.monotonic() < end:
            yield scan

    with tempfile.TemporaryDirectory() as folder:
        session = Session(folder, resolve({**SHORT, "phasing": {"method": "refine", "hypotheses": 2}}))
        page, memory = Page(session.status), []
        page.start()

        class Watched(Beam):
            def messages(self, stop):
                for message in super().messages(stop):
                    if isinstance(message, Begin):
                        resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
                        memory.append(((time.monotonic() - begin) / (60 * options.minutes), resident))
                        page.camera_from.clear()
                    yield message

        session.run(Watched(until(), options.rate, session.status))
        page.stop.set()
        page.join()
        events = [json.loads(line) for line in (Path(folder) / "events.jsonl").read_text().splitlines()]
        counts = {name: sum(event["event"] == name for event in events) for name in ("scan started", "result", "trouble", "lost")}
        early, late = (
            statistics.median(resident for share, resident in memory if low <= share < high)
            for low, high in ((1 / 6, 1 / 3), (5 / 6, math.inf))
        )
        print(f"{options.minutes} minutes at {options.rate} Hz: {counts}")
        print(f"resident memory: {early:.0f} MiB in the second sixth, {late:.0f} in the last ({late / early - 1:+.1%})")


PLACES = {
    "folder": "folder:{folder}",
    "HDF5": "folder:{folder}?hdf5=1",
    "pva": "pva:BENCH:Image",
    "zmq": "zmq:tcp://127.0.0.1:*",
    "zmq 2": "zmq:tcp://127.0.0.1:*?version=2",
    "stins": "stins:tcp://127.0.0.1:*",
    "bluesky": "bluesky:tcp://127.0.0.1:*?files={folder}",
    "tiled": "{tiled}?files={folder}",
    "blissdata": "{blissdata}?files={folder}&per_file=16",
}


def streams(options):
    """Time from when the last frame was sent to when the session has it, and to the picture of the whole scan."""
    (scan,) = scans(1)
    for name in options.only.split(",") if options.only else PLACES:
        if name in ("tiled", "blissdata") and not getattr(options, name):
            print(f"{name}: not measured; give its running server by --{name}")
            continue
        with tempfile.TemporaryDirectory(dir=options.files or None) as folder:
            frames = Path(folder) / "frames"
            sink = open_sink(PLACES[name].format(folder=frames, tiled=options.tiled, blissdata=options.blissdata))
            if options.pictures:
                delays, waits, spent, lost = play_over(sink, scan, Path(folder) / "out", options.scans, options.rate)
            else:
                delays, waits, spent, lost = play_alone(sink, scan, options.scans, options.rate)
        how = f"{len(delays)} scans of 64 frames, 256 x 256, at {options.rate} Hz"
        seen = f"; to picture median {statistics.median(waits):.2f} s, worst {max(waits):.2f} s" if waits else ""
        seen += f", of the processor median {statistics.median(spent):.2f} s" if spent else ""
        taken = f"last frame sent to last frame here median {statistics.median(delays):.3f} s, worst {max(delays):.3f} s"
        print(f"{name}: {how}; {taken}{seen}; lost {lost or 0}", flush=True)


def play_alone(sink, scan, number, rate):
    """Play scans to the source alone, without a session: the delay of each last frame, no pictures, and what was lost."""
    source = open_source(sink.url, {"address": sink.address} if hasattr(sink, "address") else None)
    stop, sent, here, frames, lost = threading.Event(), [], [], [], []

    def play():
        sink.wait(stop)
        if hasattr(source, "connected"):
            source.connected.wait(20)
        time.sleep(2)
        for count in range(number):
            play_scan(sink, scan, count, rate, sent)
            until = time.monotonic() + 20
            while len(here) <= count and time.monotonic() < until:
                time.sleep(0.02)
        stop.set()

    player = threading.Thread(target=play, daemon=True)
    player.start()
    for message in source.messages(stop):
        if isinstance(message, Arrived):
            frames.append(message.frame.index)
            if len(frames) % 64 == 0:
                here.append(time.monotonic())
                assert frames[-64:] == list(range(64))
        elif isinstance(message, Dropped | Trouble):
            lost.append(message)
    player.join()
    sink.close()
    return [at - last for at, (last, _) in zip(here, sent, strict=True)], [], [], lost


def play_scan(sink, scan, count, rate, sent):
    """Play a scan at a rate; note when its last frame was sent, and the processor time until then."""
    sink.begin(PlayedScan(f"scan_{count:04d}", count, 64, scan.frames.shape[1:], scan.frames.dtype, scan.rocking_angle))
    began = time.monotonic()
    for index, image in enumerate(scan.frames):
        time.sleep(max(0.0, began + index / rate - time.monotonic()))
        sink.frame(index, image, True)
    sent.append((time.monotonic(), time.process_time()))
    sink.end(False)


def play_over(sink, scan, folder, number, rate):
    """Play scans one after the other; the delay of each last frame, wait and processor time to each picture, what was lost."""
    session, sent, here = Session(folder, resolve(SHORT), like=scan), [], []
    source, page = open_source(sink.url, {"address": sink.address} if hasattr(sink, "address") else None), Page(session.status)

    class Noted:
        def messages(self, stop):
            count = 0
            for message in source.messages(stop):
                if isinstance(message, Arrived):
                    count += 1
                    if count % 64 == 0:
                        here.append(time.monotonic())
                yield message

    stop = threading.Event()

    def play():
        sink.wait(stop)
        if hasattr(source, "connected"):
            source.connected.wait(20)
        time.sleep(2)
        for count in range(number):
            play_scan(sink, scan, count, rate, sent)
            until = time.monotonic() + 60
            while len(session.status.latest()[1].finished) <= count and time.monotonic() < until:
                time.sleep(0.05)
        session.stop.set()

    player = threading.Thread(target=play, daemon=True)
    page.start()
    player.start()
    session.run(Noted())
    page.stop.set()
    page.join()
    player.join()
    sink.close()
    pictures = {}
    for at, name, picture, _ in page.camera_from:
        if picture.frames == 64:
            pictures.setdefault(name, at)
    pairs = list(zip(sorted(pictures.values()), sent, strict=True))
    waits, spent = ([seen[which] - last[which] for seen, last in pairs] for which in (0, 1))
    return [at - last for at, (last, _) in zip(here, sent, strict=True)], waits, spent, session.status.latest()[1].dropped


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    jobs = parser.add_subparsers(required=True)
    for job, more in (
        (latency, {"scans": 10, "rate": 20.0, "viewers": 1}),
        (intake, {"frames": 4000, "rate": 0.0}),
        (soak, {"minutes": 60.0, "rate": 20.0}),
        (streams, {"scans": 5, "rate": 20.0, "only": "", "tiled": "", "blissdata": "", "files": "", "pictures": 1}),
    ):
        command = jobs.add_parser(job.__name__)
        command.set_defaults(job=job)
        for name, value in more.items():
            command.add_argument(f"--{name}", type=type(value), default=value)
    options = parser.parse_args()
    here = Path(__file__).resolve().parent
    sys.path[:] = [place for place in sys.path if Path(place or ".").resolve() != here]  # its sparse.py hides a package
    options.job(options)


if __name__ == "__main__":
    main()
