"""Repeats of one scan: aligned, judged and added, with the masks and the exposure of each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from braggshot.crystals.scan import gold_at_34idc
from braggshot.errors import DataError
from braggshot.physics.forward import intensity
from braggshot.prepare import PrepareConfig, RepeatsConfig, prepare, sum_repeats
from braggshot.prepare.alignment import compare, measure_shift
from braggshot.prepare.repeats import common_offset, move
from braggshot.volumes import Scan

SHAPE = (32, 36, 40)
PLAIN = PrepareConfig(bad_pixels=False, self_flat="off")


def pattern(shift=(0.0, 0.0, 0.0), bend=1.0, photons=2e6):
    """Expected photons of a small bent crystal without a centre of inversion, the pattern moved by `shift` voxels."""
    z, y, x = (axis - size // 2 for axis, size in zip(np.indices(SHAPE).astype(float), SHAPE, strict=True))
    body = (abs(z) < 5) & (abs(y) < 6) & (x > -6) & (x + 0.5 * y + 0.3 * z < 5)
    phase = bend * (0.03 * z * y + 0.02 * x * x + 0.002 * y**3)
    ramp = 2 * np.pi * (shift[0] * z / SHAPE[0] + shift[1] * y / SHAPE[1] + shift[2] * x / SHAPE[2])
    expected = intensity(torch.from_numpy((body * np.exp(1j * (phase + ramp))).astype(np.complex64))).numpy()
    return expected * photons / expected.sum()


def repeat(number, shift=(0.0, 0.0, 0.0), mask=None, **how):
    """A scan of that pattern; the number is its seed and part of its name."""
    counts = np.random.default_rng(number).poisson(pattern(shift, **how)).astype(np.int32)
    return Scan(counts if mask is None else counts * mask, f"repeat_{number}", valid=mask)


@pytest.mark.parametrize("shift", [(0.4, -1.3, 2.7), (-3.2, 0.25, -0.6)])
def test_a_shift_is_measured_with_its_sign(shift):
    one, two = repeat(1, shift), repeat(2)
    whole = np.ones(SHAPE, dtype=bool)
    found = measure_shift(one.frames, whole, two.frames, whole)
    assert np.abs(found - shift).max() < 0.05
    back, _ = move((one.frames, whole), np.rint(shift), fractions=False)
    assert np.abs(measure_shift(back, whole, two.frames, whole) - (np.array(shift) - np.rint(shift))).max() < 0.05


def test_a_mask_that_stays_on_the_detector_draws_no_shift():
    mask = np.ones(SHAPE, dtype=bool)
    mask[:, :, 24:27] = mask[:, 12:14] = False
    one, two = repeat(1, (0.3, 1.2, -1.6), mask), repeat(2, mask=mask)
    assert np.abs(measure_shift(one.frames, mask, two.frames, mask) - (0.3, 1.2, -1.6)).max() < 0.08


def test_photon_noise_alone_is_no_difference_and_another_strain_is_one():
    whole, shift = np.ones(SHAPE, dtype=bool), np.array([0.3, 0.4, -0.2])
    same = compare(repeat(1, shift).frames, whole, repeat(2, photons=6e6).frames, whole, shift)
    other = compare(repeat(3, shift, bend=1.4).frames, whole, repeat(2, photons=6e6).frames, whole, shift)
    assert same.scale == pytest.approx(1 / 3, rel=0.01)
    assert same.unlike < 0.03
    assert other.unlike > 0.1
    quiet = compare(repeat(1, photons=1e5).frames, whole, repeat(2, photons=1e5).frames, whole, np.zeros(3))
    assert quiet.chi2 == pytest.approx(1, abs=0.15)


def test_counts_are_added_where_the_patterns_lie():
    """Flipping the sign of the shift would double it: the sum would be smeared over two voxels."""
    scans = [repeat(1, (0, 0, 0)), repeat(2, (0, 2, -3)), repeat(3, (1, -1, 0))]
    total = sum_repeats(scans, PLAIN)
    inner = (slice(4, -4),) * 3
    expected = 3 * pattern()
    counts = np.asarray(total.frames)
    found = [np.roll(expected, (dz, dy, dx), (0, 1, 2)) for dz in (0, 1) for dy in (-1, 0, 2) for dx in (-3, 0)]
    assert min(float(((counts - part)[inner] ** 2).sum() / part[inner].sum()) for part in found) < 1.3
    assert np.array_equal(counts[inner], np.rint(counts[inner]))
    assert total.provenance["scans"] == ["repeat_1", "repeat_2", "repeat_3"]
    assert total.name.endswith("_sum3")


def test_a_voxel_masked_in_one_scan_gets_the_exposure_of_the_others():
    mask = np.ones(SHAPE, dtype=bool)
    mask[:, 18, 20] = False  # beside the peak
    alone, none = mask.copy(), mask.copy()
    alone[:, 16, 18], none[:, 18, 20] = True, False
    total = sum_repeats([repeat(1, mask=mask), repeat(2), repeat(3)], PLAIN)
    assert total.valid.all()
    line = (slice(None), 18, 20)
    assert float(total.frames[line].sum()) == pytest.approx(3 * float(pattern()[line].sum()), rel=0.02)
    hidden = sum_repeats([repeat(number, mask=mask) for number in (1, 2, 3)], PLAIN)
    assert not hidden.valid[line].any()
    assert hidden.valid.sum() == mask.sum()


@pytest.mark.parametrize("changed", [0, 2])
def test_a_changed_scan_is_left_out_and_the_others_are_not(changed):
    scans = [
        repeat(number, 0.3 * np.array([number % 2, number % 3, 0]), bend=1.4 if number == changed else 1.0) for number in range(5)
    ]
    total = sum_repeats(scans, PLAIN)
    assert f"left out repeat_{changed}: its magnitudes differ" in total.provenance["repeats"]
    assert total.provenance["repeats"].count("left out repeat") == 1
    assert any(f"left out repeat_{changed}" in words for words in total.provenance["noticed"])
    forced = sum_repeats(scans, PLAIN, RepeatsConfig(keep="all"))
    assert "sum of 5 of 5 scans" in forced.provenance["repeats"]


def test_a_scan_that_moved_too_far_is_left_out():
    total = sum_repeats([repeat(1), repeat(2), repeat(3, (0, 5, 0))], PLAIN, RepeatsConfig(moved=3.0))
    assert "left out repeat_3: it moved by 5.0 voxels" in total.provenance["repeats"]


def test_of_two_scans_that_differ_one_is_phased_as_it_was_measured():
    weak, strong = repeat(1, bend=1.5, photons=1e6), repeat(2)
    total = sum_repeats([weak, strong], PLAIN)
    assert total.frames is strong.frames
    assert "only repeat_2 is phased" in total.provenance["repeats"]


def test_the_offset_common_to_all_leaves_little():
    shifts = np.array([[0.0, 0.5, 0.0], [0.45, 1.5, 0.1], [0.4, -0.5, -0.1]])
    left = shifts - common_offset(shifts)
    assert np.abs(left - np.rint(left)).max() < 0.35


def test_a_scan_measured_backwards_is_turned():
    geometry = gold_at_34idc(SHAPE[0])
    forth = [replace(repeat(number), geometry=geometry, rocking_angle=geometry.sample[0].angle) for number in (1, 2)]
    circle = replace(geometry.sample[0], angle=geometry.sample[0].angle[::-1])
    turned = replace(geometry, sample=(circle, *geometry.sample[1:]))
    third = repeat(3)
    back = replace(third, frames=third.frames[::-1].copy(), geometry=turned, rocking_angle=circle.angle)
    for order in ([*forth, back], [back, *forth]):
        total = sum_repeats(order, PLAIN)
        assert "sum of 3 of 3" in total.provenance["repeats"]
        assert np.all(np.diff(total.geometry.sample[0].angle) > 0)
        volumes = [prepare(scan, PLAIN) for scan in (forth[0], total)]
        assert np.allclose(volumes[0].q_bragg, volumes[1].q_bragg, rtol=1e-3)


def test_a_sum_is_prepared_like_a_scan_and_not_called_changed():
    masks = [np.random.default_rng(number).random(SHAPE[1:]) > 0.02 for number in (1, 2, 3)]
    scans = [repeat(n, (0, 0.4 * n, 0), np.broadcast_to(mask, SHAPE).copy()) for n, mask in enumerate(masks)]
    volume = prepare(sum_repeats(scans, PLAIN), PLAIN)
    assert not any("no whole numbers" in words for words in volume.provenance["noticed"])
    assert any("sum of 3 of 3 scans" in words for words in volume.provenance["noticed"])


def wrong(scan, **how):
    return replace(scan, geometry=replace(scan.geometry, **how))


GOLD = replace(repeat(1), geometry=gold_at_34idc(SHAPE[0]))
SECOND = replace(repeat(2), geometry=gold_at_34idc(SHAPE[0]))


@pytest.mark.parametrize(
    ("scans", "words"),
    [
        ([repeat(1)], "needs two scans"),
        ([repeat(1), Scan(np.ones((8, 9, 10), np.int32), "small")], "has the shape"),
        ([repeat(1), replace(repeat(1), name="copy")], "holds the same counts"),
        ([replace(repeat(n), provenance={"path": "a.cxi"}) for n in (1, 2)], "given twice"),
        ([GOLD, wrong(SECOND, energy=1.01 * GOLD.geometry.energy)], "its photon energy is"),
        ([GOLD, wrong(SECOND, distance=0.6)], "its detector is 0.6 m away"),
        (
            [GOLD, wrong(SECOND, detector=tuple(replace(c, angle=c.angle + 0.1) for c in GOLD.geometry.detector))],
            "stands elsewhere",
        ),
        ([GOLD, repeat(2)], "geometry of only one"),
        ([repeat(1), replace(repeat(2), detector="maxipix")], "its detector is maxipix"),
    ],
)
def test_scans_that_cannot_be_added_are_refused_in_one_line(scans, words):
    with pytest.raises(DataError, match=words) as error:
        sum_repeats(scans, PLAIN)
    assert "\n" not in str(error.value)
