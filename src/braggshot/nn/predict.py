"""Predict hypotheses for any volume: to the sampling of the training (`braggshot.nn.resampling`), through the network, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from braggshot.nn.augmentation import Orientation, different, turned, turned_back
from braggshot.nn.autophasenn import Published
from braggshot.nn.losses import correlation
from braggshot.nn.network import Measurement, magnitude_of, misfit, scale_to
from braggshot.nn.resampling import sampling, to_network_grid, to_original_grid
from braggshot.nn.solved_patterns import nearer_twin
from braggshot.nn.two_scale import CENTRAL, TwoScaleNetwork, gone_on, start
from braggshot.physics.fourier import in_the_middle

LARGEST = 64  # voxels per axis that a network answers on
SAME = 0.9  # correlation of two answers at the low resolution that are one crystal
WITNESSES = 3  # that have to be one crystal
LEFT = 8  # with which a search goes on


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


@torch.no_grad()
def predict(
    network: nn.Module,
    counts: Tensor,
    valid: Tensor,
    oversampling: Sequence[float] | None = None,
    n: int = 1,
    seed: int = 0,
    views: int = 1,
    searches: bool = False,
) -> list[Hypothesis]:
    """The best hypotheses, sorted by the misfit of what the network was shown.

    A network that has seen crystals in all orientations errs differently in each, so each answer is to the pattern in another one.
    Of a two-scale network they go to the full resolution from where the low one, an eighth of the cost, has the least misfit.

    Parameters
    ----------
    network : on the device to use
    counts, valid : (z, y, x), centred at N // 2; what is to be held out is marked not valid
    oversampling : per axis, measured; None leaves the sampling as it is
    n : hypotheses
    seed : of the starts
    views : orientations of the pattern, of which the best `n` are given; at least `n`
    searches : where the best answers of the low resolution are not the same crystal, a long recipe goes on with them
    """
    device = next(network.parameters()).device
    how = sampling(counts.shape, oversampling, largest(network))
    pattern = to_network_grid(counts.to(device).float(), valid.to(device), how)
    ways = different(how.shape, max(n, views))
    seen = Measurement.of(*(torch.stack([turned(part, way) for way in ways]) for part in pattern))
    begin = start(network, seen, torch.Generator(device).manual_seed(seed))
    if isinstance(network, TwoScaleNetwork):
        boxes, chi2, which = _sharpened(network, seen, _found(network, seen, begin, ways, searches), n)
    else:
        boxes, chi2 = answered(network, seen, begin)
        which = chi2.argsort()[:n]
        boxes, chi2 = boxes[which], chi2[which]
    whole = Measurement.of(counts[None].to(device), valid[None].to(device))
    found = [turned_back(box, ways[k]) for box, k in zip(boxes, which.tolist(), strict=True)]
    return [_scaled(to_original_grid(found[k], how), whole, float(chi2[k])) for k in chi2.argsort().tolist()]


Found = tuple[Tensor, Tensor, Tensor]
"""Boxes (n, z, y, x), their chi2 (n,), and the view that each is an answer to (n,)."""


def _found(network: TwoScaleNetwork, seen: Measurement, begin: Tensor, ways: Sequence[Orientation], searches: bool) -> Found:
    with _precision(begin.device):
        boxes, chi2 = network.found(seen, begin)
    which = torch.arange(len(boxes), device=boxes.device)
    order = chi2.argsort()
    best = torch.stack([turned_back(boxes[k], ways[k]) for k in order[:WITNESSES].tolist()])
    if not searches or is_one_crystal(best):
        return boxes, chi2, which
    left = order[:LEFT]
    more, misfits = gone_on(Measurement(seen.magnitude[left], seen.valid[left]), boxes[left])
    return torch.cat([boxes, more]), torch.cat([chi2, misfits]), torch.cat([which, left])


def is_one_crystal(rho: Tensor) -> bool:
    """Whether all objects (n, z, y, x) are the first, or its twin."""
    others = in_the_middle(rho)
    first = others[:1].expand_as(others)
    return bool((correlation(others, nearer_twin(others, first)) > SAME).all())


def _sharpened(network: TwoScaleNetwork, seen: Measurement, found: Found, n: int) -> Found:
    boxes, chi2, which = found
    best = chi2.argsort()[:n]
    chosen = Measurement(seen.magnitude[which[best]], seen.valid[which[best]])
    with _precision(boxes.device):
        whole, magnitude = network.sharpened(chosen, boxes[best])[-1]
    return whole, misfit(magnitude, chosen), which[best]


def largest(network: nn.Module) -> int:
    """Voxels per axis that a network is shown: of one with a single scale the central fringes, on an eighth of the voxels."""
    return LARGEST if isinstance(network, TwoScaleNetwork | Published) else CENTRAL


def answered(network: nn.Module, seen: Measurement, begin: Tensor) -> tuple[Tensor, Tensor]:
    """What the network makes of every start: objects in its box (n, z / 2, y / 2, x / 2), and chi2 of what it was shown (n,)."""
    with _precision(begin.device):
        boxes, magnitude = network(seen.magnitude, seen.valid, begin)[-1]
    return boxes, misfit(magnitude, seen)


def shown(counts: Tensor, valid: Tensor, oversampling: Sequence[float] | None, device: torch.device) -> Measurement:
    """One pattern (z, y, x) as the network sees it, a batch of one."""
    return Measurement.of(
        *(t[None].to(device) for t in to_network_grid(counts.float(), valid, sampling(counts.shape, oversampling)))
    )


def _scaled(rho: Tensor, whole: Measurement, chi2: float) -> Hypothesis:
    _, magnitude = magnitude_of(rho[None], rho.shape)
    return Hypothesis((rho * scale_to(magnitude, whole)[0]).to(torch.complex64), chi2)


def _precision(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast_bfloat16(device))


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies 16-bit numbers itself; on a CPU without the instructions they would be emulated."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in asked)
