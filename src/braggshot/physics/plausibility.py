"""Check that values of a measurement can be true, and name the unit that was probably meant where they cannot.

The ranges are wide: they hold for every Bragg CDI instrument, so a value outside them is a slip, most often of a unit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.constants import electron_volt

from braggshot.errors import GeometryError
from braggshot.physics.lattice import Lattice, spacing
from braggshot.volumes import FloatArray, Geometry, StrainMap

SPACING = 0.5e-10, 20e-10  # smallest and largest spacing of reflecting lattice planes [m]
CELL = 1e-10, 1e-7  # smallest and largest edge of a unit cell [m]
VOXEL = 1e-11, 1e-6  # smallest and largest edge of a voxel of the strain map [m]
STRAIN = 0.05  # largest strain that a crystal bears [1]
MISFIT = 0.05  # relative difference of two lattice spacings from which they are not of the same planes [1]
FINE, COARSE = 0.05, 0.5  # edge of a voxel over the resolution, below and above which it does not suit the resolution [1]
PLATEAU = 4  # number of voxels that share the highest count, from which the detector counts as saturated
BRIGHT = 1000  # highest count from which a shared highest count is no chance [counts]
# Highest count of the counters of detectors -> their number of bits, or the name of the detector.
COUNTERS = {4095: "12-bit", 11810: "Medipix2 or Timepix", 16383: "14-bit", 65535: "16-bit", 1048575: "20-bit", 16777215: "24-bit"}


@dataclass(frozen=True)
class Range:
    """Range of values of a quantity that can be true, in the unit in which users state it.

    Parameters
    ----------
    name, unit : name of the quantity, and its unit
    low, high : ends of the range [unit]
    slips : factor by which a value is wrong -> unit in which it was then typed
    si : `unit` in the SI unit of the quantity
    """

    name: str
    unit: str
    low: float
    high: float
    slips: dict[float, str]
    si: float = 1.0

    def holds(self, value: float) -> bool:
        """Tell whether a value [SI unit] can be true."""
        return self.low <= value / self.si <= self.high


ENERGY = Range("photon energy", "eV", 1e3, 2e5, {1e3: "keV", 1e6: "MeV", 1 / electron_volt: "J"}, electron_volt)
DISTANCE = Range("distance from sample to detector", "m", 0.02, 50.0, {1e-3: "mm", 1e-6: "µm"})
PIXEL = Range("pixel size", "m", 1e-6, 2e-3, {1e-6: "µm", 1e-3: "mm"})


def refuse_impossible_geometry(geometry: Geometry, name: str) -> None:
    """Refuse a geometry whose photon energy, distance or pixel size cannot be true.

    Parameters
    ----------
    geometry : the geometry
    name : name of the scan, for the message

    Raises
    ------
    GeometryError : for a value outside its range; the message names the unit that was probably meant.
    """
    stated = np.atleast_1d(geometry.energy)
    stated = stated[~np.isnan(stated)] if stated.size > 1 else stated  # frames of an energy scan may lack theirs
    energies = [float(stated.min()), float(stated.max())] if stated.size else [np.nan]
    values = [*((ENERGY, energy / electron_volt) for energy in energies), (DISTANCE, geometry.distance)]
    for known, value in (*values, *((PIXEL, pitch) for pitch in geometry.pixel_size)):
        if not known.low <= value <= known.high:
            raise GeometryError(f"{name}: {explain_range(known, value)}")


def explain_range(known: Range, value: float) -> str:
    """Say that a value cannot be true, and which unit was probably meant."""
    meant = [f"{value:g} {unit}" for slip, unit in known.slips.items() if known.low <= value * slip <= known.high]
    guess = f"; was {meant[0]} meant?" if meant else "."
    return f"{value:g} {known.unit} is no {known.name} (expected {known.low:g} to {known.high:g} {known.unit}){guess}"


def explain_length(name: str, value: float, limits: tuple[float, float], unit: str, factor: float) -> str | None:
    """Say that a length of the settings cannot be true, and how to write it; None if it can be.

    Parameters
    ----------
    name, value : name and value of the setting [m]
    limits : smallest and largest value that can be true [m]
    unit, factor : unit that was probably meant, in metres
    """
    if limits[0] <= value <= limits[1]:
        return None
    meant = f"; was {value:g} {unit} meant? Write {value:g}{factor:.0e}".replace("1e-", "e-") if value * factor <= limits[1] else ""
    return f"{name} is in metres, and {value:g} m is not between {limits[0]:g} and {limits[1]:g} m{meant}."


def check_spacing(q_bragg: FloatArray) -> str | None:
    """Say that a scattering vector [1/m] belongs to no lattice planes; None if it can belong to some."""
    length = 2 * np.pi / max(float(np.linalg.norm(q_bragg)), 1e-300)
    if SPACING[0] <= length <= SPACING[1]:
        return None
    return (
        f"the geometry gives a lattice spacing of {length * 1e10:.4g} Å, and planes that reflect X-rays are "
        f"{SPACING[0] * 1e10:g} to {SPACING[1] * 1e10:g} Å apart: angles, energy or direct beam are wrong, so lengths and "
        "strain are left out"
    )


def check_counts(image: NDArray[Any]) -> Iterator[str]:
    """Say that a detector is saturated, if the values of the brightest frame show it.

    Where two voxels or more share the highest value, and the counters of a known detector end there, the detector is saturated.
    Where many voxels share another one, it may be.
    """
    values = np.asarray(image, dtype=np.float64)
    values = values[np.isfinite(values) & (values > 0)]
    if not values.size:
        return
    highest = values.max()
    shared = int((values == highest).sum())
    alike = f"{shared} voxels of the brightest frame share the highest count, {highest:g}"
    if shared >= 2 and highest in COUNTERS:
        yield f"{alike}, at which the counters of a {COUNTERS[highest]} detector end: it is saturated"
    elif highest >= BRIGHT and shared >= PLATEAU:
        yield f"{alike}: the detector may be saturated"


def check_strain(found: StrainMap, cell: Lattice | None, voxel_size: Sequence[float]) -> Iterator[str]:
    """Say what of a strain map contradicts its reflection, its unit cell, its resolution, or what crystals bear.

    Parameters
    ----------
    found : the strain map
    cell : unit cell that the user states; None if none is stated
    voxel_size : edges of the voxels that the user asks for; empty if the measured ones are kept [m]
    """
    measured = 2 * np.pi / float(np.linalg.norm(found.q_bragg))
    if found.reflection is not None and cell is not None:
        expected = spacing(found.reflection, cell)
        if abs(measured / expected - 1) > MISFIT:
            yield (
                f"the measured lattice spacing is {measured * 1e10:.4f} Å, that of {_bracket(found.reflection)} in the stated unit "
                f"cell {expected * 1e10:.4f} Å: another reflection, or angles, energy or direct beam are wrong"
            )
    elif found.reflection is not None:
        edge = measured * float(np.linalg.norm(found.reflection))
        if not 2e-10 <= edge <= 3e-9:
            yield f"with {_bracket(found.reflection)} a cubic unit cell would be {edge * 1e10:.3g} Å wide: is this the reflection?"
    resolution = next(iter(found.resolution.values()), None)
    for edge in set(voxel_size):
        if resolution is not None and not FINE <= edge / resolution <= COARSE:
            size = "finer" if edge < resolution else "coarser"
            yield f"voxels of {edge * 1e9:.3g} nm are far {size} than the resolution, {resolution * 1e9:.3g} nm, calls for"
    inside = np.abs(found.strain[found.bulk & np.isfinite(found.strain)])
    if inside.size and float(np.percentile(inside, 99)) > STRAIN:
        yield f"the strain reaches {100 * float(np.percentile(inside, 99)):.2g} %, and crystals break at a few percent"


def _bracket(hkl: Sequence[int]) -> str:
    return f"({' '.join(map(str, hkl))})"
