"""Plan a measurement: where the reflection is, how finely it is sampled, how long to expose, and what strain will show.

The formulas are those of `braggshot.physics.exposure`; the reciprocal voxels are those of the geometry that a scan would have
(`braggshot.physics.geometry`), so plan and measurement agree. The reflection is in one plane with the beam, and its planes are
taken to lie along the beam with all sample circles at zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.constants import electron_volt

from braggshot.crystals.scan import ScanSettings, simulate_scan
from braggshot.errors import ConfigError, GeometryError
from braggshot.io.beamlines.instruments import GeometrySettings, build_geometry, find_instrument
from braggshot.io.beamlines.readings import Axis
from braggshot.physics import exposure
from braggshot.physics.geometry import direct_basis, photon_energy, reciprocal_basis, wavelength
from braggshot.physics.lattice import Lattice, metric, spacing
from braggshot.physics.plausibility import CELL, DISTANCE, ENERGY, PIXEL, explain_range
from braggshot.volumes import FloatArray, Geometry, Window

LOW, HIGH = 3.0, 4.0  # oversampling per axis that is aimed at [1]
LEAST = 2.0  # oversampling below which a crystal cannot be phased [1]
TYPICAL_SOURCE, TYPICAL_SOURCE_DISTANCE = 50e-6, 50.0  # full width of a source of the fourth generation, and its distance [m]
TYPICAL_BANDWIDTH = 1.4e-4  # relative bandwidth of a monochromator of Si (111) [1]
FINE = 15  # voxels across the smallest side of the crystal, where no resolution is asked for
JUDGED = 1e4  # photons in the brightest voxel from which results are called good
MOST = 1e7  # photons in the brightest voxel above which no strain was measured
SIDES = {"y+": "x+", "y-": "x-", "x+": "y-", "x-": "y+"}  # axis of a rotation -> where it turns the beam
COARSEST, LONGEST = math.radians(5), 20_000  # largest rocking step [rad], and number of frames of a scan, that can be meant
LARGEST_PICTURE = 160  # most voxels of the drawn pattern along an axis


@dataclass(frozen=True)
class Wish:
    """What is to be measured, and with what.

    Parameters
    ----------
    energy, distance : photon energy [J]; sample to detector [m]
    pixel_size, shape : edge of the pixels [m]; (rows, columns) of the detector
    size : diameters of the crystal along the laboratory's axes (z, y, x) [m]
    lattice, reflection : unit cell, and hkl
    instrument : key of `INSTRUMENTS`; empty if `circles` are given
    circles : (motor, axis) pairs of the sample and of the detector, outermost first
    rock : motor that rocks the sample; empty takes the first that scatters vertically, else the first that scatters horizontally
    step : rocking step [rad]; None takes the one that samples three times
    rate : photons per second in the brightest pixel at the top of the peak; None if not measured
    flux, structure_factor : flux density [photons/m^2/s], and |F| of one unit cell [electrons], in place of a measured rate
    attenuation : mass attenuation coefficient, for the dose [m^2/kg]; None leaves the dose out
    strain, resolution : wanted one sigma of the strain [1], and edge of a voxel [m]; a resolution of None is a fifteenth of `size`
    source, source_distance, bandwidth : full width of the source [m], its distance [m], relative bandwidth; None takes typical ones
    arm_limit : largest angle that the detector's arm reaches [rad]
    """

    energy: float
    distance: float
    pixel_size: float
    shape: tuple[int, int]
    size: tuple[float, float, float]
    lattice: Lattice
    reflection: tuple[int, int, int]
    instrument: str = ""
    circles: tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]] = ((), ())
    rock: str = ""
    step: float | None = None
    rate: float | None = None
    flux: float | None = None
    structure_factor: float | None = None
    attenuation: float | None = None
    strain: float = 1e-4
    resolution: float | None = None
    source: float | None = None
    source_distance: float | None = None
    bandwidth: float | None = None
    arm_limit: float = math.pi

    def __post_init__(self) -> None:
        for known, value in ((ENERGY, self.energy / electron_volt), (DISTANCE, self.distance), (PIXEL, self.pixel_size)):
            if not known.low <= value <= known.high:
                raise ConfigError(explain_range(known, value))
        if not all(5e-9 <= side <= 1e-4 for side in self.size):
            sides = ", ".join(f"{side * 1e9:g}" for side in self.size)
            raise ConfigError(f"expected a crystal of 5 to 100000 nm, found {sides} nm.")
        if not all(CELL[0] <= edge <= CELL[1] for edge in self.lattice.edges):
            edges = ", ".join(f"{edge * 1e10:g}" for edge in self.lattice.edges)
            raise ConfigError(f"expected edges of the unit cell of 1 to 1000 Å, found {edges} Å.")
        if not any(self.reflection):
            raise ConfigError("expected a reflection such as 1,1,1, found 0,0,0.")
        if self.flux is not None and (self.structure_factor is None or self.rate is not None):
            raise ConfigError("a flux density needs the structure factor, and replaces a measured rate: give one of them.")
        numbers = ("step", "rate", "flux", "structure_factor", "attenuation", "strain", "resolution", "source", "source_distance",
                   "bandwidth", "arm_limit")  # fmt: skip
        for name in numbers:
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"{name.replace('_', ' ')}: expected a positive number, found {value:g}.")
        if self.step is not None and self.step > COARSEST:
            raise ConfigError(
                f"expected a rocking step of at most {math.degrees(COARSEST):g}°, found {math.degrees(self.step):g}°."
            )
        if self.resolution is not None and self.resolution > min(self.size) / 4:
            raise ConfigError(
                f"a voxel of {self.resolution * 1e9:g} nm leaves less than four across a crystal of {min(self.size) * 1e9:g} nm."
            )


@dataclass(frozen=True)
class Exposure:
    """Photons, time and dose that a strain takes.

    Parameters
    ----------
    strain_at : photons in the brightest voxel -> one sigma of the strain [1]
    strain_peak : photons in the brightest voxel that the wanted strain takes
    peak : photons in the brightest voxel to measure: those for the strain, and at least those for a good verdict
    rate, frame, seconds : photons per second in the brightest voxel, exposure of a frame and of the scan [s]; None if unknown
    dose : absorbed dose [Gy]; None if unknown
    """

    strain_at: dict[float, float]
    strain_peak: float
    peak: float
    rate: float | None
    frame: float | None
    seconds: float | None
    dose: float | None


@dataclass(frozen=True)
class Plan:
    """A planned measurement, SI; three numbers are those of frames, rows and columns.

    Parameters
    ----------
    wish, geometry : what was asked for; geometry of the scan
    spacing, bragg_angle : spacing of the planes [m]; theta [rad]
    motors : reading of each circle that is not at zero [deg]
    offset : axis of the laboratory, and distance along it of the detector's middle from the beam, where no arm carries it [m]
    basis, q : reciprocal voxel edges (columns) of a frame, a row and a column, and the scattering vector [1/m]
    step, step_range : rocking step, and the steps that sample four and three times [rad]
    oversampling, binning : array size / extent of the crystal, and the voxels that may be summed [1]
    distance_range : distances that sample the detector's coarser axis three and four times [m]
    resolution, window : edge of a voxel [m]; frames, rows and columns that it takes
    rocking_width : full width of the peak, from the size alone [rad]
    transverse, longitudinal, path : coherence lengths, and longest difference of paths through the crystal [m]
    exposure : photons, time and dose that the wanted strain takes
    advice : what stands against the plan, and what would help, in words
    """

    wish: Wish
    geometry: Geometry
    spacing: float
    bragg_angle: float
    motors: dict[str, float]
    offset: tuple[str, float] | None
    basis: FloatArray
    q: FloatArray
    step: float
    step_range: tuple[float, float]
    oversampling: tuple[float, ...]
    binning: tuple[int, ...]
    distance_range: tuple[float, float]
    resolution: float
    window: tuple[int, ...]
    rocking_width: float
    transverse: float
    longitudinal: float
    path: float
    exposure: Exposure
    advice: tuple[str, ...] = ()


def make_plan(wish: Wish) -> Plan:
    """Plan a measurement.

    Raises
    ------
    GeometryError : if no angle reaches the reflection, or the instrument cannot reach it.
    ConfigError : if the instrument is unknown, or has no circle to rock.
    """
    distance = float(spacing(wish.reflection, wish.lattice))
    theta = _bragg_angle(wish, distance)
    trial = 1e-4
    basis, q, _ = _voxels(wish, theta, trial, wish.shape)
    per_step = exposure.oversampling_of(wish.size, basis)[0] * trial
    step = wish.step or math.radians(_round_down(math.degrees(per_step / LOW)))
    basis, q, arranged = _voxels(wish, theta, step, wish.shape)
    sampled = exposure.oversampling_of(wish.size, basis)
    resolution = wish.resolution or min(wish.size) / FINE
    window = [2 * math.ceil(math.pi / (float(edge) * resolution)) for edge in np.linalg.norm(basis, axis=0)]
    if window[0] > LONGEST:
        found = f"steps of {math.degrees(step):.2g}° and voxels of {resolution * 1e9:.3g} nm"
        raise ConfigError(f"{found} take {window[0]} frames, more than {LONGEST}: take larger steps or voxels.")
    motors, offset, letter = arranged
    wave, coarsest = wavelength(wish.energy), min(sampled[1:])
    plan = Plan(
        wish=wish,
        geometry=_geometry(wish, theta, step, (window[0], *wish.shape))[0],
        spacing=distance,
        bragg_angle=theta,
        motors=motors,
        offset=offset,
        basis=basis,
        q=q,
        step=step,
        step_range=(per_step / HIGH, per_step / LOW),
        oversampling=tuple(sampled.tolist()),
        binning=tuple(max(1, int(value / LOW)) for value in sampled),
        distance_range=(wish.distance * LOW / coarsest, wish.distance * HIGH / coarsest),
        resolution=resolution,
        window=tuple(window),
        rocking_width=exposure.rocking_width(distance, float(np.prod(wish.size)) ** (1 / 3)),
        transverse=exposure.transverse_coherence(
            wave, wish.source or TYPICAL_SOURCE, wish.source_distance or TYPICAL_SOURCE_DISTANCE
        ),
        longitudinal=exposure.longitudinal_coherence(wave, wish.bandwidth or TYPICAL_BANDWIDTH),
        path=float(np.linalg.norm(np.asarray(wish.size) * q)) * wave / (2 * math.pi),
        exposure=_expose(wish, basis, q, window, letter),
    )
    return replace(plan, advice=tuple(_advise(plan)))


def _expose(wish: Wish, basis: FloatArray, q: FloatArray, window: Sequence[int], letter: str) -> Exposure:
    """Compute photons, time and dose; `letter` names the axis about which the beam is scattered."""
    edges = direct_basis(basis, window)
    volume = exposure.ellipsoid_volume(wish.size)
    # Phase gradient [rad per voxel] of a strain of 1; photons per voxel of the crystal over those in the brightest of the pattern.
    turn = float(np.linalg.norm(q)) * exposure.step_along(q, edges)
    share = exposure.photons_over_peak(volume, basis) * abs(float(np.linalg.det(edges))) / volume
    wanted = exposure.photons_for(wish.strain * turn) / share
    peak = max(wanted, JUDGED)
    rate = wish.rate
    if wish.flux is not None and wish.structure_factor is not None:
        cells = volume / math.sqrt(float(np.linalg.det(metric(wish.lattice))))
        wave = wavelength(wish.energy)
        solid_angle = float(np.linalg.norm(np.cross(basis[:, 1], basis[:, 2]))) * (wave / (2 * math.pi)) ** 2
        polarisation = (1 - (float(np.linalg.norm(q)) * wave / (2 * math.pi)) ** 2 / 2) ** 2 if letter == "y" else 1.0
        rate = exposure.peak_rate(wish.flux, wish.structure_factor, cells, solid_angle, polarisation)
    seconds = None if rate is None else peak / rate * window[0]
    dose = None
    if wish.flux is not None and wish.attenuation is not None and seconds is not None:
        dose = seconds * exposure.dose_rate(wish.flux, wish.energy, wish.attenuation)
    return Exposure(
        strain_at={tried: exposure.gradient_error(tried * share) / turn for tried in (1e3, 1e4, 1e5, 1e6)},
        strain_peak=wanted,
        peak=peak,
        rate=rate,
        frame=None if rate is None else peak / rate,
        seconds=seconds,
        dose=dose,
    )


def simulate(plan: Plan, seed: int = 0) -> FloatArray:
    """Draw the counts (frames, rows, columns) that such a crystal would give, in the window that the resolution takes.

    The crystal is a faceted one as large as the planned one, mildly strained. Its brightest voxel holds the photons of the plan.

    Raises
    ------
    ConfigError : if the crystal is too large to be sampled.
    """
    frames, rows, columns = (min(LARGEST_PICTURE, size) for size in plan.window)
    shape = (min(rows, plan.wish.shape[0]), min(columns, plan.wish.shape[1]))
    geometry = _geometry(plan.wish, plan.bragg_angle, plan.step, (frames, *shape))[0]
    diameter = float(np.prod(plan.wish.size)) ** (1 / 3)
    settings = ScanSettings(
        detector_shape=shape, peak=(frames // 2, shape[0] // 2, shape[1] // 2), diameter=diameter, phase_range=1.5,
        counts=min(plan.exposure.peak, 1e9), background=0.0, unevenness=0.0, hot=0, dead=0, alien=0.0, flux=0.0,
        truth_voxel=diameter / 20,
    )  # fmt: skip
    scan, _ = simulate_scan(seed, geometry, settings)
    return np.asarray(scan.frames[:], dtype=float)


def _bragg_angle(wish: Wish, distance: float) -> float:
    """Return theta [rad] of planes `distance` [m] apart."""
    name = "(" + " ".join(map(str, wish.reflection)) + ")"
    sine = wavelength(wish.energy) / (2 * distance)
    most = math.sin(wish.arm_limit / 2)
    if sine > most:
        least = photon_energy(2 * distance * most) / electron_volt / 1e3
        if sine > 1:
            why = f"its planes are {distance * 1e10:.4g} Å apart, less than half the wavelength"
        else:
            why = f"the detector would stand at {math.degrees(2 * math.asin(sine)):.4g} degrees, beyond its arm"
        raise GeometryError(f"{name} is out of reach: {why}; it takes {least:.4g} keV or more, or a reflection of smaller indices.")
    return math.asin(sine)


def _voxels(wish: Wish, theta: float, step: float, shape: Sequence[int]) -> tuple[FloatArray, FloatArray, Any]:
    """Return the reciprocal voxel edges and the scattering vector in the middle of the detector, and how the circles stand."""
    frames = (3, *shape)
    geometry, arranged = _geometry(wish, theta, step, frames)
    middle = Window((0, 0, 0), (1, 1, 1), (3, frames[1], frames[2]))
    return *reciprocal_basis(geometry, middle, frames), arranged


def _geometry(
    wish: Wish, theta: float, step: float, shape: tuple[int, ...]
) -> tuple[Geometry, tuple[dict[str, float], tuple[str, float] | None, str]]:
    """Build the geometry of a scan of `shape`; return also motor readings [deg], offset of the detector [m], axis of rocking."""
    table = GeometrySettings(
        energy_ev=wish.energy / electron_volt, distance_m=wish.distance, pixel_size_m=wish.pixel_size, angles_deg={},
        instrument=wish.instrument, sample=wish.circles[0], detector=wish.circles[1],
    )  # fmt: skip
    known = find_instrument(table)
    arms = [axis for axis in known.detector if axis not in known.sample]
    rock = _rocking_circle(wish.rock, [axis for axis in known.sample if axis not in known.detector], arms, known.name)
    letter = rock.axis[0]
    arm = next((axis for axis in arms if axis.axis[0] == letter), None)
    turned = math.degrees(theta) * (1 if arm is None or arm.axis == rock.axis else -1)
    middle = rock.zero + turned
    before, after = (math.degrees(step) * n for n in (shape[0] // 2, shape[0] - 1 - shape[0] // 2))
    angles: dict[str, float | tuple[float, ...]] = {rock.motor: (middle - before, middle + after)}
    beam = [float(size // 2) for size in shape[1:]]  # the voxel N // 2, to which every grid refers
    offset: tuple[str, float] | None = None
    if arm is not None:
        angles[arm.motor] = arm.zero + math.degrees(2 * theta)
    else:
        if 2 * theta > math.radians(75):
            raise GeometryError(
                f"{known.name} has no arm that carries its detector to {math.degrees(2 * theta):.4g} degrees; take a higher energy."
            )
        side, pixels = SIDES[rock.axis], (known.row_axis, known.column_axis)
        across = [axis[0] for axis in pixels].index(side[0])
        offset = side, wish.distance * math.tan(2 * theta)
        beam[across] -= offset[1] / wish.pixel_size * (1 if pixels[across] == side else -1)
    motors = {name: middle if name == rock.motor else float(np.mean(value)) for name, value in angles.items()}
    table = replace(table, angles_deg=angles, direct_beam=(beam[0], beam[1]))
    return build_geometry(table, shape), (motors, offset, letter)


def _rocking_circle(wanted: str, sample: list[Axis], arms: list[Axis], instrument: str) -> Axis:
    """Choose the circle that rocks the sample: the wanted one, else one that turns in a plane in which the arm turns, too."""
    able = [axis for axis in sample if axis.axis[0] in "xy"]
    if wanted:
        able = [axis for axis in able if axis.motor.lower() == wanted.lower()]
    in_plane = [axis for letter in "xy" for axis in able if axis.axis[0] == letter and letter in {arm.axis[0] for arm in arms}]
    if not able:
        circles = ", ".join(f"{axis.motor} {axis.axis}" for axis in sample) or "none"
        raise ConfigError(
            f"{instrument} has no circle {wanted or 'across the beam'} to rock the sample; its sample circles: {circles}."
        )
    return (in_plane or able)[0]


def _round_down(value: float) -> float:
    """Keep two digits."""
    digit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.floor(value / digit + 1e-9) * digit


def _advise(plan: Plan) -> Iterator[str]:
    """Say what stands against a plan, and what would help, a sentence each."""
    wish, names = plan.wish, ("rocking axis", "rows", "columns")
    for name, value in zip(names, plan.oversampling, strict=True):
        if value < LOW - 0.05:
            help_ = (
                f"rock by {math.degrees(plan.step_range[0]):.2g} to {math.degrees(plan.step_range[1]):.2g}° a frame"
                if name == "rocking axis"
                else f"move the detector to {plan.distance_range[0]:.2g} to {plan.distance_range[1]:.2g} m, or take smaller pixels"
            )
            word = "too coarse to be phased" if value < LEAST else "coarse"
            yield f"the sampling of the {name} is {word}, {value:.2g} times: {help_}, or take a smaller crystal"
    reached = [wanted * plan.resolution / size for wanted, size in zip(plan.window[1:], wish.shape, strict=True)]
    if max(reached) > plan.resolution:
        yield (
            f"the detector ends at voxels of {max(reached) * 1e9:.3g} nm, and {plan.resolution * 1e9:.3g} nm are wanted: move it "
            "nearer, or take a larger one"
        )
    if plan.transverse < max(wish.size):
        yield (
            f"the crystal is larger than the transverse coherence length, {plan.transverse * 1e9:.3g} nm: close the slits before "
            "the focusing optics, which make the source smaller"
        )
    if plan.longitudinal < plan.path:
        yield (
            f"paths through the crystal differ by {plan.path * 1e9:.3g} nm, more than the longitudinal coherence length, "
            f"{plan.longitudinal * 1e9:.3g} nm: take a smaller bandwidth, a reflection at a lower angle or a smaller crystal"
        )
    if plan.exposure.strain_peak > MOST:
        yield (
            f"a strain of {wish.strain:.1e} in voxels of {plan.resolution * 1e9:.3g} nm takes more photons than were tried, "
            f"{plan.exposure.strain_peak:.1e} in the brightest voxel: take larger voxels"
        )
    if plan.exposure.rate is None:
        yield "no exposure in seconds: state a measured peak rate, or a flux density and a structure factor"
    if wish.flux is None or wish.attenuation is None:
        yield "no dose: state a flux density and a mass attenuation coefficient"
