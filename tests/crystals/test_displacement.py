"""Phase fields: range, ramp, correlation, and the turn around a dislocation."""

import math

import pytest
import torch

from braggshot.crystals import displacement, shapes
from braggshot.crystals.grid import centred_grid

N = 3
BASIS = torch.tensor([[0.09, 0.0, 0.0], [0.02, 0.08, 0.0], [-0.02, 0.0, 0.07]]).repeat(N, 1, 1)
GRID = centred_grid(BASIS, (32, 33, 40))
DEPTH = shapes.ellipsoid(torch.tensor([[1.0, 0.8, 0.9]]).expand(N, 3))(GRID)


@pytest.mark.parametrize("name", displacement.FIELDS)
def test_a_field_has_the_range_asked_for_and_no_ramp(name):
    raw = displacement.FIELDS[name](torch.Generator().manual_seed(2), N)(GRID, DEPTH)
    wanted = torch.tensor([0.5, math.pi, 6 * math.pi])
    phase = displacement.calibrate(raw, GRID, DEPTH, wanted, steepest=100.0)(raw, GRID)
    ranges = torch.stack([p[d > 0].max() - p[d > 0].min() for p, d in zip(phase, DEPTH, strict=True)])
    torch.testing.assert_close(ranges, wanted, rtol=1e-4, atol=0)
    for p, d in zip(phase, DEPTH, strict=True):
        index = (d > 0).nonzero().double()
        design = torch.cat([torch.ones_like(index[:, :1]), index - index.mean(0)], dim=1)
        ramp = torch.linalg.lstsq(design, p[d > 0].double()[:, None]).solution[1:, 0]
        assert ramp.abs().max() * 40 < 1e-2 * float(p.max() - p.min())


def test_a_ramp_on_the_field_changes_nothing():
    raw = displacement.cosines(torch.Generator().manual_seed(0), N)(GRID, DEPTH)
    tilted = raw + GRID.dot(torch.tensor([[3.0, -2.0, 1.0]]).expand(N, 3)) + 7
    one, other = (displacement.calibrate(f, GRID, DEPTH, torch.full((N,), 2.0), 100.0)(f, GRID) for f in (raw, tilted))
    torch.testing.assert_close(one, other, atol=1e-3, rtol=0)


def test_the_phase_never_turns_faster_than_allowed():
    raw = displacement.correlated(torch.Generator().manual_seed(0), N)(GRID, DEPTH)
    phase = displacement.calibrate(raw, GRID, DEPTH, torch.full((N,), 100.0), 1.5)(raw, GRID)
    inside = DEPTH > 0
    steps = [
        (phase.diff(dim=a).abs() * (inside.narrow(a, 1, n - 1) & inside.narrow(a, 0, n - 1))).max()
        for a, n in ((1, 32), (2, 33), (3, 40))
    ]
    assert float(max(steps)) == pytest.approx(1.5, rel=1e-4)


def test_the_random_field_is_gaussian_in_correlation(monkeypatch):
    # Length 0.5 for everyone, two points one length apart along each axis: correlation exp(-1/2), variance 1.
    monkeypatch.setattr(displacement, "uniform", lambda g, low, high, *shape: (
        torch.full(shape, 0.5) if high < 2 else low + (high - low) * torch.rand(shape, generator=g)))  # fmt: skip
    n = 4000
    field = displacement.correlated(torch.Generator().manual_seed(1), n)
    values = field(centred_grid(0.5 * torch.eye(3).repeat(n, 1, 1), (2, 2, 2)), torch.zeros(()))
    assert values.var().item() == pytest.approx(1, abs=0.05)
    for neighbour in (values[:, 1, 0, 0], values[:, 0, 1, 0], values[:, 0, 0, 1]):
        assert (values[:, 0, 0, 0] * neighbour).mean().item() == pytest.approx(math.exp(-0.5), abs=0.05)


@pytest.mark.parametrize("name", displacement.DISLOCATIONS)
def test_the_phase_turns_once_around_a_dislocation(name):
    phase = displacement.DISLOCATIONS[name](torch.Generator().manual_seed(8), N)(GRID, DEPTH)
    turns = []
    for axis in (1, 2, 3):  # loops around each small square of voxels; the line pierces exactly those that turn
        a, b = (d for d in (1, 2, 3) if d != axis)
        along_a, along_b = (torch.remainder(phase.diff(dim=d) + math.pi, 2 * math.pi) - math.pi for d in (a, b))
        loop = along_a.narrow(b, 0, phase.shape[b] - 1) + along_b.narrow(a, 1, phase.shape[a] - 1)
        loop = loop - along_a.narrow(b, 1, phase.shape[b] - 1) - along_b.narrow(a, 0, phase.shape[a] - 1)
        turns.append((loop / (2 * math.pi)).round())
    pierced = sum(t.abs().sum((1, 2, 3)) for t in turns)
    assert (pierced >= 30).all()  # a line right through the grid
    assert max(float(t.abs().max()) for t in turns) == 1
    slices = turns[0].sum((2, 3))
    assert ((slices.abs() <= 1).float().mean()) > 0.95


def test_an_inclusion_is_continuous_and_fades_outside():
    field = displacement.inclusion(torch.Generator().manual_seed(3), N)
    phase = field(GRID, DEPTH)
    steps = max(float(phase.diff(dim=d).abs().max()) for d in (1, 2, 3))
    assert steps < 1.2 * float(torch.linalg.vector_norm(BASIS, dim=1).max()) * 2
    assert phase[:, 0, 0].abs().max() < 0.5 * phase.abs().max()
