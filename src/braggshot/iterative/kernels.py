r"""Compute the formulas of an iteration that act on each voxel by itself, each in one sweep over memory.

On a CPU the Fourier transforms are so fast that the time of every sweep matters. So for the CPU the formulas are compiled (numba),
and one loop does all that changes the same voxels. On a GPU the same formulas run as torch operations. Fields are (batch, z, y, x),
in corner layout (origin at index 0).

The compiled loops run over rows; a row holds the voxels of one z plane of one start. Sums run in single precision within a row,
in double over rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from braggshot.physics.loops import compiled

_TINY = 1e-30  # small intensity that is added to an intensity in a denominator, which may be zero [photons]
_F32_TINY, _F32_ONE = np.float32(_TINY), np.float32(1)


def impose_magnitude(field: Tensor, target: Tensor, model: Tensor | None = None) -> None:
    r"""Scale `field`, in place, to the magnitudes `target`, :math:`F \leftarrow F\, t / \sqrt{M}`, with t the target.

    Parameters
    ----------
    field : (batch, z, y, x) complex64
    target : (z, y, x) magnitudes; negative where a voxel keeps its magnitude
    model : intensity M that the field predicts, (batch, z, y, x); None for :math:`|F|^2`
    """
    if field.is_cpu and model is None:
        _impose_magnitude(_rows(field), _rows(target))
        return
    if field.is_cpu and model is not None:
        _impose_ratio(_rows(field), _rows(target), _rows(model))
        return
    power = squared_modulus(field) if model is None else model
    field.mul_(torch.where(target < 0, 1.0, target * torch.rsqrt(power + _TINY)))


@compiled
def _impose_magnitude(field: NDArray[Any], target: NDArray[Any]) -> None:
    for row in range(field.shape[0]):
        values, wanted = field[row], target[row % target.shape[0]]
        for i in range(values.size):
            value = values[i]
            factor = wanted[i] / np.sqrt(value.real * value.real + value.imag * value.imag + _F32_TINY)
            factor = factor if wanted[i] >= 0 else _F32_ONE
            values[i] = complex(value.real * factor, value.imag * factor)


@compiled
def _impose_ratio(field: NDArray[Any], target: NDArray[Any], model: NDArray[Any]) -> None:
    for row in range(field.shape[0]):
        values, wanted, power = field[row], target[row % target.shape[0]], model[row]
        for i in range(values.size):
            factor = wanted[i] / np.sqrt(power[i] + _F32_TINY)
            factor = factor if wanted[i] >= 0 else _F32_ONE
            values[i] = complex(values[i].real * factor, values[i].imag * factor)


def relax(rho: Tensor, projected: Tensor, support: Tensor, old: float, new: float, measure: bool = True) -> Tensor | None:
    r"""Set `rho`, in place, to its projection :math:`P` inside the support and to :math:`a \rho + b P` outside.

    Parameters
    ----------
    rho, projected : :math:`\rho` and :math:`P`, (batch, z, y, x) complex64
    support : (batch, z, y, x) bool
    old, new : a and b
    measure : True to compute the squared distance between `projected` and the old `rho`

    Returns
    -------
    Squared distance :math:`\sum |P - \rho|^2` to the old :math:`\rho`, (batch,); None unless `measure` is True
    """
    if rho.is_cpu:
        distance = np.empty(rho.shape[0] * rho.shape[1], np.float32)
        _relax(_rows(rho), _rows(projected), _rows(support), np.float32(old), np.float32(new), distance)
        return torch.from_numpy(distance).view(rho.shape[0], -1).sum(1, dtype=torch.float64).float() if measure else None
    squared = squared_modulus(projected - rho).sum((1, 2, 3)) if measure else None
    torch.where(support, projected, old * rho + new * projected, out=rho)
    return squared


@compiled
def _relax(
    rho: NDArray[Any], projected: NDArray[Any], support: NDArray[Any], old: np.float32, new: np.float32, distance: NDArray[Any]
) -> None:
    for row in range(rho.shape[0]):
        values, goals, inside, total = rho[row], projected[row], support[row], np.float32(0)
        for i in range(values.size):
            value, goal = values[i], goals[i]
            real, imag = goal.real - value.real, goal.imag - value.imag
            total += real * real + imag * imag
            a, b = (np.float32(0), np.float32(1)) if inside[i] else (old, new)
            values[i] = complex(a * value.real + b * goal.real, a * value.imag + b * goal.imag)
        distance[row] = total


def squared_modulus(field: Tensor) -> Tensor:
    r"""Compute :math:`|F|^2` of a complex field of any shape."""
    if field.is_cpu:
        power = torch.empty(field.shape, dtype=torch.float32)
        _squared_modulus(field.contiguous().view(-1).numpy(), power.view(-1).numpy())
        return power
    return torch.view_as_real(field).square().sum(-1)


@compiled
def _squared_modulus(field: NDArray[Any], power: NDArray[Any]) -> None:
    for i in range(field.size):
        power[i] = field[i].real * field[i].real + field[i].imag * field[i].imag


def scale_separably(field: Tensor, z: Tensor, y: Tensor, x: Tensor) -> None:
    """Multiply `field` (batch, z, y, x), in place, by the real profiles z, y and x along its axes."""
    if field.is_cpu:
        plane = (y[:, None] * x).reshape(-1)
        _scale_rows(_rows(field), z.numpy(), plane.numpy())
        return
    field.mul_(z[:, None, None] * y[:, None] * x)


@compiled
def _scale_rows(field: NDArray[Any], height: NDArray[Any], plane: NDArray[Any]) -> None:
    for row in range(field.shape[0]):
        values, scale = field[row], height[row % height.size]
        for i in range(values.size):
            factor = scale * plane[i]
            values[i] = complex(values[i].real * factor, values[i].imag * factor)


def _rows(field: Tensor) -> NDArray[Any]:
    """View a field (..., z, y, x) as (rows, y * x), sharing memory."""
    return field.view(-1, field.shape[-2] * field.shape[-1]).numpy()
