"""A small scan, a detector that plays it, and what a source made of that."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import numpy as np

from braggshot.io.frames import ArrayFrames
from braggshot.live.messages import Arrived, Begin, Dropped, End, Message, Source, Trouble
from braggshot.live.simulator.faults import Faults
from braggshot.live.simulator.player import Sink, emit
from braggshot.volumes import Scan

PATIENCE = 30.0
"""Seconds after which something that should come is taken not to; no test waits for so long."""


def toy_scan(frames: int = 12, rows: int = 20, columns: int = 31, dtype: Any = np.uint16) -> Scan:
    """Counts that differ in every pixel of every frame, with odd and unequal sides."""
    rng = np.random.default_rng(3)
    counts = rng.poisson(30, (frames, rows, columns)).astype(dtype)
    counts[:, 0, 0] = np.arange(frames)
    return Scan(ArrayFrames(counts), "toy", rocking_angle=np.deg2rad(np.linspace(10.0, 11.1, frames)))


@dataclass
class Heard:
    """Messages of a source, sorted by scan."""

    messages: list[Message] = field(default_factory=list)

    @property
    def begins(self) -> list[Begin]:
        return [message for message in self.messages if isinstance(message, Begin)]

    @property
    def ends(self) -> list[End]:
        return [message for message in self.messages if isinstance(message, End)]

    @property
    def lost(self) -> Counter[str]:
        return Counter(message.reason for message in self.messages if isinstance(message, Dropped))

    def frames(self, scan: str) -> dict[int, Any]:
        return {m.frame.index: m.frame for m in self.messages if isinstance(m, Arrived) and m.scan == scan}


def listen(source: Source, play: Callable[[], None], scans: int = 1, patience: float = PATIENCE) -> Heard:
    """What `source` says while `play` runs beside it, up to the end of so many scans; the order of messages is checked."""
    heard, stop, failed = Heard(), Event(), []

    def guarded() -> None:
        try:
            play()
        except BaseException as error:
            failed.append(error)
            raise

    player = threading.Thread(target=guarded, daemon=True)
    giving_up = threading.Timer(patience, stop.set)
    giving_up.start()
    player.start()
    try:
        for message in source.messages(stop):
            if message is not None:
                heard.messages.append(message)
            if failed or len(heard.ends) == scans:
                break
    finally:
        giving_up.cancel()
        stop.set()
        player.join(patience)
    assert not failed
    assert not player.is_alive()
    check_order(heard.messages)
    return heard


def check_order(messages: list[Message]) -> None:
    """As `braggshot.live.messages` promises."""
    scan, names = None, set()
    for message in messages:
        if isinstance(message, Begin):
            assert message.scan not in names
            scan = message.scan
            names.add(scan)
        elif not isinstance(message, Dropped | Trouble):
            assert message.scan == scan
            scan = None if isinstance(message, End) else scan


def playing(
    scan: Scan, sink: Sink, faults: Faults | None = None, seed: int = 0, repeat: int = 1, ready: Event | None = None
) -> Callable[[], None]:
    """Play as fast as it goes, once `ready`, then close."""

    def play() -> None:
        stop = Event()
        try:
            sink.wait(stop)
            assert ready is None or ready.wait(PATIENCE)
            for _ in emit(scan, sink, stop, 0.0, faults, seed, repeat):
                pass
        finally:
            sink.close()

    return play


def assert_equal(heard: Heard, scan: Scan, name: str) -> None:
    """Every frame came, bit by bit, with its angle."""
    frames = heard.frames(name)
    assert sorted(frames) == list(range(scan.frames.shape[0]))
    for index, frame in frames.items():
        expected = scan.frames[index]
        assert frame.image.dtype == expected.dtype
        np.testing.assert_array_equal(frame.image, expected)
        assert frame.rocking_angle is not None
        assert abs(frame.rocking_angle - scan.rocking_angle[index]) < 1e-12
