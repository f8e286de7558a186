"""A live session that runs over messages made by hand, quick settings for it, and the events that it wrote; the command at work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import numpy as np

from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.io.formats import cxi
from braggshot.live.messages import Arrived, Begin, End
from braggshot.live.sources.memory import MemorySource
from braggshot.series.registration import carry_neighbour, register
from braggshot.volumes import Frame

QUICK = {
    "phasing": {"method": "iterative", "starts": 2, "iterative": {"recipe": "60*RAAR+30*ER"}, "partial_coherence": "off"},
    "output": {"formats": ["cxi"]},
    "live": {"hypotheses": 1},
}
"""Settings of the full job that take a second; pictures are made by the network all the same."""


def messages(scan, name="s", indices=range(32), planned=32):
    yield Begin(name, planned, scan.frames.shape[1:], None, scan)
    for index in indices:
        yield Arrived(name, Frame(index, np.asarray(scan.frames[index])))
    yield End(name)


def finished(session, source, **how):
    session.run(source, **how)
    return [json.loads(line) for line in (session.folder / "events.jsonl").read_text().splitlines()]


def is_same_but_for_twin_and_place(live, offline):
    """Whether a result is another one to the bit, once that is turned and moved as the live pictures were."""
    offline = offline.reconstruction
    turned, _ = register(offline, carry_neighbour(live, offline.volume))
    return np.array_equal(live.rho, turned.rho) and np.array_equal(live.support, turned.support)


def source_of(*groups):
    source = MemorySource([message for group in groups for message in group])
    source.close()
    return source


def write_scan(path):
    """A small crystal whose planes are the frames, as a file."""
    _, volume = simulate_volume(5, CrystalSettings(shape=(32, 32, 32), phase_range=(1, 1), counts=(1e5, 1e5), shapes=("fcc",)))
    cxi.write_data(path, volume)
    return path


QUICK_WORDS = (
    *("--set=phasing.method=iterative", "--set=phasing.starts=3", "--set=phasing.iterative.recipe=60*RAAR+30*ER"),
    *("--set=phasing.partial_coherence=off", '--set=output.formats=["cxi"]', "--set=live.hypotheses=1"),
    "--set=live.improve=false",
)
"""`QUICK` as words of a command, which makes fewer pictures."""


@contextmanager
def live(*words):
    """`braggshot live` as a shell runs it, without a screen; Ctrl-C reaches it also where these tests run in the background."""
    command = [sys.executable, "-m", "braggshot", "live", *map(str, words), *QUICK_WORDS]
    unseen = {name: value for name, value in os.environ.items() if name not in {"DISPLAY", "WAYLAND_DISPLAY"}}
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": unseen}
    with subprocess.Popen(command, **how, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) as process:
        try:
            yield process
        finally:
            process.kill()
