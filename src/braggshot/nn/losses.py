r"""What training minimises; every term is a function of what a detector counted and of the network's own output.

.. math::
    L = \sum_t w_t \left[ \sqrt{\chi^2_t} + R_t + \lambda\, q \left(1 - |\langle \rho_t, \hat\rho \rangle|\right) \right]

chi2 and R compare magnitudes sqrt(I), whose photon noise is the same on every voxel, over valid voxels at the best scale. The last
term pulls towards :math:`\hat\rho`, the network's own output after a short physics refinement (expert iteration: no label), trusted
by q, how well the refined object explains its pattern. Magnitudes alone cannot do it: fields that blend a crystal with its twin fit
them and are not the crystal.

The published losses stand in for the first two terms where `LossConfig.data` asks for them.
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
    """Weights of the terms.

    Parameters
    ----------
    data : "ours", as above; "mae", of magnitudes on the scale of a crystal of amplitude one, with no factor fitted (AutoPhaseNN);
        "max-l1", of magnitudes over their largest (its version of 2024)
    expert : lambda, of the pull towards the refined object [1]
    trust : sqrt(chi2) beyond photon noise at which the refined object is trusted to 1/e [1]
    growth : weight of a step over the one before it, so that the last one counts most [1]
    """

    data: Literal["ours", "mae", "max-l1"] = "ours"
    expert: float = 2.0
    trust: float = 0.04
    growth: float = 1.3


def r_factor(magnitude: Tensor, data: Measurement) -> Tensor:
    """R = sum |c|F| - m| / sum m over valid voxels, (n,)."""
    scaled = magnitude * scale_to(magnitude.detach(), data)
    return ((scaled - data.magnitude).abs() * data.valid).sum(AXES) / data.magnitude.sum(AXES).clamp_min(1e-12)


def data_term(magnitude: Tensor, data: Measurement, config: LossConfig) -> Tensor:
    """What a batch of moduli |F| (n, z, y, x) is charged for not being the measured ones, one number."""
    if config.data == "ours":
        return (misfit(magnitude, data).sqrt() + r_factor(magnitude, data)).mean()
    if config.data == "mae":
        difference = (magnitude - data.magnitude * unit_scale(data)) * math.sqrt(data.magnitude[0].numel())
    else:
        brightest = (magnitude * data.valid).amax(AXES, keepdim=True).clamp_min(1e-12)
        difference = magnitude / brightest - data.magnitude / data.magnitude.amax(AXES, keepdim=True).clamp_min(1e-12)
    return (difference.abs() * data.valid).sum() / data.valid.sum()


def correlation(rho: Tensor, other: Tensor) -> Tensor:
    """|<rho, other>| / (|rho| |other|) without any alignment, (n,)."""
    one, two = torch.view_as_real(rho), torch.view_as_real(other)
    real = (one * two).sum((-4, -3, -2, -1))
    imaginary = (one[..., 0] * two[..., 1] - one[..., 1] * two[..., 0]).sum(AXES)
    norms = one.square().sum((-4, -3, -2, -1)) * two.square().sum((-4, -3, -2, -1))
    return ((real.square() + imaginary.square() + 1e-12) / norms.clamp_min(1e-12)).sqrt()


def quarter_photon_floor(data: Measurement) -> Tensor:
    """Estimate the chi2 that photon noise leaves, as a quarter photon for each voxel that counted any, (n,)."""
    photons = data.magnitude.square().sum(AXES).clamp_min(1.0)
    return 0.25 * (data.magnitude > 0).sum(AXES) / photons


def trust(chi2: Tensor, data: Measurement, config: LossConfig) -> Tensor:
    """How far a refined object of misfit `chi2` (n,) is to be believed, 0 to 1."""
    excess = (chi2 - quarter_photon_floor(data)).clamp_min(0)
    return torch.exp(-excess / config.trust**2)


def step_weights(steps: int, config: LossConfig) -> list[float]:
    """w_t, summing to one."""
    raw = [config.growth**t for t in range(steps)]
    return [w / sum(raw) for w in raw]
