"""Advice while a scan is measured: what is wrong is said with its direction, and what is still to come is no fault."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from live_runs import QUICK, finished, messages, source_of

from braggshot.crystals.scan import gold_at_34idc
from braggshot.io.frames import ArrayFrames
from braggshot.live.advice import ENOUGH, advise, measure_tails, predict_strain
from braggshot.live.config import resolve
from braggshot.live.mailbox import PreviewRequest
from braggshot.live.session import Session
from braggshot.physics import exposure
from braggshot.physics.forward import intensity
from braggshot.physics.geometry import direct_basis
from braggshot.prepare import PrepareConfig, prepare
from braggshot.viewer import contents
from braggshot.volumes import DiffractionVolume, Scan, Window

SHAPE = (64, 48, 52)
PLAIN = PrepareConfig(aliens="off", straight=False)


def pattern(size=1.0, photons=4e6):
    """Photons of a polyhedron without a centre of inversion, a third of the array wide at size 1, the peak in the middle."""
    z, y, x = (axis - n // 2 for axis, n in zip(np.indices(SHAPE).astype(float), SHAPE, strict=True))
    planes = [
        (0.9, 0.2, 0.3, 9),
        (-0.8, 0.4, 0.2, 8),
        (0.1, 1.0, -0.2, 8),
        (0.2, -0.9, 0.3, 7),
        (0.2, 0.1, 1.0, 8),
        (-0.1, 0.3, -1, 9),
    ]
    depth = np.min([size * limit - (a * z + b * y + c * x) for a, b, c, limit in planes], axis=0)
    rho = np.clip(0.5 + depth, 0, 1) * np.exp(0.02j * y * z / size**2)
    expected = intensity(torch.from_numpy(rho.astype(np.complex64))).numpy()
    return expected * photons / expected.sum()


def scan_of(expected, seed=1, **more):
    counts = np.random.default_rng(seed).poisson(expected).astype(np.int32)
    return Scan(counts, "scan", **more)


def asked(scan, frames=None, expected=None, config=PLAIN):
    """Advice after so many frames, as a session asks for it; None is the whole scan."""
    planned = len(scan.frames)
    number = planned if frames is None else frames
    here = np.arange(planned) < number
    images = np.asarray(scan.frames) * here[:, None, None].astype(scan.frames.dtype)
    if expected is None and frames is not None:  # nobody knows how many are planned, so the recording ends with the last frame
        images, here = images[:number], here[:number]
    part = replace(scan, frames=ArrayFrames(images), arrived=None if here.all() else here)
    brightest = int(images.sum((1, 2)).argmax())
    request = PreviewRequest("scan", part, brightest, number, 0.0, frames is None, is_past_peak=True, expected=expected)
    return advise(request, prepare(part, config), seconds=30.0)


def words(found, kind):
    return " | ".join(advice.words for advice in found if advice.kind == kind)


def test_a_scan_that_is_going_on_is_not_told_to_go_on():
    scan = scan_of(pattern())
    for number in range(36, 64, 2):
        for expected in (64, None):
            assert not words(asked(scan, number, expected), "rock"), number


def test_a_scan_may_end_when_little_lies_beyond_and_not_before():
    scan = scan_of(pattern())
    told = [number for number in range(36, 64, 2) if words(asked(scan, number, 64), "enough")]
    assert told == list(range(told[0], 64, 2))  # once said, it stays
    beyond = np.asarray(scan.frames)[told[0] :].sum() / np.asarray(scan.frames).sum()
    assert 0.1 * ENOUGH < beyond < ENOUGH
    assert 40 < told[0] < 58
    assert "predicted sigma" in words(asked(scan, told[0], 64), "enough")
    assert not words(asked(scan), "enough")  # it has ended


@pytest.mark.parametrize(("first", "side"), [(26, "begin about"), (0, "go on for about")])
def test_the_side_on_which_frames_are_missing_is_named(first, side):
    """Flipping the sides would send the user the wrong way."""
    angles = np.radians(0.01) * np.arange(64)
    whole = scan_of(pattern())
    cut = slice(first, first + 38)
    scan = replace(whole, frames=np.asarray(whole.frames)[cut], rocking_angle=angles[cut])
    said = words(asked(scan), "rock")
    assert side in said
    assert "|" not in said
    number = int(said.split("about ")[1].split()[0])
    assert 2 <= number <= 40
    assert f"({0.01 * number:.2g} °)" in said


def test_a_planned_end_that_is_too_early_is_told_before_it_comes():
    scan = scan_of(pattern())
    short = replace(scan, frames=np.asarray(scan.frames)[:38])
    assert "last planned frame" in words(asked(short, 37, 38), "rock")
    assert not words(asked(scan, 37, 64), "rock")


@pytest.mark.parametrize(("moved", "told"), [((0, 14, 0), "-14 rows"), ((0, -15, 0), "+15 rows"), ((0, 0, 16), "-16 columns")])
def test_a_pattern_that_the_detector_cuts_is_moved_back(moved, told):
    """Within a row or two, as the peak is found to that."""
    cut = tuple(slice(max(0, -shift), size - max(0, shift)) for shift, size in zip(moved, SHAPE, strict=True))
    there = tuple(slice(max(0, shift), size - max(0, -shift)) for shift, size in zip(moved, SHAPE, strict=True))
    expected = np.zeros(SHAPE)
    expected[there] = pattern(0.8, 4e7)[cut]
    said = words(asked(scan_of(expected)), "recentre")
    pixels, name = said.removeprefix("move the pattern by ").split()[:2]
    assert name == told.split()[1]
    assert abs(int(pixels) - int(told.split()[0])) <= 1
    assert not words(asked(scan_of(pattern())), "recentre")


def test_steps_that_are_too_coarse_are_told():
    whole = pattern(0.8, 1e7)
    fine = replace(scan_of(whole), rocking_angle=np.radians(0.01) * np.arange(64))
    assert not words(asked(fine), "step")
    coarse = replace(fine, frames=np.asarray(fine.frames)[::3], rocking_angle=fine.rocking_angle[::3])
    assert "0.03 °" in words(asked(coarse), "step")
    few = replace(scan_of(whole * 1e-3), rocking_angle=fine.rocking_angle)
    assert not words(asked(few), "step")


def test_full_counters_are_told():
    counts = np.minimum(np.asarray(scan_of(pattern(photons=1e9)).frames), 65535).astype(np.uint16)
    assert "saturated" in words(asked(Scan(counts, "full")), "saturating")
    marked = Scan(counts, "marked", provenance={"no_count": 65535})
    assert "they were full" in words(asked(marked), "saturating")
    gap = np.ones(SHAPE[1:], bool)
    gap[:, 27:30] = False
    below = Scan(np.asarray(scan_of(pattern()).frames).astype(np.uint16), "gap", valid=gap, provenance={"no_count": 65535})
    assert not words(asked(below), "saturating")  # a gap beside the peak is no fault of the exposure


def test_few_photons_are_told_with_what_a_minute_would_bring():
    said = words(asked(scan_of(pattern(photons=2e4))), "counts")
    assert "photons" in said
    assert "after another minute" in said
    assert not words(asked(scan_of(pattern(photons=1e8))), "counts")


def test_the_predicted_strain_is_that_of_the_plan():
    """One law for both, on the same voxels: photons per voxel of the crystal -> phase gradient -> strain along q."""
    geometry = gold_at_34idc(64)
    basis = 2e7 * np.eye(3)
    q = np.array([0.0, 2.6e10, 0.0])
    volume = DiffractionVolume(
        pattern(), np.ones(SHAPE, bool), window=Window((0, 0, 0), (1, 1, 1), SHAPE), oversampling=(3.2, 2.9, 3.1),
        reciprocal_basis=basis, q_bragg=q, geometry=geometry,
    )  # fmt: skip
    voxels = 0.37 * np.prod(SHAPE) / np.prod(volume.oversampling)
    step = direct_basis(basis, SHAPE)[1, 1]
    value, unit = predict_strain(volume)
    assert unit == ""
    assert value == pytest.approx(exposure.gradient_error(4e6 / voxels) / (2.6e10 * step), rel=0.02)
    assert predict_strain(volume, 4.0)[0] < value
    phase, unit = predict_strain(replace(volume, q_bragg=None))
    assert unit == " rad per voxel"
    assert phase == pytest.approx(value * 2.6e10 * step)


def test_a_tail_tells_the_scattering_beyond_it():
    expected = pattern(photons=1e9)
    expected[48:] = 0
    cut = pattern(photons=1e9)[48:].sum() / 1e9
    volume = DiffractionVolume(
        expected[:48],
        np.ones((48, *SHAPE[1:]), bool),
        window=Window((0, 0, 0), (1, 1, 1), (48, *SHAPE[1:])),
        oversampling=(2.4, 2.9, 3.1),
    )
    before, after = measure_tails(volume, 0, 0, 47)
    assert 0.8 * cut < after.share < 3 * cut
    assert before.share < after.share
    assert after.distance == pytest.approx(16, abs=2)
    assert measure_tails(volume, 0, -20, 80) == (None, None)  # the window has left out what is faint


def test_a_session_shows_advice_and_writes_each_kind_once(tmp_path):
    scan = scan_of(pattern())
    session = Session(tmp_path, resolve({**QUICK, "live": {"every": 6}}))
    short = replace(scan, frames=np.asarray(scan.frames)[:38])
    events = finished(session, source_of(messages(short, "short", range(38), 38)))
    told = [event for event in events if event["event"] == "advice"]
    assert "rock" in {event["kind"] for event in told}
    assert len(told) == len({event["kind"] for event in told})
    shown = session.status.latest()[1]
    assert any(advice.kind == "rock" for advice in shown.advice)
    assert "go on for about" in str(contents.advice(shown))
    assert contents.advice(replace(shown, advice=())) == []
