"""The surface's level against crystals of known volume: sharp, blurred, uneven, and with a part of the pattern missing."""

import functools

import numpy as np
import pytest
from scipy import ndimage

from braggshot.errors import DataError
from braggshot.physics.iso_surface import cut_share, iso_surface, nearby_volumes

N = 64
INDEX = np.indices((N, N, N)) - N // 2


@functools.cache
def crystal(radius):
    """A truncated octahedron standing askew, `radius` voxels from its middle to its {111} facets; 1 inside."""
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    r = np.abs(np.tensordot(turn, INDEX, axes=1))
    return np.clip(np.minimum(radius - r.sum(0) / np.sqrt(3), 1.15 * radius - r.max(0)) + 0.5, 0, 1)


def seen_through(window, radius):
    """Amplitude of the crystal with a phase of some radians, its pattern multiplied by `window`; support as of shrink-wrap."""
    phase = 80 * ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(N, N, N)), 8)
    pattern = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(crystal(radius) * np.exp(1j * phase))))
    amplitude = np.abs(np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(pattern * window))))
    return amplitude, wrapped(amplitude)


def wrapped(amplitude):
    smooth = ndimage.gaussian_filter(amplitude, 1.0)
    return smooth > 0.15 * smooth.max()


def uneven(radius, share):
    noise = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(N, N, N)), 1.0)
    amplitude = crystal(radius) * np.clip(1 + share * noise / noise.std(), 0, None)
    return amplitude, wrapped(amplitude)


def volume_error(amplitude, support, radius):
    level = iso_surface(amplitude, support).level
    return np.count_nonzero(support & (amplitude >= level)) / crystal(radius).sum() - 1


@pytest.mark.parametrize(("radius", "most"), [(16, 0.005), (9, 0.01), (5, 0.03)])
def test_sharp(radius, most):
    sharp = crystal(radius)
    assert abs(volume_error(sharp, ndimage.binary_dilation(sharp > 0, iterations=2), radius)) < most
    assert iso_surface(sharp, sharp > 0).level == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize(("radius", "most"), [(16, 0.03), (9, 0.05), (5, 0.1)])
@pytest.mark.parametrize("sigma", [12, 6])
def test_blurred(radius, most, sigma):
    """Edges 1.4 and 2.7 voxels wide (10 to 90 %: 2.2 and 4.3)."""
    amplitude, support = seen_through(np.exp(-(INDEX**2).sum(0) / (2 * sigma**2)), radius)
    assert abs(volume_error(amplitude, support, radius)) < most


@pytest.mark.parametrize(("share", "most"), [(0.1, 0.02), (0.2, 0.03), (0.3, 0.1)])
@pytest.mark.parametrize("radius", [16, 9])
def test_uneven_amplitude(radius, share, most):
    """What lies below half is lost, little unless the amplitude scatters by a third; the level keeps to the bulk."""
    amplitude, support = uneven(radius, share)
    assert abs(volume_error(amplitude, support, radius)) < most
    assert iso_surface(amplitude, support).level == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize(("kept", "most"), [(10, 0.01), (6, 0.02), (3, 0.08), (1, 0.4)])
@pytest.mark.parametrize("radius", [16, 9])
def test_a_pattern_cut_near_its_peak(radius, kept, most):
    """Nothing is measured `kept` voxels beyond the peak: the crystal itself comes back too long, the level stays with it."""
    amplitude, support = seen_through(INDEX[2] < kept, radius)
    assert -0.01 < volume_error(amplitude, support, radius) < most
    bulk = np.median(amplitude[ndimage.binary_erosion(crystal(radius) > 0.9, iterations=3)])
    assert iso_surface(amplitude, support).level == pytest.approx(0.5 * bulk, rel=0.15)


def test_a_loose_support_and_a_bright_spot_do_not_move_it():
    background = 0.08 * np.abs(np.random.default_rng(2).normal(size=(N, N, N)))
    loose = ndimage.binary_dilation(crystal(9) > 0, iterations=5)
    assert abs(volume_error(crystal(9) + background, loose, 9)) < 0.02
    bright = crystal(9) * (1 + 2 * ((INDEX**2).sum(0) < 3**2))
    assert abs(volume_error(bright, loose, 9)) < 0.01


def test_it_says_where_the_support_decides():
    blurred = ndimage.gaussian_filter(crystal(9), 1.0)
    assert iso_surface(blurred, blurred > 0.7).cut == 1
    assert iso_surface(blurred, blurred > 0.05).cut == 0
    half = (blurred > 0.7) | ((INDEX[0] < 0) & (blurred > 0.05))
    assert 0.4 < cut_share(blurred, half, 0.5) < 0.6


def test_a_crystal_without_inside_is_told():
    plate = np.abs(INDEX[0]) < 1
    found = iso_surface(plate * 3.0, ndimage.binary_dilation(plate))
    assert found.thin
    assert found.level == pytest.approx(1.5)
    assert not iso_surface(crystal(5), crystal(5) > 0).thin


def test_volumes_of_nearby_levels_hold_the_volume():
    blurred = ndimage.gaussian_filter(crystal(9), 1.5)
    low, high = nearby_volumes(blurred, 0.5, 1e-8 * np.eye(3))
    volume = np.count_nonzero(blurred >= 0.5) * 1e-24
    assert 0.8 * volume < low < volume < high < 1.2 * volume


def test_nothing_has_no_surface():
    with pytest.raises(DataError, match="no surface"):
        iso_surface(np.zeros((4, 4, 4)), np.ones((4, 4, 4), bool))
