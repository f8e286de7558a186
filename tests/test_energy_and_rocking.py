"""One crystal, measured by steps of the energy and by rocking, is one crystal: raw frames from a sum, phased, laid together."""

import numpy as np
import pytest
import torch

import braggshot
from braggshot.crystals.direct_sum import rocking_scan
from braggshot.physics import geometry as g
from braggshot.physics.metrics import align
from braggshot.volumes import Circle, Geometry, Scan

pytestmark = pytest.mark.long

RAW, PEAK = (48, 72, 88), (24, 38, 41)
EDGE, SIDE = 8e-9, 34  # voxel of the summed crystal [m], and voxels along each axis
BAND = 2e8  # resolution at which crystals are compared, measured by both scans [1/m]


def geometry(kind):
    """Au (222) at 8 keV, two theta 82 degrees; energies fall, in steps of 2.3 eV, or theta is rocked by 0.025 degrees."""
    index = np.arange(RAW[0]) - PEAK[0]
    theta = np.radians(0.22 + (0.025 * index if kind == "rocking" else 0.0))
    energy = 8 * g.KEV - (2.3e-3 * g.KEV * index if kind == "energy" else 0.0)
    detector = (Circle("y+", np.radians(77.0), "Delta"), Circle("x-", np.radians(51.6), "Gamma"))
    return Geometry(energy, 0.3, (55e-6, 55e-6), (Circle("y+", theta, "Theta"),), detector, (35.5, 43.5))


def crystal():
    """A strained body with cuts and notches that no mirror maps onto itself, off the middle."""
    z, y, x = (np.indices((SIDE,) * 3) - SIDE // 2) * EDGE / 105e-9
    inside = (z**2 / 0.8 + y**2 + x**2 / 0.7 < 1) & (0.6 * x + 0.8 * y < 0.62) & (0.5 * z - 0.7 * y + 0.3 * x < 0.6)
    inside &= ~((x > 0.15) & (y > 0.1) & (z > 0.2)) & ~((x < -0.3) & (z < -0.25) & (y < 0.1))
    return inside * np.exp(1j * (1.2 * x * y + 0.9 * z * x * y + 0.7 * z * z - 0.8 * np.sin(2 * z + x) + 0.5 * y))


def in_the_laboratory(rho, support, basis, offset):
    """Sum a crystal on the frequencies of the summed crystal's grid, in the common frame: one field for any voxels."""
    k = 2 * np.pi * np.fft.fftshift(np.fft.fftfreq(SIDE, EDGE))
    grid = np.stack(np.meshgrid(k, k, k, indexing="ij"), -1).reshape(-1, 3)
    near = np.linalg.norm(grid, axis=1) < BAND
    r = (np.argwhere(support) - np.array(rho.shape) // 2) @ basis.T
    field = np.zeros(len(grid), complex)
    field[near] = np.concatenate([np.exp(-1j * (part - offset) @ r.T) @ rho[support] for part in np.array_split(grid[near], 20)])
    return torch.from_numpy(np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(field.reshape((SIDE,) * 3)))))


def phased(kind, lattice):
    scanned = geometry(kind)
    intensity = np.abs(rocking_scan(crystal(), (EDGE,) * 3, lattice, scanned, RAW, PEAK[0])) ** 2
    frames = np.random.default_rng(0).poisson(1e6 * intensity / intensity.max()).astype(np.int32)
    angles = g.rocking_angle(scanned) if kind == "rocking" else None
    found = braggshot.reconstruct(Scan(frames, kind, geometry=scanned, rocking_angle=angles), progress=False, seed=0)
    return in_the_laboratory(found.rho, found.support, found.basis, found.volume.q_bragg - lattice)


def test_energy_and_rocking_give_one_crystal():
    lattice = g.scattering_vector(geometry("rocking"), *PEAK, PEAK[0])
    true = in_the_laboratory(crystal(), crystal() != 0, EDGE * np.eye(3), np.zeros(3))
    energy, rocking = (phased(kind, lattice) for kind in ("energy", "rocking"))
    assert align(energy, rocking).correlation > 0.99
    assert align(energy, true).correlation > 0.99
    assert align(energy.flip(2).roll(1, 2), true).correlation < 0.9  # its mirror image is another one
