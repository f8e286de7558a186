"""Simulate a raw scan of a crystal, as a beamline's detector writes it: for the demo, and to test readers and preparation.

The crystal is a body in the laboratory, in metres. The body is evaluated on the skewed direct voxels of the scan's geometry, so the
pattern has the orientation, the pixel size and the rocking step of that geometry. A program that ignores the geometry reconstructs
a sheared crystal. A rocking scan is taken as straight. The frames of an energy scan are a fan: each pixel has the intensity at its
own q, from a cubic spline of the complex field.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Generator, Tensor

from braggshot.config import dump
from braggshot.crystals import detector, displacement, shapes
from braggshot.crystals.grid import Grid, centred_grid
from braggshot.crystals.random import directions, log_uniform, rotations, uniform
from braggshot.errors import ConfigError
from braggshot.physics.forward import intensity
from braggshot.physics.fourier import fourier, pad
from braggshot.physics.geometry import KEV, direct_basis, reciprocal_basis, scanned_values, scattering_vector, steps_energy
from braggshot.volumes import Circle, ComplexArray, FloatArray, Geometry, Scan, Window


@dataclass(frozen=True)
class ScanSettings:
    """Settings of a simulated scan, and of the faults of its detector and beam.

    Parameters
    ----------
    detector_shape : (rows, columns) of the detector
    peak : frame, row and column of the crystal's Bragg peak in the raw scan
    diameter : approximate distance of opposite {111} facets [m]
    shape, displacement : name of a family of bodies (`shapes.SHAPES`), and of a family of phase fields (`displacement.FIELDS`)
    phase_range : maximum minus minimum of the phase inside the crystal, ramp removed [rad]
    counts : photons in the brightest voxel
    background : background [photons per pixel and frame]
    unevenness : relative standard deviation of the pixels' response [1]
    hot, dead : number of hot and of dead pixels
    alien : photons in the brightest voxel of a peak that another crystal adds to the scan, 0 for no such peak
    flux : relative standard deviation of the incident flux from frame to frame [1]
    truth_voxel : voxel edge of the returned true crystal [m]
    """

    detector_shape: tuple[int, int] = (256, 256)
    peak: tuple[int, int, int] = (96, 121, 134)
    diameter: float = 330e-9
    shape: str = "fcc"
    displacement: str = "gaussians"
    phase_range: float = 3.0
    counts: float = 1e5
    background: float = 0.01
    unevenness: float = 0.03
    hot: int = 12
    dead: int = 6
    alien: float = 25.0
    flux: float = 0.02
    truth_voxel: float = 5e-9


@dataclass(frozen=True)
class Truth:
    """True crystal of a simulated scan.

    Parameters
    ----------
    rho : (z, y, x) complex64 on an orthogonal grid of the laboratory, centred at N // 2 [1]
    phase : phase of the same crystal, not wrapped, 0 outside [rad]
    basis : (3, 3) diagonal, the voxel edges [m]
    q_bragg : scattering vector of the crystal [1/m]
    """

    rho: ComplexArray
    phase: FloatArray
    basis: FloatArray
    q_bragg: FloatArray


def gold_at_34idc(frames: int = 201, step: float = math.radians(0.005)) -> Geometry:
    """Return the geometry of Au (111) at 9 keV on the diffractometer of APS 34-ID-C.

    The lattice spacing is 2.355 A; pixels are 55 um at 0.5 m; theta is rocked by `step` [rad].
    """
    theta = math.radians(0.22) + step * (np.arange(frames) - frames // 2)
    return Geometry(
        energy=9.0 * KEV,
        distance=0.5,
        pixel_size=(55e-6, 55e-6),
        sample=(Circle("y+", theta, "Theta"), Circle("z-", math.radians(90.0), "Chi"), Circle("y+", math.radians(-5.0), "Phi")),
        detector=(Circle("y+", math.radians(31.81), "Delta"), Circle("x-", math.radians(12.6), "Gamma")),
        direct_beam=(127.5, 127.5),
        instrument="APS 34-ID-C",
    )


def gold_by_energy(frames: int = 121, step: float = 1.5e-3 * KEV) -> Geometry:
    """Return the geometry of Au (222) on the diffractometer of APS 34-ID-C, measured by steps of the photon energy about 9 keV.

    The lattice spacing is 1.177 A, two theta 71.6 degrees; pixels are 55 um at 0.5 m; no circle moves, and `step` is in J.
    """
    return Geometry(
        energy=9.0 * KEV + step * (np.arange(frames) - frames // 2),
        distance=0.5,
        pixel_size=(55e-6, 55e-6),
        sample=(
            Circle("y+", math.radians(0.22), "Theta"),
            Circle("z-", math.radians(90.0), "Chi"),
            Circle("y+", math.radians(-5.0), "Phi"),
        ),
        detector=(Circle("y+", math.radians(63.0), "Delta"), Circle("x-", math.radians(45.93), "Gamma")),
        direct_beam=(95.5, 95.5),
        instrument="APS 34-ID-C",
    )


ENERGY_SCAN = ScanSettings(detector_shape=(192, 192), peak=(57, 92, 101))
"""Settings that suit `gold_by_energy`."""


def simulate_scan(seed: int, geometry: Geometry | None = None, settings: ScanSettings | None = None) -> tuple[Scan, Truth]:
    """Simulate a crystal and the raw frames of its rocking scan or energy scan; the same arguments give the same scan.

    Raises
    ------
    GeometryError : if the geometry describes neither a rocking scan nor an energy scan.
    ConfigError : if the crystal is so large that its fringes are sampled too coarsely, or the peak lies outside of the scan.
    """
    geometry, settings = geometry or gold_at_34idc(), settings or ScanSettings()
    generator = torch.Generator().manual_seed(seed)
    values = scanned_values(geometry)
    raw = (values.size, *settings.detector_shape)
    reciprocal, q_bragg = _peak_basis(geometry, settings.peak, raw)

    body = shapes.rotate_body(shapes.SHAPES[settings.shape](generator, 1), rotations(generator, 1))
    field = displacement.FIELDS[settings.displacement](generator, 1)
    unit = settings.diameter / 2
    grid = _fitting_grid(body, direct_basis(reciprocal, raw) / unit, raw)
    depth = body(grid)
    wanted = torch.tensor([settings.phase_range])
    calibrated = displacement.calibrate(field(grid, depth), grid, depth, wanted, steepest=math.pi / 2)

    def crystal(grid: Grid) -> tuple[Tensor, Tensor]:
        depth = body(grid)
        phase = calibrated(field(grid, depth), grid)
        return torch.polar(shapes.amplitude(depth), phase)[0], (phase * (depth > 0))[0]

    basis = settings.truth_voxel * np.eye(3)
    rho, phase = crystal(_fitting_grid(body, basis / unit))
    pattern = _pattern(crystal(grid)[0], raw, settings, geometry)
    frames, dark, flat, monitor = _draw_exposure(generator, pattern, settings)
    scan = Scan(
        frames,
        name=f"simulated_{seed}",
        dark=dark,
        flat=flat,
        monitor=monitor,
        rocking_angle=None if steps_energy(geometry) else values,
        geometry=geometry,
        provenance={"seed": seed, "simulation": dump(settings)},
    )
    return scan, Truth(rho.numpy(), phase.numpy(), basis, q_bragg)


def _peak_basis(geometry: Geometry, peak: Sequence[int], raw: tuple[int, int, int]) -> tuple[FloatArray, FloatArray]:
    """Return the reciprocal voxel edges and the scattering vector at a frame, row and column of the raw scan."""
    if not all(0 <= p < n for p, n in zip(peak, raw, strict=True)):
        raise ConfigError(f"peak {tuple(peak)} lies outside the frames {raw}.")
    z, y, x = (p - n // 2 for p, n in zip(peak, raw, strict=True))
    return reciprocal_basis(geometry, Window((z, y, x), (1, 1, 1), raw), raw)


def _fitting_grid(body: shapes.Body, basis: FloatArray, raw: tuple[int, int, int] | None = None) -> Grid:
    """Return a grid with the voxel edges `basis` that is just large enough for a body.

    `basis` is in a unit in which the body's inscribed radius is about 1. `raw` is the shape of the raw scan; None if there is none.

    Raises
    ------
    ConfigError : if the grid takes more than two thirds of the raw scan on an axis.
    """
    edges = torch.from_numpy(basis).float()[None]
    low, high = shapes.extent(body, edges)
    z, y, x = (2 * math.ceil(float(width) / 2) + 4 for width in (high - low)[0])
    if raw is not None and any(1.5 * box > full for box, full in zip((z, y, x), raw, strict=True)):
        ratios = ", ".join(f"{full / float(width):.2g}" for full, width in zip(raw, (high - low)[0], strict=True))
        raise ConfigError(f"the crystal is too large to be sampled: oversampling {ratios}; take a smaller diameter or finer steps.")
    return centred_grid(edges, (z, y, x), -(low + high) / 2)


def _pattern(rho: Tensor, raw: tuple[int, int, int], settings: ScanSettings, geometry: Geometry) -> Tensor:
    """Return the expected photons of a crystal at the mean flux, with the Bragg peak at `settings.peak`."""
    exposed = detector.scale_exposure(pad(rho[None], raw), torch.tensor([settings.counts]))[0]
    shifts = [peak - n // 2 for peak, n in zip(settings.peak, raw, strict=True)]
    if steps_energy(geometry):
        return _fan(fourier(exposed).roll(shifts, dims=(0, 1, 2)).numpy(), geometry, settings.peak)
    return intensity(exposed).roll(shifts, dims=(0, 1, 2))


def _fan(field: ComplexArray, geometry: Geometry, peak: tuple[int, int, int]) -> Tensor:
    """Return the intensity at the q of every pixel and frame, from a field on the straight grid through `peak`; periodic."""
    basis, q_bragg = _peak_basis(geometry, peak, field.shape)
    splines = [ndimage.spline_filter(part, order=3, output=np.float32, mode="grid-wrap") for part in (field.real, field.imag)]
    row, column = np.indices(field.shape[1:])
    frames = []
    for frame in range(field.shape[0]):
        q = scattering_vector(geometry, frame, row, column) - q_bragg
        places = np.moveaxis(q @ np.linalg.inv(basis).T + peak, -1, 0)
        parts = [ndimage.map_coordinates(spline, places, order=3, mode="grid-wrap", prefilter=False) for spline in splines]
        frames.append(np.square(parts[0]) + np.square(parts[1]))
    return torch.from_numpy(np.stack(frames))


def _draw_exposure(
    generator: Generator, pattern: Tensor, settings: ScanSettings
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Draw raw counts (int32), dark counts, flat field and the monitor of the incident flux."""
    n, rows, columns = pattern.shape
    flux = 1 + settings.flux * torch.randn(n, generator=generator)
    response = (1 + settings.unevenness * torch.randn(rows, columns, generator=generator)).clamp_min(0.5)
    dark = torch.zeros(rows * columns)
    blemished = torch.randperm(rows * columns, generator=generator)
    hot, dead = blemished[: settings.hot], blemished[settings.hot : settings.hot + settings.dead]
    dark[hot] = log_uniform(generator, 2.0, 300.0, settings.hot)
    response.view(-1)[dead] = 0
    expected = (pattern + _draw_alien(generator, settings, (n, rows, columns)) + settings.background) * flux[:, None, None]
    counts = torch.poisson(expected * response + dark.view(rows, columns), generator=generator)
    return counts.int().numpy(), dark.view(rows, columns).numpy(), response.numpy(), flux.numpy().astype(float)


def _draw_alien(generator: Generator, settings: ScanSettings, shape: tuple[int, int, int]) -> Tensor:
    """Draw the photons expected from another crystal: a small Gaussian peak, a third of the scan away from the Bragg peak."""
    away = directions(generator, 1)[0] * torch.tensor(shape) / 3
    place = (torch.tensor(settings.peak) + away).clamp(torch.zeros(3), torch.tensor(shape) - 1.0)
    width = uniform(generator, 0.01, 0.02, 3) * torch.tensor(shape)
    squared = [((torch.arange(size) - p) / w) ** 2 for size, p, w in zip(shape, place, width, strict=True)]
    z, y, x = squared
    return settings.alien * torch.exp(-(z[:, None, None] + y[:, None] + x) / 2)
