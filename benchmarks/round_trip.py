"""A crystal of known shape, orientation and strain, through the angles of a diffractometer and back.

    python benchmarks/round_trip.py            # table: exact phases, every built-in instrument
    python benchmarks/round_trip.py --phased   # the same crystal read as counts, prepared and phased, at APS 34-ID-C

The brick lacks one octant and stands askew, so no axis can flip unseen; its displacement is along q and quadratic, so the strain
grows linearly along a known direction. Each pixel of each frame is a sum over the crystal's points
(`braggshot.crystals.direct_sum`).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from braggshot import pipeline
from braggshot.crystal_frame import StrainConfig, strain_map
from braggshot.crystals.direct_sum import rocking_scan
from braggshot.io.beamlines import instruments
from braggshot.physics.fourier import inverse_fourier
from braggshot.physics.geometry import direct_basis, reciprocal_basis, scattering_vector
from braggshot.physics.metrics import align
from braggshot.volumes import DiffractionVolume, Geometry, Quality, Reconstruction, Scan, StrainMap, Window

SHAPE = (40, 44, 36)  # frames, rows, columns
WHOLE = Window((0, 0, 0), (1, 1, 1), SHAPE)
SIDES = np.array([230e-9, 150e-9, 190e-9])  # [m], components (z, y, x) before the turn
TURN = Rotation.from_euler("zyx", [20, -35, 15], degrees=True).as_matrix()
STRAIN = 4e-4  # of the whole crystal
SLOPE = np.array([5e3, 4e3, 4.5e3])  # [strain per m]
POINT = 12e-9  # spacing of the points that scatter [m]
ANGLES = {
    "34idc": {"Theta": 0.2, "Chi": 88.0, "Phi": -5.0, "Delta": 29.0, "Gamma": 14.0},
    "id01": {"mu": 0.3, "eta": 16.0, "phi": 41.0, "nu": -8.0, "delta": 30.0},
    "p10": {"mu": 0.2, "om": 16.0, "chi": 88.5, "phi": 12.0, "gam": 9.0, "del": 31.0},
    "i16": {"mu": 1.1, "eta": 16.0, "chi": 89.0, "phi": -33.0, "gam": 7.0, "delta": 30.0},
    "nanomax": {"gontheta": 15.2, "gonphi": 3.0, "gamma": 12.0, "delta": 29.0},
    "sixs": {"beta": 0.4, "mu": 10.0, "gamma": 22.0, "delta": 18.0},
    "sixs2022": {"beta": 0.4, "mu": 10.0, "gamma": 22.0, "delta": 18.0},
}
ROCKS = {"34idc": "Theta", "id01": "eta", "p10": "om", "i16": "eta", "nanomax": "gontheta", "sixs": "mu", "sixs2022": "mu"}


@dataclass(frozen=True)
class Simulation:
    """Amplitudes on the detector [sqrt(photons)], where they were measured, and the mean lattice's scattering vector [1/m]."""

    amplitude: np.ndarray
    geometry: Geometry
    q: np.ndarray
    g: np.ndarray


@dataclass(frozen=True)
class Errors:
    """What came back against what went in."""

    overlap: float  # intersection over union of the shapes
    orientation_deg: float  # largest angle between principal axes
    displacement_pm: float  # standard deviation in the bulk, after offset and ramp
    strain: float  # standard deviation in the bulk
    mean_strain: float  # error of the mean, from the peak's position
    correlation: float  # of the strain with the truth's


def depth(r):
    """Distance below the nearest face of the brick [m], positive inside; r (3, ...) in the laboratory."""
    own = np.tensordot(TURN.T, r, axes=1)
    brick = (SIDES.reshape(3, *[1] * (r.ndim - 1)) / 2 - np.abs(own)).min(axis=0)
    notch = -np.min(own - 0.1 * SIDES.reshape(3, *[1] * (r.ndim - 1)), axis=0)  # less the octant beyond a tenth of each side
    return np.minimum(brick, notch)


def displacement(r, unit):
    """u along q [m] whose derivative along q is `true_strain`."""
    along = np.tensordot(unit, r, axes=1)
    return STRAIN * along + along * np.tensordot(SLOPE, r, axes=1)


def true_strain(r, unit):
    return STRAIN + np.tensordot(SLOPE + (SLOPE @ unit) * unit, r, axes=1)


def simulate(name, step_deg=0.022) -> Simulation:
    """The rocking scan of the brick at an instrument, peak near the middle."""
    angles = dict(ANGLES[name])
    half = step_deg * (SHAPE[0] - 1) / 2
    angles[ROCKS[name]] = (angles[ROCKS[name]] - half, angles[ROCKS[name]] + half)
    stated = instruments.GeometrySettings(
        energy_ev=9000.0, distance_m=0.25, pixel_size_m=55e-6, angles_deg=angles, instrument=name, direct_beam=(21.3, 17.6)
    )
    geometry = instruments.build_geometry(stated, SHAPE)
    middle = tuple(n // 2 for n in SHAPE)
    q = scattering_vector(geometry, *middle, reference=middle[0])
    g = q * (1 + STRAIN) + np.array([2.0e6, -3.0e6, 1.5e6])  # the strained crystal's peak lies near the middle, not on it
    unit = g / np.linalg.norm(g)
    n = 2 * int(np.ceil(np.linalg.norm(SIDES) / 2 / POINT)) + 3
    r = POINT * (np.indices((n, n, n)) - n // 2)
    rho = np.clip(0.5 + depth(r) / POINT, 0, 1) * np.exp(-1j * np.linalg.norm(g) * displacement(r, unit))
    return Simulation(rocking_scan(rho, (POINT,) * 3, g, geometry, SHAPE, middle[0]), geometry, q, g)


def exactly_phased(
    found: Simulation, geometry: Geometry | None = None, window: Window = WHOLE, shape: tuple[int, int, int] = SHAPE
) -> Reconstruction:
    """What perfect phasing would give, on the grid of a window; with another geometry, what a wrong one makes of it."""
    basis, q = reciprocal_basis(geometry or found.geometry, window, shape)
    field = np.zeros(shape, complex)
    ours, theirs = [], []
    for start, size, full in zip(window.start, shape, SHAPE, strict=True):
        low, high = max(0, start), min(full, start + size)
        ours.append(slice(low - start, high - start))
        theirs.append(slice(low, high))
    field[tuple(ours)] = found.amplitude[tuple(theirs)]
    rho = inverse_fourier(torch.from_numpy(field)).numpy()
    volume = DiffractionVolume(np.abs(field) ** 2, np.ones(shape, bool), reciprocal_basis=basis, q_bragg=q)
    return Reconstruction(rho, solid(rho), volume, Quality(0, 0, 0, 0), basis=direct_basis(basis, shape))


def solid(rho):
    """Where the amplitude is more than a quarter of the bulk's."""
    return np.abs(rho) > 0.25 * np.percentile(np.abs(rho), 99.5)


def points(found: StrainMap):
    """Laboratory positions of the voxels (3, z, y, x) [m]."""
    index = np.indices(found.support.shape) - np.array(found.support.shape).reshape(3, 1, 1, 1) // 2
    return np.tensordot(found.rotation.T @ found.basis, index, axes=1)


def misorientation(found: StrainMap, r) -> float:
    """The turn that brings the true body onto the amplitude that was found, with a shift left free [degrees]."""
    near = np.abs(depth(r)) < 40e-9
    places = r[:, near]
    amplitude = found.amplitude[near] / np.median(found.amplitude[found.bulk])

    def residual(p):
        moved = Rotation.from_rotvec(p[:3]).as_matrix() @ places + p[3:6, None] * 1e-9
        return p[6] / 2 * (1 + np.tanh(depth(moved) / (10e-9 * p[7]))) - amplitude

    fit = least_squares(residual, [0, 0, 0, 0, 0, 0, 1, 1])
    return float(np.degrees(np.linalg.norm(fit.x[:3])))


def compare(found: StrainMap, simulation: Simulation) -> Errors:
    """Errors of a strain map that has the truth's origin and twin."""
    r = points(found)
    unit = simulation.g / np.linalg.norm(simulation.g)
    inside = depth(r) > 0
    bulk = found.bulk & (depth(r) > 20e-9)
    strain = found.d_spacing[bulk] * np.linalg.norm(simulation.g) / (2 * np.pi) - 1
    expected = true_strain(r, unit)[bulk]
    residual = found.displacement[bulk] - displacement(r, unit)[bulk]
    plane = np.column_stack([r[:, bulk].T, np.ones(bulk.sum())])  # offset and mean lattice are a choice
    residual -= plane @ np.linalg.lstsq(plane, residual, rcond=None)[0]
    return Errors(
        overlap=float((inside & found.support).sum() / (inside | found.support).sum()),
        orientation_deg=misorientation(found, r),
        displacement_pm=float(residual.std() * 1e12),
        strain=float((strain - expected).std()),
        mean_strain=float((strain - expected).mean()),
        correlation=float(np.corrcoef(strain, expected)[0, 1]),
    )


def phased(simulation: Simulation, peak: float = 3e5, **phasing) -> tuple[Reconstruction, Reconstruction]:
    """Counts through the pipeline: its result, and the same with origin and twin of the truth, which no intensity holds."""
    expected = np.abs(simulation.amplitude) ** 2
    counts = np.random.default_rng(0).poisson(expected * (peak / expected.max()))
    scan = Scan(counts.astype(np.int32), name="round_trip", geometry=simulation.geometry)
    result = pipeline.reconstruct(scan, device="cpu", method="iterative", **phasing).reconstruction
    truth = exactly_phased(simulation, None, result.volume.window, result.volume.shape)
    both = align(torch.from_numpy(result.rho), torch.from_numpy(np.where(truth.support, truth.rho, 0).astype(np.complex64)))
    return result, replace(result, rho=both.field.numpy(), support=solid(both.field.numpy()), uncertainty=None)


def row(name: str, e: Errors) -> str:
    """One line of the table."""
    return (
        f"| {name} | {e.overlap:.3f} | {e.orientation_deg:.2f} | {e.displacement_pm:.2f} | {e.strain:.1e} | {e.mean_strain:+.1e} "
        f"| {e.correlation:.4f} |"
    )


def main() -> None:
    """Print the table."""
    print("| instrument | shapes' overlap | orientation [deg] | displacement [pm] | strain | mean strain | correlation of strain |")
    print("|---|---|---|---|---|---|---|")
    lab = StrainConfig(frame="lab")
    if "--phased" not in sys.argv:
        for name in ANGLES:
            simulation = simulate(name)
            print(row(name, compare(strain_map(exactly_phased(simulation), lab), simulation)))
        return
    simulation = simulate("34idc")
    for peak in (1e7, 3e5, 1e4):
        result, found = phased(simulation, peak, starts=4, seed=1)
        print(row(f"34idc, {peak:g} photons, {result.verdict}", compare(strain_map(found, lab), simulation)))


if __name__ == "__main__":
    main()
