"""Draw random crystals and their diffraction volumes, for training, benchmarks and `braggshot simulate`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from braggshot.config import dump
from braggshot.crystals import detector, displacement, shapes
from braggshot.crystals.detector import DetectorSettings, Range
from braggshot.crystals.grid import Grid, centred_grid
from braggshot.crystals.random import derive_generator, log_uniform, rotations, uniform
from braggshot.errors import ConfigError
from braggshot.gate import refuse_oversized
from braggshot.physics.fourier import pad
from braggshot.physics.sampling import crystal_extent
from braggshot.volumes import ComplexArray, DiffractionVolume

# Names of the families of phase fields, dislocations included.
PHASES = (*displacement.FIELDS, *displacement.DISLOCATIONS)


@dataclass(frozen=True)
class CrystalSettings:
    """Settings from which random crystals are drawn. A range is (lowest, highest), and a value in it is drawn for each crystal.

    Parameters
    ----------
    shape : shape of the volume (z, y, x) [voxels]
    oversampling : array size / object extent, per axis [1]
    anisotropy : largest ratio of the oversampling of two axes [1]
    phase_range : maximum minus minimum of the phase inside the crystal, best-fitting ramp removed [rad]; dislocations widen it
    steepest : largest change of the phase from voxel to voxel [rad]; near pi the pattern would reach beyond the window
    redraws : largest number of times that a phase field is drawn anew because `steepest` does not allow the wanted phase range
    counts : photons in the brightest voxel, drawn on a logarithmic scale
    shapes : families of shapes, from `shapes.SHAPES`; a family named twice is drawn twice as often
    displacements : families of phase fields, from `displacement.FIELDS` and `displacement.DISLOCATIONS`; also here a family named
        twice is drawn twice as often
    shear : largest shear of the voxel edge along the rocking axis, because voxels of a detector frame are skewed [1]
    shift : largest distance of the crystal's middle from the voxel N // 2, per axis [voxels]
    tilt : largest distance of the pattern's centre of mass from the voxel N // 2, per axis [voxels]
    detector : properties of the detector
    """

    shape: tuple[int, int, int] = (64, 64, 64)
    oversampling: Range = (2.0, 6.0)
    anisotropy: float = 2.0
    phase_range: Range = (0.0, 2 * math.pi)
    steepest: float = 2.5
    redraws: int = 0
    counts: Range = (1e4, 1e7)
    shapes: tuple[str, ...] = tuple(shapes.SHAPES)
    displacements: tuple[str, ...] = PHASES
    shear: float = 0.4
    shift: float = 0.5
    tilt: float = 0.5
    detector: DetectorSettings = field(default_factory=DetectorSettings)

    def __post_init__(self) -> None:
        for name in ("oversampling", "phase_range", "counts"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ConfigError(f"{name}: expected (lowest, highest), neither of them negative, found ({low}, {high}).")
        if self.oversampling[0] < 1 or min(self.shape) / self.oversampling[1] < 4:
            raise ConfigError(
                f"oversampling {self.oversampling} of {self.shape} voxels: the crystal must fit, and be four voxels wide or more."
            )
        refuse_oversized(f"a simulated volume of shape {self.shape}", 8 * math.prod(self.shape), error=ConfigError)  # complex64
        for name, known in (("shapes", tuple(shapes.SHAPES)), ("displacements", PHASES)):
            unknown = set(getattr(self, name)) - set(known)
            if unknown or not getattr(self, name):
                raise ConfigError(f"{name}: found {sorted(unknown) or 'none'}; known: {', '.join(known)}.")


def random_crystals(
    generator: Generator, n: int, settings: CrystalSettings | None = None, device: torch.device | str = "cpu"
) -> Tensor:
    """Draw random crystals, scaled to the photons of their patterns.

    The same generator state, settings and kind of device give the same crystals.

    Returns
    -------
    rho : (n, z, y, x) complex64, centred at N // 2, scaled so that |F[rho]|^2 is in photons
    """
    settings = settings or CrystalSettings()
    return pad(_draw_exposed(derive_generator(generator, device), n, settings)[0], settings.shape)


def random_volumes(
    generator: Generator, n: int, settings: CrystalSettings | None = None, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw random crystals and the counts of their patterns.

    The result is that of `random_crystals` followed by `detector.measure`, but takes only one Fourier transform.

    Returns
    -------
    rho, counts, valid : (n, z, y, x) crystals [sqrt(photons)], counts [photons] and mask of valid voxels
    """
    settings = settings or CrystalSettings()
    generator = derive_generator(generator, device)
    box, expected, _ = _draw_exposed(generator, n, settings)
    return pad(box, settings.shape), *detector.measure(generator, expected, settings.detector)


def _draw_exposed(generator: Generator, n: int, settings: CrystalSettings) -> tuple[Tensor, Tensor, Tensor]:
    """Draw crystals, and compute the photons expected from each crystal.

    Returns
    -------
    rho : (batch, z, y, x) crystals in the central box of their volumes [sqrt(photons)]
    expected : (batch, z, y, x) expected intensity on the whole volumes [photons]
    ranges : (batch,) maximum minus minimum of the phase inside each crystal [rad]
    """
    grid, depth = _draw_bodies(generator, n, settings)
    phase = _draw_phase(generator, grid, depth, settings)
    inside = depth > 0
    ranges = torch.where(inside, phase, -torch.inf).amax((1, 2, 3)) - torch.where(inside, phase, torch.inf).amin((1, 2, 3))
    rho = torch.polar(shapes.amplitude(depth), phase)
    rho = centre_pattern(rho, settings.shape, uniform(generator, -settings.tilt, settings.tilt, n, 3))
    expected = detector.diffract(rho, settings.shape)
    gain = (log_uniform(generator, *settings.counts, n) / expected.amax((1, 2, 3)))[:, None, None, None]
    return rho * gain.sqrt(), expected * gain, ranges


def centre_pattern(rho: Tensor, shape: Sequence[int], offset: Tensor) -> Tensor:
    r"""Multiply crystals rho by phase ramps that centre their patterns |F[rho]|^2.

    The centre of mass of each pattern moves to N // 2 + `offset` (batch, 3) [voxels of `shape`]. Its place before that is
    found from a sum over pairs of neighbouring voxels:

    .. math:: \sum_r \rho_r^* \rho_{r+1} = \sum_k |F_k|^2 e^{2\pi i k / N}

    F is the transform of rho. r and k number the voxels along one axis of N voxels, in direct and in reciprocal space. The angle
    of the sum gives the centre of mass on this axis, taken as periodic. So neither a transform nor unwrapping is needed. `rho` may
    be the central box of a larger array of `shape`.
    """
    ramps = []
    for axis, size in enumerate(rho.shape[1:], start=1):
        neighbours = rho.narrow(axis, 0, size - 1).conj() * rho.narrow(axis, 1, size - 1)
        per_voxel = 2 * torch.pi * offset[:, axis - 1] / shape[axis - 1] - neighbours.sum((1, 2, 3)).angle()
        index = torch.arange(size, device=rho.device) - size // 2
        ramps.append(torch.exp(1j * per_voxel[:, None] * index))
    z, y, x = ramps
    return rho * (z[:, :, None] * y[:, None, :])[..., None] * x[:, None, None, :]


def _draw_bodies(generator: Generator, n: int, settings: CrystalSettings) -> tuple[Grid, Tensor]:
    """Draw bodies; return a grid of voxels for each, and how deep each voxel lies below the body's surface [voxels].

    The grid covers a box around the middle of the volume. All bodies have boxes of the same shape, large enough for any of them.
    """
    transform = torch.eye(3, device=generator.device).repeat(n, 1, 1)
    transform[:, 1:, 0] = uniform(generator, -settings.shear, settings.shear, n, 2)
    oversampling = draw_oversampling(generator, n, settings.oversampling, settings.anisotropy)
    size = torch.tensor(settings.shape, device=generator.device) / oversampling  # extent of each crystal per axis [voxels]
    offset = uniform(generator, -settings.shift, settings.shift, n, 3)
    z, y, x = (min(full, 2 * math.ceil(full / settings.oversampling[0] / 2 + settings.shift) + 3) for full in settings.shape)

    basis, origin, depth = torch.zeros_like(transform), torch.zeros_like(size), offset.new_zeros(n, z, y, x)
    for name, chosen in _draw_families(generator, n, settings.shapes):
        body = shapes.rotate_body(shapes.SHAPES[name](generator, len(chosen)), rotations(generator, len(chosen)))
        low, high = shapes.extent(body, transform[chosen])
        pitch = (high - low) / size[chosen]
        grid = centred_grid(transform[chosen] * pitch[:, None, :], (z, y, x), offset[chosen] - (low + high) / 2 / pitch)
        basis[chosen], origin[chosen], depth[chosen] = grid.basis, grid.origin, body(grid)
    return Grid(basis, origin, (z, y, x)), depth


def _draw_phase(generator: Generator, grid: Grid, depth: Tensor, settings: CrystalSettings) -> Tensor:
    """Draw the phase of every voxel [rad]; the phase of a dislocation is added to a smooth random field."""
    raw, turns = _draw_fields(generator, grid, depth, settings)
    wanted = uniform(generator, *settings.phase_range, grid.batch)
    for _ in range(settings.redraws):
        short = displacement.calibrate(raw, grid, depth, wanted, settings.steepest).limited.nonzero()[:, 0]
        if not len(short):
            break
        raw[short], turns[short] = _draw_fields(generator, grid.select(short), depth[short], settings)
    return displacement.calibrate(raw, grid, depth, wanted, settings.steepest)(raw, grid) + turns


def _draw_fields(generator: Generator, grid: Grid, depth: Tensor, settings: CrystalSettings) -> tuple[Tensor, Tensor]:
    """Draw the phase fields before they are scaled to their range, and the phases of dislocations, which are not scaled."""
    raw, turns = torch.zeros_like(depth), torch.zeros_like(depth)
    for name, chosen in _draw_families(generator, grid.batch, settings.displacements):
        where = grid.select(chosen), depth[chosen]
        raw[chosen] = displacement.FIELDS.get(name, displacement.correlated)(generator, len(chosen))(*where)
        if name in displacement.DISLOCATIONS:
            turns[chosen] = displacement.DISLOCATIONS[name](generator, len(chosen))(*where)
    return raw, turns


def draw_oversampling(generator: Generator, n: int, allowed: Range, anisotropy: float) -> Tensor:
    """Draw the oversampling (n, 3) of n crystals along three axes, within the allowed range.

    The oversampling of two axes of a crystal differs at most by the factor `anisotropy`.
    """
    low, high = (math.log(value) for value in allowed)
    spread = math.log(anisotropy) / 2
    return torch.exp((uniform(generator, low, high, n, 1) + uniform(generator, -spread, spread, n, 3)).clamp(low, high))


def _draw_families(generator: Generator, n: int, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    """Draw a family of shapes or fields for each of n crystals; yield each drawn family's name, and the indices of its crystals."""
    drawn = torch.randint(len(names), (n,), generator=generator, device=generator.device)
    for index, name in enumerate(names):
        members = (drawn == index).nonzero()[:, 0]
        if len(members):
            yield name, members


def simulate_volume(seed: int, settings: CrystalSettings | None = None) -> tuple[ComplexArray, DiffractionVolume]:
    """Simulate one crystal and its counts; the same seed and settings give the same crystal.

    Returns
    -------
    rho : (z, y, x) complex64, centred at N // 2, scaled so that |F[rho]|^2 is in photons
    volume : counts of |F[rho]|^2 that the simulated detector measures
    """
    settings = settings or CrystalSettings()
    generator = torch.Generator().manual_seed(seed)
    box, expected, phase_range = _draw_exposed(generator, 1, settings)
    rho = pad(box, settings.shape)
    counts, valid = detector.measure(generator, expected, settings.detector)
    z, y, x = (full / width for full, width in zip(settings.shape, crystal_extent(rho[0].numpy()), strict=True))
    volume = DiffractionVolume(
        counts[0].numpy(),
        valid[0].numpy(),
        name=f"simulated_{seed}",
        oversampling=(z, y, x),
        steps=("simulated",),
        provenance={"seed": seed, "phase_range": float(phase_range), "crystal": dump(settings)},
    )
    return rho[0].numpy(), volume
