"""Write and read a prepared measurement in a CXI entry: counts, mask, preparation steps and geometry.

::

    instrument_1/name
      source_1/energy [J]   beam_1/{incident_energy [J], incident_wavelength [m]}
      detector_1/{data, mask, distance, x_pixel_size, y_pixel_size [m]}     mask: 0 good, 1 bad; all of this as PyNX writes it
      detector_1/gain                                                       of each pixel of a frame, estimated from the scan
      detector_1/{reciprocal_basis, q_bragg} [1/m]                          components (z, y, x), basis vectors in columns
      detector_1/process_1/{program, version, steps, oversampling, window, note_1}    present where braggshot prepared the counts
      geometry_1/{direct_beam, row_axis, column_axis, detector_rotation, tilt_azimuth, tilt, sample_circle_N, detector_circle_N}
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from braggshot.io.files import find_node
from braggshot.io.hdf5 import add_group, get, put, put_note, put_tree, read_note, read_tree
from braggshot.physics.geometry import mean_energy, steps_energy, wavelength
from braggshot.volumes import Circle, DiffractionVolume, Geometry, Window


def write_measurement(instrument: h5py.Group, volume: DiffractionVolume) -> None:
    """Write counts, mask, preparation and geometry of `volume` into an empty group ``instrument_1``."""
    detector = add_group(instrument, "detector_1", "NXdetector", signal="data")
    put(detector, "data", volume.intensity.astype(np.float32), "counts")  # photons, by the one name that UDUNITS has
    put(detector, "mask", (~volume.valid).astype(np.int8), note="0 good, 1 bad")
    write_preparation(detector, {name: getattr(volume, name) for name in PREPARATION})
    if volume.geometry is not None:
        write_geometry(instrument, detector, volume.geometry)


PREPARATION = ("window", "reciprocal_basis", "q_bragg", "oversampling", "steps", "provenance", "gain")
"""Fields of `DiffractionVolume` that say how its counts were prepared."""


def write_preparation(detector: h5py.Group, done: Mapping[str, Any]) -> None:
    """Write how counts were prepared (window, voxel basis, steps, ...) beside the counts; `read_preparation` reads this back."""
    put(detector, "reciprocal_basis", done.get("reciprocal_basis"), "1/m")
    put(detector, "q_bragg", done.get("q_bragg"), "1/m")
    process = add_group(detector, "process_1", "NXprocess")
    put(process, "program", "braggshot")
    put(process, "version", importlib.metadata.version("braggshot"))
    put(detector, "gain", done.get("gain"))
    put(process, "steps", done.get("steps") or None)
    put(process, "oversampling", done.get("oversampling"))
    put_note(process, "note_1", done.get("provenance") or {}, "what was read, and how")
    if done.get("window") is not None:
        put_tree(add_group(process, "window", "NXcollection"), dataclasses.asdict(done["window"]))


def write_geometry(instrument: h5py.Group, detector: h5py.Group, geometry: Geometry) -> None:
    """Write the diffractometer circles, the photon energy, the pixel size and the distance; `read_geometry` reads them back."""
    put(instrument, "name", geometry.instrument)
    energy = mean_energy(geometry)
    put(add_group(instrument, "source_1", "NXsource"), "energy", energy, "J")
    beam = add_group(instrument, "beam_1", "NXbeam")
    put(beam, "incident_energy", energy, "J")
    put(beam, "incident_wavelength", wavelength(energy), "m")
    put(detector, "distance", geometry.distance, "m")
    put(detector, "y_pixel_size", geometry.pixel_size[0], "m")
    put(detector, "x_pixel_size", geometry.pixel_size[1], "m")
    group = add_group(instrument, "geometry_1", "NXcollection", note="circles outermost first; axes as in the CXI laboratory frame")
    put(group, "direct_beam", geometry.direct_beam, "pixel")
    put(group, "row_axis", geometry.row_axis)
    put(group, "column_axis", geometry.column_axis)
    if steps_energy(geometry):
        put(group, "energy", geometry.energy, "J", note="one per frame: an energy scan")
    for name in ("detector_rotation", "tilt_azimuth", "tilt"):
        put(group, name, getattr(geometry, name), "rad")
    for holder in ("sample", "detector"):
        for number, circle in enumerate(getattr(geometry, holder), start=1):
            place = add_group(group, f"{holder}_circle_{number}", "NXcollection")
            put(place, "name", circle.name)
            put(place, "axis", circle.axis)
            put(place, "angle", circle.angle, "rad")


def read_preparation(detector: h5py.Group) -> dict[str, Any]:
    """Read how counts were prepared, as fields of `DiffractionVolume`; empty if another program prepared the counts."""
    process = find_node(detector, "process_1")
    if process is None or get(process, "program") != "braggshot":
        return {}
    window = read_tree(process["window"]) if "window" in process else None
    oversampling = get(process, "oversampling")
    return {
        "window": window and _read_window(window),
        "reciprocal_basis": get(detector, "reciprocal_basis"),
        "q_bragg": get(detector, "q_bragg"),
        "oversampling": None if oversampling is None else tuple(oversampling.tolist()),
        "steps": tuple(get(process, "steps", ())),
        "provenance": read_note(process, "note_1"),
        "gain": get(detector, "gain"),
    }


def _read_window(fields: Mapping[str, Any]) -> Window:
    start, binning, raw_shape = (tuple(fields[name].tolist()) for name in ("start", "binning", "raw_shape"))
    return Window(start, binning, raw_shape, bool(fields.get("straight", False)))


def read_geometry(instrument: h5py.Group) -> Geometry | None:
    """Read the geometry that `write_geometry` wrote; None if the file holds no diffractometer circles."""
    if "geometry_1" not in instrument:
        return None
    detector, group = instrument["detector_1"], instrument["geometry_1"]
    return Geometry(
        energy=get(group, "energy", get(instrument, "source_1/energy")),
        distance=get(detector, "distance"),
        pixel_size=(get(detector, "y_pixel_size"), get(detector, "x_pixel_size")),
        sample=_read_circles(group, "sample"),
        detector=_read_circles(group, "detector"),
        direct_beam=tuple(get(group, "direct_beam").tolist()),
        row_axis=get(group, "row_axis"),
        column_axis=get(group, "column_axis"),
        instrument=get(instrument, "name", ""),
        **{name: get(group, name, 0.0) for name in ("detector_rotation", "tilt_azimuth", "tilt")},
    )


def _read_circles(group: h5py.Group, holder: str) -> tuple[Circle, ...]:
    number = sum(name.startswith(f"{holder}_circle_") for name in group)
    return tuple(Circle(**read_tree(group[f"{holder}_circle_{n}"])) for n in range(1, number + 1))
