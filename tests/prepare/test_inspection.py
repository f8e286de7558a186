"""Faults that no file tells of: frames that are no measurement, values that are no counts, masks upside down."""

from __future__ import annotations

import numpy as np
import pytest

from braggshot.errors import DataError
from braggshot.io.frames import ArrayFrames
from braggshot.prepare import prepare
from braggshot.prepare.inspection import FrameCounts, find_lost_frames, may_have_wrapped
from braggshot.volumes import Scan

N = 32


def pattern(photons: float = 2e6, seed: int = 0):
    """Counts (32, 32, 32) of a box of 9 x 8 x 10 voxels with a corner cut off; the peak is in the middle."""
    z, y, x = np.meshgrid(*[np.arange(N) - N // 2] * 3, indexing="ij")
    body = (abs(z) <= 4) & (abs(y - 0.5) <= 4) & (abs(x) <= 5) & (x + y + z < 9)
    intensity = np.abs(np.fft.fftshift(np.fft.fftn(body * np.exp(0.08j * z * y)))) ** 2
    return np.random.default_rng(seed).poisson(intensity * photons / intensity.sum())


COUNTS = pattern()
CLEAN = prepare(Scan(ArrayFrames(COUNTS), "clean"))


def of(frames, **more):
    return prepare(Scan(ArrayFrames(np.asarray(frames)), "s", **more))


def noticed(volume):
    return " ".join(volume.provenance["noticed"])


def test_a_clean_scan_is_left_as_it_is():
    np.testing.assert_array_equal(CLEAN.intensity, COUNTS)
    assert CLEAN.valid.all()
    assert CLEAN.provenance["noticed"] == ()


@pytest.mark.parametrize(
    ("lost", "value", "dtype"),
    [
        (slice(12, 15), 0, np.int32),
        (slice(12, 15), 0, np.float32),
        (slice(17, 18), 0, np.uint8),
        (slice(19, 32), 0, np.uint16),
        (slice(0, 14), 0, np.int64),
        (slice(10, 12), 65535, np.uint16),
        (slice(20, 22), 65535, np.int32),
        (slice(5, 8), 2**32 - 1, np.uint32),
        (slice(5, 8), np.nan, np.float32),
        (slice(5, 8), -1, np.int32),
        (slice(5, 8), 1234, np.int32),
    ],
)
def test_frames_that_are_no_measurement_are_masked_and_named(lost, value, dtype):
    frames = np.minimum(COUNTS, 250 if dtype is np.uint8 else COUNTS.max()).astype(np.float64)
    frames[lost] = value
    volume = of(frames.astype(dtype))
    gone = np.zeros(N, dtype=bool)
    gone[lost] = True
    np.testing.assert_array_equal(~volume.valid.any((1, 2)), gone)
    assert volume.valid[~gone].all()
    numbers = np.flatnonzero(gone)
    assert (f"{numbers[0]}-{numbers[-1]}" if len(numbers) > 1 else f"({numbers[0]})") in noticed(volume)


@pytest.mark.parametrize(("value", "dtype"), [(65535, np.uint16), (65535, np.int32), (np.nan, np.float32), (2**32 - 1, np.uint32)])
def test_surplus_frames_are_left_out_with_what_belongs_to_them(value, dtype):
    angles = np.linspace(0, 0.01, N + 6)
    frames = np.concatenate([COUNTS, np.full((6, N, N), np.nan)])
    frames[N:] = value
    mask = np.ones((N + 6, N, N), dtype=bool)
    volume = of(frames.astype(dtype), rocking_angle=angles, monitor=np.ones(N + 6), valid=mask)
    np.testing.assert_array_equal(volume.intensity, CLEAN.intensity)
    assert volume.valid.all()
    assert "the last 6 of 38 frames hold no counts" in noticed(volume)


def test_a_lost_frame_keeps_its_angle_and_its_repeat_counts_once():
    """Two exposures at each angle, one of them without beam: the plane is the other one, not half as bright."""
    frames, angles = np.repeat(COUNTS, 2, axis=0), np.repeat(np.linspace(0, 0.01, N), 2)
    frames[30] = 0
    volume = of(frames, rocking_angle=angles)
    assert volume.valid.all()
    np.testing.assert_allclose(volume.intensity[15], COUNTS[15], rtol=1e-6)
    assert "(30)" in noticed(volume)


def test_of_a_scan_that_has_just_begun_a_region_without_frames_can_be_read():
    """While a scan is measured, a window that is known already reaches beyond the frames that have come."""
    from braggshot.prepare.counts import Corrections, correct_frames
    from braggshot.prepare.survey import survey

    angles = np.linspace(0, 0.01, N)
    arrived = np.arange(N) < 12
    source = correct_frames(Scan(ArrayFrames(COUNTS), "s", rocking_angle=angles, arrived=arrived), Corrections())
    block = source.read((20, 0, 0), (30, N, N))
    assert block.counts.shape == (10, N, N)
    assert not block.valid.any()
    assert len(block.frames.numbers) == 0
    assert survey(source).frames.totals.sum() == COUNTS[:12].sum()


def test_dark_tails_and_a_weak_scan_are_measured():
    weak = pattern(3000.0)
    assert (weak.sum((1, 2)) == 0).any()
    assert of(weak).valid.all()
    tails = COUNTS.copy()
    tails[:3] = tails[-3:] = 0
    tails[3] = tails[-4] = np.minimum(tails[3], 1) * (np.arange(N * N).reshape(N, N) < 100)
    assert of(tails).valid.all()


def test_fringes_that_vanish_exactly_are_measured():
    """Of a box that fills half of its array every second frame is empty: so many are not lost."""
    totals = np.where(np.arange(32) % 2, 1e4, 0.0)
    totals[16] = 1e6
    assert not find_lost_frames(FrameCounts(np.arange(32), totals, np.zeros(32, dtype=bool)), 32).any()


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (np.uint16, 65535),
        (np.uint32, 2**32 - 1),
        (np.uint32, 65535),
        (np.int64, 2**32 - 1),
        (np.float32, 2**32 - 1),
        (np.float32, 65535),
        (np.float32, np.nan),
        (np.float64, np.inf),
        (np.int32, 2**31 - 1),
        (np.int32, -1),
        (np.int16, -2),
    ],
)
def test_pixels_without_a_count_are_masked_whatever_the_type(dtype, value):
    frames = np.minimum(COUNTS, 30000).astype(np.float64)
    frames[:, 3:7, 20:30] = value
    volume = of(frames.astype(dtype))
    gone = np.zeros((N, N), dtype=bool)
    gone[3:7, 20:30] = True
    np.testing.assert_array_equal(volume.valid, np.broadcast_to(~gone, volume.valid.shape))
    assert "40 pixels hold no count" in noticed(volume)


@pytest.mark.parametrize("factor", [50, 3, 1e-3, 0.37, 1 / COUNTS.max(), 1 / COUNTS.sum()])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_multiples_of_a_unit_are_brought_back_to_photons(factor, dtype):
    volume = of((COUNTS * factor).astype(dtype))
    np.testing.assert_array_equal(volume.intensity, CLEAN.intensity)
    assert "each" in noticed(volume)
    assert "one photon" in noticed(volume)


def test_square_roots_are_brought_back():
    volume = of(np.sqrt(COUNTS).astype(np.float32))
    np.testing.assert_array_equal(volume.intensity, CLEAN.intensity)
    assert "square roots" in noticed(volume)


def test_values_without_a_unit_are_named_and_kept():
    values = COUNTS * np.random.default_rng(1).uniform(0.9, 1.1, (N, 1, 1)) / COUNTS.max()
    volume = of(values)
    np.testing.assert_allclose(volume.intensity, values, rtol=1e-6)
    assert "no whole numbers" in noticed(volume)
    assert "the highest is 0.8" in noticed(volume)


def test_a_dark_field_is_subtracted_before_the_unit_is_applied():
    volume = of(COUNTS * 50 + 100, dark=np.full((N, N), 100.0))
    np.testing.assert_allclose(volume.intensity, COUNTS, atol=1e-3)


def test_counts_stored_as_negative_numbers_come_back():
    counts = np.minimum(pattern(1e7), 60000)
    volume = of(counts.astype(np.uint16).view(np.int16))
    np.testing.assert_array_equal(volume.intensity, counts)
    assert "negative numbers" in noticed(volume)


def test_wrapped_counts_are_said_and_high_ones_are_not():
    counts = pattern(4e7)
    assert counts.max() > 2 * 65536
    assert "begun again at 0" in noticed(of((counts % 65536).astype(np.uint16)))
    high = (COUNTS * (60000 / COUNTS.max())).astype(np.uint16)
    assert not may_have_wrapped(high.astype(np.float32), np.ones(high.shape, dtype=bool))


@pytest.mark.parametrize("kind", ["gaps", "hot pixels", "peak", "whole scan"])
def test_a_mask_the_other_way_round_is_refused_with_the_question(kind):
    good = np.ones((N, N), dtype=bool)
    if kind == "hot pixels":
        good = np.random.default_rng(0).random((N, N)) > 0.02
    elif kind == "peak":
        good[10:22, 10:22] = False
    else:
        good[4:7] = False
    if kind == "whole scan":
        good = np.repeat(good[None], N, axis=0)
    with pytest.raises(DataError, match="other way round"):
        of(COUNTS, valid=good if kind == "peak" else ~good)
    if kind != "peak":
        np.testing.assert_array_equal(of(COUNTS, valid=good).valid, np.broadcast_to(good, COUNTS.shape))


def test_frames_that_a_mask_leaves_out_are_not_called_lost():
    good = np.ones(COUNTS.shape, dtype=bool)
    good[3:6] = False
    assert noticed(of(COUNTS, valid=good)) == ""


def test_a_region_and_a_saturated_core_may_be_masked():
    region = np.zeros((N, N), dtype=bool)
    region[8:24, 8:24] = True
    assert of(COUNTS, valid=region).valid.sum() == N * 256
    core = np.ones((N, N), dtype=bool)
    core[15:18, 15:18] = False
    assert not of(COUNTS, valid=core).valid.all()
