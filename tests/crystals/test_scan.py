"""The raw scan has the geometry it says it has."""

import math
from dataclasses import replace

import numpy as np
import pytest

from braggshot.crystals.scan import ScanSettings, gold_at_34idc, simulate_scan
from braggshot.errors import ConfigError
from braggshot.physics.geometry import direct_basis, reciprocal_basis, scattering_vector
from braggshot.volumes import Window

CLEAN = ScanSettings(
    detector_shape=(97, 100), peak=(30, 50, 47), diameter=240e-9, counts=1e7, phase_range=0.0, background=0.0, unevenness=0.0,
    hot=0, dead=0, alien=0.0, flux=0.0, truth_voxel=8e-9,
)  # fmt: skip
GEOMETRY = gold_at_34idc(frames=64, step=math.radians(0.015))


@pytest.fixture(scope="module")
def clean():
    return simulate_scan(4, GEOMETRY, CLEAN)


def covariance(weight, basis):
    positions = (np.stack(np.indices(weight.shape), -1) - np.array(weight.shape) // 2) @ basis.T
    mean = np.einsum("zyx,zyxa->a", weight, positions) / weight.sum()
    return np.einsum("zyx,zyxa,zyxb->ab", weight, positions - mean, positions - mean) / weight.sum()


def test_the_peak_falls_on_its_pixel(clean):
    scan, truth = clean
    assert np.unravel_index(scan.frames.argmax(), scan.frames.shape) == (30, 50, 47)
    assert scan.frames.max() == pytest.approx(1e7, rel=2e-3)
    np.testing.assert_allclose(truth.q_bragg, scattering_vector(GEOMETRY, 30, 50, 47, reference=30))


def test_the_pattern_has_the_shape_and_orientation_of_the_crystal(clean):
    # The transform of the intensity is the autocorrelation, whose covariance is twice that of the density.
    scan, truth = clean
    shape = scan.frames.shape
    window = Window(tuple(p - n // 2 for p, n in zip(CLEAN.peak, shape, strict=True)), (1, 1, 1), shape)
    centred = np.roll(scan.frames, [n // 2 - p for p, n in zip(CLEAN.peak, shape, strict=True)], axis=(0, 1, 2))
    basis = direct_basis(reciprocal_basis(GEOMETRY, window, shape)[0], shape)
    autocorrelation = np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(centred.astype(float)))).real
    autocorrelation[autocorrelation < 1e-3 * autocorrelation.max()] = 0
    np.testing.assert_allclose(covariance(autocorrelation, basis), 2 * covariance(abs(truth.rho), truth.basis), atol=1e-16)
    assert 2 * covariance(abs(truth.rho), truth.basis)[0, 0] > 4e-15  # what the tolerance is to be compared with
    assert np.ptp(basis @ np.diag([1, 0, 0]), axis=0)[0] > 2e-9  # and the voxels are skewed


def test_the_crystal_has_its_size(clean):
    _, truth = clean
    inside = abs(truth.rho) > 0.5
    sides = [inside.any(axes).sum() * 8e-9 for axes in ((1, 2), (0, 2), (0, 1))]
    assert all(180e-9 < side < 420e-9 for side in sides)


def test_blemishes_are_on_the_maps(clean):
    blemished = replace(CLEAN, background=0.05, unevenness=0.05, hot=5, dead=4, alien=30.0, flux=0.05, phase_range=2.0, counts=1e5)
    scan, truth = simulate_scan(4, GEOMETRY, blemished)
    assert scan.frames.dtype == np.int32
    assert (scan.dark > 0).sum() == 5
    assert (scan.flat == 0).sum() == 4
    assert not scan.frames[:, scan.flat == 0].any()
    assert scan.frames[:, scan.dark > 0].mean(0) == pytest.approx(scan.dark[scan.dark > 0], rel=0.5)
    assert scan.monitor.shape == scan.rocking_angle.shape == (64,)
    assert scan.monitor.std() == pytest.approx(0.05, rel=0.4)
    assert np.ptp(truth.phase[abs(truth.rho) > 0.5]) == pytest.approx(2.0, rel=0.1)
    again, _ = simulate_scan(4, GEOMETRY, blemished)
    np.testing.assert_array_equal(again.frames, scan.frames)


def test_a_crystal_that_cannot_be_sampled_is_refused():
    with pytest.raises(ConfigError, match="too large"):
        simulate_scan(0, GEOMETRY, replace(CLEAN, diameter=2e-6))
    with pytest.raises(ConfigError, match="outside"):
        simulate_scan(0, GEOMETRY, replace(CLEAN, peak=(64, 1, 1)))
