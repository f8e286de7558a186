"""Simulate atomistic crystals: facetted fcc particles, strained, relaxed with LAMMPS, and their diffraction summed over atoms.

The phasing methods were developed on crystals that are density and phase fields on a grid (`sample`). Atomistic crystals test the
methods independently: their intensities come from no continuous field, no smooth density and no discrete Fourier transform. The
steps are: draw and build a particle, strain it (`loads`), relax it (`relax`), compute its diffraction (`kinematic`), draw counts
(`detector`). A seed determines the crystal, and data sets are split by seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Generator, Tensor

from braggshot.config import dump
from braggshot.crystals import detector, shapes
from braggshot.crystals.detector import DetectorSettings, Range
from braggshot.crystals.grid import Grid
from braggshot.crystals.kinematic import diffract_atoms, sum_on_grid
from braggshot.crystals.loads import LOADS, dislocation
from braggshot.crystals.random import directions, log_uniform, rotations, uniform
from braggshot.crystals.relax import LATTICE_PARAMETER, relax
from braggshot.crystals.sample import draw_oversampling
from braggshot.errors import ConfigError
from braggshot.physics.fourier import inverse_fourier
from braggshot.volumes import BoolArray, ComplexArray, DiffractionVolume, FloatArray

Reflection = tuple[int, int, int]
# Miller indices of the reflections of an fcc crystal that are drawn by default.
REFLECTIONS: tuple[Reflection, ...] = ((1, 1, 1), (2, 0, 0), (2, 2, 0), (3, 1, 1), (2, 2, 2), (4, 0, 0))


@dataclass(frozen=True)
class AtomisticSettings:
    """Settings from which atomistic crystals are drawn and measured. A range is (lowest, highest), and a value in it is drawn.

    Parameters
    ----------
    cells : smallest extent of a particle along any cubic axis [unit cells]
    elements : chemical symbols, from `relax.LATTICE_PARAMETER`
    loads : kinds of load, from `loads.LOADS`
    strain : range of the strain that the load applies [1]
    dislocations, voids : largest number of dislocations and of voids
    iterations : largest number of iterations of the relaxation
    reflections : Miller indices, of which one triple is drawn; its signs and order are then drawn, too, as cubic symmetry allows
    shape : shape of the volume (z, y, x) [voxels]
    oversampling : range of array size / extent of the particle, per axis [1]
    anisotropy : largest ratio of the oversampling of two axes [1]
    shear : largest shear of the voxel edge along the rocking axis, because voxels of a detector frame are skewed [1]
    shift : largest distance of the particle's middle from the voxel N // 2, per axis [voxels]
    tilt : largest distance of the pattern's centre of mass from the voxel N // 2, per axis [voxels]
    counts : range of the photons in the brightest voxel
    detector : properties of the simulated detector
    """

    cells: float = 40.0
    elements: tuple[str, ...] = tuple(LATTICE_PARAMETER)
    loads: tuple[str, ...] = tuple(LOADS)
    strain: Range = (0.002, 0.01)
    dislocations: int = 2
    voids: int = 2
    iterations: int = 150
    reflections: tuple[Reflection, ...] = REFLECTIONS
    shape: tuple[int, int, int] = (64, 64, 64)
    oversampling: Range = (2.0, 6.0)
    anisotropy: float = 2.0
    shear: float = 0.4
    shift: float = 0.5
    tilt: float = 0.5
    counts: Range = (1e4, 1e7)
    detector: DetectorSettings = field(default_factory=DetectorSettings)

    def __post_init__(self) -> None:
        for name, known in (("elements", LATTICE_PARAMETER), ("loads", LOADS)):
            unknown = set(getattr(self, name)) - set(known)
            if unknown or not getattr(self, name):
                raise ConfigError(f"{name}: found {sorted(unknown) or 'none'}; known: {', '.join(known)}.")
        for reflection in self.reflections:
            if not any(reflection) or len({index % 2 for index in reflection}) != 1:
                raise ConfigError(f"reflections: {reflection} is absent in fcc; indices must be all odd or all even, not all 0.")


@dataclass(frozen=True)
class Particle:
    """Strained crystal as a list of n atoms. Positions have components along the cubic axes.

    Parameters
    ----------
    element, load : chemical symbol, and kind of load that strains the crystal
    sites : (n, 3) positions of the atoms on the perfect lattice [m]
    positions : (n, 3) positions of the same atoms after relaxation [m]
    held : (n,) True on atoms that the load held in place
    facts : numbers by name: the strain of the load, the numbers of defects and of atoms, and how the relaxation ended
    """

    element: str
    load: str
    sites: FloatArray
    positions: FloatArray
    held: BoolArray
    facts: dict[str, float]


@dataclass(frozen=True)
class Sampling:
    """Voxel grids in reciprocal and direct space on which one reflection of a particle is computed.

    Parameters
    ----------
    g : scattering vector of the perfect lattice [1/m]
    q : scattering vector of the voxel N // 2 [1/m]
    basis, direct : (3, 3), columns are the voxel edges in reciprocal [1/m] and direct space [m]
    origin : point of the particle that lies at the voxel N // 2 in direct space [m]
    oversampling : array size / extent of the atoms, per axis [1]
    """

    g: Tensor
    q: Tensor
    basis: Tensor
    direct: Tensor
    origin: Tensor
    oversampling: tuple[float, float, float]


def build_particle(generator: Generator, settings: AtomisticSettings) -> Particle:
    """Build and strain a particle; the same generator state and settings give the same atoms."""
    element = settings.elements[int(torch.randint(len(settings.elements), (), generator=generator))]
    load = settings.loads[int(torch.randint(len(settings.loads), (), generator=generator))]
    strain = float(uniform(generator, *settings.strain))
    lines, voids = (int(torch.randint(most + 1, (), generator=generator)) for most in (settings.dislocations, settings.voids))
    lines = max(lines, 1) if load == "free" else lines
    sites = lattice_sites(generator, settings.cells)
    for _ in range(voids):
        place = directions(generator).double() * float(uniform(generator, 0, 0.35)) * settings.cells
        radius = float(uniform(generator, 1.5, 3.5))
        sites = sites[torch.linalg.vector_norm(sites - place, dim=1) > radius]
    displacement, held = LOADS[load](generator, sites, strain)
    for _ in range(lines):
        displacement = displacement + dislocation(generator, sites)
    apart = _drop_overlapping((sites + displacement).numpy())
    a = LATTICE_PARAMETER[element]
    positions, sites, held = ((sites + displacement)[apart] * a, sites[apart] * a, held[apart])
    facts = {"strain": strain, "dislocations": lines, "voids": voids, "atoms": len(sites)}
    return Particle(element, load, sites.numpy(), positions.numpy(), held.numpy(), facts)


def _drop_overlapping(positions: FloatArray) -> Tensor:
    """Return a mask of atoms (n,), False on one atom of each pair that overlaps; `positions` are in unit cells.

    Atoms can be pushed into each other where two dislocations cross. Two atoms overlap if they are nearer than 0.65 of the distance
    of nearest neighbours.
    """
    keep = np.ones(len(positions), dtype=bool)
    keep[KDTree(positions).query_pairs(0.65 / math.sqrt(2), output_type="ndarray")[:, 1]] = False
    return torch.from_numpy(keep)


def lattice_sites(generator: Generator, cells: float, edges: Tensor | None = None) -> Tensor:
    """Return the sites (n, 3) of a face-centred lattice within a facetted body, as parts of the cell's edges.

    The body is at least `cells` wide along each edge of the cell.

    Parameters
    ----------
    cells : smallest extent along each edge [unit cells]
    edges : (3, 3), columns are the edges of the cell, of about 1; None for a cube. The facets of the body are those of a cube
    """
    axes = (torch.eye(3) if edges is None else edges.float())[None]
    body = shapes.facetted(generator, 1, "fcc", cuts=1)
    low, high = shapes.extent(body, axes)
    corner = uniform(generator, 0, 1, 3).double()
    scale = cells / float((high - low).min())
    while True:  # the extent is measured a few percent too large
        shape = [math.ceil(scale * width) + 3 for width in (high - low)[0].tolist()]
        start = (scale * low[0].double()).floor() - 1 + corner
        parts = []
        for basis in ((0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)):
            first = start + torch.tensor(basis, dtype=torch.float64)
            z, y, x = shape
            depth = body(Grid(axes / scale, -first.float()[None], (z, y, x)))[0]
            parts.append((depth > 0).nonzero().double() + first)
        sites = torch.cat(parts)
        across = float((sites.amax(0) - sites.amin(0)).min())
        if across >= cells:
            return sites - (sites.amax(0) + sites.amin(0)) / 2
        scale *= (cells + 0.5) / across


def atomistic_crystal(generator: Generator, settings: AtomisticSettings | None = None) -> Particle:
    """Draw a particle and relax it; the same generator state, settings and version of LAMMPS give the same particle.

    Raises
    ------
    ConfigError : if LAMMPS (extra `atomistic`) is not installed.
    """
    settings = settings or AtomisticSettings()
    start = build_particle(generator, settings)
    end = relax(start.element, start.positions, start.held, settings.iterations)
    facts = {**start.facts, "energy_per_atom": end.energy, "largest_force": end.force, "iterations": end.iterations}
    return Particle(start.element, start.load, start.sites, end.positions, start.held, facts)


def draw_sampling(generator: Generator, particle: Particle, settings: AtomisticSettings) -> Sampling:
    """Draw a reflection, an orientation and a voxel grid for a particle.

    The pattern's centre of mass lies at the voxel N // 2, except for a random offset of at most `settings.tilt` voxels per axis.
    """
    miller = torch.tensor(settings.reflections[int(torch.randint(len(settings.reflections), (), generator=generator))])
    signs = torch.randint(2, (3,), generator=generator) * 2 - 1
    g = 2 * math.pi / LATTICE_PARAMETER[particle.element] * (miller * signs)[torch.randperm(3, generator=generator)].double()

    lean = torch.eye(3, dtype=torch.float64)
    lean[1:, 0] = uniform(generator, -settings.shear, settings.shear, 2).double()
    axes = rotations(generator, 1)[0].double() @ lean
    oversampling = draw_oversampling(generator, 1, settings.oversampling, settings.anisotropy)[0].double()
    size = torch.tensor(settings.shape, dtype=torch.float64)
    along = torch.linalg.solve(axes, torch.from_numpy(particle.positions).T).T
    low, high = along.amin(0), along.amax(0)
    direct = axes * ((high - low) * oversampling / size)
    basis = 2 * math.pi * torch.linalg.inv(direct).T / size
    shift, tilt = (uniform(generator, -most, most, 3).double() for most in (settings.shift, settings.tilt))
    origin = axes @ ((low + high) / 2) - direct @ shift

    r, phase = _phases(particle, g, origin)
    coarse = sum_on_grid(r, torch.polar(torch.ones_like(phase), phase), direct, settings.shape)
    turns = [(coarse.narrow(a, 0, n - 1).conj() * coarse.narrow(a, 1, n - 1)).sum().angle() for a, n in enumerate(settings.shape)]
    centre = torch.stack(turns) * size / (2 * math.pi)  # offset of the pattern's centre of mass from the Bragg peak [voxels]
    z, y, x = oversampling.tolist()
    return Sampling(g, g + basis @ (centre - tilt), basis, direct, origin, (z, y, x))


def phase_range(particle: Particle, sampled: Sampling, shape: tuple[int, int, int]) -> float:
    """Return the maximum minus the minimum of the phase inside the particle, after its best-fitting ramp is removed [rad].

    The phase of an atom is -g . u, with the scattering vector g and the displacement u of the atom from its lattice site. It comes
    from displacements, so it needs no unwrapping. The phase of a voxel is the mean over its atoms. Around a dislocation the phase
    turns, which widens the range of the phase. A voxel is inside if its atoms together scatter at least half the amplitude of a
    voxel full of unstrained atoms. So the surface and the cores of dislocations, where the phases of neighbouring atoms differ, are
    left out.
    """
    r, phase = _phases(particle, sampled.g, sampled.origin)
    phase = phase - r @ (sampled.q - sampled.g)
    atoms = sum_on_grid(r, torch.ones_like(phase), sampled.direct, shape)
    full = 4 * torch.linalg.det(sampled.direct).abs() / LATTICE_PARAMETER[particle.element] ** 3
    inside = sum_on_grid(r, torch.polar(torch.ones_like(phase), phase), sampled.direct, shape).abs() > full / 2
    mean = (sum_on_grid(r, phase, sampled.direct, shape) / atoms)[inside]
    index = inside.nonzero().double()
    design = torch.cat([torch.ones_like(index[:, :1]), index - index.mean(0)], dim=1)
    flat = mean - design @ torch.linalg.lstsq(design, mean[:, None]).solution[:, 0]
    return float(flat.max() - flat.min())


def _phases(particle: Particle, g: Tensor, origin: Tensor) -> tuple[Tensor, Tensor]:
    """Return the positions of the atoms relative to `origin` [m], and the phases -g . u of the atoms [rad].

    g is the scattering vector, and u the displacement of an atom from its lattice site.
    """
    positions = torch.from_numpy(particle.positions)
    return positions - origin, -(positions - torch.from_numpy(particle.sites)) @ g


def measure_reflection(
    generator: Generator, particle: Particle, settings: AtomisticSettings | None = None, name: str = "atomistic"
) -> tuple[ComplexArray, DiffractionVolume]:
    """Simulate the counts of one random reflection of a particle; every call draws a reflection anew.

    Returns
    -------
    rho : (z, y, x) complex64, the inverse Fourier transform of the noise-free amplitudes: the best object that phasing could find
    volume : counts, with the voxel basis and scattering vector on the cubic axes of the crystal
    """
    settings = settings or AtomisticSettings()
    sampled = draw_sampling(generator, particle, settings)
    r = torch.from_numpy(particle.positions) - sampled.origin
    amplitudes = diffract_atoms(r, sampled.q, sampled.basis, settings.shape)
    amplitudes *= log_uniform(generator, *settings.counts, 1).sqrt() / amplitudes.abs().max()
    counts, valid = detector.measure(generator, amplitudes.abs().square()[None], settings.detector)
    miller = (sampled.g * LATTICE_PARAMETER[particle.element] / (2 * math.pi)).round().int().tolist()
    facts = {"element": particle.element, "load": particle.load, "reflection": miller, **particle.facts}
    facts["phase_range"] = phase_range(particle, sampled, settings.shape)
    volume = DiffractionVolume(
        counts[0].numpy(),
        valid[0].numpy(),
        name=name,
        reciprocal_basis=sampled.basis.numpy(),
        q_bragg=sampled.q.numpy(),
        oversampling=sampled.oversampling,
        steps=("simulated",),
        provenance={"atomistic": facts, "settings": dump(settings)},
    )
    return inverse_fourier(amplitudes).numpy(), volume


def simulate_atomistic(seed: int, settings: AtomisticSettings | None = None) -> tuple[ComplexArray, DiffractionVolume]:
    """Simulate one crystal and its counts; the same seed and settings give the same crystal.

    Raises
    ------
    ConfigError : if LAMMPS (extra `atomistic`) is not installed.
    """
    settings = settings or AtomisticSettings()
    generator = torch.Generator().manual_seed(seed)
    particle = atomistic_crystal(generator, settings)
    rho, volume = measure_reflection(generator, particle, settings, f"atomistic_{seed}")
    return rho, replace(volume, provenance={"seed": seed, **volume.provenance})
