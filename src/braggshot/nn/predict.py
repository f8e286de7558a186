"""Predict several possible objects for any volume: resample its counts as in training, apply the network, resample back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from braggshot.iterative.spacing import resample
from braggshot.nn.augmentation import Orientation, choose_orientations, turn, turn_back
from braggshot.nn.autophasenn import Published
from braggshot.nn.losses import correlation
from braggshot.nn.network import Measurement, magnitude_of, misfit, scale_to
from braggshot.nn.resampling import sampling, to_original_grid
from braggshot.nn.solved_patterns import nearer_twin
from braggshot.nn.two_scale import CENTRAL, TwoScaleNetwork, draw_start, search_coarse
from braggshot.physics.fourier import in_the_middle

LARGEST = 64  # largest number of voxels per axis of a network's input
SAME = 0.9  # correlation above which two low-resolution predictions count as one crystal [1]
WITNESSES = 3  # number of best low-resolution predictions that are compared to see if they show one crystal
LEFT = 8  # number of best low-resolution predictions that long phasing continues


@dataclass(frozen=True)
class Hypothesis:
    """Prediction of the network for one volume.

    Parameters
    ----------
    rho : (z, y, x) complex64 on the grid of the volume, centred at N // 2, scaled to its counts [sqrt(photons)]
    chi2 : misfit on the grid that the network was shown, over the valid voxels [1]
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
    orientations: int = 1,
    search: bool = False,
) -> list[Hypothesis]:
    """Predict several possible objects (hypotheses) for a volume; return the `n` of lowest misfit, the best first.

    The network is trained on crystals in all orientations, and its errors differ between orientations. So each prediction is made
    from the pattern in another orientation. A two-scale network makes all predictions at the low resolution, for an eighth of the
    cost. At the full resolution it continues only the predictions of least misfit.

    Parameters
    ----------
    network : network, on the device to use
    counts, valid : (z, y, x), centred at N // 2; voxels to be held out must be marked not valid
    oversampling : measured oversampling per axis; None keeps the sampling of the volume
    n : number of objects to return
    seed : seed of the random starts
    orientations : number of orientations of the pattern, at least `n`; the best `n` predictions are returned
    search : if the best low-resolution predictions differ from each other, continue them by several hundred iterations
    """
    device = next(network.parameters()).device
    how = sampling(counts.shape, oversampling, input_size(network))
    pattern = resample(counts.to(device).float(), valid.to(device), how)
    ways = choose_orientations(how.shape, max(n, orientations))
    seen = Measurement.of(*(torch.stack([turn(part, way) for way in ways]) for part in pattern))
    begin = draw_start(network, seen, torch.Generator(device).manual_seed(seed))
    if isinstance(network, TwoScaleNetwork):
        boxes, chi2, which = _answer_fine(network, seen, _answer_coarse(network, seen, begin, ways, search), n)
    else:
        boxes, chi2 = apply_network(network, seen, begin)
        which = chi2.argsort()[:n]
        boxes, chi2 = boxes[which], chi2[which]
    whole = Measurement.of(counts[None].to(device), valid[None].to(device))
    objects = [turn_back(box, ways[k]) for box, k in zip(boxes, which.tolist(), strict=True)]
    return [_scale_to_counts(to_original_grid(objects[k], how), whole, float(chi2[k])) for k in chi2.argsort().tolist()]


Answers = tuple[Tensor, Tensor, Tensor]
"""Predicted objects in the central box (n, z, y, x), their chi2 (n,), and the indices of the orientations used for them (n,)."""


def _answer_coarse(
    network: TwoScaleNetwork, seen: Measurement, begin: Tensor, ways: Sequence[Orientation], search: bool
) -> Answers:
    with _precision(begin.device):
        boxes, chi2 = network.apply_coarse(seen, begin)
    which = torch.arange(len(boxes), device=boxes.device)
    order = chi2.argsort()
    best = torch.stack([turn_back(boxes[k], ways[k]) for k in order[:WITNESSES].tolist()])
    if not search or is_one_crystal(best):
        return boxes, chi2, which
    left = order[:LEFT]
    more, misfits = search_coarse(Measurement(seen.magnitude[left], seen.valid[left]), boxes[left])
    return torch.cat([boxes, more]), torch.cat([chi2, misfits]), torch.cat([which, left])


def is_one_crystal(rho: Tensor) -> bool:
    """Tell whether all objects (n, z, y, x) are the same crystal as the first, or its twin."""
    others = in_the_middle(rho)
    first = others[:1].expand_as(others)
    return bool((correlation(others, nearer_twin(others, first)) > SAME).all())


def _answer_fine(network: TwoScaleNetwork, seen: Measurement, answers: Answers, n: int) -> Answers:
    boxes, chi2, which = answers
    best = chi2.argsort()[:n]
    chosen = Measurement(seen.magnitude[which[best]], seen.valid[which[best]])
    with _precision(boxes.device):
        whole, magnitude = network.apply_fine(chosen, boxes[best])[-1]
    return whole, misfit(magnitude, chosen), which[best]


def input_size(network: nn.Module) -> int:
    """Return the largest number of voxels per axis that a network takes from a pattern.

    A network that works only at the low resolution takes the central fringes: half as many voxels per axis as the other networks.
    """
    return LARGEST if isinstance(network, TwoScaleNetwork | Published) else CENTRAL


def apply_network(network: nn.Module, seen: Measurement, begin: Tensor) -> tuple[Tensor, Tensor]:
    """Apply the network to every start: return objects in the central box (n, z / 2, y / 2, x / 2), and their chi2 (n,)."""
    with _precision(begin.device):
        boxes, magnitude = network(seen.magnitude, seen.valid, begin)[-1]
    return boxes, misfit(magnitude, seen)


def network_input(counts: Tensor, valid: Tensor, oversampling: Sequence[float] | None, device: torch.device) -> Measurement:
    """Resample one pattern (z, y, x) to the grid of the network; return its magnitudes and its mask as a batch of one pattern."""
    return Measurement.of(*(t[None].to(device) for t in resample(counts.float(), valid, sampling(counts.shape, oversampling))))


def _scale_to_counts(rho: Tensor, whole: Measurement, chi2: float) -> Hypothesis:
    _, magnitude = magnitude_of(rho[None], rho.shape)
    return Hypothesis((rho * scale_to(magnitude, whole)[0]).to(torch.complex64), chi2)


def _precision(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast_bfloat16(device))


def fast_bfloat16(device: torch.device) -> bool:
    """Tell whether the device has instructions for 16-bit numbers (bfloat16); a CPU without them would emulate them slowly."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in asked)
