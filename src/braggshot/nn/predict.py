r"""Any volume in, hypotheses out: to the sampling and shape that the network was trained on, through it, and back.

Two changes of grid meet what the network knows, and both are undone exactly in Fourier space:

- *binning* sums b counts of reciprocal space along an axis, so the field of view of direct space shrinks by b: an oversampling of 8
  becomes 4 or less, and the crystal fills the network's box;
- *cropping* the outer fringes makes direct-space voxels larger: a 160 x 128 x 128 pattern becomes 32 x 32 x 32, the crystal at a
  lower resolution. What is missing is for a refinement on the original grid to add.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from braggshot.nn.autophasenn import Published
from braggshot.nn.network import STRIDE, Measurement, magnitude_of, misfit, scale_to
from braggshot.nn.two_scale import CENTRAL, TwoScaleNetwork, start
from braggshot.physics.fourier import crop, fourier, inverse_fourier, pad

LARGEST = 64  # voxels per axis that a network answers on
WIDEST = 4.0  # oversampling per axis that it was trained on
LOWEST = 2.0  # the crystal must fit into half the array


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
    """How a volume is brought to the network: bins per axis, then voxels per axis.

    Parameters
    ----------
    original : shape of the volume (z, y, x)
    binning : counts summed per axis
    shape : of what the network sees; larger than the binned volume where it is padded with voxels that are not valid
    """

    original: tuple[int, int, int]
    binning: tuple[int, int, int]
    shape: tuple[int, int, int]

    @property
    def offset(self) -> tuple[float, ...]:
        """Where the centre of the middle bin lies from the voxel N // 2 [voxels of the original]: half a voxel for even bins."""
        return tuple((b - 1) / 2 - b // 2 for b in self.binning)


def sampling(shape: Sequence[int], oversampling: Sequence[float] | None, most: int = CENTRAL) -> Sampling:
    """Choose bins that bring the oversampling into the trained range, and a trained shape.

    Parameters
    ----------
    shape : of the volume
    oversampling : per axis, measured; None leaves the sampling as it is
    most : voxels per axis
    """
    measured = oversampling or (LOWEST,) * 3
    binning = [max(1, math.floor(s / LOWEST)) if s > WIDEST else 1 for s in measured]
    # The smallest number of bins that reaches the range keeps the most of what was measured.
    binning = [
        next(b for b in range(1, last + 1) if s / b <= WIDEST or b == last) for s, last in zip(measured, binning, strict=True)
    ]
    sizes = [min(most, STRIDE * math.ceil(n / b / STRIDE)) for n, b in zip(shape, binning, strict=True)]
    z, y, x = shape
    return Sampling((z, y, x), (binning[0], binning[1], binning[2]), (sizes[0], sizes[1], sizes[2]))


def bring(counts: Tensor, valid: Tensor, how: Sampling) -> tuple[Tensor, Tensor]:
    """Counts and trust (..., z, y, x) as the network will see them, centred at N // 2.

    A bin is valid where at least half of its voxels are, and its counts are scaled up to the whole.
    """
    trusted = valid.to(counts.dtype)
    counts, trusted = _binned(counts * trusted, how.binning), _binned(trusted, how.binning) / math.prod(how.binning)
    good = trusted >= 0.5
    counts = torch.where(good, counts / trusted.clamp_min(0.5), torch.zeros_like(counts))
    smaller = [min(a, b) for a, b in zip(counts.shape[-3:], how.shape, strict=True)]
    return pad(crop(counts, smaller), how.shape), pad(crop(good, smaller), how.shape)


def _binned(field: Tensor, binning: Sequence[int]) -> Tensor:
    """Sums over bins, of which the middle one, at N // 2 of the result, holds the voxel N // 2 at its own b // 2."""
    widths: list[int] = []
    for size, b in reversed(list(zip(field.shape[-3:], binning, strict=True))):
        before, beyond = size // 2 - b // 2, size - size // 2 + b // 2 - b  # voxels on either side of the middle bin
        bins = math.ceil(max(before, beyond) / b)
        widths += [bins * b - before, bins * b - beyond]
    field = functional.pad(field, widths)
    for axis, b in enumerate(binning, field.ndim - 3):
        field = field.reshape(*field.shape[:axis], -1, b, *field.shape[axis + 1 :]).sum(axis + 1)
    return field


def give_back(rho: Tensor, how: Sampling) -> Tensor:
    """A box that the network found, (..., z / 2, y / 2, x / 2), on the grid of the original volume; modulus of F kept."""
    whole = pad(rho, how.shape)
    fine = [n * b for n, b in zip(how.shape, how.binning, strict=True)]
    field = fourier(pad(whole, fine))
    smaller = [min(a, b) for a, b in zip(field.shape[-3:], how.original, strict=True)]
    found = inverse_fourier(pad(crop(field, smaller), how.original))
    for axis, (size, shift) in enumerate(zip(how.original, how.offset, strict=True)):
        index = torch.arange(size, device=rho.device) - size // 2
        ramp = torch.exp(2j * math.pi * shift * index / size)
        found = found * ramp.reshape([-1 if other == axis else 1 for other in range(3)])
    return found


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
