"""Recipes, the loop, and that a known crystal comes back."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braggshot.config import resolve
from braggshot.crystals.displacement import FIELDS
from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.errors import ConfigError
from braggshot.iterative.iterate import Guess, IterativeConfig, run_starts
from braggshot.iterative.projections import ShrinkWrap, measured
from braggshot.iterative.recipe import parse_recipe
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.problem import prepare_measured
from braggshot.physics.fourier import to_centre
from braggshot.physics.metrics import align


def finish(running):
    seen = []
    try:
        while True:
            seen.append(next(running))
    except StopIteration as finished:
        return finished.value, seen


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ER", "ER"),
        ("2*ER+HIO", "ER ER HIO"),
        ("2*(er + 2*hio) + SW", "ER HIO HIO ER HIO HIO SW"),
        ("2*(2*(ER)+RAAR)", "ER ER RAAR ER ER RAAR"),
        (" 3 * ( 1*ER ) ", "ER ER ER"),
    ],
)
def test_recipes_read_left_to_right(text, expected):
    assert parse_recipe(text) == expected.split()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expects a step"),
        ("3*", "expects a step"),
        ("3 ER", r"expects '\*'"),
        ("(ER", r"expects '\)'"),
        ("ER)", r"expects '\+' or the end"),
        ("ER+", "expects a step"),
        ("ER**50", "expects"),
        ("50*XYZ", "unknown step 'XYZ'"),
        ("SW", "no iterations"),
        ("1000000*(1000000*ER)", "longer than"),
        ("20*ER;drop", "character 6"),
    ],
)
def test_bad_recipes_say_where(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_recipe(text)


nested = st.recursive(
    st.sampled_from(["ER", "HIO", "RAAR"]).map(lambda n: (n, [n])),
    lambda inner: st.lists(st.tuples(st.integers(1, 4), inner), min_size=1, max_size=3).map(
        lambda parts: (
            "(" + "+".join(f"{k}*{text}" for k, (text, _) in parts) + ")",
            [name for k, (_, names) in parts for _ in range(k) for name in names],
        )
    ),
    max_leaves=4,
)


@settings(deadline=None, max_examples=40)
@given(nested)
def test_nested_recipes_expand(recipe):
    text, names = recipe
    assert parse_recipe(text) == names


CONFIG = IterativeConfig(recipe="6*(40*HIO+10*ER)+50*ER", shrink_wrap=ShrinkWrap(threshold=(0.25, 0.3)))


def test_a_known_crystal_comes_back_from_random_phases(data, pattern):
    starts, seen = finish(run_starts(data, CONFIG, 3, seed=4))
    correlations = [align(to_centre(start.rho), pattern[1]).correlation for start in starts]
    assert sum(c > 0.98 for c in correlations) >= 2
    assert seen[-1].iteration == seen[-1].n_iterations == 1050
    assert len(seen) == 1050
    for start in starts:
        assert not (start.rho * ~start.support).any()
        assert start.history[:, 0].tolist() == list(range(5, 351, 5))


def test_a_start_does_not_depend_on_its_batch(data):
    short = IterativeConfig(recipe="20*HIO+DETWIN+10*ER")
    alone, _ = finish(run_starts(data, short, 3, seed=7))
    from dataclasses import replace

    together, _ = finish(run_starts(data, replace(short, batch=3), 3, seed=7))
    for one, other in zip(alone, together, strict=True):
        assert torch.allclose(one.rho, other.rho, atol=1e-2 * float(one.rho.abs().max()))
    again, _ = finish(run_starts(data, short, 1, seed=8))
    assert torch.equal(again[0].rho, alone[1].rho)


def test_masked_voxels_float_and_the_crystal_still_comes_back(pattern):
    """A gap of two planes and a missing corner hold wrong counts; because they float, the truth is still found."""
    counts, crystal = pattern[0].clone(), pattern[1]
    valid = torch.ones(counts.shape, dtype=torch.bool)
    valid[:, 18:20] = False
    valid[:5, :5] = False
    counts[~valid] = 1e5
    starts, _ = finish(run_starts(measured(counts, valid, torch.zeros_like(valid)), CONFIG, 3, seed=4))
    best = max(align(to_centre(start.rho), crystal).correlation for start in starts)
    assert best > 0.98
    deaf, _ = finish(run_starts(measured(counts, torch.ones_like(valid), torch.zeros_like(valid)), CONFIG, 3, seed=4))
    assert max(align(to_centre(start.rho), crystal).correlation for start in deaf) < best


def test_the_caller_owns_the_loop(data):
    running = run_starts(data, IterativeConfig(recipe="50*ER"), 2)
    progress = next(running)
    assert progress.iteration == 1
    assert progress.state.rho.shape == (1, *data.shape)
    running.close()


def test_a_guess_is_taken_up(data, pattern):
    """Starting at the truth, ER stays there: the guess and its support are used, not replaced."""
    from braggshot.physics.fourier import to_corner

    truth = to_corner(pattern[1])
    starts, _ = finish(run_starts(data, IterativeConfig(recipe="10*ER"), 1, first=[Guess(truth, truth.abs() > 0)]))
    assert align(to_centre(starts[0].rho), pattern[1]).correlation > 0.9999


def test_explicit_shrink_wrap_steps_replace_the_schedule(data):
    fixed = IterativeConfig(recipe="60*ER", shrink_wrap=ShrinkWrap(period=0))
    starts, _ = finish(run_starts(data, fixed, 1))
    assert len(set(starts[0].history[:, 2].tolist())) == 1
    explicit = IterativeConfig(recipe="30*ER+SW+30*ER", shrink_wrap=ShrinkWrap(period=5))
    starts, _ = finish(run_starts(data, explicit, 1))
    assert len(set(starts[0].history[:, 2].tolist())) == 2


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="relative_to"):
        resolve(IterativeConfig, {"shrink_wrap": {"relative_to": "median"}})
    with pytest.raises(ConfigError, match="unknown step"):
        IterativeConfig(recipe="20*OSS")


def test_a_strongly_strained_crystal_needs_flat():
    """Over 4 pi of phase, shrink-wrap closes in on a few bright spots of a wrong object; with FLAT the crystal is found."""
    strained = CrystalSettings(
        oversampling=(2.1, 4.0), phase_range=(4 * math.pi,) * 2, redraws=8, counts=(1e6, 1e6), displacements=tuple(FIELDS)
    )
    truth, volume = simulate_volume(50002, strained)
    data = prepare_measured(volume, PhasingConfig(device="cpu"))
    found = finish(run_starts(data, IterativeConfig(monitor_every=1000), 3))[0]
    assert max(align(to_centre(start.rho), torch.from_numpy(truth)).correlation for start in found) > 0.95
    plain = IterativeConfig(recipe="2*(50*HIO+80*RAAR+30*ER)+DETWIN+4*(50*HIO+80*RAAR+30*ER)+100*ER", monitor_every=1000)
    (lost,) = finish(run_starts(data, plain, 1))[0]
    assert align(to_centre(lost.rho), torch.from_numpy(truth)).correlation < 0.8
