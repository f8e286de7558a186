r"""Bring any volume to the sampling and shape that the network was trained on, and the network's objects back to its grid.

An intensity is band-limited, because the crystal is finite: its samples at an oversampling of 2 determine it everywhere. So a
pattern that is sampled more finely than the network needs is resampled at wider spacings w, with which its crystal fills the
network's box:

.. math:: I'_j = \prod_a w_a \frac{\sum_k L(k / w - j)\, I_k}{\sum_k L(k / w - j)},
   \qquad L(x) = \mathrm{sinc}(x)\, \mathrm{sinc}(x / 5), \quad |x| < 5

I_k are the counts of the voxels k, I'_j those of the samples j, and a numbers the axes. L is Lanczos' kernel, applied axis by axis;
the factors w_a keep the number of photons. Fringes beyond the largest array that a network takes are left out, which makes
direct-space voxels larger: a 160 x 128 x 128 pattern becomes 64 x 64 x 64, the crystal at a lower resolution. A refinement on the
original grid has to add the missing details. Objects return to the original grid exactly, by the definition of the Fourier
transform.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from braggshot.iterative.projections import blur
from braggshot.nn.network import STRIDE
from braggshot.nn.two_scale import CENTRAL
from braggshot.physics.autocorrelation import fill_unmeasured
from braggshot.physics.fourier import AXES, inverse_fourier, inverted

SAMPLED = 2.65  # oversampling per axis to which more finely sampled patterns are brought [1]
LOBES = 5  # number of lobes of Lanczos' kernel on either side
# Number of iterations that fill the voxels without valid counts. Each limits the band, then restores the valid counts.
TURNS = 10


@dataclass(frozen=True)
class Sampling:
    """Change of grid from the voxels of a volume to the samples that a network sees.

    Parameters
    ----------
    original : shape of the volume (z, y, x) [voxels]
    spacing : distance from one sample to the next, per axis, at least 1 [voxels of the volume]
    shape : number of samples per axis that the network sees; the middle sample lies on the voxel N // 2, and samples beyond the
        volume are not valid
    """

    original: tuple[int, int, int]
    spacing: tuple[float, float, float]
    shape: tuple[int, int, int]


def sampling(shape: Sequence[int], oversampling: Sequence[float] | None, most: int = CENTRAL) -> Sampling:
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
    return Sampling((z, y, x), (c, b, a), (n, m, k))


def to_network_grid(counts: Tensor, valid: Tensor, how: Sampling) -> tuple[Tensor, Tensor]:
    """Resample counts and the mask of valid voxels (..., z, y, x) for the network, centred at N // 2.

    A sample is valid where at least half of the kernel's weight lies on valid voxels. The kernel needs a smooth pattern, so voxels
    that are not valid are filled with counts that are plausible for a crystal of the measured extent.
    """
    kernels = [_kernel(*line, counts.device) for line in zip(how.original, how.shape, how.spacing, strict=True)]
    good = _along(kernels, valid.to(counts.dtype)) >= 0.5
    brought = math.prod(how.spacing) * _along(kernels, _filled(counts, valid, how)).clamp_min(0)
    return torch.where(good, brought, torch.zeros_like(brought)), good


def _kernel(n: int, samples: int, spacing: float, device: torch.device) -> Tensor:
    """Compute the weights (samples, n) with which n voxels along one axis add up to each sample.

    The weights of a sample are zero if more than half of its kernel lies beyond the voxels.
    """
    voxel, sample = (torch.arange(size, dtype=torch.float64, device=device) - size // 2 for size in (n, samples))
    x = voxel / spacing - sample[:, None]
    # Rounded: nothing at all from other voxels where a sample lies on one.
    weight = (torch.sinc(x) * torch.sinc(x / LOBES) * (x.abs() < LOBES)).round(decimals=12)
    total = weight.sum(1, keepdim=True)
    return torch.where(total >= spacing / 2, weight / total, 0).float()


def _along(matrices: Sequence[Tensor], field: Tensor) -> Tensor:
    """Multiply each of the last three axes of a field by a matrix of its own, (new length, old length)."""
    for axis, matrix in zip((-3, -2, -1), matrices, strict=True):
        field = (matrix @ field.transpose(axis, -2)).transpose(axis, -2)
    return field.contiguous()


def _filled(counts: Tensor, valid: Tensor, how: Sampling) -> Tensor:
    """Fill counts that are not valid with values that fit the band of the pattern, which the crystal's extent limits.

    The first values are those of I(-q), which differ from I(q) if the crystal is strained. Then two steps alternate: limit the
    band, and restore the valid counts (algorithm of Papoulis and Gerchberg).
    """
    filled: Tensor = fill_unmeasured(counts, valid, inverted, lambda field: blur(field.float(), 2.0))
    if max(how.spacing) == 1 or valid.all():
        return filled
    inside = torch.ones((), dtype=torch.bool, device=counts.device)
    for axis, (n, w) in enumerate(zip(how.original, how.spacing, strict=True)):
        shift = torch.fft.fftfreq(n, 1 / n, device=counts.device).abs()
        extent = 1.05 * n / (SAMPLED * w) + 1 if w > 1 else n
        inside = inside & (shift <= extent)[: n // 2 + 1 if axis == 2 else n].reshape([-1 if a == axis else 1 for a in range(3)])
    for _ in range(TURNS):
        limited = torch.fft.irfftn(torch.fft.rfftn(filled, dim=AXES) * inside, s=how.original, dim=AXES)
        filled = torch.where(valid, counts, limited.clamp_min(0))
    return filled


def to_original_grid(rho: Tensor, how: Sampling) -> Tensor:
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
    return inverse_fourier(_along(waves, rho))
