"""A recording gives back what was put in, whole or not, and outlives its writer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.crystals.scan import ScanSettings, simulate_scan
from braggshot.errors import DataError, FormatError, OutputError
from braggshot.io import registry
from braggshot.io.formats import cxi, recorded
from braggshot.io.formats.recorded import Plan, Recorder
from braggshot.prepare import PrepareConfig, prepare
from braggshot.volumes import Frame, Scan


@pytest.fixture(scope="module")
def scan():
    """A rocking scan with dark, flat and geometry."""
    found, _ = simulate_scan(1, settings=ScanSettings(phase_range=1.0, counts=1e4))
    cut, centre = slice(60, 140), slice(64, 192)
    return replace(
        found,
        frames=np.asarray(found.frames)[cut, centre, centre].copy(),
        rocking_angle=found.rocking_angle[cut],
        monitor=found.monitor[cut],
        dark=found.dark[centre, centre],
        flat=found.flat[centre, centre],
        geometry=None,
    )


def plan_of(scan, frames=None):
    return Plan("scan_1", scan.frames.shape[1:], scan.frames.dtype, frames or len(scan.frames), scan.rocking_angle, scan)


def frame(scan, index, **more):
    return Frame(index, np.asarray(scan.frames[index]), **more)


def same(one, other):
    assert np.array_equal(one.intensity, other.intensity)
    assert np.array_equal(one.valid, other.valid)
    assert one.window == other.window


def test_whole_it_is_the_scan_bit_for_bit(scan, tmp_path):
    recorder = Recorder(tmp_path / "r", plan_of(scan))
    for index in np.random.default_rng(0).permutation(len(scan.frames)):  # in any order
        assert recorder.add(frame(scan, index)) == ""
    expected = prepare(scan)
    same(prepare(recorder.scan()), expected)
    assert recorded.read_ending(tmp_path / "r") is None
    recorder.end()
    assert recorded.read_ending(tmp_path / "r") == {"aborted": "", "frames": len(scan.frames)}
    back = registry.read(tmp_path / "r")
    assert back.arrived is None
    same(prepare(back), expected)


def test_a_geometry_and_a_preparation_survive(tmp_path):
    found, _ = simulate_scan(1, settings=ScanSettings(phase_range=1.0, counts=1e3))
    recorder = Recorder(tmp_path / "raw", Plan("raw", (256, 256), np.dtype("i4"), 201, found.rocking_angle, found))
    recorder.add(Frame(0, np.asarray(found.frames[0])))
    geometry = recorded.read(tmp_path / "raw").geometry
    assert geometry.energy == found.geometry.energy
    for circle, expected in zip(geometry.sample, found.geometry.sample, strict=True):
        assert circle.axis == expected.axis
        assert np.array_equal(circle.angle, expected.angle)
    _, volume = simulate_volume(0, CrystalSettings(shape=(16, 18, 20), oversampling=(2, 3)))
    cxi.write_data(tmp_path / "v.cxi", volume)
    prepared = registry.read(tmp_path / "v.cxi")
    recorder = Recorder(tmp_path / "v", Plan("v", (18, 20), np.dtype("f4"), 16, None, prepared))
    for index in range(16):
        recorder.add(Frame(index, np.asarray(prepared.frames[index])))
    back = recorded.read(tmp_path / "v")
    assert back.prepared
    same(prepare(back), prepare(prepared))


def test_what_has_not_come_is_masked_and_not_guessed(scan, tmp_path):
    recorder = Recorder(tmp_path / "r", plan_of(scan))
    with pytest.raises(DataError, match="no frame has come"):
        recorder.scan()
    lost = {3, 40, 41, *range(60, 80)}
    for index in set(range(80)) - lost:
        recorder.add(frame(scan, index))
    config = PrepareConfig(shape=(80, 64, 64), centre=(40, 64, 64), binning=(1, 1, 1), bad_pixels=False, aliens="off")
    part, whole = prepare(recorder.scan(), config), prepare(scan, config)
    gone = [not part.valid[plane].any() for plane in range(80)]
    assert [index for index in range(80) if gone[index]] == sorted(lost)
    here = ~np.array(gone)
    ratio = part.intensity[here].sum() / whole.intensity[here].sum()  # the flux is relative to the median of what is here
    assert 0.95 < ratio < 1.05
    np.testing.assert_allclose(part.intensity[here], ratio * whole.intensity[here], rtol=1e-5)
    assert not part.intensity[gone].any()
    assert any("23 of 80 frames are not there" in step for step in part.steps)
    unmonitored = replace(recorder.scan(), monitor=None)
    assert np.array_equal(prepare(unmonitored, config).valid, part.valid)


def test_the_stream_may_tell_the_angles_and_nobody_the_length(scan, tmp_path):
    plan = replace(plan_of(scan), frames=None, rocking_angle=None)
    recorder = Recorder(tmp_path / "r", plan)
    for index in (0, 1, 70, 2):
        recorder.add(frame(scan, index, rocking_angle=0.1 + 0.01 * index, time=5.0))
    found = recorder.scan()
    assert found.frames.shape == (71, 128, 128)
    assert found.arrived.sum() == 4
    np.testing.assert_allclose(found.rocking_angle, 0.1 + 0.01 * np.arange(71))
    assert np.array_equal(found.frames[70], scan.frames[70])
    assert np.array_equal(recorded.read(tmp_path / "r").frames[2], scan.frames[2])
    recorder.add(frame(scan, 3))  # without an angle, so none is sure
    assert recorder.scan().rocking_angle is None


def test_no_use(scan, tmp_path):
    recorder = Recorder(tmp_path / "r", plan_of(scan))
    assert recorder.add(frame(scan, 5)) == ""
    assert recorder.add(frame(scan, 5)) == "duplicate"
    assert recorder.add(Frame(80, np.asarray(scan.frames[0]))) == "beyond the plan"
    assert recorder.add(Frame(-1, np.asarray(scan.frames[0]))) == "beyond the plan"
    assert recorder.add(Frame(6, np.zeros((3, 3), np.int32))) == "shape"
    assert recorder.add(Frame(6, np.zeros((128, 128), np.float32))) == "type"
    with pytest.raises(OutputError, match="are free"):
        Recorder(tmp_path / "large", replace(plan_of(scan), frames=10**12))
    (tmp_path / "r" / "arrived.raw").write_bytes(b"\0" * 17 * 100)
    with pytest.raises(FormatError, match="damaged"):
        recorded.read(tmp_path / "r")


WRITER = """
import os, signal, sys
import numpy as np
from braggshot.io.formats.recorded import Plan, Recorder
from braggshot.volumes import Frame
recorder = Recorder(sys.argv[1], Plan("s", (8, 8), np.dtype("u2"), 6))
for index in range(4):
    recorder.add(Frame(index, np.full((8, 8), index + 1, np.uint16)))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_loses_nothing(tmp_path):
    done = subprocess.run([sys.executable, "-c", WRITER, tmp_path / "r"], check=False, env=os.environ)
    assert done.returncode == -signal.SIGKILL
    found = recorded.read(tmp_path / "r")
    assert found.arrived.tolist() == [True] * 4 + [False] * 2
    assert [int(found.frames[index].mean()) for index in range(6)] == [1, 2, 3, 4, 0, 0]
    assert isinstance(found, Scan)
