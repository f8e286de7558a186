"""The direct beam on simulated frames, and the detector's place from them."""

from dataclasses import replace

import numpy as np
import pytest
from arm_scans import arm, arm_scan, places_of

from braggshot.errors import DataError, GeometryError
from braggshot.io.frames import ArrayFrames
from braggshot.prepare.direct_beam import calibrate, find_direct_beam

GEOMETRY = arm()
SCAN = arm_scan(GEOMETRY)


def changed(edit):
    frames = SCAN.frames[:].copy()
    edit(frames)
    return replace(SCAN, frames=ArrayFrames(frames))


@pytest.mark.parametrize("width", [0.7, 1.6, 4.0])
def test_the_beam_is_found_whatever_stays_in_the_frames(width):
    places, left_out = find_direct_beam(arm_scan(GEOMETRY, width, 40000.0))
    assert left_out == {}
    np.testing.assert_allclose(places, places_of(GEOMETRY), atol=0.1)


def test_a_calibration_finds_the_place_within_its_errors():
    found = calibrate(SCAN)
    fit = found.fit
    assert found.left_out == {}
    assert fit.geometry.distance == pytest.approx(1.234, abs=min(1e-4 * 1.234, 3 * fit.sigma["distance"]))
    np.testing.assert_allclose(fit.geometry.direct_beam, (130.3, 118.8), atol=min(0.05, 3 * fit.sigma["row"]))
    assert np.degrees(fit.geometry.detector_rotation) == pytest.approx(0.4, abs=0.01)


def test_frames_without_a_whole_beam_are_left_out_and_named():
    places = np.rint(places_of(GEOMETRY)).astype(int)

    def spoil(frames):
        frames[5] = np.random.default_rng(1).poisson(0.05, frames[5].shape)
        frames[11] = 0
        frames[20, : places[20, 0] - 1] = 0
        frames[33, places[33, 0], places[33, 1]] = np.iinfo(frames.dtype).max
        frames[40] = np.roll(frames[40], 9, axis=0)

    scan = changed(spoil)
    masked = np.ones(scan.frames.shape[1:], dtype=bool)
    masked[places[8, 0] + 1, places[8, 1]] = False
    found = calibrate(replace(scan, valid=masked))
    assert {5: "no beam", 11: "no beam"}.items() <= found.left_out.items()
    assert {8, 33} <= {index for index, why in found.left_out.items() if "masked or saturated" in why}
    assert {20, 40} <= {index for index, why in found.left_out.items() if "does not follow" in why}
    assert found.fit.geometry.distance == pytest.approx(1.234, rel=2e-4)


@pytest.mark.parametrize("background", [0.0, 0.5, 3.0])
def test_a_faint_beam_on_a_background_is_found(background):
    scan = arm_scan(GEOMETRY, 2.0, 2000.0)
    noise = np.random.default_rng(2).poisson(background, scan.frames.shape)
    places, left_out = find_direct_beam(replace(scan, frames=ArrayFrames(scan.frames[:] + noise)))
    assert left_out == {}
    assert np.abs(places - places_of(GEOMETRY)).max() < 0.5
    assert np.std(places - places_of(GEOMETRY)) < 0.15


def test_pixels_that_are_no_numbers_are_masked():
    frames = SCAN.frames[:].astype("f4")
    frames[:, 100, 100], frames[:, 12, 240] = np.nan, np.inf
    found = calibrate(replace(SCAN, frames=ArrayFrames(frames)))
    assert found.fit.geometry.distance == pytest.approx(1.234, rel=1e-4)


def test_a_beam_on_the_edge_is_left_out():
    wide = arm(direct_beam=(2.0, 118.8))
    places, left_out = find_direct_beam(arm_scan(wide))
    cut = {index for index, why in left_out.items() if why == "the beam is cut by the edge of the detector"}
    true = places_of(wide)
    assert {index for index in range(49) if -2 < true[index, 0] < 3} <= cut
    assert np.abs(places - true)[np.isfinite(places)].max() < 0.15


def test_gaps_of_the_detector_are_masked():
    geometry = arm(direct_beam=(257.0, 250.0))
    places, left_out = find_direct_beam(replace(arm_scan(geometry, sides=(516, 516)), detector="maxipix"))
    true = places_of(geometry)
    assert {index for index in range(49) if 253 < true[index, 0] < 262} <= set(left_out)
    assert np.abs(places - true)[np.isfinite(places)].max() < 0.15


def test_scans_that_tell_nothing_are_refused_in_one_line():
    noise = np.random.default_rng(0).poisson(0.3, SCAN.frames.shape).astype(np.uint32)
    for scan, error, said in [
        (replace(SCAN, geometry=None), DataError, "no geometry"),
        (replace(SCAN, frames=ArrayFrames(noise)), GeometryError, "beam"),
        (changed(lambda frames: frames.__setitem__(slice(None), 0)), GeometryError, "0 of 49 frames hold the direct beam"),
    ]:
        with pytest.raises(error, match=said) as refused:
            calibrate(scan)
        assert "\n" not in str(refused.value)
