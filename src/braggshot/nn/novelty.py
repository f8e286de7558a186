"""Tell whether a pattern looks like those on which the network was trained, by a few numbers and their ranges in training.

A network predicts an object for any pattern, but for a pattern unlike those of its training this object is a guess. The ranges are
stored on the card of the network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from braggshot.nn.datasets import Source
from braggshot.nn.losses import quarter_photon_floor
from braggshot.nn.network import Features, Measurement, misfit, random_start
from braggshot.nn.predict import fast_bfloat16
from braggshot.nn.two_scale import TwoScaleNetwork, central_fringes, coarse_network
from braggshot.physics.fourier import AXES, frequencies

# Lowest and highest value in training of each number that describes a pattern, by the name of the number.
Ranges = Mapping[str, tuple[float, float]]

# For each number that describes a pattern, by name: a phrase that explains the number, with braces in place of its value.
WORDS = {
    "brightest": "the brightest voxel holds 10^{0:.1f} photons",
    "valid": "{0:.2f} of the voxels are valid",
    "spread": "the pattern's rms width is {0:.2f} of the window",
    "extent": "the crystal fills {0:.3f} of its box, by the autocorrelation",
    "flatness": "the longest and the shortest width of the pattern are as {0:.1f} to 1",
    "misfit": "the one-shot crystal explains the magnitudes to {0:.2f} beyond photon noise",
}


@torch.no_grad()
def features(network: nn.Module, data: Measurement, generator: torch.Generator) -> dict[str, Tensor]:
    """Compute the numbers that describe each of n patterns, as a table {name of the number: values (n,)}.

    `WORDS` explains the numbers. One of them is the misfit of the network's prediction, because the network predicts badly for
    patterns unlike those of its training.
    """
    # In training, patterns of a two-scale network hold more fringes than its low-resolution part sees.
    data = central_fringes(data) if isinstance(network, TwoScaleNetwork) else data
    counts = data.magnitude.square()
    total = counts.sum(AXES).clamp_min(1e-12)
    along = [2 * (counts * f.to(counts.device).square()).sum(AXES).div(total).sqrt() for f in frequencies(counts.shape[-3:])]
    widths = torch.stack(along)
    with torch.autocast(counts.device.type, torch.bfloat16, enabled=fast_bfloat16(counts.device)):
        magnitude = coarse_network(network)(data.magnitude, data.valid, random_start(data, generator))[-1][1]
    return {
        "brightest": counts.amax(AXES).clamp_min(1e-3).log10(),
        "valid": data.valid.mean(AXES),
        "spread": widths.square().sum(0).sqrt(),
        "extent": (Features.of(data).extent > 0.3).float().mean(AXES),
        "flatness": widths.amax(0) / widths.amin(0).clamp_min(1e-6),
        "misfit": (misfit(magnitude, data) - quarter_photon_floor(data)).clamp_min(0).sqrt(),
    }


def training_ranges(
    network: nn.Module, source: Source, chunks: int = 12, size: int = 8, tails: float = 0.005
) -> dict[str, tuple[float, float]]:
    """Return the range in training of each number that describes a pattern.

    A share `tails` of the training patterns lies below the range, and the same share above.
    """
    device = next(network.parameters()).device
    numbers: dict[str, list[Tensor]] = {name: [] for name in WORDS}
    for step in range(chunks):
        batch = source(step, 0, size)
        data = Measurement.of(batch.counts.to(device), batch.valid.to(device))
        for name, values in features(network, data, torch.Generator(device).manual_seed(step)).items():
            numbers[name].append(values.cpu())
    limits = torch.tensor([tails, 1 - tails])
    quantiles = {name: torch.quantile(torch.cat(values), limits).tolist() for name, values in numbers.items()}
    return {name: (low, high) for name, (low, high) in quantiles.items()}


def find_novelties(network: nn.Module, data: Measurement, known: Ranges, seed: int = 0, slack: float = 0.05) -> tuple[str, ...]:
    """Describe in words the properties of a pattern that lie outside the ranges in training; empty if all lie inside.

    Parameters
    ----------
    data : a batch of one pattern
    known : ranges in training of the numbers that describe a pattern, from the network's card; empty if the card has none
    slack : share of the width of a range by which a number may lie outside the range [1]
    """
    if not known:
        return ()
    numbers = features(network, data, torch.Generator(data.magnitude.device).manual_seed(seed))
    said = []
    # A pattern whose voxels are all valid is never new for that.
    for name, (low, high) in {**known, "valid": (known.get("valid", (0.0, 1.0))[0], 1.0)}.items():
        value, margin = float(numbers[name][0]), slack * (high - low)
        if not low - margin <= value <= high + margin or not math.isfinite(value):
            said.append(f"{WORDS[name].format(value)} (in training {low:.3g} to {high:.3g})")
    return tuple(said)
