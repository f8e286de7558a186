"""Apply to a scan what its user states in place of its files: dark, flat, mask, photon energy, distance, pixel size, geometry.

A reader that knows one of these options itself applies it; this module applies the others, so that every format takes all of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from scipy.constants import elementary_charge

from braggshot.errors import ConfigError, DataError
from braggshot.io.beamlines.values import Value, explain_contradiction
from braggshot.io.beamlines.views import SeamFrames
from braggshot.io.files import read_array
from braggshot.physics.geometry import mean_energy, steps_energy
from braggshot.physics.plausibility import DISTANCE, ENERGY, PIXEL
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
    of_files = scan.geometry
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
    if given and scan.geometry is None:
        named = " and ".join(given)
        raise ConfigError(f"{scan.name}: {named} cannot place the detector, for the files hold no geometry; give input.geometry.")
    if "energy_ev" in given and scan.geometry is not None and steps_energy(scan.geometry):
        raise ConfigError(f"{scan.name}: the photon energy moves from frame to frame, and energy_ev states one; leave it out.")
    if given and scan.geometry is not None:
        scan = dataclasses.replace(scan, geometry=_change_geometry(scan.geometry, given))
    return _note_contradictions(scan, of_files)


def _note_contradictions(scan: Scan, of_files: Geometry | None) -> Scan:
    """Return the scan with a note on each value that the user states otherwise than the files do."""
    if of_files is None or scan.geometry is None or scan.geometry is of_files:
        return scan
    pairs = [
        (ENERGY, mean_energy(scan.geometry), mean_energy(of_files)),
        (DISTANCE, scan.geometry.distance, of_files.distance),
        (PIXEL, scan.geometry.pixel_size[0], of_files.pixel_size[0]),
    ]
    notes = [explain_contradiction(known, stated, Value(found, "their geometry")) for known, stated, found in pairs]
    noticed = (*scan.provenance.get("noticed", ()), *(note for note in notes if note))
    return dataclasses.replace(scan, provenance={**scan.provenance, "noticed": noticed})


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
    image = np.asarray(read_array(path, what, "data", most=prod(scan.frames.shape[1:])), float)
    if image.shape != scan.frames.shape[1:]:
        raise DataError(f"{path}: the {what} has shape {image.shape}, a frame {tuple(scan.frames.shape[1:])}.")
    return image


def _add_mask(scan: Scan, path: str | Path) -> Any:
    good = read_array(path, "mask", "data", most=prod(scan.frames.shape)) == 0
    if isinstance(scan.frames, SeamFrames) and good.shape[-2:] == scan.frames.frames.shape[-2:]:
        good = scan.frames.open_seam(good, False)
    if good.shape not in {tuple(scan.frames.shape), tuple(scan.frames.shape[1:])}:
        shape = tuple(scan.frames.shape)
        raise DataError(f"{path}: the mask has shape {good.shape}, the frames {shape}; give one frame or the whole scan.")
    return good if scan.valid is None else good & scan.valid


def _positive(name: str, value: Any) -> float:
    if not isinstance(value, int | float) or not value > 0:
        raise ConfigError(f"{name} must be a positive number, found {value!r}.")
    return float(value)
