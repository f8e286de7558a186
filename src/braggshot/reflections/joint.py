r"""Fit one density and one continuous displacement to the counts of all reflections at once.

.. math:: F_j(q) = \sum_n s(r_n)\, e^{-i Q_j \cdot u(r_n) + i \kappa_j \cdot r_n}\, e^{-i (q - q_j) \cdot r_n}, \qquad
    L = \frac{\sum_j \sum_q \left(c_j |F_j(q)| - \sqrt{I_j(q)}\right)^2}{\sum_j \sum_q I_j(q)}

s >= 0 and u are the unknowns, on the nodes of the common grid and linear between them. r_n are the points of the skewed direct
grid of reflection j, `SAMPLING` times finer than its voxels, so that what lies beyond the measured window does not fold back. q_j
is the scattering vector at the centre of the window. :math:`\kappa_j`, fitted too, says where in the window the mean lattice has
its peak. c_j is the best scale. u is never wrapped: only its exponential enters. A shift of the crystal and a global phase leave
the counts as they are, so each scan may have its own. Masked and held-out voxels are left out of the sums. Counts say nothing of
what is finer than their resolution, so u is expected to be smooth: L gains the squares of its second differences over `BEND`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from braggshot.reflections.linear import Linear, linear, second_differences
from braggshot.volumes import BoolArray, ComplexArray, FloatArray

SAMPLING = 1.5  # points of the direct grid of a reflection per voxel and axis [1]
_FAINT = 0.1  # added to |F|^2 so that its root has a slope everywhere [photons]
BEND = 0.05  # expected second difference of the phase between neighbouring nodes [rad]
_REACH = 3.0  # phase for which an unknown of u counts as much as one of the density's root [rad]; settled by speed
_LEAST = 1e-3  # least density at the start, in which a voxel can grow [1]


@dataclass(frozen=True)
class Window:
    """Counts of one reflection and the linear map from the common grid to its own points.

    Parameters
    ----------
    name : name of the scan
    magnitude : (z, y, x) root of the counts [sqrt(photons)]
    fitted, free : (z, y, x) voxels to fit, and voxels that are held out
    q : (3,) scattering vector of the mean lattice, along the crystal's axes [1/m]
    points : (m, 3) places of the points along the crystal's axes [m]
    weights : (m, nodes) trilinear interpolation
    base : (m,) phase that u adds to [rad]; 0 but for crystals with a dislocation
    place, box : (m,) flat index of each point in the box of points, and the box's shape
    waves : the factors exp(-i (q - q_j) . r) along each axis, (N_a, box_a) each
    """

    name: str
    magnitude: Tensor
    fitted: Tensor
    free: Tensor
    q: Tensor
    points: Tensor
    weights: Linear
    base: Tensor
    place: Tensor
    box: tuple[int, int, int]
    waves: tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Crystal:
    """Unknowns of the fit on the common grid.

    Parameters
    ----------
    density : (z, y, x) >= 0, 0 outside the region [1]
    displacement : (3, z, y, x) [m]
    ramps : (n, 3) kappa_j of each reflection [rad/m]
    region : (z, y, x) nodes that may hold density
    voxel : edge of the voxels [m]
    misfits : L of each reflection alone over the voxels that were fitted; empty before the fit [1]
    base : J (3, 3, z, y, x) [1] and the nearest continuous u (3, z, y, x) [m] of the windows' base, to which `displacement` adds;
        None where the base is 0
    """

    density: FloatArray
    displacement: FloatArray
    ramps: FloatArray
    region: BoolArray
    voxel: float
    misfits: tuple[float, ...] = ()
    base: tuple[FloatArray, FloatArray] | None = None


def make_window(
    name: str, counts: tuple[Tensor, Tensor, Tensor], basis: FloatArray, q: FloatArray, region: BoolArray, voxel: float
) -> Window:
    """Lay out the points of one reflection over the region that may hold density.

    Parameters
    ----------
    counts : intensity [photons], fitted and held-out voxels, each (z, y, x) with the peak at N // 2
    basis : voxel edges of the direct grid along the crystal's axes [m]
    q : scattering vector of the mean lattice, along the crystal's axes [1/m]
    region, voxel : nodes that may hold density on the common grid, and its voxel edge [m]
    """
    intensity, fitted, free = counts
    nodes = (np.argwhere(region) - np.array(region.shape) // 2) * voxel
    reach = np.abs(np.linalg.solve(basis, nodes.T) * SAMPLING).max(axis=1)
    box = tuple(2 * int(np.ceil(r)) + 3 for r in reach)
    index = np.indices(box).reshape(3, -1) - np.array(box)[:, None] // 2
    points = (basis @ (index / SAMPLING)).T
    weights, seen = _interpolation(points, region, voxel)
    waves = []
    for full, size in zip(intensity.shape, box, strict=True):
        k, n = torch.arange(full) - full // 2, (torch.arange(size) - size // 2) / SAMPLING
        phase = -2 * torch.pi * k[:, None].double() * n.double() / full
        waves.append(torch.polar(torch.ones_like(phase), phase).to(torch.complex64))
    return Window(
        name,
        intensity.clamp_min(0).sqrt().float(),
        fitted,
        free,
        torch.from_numpy(q).float(),
        torch.from_numpy(points[seen]).float(),
        weights,
        torch.zeros(int(seen.sum())),
        torch.from_numpy(np.flatnonzero(seen)),
        (box[0], box[1], box[2]),
        (waves[0], waves[1], waves[2]),
    )


def _interpolation(points: FloatArray, region: BoolArray, voxel: float) -> tuple[Linear, BoolArray]:
    """Return trilinear weights (m, nodes) of the points that a node of the region reaches, and which points these are."""
    number = np.full(region.shape, -1)
    number[region] = np.arange(region.sum())
    place = points / voxel + np.array(region.shape) // 2
    low = np.floor(place).astype(int)
    part = place - low
    rows, columns, values = [], [], []
    for corner in np.ndindex(2, 2, 2):
        at = low + np.array(corner)
        share = np.prod(np.where(np.array(corner) == 1, part, 1 - part), axis=1)
        inside = ((at >= 0) & (at < region.shape)).all(axis=1)
        node = np.where(inside, number[tuple(np.clip(at, 0, np.array(region.shape) - 1).T)], -1)
        kept = (node >= 0) & (share > 0)
        rows.append(np.flatnonzero(kept))
        columns.append(node[kept])
        values.append(share[kept])
    row, column, value = (np.concatenate(part) for part in (rows, columns, values))
    seen = np.zeros(len(points), dtype=bool)
    seen[row] = True
    compact = np.cumsum(seen) - 1
    shape = (int(seen.sum()), int(region.sum()))
    return linear(sparse.csr_matrix((value, (compact[row], column)), shape=shape)), seen


def with_base(window: Window, phasors: ComplexArray, region: BoolArray) -> Window:
    """Return a window whose phases begin at those of a field (z, y, x) on the common grid."""
    parts = np.stack([phasors.real[region], phasors.imag[region]], axis=1)
    there = window.weights @ torch.from_numpy(parts).float()
    return replace(window, base=torch.atan2(there[:, 1], there[:, 0]))


def scatter(window: Window, nodes: Tensor, ramp: Tensor) -> Tensor:
    """Compute the complex amplitude F (z, y, x) of nodes (nodes, 4), s and u, with the phase ramp kappa (3,)."""
    values = window.weights @ nodes
    phase = window.base + window.points @ ramp - values[:, 1:] @ window.q
    rho = torch.zeros(int(np.prod(window.box)), dtype=torch.complex64)
    rho = rho.index_put((window.place,), torch.polar(values[:, 0].contiguous(), phase)).reshape(window.box)
    z, y, x = window.waves
    return torch.einsum("kn,nml->kml", z, torch.einsum("ab,cbd->cad", y, torch.einsum("ef,cdf->cde", x, rho)))


def misfit_of(window: Window, field: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sums of (c |F| - sqrt(I))^2 and of I over the voxels `where`, with the best scale c."""
    model = (field.real.square() + field.imag.square() + _FAINT).sqrt()[where]
    measured = window.magnitude[where]
    scale = (model * measured).sum() / model.square().sum()
    return (scale * model - measured).square().sum(), measured.square().sum()


def refine(
    windows: Sequence[Window], start: Crystal, iterations: int, bend: float = BEND,
    on_step: Callable[[int, float], None] | None = None,
) -> Crystal:  # fmt: skip
    """Minimise L over density, displacement and ramps by L-BFGS, from a start.

    Parameters
    ----------
    windows : reflections to fit; `start.ramps` has a row for each
    start : crystal with a displacement that is right to less than about half a turn of phase
    iterations : number of steps
    bend : expected second difference of Q . u between neighbouring nodes, for the mean |Q| [rad]
    on_step : called with the number of evaluations and L
    """
    unit = _REACH / float(np.mean([float(window.q.norm()) for window in windows]))  # displacement of one unknown of size 1 [m]
    size = float(start.voxel * np.cbrt(start.region.sum()))
    # Scale of the density that gives the counts of the first reflection, so that all unknowns are near one.
    root = torch.from_numpy(np.sqrt(np.maximum(start.density, _LEAST))[start.region]).float().requires_grad_()
    moved = torch.from_numpy(start.displacement[:, start.region].T / unit).float().requires_grad_()
    ramps = torch.from_numpy(start.ramps * size).float().requires_grad_()
    total = sum(float(window.magnitude[window.fitted].square().sum()) for window in windows)
    factors = _strengths(windows, root.detach(), moved.detach() * unit, ramps.detach() / size)
    optimizer = torch.optim.LBFGS([root, moved, ramps], max_iter=iterations, max_eval=2 * iterations, history_size=20,
                                  tolerance_grad=1e-9, tolerance_change=1e-9, line_search_fn="strong_wolfe")  # fmt: skip
    second = linear(second_differences(start.region))
    stiffness = _REACH**2 / (4 * bend**2 * total)  # of twice the negative log-likelihood over the photons
    evaluated = 0

    def close() -> Tensor:
        nonlocal evaluated
        optimizer.zero_grad()
        nodes = torch.cat([root.square()[:, None], moved * unit], dim=1)
        off = [
            misfit_of(window, factor * scatter(window, nodes, ramp / size), window.fitted)[0]
            for window, factor, ramp in zip(windows, factors, ramps, strict=True)
        ]
        loss = (torch.stack(off).sum() / total + stiffness * (second @ moved).square().sum()) * _GAIN
        loss.backward()  # type: ignore[no-untyped-call]
        evaluated += 1
        if on_step is not None:
            on_step(evaluated, float(loss.detach()) / _GAIN)
        return loss

    optimizer.step(close)  # type: ignore[no-untyped-call]
    density, displacement = np.zeros_like(start.density), np.zeros_like(start.displacement)
    density[start.region] = root.detach().square().double().numpy()
    displacement[:, start.region] = (moved.detach().double() * unit).numpy().T
    found = replace(start, density=density, displacement=displacement, ramps=ramps.detach().double().numpy() / size)
    return replace(found, misfits=tuple(misfits(windows, found, free=False)))


_GAIN = 1e3  # of L in the optimizer, whose tolerances are absolute [1]


def _strengths(windows: Sequence[Window], root: Tensor, u: Tensor, ramps: Tensor) -> list[float]:
    """Return the factor that brings F of each reflection to the strength of its counts, so that `_FAINT` is in photons."""
    nodes = torch.cat([root.square()[:, None], u], dim=1)
    found = []
    for window, ramp in zip(windows, ramps, strict=True):
        power = scatter(window, nodes, ramp).abs().square()[window.fitted].sum()
        found.append(float((window.magnitude[window.fitted].square().sum() / power).sqrt()))
    return found


def amplitudes(windows: Sequence[Window], crystal: Crystal) -> list[Tensor]:
    """Compute F of each reflection (z, y, x), at the strength of its counts [sqrt(photons)]."""
    nodes = node_values(crystal)
    found = []
    for window, ramp in zip(windows, torch.from_numpy(crystal.ramps).float(), strict=True):
        field = scatter(window, nodes, ramp)
        model = field.abs()[window.fitted]
        found.append(field * ((model * window.magnitude[window.fitted]).sum() / model.square().sum()))
    return found


def node_values(crystal: Crystal) -> Tensor:
    """Return density and displacement at the nodes of the region, (nodes, 4)."""
    stacked = np.concatenate([crystal.density[None], crystal.displacement])[:, crystal.region]
    return torch.from_numpy(np.ascontiguousarray(stacked.T)).float()


def misfits(windows: Sequence[Window], crystal: Crystal, free: bool) -> NDArray[np.float64]:
    """Compute L of each reflection alone, over the held-out voxels if `free`, else over those that were fitted [1]."""
    found = []
    for window, field in zip(windows, amplitudes(windows, crystal), strict=True):
        off, photons = misfit_of(window, field, window.free if free else window.fitted)
        found.append(float(off / photons))
    return np.array(found)
