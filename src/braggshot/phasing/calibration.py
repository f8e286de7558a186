"""Scale the plain spread of solutions to errors that cover 68 %."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from braggshot.physics.strain import amplitude_spread, spread
from braggshot.volumes import BoolArray, FloatArray, Uncertainty

CALIBRATION: dict[str, dict[str, float]] = {
    "starts": {"phase": 1.52, "strain": 1.53, "amplitude": 2.05},
    "photons": {"phase": 3.2, "strain": 3.1, "amplitude": 4.25},
    "both": {"phase": 1.24, "strain": 1.24, "amplitude": 1.7},
}
"""Error that covers 68 % over the plain spread, by where the spread is from (`benchmarks/calibration.py`, peaks of 1e3 to 1e6).

What all starts share, such as too tight a support, is in no spread; and redrawn counts are not followed to the end.
"""


def uncertainty_of_starts(
    agreeing: list[Tensor], support: BoolArray, basis: FloatArray | None, q: FloatArray | None
) -> Uncertainty | None:
    """Calibrated spread of the starts that agree, (z, y, x) each; None for one alone, which says nothing about it."""
    if len(agreeing) < 2:
        return None
    fields = torch.stack(agreeing).numpy()
    phase, strain = spread(fields, support, basis, q)
    plain = Uncertainty(phase, strain, len(agreeing), "starts that agree, calibrated", amplitude_spread(fields, support))
    return scale_spread(plain, CALIBRATION["starts"])


def scale_spread(uncertainty: Uncertainty, factors: Mapping[str, float]) -> Uncertainty:
    """Multiply each quantity by its factor; a quantity that was not measured stays None."""
    maps = {name: getattr(uncertainty, name) for name in factors}
    return replace(uncertainty, **{name: values * np.float32(factors[name]) for name, values in maps.items() if values is not None})
