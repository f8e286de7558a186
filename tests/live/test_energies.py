"""Energy scans that arrive live become the volume that they become from a file, or are refused in one line."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from played import listen, playing

from braggshot.crystals.scan import ENERGY_SCAN, gold_by_energy, simulate_scan
from braggshot.io.formats import recorded
from braggshot.io.frames import ArrayFrames
from braggshot.live.assemble import Assembly, ScanClosed
from braggshot.live.messages import Arrived, Begin, End, Trouble
from braggshot.live.simulator.player import open_sink
from braggshot.live.sources.registry import open_source
from braggshot.physics.geometry import KEV
from braggshot.prepare import PrepareConfig, prepare
from braggshot.volumes import Circle, Frame

SMALL = PrepareConfig(shape=(32, 32, 32), aliens="off")


@pytest.fixture(scope="module")
def energy_scan():
    """A scan of 121 energies, uneven as those of a monochromator whose motor jitters."""
    geometry = gold_by_energy()
    bent = geometry.energy * (1 + 2e-5 * np.sin(np.arange(121)))
    scan, _ = simulate_scan(3, geometry=replace(geometry, energy=bent), settings=ENERGY_SCAN)
    return replace(scan, frames=ArrayFrames(np.asarray(scan.frames).astype(np.uint32)), monitor=None)


def known(scan):
    """What a user gives by --like: another energy scan, of other energies."""
    other = replace(scan.geometry, energy=scan.geometry.energy[:40] + 0.01 * KEV)
    return replace(scan, frames=ArrayFrames(np.asarray(scan.frames)[:40]), geometry=other, monitor=None)


def assemble(folder, like, messages):
    assembly = Assembly(folder, like)
    return [change for message in messages for change in assembly.take(message)]


PLACES = ("folder:{folder}/frames", "folder:{folder}/frames?hdf5=1", "zmq:tcp://127.0.0.1:*", "zmq:tcp://127.0.0.1:*?version=2",
          "stins:tcp://127.0.0.1:*", "pva:TEST:Energies", "bluesky:tcp://127.0.0.1:*?files={folder}/frames")  # fmt: skip


@pytest.mark.parametrize("place", [*(pytest.param(place, marks=pytest.mark.slow) for place in PLACES[:-1]), PLACES[-1]])
def test_a_live_energy_scan_is_the_volume_of_its_file(place, energy_scan, tmp_path):
    sink = open_sink(place.format(folder=tmp_path))
    url = f"{sink.url}?angle=entry/data/angle" if "hdf5" in place else sink.url
    source = open_source(url, {"address": sink.address} if hasattr(sink, "address") else None)
    heard = listen(source, playing(energy_scan, sink, ready=getattr(source, "connected", None)))
    assert not heard.lost
    changes = assemble(tmp_path / "recordings", known(energy_scan), heard.messages)
    assert not [change for change in changes if isinstance(change, Trouble)]
    back = recorded.read(next((tmp_path / "recordings").iterdir()))
    assert back.rocking_angle is None
    np.testing.assert_allclose(back.geometry.energy, energy_scan.geometry.energy, rtol=1e-12)
    live, filed = prepare(back, SMALL), prepare(energy_scan, SMALL)
    np.testing.assert_array_equal(live.valid, filed.valid)
    np.testing.assert_allclose(live.intensity, filed.intensity, atol=1e-3 * filed.intensity.max())
    np.testing.assert_allclose(live.reciprocal_basis, filed.reciprocal_basis, rtol=1e-9)


def frames(scan, angles=False):
    values = scan.geometry.energy
    for index, image in enumerate(np.asarray(scan.frames)[:6]):
        yield Arrived("s", Frame(index, image, 0.1 * index) if angles else Frame(index, image, energy=float(values[index])))


@pytest.mark.parametrize(
    ("like", "angles", "said"),
    [
        ("none", False, "place and angles of the detector are not known"),
        ("rocking", False, "moves Theta, so where that stands is not known"),
        ("energy", True, "its angle changes, but the example scan steps the photon energy"),
    ],
)
def test_what_is_not_known_is_said_in_one_line_and_nothing_is_phased(like, angles, said, energy_scan, tmp_path):
    example = known(energy_scan)
    if like == "rocking":
        circles = (Circle("y+", np.linspace(0, 0.1, 40), "Theta"), *example.geometry.sample[1:])
        example = replace(example, geometry=replace(example.geometry, energy=9 * KEV, sample=circles))
    changes = assemble(tmp_path, None if like == "none" else example, [Begin("s", 6), *frames(energy_scan, angles), End("s")])
    (told,) = [change for change in changes if isinstance(change, Trouble)]
    assert said in told.reason
    (closed,) = [change for change in changes if isinstance(change, ScanClosed)]
    assert said in closed.aborted
    assert recorded.can_read(tmp_path / "s")


def test_frames_that_did_not_come_lie_on_the_line_of_the_others(energy_scan, tmp_path):
    messages = [Begin("s", 6), *[frame for frame in frames(energy_scan) if frame.frame.index != 3], End("s")]
    assemble(tmp_path, known(energy_scan), messages)
    back = recorded.read(tmp_path / "s")
    assert not back.arrived[3]
    np.testing.assert_allclose(back.geometry.energy, energy_scan.geometry.energy[:6], rtol=1e-4)
