"""The measured scans, end to end; skipped where they are not beside the checkout. Budgets are cut, so limits are looser."""

from __future__ import annotations

import numpy as np
import pytest
from measured_data import DATA

import braggshot

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not DATA.is_dir(), reason="measured data are not beside the checkout (../shared/data)"),
]


def test_gold_crystal_of_34idc_scan_54():
    """Raw SPEC, TIFF, dark and white field give a gold crystal whose 111 planes lie across q."""
    settings = {"input": {"scan": 54, "dark": "dark.tif", "flat": "whitefield.tif"}}
    result = braggshot.reconstruct(
        DATA / "aps-34idc-scan54" / "example.spec",
        settings,
        method="iterative",
        starts=1,
        recipe="2*(50*HIO+50*RAAR+10*ER)+30*ER",
        partial_coherence="off",
        device="cpu",
    )
    assert np.sqrt(result.quality.chi2) < 0.15
    assert result.quality.llk_free < 1.0
    assert 2 * np.pi / np.linalg.norm(result.volume.q_bragg) == pytest.approx(2.367e-10, abs=0.01e-10)
    corners = np.argwhere(result.support) @ result.basis.T
    assert 250e-9 < np.ptp(corners, axis=0).max() < 500e-9
    assert result.verdict == "doubtful"  # with one start nothing says that it is not a lucky one


@pytest.mark.long
def test_argonne_crystal():
    """A TIFF stack with a block edited out: the block is masked, the starts agree, the point spread is found."""
    result = braggshot.reconstruct(
        DATA / "argonne-crystal-64" / "ft_crop_64.tif", method="iterative", starts=3, seed=1, device="cpu"
    )
    block = result.volume.valid[0:9, 0:16, 27:44]
    assert (~block).sum() > 500
    assert np.sqrt(result.quality.chi2) < 0.045
    assert sum(value >= 0.95 for value in result.quality.agreement) >= 2
    assert result.reconstruction.psf is None or max(result.reconstruction.psf["sigma"]) < 1
