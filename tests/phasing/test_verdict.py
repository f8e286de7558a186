"""Each check fires on what it is for, stays silent otherwise, and says what to do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from braggshot.phasing.verdict import Limits, judge, noise_floor
from braggshot.physics.unmeasured import unmeasured_share
from braggshot.volumes import Agreement, DiffractionVolume, Quality

SHAPE = (20, 22, 24)


def crystal():
    support = np.zeros(SHAPE, dtype=bool)
    support[7:13, 8:14, 9:15] = True
    return support.astype(np.complex64), support


def volume(**changes):
    rng = np.random.default_rng(0)
    counts = rng.poisson(30, SHAPE).astype(np.float32)
    counts[10, 11, 12] = 5000
    made = DiffractionVolume(counts, np.ones(SHAPE, dtype=bool), oversampling=(3.3, 3.6, 4.0))
    return replace(made, **changes)


QUALITY = Quality(chi2=0.01, r_factor=0.1, llk=0.6, llk_free=0.9, agreeing=Agreement(3, 4, 0, 0.95))


def test_a_good_one_is_good_and_says_why():
    verdict, reasons = judge(volume(), *crystal(), QUALITY)
    assert verdict == "good"
    assert "3 of 4 other starts" in reasons[0]


@pytest.mark.parametrize(
    ("same", "others", "llk_free", "expected"), [(1, 1, 0.9, "good"), (1, 1, 1.1, "doubtful"), (2, 2, 1.1, "good")]
)
def test_one_witness_is_enough_where_held_out_voxels_are_predicted_to_noise(same, others, llk_free, expected):
    quality = replace(QUALITY, llk_free=llk_free, agreeing=Agreement(same, others, 0, 0.95))
    verdict, reasons = judge(volume(), *crystal(), quality, Limits(one_witness=1.0))
    assert verdict == expected
    assert ("one other start gives the same crystal" in reasons[0]) == (expected == "doubtful")


def far_apart():
    rho, support = crystal()
    rho[2:5, 2:5, 2:6] = 0.9
    return rho, support | (rho != 0)


def at_the_edge():
    rho, support = crystal()
    rho[0:7, 8:14, 9:15] = 1
    return rho, support | (rho != 0)


def bent():
    """A crystal of two halves with different lattice spacings, so that half of its scattering lies seven columns off the peak."""
    support = np.zeros(SHAPE, dtype=bool)
    support[6:14, 6:16, 7:17] = True
    rho = support.astype(np.complex64)
    rho[6:10] *= np.exp(2j * np.pi * 7 * np.arange(SHAPE[2]) / SHAPE[2])
    return rho, support


SATURATED = volume()
SATURATED.intensity[10, 11, 12:17] = 5000
MASKED_PEAK = volume()
MASKED_PEAK.valid[11, 12, 13] = False
CUT = volume()
CUT.valid[:, :, 14:] = False


@pytest.mark.parametrize(
    ("changes", "expected", "message"),
    [
        ({"quality": replace(QUALITY, agreeing=Agreement(0, 0, 0, 0.95))}, "doubtful", r"only one start.*use 5 starts or more"),
        ({"quality": replace(QUALITY, agreeing=Agreement(1, 4, 0, 0.95))}, "doubtful", r"only 1 of 4.*more starts"),
        ({"quality": replace(QUALITY, agreeing=Agreement(0, 4, 0, 0.95))}, "failed", r"none of the 4.*mask aliens"),
        ({"quality": replace(QUALITY, chi2=0.09)}, "doubtful", r"beyond photon noise"),
        ({"quality": replace(QUALITY, chi2=0.5)}, "failed", r"beyond photon noise"),
        ({"quality": replace(QUALITY, llk_free=15.0)}, "doubtful", r"kept from the phasing.*25 times worse"),
        ({"quality": replace(QUALITY, llk=9.0, llk_free=30.0)}, "doubtful", r"kept from the phasing are missed.*llk_free 30"),
        ({"quality": replace(QUALITY, unseen=0.3)}, "doubtful", r"kept from the phasing are missed by 30 % beyond photon noise"),
        ({"quality": replace(QUALITY, agreeing=Agreement(1, 2, 0, 0.95))}, "doubtful", r"only 1 of 2"),
        ({"volume": volume(oversampling=(1.7, 3.0, 3.0))}, "doubtful", r"oversampling is 1.7 along rocking"),
        ({"volume": SATURATED}, "doubtful", r"saturated; attenuate"),
        ({"volume": MASKED_PEAK}, "doubtful", r"1 voxels next to the Bragg peak"),
        (
            {"volume": CUT, "crystal": bent()},
            "doubtful",
            r"\d+ % of the crystal's scattering falls where nothing was measured.*at least 31 % of.*whole peak",
        ),
        ({"crystal": far_apart()}, "doubtful", r"second crystal in the window holds \d+ %"),
        ({"crystal": at_the_edge()}, "failed", r"touches the edge"),
        ({"crystal": (np.zeros(SHAPE, np.complex64), np.zeros(SHAPE, bool))}, "failed", r"empty"),
    ],
)
def test_each_check(changes, expected, message):
    import re

    rho, support = changes.get("crystal", crystal())
    verdict, reasons = judge(changes.get("volume", volume()), rho, support, changes.get("quality", QUALITY))
    assert verdict == expected
    assert any(re.search(message, reason) for reason in reasons)
    assert len(reasons) == 1


def test_a_gap_that_its_surroundings_determine_is_no_fault():
    """As much scattering may hide in a narrow gap as behind a cut; only behind the cut it stays unknown."""
    gapped = volume()
    gapped.valid[:, :, 19] = False
    rho, support = bent()
    assert unmeasured_share(rho, support, gapped.valid) > 0.1
    assert judge(gapped, rho, support, QUALITY)[0] == "good"
    assert judge(gapped, rho, support, QUALITY, Limits(undetermined=0.0))[0] == "doubtful"


def test_held_out_voxels_that_are_not_predicted_at_all_fail():
    verdict, reasons = judge(volume(), *crystal(), replace(QUALITY, llk_free=500.0))
    assert verdict == "failed"
    assert len(reasons) == 2
    assert "worse" in reasons[0]


def test_starts_that_are_stuck_do_not_count():
    """What they do not find is no evidence against what predicts the held-out voxels, and none for it."""
    agreeing = replace(QUALITY, agreeing=Agreement(1, 1, 7, 0.95))
    verdict, reasons = judge(volume(), *crystal(), agreeing)
    assert verdict == "good"
    assert "1 of 1 other starts" in reasons[0]
    assert "7 more are stuck" in reasons[0]
    verdict, reasons = judge(volume(), *crystal(), replace(QUALITY, llk_free=1.1, agreeing=Agreement(0, 0, 7, 0.95)))
    assert verdict == "doubtful"
    assert "better than the 7 others" in reasons[0]


@pytest.mark.parametrize(
    ("stuck", "llk_free", "wanted"),
    [(2, 0.6, "good"), (2, 1.01, "doubtful"), (1, 0.6, "doubtful"), (0, 0.6, "doubtful"), (2, float("nan"), "doubtful")],
)
def test_a_start_at_photon_noise_needs_no_other_where_all_others_are_stuck(stuck, llk_free, wanted):
    quality = replace(QUALITY, llk_free=llk_free, agreeing=Agreement(0, 0, stuck, 0.95))
    verdict, reasons = judge(volume(), *crystal(), quality)
    assert verdict == wanted
    if wanted == "good":
        assert "llk_free 0.6" in reasons[0]
        assert "2 other starts, which are stuck" in reasons[0]


def test_the_worst_comes_first():
    bad = replace(QUALITY, chi2=0.09, agreeing=Agreement(0, 2, 0, 0.95))
    verdict, reasons = judge(volume(), *crystal(), bad)
    assert verdict == "failed"
    assert "none of the 2" in reasons[0]
    assert len(reasons) == 2


@pytest.mark.parametrize("brightest", [0.3, 3.0, 400.0])
def test_noise_floor_is_what_poisson_noise_leaves(brightest):
    """chi2 of noisy counts against their own true mean is the floor, from a third of a photon per voxel to hundreds."""
    rng = np.random.default_rng(1)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, 24),) * 3, indexing="ij")
    rate = brightest * np.exp(-(z**2 + 0.5 * y**2 + 2 * x**2))
    counts = rng.poisson(rate).astype(np.float32)
    valid = np.ones(rate.shape, dtype=bool)
    valid[3] = False
    chi2 = ((np.sqrt(counts) - np.sqrt(rate)) ** 2)[valid].sum() / counts[valid].sum()
    assert noise_floor(counts, valid) == pytest.approx(chi2, rel=0.12)
    assert noise_floor(np.zeros((2, 2, 2), np.float32), np.ones((2, 2, 2), bool)) == 0
