"""Settings of a live session: of the reconstruction, of a series, of the output, and of the session itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from braggshot import config, pipeline
from braggshot.errors import ConfigError
from braggshot.output import OutputConfig
from braggshot.series import SeriesSettings

LIVE_READS = {"network", "refine", "support_threshold"}
"""Names of phasing settings that every preview reads; the user may give them even if the full reconstruction does not read them."""


@dataclass(frozen=True)
class LiveConfig:
    """Settings of a live session.

    Parameters
    ----------
    every : number of frames between previews; 0 makes about 30 in a scan, and one more once the rocking curve has passed its peak
    hypotheses : number of answers of the network that a preview keeps as guesses of the crystal
    improve : refine a preview while no other work waits, and preview a complete scan again at the network's full resolution
    series : treat all scans as scans of one crystal, as ``braggshot series`` does: on one grid, with one origin, and always
        with the same choice between the crystal and its twin
    keep : keep the recorded frames of finished scans
    """

    every: int = 0
    hypotheses: int = 2
    improve: bool = True
    series: bool = False
    keep: bool = False

    def __post_init__(self) -> None:
        if self.every < 0 or self.hypotheses < 1:
            raise ConfigError("live.every must not be negative, live.hypotheses at least 1.")


@dataclass(frozen=True, repr=False)
class LiveSettings(SeriesSettings):
    """All settings of a live session: of the reconstruction, of a series of scans, of the output, and of the session itself."""

    output: OutputConfig = field(default_factory=OutputConfig)
    live: LiveConfig = field(default_factory=LiveConfig)


def resolve(settings: Mapping[str, Any]) -> LiveSettings:
    """Turn nested settings into `LiveSettings`; every name and value is checked."""
    resolved = config.resolve(LiveSettings, settings)
    pipeline.refuse_unread_settings(resolved, settings, LIVE_READS)
    return resolved
