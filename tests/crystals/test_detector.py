"""Counts: the noise model, the point spread, and what the chip hides."""

import pytest
import torch

from braggshot.crystals import detector
from braggshot.crystals.detector import DetectorSettings, measure
from braggshot.physics.forward import PointSpread, intensity
from braggshot.physics.fourier import fourier, pad


def draw(settings, expected=50.0, shape=(40, 24, 25, 26), seed=0):
    return measure(torch.Generator().manual_seed(seed), torch.full(shape, expected), settings)


def test_noise_is_poisson_on_the_intensity():
    counts, valid = draw(DetectorSettings())
    assert valid.all()
    assert counts.mean().item() == pytest.approx(50, rel=0.01)
    assert counts.var().item() == pytest.approx(50, rel=0.01)  # noise on the magnitude would give 4 x 50^1.5
    assert (counts == counts.round()).all()


def test_background_adds_to_the_expectation():
    counts, _ = draw(DetectorSettings(background=(3.0, 3.0)), expected=0.0)
    assert counts.mean().item() == pytest.approx(3, rel=0.02)
    assert counts.var().item() == pytest.approx(3, rel=0.03)


def test_the_brightest_voxel_expects_the_counts_asked_for():
    rho = torch.randn(3, 8, 9, 10, dtype=torch.complex64)
    wanted = torch.tensor([1e2, 1e4, 1e7])
    torch.testing.assert_close(fourier(detector.scale_exposure(rho, wanted)).abs().square().amax((1, 2, 3)), wanted)


def test_a_crystal_in_its_box_diffracts_as_in_the_whole_volume():
    box = torch.randn(2, 7, 8, 5, dtype=torch.complex64)
    for shape in ((16, 17, 18), (15, 16, 9)):
        whole = fourier(pad(box, shape)).abs().square()
        torch.testing.assert_close(detector.diffract(box, shape), whole, rtol=1e-4, atol=1e-5)


def test_every_crystal_has_the_point_spread_of_the_forward_model():
    rho = pad(torch.randn(2, 7, 8, 5, dtype=torch.complex64), (16, 17, 18))
    sigma = torch.tensor([0.4, 1.3])
    blurred = detector.blur(fourier(rho).abs().square(), sigma)
    for one, field, width in zip(blurred, rho, sigma.tolist(), strict=True):
        torch.testing.assert_close(one, intensity(field, PointSpread((width,) * 3)), rtol=1e-4, atol=1e-5)


def test_the_point_spread_has_its_width_and_keeps_the_photons():
    shape, middle = (32, 33, 34), (16, 16, 17)
    offsets = [torch.arange(n) - m for n, m in zip(shape, middle, strict=True)]
    z, y, x = (torch.exp(-(n**2) / (2 * 1.5**2)) for n in offsets)
    peak = (z[:, None, None] * y[:, None] * x).expand(2, *shape)
    blurred = detector.blur(peak, torch.tensor([0.8, 2.0]))
    torch.testing.assert_close(blurred.sum((1, 2, 3)), peak.sum((1, 2, 3)), rtol=1e-4, atol=0)
    for offset, others in zip(offsets, ((2, 3), (1, 3), (1, 2)), strict=True):
        variance = (blurred.sum(others) * offset**2).sum(1) / peak[0].sum()
        torch.testing.assert_close(variance, 1.5**2 + torch.tensor([0.64, 4.0]), rtol=1e-2, atol=0)


def test_gaps_have_a_known_width_and_spare_the_middle():
    counts, valid = draw(DetectorSettings(gaps=1.0, gap_widths=(3, 6)), shape=(40, 5, 64, 65))
    assert (valid == valid[:, :1]).all()  # the same pixels in every frame
    rows, columns = valid[:, 0].any(2), valid[:, 0].any(1)
    for lines, size in ((rows, 64), (columns, 65)):
        hidden = size - lines.sum(1)
        assert (hidden >= 1).all()  # a gap may hang over the edge
        assert hidden.max() == 6
        assert lines[:, size // 2 - 2 : size // 2 + 3].all()
        first = (~lines).float().argmax(1)
        assert (first < size // 2).any()
        assert (first > size // 2).any()
    assert (counts[~valid] == 0).all()


def test_without_gaps_there_are_none():
    _, valid = draw(DetectorSettings(gaps=0.0))
    assert valid.all()


def test_the_beam_stop_hides_the_brightest_pixel_in_every_frame():
    expected = torch.ones(2, 6, 20, 21)
    expected[0, :, 7, 12] = expected[1, :, 15, 3] = 1e4
    _, valid = measure(torch.Generator().manual_seed(0), expected, DetectorSettings(beam_stop=(2.5, 2.5)))
    assert not valid[0, :, 7, 12].any()
    assert not valid[1, :, 15, 3].any()
    assert (~valid).sum((2, 3)).unique().tolist() == [21]  # lattice points within 2.5


def test_dead_saturated_and_lost():
    settings = DetectorSettings(dead=0.05, missing=4, saturation=60)
    counts, valid = draw(settings)
    assert counts.max() < 60
    lost = 24 - valid.any((2, 3)).sum(1)
    assert sorted(lost.unique().tolist()) == [0, 1, 2, 3, 4]
    dead = ~valid.any(1)
    assert dead.float().mean().item() == pytest.approx(0.05, rel=0.15)
    assert (counts[~valid] == 0).all()
