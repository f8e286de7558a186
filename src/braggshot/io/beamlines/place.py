"""Read and write the place of a detector: a geometry without circles and angles, as `braggshot calibrate` finds it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.constants import electron_volt

from braggshot import config
from braggshot.errors import ConfigError
from braggshot.io.atomic import replacing
from braggshot.volumes import Geometry


@dataclasses.dataclass(frozen=True)
class PlaceSettings:
    """Settings of the place of a detector; a value that is not given stays as the files of a scan say.

    Parameters
    ----------
    energy_ev, distance_m, pixel_size_m : photon energy, distance from sample to detector, pixel pitch
    direct_beam : (row, column) of the pixel that the direct beam hits with all detector circles at zero
    detector_rotation_deg, tilt_azimuth_deg, tilt_deg : calibration of the detector, as xrayutilities defines it
    """

    energy_ev: float | None = None
    distance_m: float | None = None
    pixel_size_m: float | None = None
    direct_beam: tuple[float, float] | None = None
    detector_rotation_deg: float | None = None
    tilt_azimuth_deg: float | None = None
    tilt_deg: float | None = None


def place_detector(geometry: Geometry, table: Mapping[str, Any]) -> Geometry:
    """Return a geometry with the values of a table of `PlaceSettings`.

    Raises
    ------
    ConfigError : if a value is unknown, or is no positive number where it must be one.
    """
    settings = config.resolve(PlaceSettings, table)
    stated = {name: value for name, value in dataclasses.asdict(settings).items() if value is not None}
    for name in ("energy_ev", "distance_m", "pixel_size_m"):
        if not stated.get(name, 1.0) > 0:
            raise ConfigError(f"geometry.{name} must be a positive number, found {stated[name]}.")
    changed = {name.removesuffix("_deg"): np.radians(value) for name, value in stated.items() if name.endswith("_deg")}
    changed |= {"energy": stated["energy_ev"] * electron_volt} if "energy_ev" in stated else {}
    changed |= {"distance": stated["distance_m"]} if "distance_m" in stated else {}
    changed |= {"pixel_size": (stated["pixel_size_m"],) * 2} if "pixel_size_m" in stated else {}
    changed |= {"direct_beam": stated["direct_beam"]} if "direct_beam" in stated else {}
    return dataclasses.replace(geometry, **changed)


def write_place(path: str | Path, geometry: Geometry, remarks: Sequence[str] = ()) -> None:
    """Write the place of a detector as a TOML file of `PlaceSettings`, below remarks."""
    row, column = geometry.direct_beam
    rows, columns = geometry.pixel_size
    lines = [
        *(f"# {remark}" for remark in remarks),
        f"distance_m = {geometry.distance:.8g}",
        *([f"pixel_size_m = {rows:.8g}"] if rows == columns else []),
        f"direct_beam = [{row:.4f}, {column:.4f}]",
        f"detector_rotation_deg = {np.degrees(geometry.detector_rotation):.6f}",
        f"tilt_azimuth_deg = {np.degrees(geometry.tilt_azimuth):.4f}",
        f"tilt_deg = {np.degrees(geometry.tilt):.6f}",
    ]
    with replacing(path) as part:
        part.write_text("\n".join(lines) + "\n")
