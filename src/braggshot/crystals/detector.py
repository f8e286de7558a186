"""From expected photons to what a counting detector reports."""

from __future__ import annotations

import torch
from torch import Generator, Tensor


def count(generator: Generator, expected: Tensor) -> Tensor:
    """Poisson counts of the expected intensity [photons]; the noise belongs to the intensity, never to the magnitude."""
    return torch.poisson(expected, generator=generator)
