"""What voxels without counts leave open of a crystal: little in a narrow gap, all beyond a cut."""

from __future__ import annotations

import numpy as np
import pytest

from braggshot.physics.unmeasured import undetermined_share, unmeasured_share

SHAPE = (20, 23, 24)


def crystal(phase_range=0.0):
    support = np.zeros(SHAPE, dtype=bool)
    support[6:14, 7:16, 7:17] = True
    z, _, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    return (support * np.exp(1j * phase_range * z * x)).astype(np.complex64), support


def power_of(rho):
    return np.abs(np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(rho)))) ** 2


def test_the_share_is_that_of_the_power_with_the_peak_in_the_middle():
    rho, support = crystal(4.0)
    valid = np.ones(SHAPE, dtype=bool)
    valid[7:12, :, 15:] = False
    power = power_of(rho)
    assert unmeasured_share(rho, support, valid) == pytest.approx(power[~valid].sum() / power.sum(), rel=1e-4)
    assert unmeasured_share(rho + 1, support, ~valid) == pytest.approx(unmeasured_share(rho + 1, support, ~valid))
    assert unmeasured_share(rho, support, np.ones(SHAPE, dtype=bool)) == 0
    assert unmeasured_share(0 * rho, support, valid) == 0


def test_nothing_measured_leaves_all_open_and_all_measured_nothing():
    rho, support = crystal(3.0)
    valid = np.ones(SHAPE, dtype=bool)
    assert undetermined_share(rho, support, valid) < 1e-6
    assert undetermined_share(rho, support, ~valid) == pytest.approx(1)


def test_a_narrow_gap_is_determined_a_cut_through_the_peak_is_not():
    rho, support = crystal(3.0)
    gap, cut = np.ones(SHAPE, dtype=bool), np.ones(SHAPE, dtype=bool)
    gap[:, 11, :] = False
    cut[:, :, 12:] = False
    assert unmeasured_share(rho, support, gap) > 0.1
    assert undetermined_share(rho, support, gap) < 1e-3
    assert undetermined_share(rho, support, cut) > 100 * undetermined_share(rho, support, gap)
    assert undetermined_share(*crystal(8.0), cut) > 0.01


def test_a_looser_support_and_a_wider_gap_leave_more_open():
    rho, support = crystal(3.0)
    shares = []
    for width in (1, 3, 5):
        valid = np.ones(SHAPE, dtype=bool)
        valid[:, 11 - width // 2 : 12 + width // 2, :] = False
        shares.append(undetermined_share(rho, support, valid))
    assert shares == sorted(shares)
    loose = np.zeros(SHAPE, dtype=bool)
    loose[3:16, 4:19, 5:21] = True
    assert undetermined_share(rho, loose, valid) > 1.5 * shares[-1]


def test_the_error_is_that_of_a_solution_by_least_squares():
    """With many iterations the measured voxels and the support give back all that they determine."""
    rho, support = crystal(2.0)
    valid = np.ones(SHAPE, dtype=bool)
    valid[:, 9:12, :] = False
    few, many = (undetermined_share(rho, support, valid, n) for n in (2, 60))
    assert many < 1e-6
    assert few > 1e-5
