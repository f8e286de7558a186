"""Who goes on, on which grid, and under which seed."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.errors import ConfigError
from braggshot.evaluation.suites import SUITES
from braggshot.iterative import iterate, spacing
from braggshot.iterative.iterate import Guess, IterativeConfig, Start, run_starts
from braggshot.iterative.projections import ShrinkWrap, blur
from braggshot.iterative.spacing import refine_wide
from braggshot.phasing import surface
from braggshot.phasing import tournament as module
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.pattern import Pattern, finest_frequency, measure_oversampling
from braggshot.phasing.problem import prepare_measured
from braggshot.phasing.rounds import Round, TournamentConfig
from braggshot.phasing.selection import score
from braggshot.phasing.strategies import phase
from braggshot.phasing.tournament import coarse_voxels, confirm, tournament
from braggshot.physics.fourier import crop, to_centre, to_corner
from braggshot.physics.metrics import align

SHORT = Round("10*RAAR+5*ER", 2.0, 1.0)
QUICK = TournamentConfig(opening=SHORT, narrowing=SHORT, settling=SHORT, finish=SHORT, fitting=SHORT)
STARTS = (4, 2, 1)


@pytest.fixture(scope="module")
def sample():
    settings = CrystalSettings(shape=(40, 36, 48), oversampling=(2.2, 3.0), phase_range=(5, 5), counts=(1e6, 1e6))
    truth, volume = simulate_volume(1, settings)
    return torch.from_numpy(truth), prepare_measured(volume, PhasingConfig(device="cpu"))


def pattern_of(data, wanted=99.0):
    """What a tournament needs of a measurement; by default nothing is resampled at wider spacings."""
    return Pattern(data, data, measure_oversampling(data), wanted)


def finish(running):
    steps = []
    try:
        while True:
            steps.append(next(running))
    except StopIteration as finished:
        return finished.value, steps


def test_the_coarse_grid_holds_the_counts_that_are_asked_for(sample):
    data = sample[1]
    intensity, total = to_centre(data.intensity), float(data.intensity.sum())
    for share in (0.5, 0.9, 0.99, 0.999):
        voxels = coarse_voxels(data, share, 16)
        shape = [min(n, voxels) for n in data.shape]
        held = float(crop(intensity, shape).sum())
        assert held >= share * total
        assert voxels % 8 == 0 or voxels == max(data.shape)
        if voxels > 16:
            smaller = coarse_voxels(data, held / total - 1e-6, 16)
            assert smaller <= voxels
    assert coarse_voxels(data, 1.1, 16) == 48


def test_the_best_by_held_out_voxels_go_on_under_their_seeds(sample, monkeypatch):
    """Each round begins with the best of the one before, and what comes out is ordered."""
    rounds = []

    def spy(starts, data, config):
        rounds.append(([start.seed for start in starts], data.shape))
        return (yield from continue_starts(starts, data, config))

    def spy_wide(guesses, data, wide, stages, polish, seed):
        rounds.append((list(rounds[-1][0]), wide.shape))
        return (yield from refine_wide(guesses, data, wide, stages, polish, seed))

    seen = []

    def ranking(scores):
        order = ranked(scores)
        seen.append([scores[k].llk_free for k in order])
        return order

    continue_starts, refine_wide, ranked = module.continue_starts, module.refine_wide, module.ranked
    monkeypatch.setattr(module, "continue_starts", spy)
    monkeypatch.setattr(module, "refine_wide", spy_wide)
    monkeypatch.setattr(module, "ranked", ranking)
    left, steps = finish(tournament(pattern_of(sample[1]), QUICK, (5, 3, 2), seed=70))
    assert all(values == sorted(values) for values in seen)
    assert [len(seeds) for seeds, _ in rounds[:3]] == [3, 2, 2]
    assert set(rounds[1][0]) <= set(rounds[0][0]) <= set(range(70, 75))
    assert [shape for _, shape in rounds][-1] == sample[1].shape
    assert rounds[0][1] != sample[1].shape, "a coarse grid would have shown nothing"
    assert {start.seed for start in left} == set(rounds[2][0])
    free = [score(start, sample[1]).llk_free for start in left]
    assert free == sorted(free)
    # The two that are left are fitted to the surface at least once.
    assert len(steps) >= 15 * (5 + 3 + 2 + 2 + 2)


def test_supports_keep_the_measured_volume_on_the_coarse_grid(sample, monkeypatch):
    """A threshold on the amplitude would make them too large or too small while the phases are wrong."""
    truth, data = sample
    shares = []

    def spy(starts, wide, config):
        found = yield from continue_starts(starts, wide, config)
        shares.extend(float(start.support.float().mean()) * wide.intensity.numel() / field for start in found)
        return found

    continue_starts = module.continue_starts
    monkeypatch.setattr(module, "continue_starts", spy)
    long = Round("40*RAAR", 2.0, 1.0)
    config = replace(QUICK, narrowing=long, settling=long, volume=(1.2, 1.2))
    for wanted in (99.0, 2.0):  # at wider spacings the same volume is a larger share of the array
        shares.clear()
        pattern = pattern_of(data, wanted)
        field = pattern.filled * module._coarse_rounds(pattern, config)[0].data.intensity.numel()
        finish(tournament(pattern, config, STARTS, 0))
        assert shares == pytest.approx([1.2] * len(shares), rel=0.02)
    body = float((truth.abs() > 0.3 * truth.abs().max()).float().mean())
    assert pattern.filled == pytest.approx(body, rel=0.35)


def test_the_best_guess_comes_first_and_takes_no_place(sample):
    truth, data = sample
    rho = to_corner(truth)
    right = Guess(rho, rho.abs() > 0.3 * rho.abs().max())
    speckle = torch.polar(torch.ones(data.shape), 6 * torch.rand(data.shape, generator=torch.Generator().manual_seed(0)))
    wrong = Guess(speckle.to(rho.dtype) * right.support, right.support)
    left, _ = finish(tournament(pattern_of(data), QUICK, (3, 2, 2), 0, [wrong, right]))
    assert len(left) == 1 + 2
    assert align(to_centre(left[0].rho), truth).correlation > 0.95
    alone, _ = finish(tournament(pattern_of(data), QUICK, (3, 2, 2), 0))
    assert all(torch.equal(one.rho, other.rho) for one, other in zip(left[1:], alone, strict=True)), "random starts know no guess"


def test_starts_unlike_the_known_crystal_are_phased_again_on_a_larger_grid(sample):
    """None of the short random starts is the crystal; any start is like it where no agreement is asked for."""
    truth, data = sample
    pattern, narrow, wide = pattern_of(data), replace(QUICK, counts_share=0.5, smallest_grid=24), replace(QUICK, counts_share=1.0)
    [*_, best], _ = finish(run_starts(data, IterativeConfig(recipe="5*ER"), 1, 0))
    known = replace(best, rho=to_corner(truth).to(torch.complex64), support=to_corner(truth.abs() > 0.5))
    coarse = tuple(min(n, coarse_voxels(data, 0.5, 24)) for n in data.shape)
    grids = {}
    for agreement in (0.0, 0.999):
        left, steps = finish(confirm(pattern, narrow, wide, (4, 3, 2), 0, known, agreement))
        assert len(left) == 2
        grids[agreement] = [tuple(step.state.rho.shape[1:]) for step in steps]
    assert coarse in grids[0.0]
    assert grids[0.999][: grids[0.0].index(data.shape)] == grids[0.0][: grids[0.0].index(data.shape)], (
        "the smaller grid comes first"
    )
    again = len(grids[0.999]) - len(grids[0.0])
    assert again == grids[0.0].count(coarse), "all rounds are held again, on the larger grid"
    found, _ = finish(confirm(pattern, narrow, wide, (4, 3, 2), 0, known, 0.999))
    random, _ = finish(tournament(pattern, wide, (4, 3, 2), 0))
    assert all(torch.equal(a.rho, b.rho) for a, b in zip(found, random, strict=True)), "nothing of the known crystal enters"


def test_a_tournament_needs_fewer_from_round_to_round():
    with pytest.raises(ConfigError, match="must fall from round to round"):
        PhasingConfig(search_starts=(4, 6, 1))
    with pytest.raises(ConfigError, match="must fall from round to round"):
        PhasingConfig(further_starts=(4, 2, 0))


def test_few_photons_widen_the_blur(sample, monkeypatch):
    """Where fringes drown in noise the support must not follow it; bright patterns are not touched."""
    widths = []

    def spy(data, config, *rest, **named):
        widths.append((config.shrink_wrap.sigma_start, config.shrink_wrap.sigma_end))
        return (yield from run_starts(data, config, *rest, **named))

    run_starts, data = module.run_starts, sample[1]
    for place in (module, iterate, spacing):
        monkeypatch.setattr(place, "run_starts", spy)
    finish(tournament(pattern_of(data), QUICK, STARTS, 0))
    bright = list(widths)
    widths.clear()
    faint = replace(data, intensity=data.intensity * 1e-4, magnitude=data.magnitude * 1e-2)
    finish(tournament(pattern_of(faint), QUICK, STARTS, 0))
    frequency = finest_frequency(faint)
    assert frequency < 0.5 * finest_frequency(data)
    *searched, fitted = bright
    assert widths[-1] == tuple(max(width, QUICK.min_blur / frequency) for width in searched[-1])
    assert all(new[1] > 1.5 * old[1] for new, old in zip(widths, searched, strict=True)), "a surface in noise is not fitted"
    assert fitted[1] < 1.5


def test_a_loose_support_is_fitted_to_the_surface(sample):
    """In a loose support the crystal gets a bright rim; fitted, it comes near the truth, and a right support loses nothing."""
    truth, data = sample
    body = to_corner(truth.abs() > 0.3 * truth.abs().max())
    loose = blur(body.float(), 2.0) > 0.15
    assert loose.sum() > 1.7 * body.sum()
    free = IterativeConfig(recipe="60*RAAR+60*ER", shrink_wrap=ShrinkWrap(period=0))
    (rimmed,), _ = finish(run_starts(data, free, 1, 0, [Guess(to_corner(truth) * loose + 1e-3 * loose, loose)]))
    pattern = pattern_of(data)
    (fitting,) = surface.fitting_rounds(pattern, TournamentConfig())
    for start in (Guess(rimmed.rho, rimmed.support), Guess(to_corner(truth), body)):
        (fitted,), _ = finish(refine_wide([start], data, pattern.wide, [fitting], "20*ER", 0))
        assert align(to_centre(fitted.rho), truth).correlation > 0.995
        assert int(fitted.support.sum()) < 1.5 * int(body.sum())
        assert score(fitted, data).llk_free < 0.8


def test_a_fit_is_kept_where_it_predicts_better_and_goes_on_while_it_gains(sample, monkeypatch):
    """Of two starts, one is right and stays as it is; the other comes nearer with each fit, until nothing more is gained."""
    truth, data = sample
    body = to_corner(truth.abs() > 0.3 * truth.abs().max())
    noise = torch.randn(data.shape, generator=torch.Generator().manual_seed(0)) * body * truth.abs().max()

    def start(error, seed):
        return Start(to_corner(truth) + error * noise, body, seed, 0.2, (0.0,) * 3, 0.0, torch.zeros(0, 3))

    errors, asked = iter([0.4, 0.2, 0.2]), []

    def fits(guesses, data, wide, rounds, polish, seed):
        asked.append(len(guesses))
        return [start(next(errors) if k == len(guesses) - 1 else 0.9, -1) for k in range(len(guesses))]
        yield

    monkeypatch.setattr(surface, "refine_wide", fits)
    first = [start(0.0, 7), start(0.8, 8)]
    (right, bettered), _ = finish(surface.fit_surface(first, pattern_of(data), TournamentConfig(), "20*ER", 0, (2, 2)))
    assert right is first[0]
    assert asked == [2, 1, 1]
    assert torch.equal(bettered.rho, start(0.2, 8).rho)
    assert (bettered.seed, bettered.threshold) == (8, surface.USUAL)


@pytest.mark.parametrize(
    ("is_smaller", "error", "grown", "wanted"),
    [
        (True, 0.4, 0.1, 0.1),
        (True, 0.4, 0.5, 0.2),
        (False, 0.4, 0.1, 0.2),
        (True, 0.202, 0.2, 0.202),  # a tie goes to the tighter support
        (False, 0.202, 0.1, 0.2),
    ],
)
def test_a_tighter_fit_is_compared_at_like_size(sample, monkeypatch, is_smaller, error, grown, wanted):
    """Any crystal predicts better in a looser support; what is fitted, and no smaller than before, is not grown."""
    truth, data = sample
    body = to_corner(truth.abs() > 0.3 * truth.abs().max())
    noise = torch.randn(data.shape, generator=torch.Generator().manual_seed(0)) * body * truth.abs().max()
    fitted = body & (torch.rand(data.shape, generator=torch.Generator().manual_seed(1)) < 0.9) if is_smaller else body
    layer = torch.ones_like(body) if wanted == error else body
    asked = []

    def start(share, support):
        return Start(to_corner(truth) + share * noise, support, 8, 0.2, (0.0,) * 3, 0.0, torch.zeros(0, 3))

    def fits(guesses, data, wide, rounds, polish, seed):
        asked.append(rounds[0].recipe)
        return [start(grown, layer) if asked[-1] == surface.GROWING else start(error, fitted) for _ in guesses]
        yield

    monkeypatch.setattr(surface, "refine_wide", fits)
    (kept,), _ = finish(surface.fit_surface([start(0.2, body)], pattern_of(data), TournamentConfig(), "20*ER", 0, (1, 1)))
    assert torch.equal(kept.rho, start(wanted, body).rho)
    assert (surface.GROWING in asked) == is_smaller


@pytest.mark.slow
def test_a_crystal_of_four_pi_is_found_and_known_to_be():
    """A crystal that no test set holds; single starts mostly fail on such."""
    truth, volume = simulate_volume(50_034, SUITES["strain"].groups["4 pi"])
    found, _ = finish(phase(volume, PhasingConfig(device="cpu", partial_coherence="off")))
    assert found.verdict == "good"
    assert align(torch.from_numpy(found.rho), torch.from_numpy(truth)).correlation > 0.97


def test_small_crystals_in_large_arrays_narrow_the_blur_of_the_rounds(monkeypatch):
    """Twice the oversampling is half the voxels; the finish on the whole grid keeps its widths."""
    widths = {}

    def spy(data, config, *rest, **named):
        widths.setdefault(asked, []).append(config.shrink_wrap.sigma_start)
        return (yield from run_starts(data, config, *rest, **named))

    run_starts = module.run_starts
    for place in (module, iterate, spacing):
        monkeypatch.setattr(place, "run_starts", spy)
    for asked in (3.0, 7.0):
        settings = CrystalSettings(
            shape=(48, 48, 48), oversampling=(asked, asked + 0.1), phase_range=(1, 1), counts=(1e6, 1e6), anisotropy=1.0
        )
        volume = simulate_volume(1, settings)[1]
        data = prepare_measured(volume, PhasingConfig(device="cpu"))
        finish(tournament(pattern_of(data), replace(QUICK, counts_share=1.1), STARTS, 0))
    *rounds, last, fitted = zip(*widths.values(), strict=True)
    wanted = 4 / math.prod(volume.oversampling) ** (1 / 3)
    assert all(fine / coarse == pytest.approx(wanted, rel=0.2) for coarse, fine in [*rounds, fitted])
    assert last[0] == last[1]


def test_a_finely_sampled_crystal_is_searched_at_wider_spacings_and_polished_on_all_voxels():
    settings = CrystalSettings(shape=(48, 48, 48), oversampling=(4.0, 4.2), phase_range=(3, 3), counts=(1e6, 1e6), anisotropy=1.0)
    truth, volume = simulate_volume(3, settings)
    data = prepare_measured(volume, PhasingConfig(device="cpu"))
    config = TournamentConfig(opening=Round("40*RAAR", 2.0, 1.7), narrowing=Round("40*RAAR", 1.7, 1.2), polish="6*ER")
    left, steps = finish(tournament(pattern_of(data, 2.4), config, (4, 2, 1), 0))
    sizes = [step.state.rho[0].numel() for step in steps]
    polished = [size == data.intensity.numel() for size in sizes]
    assert sum(polished) % 6 == 0
    assert all(polished[-6:]), "a start ends on all voxels"
    assert sum(polished) < 0.1 * len(sizes)
    assert max(size for size, whole in zip(sizes, polished, strict=True) if not whole) < 0.4 * data.intensity.numel()
    assert left[0].rho.shape == data.shape
    assert align(to_centre(left[0].rho), torch.from_numpy(truth)).correlation > 0.98
