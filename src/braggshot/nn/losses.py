r"""Compute what training minimises: every term depends only on the detector's counts and on the network's own output.

.. math::
    L = \sum_t w_t \left[ \sqrt{\chi^2_t} + R_t + \lambda\, q \left(1 - |\langle \rho_t, \hat\rho \rangle|\right) \right]

The sum runs over the steps t of the network; w_t is the weight of a step, and rho_t the object after it. chi2 and R compare the
magnitudes of rho_t with the measured sqrt(I) over valid voxels at the best scale; sqrt(I) has the same photon noise on every voxel.
The last term, of weight lambda, pulls towards :math:`\hat\rho`, the network's own output after a short refinement. This is expert
iteration, which needs no label. The factor q says how well the refined object explains its pattern. Magnitudes alone are not
enough, because a blend of a crystal with its twin fits the magnitudes, too.

`LossConfig.data` can replace the first two terms by the published losses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from braggshot.nn.autophasenn import unit_scale
from braggshot.nn.network import Measurement, misfit, scale_to
from braggshot.physics.fourier import AXES


@dataclass(frozen=True)
class LossConfig:
    """Choice and weights of the terms of the loss.

    Parameters
    ----------
    data : misfit of the magnitudes. "ours" is sqrt(chi2) + R. "mae" is the mean absolute difference on the scale of a crystal of
        amplitude one, as in AutoPhaseNN. "max-l1" is the mean absolute difference of magnitudes that are divided by the largest
        magnitude, as in AutoPhaseNN of 2024
    expert : weight lambda of the pull towards the refined object [1]
    trust : value of sqrt(chi2 - chi2 of photon noise) at which the weight q of a refined object has fallen to 1/e [1]
    growth : ratio of the weight of a step to that of the step before; above 1 the last step has the largest weight [1]
    """

    data: Literal["ours", "mae", "max-l1"] = "ours"
    expert: float = 2.0
    trust: float = 0.04
    growth: float = 1.3


def r_factor(magnitude: Tensor, data: Measurement) -> Tensor:
    """Return R = sum |c|F| - m| / sum m over valid voxels, (n,), from moduli |F|, measured magnitudes m and the best scale c."""
    scaled = magnitude * scale_to(magnitude.detach(), data)
    return ((scaled - data.magnitude).abs() * data.valid).sum(AXES) / data.magnitude.sum(AXES).clamp_min(1e-12)


def data_term(magnitude: Tensor, data: Measurement, config: LossConfig) -> Tensor:
    """Return the misfit of the moduli |F| (n, z, y, x) to the measured magnitudes, averaged over the batch."""
    if config.data == "ours":
        return (misfit(magnitude, data).sqrt() + r_factor(magnitude, data)).mean()
    if config.data == "mae":
        difference = (magnitude - data.magnitude * unit_scale(data)) * math.sqrt(data.magnitude[0].numel())
    else:
        brightest = (magnitude * data.valid).amax(AXES, keepdim=True).clamp_min(1e-12)
        difference = magnitude / brightest - data.magnitude / data.magnitude.amax(AXES, keepdim=True).clamp_min(1e-12)
    return (difference.abs() * data.valid).sum() / data.valid.sum()


def correlation(rho: Tensor, other: Tensor) -> Tensor:
    """Return the correlation |<rho, other>| / (|rho| |other|) of two objects, (n,), without aligning them."""
    one, two = torch.view_as_real(rho), torch.view_as_real(other)
    real = (one * two).sum((-4, -3, -2, -1))
    imaginary = (one[..., 0] * two[..., 1] - one[..., 1] * two[..., 0]).sum(AXES)
    norms = one.square().sum((-4, -3, -2, -1)) * two.square().sum((-4, -3, -2, -1))
    return ((real.square() + imaginary.square() + 1e-12) / norms.clamp_min(1e-12)).sqrt()


def quarter_photon_floor(data: Measurement) -> Tensor:
    """Estimate the chi2 (n,) that photon noise leaves: a quarter photon for each voxel with counts, divided by all photons."""
    photons = data.magnitude.square().sum(AXES).clamp_min(1.0)
    return 0.25 * (data.magnitude > 0).sum(AXES) / photons


def trust(chi2: Tensor, data: Measurement, config: LossConfig) -> Tensor:
    r"""Return the weights q (n,), 0 to 1, of refined objects with the misfits `chi2` (n,) as targets of training.

    .. math:: q = \exp(-\max(\chi^2 - \chi^2_\mathrm{photons}, 0) / \mathrm{trust}^2)

    chi2_photons is the misfit that photon noise leaves; trust is a setting of the loss, `LossConfig.trust`.
    """
    excess = (chi2 - quarter_photon_floor(data)).clamp_min(0)
    return torch.exp(-excess / config.trust**2)


def step_weights(steps: int, config: LossConfig) -> list[float]:
    """Return the weights w_t of the network's steps t in the loss; the sum of the weights is one."""
    raw = [config.growth**t for t in range(steps)]
    return [w / sum(raw) for w in raw]
