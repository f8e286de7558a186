"""Frames on a grid of finer steps than their own: which planes are empty, and what is left as it is."""

from __future__ import annotations

import numpy as np
import pytest

from braggshot.prepare.rocking import empty_share, is_coarser, rocking_grid
from braggshot.volumes import Scan

STEP = 1e-4  # [rad]


def scan_of(angle, **fields):
    return Scan(np.ones((len(angle), 8, 8)), "s", rocking_angle=np.asarray(angle), **fields)


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("every", [2, 4, 8])
def test_frames_are_put_on_the_steps_that_are_given(every, direction):
    n = 9
    angle = 0.3 + direction * every * STEP * np.arange(n)
    grid = rocking_grid(n, angle, step=STEP)
    assert [index for index, plane in enumerate(grid.frames) if plane] == list(range(0, every * n - every + 1, every))
    assert [plane[0] for plane in grid.frames if plane] == list(range(n))  # the direction of the scan stays
    assert not grid.regular
    assert grid.weight.sum() == n
    assert empty_share(scan_of(angle), STEP) == pytest.approx(1 - n / (every * (n - 1) + 1))
    assert is_coarser(scan_of(angle), STEP)


def test_frames_between_the_planes_are_left_as_they_are():
    angle = 2.5 * STEP * np.arange(12)
    grid = rocking_grid(12, angle, step=STEP)
    assert len(grid.frames) == 12
    assert any("follow no regular grid" in said for said in grid.steps)


def test_a_step_that_is_far_too_fine_is_not_taken():
    grid = rocking_grid(12, STEP * np.arange(12), step=STEP / 1000)
    assert len(grid.frames) == 12


def test_an_equal_or_finer_scan_is_not_coarser():
    assert not is_coarser(scan_of(STEP * np.arange(12)), STEP)
    assert not is_coarser(scan_of(0.5 * STEP * np.arange(12)), STEP)
    assert not is_coarser(scan_of(np.repeat(STEP * np.arange(6), 2)), STEP)  # every angle twice
    assert empty_share(scan_of(STEP * np.arange(12))) == 0


def test_frames_that_did_not_come_count_as_empty():
    arrived = np.arange(12) % 3 == 0
    assert empty_share(scan_of(STEP * np.arange(12), arrived=arrived)) == pytest.approx(1 - 4 / 10)
    valid = np.repeat(arrived, 64).reshape(12, 8, 8)
    assert empty_share(scan_of(STEP * np.arange(12), valid=valid, prepared=True)) == pytest.approx(1 - 4 / 10)
