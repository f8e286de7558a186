"""Counts measured on a fan of energies or on a flat detector close up, from a plain sum over a crystal, on the straight grid."""

from dataclasses import replace

import numpy as np
import pytest

from braggshot.crystals.direct_sum import amplitude, rocking_scan
from braggshot.io.formats import cxi
from braggshot.io.registry import read
from braggshot.physics import geometry as g
from braggshot.prepare import PrepareConfig, prepare
from braggshot.prepare.rocking import ENERGY, regular_geometry, rocking_grid
from braggshot.prepare.straight import find_bend
from braggshot.volumes import Circle, Geometry, Scan, Window

RAW, PEAK = (40, 72, 68), (20, 36, 34)
EDGE = 11e-9
WHOLE = PrepareConfig(shape=(30, 56, 54), binning=(1, 1, 1), centre=PEAK, aliens="off", bad_pixels=False)
STEP = 2.5e-3 * g.KEV


def by_energy(energies=None, distance=0.12):
    """Gold (222) at 8 keV, two theta 82 degrees, a detector near the crystal."""
    energies = 8 * g.KEV + STEP * (np.arange(RAW[0]) - PEAK[0]) if energies is None else energies
    detector = (Circle("y+", np.radians(77.0), "nu"), Circle("x-", np.radians(51.6), "del"))
    return Geometry(energies, distance, (55e-6, 55e-6), (Circle("y+", 0.004, "th"),), detector, (35.5, 33.5))


def by_angle(distance=0.12, step=0.03):
    angles = np.radians(step) * (np.arange(RAW[0]) - PEAK[0])
    return replace(by_energy(8 * g.KEV, distance), sample=(Circle("y+", angles, "th"),))


def crystal():
    """A body that is its own mirror image in no plane, with a phase; off the middle."""
    z, y, x = np.indices((12, 12, 12)) - 6.0
    inside = (np.abs(z) < 4) & (np.abs(y) < 3) & (np.abs(x - 1) < 5) & (z + y - x < 5) & ~((z > 1) & (y > 0) & (x > 1))
    return inside * np.exp(0.25j * (x * y / 4 + z) + 0.1j * y)


def measured(geometry, photons=1e7, **fields):
    """Scan of the crystal with its peak at `PEAK`, without noise; and the scattering vector of its lattice."""
    reference = PEAK[0]
    lattice = g.scattering_vector(by_energy() if g.steps_energy(geometry) else geometry, *PEAK, reference=reference)
    intensity = np.abs(rocking_scan(crystal(), (EDGE,) * 3, lattice, geometry, RAW, reference)) ** 2
    return Scan((photons / np.abs(crystal().sum()) ** 2 * intensity).astype(np.float32), "s", geometry=geometry, **fields), lattice


def expected(volume, lattice, photons=1e7):
    """Intensity that the crystal has where the basis of a volume says its voxels are."""
    index = np.moveaxis(np.indices(volume.shape), 0, -1) - np.array(volume.shape) // 2
    offset = index @ volume.reciprocal_basis.T + volume.q_bragg - lattice
    field = np.concatenate([amplitude(crystal(), (EDGE,) * 3, plane.reshape(-1, 3)) for plane in offset])
    return photons / np.abs(crystal().sum()) ** 2 * np.abs(field.reshape(volume.shape)) ** 2


def misfit(volume, intensity):
    """Sum of squared differences of the magnitudes, over the photons."""
    apart = np.sqrt(volume.intensity) - np.sqrt(intensity)
    return np.square(apart[volume.valid]).sum() / volume.intensity.sum()


@pytest.mark.parametrize("order", [1, -1])
def test_an_energy_scan_lies_where_its_basis_says_whether_energies_rise_or_fall(order):
    scan, lattice = measured(by_energy())
    config = replace(WHOLE, centre=PEAK if order == 1 else (RAW[0] - 1 - PEAK[0], *PEAK[1:]))
    turned = replace(scan, frames=scan.frames[::order], geometry=by_energy(scan.geometry.energy[::order]))
    volume = prepare(turned, config)
    assert misfit(volume, expected(volume, lattice)) < 2e-5
    flipped = replace(volume, reciprocal_basis=volume.reciprocal_basis @ np.diag([-1.0, 1, 1]))
    assert misfit(flipped, expected(flipped, lattice)) > 0.1


@pytest.mark.parametrize("geometry", [by_energy(), by_angle(0.12, 0.016)], ids=["fan", "close up"])
def test_interpolated_counts_are_those_of_the_straight_grid(geometry):
    scan, lattice = measured(geometry)
    straight, bent = prepare(scan, WHOLE), prepare(scan, replace(WHOLE, straight=False))
    assert straight.window.straight
    assert any("voxels off a straight grid: counts interpolated" in step for step in straight.steps)
    assert not bent.window.straight
    intensity = expected(straight, lattice)
    assert misfit(bent, intensity) > 10 * misfit(straight, intensity)
    assert straight.valid.all()


def test_counts_far_from_the_detector_are_left_as_they_were_counted():
    scan = replace(measured(by_angle())[0], geometry=by_angle(5.0, 0.003))
    volume = prepare(scan, WHOLE)
    assert not volume.window.straight
    np.testing.assert_array_equal(volume.intensity, prepare(replace(scan, geometry=None), WHOLE).intensity)


def places_of(geometry, window, shape):
    """Offsets [voxels] between a voxel of the straight grid and the q at its place on the measured grid."""
    basis, q_bragg = g.reciprocal_basis(geometry, window, shape)
    moved = find_bend(geometry, window, shape).moved
    frame, row, column = (np.indices(shape) + moved) + np.array(window.start).reshape(3, 1, 1, 1)
    found = g.scattering_vector(geometry, frame, row, column, PEAK[0])
    index = np.moveaxis(np.indices(shape), 0, -1) - np.array(shape) // 2
    return (found - index @ basis.T - q_bragg) @ np.linalg.inv(basis).T, np.abs(moved).max()


@pytest.mark.parametrize("uneven", [0.0, 0.4])
def test_places_have_the_scattering_vectors_of_the_straight_grid(uneven):
    index = np.arange(RAW[0]) - PEAK[0]
    jitter = np.random.default_rng(2).uniform(-uneven, uneven, RAW[0]) + uneven * index**2 / 100
    geometry = by_energy(8 * g.KEV + STEP * (index + jitter))
    off, farthest = places_of(geometry, Window((5, 8, 7), (1, 1, 1), RAW), (30, 56, 54))
    assert farthest > 0.3
    assert np.abs(off).max() < 0.1


def test_uneven_energies_come_out_even():
    index = np.arange(RAW[0]) - PEAK[0]
    scan, lattice = measured(by_energy(8 * g.KEV + STEP * (index + np.random.default_rng(2).uniform(-0.3, 0.3, RAW[0]))))
    straight, bent = prepare(scan, WHOLE), prepare(scan, replace(WHOLE, straight=False))
    assert any("follow no regular grid" in step and "energies" in step for step in straight.steps)
    intensity = expected(straight, lattice)
    assert misfit(straight, intensity) < 1e-3
    assert misfit(bent, intensity) > 10 * misfit(straight, intensity)


def test_a_masked_voxel_is_not_spread():
    scan, lattice = measured(by_energy())
    valid = np.ones(RAW[1:], dtype=bool)
    valid[24, 20] = valid[30:33] = False
    volume = prepare(replace(scan, valid=valid, frames=np.where(valid, scan.frames, 0)), WHOLE)
    assert 0 < (~volume.valid).sum() < 30 * 54 * 7
    assert misfit(volume, expected(volume, lattice)) < 1e-3


def test_energies_are_sorted_onto_a_grid_as_angles_are():
    index = np.array([0, 1, 2, 2, 3, 5, 4, 7, 8, 9])  # one repeated, two swapped, one missing
    energies = 9 * g.KEV + 5e-3 * g.KEV * index
    grid = rocking_grid(10, energies, scanned=ENERGY)
    assert [len(plane) for plane in grid.frames] == [1, 1, 2, 1, 1, 1, 0, 1, 1, 1]
    assert "frames sorted by their photon energy" in grid.steps
    regular = regular_geometry(by_energy(energies), grid)
    np.testing.assert_allclose(regular.energy, 9 * g.KEV + 5e-3 * g.KEV * np.arange(10))
    lost = rocking_grid(10, np.where(index == 8, np.nan, energies), scanned=ENERGY)
    assert any("1 frames without an energy left out" in step for step in lost.steps)


def test_energies_and_the_straight_grid_are_kept_in_a_file(tmp_path):
    volume = prepare(measured(by_energy())[0], WHOLE)
    cxi.write_data(tmp_path / "v.cxi", volume)
    again = prepare(read(tmp_path / "v.cxi"))
    assert again.window == volume.window
    np.testing.assert_allclose(again.geometry.energy, volume.geometry.energy)
    np.testing.assert_allclose(again.intensity, volume.intensity)
    np.testing.assert_allclose(again.reciprocal_basis, volume.reciprocal_basis)
