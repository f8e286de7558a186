"""Scale the spread between solutions to errors within which the truth lies in 68 % of cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from braggshot.physics.strain import amplitude_spread, phase_deviations, standard_deviation
from braggshot.volumes import BoolArray, FloatArray, Uncertainty

CALIBRATION: dict[str, dict[str, float]] = {
    "starts": {"phase": 1.57, "strain": 1.96, "amplitude": 1.7},
    "photons": {"phase": 8.2, "strain": 7.9, "amplitude": 5.9},
    "both": {"phase": 1.36, "strain": 1.74, "amplitude": 1.56},
}
"""Factors that turn the standard deviation of several solutions into an error that covers 68 % of cases [1].

"starts" is for the spread between starts that agree, "both" for it and the spread between redrawn counts in quadrature, "photons"
for redrawn counts alone, as of a crystal that no other start gives. They are medians over 68 crystals of the suite ``trust``
("photons": 21) with numbers from 1001 on. The factors exceed 1 because an error that all solutions share, such as too tight a
support or iterations that end too early, does not spread them.
"""


def uncertainty_of_starts(
    agreeing: list[Tensor], support: BoolArray, basis: FloatArray | None, q: FloatArray | None
) -> Uncertainty | None:
    """Compute the 68 % errors of a crystal from the spread between the starts that agree; None for a single start."""
    if len(agreeing) < 2:
        return None
    fields = torch.stack(agreeing).numpy()
    phase, strain = standard_deviation(fields, support, basis, q)
    amplitude, deviations = amplitude_spread(fields, support), phase_deviations(fields, support)
    plain = Uncertainty(phase, strain, len(agreeing), "starts that agree, calibrated", amplitude, deviations)
    return scale_spread(plain, CALIBRATION["starts"])


def scale_spread(uncertainty: Uncertainty, factors: Mapping[str, float]) -> Uncertainty:
    """Multiply the spreads of phase, strain and amplitude by their `factors`; a spread that was not measured stays None."""
    by_map = {**factors, "deviations": factors["phase"]}
    maps = {name: getattr(uncertainty, name) for name in by_map}
    scaled = {name: values * np.float32(by_map[name]) for name, values in maps.items() if values is not None}
    return replace(uncertainty, **scaled, slope_factor=factors["strain"] / factors["phase"])
