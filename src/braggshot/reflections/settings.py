"""Define the settings of a tensor, in addition to those of the single reconstructions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from braggshot import config
from braggshot.errors import ConfigError
from braggshot.pipeline import Settings, refuse_unread_settings
from braggshot.reflections.joint import BEND


@dataclass(frozen=True)
class TensorConfig:
    """Settings of the joint fit of several reflections.

    Parameters
    ----------
    iterations : steps of the joint fit
    check_iterations : steps of each fit that leaves one reflection out, or that starts from redrawn counts
    bend : expected second difference of the phase between neighbouring nodes of the common grid; smaller is smoother [rad]
    checks : leave each reflection out once, and predict it; with two or three reflections redraw the counts instead
    """

    iterations: int = 120
    check_iterations: int = 60
    bend: float = BEND
    checks: bool = True

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.check_iterations < 1:
            raise ConfigError("tensor.iterations and tensor.check_iterations must be at least 1.")
        if not self.bend > 0:
            raise ConfigError(f"tensor.bend must be above 0 rad, found {self.bend}.")


@dataclass(frozen=True, repr=False)
class TensorSettings(Settings):
    """The settings of a reconstruction, and those of a tensor."""

    tensor: TensorConfig = field(default_factory=TensorConfig)


def resolve(settings: Mapping[str, Any]) -> TensorSettings:
    """Turn nested settings into `TensorSettings`; every name and value is checked."""
    resolved = config.resolve(TensorSettings, settings)
    refuse_unread_settings(resolved, settings)
    return resolved
