r"""Measure the resolution of a reconstruction [m] by three methods.

.. math::
    \mathrm{FSC}(q) = \frac{|\sum_{shell} F_1 F_2^*|}{\sqrt{\sum_{shell} |F_1|^2 \sum_{shell} |F_2|^2}}, \qquad
    A(t) = \frac{A_0}{2}\left[1 + \mathrm{erf}\frac{t}{\sqrt 2\,\sigma}\right]

F_1 and F_2 are the transforms of two aligned reconstructions. A(t) is the mean amplitude at the distance t inside the surface, A_0
that of the bulk, sigma the width of the surface.

PRTF: full period where the phase retrieval transfer function falls to 1/e (`metrics.prtf`). FSC: full period where the Fourier
shell correlation of two reconstructions falls to a threshold; van Heel & Schatz, J. Struct. Biol. 151, 250 (2005). Edge: 10 to 90 %
width, 2.563 sigma, of the mean amplitude across the surface, if the true crystal has a sharp surface.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, special
from torch import Tensor

from braggshot.physics.fourier import fourier, to_corner
from braggshot.physics.surface import find_surface
from braggshot.volumes import BoolArray, FloatArray

# Value of the Fourier shell correlation (FSC) at which the resolution is read off, if the two reconstructions are from all counts
# and so share the noise of the counts [1].
HALF = 0.5
# Value of the Fourier shell correlation (FSC) at which the resolution is read off, if each of the two reconstructions is from one
# half of the counts [1]. Where their FSC is 1/7, the FSC of a reconstruction from all counts with the true crystal would be 1/2
# (Rosenthal & Henderson, J. Mol. Biol. 333, 721 (2003)).
SEVENTH = 1 / 7
_REACH = 5  # distance on either side of the surface over which the amplitude profile is fitted [voxels]


def shell_correlation(first: Tensor, second: Tensor, number: Tensor) -> Tensor:
    """Compute the Fourier shell correlation, one value per shell, of two aligned fields (z, y, x), centred at N // 2.

    `number` holds the shell of each voxel, as `metrics.shells` returns it.
    """
    one, other = to_corner(fourier(first)).to(torch.complex128), to_corner(fourier(second)).to(torch.complex128)
    inside = number >= 0
    index, count = number[inside], int(number.max()) + 1

    def total(values: Tensor) -> Tensor:
        return torch.zeros(count, dtype=values.dtype).index_add_(0, index, values[inside])

    power = total(one.abs().square()) * total(other.abs().square())
    return total(one * other.conj()).abs() / power.sqrt().clamp_min(1e-30)


def cutoff(curve: FloatArray, frequency: FloatArray, threshold: float) -> float:
    """Compute the resolution 2 pi / q, with q the frequency at which a curve first falls to `threshold`.

    If the curve stays above, q is the last frequency; if it is below from the beginning, the first.
    """
    below = np.flatnonzero(np.asarray(curve) < threshold)
    if not below.size:
        return float(2 * math.pi / frequency[-1])
    end = below[0]
    if end == 0:
        return float(2 * math.pi / frequency[0])
    start = end - 1
    share = (curve[start] - threshold) / (curve[start] - curve[end])
    return float(2 * math.pi / (frequency[start] + share * (frequency[end] - frequency[start])))


def edge_width(amplitude: FloatArray, bulk: BoolArray, basis: FloatArray, level: float) -> float | None:
    """Fit the 10 to 90 % width [m] of the amplitude across the surface at `level`; None where no step can be fitted.

    Parameters
    ----------
    amplitude : (z, y, x)
    bulk : voxels well inside, whose median is the height of the step
    basis : columns are the voxel edges [m]
    """
    surface = find_surface(amplitude, level, basis, smoothing=0) if bulk.any() and amplitude.min() < level else None
    if surface is None:
        return None
    few = slice(None, None, max(1, len(surface.index) // 4000))
    index, inwards = surface.index[few].T, -surface.normals[few].T
    voxel = abs(np.linalg.det(basis)) ** (1 / 3)
    t = np.linspace(-_REACH, _REACH, 41) * voxel
    places = index[:, :, None] + (np.linalg.inv(basis) @ inwards)[:, :, None] * t
    profile = np.mean(ndimage.map_coordinates(surface.amplitude, places, order=1), axis=0)
    return _width(t / voxel, profile / np.median(amplitude[bulk]), voxel)


def _width(t: FloatArray, profile: FloatArray, voxel: float) -> float | None:
    from scipy import optimize  # here, because it takes long to import and not every scan needs it

    def step(t: FloatArray, height: float, middle: float, sigma: float) -> NDArray[np.float64]:
        return np.asarray(height / 2 * (1 + special.erf((t - middle) / (math.sqrt(2) * sigma))))

    try:
        found, _ = optimize.curve_fit(step, t, profile, (1.0, 0.0, 1.0), bounds=((0.2, -_REACH, 0.05), (3.0, _REACH, 2.0 * _REACH)))
    except RuntimeError:
        return None
    return float(2.563 * found[2] * voxel)
