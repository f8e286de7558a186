r"""Compute the diffracted intensity of a complex crystal in a fully or partially coherent beam.

.. math:: I(q) = \left( |\mathcal{F}[\rho]|^2 * p \right)(q), \qquad \mathcal{F}[p] = \Gamma

Here :math:`\rho` is the crystal, :math:`p` the point spread of a partially coherent beam in reciprocal space, * the convolution,
and :math:`\Gamma` the mutual coherence, which multiplies the autocorrelation of the crystal. A global phase, a circular translation
and the conjugate inversion (the twin) of the crystal leave I(q) unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from braggshot.physics.fourier import AXES, fourier, frequencies, to_centre, to_corner


@dataclass(frozen=True)
class PointSpread:
    r"""Pseudo-Voigt point spread of unit sum, given by its transform.

    .. math:: \Gamma(f) = (1 - \eta)\, e^{-2 \pi^2 \sum_a \sigma_a^2 f_a^2}
              + \eta\, e^{-2 \pi \sqrt{2 \ln 2}\, \sqrt{\sum_a \sigma_a^2 f_a^2}}

    f_a is the frequency along axis a [cycles per reciprocal voxel].

    Parameters
    ----------
    sigma : Gaussian standard deviation per axis (z, y, x); the Lorentzian has the same half width [reciprocal voxels]
    eta : Lorentzian share, 0 (Gaussian) to 1 [1]
    """

    sigma: tuple[float, float, float]
    eta: float = 0.0


def mutual_coherence(sigma: Tensor, eta: Tensor, shape: Sequence[int]) -> Tensor:
    """Compute the transform Γ of a `PointSpread` on the half grid of `torch.fft.rfftn`, with frequency zero at index 0.

    Γ is differentiable in `sigma` and `eta`.
    """
    gaussian, lorentzian, _ = _shapes(sigma, _half_grid(shape, sigma.device))
    return (1 - eta) * gaussian + eta * lorentzian


def coherence_slopes(sigma: Tensor, eta: Tensor, shape: Sequence[int]) -> list[Tensor]:
    r"""Differentiate the transform of a `PointSpread` with respect to :math:`\sigma_z^2, \sigma_y^2, \sigma_x^2, \eta`.

    Each derivative is an array on the half grid of `torch.fft.rfftn`.
    """
    grid = _half_grid(shape, sigma.device)
    gaussian, lorentzian, width = _shapes(sigma, grid)
    common = -2 * math.pi**2 * (1 - eta) * gaussian - _LORENTZIAN / 2 * eta * lorentzian / width
    return [common * f**2 for f in grid] + [lorentzian - gaussian]


# Factor c in exp(-c sigma f) [1], f the frequency. This is the transform of the Lorentzian that is as wide at half its height as a
# Gaussian of standard deviation sigma.
_LORENTZIAN = 2 * math.pi * math.sqrt(2 * math.log(2))


def _shapes(sigma: Tensor, grid: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the Gaussian and the Lorentzian part of a `PointSpread`'s transform, and sqrt(sum (sigma f)^2) at frequencies f."""
    squared = sum((s * f) ** 2 for s, f in zip(sigma, grid, strict=True))
    assert isinstance(squared, Tensor)
    # The square root has no slope at the origin; a floor far below one grid step keeps it finite there.
    width = torch.sqrt(squared + 1e-12)
    return torch.exp(-2 * math.pi**2 * squared), torch.exp(-_LORENTZIAN * width), width


def _half_grid(shape: Sequence[int], device: torch.device) -> list[Tensor]:
    z, y, x = frequencies(shape, device)
    return [z, y, x[..., : shape[-1] // 2 + 1].abs()]


def convolve_psf(intensity: Tensor, coherence: Tensor) -> Tensor:
    """Convolve an intensity (..., z, y, x), origin at index 0, with the point spread whose transform is `coherence`.

    The convolution is circular and keeps the sum. The rounding error of the transforms scales with the brightest voxel and may
    exceed a dark voxel. So the result is kept at least at p(0) I(q), the part of its own intensity that a voxel keeps.
    """
    return convolve_from_autocorrelation(torch.fft.rfftn(intensity, dim=AXES), coherence, intensity)


def convolve_from_autocorrelation(autocorrelation: Tensor, coherence: Tensor, intensity: Tensor) -> Tensor:
    """Convolve an intensity like `convolve_psf`, given the transform of the intensity: the autocorrelation of the crystal."""
    shape = intensity.shape[-3:]
    blurred = torch.fft.irfftn(autocorrelation * coherence, s=shape, dim=AXES)
    return torch.maximum(blurred, central_weight(coherence, shape) * intensity)


def central_weight(coherence: Tensor, shape: Sequence[int]) -> Tensor:
    """Compute the centre p(0) of a point spread, the mean of its transform Γ over the whole grid, as (..., 1, 1, 1)."""
    columns = coherence.sum((-3, -2))
    total = 2 * columns.sum(-1) - columns[..., 0] - (columns[..., -1] if shape[-1] % 2 == 0 else 0)
    return (total / math.prod(shape))[..., None, None, None]


def intensity(rho: Tensor, psf: PointSpread | None = None) -> Tensor:
    """Compute the intensity on the reciprocal grid of `rho`, with the origin at N // 2 in both spaces.

    Parameters
    ----------
    rho : complex object (..., z, y, x) [sqrt(photons)]
    psf : point spread of the beam; None for full coherence

    Returns
    -------
    |F[rho]|^2, blurred by `psf` [photons]
    """
    coherent = fourier(rho).abs().square()
    if psf is None:
        return coherent
    sigma = torch.tensor(psf.sigma, dtype=coherent.dtype, device=coherent.device)
    coherence = mutual_coherence(sigma, torch.tensor(psf.eta, dtype=coherent.dtype, device=coherent.device), rho.shape[-3:])
    return to_centre(convolve_psf(to_corner(coherent), coherence))


def fill_gaps(counts: Tensor, valid: Tensor, rho: Tensor, psf: PointSpread | None = None) -> Tensor:
    """Fill the gaps of a measurement: counts where they are trusted, elsewhere the intensity that the crystal would give.

    Parameters
    ----------
    counts, valid : measured counts [photons] and where they are trusted, origin at N // 2
    rho : the crystal that was found, scaled to the counts [sqrt(photons)]
    psf : point spread of the beam; None for full coherence
    """
    return torch.where(valid, counts, intensity(rho, psf).to(counts.dtype))
