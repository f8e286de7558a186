r"""Compute the kinematic diffraction of atoms around a Bragg peak as a sum over atoms, not as the transform of a gridded object.

.. math:: F(q) = \sum_j e^{-i q \cdot r_j}

q is the scattering vector, and r_j the position of atom j. g is the scattering vector of the Bragg peak for the perfect lattice.
Write r = R + u, where R is a lattice point, so that g . R is a multiple of 2 pi. Then F is the sum over j of exp(-i g . u_j) exp(-i
(q - g) . r_j). F is the transform, in the convention of `braggshot.physics.fourier`, of a crystal whose phase is -g . u. Only one
element is allowed, so the atomic form factor is a constant factor. The slope of the form factor across the window of one peak,
polarisation and absorption are neglected.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# Largest number of phase factors held in memory at a time. An atom has z * y of them, for a volume of (z, y, x) voxels.
ELEMENTS_PER_CHUNK = 2**21


def diffract_atoms(positions: Tensor, q: Tensor, basis: Tensor, shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    r"""Compute the amplitude that atoms scatter to every point q_k = q + basis @ (k - N // 2) of a grid in reciprocal space.

    On such a grid the exponential is a product of one factor per axis, so the sum is one matrix product over the atoms:

    .. math:: F_k = \sum_j \left( e^{-i (q + k_1 b_1) \cdot r_j} \, e^{-i k_2 b_2 \cdot r_j} \right) e^{-i k_3 b_3 \cdot r_j}

    r_j is the position of atom j. b_1, b_2 and b_3 are the columns of `basis`. The voxel numbers k_1, k_2 and k_3 count from the
    middle, N // 2.

    Parameters
    ----------
    positions : (n, 3) float64, atoms [m]
    q : (3,) float64, scattering vector of the voxel N // 2 [1/m]
    basis : (3, 3) float64, columns are the voxel edges, which may be skewed [1/m]
    shape : (z, y, x) of the result
    device : device that computes the sum

    Returns
    -------
    F : (z, y, x) complex64 [amplitude of one atom]
    """
    z, y, x = shape
    offsets = [torch.arange(size, dtype=torch.float64, device=device) - size // 2 for size in shape]
    total = torch.zeros(z * y, x, dtype=torch.complex64, device=device)
    chunk = max(1, ELEMENTS_PER_CHUNK // (z * y))
    for first in range(0, len(positions), chunk):
        r = positions[first : first + chunk].to(device)
        step = r @ basis.to(device)  # phase from voxel to voxel along each axis
        along_z, along_y, along_x = (step[:, axis, None] * offset for axis, offset in enumerate(offsets))
        along_z = along_z + (r @ q.to(device))[:, None]
        plane = _phasor(along_z)[:, :, None] * _phasor(along_y)[:, None, :]
        total.addmm_(plane.flatten(1).T, _phasor(along_x))
    return total.reshape(z, y, x)


def _phasor(phase: Tensor) -> Tensor:
    """Return exp(-i phase) in single precision.

    Phases are thousands of radians, so they are reduced to one turn in double precision first.
    """
    return torch.exp(-1j * torch.remainder(phase, 2 * math.pi).float())


def sum_on_grid(positions: Tensor, values: Tensor, basis: Tensor, shape: Sequence[int]) -> Tensor:
    """Sum `values` (n,), one per atom, over the atoms in each voxel (z, y, x) of direct space.

    The voxel with the index k lies at r = basis @ (k - N // 2).
    """
    middle = torch.tensor([size // 2 for size in shape])
    index = torch.linalg.solve(basis, positions.T).T.round().long() + middle
    z, y, x = shape
    flat = (index[:, 0] * y + index[:, 1]) * x + index[:, 2]
    return torch.zeros(z * y * x, dtype=values.dtype).index_add_(0, flat, values).reshape(z, y, x)
