"""Phase at wider spacings: the crystal keeps its voxels, held-out voxels stay unseen, and zeros bring a start back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.iterative.iterate import Guess, IterativeConfig, Start
from braggshot.iterative.projections import ShrinkWrap, held_out_voxels, measured
from braggshot.iterative.spacing import SLOW, STEPS, refine_wide, reshape_guess, reshape_start, widen, widest
from braggshot.physics.fourier import fourier, to_centre, to_corner
from braggshot.physics.metrics import align


@pytest.fixture(scope="module", params=[(48, 48, 48), (45, 52, 50)], ids=["even", "odd"])
def crystal(request):
    """A strained crystal that is sampled four times too finely for a transform, without noise."""
    settings = CrystalSettings(shape=request.param, oversampling=(4.0, 4.2), phase_range=(4, 4), counts=(1e7, 1e7), anisotropy=1.0)
    truth, volume = simulate_volume(5, settings)
    return torch.from_numpy(truth), volume


def hold_out(volume, intensity=None):
    """The measurement of a volume with a twentieth of it held out."""
    valid = torch.from_numpy(volume.valid)
    held_out = held_out_voxels(valid, 0.05, 1, 0.1, generator=torch.Generator().manual_seed(0))
    counts = torch.from_numpy(np.asarray(volume.intensity if intensity is None else intensity, dtype=np.float32))
    return measured(counts, valid, held_out)


def as_start(rho):
    """A finished start that holds a centred object."""
    corner = to_corner(rho)
    return Start(corner, corner.abs() > 0, 0, 0.1, (0.0, 0.0, 0.0), 0.0, torch.zeros(0, 3))


@pytest.mark.parametrize("shape", [(64, 64, 64), (100, 128, 108), (61, 47, 53)])
@pytest.mark.parametrize("oversampling", [(2.1, 3.0, 4.5), (5.0, 2.4, 2.5)])
def test_the_spacings_leave_what_is_wanted_and_transforms_that_are_fast(shape, oversampling):
    how = widest(shape, oversampling, 2.4)
    for n, m, w, before, after, step in zip(shape, how.shape, how.spacing, oversampling, how.oversampling, STEPS, strict=True):
        assert m * w == pytest.approx(n), "the samples reach as far out as the pattern"
        assert after == pytest.approx(before / w)
        assert after >= min(2.4, before) - 1e-9
        assert m == n or (m % step == 0 and all(m % prime for prime in SLOW))


def test_the_true_crystal_fits_the_counts_at_the_wider_spacing(crystal):
    """The crystal in a smaller box has the same voxels, so its transform gives the counts of the samples."""
    truth, volume = crystal
    clean = fourier(truth).abs().square().numpy()
    data = hold_out(volume, clean)
    wide = widen(data, volume.oversampling, 2.4)
    assert wide.shape.numel() < 0.4 * data.shape.numel()
    smaller = reshape_start(as_start(truth), wide.shape)
    model = torch.fft.fftn(smaller.rho, norm="ortho").abs()
    error = (model - wide.magnitude).square()[wide.valid].sum() / wide.magnitude.square().sum()
    assert float(error) ** 0.5 < 0.05, "a shift of one voxel, or another scale, would give more than 0.5"
    back = reshape_start(smaller, data.shape)
    assert torch.equal(to_centre(back.rho), truth)


def test_held_out_voxels_are_not_seen_at_the_wider_spacing(crystal):
    _, volume = crystal
    data = hold_out(volume)
    spoilt = hold_out(
        volume,
        np.where(
            to_centre(torch.zeros(data.shape).view(-1).index_fill_(0, data.free, 1).view(data.shape)) > 0, 1e9, volume.intensity
        ),
    )
    wide, other = (widen(one, volume.oversampling, 2.4) for one in (data, spoilt))
    assert torch.equal(wide.intensity, other.intensity)
    assert torch.equal(wide.valid, other.valid)
    assert wide.free.numel() == 0


def test_a_pattern_that_is_sampled_coarsely_stays(crystal):
    _, volume = crystal
    data = hold_out(volume)
    assert widen(data, (2.2, 2.3, 2.1), 2.4) is data


def test_a_guess_is_refined_at_the_wider_spacing_and_polished_on_all_voxels(crystal):
    """The start is that of the whole grid, with the seed that was given, and nearer to the truth than the guess."""
    truth, volume = crystal
    data = hold_out(volume)
    wide = widen(data, volume.oversampling, 2.4)
    corner = to_corner(truth)
    guess = Guess(corner.abs().to(corner.dtype) * torch.exp(0.7j * torch.angle(corner)), corner.abs() > 0.1 * corner.abs().max())
    steps = []
    fixed = ShrinkWrap(period=0)
    rounds = [IterativeConfig(recipe="60*RAAR", shrink_wrap=fixed), IterativeConfig(recipe="20*ER", shrink_wrap=fixed)]
    running = refine_wide([guess], data, wide, rounds, "7*ER", 11)
    while True:
        try:
            steps.append(next(running).state.rho.shape[1:])
        except StopIteration as finished:
            (start,) = finished.value
            break
    assert steps == [wide.shape] * 80 + [data.shape] * 7
    assert start.seed == 11
    assert start.rho.shape == data.shape
    before, after = (align(to_centre(rho), truth).correlation for rho in (guess.rho, start.rho))
    assert after > max(0.99, before)


def test_a_guess_and_a_start_are_cut_about_their_middle():
    field = torch.zeros(8, 9, 10, dtype=torch.complex64)
    field[4, 4, 5] = 1
    guess = reshape_guess(Guess(to_corner(field), to_corner(field.abs() > 0)), (4, 6, 6))
    assert to_centre(guess.rho)[2, 3, 3] == 1
    assert bool(to_centre(guess.support)[2, 3, 3])
