r"""Any volume in, hypotheses out: to the sampling and shape that the network was trained on, through it, and back.

An intensity is band-limited, since its crystal is finite: known at an oversampling of 2 it is known everywhere. So a pattern that
is sampled more finely than the network needs is read at wider spacings w, where its crystal fills the network's box,

.. math:: I'_j = \prod_a w_a \frac{\sum_k L(k / w - j)\, I_k}{\sum_k L(k / w - j)},
   \qquad L(x) = \mathrm{sinc}(x)\, \mathrm{sinc}(x / 5), \quad |x| < 5

(Lanczos' kernel, axis by axis; as many photons as are summed). Fringes beyond the largest array that a network takes are left out,
which makes direct-space voxels larger: a 160 x 128 x 128 pattern becomes 64 x 64 x 64, the crystal at a lower resolution. What is
missing is for a refinement on the original grid to add. The way back is exact, by the definition of the transform.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from braggshot.nn.autophasenn import Published
from braggshot.nn.network import STRIDE, Measurement, magnitude_of, misfit, scale_to
from braggshot.nn.two_scale import CENTRAL, TwoScaleNetwork, start
from braggshot.physics.fourier import inverse_fourier, inverted
from braggshot.refine.projections import blur

LARGEST = 64  # voxels per axis that a network answers on
SAMPLED = 2.8  # oversampling per axis to which finer patterns are brought
LOBES = 5  # of the kernel on either side


@dataclass(frozen=True)
class Hypothesis:
    """One answer of the network.

    Parameters
    ----------
    rho : (z, y, x) complex64 on the grid of the volume, centred at N // 2, scaled to its counts [sqrt(photons)]
    chi2 : misfit on the grid that the network saw, over voxels that it was shown [1]
    """

    rho: Tensor
    chi2: float


@dataclass(frozen=True)
class Sampling:
    """How a volume is brought to the network.

    Parameters
    ----------
    original : shape of the volume (z, y, x)
    spacing : voxels of the volume from one sample to the next, per axis, at least 1
    shape : samples per axis that the network sees, the middle one on the voxel N // 2; beyond the volume they are not valid
    """

    original: tuple[int, int, int]
    spacing: tuple[float, float, float]
    shape: tuple[int, int, int]


def sampling(shape: Sequence[int], oversampling: Sequence[float] | None, most: int = CENTRAL) -> Sampling:
    """Choose spacings that bring the oversampling to `SAMPLED`, and a trained shape.

    Parameters
    ----------
    shape : of the volume
    oversampling : per axis, measured; None leaves the sampling as it is
    most : samples per axis
    """
    c, b, a = (max(1.0, s / SAMPLED) for s in oversampling or (SAMPLED,) * 3)
    sizes = (min(most, STRIDE * math.ceil(n / spacing / STRIDE)) for n, spacing in zip(shape, (c, b, a), strict=True))
    (z, y, x), (n, m, k) = shape, sizes
    return Sampling((z, y, x), (c, b, a), (n, m, k))


def bring(counts: Tensor, valid: Tensor, how: Sampling) -> tuple[Tensor, Tensor]:
    """Counts and trust (..., z, y, x) as the network will see them, centred at N // 2.

    A sample is valid where at least half of the kernel's weight lies on valid voxels. The others take part with the count on the
    other side of the peak, or that of their neighbours, since the kernel needs a smooth pattern.
    """
    kernels = [_kernel(*line, counts.device) for line in zip(how.original, how.shape, how.spacing, strict=True)]
    good = _along(kernels, valid.to(counts.dtype)) >= 0.5
    brought = math.prod(how.spacing) * _along(kernels, _filled(counts, valid)).clamp_min(0)
    return torch.where(good, brought, torch.zeros_like(brought)), good


def _kernel(n: int, samples: int, spacing: float, device: torch.device) -> Tensor:
    """Weight of each of n voxels in each sample, (samples, n), one in all; none where less than half of it lies on voxels."""
    voxel, sample = (torch.arange(size, dtype=torch.float64, device=device) - size // 2 for size in (n, samples))
    x = voxel / spacing - sample[:, None]
    # Rounded: nothing at all from other voxels where a sample lies on one.
    weight = (torch.sinc(x) * torch.sinc(x / LOBES) * (x.abs() < LOBES)).round(decimals=12)
    total = weight.sum(1, keepdim=True)
    return torch.where(total >= spacing / 2, weight / total, 0).float()


def _along(matrices: Sequence[Tensor], field: Tensor) -> Tensor:
    """A matrix for each of the last three axes, (new, old)."""
    for axis, matrix in zip((-3, -2, -1), matrices, strict=True):
        field = (matrix @ field.transpose(axis, -2)).transpose(axis, -2)
    return field.contiguous()


def _filled(counts: Tensor, valid: Tensor) -> Tensor:
    """Counts with something plausible where they are not valid: I(-q), and without it the neighbours' mean of log(1 + I)."""
    mirrored, known = inverted(counts * valid), valid | inverted(valid)
    counts = torch.where(valid, counts, mirrored)
    if known.all():
        return counts
    share = blur(known.float(), 2.0)
    level = blur(torch.log1p(counts) * known, 2.0) / share.clamp_min(1e-6)
    return torch.where(known, counts, torch.expm1(level))


def give_back(rho: Tensor, how: Sampling) -> Tensor:
    r"""A box that the network found, (..., z / 2, y / 2, x / 2), on the grid of the original volume; modulus of F kept.

    .. math:: F_k = \sum_r \rho_r\, e^{-2 \pi i k r / (M w)}, \qquad -M w / 2 \le k < M w / 2

    for M samples of spacing w, and zero beyond them.
    """
    waves = []
    for n, samples, w, box in zip(how.original, how.shape, how.spacing, rho.shape[-3:], strict=True):
        k, r = (torch.arange(size, dtype=torch.float64, device=rho.device) - size // 2 for size in (n, box))
        seen = (k >= -samples * w / 2) & (k < samples * w / 2)
        wave = torch.exp(-2j * math.pi * k[:, None] * r / (samples * w)) * seen[:, None]
        waves.append((wave / math.sqrt(samples * w)).to(rho.dtype))
    return inverse_fourier(_along(waves, rho))


@torch.no_grad()
def predict(
    network: nn.Module, counts: Tensor, valid: Tensor, oversampling: Sequence[float] | None = None, n: int = 1, seed: int = 0
) -> list[Hypothesis]:
    """Hypotheses from `n` starts in one batch, the best first by the misfit of what the network was shown.

    Parameters
    ----------
    network : on the device to use
    counts, valid : (z, y, x), centred at N // 2; what is to be held out is marked not valid
    oversampling : per axis, measured; None leaves the sampling as it is
    n : hypotheses
    seed : of the starts
    """
    device = next(network.parameters()).device
    how = sampling(counts.shape, oversampling, largest(network))
    seen = Measurement.of(*(t[None].to(device) for t in bring(counts.float(), valid, how)))
    boxes, chi2 = answered(network, seen, start(network, seen, torch.Generator(device).manual_seed(seed), n))
    whole = Measurement.of(counts[None].to(device), valid[None].to(device))
    # A published network gives one answer, however many starts it is given.
    return [_scaled(give_back(boxes[k], how), whole, float(chi2[k])) for k in chi2.argsort().tolist()]


def largest(network: nn.Module) -> int:
    """Voxels per axis that a network is shown: of one with a single scale the central fringes, on an eighth of the voxels."""
    return LARGEST if isinstance(network, TwoScaleNetwork | Published) else CENTRAL


def answered(network: nn.Module, seen: Measurement, begin: Tensor) -> tuple[Tensor, Tensor]:
    """What the network makes of every start: objects in its box (n, z / 2, y / 2, x / 2), and chi2 of what it was shown (n,)."""
    with torch.autocast(begin.device.type, dtype=torch.bfloat16, enabled=fast_bfloat16(begin.device)):
        boxes, magnitude = network(seen.magnitude, seen.valid, begin)[-1]
    return boxes, misfit(magnitude, seen)


def shown(counts: Tensor, valid: Tensor, oversampling: Sequence[float] | None, device: torch.device) -> Measurement:
    """One pattern (z, y, x) as the network sees it, a batch of one."""
    return Measurement.of(*(t[None].to(device) for t in bring(counts.float(), valid, sampling(counts.shape, oversampling))))


def _scaled(rho: Tensor, whole: Measurement, chi2: float) -> Hypothesis:
    _, magnitude = magnitude_of(rho[None], rho.shape)
    return Hypothesis((rho * scale_to(magnitude, whole)[0]).to(torch.complex64), chi2)


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies 16-bit numbers itself; on a CPU without the instructions they would be emulated."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in asked)
