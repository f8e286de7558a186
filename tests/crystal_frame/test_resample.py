"""A crystal said in metres, seen on skewed voxels, comes back as it was said."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from braggshot.crystal_frame import to_lab
from braggshot.errors import DataError, GeometryError
from braggshot.volumes import DiffractionVolume, Quality, Reconstruction

SKEWED = np.array([[12.6, 0.0, -3.2], [3.3, -10.0, 0.5], [7.9, 0.0, 9.5]]) * 1e-9  # much like 34-ID-C, rows running down
QUALITY = Quality(0, 0, 0, 0)


def reconstruction(rho, support, basis):
    volume = DiffractionVolume(np.ones(rho.shape), np.ones(rho.shape, dtype=bool))
    return Reconstruction(rho.astype(np.complex64), support, volume, QUALITY, basis=basis)


def brick(phase, basis=SKEWED, shape=(50, 41, 46)):
    """220 x 120 x 160 nm about r = 0, less the octant where all coordinates are positive."""
    z, y, x = np.tensordot(basis, np.indices(shape) - np.array(shape).reshape(3, 1, 1, 1) // 2, axes=1)
    inside = (abs(z) < 110e-9) & (abs(y) < 60e-9) & (abs(x) < 80e-9) & ~((z > 0) & (y > 0) & (x > 0))
    return reconstruction(inside * 3.0 * np.exp(1j * phase(z, y, x)), inside, basis)


def lab_positions(crystal):
    index = np.indices(crystal.rho.shape) - np.array(crystal.rho.shape).reshape(3, 1, 1, 1) // 2
    return np.tensordot(crystal.basis, index, axes=1)


def flat(z, y, x):
    return 0 * z


def test_size_and_orientation():
    lab = to_lab(brick(flat), voxel_size=4e-9)
    assert lab.frame == "lab"
    np.testing.assert_allclose(lab.basis, 4e-9 * np.eye(3))
    sides = [lab.support.any(axes).sum() * 4 for axes in ((1, 2), (0, 2), (0, 1))]
    np.testing.assert_allclose(sides, [220, 120, 160], atol=14)  # about a skewed voxel
    assert lab.support.sum() * 64 == pytest.approx(220 * 120 * 160 * 7 / 8, rel=0.03)
    z, y, x = lab_positions(lab)
    missing = (z > 15e-9) & (y > 15e-9) & (x > 15e-9)
    assert not lab.support[missing].any()
    for signs in ((-1, 1, 1), (1, -1, 1), (1, 1, -1), (-1, -1, -1)):  # every other octant is there
        octant = (signs[0] * z > 20e-9) & (signs[1] * y > 20e-9) & (signs[2] * x > 20e-9)
        octant &= (abs(z) < 90e-9) & (abs(y) < 40e-9) & (abs(x) < 60e-9)
        assert lab.support[octant].all()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("slope", [2e7, -9e7])  # a quarter and more than one radian per voxel
def test_phase_gradients_keep_axis_sign_and_amplitude(axis, slope):
    lab = to_lab(brick(lambda *r: slope * r[axis]), voxel_size=5e-9)
    for other in range(3):
        there, here = (np.take(lab.rho, range(k, lab.rho.shape[other] - 1 + k), other) for k in (1, 0))
        turn = np.angle((there * here.conj())[(there != 0) & (here != 0)])
        np.testing.assert_allclose(turn, slope * 5e-9 if other == axis else 0, atol=2e-3)
    np.testing.assert_allclose(np.abs(lab.rho[binary_erosion(lab.support, iterations=6)]), 3, rtol=1e-3)


def test_strong_curved_phase_is_not_wrapped_or_blurred():
    def phase(z, y, x):
        return 6 * math.pi * (((z + 50e-9) / 220e-9) ** 2 + (y / 200e-9) * (x / 200e-9))

    lab = to_lab(brick(phase), voxel_size=4e-9)
    error = np.angle(lab.rho * np.exp(-1j * phase(*lab_positions(lab))))
    assert np.std(error[lab.support]) < 0.04  # at the surface the phase is continued, not measured
    assert np.std(error[binary_erosion(lab.support, iterations=2)]) < 0.01


def test_empty_space_around_a_crystal_changes_nothing():
    tight, wide = (to_lab(brick(lambda z, y, x: 4e7 * z + 3e15 * x * y, shape=shape)) for shape in ((50, 41, 46), (90, 81, 86)))
    np.testing.assert_array_equal(tight.support, wide.support)
    np.testing.assert_allclose(tight.rho, wide.rho, atol=1e-4)


def test_cubic_voxels_stay_as_they_are():
    before = brick(lambda z, y, x: 1e7 * z + 1e15 * x * y, basis=10e-9 * np.eye(3))
    lab = to_lab(before)
    assert np.count_nonzero(lab.support) == np.count_nonzero(before.support)
    index = [np.arange(n) - n // 2 + full // 2 for n, full in zip(lab.rho.shape, before.rho.shape, strict=True)]
    np.testing.assert_allclose(lab.rho, before.rho[np.ix_(*index)], atol=1e-4)


def test_by_default_a_voxel_keeps_its_volume():
    lab = to_lab(brick(flat))
    assert np.linalg.det(lab.basis) == pytest.approx(abs(np.linalg.det(SKEWED)))


def test_a_crystal_at_the_border_loses_nothing():
    rho = np.zeros((20, 20, 20), dtype=complex)
    rho[12:, :6, 14:] = 1
    lab = to_lab(reconstruction(rho, rho != 0, SKEWED))
    assert lab.support.sum() == pytest.approx((rho != 0).sum(), rel=0.2)
    inner = lab.support[1:-1, 1:-1, 1:-1]
    assert inner.sum() == lab.support.sum()


def test_what_cannot_be_resampled_says_why():
    crystal = brick(flat)
    with pytest.raises(GeometryError, match="without geometry"):
        to_lab(replace(crystal, basis=None))
    with pytest.raises(GeometryError, match="larger"):
        to_lab(crystal, voxel_size=1e-12)
    with pytest.raises(GeometryError, match="above 0"):
        to_lab(crystal, voxel_size=0.0)
    with pytest.raises(DataError, match="empty"):
        to_lab(replace(crystal, support=np.zeros_like(crystal.support)))
