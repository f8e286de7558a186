"""Apply to a scan what its user states in place of its files: dark, flat, mask, photon energy, distance, pixel size, geometry.

A reader that knows one of these options itself applies it; this module applies the others, so that every format takes all of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.constants import elementary_charge

from braggshot.errors import ConfigError, DataError
from braggshot.io.files import read_array
from braggshot.volumes import Geometry, Scan


def state_values(
    scan: Scan,
    *,
    geometry: Mapping[str, Any] | str | None = None,
    dark: str | Path | None = None,
    flat: str | Path | None = None,
    mask: str | Path | None = None,
    energy_ev: float | None = None,
    distance_m: float | None = None,
    pixel_size_m: float | None = None,
) -> Scan:
    """Return the scan with what its user states.

    Parameters
    ----------
    geometry : whole geometry, as a table or a TOML file of `braggshot.io.beamlines.instruments.GeometrySettings`
    dark : image without beam, .npy, .npz or .tif, one value per pixel of a frame [counts per frame]
    flat : image of uniform light, .npy, .npz or .tif, one value per pixel of a frame [arbitrary]
    mask : mask (0 good), .npy, .npz or .tif, of one frame or of the whole scan; voxels that the files mask stay masked
    energy_ev : photon energy, in place of the one in the files [eV]
    distance_m : distance from the sample to the detector, in place of the one in the files [m]
    pixel_size_m : edge of a pixel, in place of the one in the files [m]

    Raises
    ------
    FormatError : if a file cannot be read.
    DataError : if an image does not have the shape of a frame.
    ConfigError : if a value is not a positive number, or if it belongs to a geometry and the scan has none.
    """
    if geometry is not None:
        from braggshot.io.beamlines.instruments import set_geometry

        scan = set_geometry(scan, geometry)
    if dark is not None:
        scan = dataclasses.replace(scan, dark=_read_image(scan, "dark", dark))
    if flat is not None:
        scan = dataclasses.replace(scan, flat=_read_image(scan, "flat", flat))
    if mask is not None:
        scan = dataclasses.replace(scan, valid=_add_mask(scan, mask))
    values = {"energy_ev": energy_ev, "distance_m": distance_m, "pixel_size_m": pixel_size_m}
    given = {name: _positive(name, value) for name, value in values.items() if value is not None}
    if not given:
        return scan
    if scan.geometry is None:
        named = " and ".join(given)
        raise ConfigError(f"{scan.name}: {named} cannot place the detector, for the files hold no geometry; give input.geometry.")
    return dataclasses.replace(scan, geometry=_change_geometry(scan.geometry, given))


def _change_geometry(geometry: Geometry, given: Mapping[str, float]) -> Geometry:
    """Return the geometry with the photon energy [eV], the distance [m] and the pixel size [m] that are given."""
    pitch = given.get("pixel_size_m")
    return dataclasses.replace(
        geometry,
        energy=given["energy_ev"] * elementary_charge if "energy_ev" in given else geometry.energy,
        distance=given.get("distance_m", geometry.distance),
        pixel_size=geometry.pixel_size if pitch is None else (pitch, pitch),
    )


def _read_image(scan: Scan, what: str, path: str | Path) -> Any:
    image = np.asarray(read_array(path, what, "data"), float)
    if image.shape != scan.frames.shape[1:]:
        raise DataError(f"{path}: the {what} has shape {image.shape}, a frame {tuple(scan.frames.shape[1:])}.")
    return image


def _add_mask(scan: Scan, path: str | Path) -> Any:
    good = np.asarray(read_array(path, "mask", "data")) == 0
    if good.shape not in {tuple(scan.frames.shape), tuple(scan.frames.shape[1:])}:
        shape = tuple(scan.frames.shape)
        raise DataError(f"{path}: the mask has shape {good.shape}, the frames {shape}; give one frame or the whole scan.")
    return good if scan.valid is None else good & scan.valid


def _positive(name: str, value: Any) -> float:
    if not isinstance(value, int | float) or not value > 0:
        raise ConfigError(f"{name} must be a positive number, found {value!r}.")
    return float(value)
