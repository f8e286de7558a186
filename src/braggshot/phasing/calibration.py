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
    "starts": {"phase": 1.52, "strain": 1.53, "amplitude": 2.05},
    "photons": {"phase": 3.2, "strain": 3.1, "amplitude": 4.25},
    "both": {"phase": 1.24, "strain": 1.24, "amplitude": 1.7},
}
"""Factors that turn the standard deviation of several solutions into an error that covers 68 % of cases [1].

"starts" is for the spread between random starts, "photons" for the spread between redrawn counts, "both" for the two in
quadrature. `benchmarks/calibration.py` measures the factors with 1e3 to 1e6 photons in the peak. The factors exceed 1 because an
error that all solutions share, such as too tight a support, does not spread them.
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
    return replace(uncertainty, **{name: values * np.float32(by_map[name]) for name, values in maps.items() if values is not None})
