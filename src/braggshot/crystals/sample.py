"""Random crystals and the diffraction volumes they give: for training, benchmarks and `braggshot simulate`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from braggshot.crystals import detector, displacement, shapes
from braggshot.crystals.grid import centred
from braggshot.physics.fourier import fourier, pad
from braggshot.volumes import ComplexArray, DiffractionVolume


@dataclass(frozen=True)
class CrystalSettings:
    """What random crystals are drawn from; a range is (lowest, highest).

    Parameters
    ----------
    shape : voxels of the volume (z, y, x)
    oversampling : array size / object extent, per axis [1]
    anisotropy : largest ratio of the oversampling of two axes [1]
    phase_range : maximum minus minimum of the phase inside the crystal, ramp removed [rad]
    counts : photons in the brightest voxel, drawn on a logarithmic scale
    shear : largest off-diagonal element of the voxel basis: detector frames are skewed [1]
    steepest : most that the phase may turn from voxel to voxel [rad]; beyond pi it aliases and the pattern leaves the window
    """

    shape: tuple[int, int, int] = (64, 64, 64)
    oversampling: tuple[float, float] = (2.0, 6.0)
    anisotropy: float = 2.0
    phase_range: tuple[float, float] = (0.0, 2 * math.pi)
    counts: tuple[float, float] = (1e4, 1e7)
    shear: float = 0.4
    steepest: float = 2.0


def random_crystals(
    generator: Generator, n: int, settings: CrystalSettings | None = None, device: torch.device | str = "cpu"
) -> Tensor:
    """Draw crystals: rho (n, z, y, x) complex64, centred at N // 2, scaled so that |F[rho]|^2 is in photons."""
    settings = settings or CrystalSettings()
    rotation, transform = shapes.rotations(generator, n), _shear(generator, n, settings.shear)
    body = shapes.oriented(shapes.facetted(generator, n), rotation)
    low, high = shapes.extent(body, transform)
    size = torch.tensor(settings.shape) / _oversampling(generator, n, settings)  # [voxels]
    pitch = (high - low) / size
    offset = -(low + high) / 2 / pitch + shapes.uniform(generator, -0.5, 0.5, n, 3)
    box = [min(full, math.ceil(full / settings.oversampling[0]) + 4) for full in settings.shape]
    grid = centred(transform * pitch[:, None, :], box, offset)

    depth = body(grid)
    amplitude = shapes.amplitude(depth)
    length = shapes.uniform(generator, 0.4, 1.2, n)
    phase = displacement.without_ramp(displacement.correlated(generator, grid, length), amplitude)
    wanted = shapes.uniform(generator, *settings.phase_range, n)
    phase = displacement.with_range(phase, depth > 0, wanted, settings.steepest)
    rho = pad(torch.polar(amplitude, phase), settings.shape)
    peak = fourier(rho).abs().amax((1, 2, 3))
    counts = torch.exp(shapes.uniform(generator, math.log(settings.counts[0]), math.log(settings.counts[1]), n))
    return rho * (counts.sqrt() / peak)[:, None, None, None]


def _oversampling(generator: Generator, n: int, settings: CrystalSettings) -> Tensor:
    """(n, 3) within the range, no two axes further apart than the anisotropy."""
    low, high = (math.log(value) for value in settings.oversampling)
    middle = shapes.uniform(generator, low, high, n, 1)
    spread = math.log(settings.anisotropy) / 2
    return torch.exp((middle + shapes.uniform(generator, -spread, spread, n, 3)).clamp(low, high))


def _shear(generator: Generator, n: int, largest: float) -> Tensor:
    """Voxel edges (n, 3, 3): two along the detector's rows and columns, the rocking one leaning towards them."""
    transform = torch.eye(3, device=generator.device).repeat(n, 1, 1)
    transform[:, 1:, 0] = shapes.uniform(generator, -largest, largest, n, 2)
    return transform


def simulate_volume(seed: int, settings: CrystalSettings | None = None) -> tuple[ComplexArray, DiffractionVolume]:
    """One crystal and its counts; the same seed and settings give the same crystal.

    Returns
    -------
    rho : (z, y, x) complex64, centred at N // 2, |F[rho]|^2 [photons]
    volume : Poisson counts of |F[rho]|^2
    """
    generator = torch.Generator().manual_seed(seed)
    rho = random_crystals(generator, 1, settings)
    counts = detector.count(generator, fourier(rho).abs().square())[0].numpy()
    volume = DiffractionVolume(counts, np.ones(counts.shape, dtype=bool), name=f"simulated_{seed}")
    return rho[0].numpy(), volume
