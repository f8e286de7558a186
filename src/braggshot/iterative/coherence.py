"""Estimate partial coherence while phasing: the point spread that turns |F|^2 into the measured intensity."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from braggshot.iterative.projections import Measured
from braggshot.physics.forward import PointSpread, coherence_slopes, convolve_from_autocorrelation, mutual_coherence
from braggshot.physics.fourier import AXES

_ANSCOMBE = 3 / 8  # constant of Anscombe's transform sqrt(counts + 3/8), whose noise is nearly the same at all counts [photons]
# Least width with which the fit of a pseudo-Voigt point spread begins [reciprocal voxels]. At width 0 the derivative of its
# Lorentzian part is infinite.
_LORENTZIAN_FROM = 0.3
_DARK = 1e-3  # lower limit of the model intensity by which counts are divided [photons]
# A voxel is sharpened (deconvolved) if more than this share of the point spread around it lies on voxels that the phasing sees [1].
_TOLD = 0.05
_SHARPENINGS = 100  # largest number of iterations that sharpen the counts
# Misfit below which the sharpening (deconvolution) of the counts ends [1]. The misfit is the mean of
# 4 (sqrt(model + 3/8) - sqrt(counts + 3/8))^2; photon noise alone gives 1.
_AS_NOISE = 0.8
# Ratio of the misfit to that one iteration earlier, above which the sharpening (deconvolution) of the counts ends as stalled [1].
_STALLED = 0.995
_FASTEST = 2.0  # largest factor by which one iteration of sharpening changes a voxel [1]
_STEPS = 8  # largest number of steps of the least-squares fit of the point spread
_SETTLED = 1e-4  # relative change of the sum of squares, in one step, below which the fit of the point spread ends [1]


@dataclass(frozen=True)
class Coherence:
    """Point spread of each start, and its transform on the half grid of `torch.fft.rfftn`, (batch, z, y, x // 2 + 1)."""

    spreads: tuple[PointSpread, ...]
    transfer: Tensor

    @classmethod
    def fitted(cls, rho: Tensor, data: Measured, previous: Coherence | None, shape: str = "gaussian") -> Coherence:
        r"""Minimise :math:`\sum_{seen} (\sqrt{|F|^2 * p + 3/8} - \sqrt{I + 3/8})^2` over the point spread p.

        The widths of p are fitted, and for "pseudo-voigt" its Lorentzian share. F is the transform of rho, I are the counts, * is
        the convolution, and the sum is over the voxels that the phasing sees.

        Parameters
        ----------
        rho : (batch, z, y, x) complex, zero outside the support, corner layout
        previous : point spreads from which the fit starts; None starts without blur
        shape : "gaussian" or "pseudo-voigt"
        """
        coherent = torch.fft.fftn(rho, dim=AXES, norm="ortho").abs().square()
        starts = [PointSpread((0.0,) * 3)] * rho.shape[0] if previous is None else list(previous.spreads)
        spreads = tuple(_fit(c, data, start, shape) for c, start in zip(coherent, starts, strict=True))
        transfer = [
            mutual_coherence(torch.tensor(s.sigma, device=rho.device), torch.tensor(s.eta, device=rho.device), data.shape)
            for s in spreads
        ]
        return cls(spreads, torch.stack(transfer))


def _fit(coherent: Tensor, data: Measured, start: PointSpread, shape: str) -> PointSpread:
    """Fit a point spread by Levenberg-Marquardt.

    The parameters are the variances along the axes and the Lorentzian share. Variances are fitted and not widths, because the
    effect of a narrow Gaussian is linear in its variances.
    """
    # Wider than a few voxels means that the model explains its own failures by blur.
    low, high = coherent.new_tensor([1e-6, 1e-6, 1e-6, 0.0]), coherent.new_tensor([16.0, 16.0, 16.0, 1.0])
    voigt = shape == "pseudo-voigt"
    first = [max(s, _LORENTZIAN_FROM) if voigt else s for s in start.sigma]
    point = torch.tensor([*(s * s for s in first), start.eta], device=coherent.device).clamp(low, high)
    free, autocorrelation = 4 if voigt else 3, torch.fft.rfftn(coherent, dim=AXES)
    loss, slope, curvature = _squares(point, free, coherent, autocorrelation, data)
    damping = 1e-3
    for _ in range(_STEPS):
        step = torch.linalg.solve(curvature + damping * torch.diag(curvature.diagonal() + 1e-12), -slope)
        tried = torch.cat([point[:free] + step, point[free:]]).clamp(low, high)
        new = _squares(tried, free, coherent, autocorrelation, data)
        settled = abs(float(loss - new[0])) < _SETTLED * float(loss)
        if new[0] < loss:
            point, (loss, slope, curvature), damping = tried, new, damping / 10
        else:
            damping *= 10
        if settled:
            break
    z, y, x, eta = point.tolist()
    return PointSpread((z**0.5, y**0.5, x**0.5), eta)


def _squares(point: Tensor, free: int, coherent: Tensor, autocorrelation: Tensor, data: Measured) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the sum of squares that the fit of the point spread makes small, half of its gradient, and half of its curvature.

    Gradient and curvature are the derivatives with respect to the first `free` parameters in `point`.
    """
    sigma, eta = point[:3].sqrt(), point[3]
    model = convolve_from_autocorrelation(autocorrelation, mutual_coherence(sigma, eta, data.shape), coherent)
    slopes = [
        torch.fft.irfftn(autocorrelation * slope, s=data.shape, dim=AXES)
        for slope in coherence_slopes(sigma, eta, data.shape)[:free]
    ]
    root, seen = (model + _ANSCOMBE).sqrt(), data.target >= 0
    residual = ((root - (data.magnitude.square() + _ANSCOMBE).sqrt()) * seen).view(-1)
    jacobian = (torch.stack(slopes) / (2 * root) * seen).view(free, -1)
    return residual.square().sum(), jacobian @ residual, jacobian @ jacobian.T


def sharpened(data: Measured, spread: PointSpread) -> Measured:
    r"""Sharpen the counts by Richardson-Lucy deconvolution, to counts that a coherent beam might have given.

    .. math:: J \leftarrow J \, \frac{p * [s I / (p * J)]}{p * s}, \qquad s = 1 \text{ on voxels that are seen, else } 0

    J are the sharpened counts, I the measured counts, p is the point spread, and * the convolution. The iterations end when p * J
    differs from I by no more than noise, or hardly comes nearer to I; more iterations would sharpen the noise. A narrow point
    spread takes few iterations. Voxels that the phasing does not see keep their counts. (Richardson, J. Opt. Soc. Am. 62, 55
    (1972); Lucy, Astron. J. 79, 745 (1974).)
    """
    device, seen = data.magnitude.device, data.target >= 0
    transfer = mutual_coherence(torch.tensor(spread.sigma, device=device), torch.tensor(spread.eta, device=device), data.shape)

    # In double precision, for the transforms' rounding, relative to the peak, would be the model of dark voxels.
    def blurred(field: Tensor) -> Tensor:
        return torch.fft.irfftn(torch.fft.rfftn(field, dim=AXES) * transfer, s=data.shape, dim=AXES).clamp_min(_DARK)

    counts, share = data.magnitude.double().square(), blurred(seen.double())
    told = share > _TOLD
    found = torch.where(seen, counts, blurred(counts) / share).clamp_min(_DARK)
    left = math.inf
    for _ in range(_SHARPENINGS):
        model = blurred(found)
        noise = 4 * ((model + _ANSCOMBE).sqrt() - (counts + _ANSCOMBE).sqrt()).square()[seen & (model > 1)]
        before, left = left, float(noise.mean())
        if left < _AS_NOISE or left > _STALLED * before:
            break
        # The transform of a narrow spread is cut off by the grid, so the model can be nothing beside a peak: hence the limits.
        factor = blurred((counts / model).clamp_max(_FASTEST)) / share
        found = torch.where(told, found * factor.clamp(1 / _FASTEST, _FASTEST), found)
    sharp = torch.where(seen, found, 0).float()
    return replace(data, magnitude=sharp.sqrt(), intensity=torch.where(seen, sharp, data.intensity))
