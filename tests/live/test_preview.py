"""Pictures of a scan that is not over: what is left out, when they are given up, and for what."""

from __future__ import annotations

import time
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
import torch
from live_runs import QUICK, finished, messages, source_of

from braggshot import pipeline
from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.io import registry
from braggshot.io.formats import cxi
from braggshot.io.frames import ArrayFrames
from braggshot.live import preview
from braggshot.live import session as module
from braggshot.live.assemble import Assembly
from braggshot.live.config import resolve
from braggshot.live.mailbox import Mailbox, PreviewRequest
from braggshot.live.receiver import Receiver
from braggshot.live.session import Session
from braggshot.live.sources.memory import MemorySource
from braggshot.live.status import Journal, Status
from braggshot.nn.weights import load_network
from braggshot.prepare import volume
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
    drawn = set(model.solid(found).fields)
    assert drawn == set(model.solid(full).fields) - {"sigma"}  # a picture has no uncertainty
    for colouring in drawn:
        view = model.View(colouring)
        ours, theirs = (model.mesh(model.solid(one), view) for one in (found, full))
        for name in ("points", "triangles", "values"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def test_a_window_outlives_a_picture_that_is_given_up(scan, network, monkeypatch):
    making = preview.sketch(wanted(scan, 24), resolve({}), 1, network, None)
    part = next(making)
    making.close()
    assert (part.window_frames, part.result, part.is_rough) == (24, None, True)
    prepared = []
    monkeypatch.setattr(preview, "prepare", lambda _, config, pause: prepared.append(config) or part.volume)

    def again(frames, before, **more):
        """Preview of so many frames, and the shapes that were asked for; None asks for a search."""
        prepared.clear()
        made = next(preview.sketch(wanted(scan, frames, **more), resolve({}), 1, network, before))
        return made, [config.shape for config in prepared]

    whole, settled = (32, 32, 32), replace(part, is_rough=False)
    assert again(26, settled)[1] == [whole]
    assert again(32, replace(settled, window_frames=1))[1] == [whole]  # the scan is over
    found, shapes = again(31, replace(settled, window_frames=20))
    assert (found.window_frames, shapes) == (31, [None, whole])  # the new window is like the old one, which stays
    found, shapes = again(26, part, is_past_peak=True)
    assert (found.is_rough, shapes) == (False, [None, whole])  # the peak has passed, and shows how far it reaches


def test_the_preparation_of_a_part_gives_way_between_its_stages(scan):
    """A picture that more frames have overtaken ends within a stage, not after all of them."""
    raw = replace(wanted(scan).scan, prepared=False)
    stages = []
    preview.prepare_part(replace(wanted(scan), scan=raw), resolve({}).prepare, None, lambda: stages.append("begun"))
    assert len(stages) >= 4

    def give_way():
        stages.append("overtaken")
        raise InterruptedError

    stages.clear()
    with pytest.raises(InterruptedError):
        preview.prepare_part(replace(wanted(scan), scan=raw), resolve({}).prepare, None, give_way)
    assert stages == ["overtaken"]


def test_with_a_given_shape_only_the_peak_is_looked_for(scan, monkeypatch):
    """It is found beside a hot pixel."""
    raw = replace(wanted(scan).scan, prepared=False)
    images = np.array(raw.frames[:])
    images[:, 3, 28] = 10 * images.max()
    hot = replace(wanted(scan), scan=replace(raw, frames=ArrayFrames(images)))
    asked = []
    monkeypatch.setattr(preview, "prepare", lambda _, config, pause: asked.append(config.centre))
    preview.prepare_part(hot, resolve({"prepare": {"shape": [16, 16, 16]}}).prepare, None)
    preview.prepare_part(hot, resolve({"prepare": {"shape": [16, 16, 16], "centre": [15, 14, 13]}}).prepare, None)
    assert asked == [(16, 16, 16), (15, 14, 13)]


def test_a_picture_before_the_peak_says_that_it_is_rough(scan, network):
    made = [pipeline.drain(preview.sketch(wanted(scan, 14, is_past_peak=past), resolve({}), 1, network, None)) for past in (0, 1)]
    assert (made[0].result.verdict, made[0].result.reasons) == ("not judged", (preview.FIRST_LOOK,))
    assert made[1].result.verdict != "not judged"
    assert preview.FIRST_LOOK not in made[1].result.reasons


def test_a_rehearsal_goes_through_what_a_preview_needs_whatever_the_settings_of_the_scan(network, monkeypatch):
    made, finish = [], preview.finish_result
    monkeypatch.setattr(preview, "finish_result", lambda result, *rest: made.append(result) or finish(result, *rest))
    preview.rehearse(resolve({"prepare": {"shape": [128, 128, 128], "centre": [200, 300, 300]}}), 2, network)
    assert made[-1].support.any()


def test_a_rough_window_costs_no_search_for_the_size_of_the_crystal(scan, monkeypatch):
    monkeypatch.setattr(volume, "object_extent", lambda *_: pytest.fail("nothing depends on it"))
    raw = replace(wanted(scan, 14), scan=replace(wanted(scan, 14).scan, prepared=False))
    made = preview.prepare_part(raw, resolve({}).prepare, None)
    assert made.is_rough
    assert made.volume.window.binning == (1, 1, 1)
    assert not any("oversampled" in step for step in made.volume.steps)


RAW = (81, 160, 160)  # of a scan with its peak in the middle


@pytest.fixture(scope="module")
def dirty():
    """A scan with steady hot pixels and two aliens, without dark and flat."""
    generator = np.random.default_rng(3)
    z, y, x = (np.arange(n) - n // 2 for n in RAW)
    fringes = [np.sinc(axis / period) ** 2 for axis, period in ((z, 6.0), (y, 4.0), (x, 4.5))]
    faded = [fringe * np.exp(-((axis / (0.12 * len(axis))) ** 2)) for fringe, axis in zip(fringes, (z, y, x), strict=True)]
    counts = 5e4 * faded[0][:, None, None] * faded[1][:, None] * faded[2] + 0.05
    for frame, row, column, height in ((20, 30, 120, 400), (55, 130, 40, 900)):
        blob = np.exp(-((z + 40 - frame)[:, None, None] ** 2 + (y + 80 - row)[:, None] ** 2 + (x + 80 - column) ** 2) / 8)
        counts += height * blob
    frames = generator.poisson(counts)
    for row, column in generator.integers(0, 160, (25, 2)):
        frames[:, row, column] = generator.poisson(60, RAW[0])
    return frames.astype(np.uint16)


def part_of(frames, count):
    here = np.arange(len(frames)) < count
    scan = Scan(ArrayFrames(np.where(here[:, None, None], frames, 0)), "s", arrived=None if here.all() else here)
    total = np.where(here, frames.sum((1, 2), dtype=float), -1)
    return PreviewRequest("s", scan, int(total.argmax()), count, 0.0, bool(here.all()), is_past_peak=count > len(frames) // 2)


@pytest.mark.parametrize("share", [0.55, 0.65, 0.8])
def test_the_window_of_a_part_past_the_peak_is_that_of_the_whole_scan(dirty, share):
    """Frames that have not come hide neither hot pixels nor background, which made it many times too large."""
    config = resolve({}).prepare
    part = preview.prepare_part(part_of(dirty, int(share * len(dirty))), config, None).volume
    whole = preview.prepare_part(part_of(dirty, len(dirty)), config, None).volume
    assert part.window.binning == whole.window.binning
    for ours, theirs in zip(part.shape, whole.shape, strict=True):
        assert abs(ours - theirs) <= 0.15 * theirs
    assert max(part.shape[1:]) < 0.75 * RAW[1]
    for axis in range(3):
        assert abs(part.window.start[axis] - whole.window.start[axis]) <= 0.15 * whole.shape[axis]


def test_a_window_is_changed_once_and_that_is_said(dirty):
    config, known, changes = resolve({}).prepare, None, []
    for count in range(36, len(dirty) + 1, 9):
        known = preview.prepare_part(part_of(dirty, count), config, known)
        assert max(known.volume.shape) <= 112
        if known.window_change:
            changes.append(known.window_change)
    assert len(changes) <= 1
    assert all("before it was" in change for change in changes)


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


def test_an_improved_picture_is_given_up_within_the_network_for_any_work(scan, tmp_path, monkeypatch):
    session = Session(tmp_path, resolve(QUICK))
    reached = []

    def improve(*_, **__):
        """Ask for another picture while the network is at work."""
        yield
        session.mailbox.request(wanted(scan, 26))
        next(session.load_preview_network()[0].modules())(torch.zeros(1))
        reached.append("the end of the network")

    monkeypatch.setattr(module, "improve", improve)
    monkeypatch.setattr(session, "_show_preview", lambda *_: None)
    session._preview, session._can_improve = (wanted(scan, 24), None), True
    assert session._improve_preview()
    assert session.mailbox.has_work()
    assert (reached, session.status.latest()[1].trouble) == ([], ())
    session.journal.close()
