r"""Simulate rocking scans of several reflections of one crystal, each as a sum over lattice points on its own detector grid.

.. math:: F_j(q) = \sum_n e^{-i q \cdot r_n}, \qquad r_n = R_n + u_n

R_n are points of a perfect lattice with a cell of any system, u_n their displacements. To reach sizes that are measured, a crystal
holds one atom of every `stride`-th cell along each edge, and those at the middle of the faces of these coarse cells: the atoms
between them would scatter alike. No density on a grid, no interpolation and no discrete transform is used, so the scans test
programs that use them. Of the crystal's axes (z, y, x) x is along a*, and y in the plane of a* and b*.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Generator

from braggshot.crystals.atomistic import lattice_sites
from braggshot.crystals.kinematic import diffract_atoms
from braggshot.crystals.loads import LOADS, dislocation
from braggshot.crystals.random import rotations, uniform
from braggshot.errors import ConfigError
from braggshot.physics.fourier import inverse_fourier
from braggshot.physics.geometry import KEV, direct_basis, reciprocal_basis, rotation_onto, sample_axes, wavelength
from braggshot.physics.lattice import Lattice, cubic, metric
from braggshot.volumes import Circle, ComplexArray, FloatArray, Geometry, Scan, Window

Hkl = tuple[int, int, int]
GOLD = cubic(4.078e-10)
_TRIES = 1000  # random turns of a crystal about q that are tried until the scan sees the crystal from a good side


@dataclass(frozen=True)
class SeveralSettings:
    """Settings of a crystal and of the scans of its reflections.

    Parameters
    ----------
    cells : smallest extent of the crystal [lattice points of the coarse lattice along an edge]
    stride : edge of the coarse lattice, even [unit cells]; of a cell with unequal edges more cells along the shorter ones
    cell : unit cell; dislocations need a cubic one
    load : kind of load, from `loads.LOADS`, that displaces the atoms
    dislocations : number of perfect dislocations
    phase_range : largest minus smallest phase, ramp removed, of the reflection where it is largest [rad]
    shape : frames, rows, columns of a scan
    oversampling : range of the array size over the crystal's extent, per axis [1]
    counts : photons in the brightest voxel
    energy : photon energy [J]
    """

    cells: float = 40.0
    stride: int = 12
    cell: Lattice = GOLD
    load: str = "substrate"
    dislocations: int = 0
    phase_range: float = 2 * math.pi
    shape: tuple[int, int, int] = (64, 64, 64)
    oversampling: tuple[float, float] = (2.3, 3.5)
    counts: float = 1e6
    energy: float = 9.0 * KEV

    def __post_init__(self) -> None:
        if self.dislocations and not np.allclose(metric(self.cell), metric(self.cell)[0, 0] * np.eye(3)):
            raise ConfigError("dislocations are those of a cubic cell; ask for none in a cell of another system.")


@dataclass(frozen=True)
class Body:
    """Lattice points of a strained crystal, and their displacements, (n, 3) each with components along (z, y, x) [m]."""

    sites: FloatArray
    displacement: FloatArray


def strained_crystal(generator: Generator, hkls: Sequence[Hkl], settings: SeveralSettings) -> Body:
    """Draw a facetted crystal and strain it, so that the largest phase range of its reflections is that of the settings."""
    coarse = _coarse_edges(settings)
    unit = float(np.cbrt(abs(np.linalg.det(coarse))))
    parts = lattice_sites(generator, settings.cells, torch.from_numpy(coarse[:, ::-1].T / unit))
    sites = parts.numpy() @ coarse
    points = torch.from_numpy(sites[:, ::-1] / unit)  # loads list components as (x, y, z)
    moved, _ = LOADS[settings.load](generator, points, 0.01)
    smooth = moved.flip(1).numpy() * unit
    jump = np.zeros_like(sites)
    for _ in range(settings.dislocations):
        jump += dislocation(generator, points).flip(1).numpy() * settings.cell.edges[0]
    design = np.column_stack([np.ones(len(sites)), sites])
    smooth = smooth - design @ np.linalg.lstsq(design, smooth)[0]
    g = scattering_vectors(hkls, settings.cell)
    wide = float(np.ptp(smooth @ g.T, axis=0).max())
    return Body(sites, smooth * (settings.phase_range / wide if wide > 0 else 0.0) + jump)


def scattering_vectors(hkls: Sequence[Hkl], cell: Lattice) -> NDArray[np.float64]:
    """Compute the scattering vectors (n, 3) of a lattice, along the crystal's axes, components (z, y, x) [1/m]."""
    return np.asarray(2 * np.pi * np.asarray(hkls, dtype=float) @ np.linalg.inv(cell_edges(cell)).T)


def cell_edges(cell: Lattice) -> NDArray[np.float64]:
    """Return the edges a, b and c of a cell in rows, along the crystal's axes, components (z, y, x) [m].

    They are laid out with a along x first, and turned then: not as `braggshot.physics.lattice` has them, which is under test.
    """
    laid = np.linalg.cholesky(metric(cell))
    first, second, _ = np.linalg.inv(laid).T  # along a* and b*
    x = first / np.linalg.norm(first)
    y = second - (second @ x) * x
    y /= np.linalg.norm(y)
    return np.asarray(laid @ np.stack([np.cross(x, y), y, x], axis=1))


def _coarse_edges(settings: SeveralSettings) -> NDArray[np.float64]:
    """Return the edges of the coarse lattice: even numbers of cells, so that the middles of its faces are lattice points, too."""
    lengths = np.asarray(settings.cell.edges)
    numbers = 2 * np.rint(settings.stride / 2 * np.cbrt(lengths.prod()) / lengths).clip(1)
    return numbers[:, None] * cell_edges(settings.cell)


def simulate_reflection(
    generator: Generator, body: Body, g: FloatArray, orientation: FloatArray, settings: SeveralSettings, name: str
) -> tuple[Scan, ComplexArray]:
    """Simulate the rocking scan of one reflection on the circles of APS 34-ID-C, with Poisson counts and no background.

    Parameters
    ----------
    body : the crystal, along its own axes
    g : scattering vector of the perfect lattice, along the crystal's axes [1/m]
    orientation : (3, 3), from the crystal's axes to the laboratory's with all sample circles at zero
    name : name of the scan

    Returns
    -------
    the raw scan, and the object (frames, rows, columns) whose transform is the noise-free amplitude on the measured grid
    """
    positions = (body.sites + body.displacement) @ orientation.T
    geometry = _place(generator, positions, orientation @ g, settings)
    window = Window((0, 0, 0), (1, 1, 1), settings.shape)
    basis, q = reciprocal_basis(geometry, window, settings.shape)
    turn = sample_axes(geometry, window, settings.shape).T
    atoms = torch.from_numpy(np.ascontiguousarray(positions @ turn.T))
    field = diffract_atoms(atoms, torch.from_numpy(q), torch.from_numpy(basis), settings.shape)
    field *= math.sqrt(settings.counts) / field.abs().max()
    counts = torch.poisson(field.abs().square(), generator=generator).int().numpy()
    angles = np.asarray(geometry.sample[0].angle)
    scan = Scan(counts, name, rocking_angle=angles, geometry=geometry, provenance={"simulation": "sum over lattice points"})
    return scan, inverse_fourier(field).numpy()


def draw_orientation(generator: Generator) -> NDArray[np.float64]:
    """Draw the rotation (3, 3) from the crystal's axes to the laboratory's with all sample circles at zero."""
    return rotations(generator, 1)[0].double().numpy()


def _place(generator: Generator, positions: FloatArray, q: FloatArray, settings: SeveralSettings) -> Geometry:
    """Find circles, distance and step that bring q into the middle of the scan, with the oversampling of the settings.

    Raises
    ------
    ConfigError : if no turn of the crystal about q gives the oversampling on all axes.
    """
    low, high = settings.oversampling
    for _ in range(_TRIES):
        azimuth, spin, wanted, shift = uniform(generator, 0, 1, 4).tolist()
        geometry = _geometry(q, (0.2 + 0.8 * azimuth, 2 * math.pi * spin, shift - 0.5), settings, 0.5, math.radians(0.005))
        now = _oversampling(geometry, positions, settings.shape)
        widest = low + (high - low) * wanted
        distance = 0.5 * widest / max(now[1:])  # both pixel edges shrink with the distance
        step = math.radians(0.005) * now[0] / widest  # finer steps give more oversampling
        geometry = _geometry(q, (0.2 + 0.8 * azimuth, 2 * math.pi * spin, shift - 0.5), settings, distance, step)
        now = _oversampling(geometry, positions, settings.shape)
        if min(now) >= low * 0.999 and max(now) <= high * 1.001:
            return geometry
    raise ConfigError(f"no scan with an oversampling from {low:g} to {high:g} was found; widen the range.")


def _geometry(
    q: FloatArray, angles: tuple[float, float, float], settings: SeveralSettings, distance: float, step: float
) -> Geometry:
    """Return circles that bring q onto the Ewald sphere: the azimuth of the exit beam, a turn about q, an offset [pixels]."""
    azimuth, spin, shift = angles
    k = 2 * math.pi / wavelength(settings.energy)
    two_theta = 2 * math.asin(np.linalg.norm(q) / (2 * k))
    exit_beam = np.array([math.cos(two_theta), math.sin(two_theta) * math.sin(azimuth), math.sin(two_theta) * math.cos(azimuth)])
    transfer = exit_beam - [1.0, 0.0, 0.0]
    axis = (transfer / np.linalg.norm(transfer))[::-1]
    about_q = np.asarray(Rotation.from_rotvec(spin * axis).as_matrix())[::-1, ::-1]
    turn = (about_q @ rotation_onto(q, transfer))[::-1, ::-1]  # components (x, y, z)
    theta, chi, phi = Rotation.from_matrix(turn).as_euler("YZY")
    frames, rows, columns = settings.shape
    pixel = 55e-6
    gamma = math.asin(exit_beam[1]) + shift * pixel / distance
    delta = math.atan2(exit_beam[2], exit_beam[0])
    rocking = theta + step * (np.arange(frames) - frames // 2 + shift)
    return Geometry(
        energy=settings.energy,
        distance=distance,
        pixel_size=(pixel, pixel),
        sample=(Circle("y+", rocking, "Theta"), Circle("z-", -float(chi), "Chi"), Circle("y+", float(phi), "Phi")),
        detector=(Circle("y+", delta, "Delta"), Circle("x-", gamma, "Gamma")),
        direct_beam=((rows - 1) / 2, (columns - 1) / 2),
        instrument="APS 34-ID-C",
    )


def _oversampling(geometry: Geometry, positions: FloatArray, shape: tuple[int, int, int]) -> list[float]:
    """Compute the array size over the crystal's extent along each axis of a scan's direct space."""
    window = Window((0, 0, 0), (1, 1, 1), shape)
    basis, _ = reciprocal_basis(geometry, window, shape)
    turned = positions @ sample_axes(geometry, window, shape)
    extent = np.ptp(np.linalg.solve(direct_basis(basis, shape), turned.T), axis=1)
    return [float(n / width) for n, width in zip(shape, extent, strict=True)]
