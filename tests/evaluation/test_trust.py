"""The suite that tests the trust: seeds of its own, faults that do what they say, a coverage and bounds that are right."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.errors import FormatError
from braggshot.evaluation import coverage, reliability, rows, suites, trust
from braggshot.evaluation.suites import FIRST_SEED, SUITES
from braggshot.iterative.iterate import IterativeConfig
from braggshot.phasing.config import PhasingConfig
from braggshot.physics.fourier import fourier
from braggshot.volumes import DiffractionVolume, Quality, Reconstruction, Uncertainty

SMALL = CrystalSettings(shape=(32, 32, 32), oversampling=(2.5, 3.5), phase_range=(2.0, 2.0), counts=(1e5, 1e5))


def test_every_crystal_has_a_seed_of_its_own():
    seeds = [trust.seed_of(group, k) for group in trust.KINDS for k in range(200)]
    neighbours = [seed + trust.NEIGHBOUR_SEED for seed in seeds]
    assert len({*seeds, *neighbours}) == 2 * len(seeds)
    assert min(seeds) > max(FIRST_SEED + 131 * 100_000, 100_000_000)  # beyond the other suites and the benchmarks
    assert all(seed % 131 for seed in (*seeds, *neighbours))  # training takes the multiples


@pytest.mark.parametrize("group", trust.KINDS)
def test_every_class_draws_and_comes_back_the_same(group):
    (crystal,) = [crystal for crystal in SUITES["trust"].crystals(1, first=3) if crystal.group == group]
    truth, volume = crystal.draw()
    assert crystal.name == f"{group} #3"
    assert np.array_equal(crystal.draw()[1].intensity, volume.intensity)
    drawn = volume.provenance["drawn"]
    assert set(drawn) - {"peak"} <= set(trust.FAULTS)
    if group != "as measured":
        assert tuple(name for name in drawn if name != "peak") == trust.KINDS[group].faults
    assert volume.valid.all() == ("gap" not in drawn)
    peak = np.abs(fourier(torch.from_numpy(truth)).numpy()).max() ** 2
    assert peak == pytest.approx(drawn["peak"], rel=1e-3)
    assert 0 <= volume.provenance["phase_range"] < 12 * math.pi
    assert volume.geometry is not None


def test_real_scans_have_several_faults_or_none():
    numbers = [
        len(crystal.draw()[1].provenance["drawn"]) - 1 for crystal in suites.crystals("trust", 8) if crystal.group == "as measured"
    ]
    assert min(numbers) <= 1
    assert max(numbers) >= 2


@pytest.mark.parametrize("moved", [1.0, -2.0, 0.37])
def test_a_drift_moves_the_frames_as_it_says(moved):
    """Frame k holds the intensity at k + moved: that of the crystal whose phase has the ramp exp(-2 pi i moved z / N)."""
    rho = torch.from_numpy(simulate_volume(5, SMALL)[0])
    frames = len(rho)
    z = torch.arange(frames) - frames // 2
    ramp = torch.exp(-2j * math.pi * moved * z / frames)[:, None, None]
    wanted, opposite = (fourier(rho * way).abs().square() for way in (ramp, ramp.conj()))
    found = trust.resample_frames(fourier(rho).abs().square(), torch.full((frames,), moved, dtype=torch.float64))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=0.5)
    assert not torch.allclose(found, opposite, rtol=1e-1, atol=100)


def test_a_drift_is_smooth_without_mean_and_slope():
    curve = trust.drift_curve(torch.Generator().manual_seed(3), 64, 2.5).numpy()
    assert np.abs(curve).max() == pytest.approx(2.5)
    np.testing.assert_allclose(np.polyfit(np.arange(64), curve, 1), 0, atol=1e-6)
    assert np.abs(np.diff(curve)).max() < 1


def test_faults_change_the_counts_as_they_say():
    rho = torch.from_numpy(simulate_volume(5, SMALL)[0])

    def counts(**faults):
        return trust.measure_scan(torch.Generator().manual_seed(1), rho, {n.replace("_", " "): v for n, v in faults.items()}, 5)

    clean, valid = counts()
    assert valid.all()
    assert counts(point_spread=0.9)[0].max() < 0.8 * clean.max()
    assert counts(aliens=3.0)[0].sum() > clean.sum()
    assert float(counts(neighbour=0.5)[0].sum() / clean.sum()) == pytest.approx(1.25, abs=0.05)
    assert (~counts(gap=4.0)[1]).any(0).sum() >= 4 * 32


def test_one_sigma_covers_68_percent_of_gaussian_errors_of_that_sigma():
    """Phase errors of a stated sigma: 0.683 within it, 0.383 within a half; the surface does not count."""
    rng = np.random.default_rng(0)
    inside = np.zeros((32, 32, 32), bool)
    inside[6:26, 6:26, 6:26] = True
    spread = 0.05 * (1 + rng.random(inside.shape))
    truth = inside.astype(np.complex64)
    edge = inside & ~coverage.bulk_of(_found(truth, inside, spread))
    rho = (truth * np.exp(1j * (spread * rng.normal(size=inside.shape) + edge))).astype(np.complex64)
    for factor, share in ((1.0, 0.683), (0.5, 0.383), (2.0, 0.954)):
        covered = coverage.coverage(_found(rho, inside, factor * spread), truth)
        assert covered is not None
        assert covered["phase"] == pytest.approx(share, abs=0.02)
        assert "strain" not in covered
    assert coverage.coverage(replace(_found(rho, inside, spread), uncertainty=None), truth) is None


def _found(rho, support, sigma):
    volume = DiffractionVolume(np.ones(rho.shape, np.float32), np.ones(rho.shape, bool))
    return Reconstruction(rho, support, volume, Quality(0, 0, 0, 0), uncertainty=Uncertainty(sigma * support, None, 5, "known"))


def test_the_strain_is_counted_where_there_is_a_geometry():
    """A strain that is wrong by a known amount everywhere is covered by a sigma above it, and by none below."""
    support = np.zeros((24, 24, 24), bool)
    support[6:18, 6:18, 6:18] = True
    q = np.array([1e10, 0.0, 0.0])
    bent = np.exp(0.02j * (np.arange(24.0) - 12) ** 2)[:, None, None]
    truth, rho = support.astype(np.complex64), (support * bent).astype(np.complex64)
    error = 0.04 * 6 / 1e-8 / 1e10  # steepest slope of the bend over |q|
    for factor, most in ((1.2, True), (1e-3, False)):
        spread = Uncertainty(np.zeros(support.shape), support * factor * error, 5, "known")
        found = replace(_found(rho, support, 0.1), basis=1e-8 * np.eye(3), uncertainty=spread)
        found = replace(found, volume=replace(found.volume, q_bragg=q))
        covered = coverage.coverage(found, truth)
        assert covered is not None
        assert (covered["strain"] > 0.9) == most


def test_the_lower_bound_of_all_is_exact():
    assert reliability.lower_bound(51, 51) == pytest.approx(0.05 ** (1 / 51))
    assert reliability.lower_bound(149, 149) > 0.98 > reliability.lower_bound(148, 148)
    assert reliability.lower_bound(50, 51) < 0.92
    assert math.isnan(reliability.lower_bound(0, 0))


def _row(k, verdict, is_right, covered=None, group="gaps"):
    facts = {"suite": "trust", "group": group, "crystal": f"{group} #{k}", "method": "auto", "network": ""}
    return facts | {"success": is_right, "verdict": verdict, "coverage": covered, "correlation": 1.0}


def test_the_table_counts_right_and_wrong_of_each_verdict():
    made = [_row(k, "good", True, {"phase": 0.6 + k / 10, "strain": 0.7}) for k in range(3)]
    made += [_row(3, "good", False, {"phase": 0.1}), _row(4, "doubtful", True), _row(5, "failed", False)]
    made += [_row(0, None, False, group="blur")]
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in reliability.markdown(made).splitlines() if "|" in line
    ]
    gaps, blur, every = lines[2:]
    bound = f"{100 * reliability.lower_bound(3, 4):.1f}"
    assert gaps == ["gaps", "6", "4", "3", bound, "1 / 0", "0 / 1", "0", "75.0", "0.70 (3)", "0.70 (3)"]
    assert blur == ["blur", "1", "0", "0", "-", "0 / 0", "0 / 0", "1", "-", "-", "-"]
    assert every[:4] == ["all", "7", "4", "3"]
    assert reliability.markdown([_row(0, "good", True) | {"suite": "gaps"}]) == ""


def test_parts_are_merged_once(tmp_path):
    for name, ks in (("one", (0, 1)), ("two", (1, 2))):
        (tmp_path / name).mkdir()
        rows.write(tmp_path / name / "results.json", [_row(k, name, True) for k in ks])
    (tmp_path / "all").mkdir()
    for _ in range(2):
        rows.merge(tmp_path / "all", [tmp_path / "one", tmp_path / "two"])
        found = [(row["crystal"], row["verdict"]) for row in rows.read(tmp_path / "all" / "results.json")]
        assert found == [("gaps #0", "one"), ("gaps #1", "one"), ("gaps #2", "two")]
    with pytest.raises(FormatError, match=r"no results\.json"):
        rows.merge(tmp_path / "all", [tmp_path / "three"])


def test_a_row_says_what_was_drawn_and_what_sigma_covers(monkeypatch):
    """Short phasing from random starts on a small crystal with the suite's geometry."""
    easy = replace(trust.KINDS["mild, to 2 pi"], settings=replace(SMALL, phase_range=(0.5, 0.5)), sizes=(32,))
    monkeypatch.setitem(trust.KINDS, "mild, to 2 pi", easy)
    truth, volume = trust.draw("mild, to 2 pi", 8, SMALL)()
    short = IterativeConfig(recipe="2*(50*HIO+60*RAAR)+60*ER")
    config = PhasingConfig(method="iterative", starts=4, device="cpu", partial_coherence="off", iterative=short)
    row = rows.judge_crystal(truth, volume, config)
    assert row["drawn"].keys() == {"peak"}
    assert row["verdict"] in ("good", "doubtful", "failed")
    assert row["success"]
    assert set(row["coverage"]) == {"phase", "strain", "amplitude"}
    assert all(0.1 < share <= 1 for share in row["coverage"].values())
