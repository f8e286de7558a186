r"""Project onto modulus and support, update the support, hold voxels out.

Arrays are in the *corner* layout (origin at index 0), so that no transform needs a shift. The object rho is projected onto the
measured intensity I by P_M, and onto the support S by P_S:

.. math::
    P_M \rho = \mathcal{F}^{-1}\!\left[\frac{\sqrt{I}}{|F|}\,F\right], \quad F = \mathcal{F}\rho, \qquad P_S \rho = S \rho

Voxels *float* if they are not trusted (masked) or not shown to the phasing (held out). The factor sqrt(I) / |F| is 1 on floating
voxels, so that they keep the value of the model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from braggshot.iterative.kernels import impose_magnitude, scale_separably, squared_modulus
from braggshot.physics.forward import convolve_psf
from braggshot.physics.fourier import AXES, frequencies, to_centre, to_corner


@dataclass(frozen=True)
class Measured:
    """A measurement as the iterations use it: in corner layout (origin at index 0), on one device.

    Parameters
    ----------
    magnitude : sqrt(intensity), 0 on floating voxels, (z, y, x) float32 [sqrt(photons)]
    floating : flat indices of voxels that float (masked or held out)
    free : flat indices of the held-out voxels alone
    intensity : all counts, also of the held-out voxels [photons]
    valid : trusted voxels, held-out ones included
    """

    magnitude: Tensor
    floating: Tensor
    free: Tensor
    intensity: Tensor
    valid: Tensor

    @property
    def shape(self) -> torch.Size:
        """Shape (z, y, x) of the pattern."""
        return self.magnitude.shape

    @cached_property
    def target(self) -> Tensor:
        """Measured magnitudes; -1 on masked and held-out voxels, whose magnitude the modulus projection leaves alone."""
        return self.magnitude.reshape(-1).index_fill(0, self.floating, -1.0).view(self.shape)

    @cached_property
    def photons(self) -> float:
        """Sum of the counts that the phasing sees [photons]."""
        return float(self.magnitude.square().sum())


def measured(intensity: Tensor, valid: Tensor, held_out: Tensor) -> Measured:
    """Move the origin of a measurement from N // 2 to index 0, and list its masked and its held-out voxels.

    Parameters
    ----------
    intensity : (z, y, x) [photons]
    valid : (z, y, x) True on trusted voxels
    held_out : (z, y, x) True on the valid voxels to keep from the phasing
    """
    intensity, valid, held_out = to_corner(intensity.float()), to_corner(valid), to_corner(held_out & valid)
    floating = ~valid | held_out
    return Measured(
        magnitude=intensity.clamp_min(0).sqrt().masked_fill(floating, 0).contiguous(),
        floating=floating.reshape(-1).nonzero().squeeze(1),
        free=held_out.reshape(-1).nonzero().squeeze(1),
        intensity=intensity.contiguous(),
        valid=valid.contiguous(),
    )


def project_modulus(rho: Tensor, data: Measured, coherence: Tensor | None = None) -> Tensor:
    r"""Compute the modulus projection of `rho` (batch, z, y, x): its transform F is scaled by sqrt(I) / |F| on the voxels seen.

    With partial coherence the model intensity is :math:`|F|^2 * p`, the convolution with the point spread p, whose transform is
    `coherence`. F is then scaled by :math:`\sqrt{I / (|F|^2 * p)}` (Clark et al., Nat. Commun. 3, 993 (2012)).
    """
    field = torch.fft.fftn(rho, dim=AXES, norm="ortho")
    model = None if coherence is None else convolve_psf(squared_modulus(field), coherence)
    impose_magnitude(field, data.target, model)
    return torch.fft.ifftn(field, dim=AXES, norm="ortho")


def autocorrelation_support(magnitude: Tensor, threshold: Tensor, extent: float) -> Tensor:
    r"""Guess the first support, (n, z, y, x) bool, from where the autocorrelation exceeds a fraction of its maximum.

    The autocorrelation :math:`\mathcal{F}^{-1} I` of an object reaches twice as far as the object. The region above the threshold
    is shrunk by the factor `extent`: 1 keeps the whole region, 0.5 gives the size of the object. If `extent` is large enough, the
    support then holds a convex crystal completely.

    Parameters
    ----------
    magnitude : magnitudes of n patterns, (n, z, y, x) [sqrt(photons)]
    threshold : threshold of each pattern, relative to the maximum of its autocorrelation, (n,) [1]
    extent : factor by which the region is shrunk along each axis [1]
    """
    correlation = torch.fft.ifftn(magnitude.square(), dim=AXES, norm="ortho").abs()
    level = threshold.to(magnitude.device)[:, None, None, None] * correlation.amax(AXES, keepdim=True)
    region = to_centre((correlation > level).float())
    theta = torch.diag(torch.full((3,), 1 / extent)).to(region.device)
    # affine_grid wants x, y, z and normalised coordinates about the array's middle, (N - 1) / 2; the origin is at N // 2.
    offset = torch.tensor([(1 - 1 / extent) * (2 * (n // 2) - (n - 1)) / n for n in reversed(region.shape[1:])])
    grid = torch.nn.functional.affine_grid(
        torch.cat([theta, offset.to(region.device)[:, None]], 1)[None], [1, 1, *region.shape[1:]], align_corners=False
    )
    # The patterns are channels of one sample, so that they share the grid.
    return to_corner(torch.nn.functional.grid_sample(region[None], grid, align_corners=False)[0] > 0.5)


@dataclass(frozen=True)
class ShrinkWrap:
    """Settings of the support update, shrink-wrap (Marchesini et al., Phys. Rev. B 68, 140101 (2003)).

    Parameters
    ----------
    period : iterations between updates; 0 updates the support only at ``SW`` steps of the recipe
    sigma_start, sigma_end : Gaussian width of the blur at the beginning of the recipe, and from the fraction `sigma_settle` on
        [voxels]
    sigma_settle : fraction of the recipe after which the width of the blur stays constant [1]
    threshold : bounds between which each start draws its own threshold, relative to `relative_to` [1]
    relative_to : "max", "rms" or "average" of the blurred amplitude, the latter two inside the present support; with "volume" the
        threshold is the share of the array that the support fills with its brightest voxels
    smallest, largest : least and largest share of the array that the support may fill; outside these limits the threshold is
        divided or multiplied by 1.1, and the update tried again [1]
    retries : largest number of times that an update is tried again
    """

    period: int = 20
    sigma_start: float = 2.0
    sigma_end: float = 1.0
    sigma_settle: float = 0.6
    threshold: tuple[float, float] = (0.29, 0.31)
    relative_to: Literal["max", "rms", "average", "volume"] = "rms"
    smallest: float = 1e-4
    largest: float = 0.5
    retries: int = 10

    def sigma(self, progress: float) -> float:
        """Compute the blur width [voxels] at a fraction `progress` of the recipe; it falls geometrically from start to end."""
        share = min(1.0, progress / self.sigma_settle) if self.sigma_settle > 0 else 1.0
        return float(self.sigma_start * (self.sigma_end / self.sigma_start) ** share)


def blur(amplitude: Tensor, sigma: float) -> Tensor:
    """Blur real fields (..., z, y, x) by a Gaussian of width `sigma` [voxels], circularly."""
    if sigma <= 0:
        return amplitude
    shape = amplitude.shape[-3:]
    z, y, x = (torch.exp(-2 * (math.pi * sigma * f.flatten()) ** 2) for f in frequencies(shape, amplitude.device))
    spectrum = torch.fft.rfftn(amplitude, dim=AXES)
    scale_separably(spectrum, z, y, x[: spectrum.shape[-1]].contiguous())
    return torch.fft.irfftn(spectrum, s=shape, dim=AXES)


def shrink_wrap(rho: Tensor, support: Tensor, threshold: Tensor, settings: ShrinkWrap, progress: float) -> tuple[Tensor, Tensor]:
    """Update the support of every start; returns the supports and the thresholds that gave them.

    A support that is too large for `settings` is computed again with the threshold multiplied by 1.1; one that is too small, with
    the threshold divided by 1.1. The last threshold tried is returned. If no trial fits, the old support is returned with it.

    Parameters
    ----------
    rho : (batch, z, y, x) complex
    support : (batch, z, y, x) bool
    threshold : (batch,) [1]
    progress : fraction of the recipe done [1]
    """
    amplitude = blur(squared_modulus(rho).sqrt_(), settings.sigma(progress))
    if settings.relative_to == "volume":
        return _brightest(amplitude, threshold.clamp(settings.smallest, settings.largest)), threshold
    level, threshold = _level(amplitude, support, settings.relative_to), threshold.to(rho.device)
    settled = torch.zeros_like(threshold, dtype=torch.bool)
    for _ in range(settings.retries + 1):
        candidate = amplitude > (threshold * level)[:, None, None, None]
        share = candidate.float().mean(AXES)
        fits = (settings.smallest <= share) & (share <= settings.largest) & ~settled
        support, settled = torch.where(fits[:, None, None, None], candidate, support), settled | fits
        if settled.all():
            break
        retried = threshold * torch.where(share > settings.largest, 1.1, 1 / 1.1)
        threshold = torch.where(settled, threshold, retried)
    return support, threshold


def _brightest(amplitude: Tensor, share: Tensor) -> Tensor:
    """Return the brightest voxels of each start, which fill a share of the array."""
    voxels = amplitude[0].numel()
    kept = (share * voxels).long().clamp(1, voxels - 1).tolist()
    levels = [field.flatten().kthvalue(voxels - number).values for field, number in zip(amplitude, kept, strict=True)]
    return amplitude > torch.stack(levels)[:, None, None, None]


def _level(amplitude: Tensor, support: Tensor, relative_to: str) -> Tensor:
    if relative_to == "max":
        return amplitude.amax(AXES)
    inside, count = amplitude * support, support.sum(AXES).clamp_min(1)
    if relative_to == "rms":
        return (inside.square().sum(AXES) / count).sqrt()
    return inside.sum(AXES) / count


def held_out_voxels(
    valid: Tensor, fraction: float = 0.05, radius: int = 1, keep_centre: float = 0.1, *, generator: torch.Generator
) -> Tensor:
    """Draw small balls of valid voxels to hold out, (z, y, x) bool, origin at N // 2.

    Single voxels would not test the phasing: neighbours share a speckle, so a lone voxel could be predicted from its neighbours.
    PyNX holds out islands of voxels for the same reason.

    Parameters
    ----------
    valid : (z, y, x) bool
    fraction : share of the valid voxels to hold out [1]
    radius : radius of the balls [voxels]
    keep_centre : radius about the Bragg peak, as a fraction of each axis, that is never held out [1]
    """
    if fraction <= 0:
        return torch.zeros_like(valid)
    shape = valid.shape
    offsets = _ball(radius)
    target, wanted = torch.zeros_like(valid), fraction * float(valid.sum())
    n_balls = math.ceil(wanted / len(offsets))
    limits = torch.tensor(shape)
    for _ in range(20):  # balls overlap and meet the mask, so a first draw falls short
        centres = torch.stack([torch.randint(n, (n_balls,), generator=generator) for n in shape], 1)
        points = (centres[:, None] + offsets[None]).reshape(-1, 3)
        points = points[((points >= 0) & (points < limits)).all(1)]
        target[tuple(points.T)] = True
        target &= valid & ~_centre(shape, keep_centre)
        n_balls = math.ceil((wanted - float(target.sum())) / len(offsets))
        if n_balls <= 0:
            break
    return target


def _ball(radius: int) -> Tensor:
    r = torch.arange(-radius, radius + 1)
    grid = torch.cartesian_prod(r, r, r)
    return grid[grid.square().sum(1) <= radius**2]


def _centre(shape: Sequence[int], share: float) -> Tensor:
    z, y, x = (torch.fft.fftshift(f) for f in frequencies(shape))
    return z**2 + y**2 + x**2 < share**2
