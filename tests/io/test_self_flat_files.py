"""The gains that a scan told travel with its result, and serve another scan as its flat field."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sample_reconstruction import sample_reconstruction

from braggshot.errors import FormatError
from braggshot.io import registry
from braggshot.io.results import cxi
from braggshot.prepare import prepare
from braggshot.prepare.clean import flat_response

GAIN = np.ones((24, 26))
GAIN[8:16, 8:16] = 1 + 0.2 * np.random.default_rng(0).normal(size=(8, 8))


def test_gains_come_back_from_a_result(tmp_path):
    found = sample_reconstruction()
    cxi.write(tmp_path / "r.cxi", replace(found, volume=replace(found.volume, gain=GAIN)))
    assert cxi.read(tmp_path / "r.cxi").volume.gain == pytest.approx(GAIN)
    cxi.write(tmp_path / "none.cxi", found)
    assert cxi.read(tmp_path / "none.cxi").volume.gain is None


def test_a_result_serves_another_scan_as_flat_field(tmp_path):
    """Its pixels of low gain are not dark: outside the window all are 1, so the standard deviation says nothing."""
    found = sample_reconstruction()
    cxi.write(tmp_path / "r.cxi", replace(found, volume=replace(found.volume, gain=GAIN)))
    peak = np.exp(-sum((np.indices((20, 24, 26)) - np.array([10, 12, 13])[:, None, None, None]) ** 2) / 8)
    np.save(tmp_path / "s.npy", np.random.default_rng(1).poisson(1000 * peak * GAIN))
    scan = registry.read(tmp_path / "s.npy", flat=str(tmp_path / "r.cxi"))
    assert scan.flat == pytest.approx(GAIN)
    response, dark = flat_response(scan.flat, np.ones(GAIN.shape, bool))
    assert not dark.any()
    assert response / response.mean() == pytest.approx(GAIN / GAIN.mean(), rel=1e-5)
    cxi.write(tmp_path / "none.cxi", found)
    with pytest.raises(FormatError, match="gain"):
        registry.read(tmp_path / "s.npy", flat=str(tmp_path / "none.cxi"))


def test_counts_are_divided_by_gains_and_no_pixel_is_masked(tmp_path):
    peak = np.exp(-sum((np.indices((20, 24, 26)) - np.array([10, 12, 13])[:, None, None, None]) ** 2) / 8)
    np.save(tmp_path / "s.npy", np.random.default_rng(1).poisson(1000 * peak))
    scan = registry.read(tmp_path / "s.npy")
    plain, divided = prepare(scan), prepare(scan, gain=GAIN)
    assert plain.gain is None
    assert (divided.gain == GAIN).all()
    (_, row, column), (_, rows, columns) = divided.window.start, divided.shape
    assert divided.window == plain.window
    part = GAIN[row : row + rows, column : column + columns]
    assert divided.intensity * part == pytest.approx(plain.intensity, rel=1e-5)
    assert any("estimated from the scan itself" in step for step in divided.steps)
