"""Phase fields -q.u of strained crystals [rad], never wrapped, of a given range (maximum minus minimum inside the crystal)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from braggshot.crystals.grid import Grid


def correlated(generator: Generator, grid: Grid, length: Tensor, waves: int = 64) -> Tensor:
    r"""Gaussian random field with covariance exp(-r^2 / (2 length^2)), as a sum of plane waves with Gaussian wave vectors.

    `length` (batch,) is in the grid's units.
    """
    device = generator.device
    vectors = torch.randn(grid.batch, waves, 3, generator=generator, device=device).to(length) / length[:, None, None]
    phases = 2 * torch.pi * torch.rand(grid.batch, waves, generator=generator, device=device).to(length)
    return grid.waves(vectors, torch.polar(torch.full_like(phases, (2 / waves) ** 0.5), phases))


def without_ramp(phase: Tensor, weight: Tensor) -> Tensor:
    """Subtract the plane c + g . n that fits `phase` best (weighted least squares): a ramp is a shift of the pattern, no strain."""
    axes = [torch.linspace(-1, 1, n, device=phase.device) for n in phase.shape[-3:]]
    columns = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
    design = torch.cat([torch.ones_like(columns[:, :1]), columns], dim=1)
    w, p = weight.flatten(1), phase.flatten(1)
    normal = torch.einsum("bv,vi,vj->bij", w, design, design)
    plane = torch.linalg.solve(normal, torch.einsum("bv,vi->bi", w * p, design))
    return phase - (plane @ design.T).view_as(phase)


def with_range(phase: Tensor, support: Tensor, phase_range: Tensor, steepest: float) -> Tensor:
    """Scale to `phase_range` (batch,) inside the support, less where a voxel would turn by more than `steepest` [rad / voxel]."""
    dims = (1, 2, 3)
    low = torch.where(support, phase, torch.inf).amin(dims)
    high = torch.where(support, phase, -torch.inf).amax(dims)
    step = torch.zeros_like(low)
    for axis in dims:
        both = support.narrow(axis, 1, support.shape[axis] - 1) & support.narrow(axis, 0, support.shape[axis] - 1)
        step = torch.maximum(step, (phase.diff(dim=axis).abs() * both).amax(dims))
    scale = torch.minimum(phase_range / (high - low).clamp_min(1e-9), steepest / step.clamp_min(1e-9))
    return (phase - ((low + high) / 2)[:, None, None, None]) * scale[:, None, None, None]
