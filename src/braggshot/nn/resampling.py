r"""Bring any volume to the sampling and shape that the network was trained on, and the network's objects back to its grid.

Patterns that are sampled more finely than the network needs are resampled at wider spacings
(`braggshot.iterative.spacing`), with which the crystal fills the network's box. Fringes beyond the largest array that a network
takes are left out, which makes direct-space voxels larger: a 160 x 128 x 128 pattern becomes 64 x 64 x 64, the crystal at a lower
resolution. A refinement on the original grid has to add the missing details. Objects return to the original grid exactly, by the
definition of the Fourier transform.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from braggshot.iterative.spacing import Spacing, along_axes
from braggshot.nn.network import STRIDE
from braggshot.nn.two_scale import CENTRAL
from braggshot.physics.fourier import inverse_fourier

SAMPLED = 2.65  # oversampling per axis to which more finely sampled patterns are brought [1]


def sampling(shape: Sequence[int], oversampling: Sequence[float] | None, most: int = CENTRAL) -> Spacing:
    """Choose spacings that reduce a larger oversampling to `SAMPLED` (2.65), and a shape that the network takes.

    Parameters
    ----------
    shape : shape of the volume
    oversampling : measured oversampling per axis; None leaves the sampling as it is
    most : largest number of samples per axis
    """
    c, b, a = (max(1.0, s / SAMPLED) for s in oversampling or (SAMPLED,) * 3)
    sizes = (min(most, STRIDE * math.ceil(n / spacing / STRIDE)) for n, spacing in zip(shape, (c, b, a), strict=True))
    (z, y, x), (n, m, k) = shape, sizes
    return Spacing((z, y, x), (c, b, a), (n, m, k), (SAMPLED,) * 3)


def to_original_grid(rho: Tensor, how: Spacing) -> Tensor:
    r"""Bring objects in the network's box, (..., z / 2, y / 2, x / 2), to the grid of the original volume; |F| stays the same.

    .. math:: F_k = \sum_r \rho_r\, e^{-2 \pi i k r / (M w)}, \qquad -M w / 2 \le k < M w / 2

    F_k is the amplitude at the voxel k of the volume, and rho_r the object at the voxel r of the box. The network saw M samples of
    spacing w; F_k is zero beyond these samples.
    """
    waves = []
    for n, samples, w, box in zip(how.original, how.shape, how.spacing, rho.shape[-3:], strict=True):
        k, r = (torch.arange(size, dtype=torch.float64, device=rho.device) - size // 2 for size in (n, box))
        seen = (k >= -samples * w / 2) & (k < samples * w / 2)
        wave = torch.exp(-2j * math.pi * k[:, None] * r / (samples * w)) * seen[:, None]
        waves.append((wave / math.sqrt(samples * w)).to(rho.dtype))
    return inverse_fourier(along_axes(waves, rho))
