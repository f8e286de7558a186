"""Define the settings of a series, in addition to those of a single reconstruction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from braggshot import config
from braggshot.errors import ConfigError
from braggshot.output import OutputConfig
from braggshot.pipeline import Settings, refuse_unread_settings


@dataclass(frozen=True)
class SeriesConfig:
    """Settings of how the scans of a series depend on each other.

    Parameters
    ----------
    neighbour : scan that each scan is compared with: "previous" is the last accepted scan before; "first" is the first accepted
        scan, so that all others can be phased in parallel
    warm : phase also from the neighbour's crystal, in addition to the cold (random) starts
    cold : number of cold starts that are phased to the end for each scan after the first; one search chooses them from more
        starts. None phases every scan with as many cold starts and searches as the first. Of a scan of few frames, the number of
        starts from the neighbour's shape with a random phase, by default five
    against : column on the x axis of the plots; None takes the time, or the number of the scan if a time is not known
    movie : write series.gif
    """

    neighbour: Literal["previous", "first"] = "previous"
    warm: bool = True
    cold: int | None = None
    against: str | None = None
    movie: bool = True

    def __post_init__(self) -> None:
        if self.cold is not None and self.cold < 1:
            raise ConfigError(
                f"series.cold must be at least 1, found {self.cold}: without cold starts nothing checks the warm one."
            )


@dataclass(frozen=True, repr=False)
class SeriesSettings(Settings):
    """The settings of a reconstruction, and those of a series."""

    output: OutputConfig = field(default_factory=lambda: OutputConfig(("cxi",)))
    series: SeriesConfig = field(default_factory=SeriesConfig)


def resolve(settings: Mapping[str, Any]) -> SeriesSettings:
    """Turn nested settings into `SeriesSettings`; every name and value is checked."""
    resolved = config.resolve(SeriesSettings, settings)
    refuse_unread_settings(resolved, settings, {"refine"} if resolved.series.warm else ())
    return resolved
