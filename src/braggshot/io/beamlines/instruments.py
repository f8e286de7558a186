"""List diffractometers as tables of circles, and build a geometry that the user states.

A user states the geometry of an instrument or a file that has no reader. Axes are those of the CXI laboratory frame (z downstream,
y up, x outboard). "x-" turns left-handed about x. Circles are listed outermost first. Sources: the instruments' own programs and,
for instruments without a reader here, bcdi (Carnis, github.com/carnisj/bcdi) and cdiutils (github.com/clatlan/cdiutils). The six
circles of I16 follow You, J. Appl. Cryst. 32, 614 (1999); x (up), y (along the beam) and z of that paper are y, z and x here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.constants import electron_volt

from braggshot import config
from braggshot.errors import ConfigError
from braggshot.io.beamlines.place import place_detector
from braggshot.io.beamlines.readings import Axis, Diffractometer
from braggshot.physics.geometry import scanned_values, steps_energy
from braggshot.volumes import Circle, FloatArray, Geometry, Scan

APS_34IDC = Diffractometer(
    name="APS 34-ID-C",
    sample=(Axis("Theta", "y+"), Axis("Chi", "z-"), Axis("Phi", "y+")),
    detector=(Axis("Delta", "y+"), Axis("Gamma", "x-")),
    row_axis="y-",
    column_axis="x+",
)
ESRF_ID01 = Diffractometer(
    name="ESRF ID01",
    sample=(Axis("mu", "y-"), Axis("eta", "x-"), Axis("phi", "y-")),
    detector=(Axis("nu", "y-"), Axis("delta", "x-")),
    row_axis="y-",
    column_axis="x+",
)
PETRA_P10 = Diffractometer(
    name="PETRA III P10",
    sample=(Axis("mu", "y+"), Axis("om", "x-"), Axis("chi", "z+", zero=90.0), Axis("phi", "y-")),
    detector=(Axis("gam", "y+"), Axis("del", "x-")),
    row_axis="y-",
    column_axis="x-",
)
DIAMOND_I16 = Diffractometer(
    name="Diamond I16",
    sample=(Axis("mu", "y+"), Axis("eta", "x-"), Axis("chi", "z+"), Axis("phi", "x-")),
    detector=(Axis("gam", "y+"), Axis("delta", "x-")),
    row_axis="y-",
    column_axis="x+",
)
NANOMAX = Diffractometer(
    name="NanoMAX",
    sample=(Axis("gontheta", "x-"), Axis("gonphi", "y-")),
    detector=(Axis("gamma", "y-"), Axis("delta", "x-")),
    row_axis="y-",
    column_axis="x-",
)
SIXS = Diffractometer(  # the circle beta carries both sample and detector
    name="SIXS",
    sample=(Axis("beta", "x-"), Axis("mu", "y+")),
    detector=(Axis("beta", "x-"), Axis("gamma", "y+"), Axis("delta", "x-")),
    row_axis="y-",
    column_axis="x+",
)
# Diffractometer of SIXS with the Merlin detector, which is mounted on its side.
SIXS_2022 = dataclasses.replace(SIXS, name="SIXS 2022", row_axis="x-", column_axis="y-")

CRISTAL = Diffractometer(
    name="CRISTAL",
    sample=(Axis("mgomega", "x-"), Axis("mgphi", "y+")),
    detector=(Axis("gamma", "y+"), Axis("delta", "x-")),
    row_axis="y-",
    column_axis="x+",
)
APS_1IDE = Diffractometer(  # the detector turns about the beam, and is raised off it
    name="APS 1-ID-E",
    sample=(Axis("AeroTech", "y-"),),
    detector=(Axis("vff_eta", "z+"),),
    row_axis="y-",
    column_axis="x+",
)
APS_7IDD = Diffractometer(
    name="APS 7-ID-D",
    sample=(Axis("wedge", "x-"), Axis("Chi", "z-"), Axis("ThetaN", "x-"), Axis("Phi", "y+")),
    detector=(Axis("Yaw", "y+"), Axis("Pitch", "x-")),
    row_axis="x+",
    column_axis="y+",
)
APS_20IDE = Diffractometer(  # the detector stands across the beam, and moves along it and off it
    name="APS 20-ID-E", sample=(Axis("samRy", "y+"),), detector=(), row_axis="y-", column_axis="x+"
)
ESRF_ID27 = Diffractometer(name="ESRF ID27", sample=(Axis("nath", "y-"),), detector=(), row_axis="y-", column_axis="x-")
APS_28IDB = Diffractometer(
    name="APS 28-ID-B",
    sample=(Axis("Mu", "y-"), Axis("Eta", "x-"), Axis("Chi", "z+"), Axis("Phi", "y-")),
    detector=(Axis("Nu", "y-"), Axis("Delta", "x-")),
    row_axis="y-",
    column_axis="x+",
)
HEPS_ID05 = Diffractometer(
    name="HEPS ID05",
    sample=(Axis("mu", "y+"), Axis("eta", "x-"), Axis("chi", "z+", zero=90.0), Axis("phi", "y-")),
    detector=(Axis("nu", "y+"), Axis("del", "x-")),
    row_axis="y-",
    column_axis="x-",
)
HEPS_ID05_4C = Diffractometer(  # the same circles by other names
    name="HEPS ID05, four circles",
    sample=(Axis("thh", "y+"), Axis("th", "x-"), Axis("chi", "z+", zero=90.0), Axis("phi", "y-")),
    detector=(Axis("tthh", "y+"), Axis("tth", "x-")),
    row_axis="y-",
    column_axis="x-",
)

# Built-in diffractometers, by the name that a user writes in the settings of a geometry.
INSTRUMENTS = {
    "34idc": APS_34IDC,
    "id01": ESRF_ID01,
    "p10": PETRA_P10,
    "i16": DIAMOND_I16,
    "nanomax": NANOMAX,
    "sixs": SIXS,
    "sixs2022": SIXS_2022,
    "cristal": CRISTAL,
    "1ide": APS_1IDE,
    "7idd": APS_7IDD,
    "20ide": APS_20IDE,
    "28idb": APS_28IDB,
    "id27": ESRF_ID27,
    "id05": HEPS_ID05,
    "id05_4c": HEPS_ID05_4C,
}


@dataclasses.dataclass(frozen=True)
class GeometrySettings:
    """Settings of a geometry, as a table of a TOML file, in the units of the beamline.

    A table without instrument, circles and angles changes the geometry that the files of a scan hold (`PlaceSettings`).

    Parameters
    ----------
    instrument : name of a diffractometer in `INSTRUMENTS`; without one, give `sample`, `detector`, `row_axis` and `column_axis`
    energy_ev : photon energy; for an energy scan one per frame, or [first, last] of an evenly spaced one, and no circle moves
    distance_m, pixel_size_m : distance from sample to detector, pixel pitch
    angles_deg : motor -> one angle, one angle per frame, or [first, last] of an evenly spaced scan
    direct_beam : (row, column) of the pixel that the direct beam hits with all detector circles at zero; None is the frame's centre
    sample, detector : circles as [motor, axis] pairs, outermost first
    row_axis, column_axis : laboratory axis along which the row number and the column number grow
    detector_rotation_deg, tilt_azimuth_deg, tilt_deg : calibration of the detector, as xrayutilities defines it
    """

    energy_ev: float | tuple[float, ...]
    distance_m: float
    pixel_size_m: float
    angles_deg: dict[str, float | tuple[float, ...]]
    instrument: str = ""
    direct_beam: tuple[float, float] | None = None
    sample: tuple[tuple[str, str], ...] = ()
    detector: tuple[tuple[str, str], ...] = ()
    row_axis: str = "y-"
    column_axis: str = "x+"
    detector_rotation_deg: float = 0.0
    tilt_azimuth_deg: float = 0.0
    tilt_deg: float = 0.0


def set_geometry(scan: Scan, said: Mapping[str, Any] | str) -> Scan:
    """Give a scan the geometry that its user states, as a table or as the path of a TOML file that holds such a table.

    Raises
    ------
    ConfigError : if a value is missing, unknown, or does not fit the scan.
    """
    table = config.read_toml(said) if isinstance(said, str) else said
    if scan.geometry is not None and not {"angles_deg", "instrument", "sample", "detector"} & set(table):
        return dataclasses.replace(scan, geometry=place_detector(scan.geometry, table))
    settings = config.resolve(GeometrySettings, table)
    geometry = build_geometry(settings, scan.frames.shape)
    moving = [circle.angle for circle in geometry.sample if np.ndim(circle.angle)]
    rocking = None if steps_energy(geometry) else scan.rocking_angle
    return dataclasses.replace(scan, geometry=geometry, rocking_angle=np.asarray(moving[0]) if len(moving) == 1 else rocking)


def build_geometry(settings: GeometrySettings, shape: Sequence[int]) -> Geometry:
    """Build the geometry that the settings describe, for a scan of `shape` (frames, rows, columns).

    Raises
    ------
    ConfigError : if the instrument is unknown, an angle belongs to no circle, or the number of angles or energies is wrong.
    GeometryError : if all energies are alike, or a circle moves beside them.
    """
    instrument = find_instrument(settings)
    motors = [axis.motor for axis in (*instrument.sample, *instrument.detector)]
    strange = set(settings.angles_deg) - set(motors)
    if strange:
        raise ConfigError(f"{instrument.name} has no circle {', '.join(sorted(strange))}; its circles: {', '.join(motors)}.")
    for name in ("energy_ev", "distance_m", "pixel_size_m"):
        if not np.min(getattr(settings, name)) > 0:
            raise ConfigError(f"geometry.{name} must be a positive number, found {np.min(getattr(settings, name))}.")

    def circles(axes: tuple[Axis, ...]) -> tuple[Circle, ...]:
        return tuple(Circle(a.axis, _angle(a, settings.angles_deg.get(a.motor, a.zero), shape[0]), a.motor) for a in axes)

    geometry = Geometry(
        energy=_per_frame("energy_ev", settings.energy_ev, shape[0]) * electron_volt,
        distance=settings.distance_m,
        pixel_size=(settings.pixel_size_m, settings.pixel_size_m),
        sample=circles(instrument.sample),
        detector=circles(instrument.detector),
        direct_beam=settings.direct_beam or ((shape[1] - 1) / 2, (shape[2] - 1) / 2),
        row_axis=instrument.row_axis,
        column_axis=instrument.column_axis,
        instrument=instrument.name,
        detector_rotation=np.radians(settings.detector_rotation_deg),
        tilt_azimuth=np.radians(settings.tilt_azimuth_deg),
        tilt=np.radians(settings.tilt_deg),
    )
    if steps_energy(geometry):
        scanned_values(geometry)  # refuses energies that stand still, or that move beside a circle
    return geometry


def find_instrument(settings: GeometrySettings) -> Diffractometer:
    """Return the diffractometer that the settings name, or whose circles they state.

    Raises
    ------
    ConfigError : if the name is not built in and no circles are stated.
    """
    if settings.sample:
        sample, detector = (tuple(Axis(*pair) for pair in pairs) for pairs in (settings.sample, settings.detector))
        return Diffractometer(
            settings.instrument or "the stated geometry", sample, detector, settings.row_axis, settings.column_axis
        )
    if settings.instrument not in INSTRUMENTS:
        raise ConfigError(
            f"geometry.instrument {settings.instrument!r} is not built in ({', '.join(INSTRUMENTS)}); "
            "state its circles with geometry.sample and geometry.detector."
        )
    return INSTRUMENTS[settings.instrument]


def _angle(axis: Axis, reading: float | tuple[float, ...], frames: int) -> float | FloatArray:
    """Return the angle of a circle [rad] from the reading of its motor [deg]."""
    angles = np.radians(_per_frame(axis.motor, reading, frames, "angles") - axis.zero)
    return angles if np.ndim(angles) else float(angles)


def _per_frame(name: str, stated: float | tuple[float, ...], frames: int, many: str = "energies") -> float | FloatArray:
    """Return one value, or one for each frame where several are stated: all of them, or the first and the last."""
    if not isinstance(stated, tuple):
        return float(stated)
    if len(stated) not in {2, frames}:
        raise ConfigError(f"{name} has {len(stated)} {many} for {frames} frames; give one per frame, or the first and the last.")
    return np.linspace(*stated, frames) if len(stated) == 2 else np.asarray(stated, dtype=float)
