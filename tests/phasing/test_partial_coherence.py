"""A wide point spread: what sharpened counts are, and that searches on them find what coherent searches miss."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from braggshot.crystals.detector import DetectorSettings
from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.iterative.coherence import sharpened
from braggshot.iterative.iterate import Start
from braggshot.iterative.projections import measured
from braggshot.phasing import outcome, partial_coherence
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.pattern import Pattern, measure_oversampling
from braggshot.phasing.problem import PhasingContext, prepare_measured
from braggshot.phasing.rounds import Round, TournamentConfig
from braggshot.phasing.selection import score
from braggshot.phasing.strategies import phase
from braggshot.phasing.tournament import tournament
from braggshot.phasing.verdict import Limits
from braggshot.physics.forward import PointSpread
from braggshot.physics.fourier import to_centre
from braggshot.physics.metrics import align
from braggshot.volumes import DiffractionVolume, Quality, Reconstruction

SETTINGS = CrystalSettings(shape=(32, 36, 40), oversampling=(2.3, 3.0), phase_range=(3, 3), counts=(1e6, 1e6))
WIDE = PointSpread((1.0, 0.8, 0.9))
SHORT = Round("10*RAAR+5*ER", 2.0, 1.0)
QUICK = TournamentConfig(opening=SHORT, narrowing=SHORT, settling=SHORT, finish=SHORT, fitting=SHORT)


@pytest.fixture(scope="module")
def counts():
    """The same crystal without a point spread and with one."""
    low, high = min(WIDE.sigma), max(WIDE.sigma)
    blurred = DetectorSettings(point_spread=(low, high))
    return [
        prepare_measured(simulate_volume(5, replace(SETTINGS, detector=detector))[1], PhasingConfig(device="cpu"))
        for detector in (DetectorSettings(), blurred)
    ]


def finish(running):
    try:
        while True:
            next(running)
    except StopIteration as finished:
        return finished.value


def distance(one, other):
    seen = (one.target >= 0) & (other.target >= 0)
    return float((one.magnitude - other.magnitude)[seen].square().sum() / other.magnitude[seen].square().sum())


def test_sharpened_counts_are_nearer_to_coherent_ones(counts):
    sharp, blurred = counts
    found = sharpened(blurred, PointSpread((0.9,) * 3))
    assert distance(found, sharp) < 0.3 * distance(blurred, sharp)
    assert float(found.magnitude.square().sum()) == pytest.approx(float(blurred.magnitude.square().sum()), rel=0.01)


def test_no_point_spread_sharpens_nothing(counts):
    found = sharpened(counts[0], PointSpread((0.0,) * 3))
    assert distance(found, counts[0]) < 1e-6


def test_what_is_not_seen_teaches_sharpening_nothing(counts):
    """Neither held-out voxels nor masked ones, which stay as they are and go on floating."""
    data = counts[1]
    junk = replace(data, intensity=data.intensity.clone().view(-1).index_fill(0, data.floating, 1e7).view(data.shape))
    found, other = sharpened(data, WIDE), sharpened(junk, WIDE)
    assert torch.equal(found.magnitude, other.magnitude)
    assert torch.equal(found.floating, data.floating)
    assert torch.equal(found.intensity.view(-1)[data.free], data.intensity.view(-1)[data.free])
    assert not found.magnitude.view(-1)[data.floating].any()


def test_a_masked_block_does_not_grow(counts):
    """Voxels deep in it are told by nothing that is seen, and those at its rim by little; nor do dark voxels far from the peak."""
    valid = counts[1].valid.clone()
    valid[:9, 4:20, :17] = False
    held = torch.zeros_like(valid)
    data = measured(*(to_centre(part) for part in (counts[1].intensity, valid, held)))
    for width in (0.3, 0.5, 1.0):
        found = sharpened(data, PointSpread((width,) * 3))
        assert torch.isfinite(found.magnitude).all()
        assert float(found.magnitude.square().sum()) == pytest.approx(float(data.magnitude.square().sum()), rel=0.02)
        assert float(found.magnitude.max()) < 3 * float(data.magnitude.max())


def test_a_tournament_compares_with_the_point_spread(counts):
    """Its starts are ranked by the counts as they were measured, so they have to carry the spread that these have."""
    data = counts[1]
    left = finish(tournament(Pattern(sharpened(data, WIDE), data, measure_oversampling(data), 2.4, WIDE), QUICK, (4, 3, 3), 0))
    assert {(start.sigma, start.eta) for start in left} == {(WIDE.sigma, WIDE.eta)}
    free = [score(start, data).llk_free for start in left]
    assert free == sorted(free)
    assert free != [score(replace(start, sigma=(0.0,) * 3), data).llk_free for start in left]


def start_of(data, sigma):
    field = torch.polar(data.magnitude, torch.zeros(data.shape))
    return Start(torch.fft.ifftn(field, norm="ortho"), data.valid, 0, 0.0, sigma, 0.0, torch.zeros(0, 3))


@pytest.mark.parametrize("asked_for", [True, False])
def test_a_second_search_is_held_only_where_a_point_spread_is_asked_for(counts, monkeypatch, asked_for):
    """And on counts that it sharpens; the start that asked stays only if it predicts more of the held-out voxels."""
    data = counts[1]
    context = PhasingContext(
        SimpleNamespace(oversampling=None), data, data, PhasingConfig(device="cpu", coherence_recipe="PSF+2*ER")
    )
    seen = []

    def search(context):
        seen.append(context)
        return [start_of(context.search_data, (0.0,) * 3)] * 2, "search"
        yield

    def asked(start, context):
        return replace(start, sigma=WIDE.sigma) if asked_for else None
        yield

    monkeypatch.setattr(partial_coherence, "try_point_spread", asked)
    monkeypatch.setattr(partial_coherence, "SHARPER", 1)
    after, starts, how = finish(partial_coherence.search_with_coherence(context, search))
    if not asked_for:
        assert (after, len(starts), how, len(seen)) == (context, 2, "search", 1)
        return
    assert [p.point_spread for p in seen] == [None, PointSpread(WIDE.sigma, 0.0)]
    assert seen[0].search_data is data
    assert torch.equal(seen[1].search_data.magnitude, sharpened(data, WIDE).magnitude)
    assert how == "search on sharpened counts"
    assert len(starts) == 2
    assert all(any(start.sigma) for start in starts)


def test_a_narrow_point_spread_sharpens_nothing_and_takes_all_starts_on(counts, monkeypatch):
    """Coherent models have found the crystal then, as they always did."""
    data, held = counts[1], []
    context = PhasingContext(
        SimpleNamespace(oversampling=None), data, data, PhasingConfig(device="cpu", coherence_recipe="PSF+2*ER")
    )

    def search(context):
        held.append(context)
        return [start_of(context.search_data, (0.0,) * 3), replace(start_of(context.search_data, (0.0,) * 3), seed=1)], "search"
        yield

    def asked(start, context):
        return replace(start, sigma=(0.5, 0.4, 0.6))
        yield

    monkeypatch.setattr(partial_coherence, "try_point_spread", asked)
    after, starts, how = finish(partial_coherence.search_with_coherence(context, search))
    assert (len(held), how) == (1, "search")
    assert after.point_spread == PointSpread((0.5, 0.4, 0.6))
    assert after.search_data is data
    assert len(starts) == 2
    assert all(any(start.sigma) for start in starts)


@pytest.mark.parametrize("changes", [0.0, 0.06])
def test_a_search_that_changes_the_widths_is_held_again(counts, monkeypatch, changes):
    """A wrong object can tell wrong ones; but not for ever."""
    data = counts[1]
    context, held = PhasingContext(SimpleNamespace(oversampling=None), data, data, PhasingConfig(device="cpu")), []

    def search(context):
        held.append(context.point_spread)
        return [start_of(context.search_data, (0.0,) * 3)], "search"
        yield

    def wider(starts, context):
        return [replace(start, sigma=(context.point_spread.sigma[0] + changes, 0.8, 0.9)) for start in starts]
        yield

    def asked(start, context):
        return replace(start, rho=0 * start.rho + 1, sigma=(0.5, 0.8, 0.9))
        yield

    monkeypatch.setattr(partial_coherence, "try_point_spread", asked)
    monkeypatch.setattr(partial_coherence, "refit_with_psf", wider)
    finish(partial_coherence.search_with_coherence(context, search))
    widths = [None if known is None else known.sigma[0] for known in held]
    assert widths == [None, *(pytest.approx(0.5 + k * changes) for k in range(3 if changes else 1))]


@pytest.mark.long
def test_a_crystal_in_a_beam_of_little_coherence_is_found():
    """Of a point spread as wide as the speckles; no test set holds it. The search among coherent models alone comes to 0.673."""
    settings = replace(SETTINGS, shape=(40, 40, 40), phase_range=(4, 4), detector=DetectorSettings(point_spread=(1.0, 1.0)))
    truth, volume = simulate_volume(60_702, settings)
    found = finish(phase(volume, PhasingConfig(device="cpu", max_tournaments=1)))
    assert found.method == "refine and confirm on sharpened counts"
    assert np.allclose(found.psf["sigma"], 1.0, atol=0.1)
    assert align(torch.from_numpy(found.rho), torch.from_numpy(truth)).correlation > 0.97
    assert found.quality.unseen < PhasingConfig().limits.wide_psf_excess


@pytest.mark.parametrize(
    ("width", "unseen", "verdict"),
    [(0.5, 0.1, "good"), (0.7, 0.02, "good"), (0.7, 0.04, "doubtful"), (0.7, None, "doubtful")],
)
def test_a_wide_point_spread_is_called_good_only_where_held_out_voxels_are_predicted(width, unseen, verdict):
    rho = np.ones((4, 4, 4), np.complex64)
    volume = DiffractionVolume(np.ones((4, 4, 4), np.float32), np.ones((4, 4, 4), bool))
    known = {"sigma": (0.1, width, 0.2), "eta": 0.0}
    result = Reconstruction(rho, rho.real > 0, volume, Quality(0.0, 0.0, 0.0, 0.0, unseen=unseen), verdict="good", psf=known)
    judged = outcome.doubt_wide_psf(result, Limits(wide_psf_excess=0.03))
    assert judged.verdict == verdict
    assert ("0.7 voxels" in " ".join(judged.reasons)) == (verdict == "doubtful")
