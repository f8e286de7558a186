"""A live session that runs over messages made by hand, quick settings for it, and the events that it wrote."""

from __future__ import annotations

import json

import numpy as np

from braggshot.live.messages import Arrived, Begin, End
from braggshot.live.sources.memory import MemorySource
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


def source_of(*groups):
    source = MemorySource([message for group in groups for message in group])
    source.close()
    return source
