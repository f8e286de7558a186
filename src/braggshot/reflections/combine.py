r"""Bring the single reflections of one crystal onto one grid, and find the displacement that they share.

Each crystal was phased by itself. It is known up to a shift and up to its twin, :math:`\rho(r) \to \rho^*(-r)`. Both are chosen so
that the shapes overlap and the phases are projections of one displacement u:

.. math:: \varphi_j = -Q_j \cdot u, \qquad u = -Q^+ \varphi, \qquad
    \text{inconsistency}^2 = \frac{\sum |(1 - Q Q^+)\, \Delta\varphi|^2}{\sum |\Delta\varphi|^2}

Q_j is the scattering vector of the mean lattice that reflection j sees, Q^+ the pseudo-inverse of their matrix. The sums run over
pairs of voxels near each other: a difference :math:`\Delta\varphi` is taken from the complex field, so no phase is unwrapped. u is
what fits the differences between neighbours best (a weighted Poisson equation), and is smooth. All twins together remain
undetermined.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse.linalg import cg

from braggshot.crystal_frame import turn_onto
from braggshot.physics import strain
from braggshot.physics.fourier import inverted
from braggshot.physics.metrics import align
from braggshot.reflections.linear import second_differences
from braggshot.volumes import BoolArray, ComplexArray, FloatArray, Reconstruction

FINENESS = 0.75  # voxel of the common grid over the smallest mean voxel of a reflection [1]
_INSIDE = 0.4  # share of the median amplitude from which a voxel is inside a single crystal [1]
_STEP = 3  # distance over which phases are compared between reflections; they differ more, and are as noisy, as next door [voxels]
_SHAPE = 8.0  # weight of shapes that do not overlap; a wrong twin costs a percent or more of overlap and half of the phases [1]
_SMOOTH = 4.0  # weight of second differences of u over that of phase differences, which are noisier [1]
_STIFF = 1e-2  # weight of equal displacement where no reflection sees a phase difference, over that of a full voxel [1]
Edge = tuple[slice, ...]


@dataclass(frozen=True)
class Single:
    """One reflection, phased by itself.

    Parameters
    ----------
    name, hkl : name of the scan; Miller indices
    found : the crystal on its own skewed grid
    rotation : (3, 3), from laboratory components to those of the crystal's axes
    q : scattering vector of the mean lattice, along the crystal's axes [1/m]
    """

    name: str
    hkl: tuple[int, int, int]
    found: Reconstruction
    rotation: FloatArray
    q: FloatArray


@dataclass(frozen=True)
class Common:
    """Single crystals on one orthogonal grid along the crystal's axes.

    Parameters
    ----------
    fields : (n, z, y, x) without phase ramp, amplitude 1 in the bulk
    voxel : edge of the voxels [m]
    twins : which of the fields are the twin of what was phased
    overlaps : correlation of each shape with that of the first
    inconsistency : share of the phase differences that no common displacement explains; 0 where nothing could tell [1]
    """

    fields: ComplexArray
    voxel: float
    twins: tuple[bool, ...]
    overlaps: tuple[float, ...]
    inconsistency: float


def mean_lattice(found: Reconstruction) -> NDArray[np.float64]:
    """Return the scattering vector of the mean lattice in the bulk of a crystal, in the laboratory [1/m]."""
    assert found.volume.q_bragg is not None
    assert found.basis is not None
    turn = strain.ramp(found.rho.astype(np.complex128), _bulk(np.abs(found.rho), found.support))
    return np.asarray(found.volume.q_bragg + strain.gradient(turn, found.basis))


def _bulk(amplitude: FloatArray, support: BoolArray) -> BoolArray:
    inside = support & (amplitude > 0.5 * np.median(amplitude[support]))
    core = ndimage.binary_erosion(inside)
    return core if strain.has_gradient(core) else inside


def on_common_grid(singles: Sequence[Single]) -> tuple[ComplexArray, float]:
    """Resample crystals (n, z, y, x) to one grid along the crystal's axes, without ramps and with amplitude 1 in the bulk."""
    voxel = FINENESS * min(abs(np.linalg.det(np.asarray(one.found.basis))) ** (1 / 3) for one in singles)
    moved = [turn_onto(one.found, one.rotation, voxel) for one in singles]
    shape = tuple(max(sizes) + 4 for sizes in zip(*(one.rho.shape for one in moved), strict=True))
    fields = np.zeros((len(singles), *shape), np.complex128)
    for number, one in enumerate(moved):
        rho = one.rho.astype(np.complex128)
        bulk = _bulk(np.abs(rho), one.support)
        flat = strain.without_ramp(rho, strain.ramp(rho, bulk)) / np.median(np.abs(rho[bulk]))
        start = [full // 2 - size // 2 for full, size in zip(shape, rho.shape, strict=True)]
        fields[number][tuple(slice(s, s + n) for s, n in zip(start, rho.shape, strict=True))] = flat
    return fields, voxel


def combinations(singles: Sequence[Single], usable: Sequence[bool]) -> list[Common]:
    """List the choices of twins, the most consistent first; the first usable crystal is taken as it is.

    Parameters
    ----------
    singles : the reflections
    usable : which of them were phased well enough; the others keep their twin, and do not count
    """
    fields, voxel = on_common_grid(singles)
    qs = np.stack([one.q for one in singles])
    first = list(usable).index(True)
    target = torch.from_numpy(np.abs(fields[first])).to(torch.complex128)
    options: list[list[tuple[bool, float, ComplexArray]]] = []
    for number, field in enumerate(fields):
        own = torch.from_numpy(field)
        if number == first:
            options.append([(False, 1.0, field)])
            continue
        twin = inverted(own).conj().resolve_conj()
        both = [(False, *_shift_onto(own, target)), (True, *_shift_onto(twin, target))]
        options.append(both if usable[number] else both[:1])
    used = np.asarray(usable)
    listed = []
    for chosen in itertools.product(*options):
        stack = np.stack([field for _, _, field in chosen])
        off = inconsistency(stack[used], qs[used])
        overlaps = tuple(overlap for _, overlap, _ in chosen)
        listed.append(Common(stack, voxel, tuple(twin for twin, _, _ in chosen), overlaps, off))
    return sorted(listed, key=lambda one: disagreement(one, usable))


def disagreement(common: Common, usable: Sequence[bool]) -> float:
    """Return the figure by which choices of twins are ranked: what phases and shapes disagree on [1]."""
    return common.inconsistency + _SHAPE * (1 - float(np.mean(np.asarray(common.overlaps)[np.asarray(usable)])))


def _shift_onto(field: torch.Tensor, target: torch.Tensor) -> tuple[float, ComplexArray]:
    """Shift a field so that its amplitude lies on the target's; return the correlation of both amplitudes, and the field."""
    found = align(field.abs().to(torch.complex128), target, allow_twin=False)
    ramps = [np.exp(-2j * np.pi * s * np.fft.fftfreq(n)) for s, n in zip(found.shift, field.shape, strict=True)]
    factor = ramps[0][:, None, None] * ramps[1][:, None] * ramps[2]
    return found.correlation, np.asarray(np.fft.ifftn(np.fft.fftn(field.numpy()) * factor))


def inconsistency(fields: ComplexArray, qs: FloatArray) -> float:
    """Compute the share of the phase differences that no displacement explains; 0 if any phases have one [1]."""
    across = np.eye(len(qs)) - qs @ np.linalg.pinv(qs, rcond=1e-3)
    if np.abs(across).max() < 1e-6:
        return 0.0
    unexplained = total = 0.0
    inside: BoolArray = np.asarray((np.abs(fields) > _INSIDE).all(axis=0))
    for before, after in (neighbours(axis, _STEP) for axis in range(3)):
        both = inside[before] & inside[after]
        turn = np.angle(fields[:, *after][:, both] * fields[:, *before][:, both].conj())
        unexplained += float(((across @ turn) ** 2).sum())
        total += float((turn**2).sum())
    return float(np.sqrt(unexplained / total)) if total else 1.0


@dataclass(frozen=True)
class Steps:
    """Displacement differences between neighbours of a region along one axis.

    Parameters
    ----------
    both : (z, y, x) less one along the axis, where both neighbours are in the region
    du : (3, m) difference of u over each such pair [m]
    weight : (m,) 1 where all reflections see a full voxel, `_STIFF` where one sees none
    """

    both: BoolArray
    du: FloatArray
    weight: FloatArray


def shared_steps(fields: ComplexArray, qs: FloatArray, region: BoolArray) -> tuple[Steps, Steps, Steps]:
    """Fit the differences of u between neighbours to the phase differences of all fields, along z, y and x."""
    weight_of = np.minimum(np.abs(fields).min(axis=0), 1.0)
    project = -np.linalg.pinv(qs, rcond=1e-3)
    found = []
    for before, after in map(neighbours, range(3)):
        both = region[before] & region[after]
        turn = np.angle(fields[:, *after][:, both] * fields[:, *before][:, both].conj())
        weight = weight_of[before][both] * weight_of[after][both]
        seen = weight > _INSIDE**2
        found.append(Steps(both, np.where(seen, project @ turn, 0.0), np.where(seen, weight, _STIFF)))
    return found[0], found[1], found[2]


def shared_displacement(fields: ComplexArray, qs: FloatArray, region: BoolArray) -> NDArray[np.float64]:
    """Find the continuous displacement (3, z, y, x) [m] whose projections fit the phase differences of all fields best.

    Parameters
    ----------
    fields : (n, z, y, x) of one twin, on their common place
    qs : (n, 3) scattering vectors [1/m]
    region : voxels where u is wanted; it is 0 elsewhere
    """
    number = np.full(region.shape, -1)
    number[region] = np.arange(region.sum())
    steps = shared_steps(fields, qs, region)
    sides = [(number[before][step.both], number[after][step.both]) for step, (before, after) in zip(steps, _SIDES, strict=True)]
    first, second = (np.concatenate([side[end] for side in sides]) for end in (0, 1))
    rows = len(first)
    index = np.arange(rows)
    difference = sparse.csr_matrix(
        (np.r_[-np.ones(rows), np.ones(rows)], (np.r_[index, index], np.r_[first, second])), shape=(rows, int(region.sum()))
    )
    weight = sparse.diags(np.concatenate([step.weight for step in steps]))
    bent = second_differences(region)
    normal = (difference.T @ weight @ difference + _SMOOTH * bent.T @ bent + 1e-9 * sparse.identity(difference.shape[1])).tocsr()
    side = difference.T @ weight @ np.concatenate([step.du for step in steps], axis=1).T
    scale = sparse.diags(1 / normal.diagonal())
    u = np.zeros((3, *region.shape))
    for axis in range(3):
        u[axis][region] = cg(normal, side[:, axis], rtol=1e-6, maxiter=2000, M=scale)[0]
    return u


def shared_phasors(fields: ComplexArray, qs: FloatArray, region: BoolArray, rounds: int = 12) -> ComplexArray:
    r"""Make the fields :math:`e^{-i Q_j \cdot u}` (n, z, y, x) of a displacement that is not continuous, as at a dislocation.

    Each voxel takes the mean of what its neighbours and the shared differences of u to them say, again and again. A slip by a
    lattice vector leaves all phasors continuous, so no cut has to be placed.
    """
    phasors = np.where(region, np.exp(1j * np.angle(fields)), 0)
    steps = shared_steps(fields, qs, region)
    for _ in range(rounds):
        total = np.zeros_like(phasors)
        for step, (before, after) in zip(steps, _SIDES, strict=True):
            turn = np.zeros((len(qs), *step.both.shape), complex)
            turn[:, step.both] = step.weight * np.exp(-1j * qs @ step.du)
            total[:, *after] += turn * phasors[:, *before]
            total[:, *before] += turn.conj() * phasors[:, *after]
        phasors = np.where(region & (np.abs(total) > 0), np.exp(1j * np.angle(total)), 0)
    return np.asarray(phasors)


def shared_gradient(fields: ComplexArray, qs: FloatArray, region: BoolArray, voxel: float) -> NDArray[np.float64]:
    """Return J (3, 3, z, y, x) from the phases' differences: right at any slip by a lattice vector; 0 outside the region."""
    jacobian = np.zeros((3, 3, *region.shape))
    for axis, (step, (before, after)) in enumerate(zip(shared_steps(fields, qs, region), _SIDES, strict=True)):
        slope = np.zeros((3, *step.both.shape))
        slope[:, step.both] = step.du / voxel
        total, count = np.zeros((3, *region.shape)), np.zeros(region.shape)
        for side in (before, after):
            total[:, *side] += slope
            count[side] += step.both
        jacobian[:, axis] = total / np.maximum(count, 1)
    return jacobian


def slipped(common: Common, usable: Sequence[bool]) -> bool:
    """Tell whether a phase turns by 2 pi around a line inside the crystals, as at a dislocation."""
    used = common.fields[np.asarray(usable)]
    inside = ndimage.binary_closing((np.abs(used) > _INSIDE).all(axis=0), iterations=2)
    core = ndimage.binary_erosion(inside, iterations=2)
    return any(strain.dislocations(np.angle(field), core).any() for field in used)


def neighbours(axis: int, step: int = 1) -> tuple[Edge, Edge]:
    """Return the indices of all voxels (z, y, x) but the last `step` along an axis, and those of the voxels that far on."""
    before, after = [slice(None)] * 3, [slice(None)] * 3
    before[axis], after[axis] = slice(None, -step), slice(step, None)
    return tuple(before), tuple(after)


_SIDES = tuple(neighbours(axis) for axis in range(3))
