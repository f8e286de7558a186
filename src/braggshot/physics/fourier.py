r"""Transform between direct and reciprocal space, pad and crop about the centre.

.. math:: F_k = \frac{1}{\sqrt{N}} \sum_n \rho_n \, e^{-2\pi i\, k \cdot n / N}, \qquad n, k \text{ counted from } N // 2

The transform is unitary and centred at ``N // 2`` on odd and even sizes alike. With this sign the phase of an object with
displacement u is -q.u, as in PyNX and AutoPhaseNN; the program cohere uses the complex conjugate. Iterations work in the *corner*
layout (origin at index 0), which needs no shifts: `to_corner` changes to this layout, `to_centre` back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

AXES = (-3, -2, -1)  # the axes z, y, x, which are the last three axes of an array


def to_corner(field: Tensor) -> Tensor:
    """Move the origin from N // 2 to index 0 on the last three axes."""
    return torch.fft.ifftshift(field, dim=AXES)


def to_centre(field: Tensor) -> Tensor:
    """Move the origin from index 0 to N // 2 on the last three axes; the inverse of `to_corner` on any size."""
    return torch.fft.fftshift(field, dim=AXES)


def fourier(rho: Tensor) -> Tensor:
    """Transform (..., z, y, x) from direct to reciprocal space, with the origin at N // 2 in both spaces."""
    return to_centre(torch.fft.fftn(to_corner(rho), dim=AXES, norm="ortho"))


def inverse_fourier(field: Tensor) -> Tensor:
    """Transform from reciprocal to direct space; inverse and adjoint of `fourier`."""
    return to_centre(torch.fft.ifftn(to_corner(field), dim=AXES, norm="ortho"))


def inverted(field: Tensor, axes: Sequence[int] = AXES) -> Tensor:
    """Invert a field through the voxel N // 2 on some axes; on even sizes index 0, which has no partner, stays."""
    # A flip takes index i to N - 1 - i; on even sizes the origin N // 2 then has to move up by one.
    return torch.roll(field.flip(list(axes)), [1 - field.shape[a] % 2 for a in axes], list(axes)) if axes else field


def crop(field: Tensor, shape: Sequence[int]) -> Tensor:
    """Keep the central part of the last three axes: index N // 2 of `field` becomes index n // 2 of the result.

    Raises
    ------
    ValueError : if `shape` is larger than the field on any axis; use `pad`.
    """
    return field[_window(field.shape[-3:], shape)]


def pad(field: Tensor, shape: Sequence[int]) -> Tensor:
    """Enlarge the last three axes of a field to `shape` by zeros around it; the middle voxel, index N // 2, stays in the middle.

    `crop` undoes `pad`, and `pad` is the adjoint of `crop`.

    Raises
    ------
    ValueError : if `shape` is smaller than the field on any axis; use `crop`.
    """
    padded = field.new_zeros((*field.shape[:-3], *shape))
    padded[_window(shape, field.shape[-3:])] = field
    return padded


def _window(large: Sequence[int], small: Sequence[int]) -> Any:
    """Make the index that selects the central part, of shape `small`, of an array whose last three axes have the shape `large`."""
    if any(s > n for s, n in zip(small, large, strict=True)):
        raise ValueError(f"shape {tuple(small)} does not fit into {tuple(large)}")
    return (..., *(slice(n // 2 - s // 2, n // 2 - s // 2 + s) for n, s in zip(large, small, strict=True)))


def frequencies(shape: Sequence[int], device: torch.device | str = "cpu") -> list[Tensor]:
    """Compute the frequencies k / N, zero at index 0, as one tensor per axis that broadcasts to the grid [cycles per voxel]."""
    grids = []
    for axis, size in enumerate(shape):
        view = [1] * len(shape)
        view[axis] = size
        grids.append(torch.fft.fftfreq(size, device=device).reshape(view))
    return grids


def centre_of_mass(weight: Tensor) -> list[Tensor]:
    r"""Find the centre of mass of weights w (..., z, y, x) on a periodic grid, relative to the voxel N // 2 [voxels].

    .. math:: c_a = \frac{N_a}{2 \pi} \arg \sum_n w_n\, e^{2 \pi i\, n_a / N_a}, \qquad n \text{ counted from } N // 2

    N_a is the size of axis a. The result holds one tensor (..., 1, 1, 1) per axis.
    """
    centres = []
    for axis in AXES:
        size = weight.shape[axis]
        profile = weight.sum([other for other in AXES if other != axis], keepdim=True)
        index = (torch.arange(size, device=weight.device) - size // 2).reshape([-1 if other == axis else 1 for other in AXES])
        centres.append(
            torch.angle((profile * torch.exp(2j * math.pi * index / size)).sum(axis, keepdim=True)) * size / (2 * math.pi)
        )
    return centres


def in_the_middle(rho: Tensor) -> Tensor:
    r"""Shift objects (..., z, y, x) so that the centre of mass of \|rho\|^2 on the periodic grid is exactly at N // 2."""
    transform = torch.fft.fftn(rho, dim=AXES)
    for frequency, centre in zip(frequencies(rho.shape[-3:], rho.device), centre_of_mass(rho.abs().square()), strict=True):
        transform = transform * torch.exp(2j * math.pi * frequency * centre)
    return torch.fft.ifftn(transform, dim=AXES)
