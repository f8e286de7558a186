"""Pictures of a scan that is not over: what is left out, when they are given up, and for what."""

from __future__ import annotations

import time
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
from live_runs import QUICK, finished, messages, source_of

from braggshot import pipeline
from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.io import registry
from braggshot.io.formats import cxi
from braggshot.io.frames import ArrayFrames
from braggshot.live import preview
from braggshot.live import session as module
from braggshot.live.assemble import Assembly
from braggshot.live.mailbox import Mailbox, PreviewRequest
from braggshot.live.receiver import Receiver
from braggshot.live.session import Session, resolve
from braggshot.live.sources.memory import MemorySource
from braggshot.live.status import Journal, Status
from braggshot.nn.weights import load_network
from braggshot.report import solid as model
from braggshot.volumes import Scan

EDGE = 2e7  # of a voxel of reciprocal space [1/m]


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A prepared volume whose planes are the frames, with its scattering vector."""
    path = tmp_path_factory.mktemp("scan") / "crystal.cxi"
    _, volume = simulate_volume(5, CrystalSettings(shape=(32, 32, 32), phase_range=(1, 1), counts=(1e5, 1e5), shapes=("fcc",)))
    cxi.write_data(path, replace(volume, reciprocal_basis=EDGE * np.eye(3), q_bragg=np.array([0, 2.7e10, 0])))
    return registry.read(path)


@pytest.fixture(scope="module")
def network():
    return load_network()


def wanted(scan, frames=32, **more):
    here = np.arange(32) < frames
    images = np.where(here[:, None, None], np.asarray(scan.frames[:]), 0)
    part = replace(scan, frames=ArrayFrames(images), arrived=None if here.all() else here)
    return PreviewRequest("s", part, int(images.sum((1, 2)).argmax()), frames, 0.0, frames == 32, **more)


def test_a_whole_scans_picture_leaves_out_facets_and_draws_the_same(scan, network):
    """First comes the low resolution, then the network's whole pass, which is what `oneshot` draws."""
    settings = resolve({"phasing": {"method": "oneshot", "hypotheses": 2, "orientations": 2}})
    first = pipeline.drain(preview.sketch(wanted(scan), settings, 2, network, None))
    alone = replace(first, result=None)  # else it would take the twin and origin of the picture before, where the two differ
    found = pipeline.drain(preview.improve(alone, settings, 2, network, is_complete=True)).result
    assert first.result.quality.chi2 > found.quality.chi2
    full = pipeline.reconstruct(wanted(scan).scan, settings).reconstruction
    assert full.strain.facets
    assert found.strain.facets == ()
    assert found.verdict == full.verdict
    for colouring in model.TITLES:
        view = model.View(colouring)
        ours, theirs = (model.mesh(model.solid(one), view) for one in (found, full))
        for name in ("points", "triangles", "values"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def test_a_window_outlives_a_picture_that_is_given_up(scan, network, monkeypatch):
    making = preview.sketch(wanted(scan, 24), resolve({}), 1, network, None)
    part = next(making)
    making.close()
    assert (part.window_frames, part.result) == (24, None)
    prepared = []
    monkeypatch.setattr(preview, "prepare", lambda _, config: prepared.append(config) or part.volume)
    assert next(preview.sketch(wanted(scan, 26), resolve({}), 1, network, part)).window_frames == 24
    assert (
        next(preview.sketch(wanted(scan), resolve({}), 1, network, replace(part, window_frames=1))).window_frames == 1
    )  # it is over
    assert next(preview.sketch(wanted(scan, 31), resolve({}), 1, network, replace(part, window_frames=20))).window_frames == 31
    assert [config.shape for config in prepared] == [(32, 32, 32), (32, 32, 32), None]


def test_with_a_given_shape_only_the_peak_is_looked_for(scan):
    """It is found beside a hot pixel, and in the part where the window before was."""
    raw = replace(wanted(scan).scan, prepared=False)
    images = np.array(raw.frames[:])
    images[:, 3, 28] = 10 * images.max()
    hot = replace(wanted(scan), scan=replace(raw, frames=ArrayFrames(images)))
    assert preview.choose_window(hot, resolve({"prepare": {"shape": [16, 16, 16]}}).prepare, None)[0].centre == (16, 16, 16)
    chosen = resolve({"prepare": {"shape": [16, 16, 16], "centre": [15, 14, 13]}}).prepare
    assert preview.choose_window(hot, chosen, None)[0].centre == (15, 14, 13)


def test_a_picture_in_the_making_gives_way_to_the_whole_scan(scan, tmp_path, monkeypatch):
    made, closed = [], []

    def endless(wanted, *rest):
        made.append(wanted)
        try:
            end = time.monotonic() + 60
            while not wanted.is_complete and time.monotonic() < end:
                time.sleep(0.002)
                yield None
            return (yield from preview.sketch(wanted, *rest))
        finally:
            closed.append(wanted)

    class Patient(MemorySource):
        def messages(self, stop):
            for message in messages(scan):
                yield message
                while getattr(getattr(message, "frame", None), "index", 0) == 20 and not made:
                    time.sleep(0.002)

    monkeypatch.setattr(module, "sketch", endless)
    events = finished(Session(tmp_path, resolve(QUICK)), Patient(), once=True)
    assert not made[0].is_complete
    assert made[-1].is_complete
    assert closed == made
    assert next(event for event in events if event["event"] == "picture")["frames"] == 32
    assert not [event for event in events if event["event"] == "trouble"]


def test_what_overtakes_what(scan):
    mailbox, first = Mailbox(), wanted(scan, 12)
    mailbox.request(first)
    assert not mailbox.is_overtaken(first)
    mailbox.request(wanted(scan, 20, has_passed_peak=True))
    assert mailbox.is_overtaken(first)
    mailbox.request(wanted(scan, 21))
    kept = mailbox.take_request()
    assert (kept.frames, kept.has_passed_peak) == (21, True)  # the newest frames, and as urgent as what they replace
    mailbox.request(wanted(scan, 22))
    assert not mailbox.is_overtaken(kept)
    mailbox.request(wanted(scan))
    assert mailbox.is_overtaken(kept)
    assert not mailbox.is_overtaken(wanted(scan))


@pytest.mark.parametrize("order", [1, -1])
def test_a_picture_is_asked_for_as_soon_as_the_peak_has_passed(scan, tmp_path, order):
    """Between two of the regular ones, and once for a peak; not where the user says when."""
    frames = np.array(scan.frames[:])[::order]
    total = frames.sum((1, 2))
    fallen = next(index for index in range(total.argmax(), 32) if total[index] < 0.5 * total.max())
    for every, expected in ((0, [fallen + 1]), (8, [])):
        mailbox, asked = Mailbox(), []
        mailbox.request = asked.append
        journal = Journal(tmp_path / f"{every}.jsonl")
        receiver = Receiver(Assembly(tmp_path / str(every)), mailbox, Status(), journal, every)
        receiver.run(source_of(messages(Scan(ArrayFrames(frames), "s"), planned=None)), Event())
        journal.close()
        assert [one.frames for one in asked if one.has_passed_peak] == expected
        assert [one.frames for one in asked if one.is_complete] == [32]


def test_a_sketch_is_given_up_within_the_network(scan, tmp_path):
    session = Session(tmp_path, resolve(QUICK))
    network, settings = session.load_preview_network(), session.settings
    session.current_request = wanted(scan, 24)
    making = preview.sketch(session.current_request, settings, 1, network, None)
    next(making)
    session.mailbox.request(wanted(scan, 26))
    assert not session.mailbox.is_overtaken(session.current_request)
    session.mailbox.request(wanted(scan))
    with pytest.raises(module.Superseded):
        next(making)
    session.journal.close()
