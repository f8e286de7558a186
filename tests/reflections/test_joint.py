"""The model of the joint fit is the sum it says, on skewed grids; wraps, twins, masks and bad sets are handled."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction

import h5py
import numpy as np
import pytest
import torch

from braggshot import reflections
from braggshot.cli import main
from braggshot.crystals import several
from braggshot.io import results
from braggshot.output import Result
from braggshot.physics.geometry import direct_basis, reciprocal_basis
from braggshot.physics.lattice import Lattice, cubic
from braggshot.reflections import combine, joint, run
from braggshot.reflections.burgers import Slip
from braggshot.volumes import DiffractionVolume, Quality, Reconstruction, Window

HKLS = ((1, 1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1))
SETTINGS = several.SeveralSettings(cells=14.0, stride=34, load="bending", shape=(32, 32, 32), oversampling=(2.2, 4.0))
GIVEN = {"strain": {"lattice": list(SETTINGS.cell.edges)}, "tensor": {"iterations": 30, "check_iterations": 15}}


@pytest.fixture(scope="module")
def crystal():
    """Four reflections, each with the object that phasing could best find; the second one is the twin of it."""
    generator = torch.Generator().manual_seed(3)
    body, orientation = several.strained_crystal(generator, HKLS, SETTINGS), several.draw_orientation(generator)
    found = []
    for number, g in enumerate(several.scattering_vectors(HKLS, SETTINGS.cell)):
        scan, rho = several.simulate_reflection(generator, body, g, orientation, SETTINGS, f"r{number}")
        if number == 1:
            rho = np.conj(np.roll(rho[::-1, ::-1, ::-1], (1, 1, 1), (0, 1, 2)))
        found.append(phased(scan, rho))
    return body, orientation, found


def phased(scan, rho):
    counts, window = np.asarray(scan.frames), Window((0, 0, 0), (1, 1, 1), SETTINGS.shape)
    basis, q = reciprocal_basis(scan.geometry, window, SETTINGS.shape)
    volume = DiffractionVolume(
        counts.astype(np.float32), np.ones(counts.shape, bool), scan.name, window, basis, q, geometry=scan.geometry
    )
    amplitude = np.abs(rho)
    support = amplitude > 0.15 * amplitude.max()
    rho = np.where(support, rho, 0).astype(np.complex64)
    return Reconstruction(
        rho, support, volume, Quality(0.01, 0.1, 0.5, 0.5), basis=direct_basis(basis, SETTINGS.shape), verdict="good"
    )


@pytest.fixture(scope="module")
def singles(crystal):
    _, _, found = crystal
    return run.orient_singles(found, [one.volume.name for one in found], HKLS, reflections.resolve(GIVEN))


def test_a_simulated_crystal_is_oriented_through_its_circles(crystal, singles):
    assert np.allclose(singles[1].rotation, crystal[1], atol=1e-3)


def test_the_model_is_the_sum_over_its_points(singles):
    """F(q) = sum of s exp(-i Q.u + i kappa.r) exp(-i (q - q_j).r), on the skewed grid of the scan."""
    one, settings = singles[0][0], reflections.resolve(GIVEN)
    shape = (9, 8, 7)
    region = np.zeros(shape, bool)
    region[2:-2, 2:-2, 2:-2] = True
    voxel = 10e-9
    window = run.windows_of([one], region, voxel, settings)[0]
    nodes = torch.rand(int(region.sum()), 4)
    nodes[:, 1:] *= 1e-10
    ramp = torch.tensor([1e6, -2e6, 3e6])
    values, points = (window.weights @ nodes).double().numpy(), window.points.double().numpy()
    rho = values[:, 0] * np.exp(1j * (points @ ramp.numpy() - values[:, 1:] @ window.q.numpy()))
    basis = one.rotation @ one.found.volume.reciprocal_basis
    field = joint.scatter(window, nodes, ramp).numpy()
    for k in ((3, 20, 17), (16, 16, 16), (30, 1, 9)):
        q = basis @ (np.array(k) - 16)
        assert np.isclose(field[k], (rho * np.exp(-1j * points @ q)).sum(), atol=1e-3 * np.abs(field).max())


def test_interpolation_is_exact_for_a_plane(singles):
    region = np.ones((8, 8, 8), bool)
    place = (np.indices(region.shape) - 4).reshape(3, -1).T * 1e-8
    points = np.array([[1.3e-8, -0.7e-8, 2.2e-8], [0, 0, 0.5e-8]])
    weights, seen = joint._interpolation(points, region, 1e-8)
    assert seen.all()
    assert np.allclose((weights @ torch.from_numpy(place).float()).numpy(), points, atol=1e-14)


def test_the_shared_displacement_has_the_sign_of_the_manual():
    """phase = -Q.u, also where the phases wrap: here each turns by several pi."""
    qs = np.array([[2e10, 1e9, 0], [0, 2e10, 1e9], [1e9, 0, 2e10], [1e10, 1e10, 1e10]])
    place = np.indices((20, 20, 20)) / 20
    u = 0.8e-9 * np.stack([place[1], place[2] - place[1], -place[0]])
    fields = np.exp(-1j * np.tensordot(qs, u, axes=1))
    region = np.ones((20, 20, 20), bool)
    found = combine.shared_displacement(fields, qs, region)
    off = found - u
    assert np.abs(off - off.mean(axis=(1, 2, 3), keepdims=True)).max() < 1e-12
    assert combine.inconsistency(np.exp(-0.1j * np.tensordot(qs, u, axes=1)), qs) < 1e-9


def test_the_odd_twin_is_found(singles):
    listed = combine.combinations(singles[0], [True] * 4)
    assert listed[0].twins == (False, True, False, False)
    assert min(listed[0].overlaps) > 0.98


@pytest.fixture(scope="module")
def found(crystal):
    return reflections.join_reflections([Result(one) for one in crystal[2]], HKLS, GIVEN)


def assert_strain_is_that_of(body, found, mean=3e-4):
    """How each of the six strains changes along each axis is that of the atoms, up to a quarter; its mean is small, as theirs."""
    design = np.column_stack(
        [np.ones(len(body.sites)), body.sites, body.sites[:, [0, 0, 0, 1, 1, 2]] * body.sites[:, [0, 1, 2, 1, 2, 2]]]
    )
    solved = np.linalg.lstsq(design / np.abs(design).max(axis=0), body.displacement)[0] / np.abs(design).max(axis=0)[:, None]
    wanted = np.zeros((3, 3, 3))  # derivative of J along each axis
    for row, (a, b) in enumerate(((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))):
        wanted[:, a, b] += solved[4 + row]
        wanted[:, b, a] += solved[4 + row]
    inside = found.fields.support
    place = (np.argwhere(inside) - np.array(inside.shape) // 2) * found.crystal.voxel
    known = np.isfinite(found.fields.strain[:, inside]).all(axis=0)
    flat = np.column_stack([np.ones(known.sum()), place[known]])
    slopes = np.linalg.lstsq(flat, found.fields.strain[:, inside][:, known].T)[0][1:]
    truth = np.stack([reflections.tensor.six_of(wanted[:, :, c]) for c in range(3)])
    sign = np.sign((slopes * truth).sum())  # the twin of the whole crystal is not told apart
    assert np.linalg.norm(sign * slopes - truth) < 0.25 * np.linalg.norm(truth)
    assert np.abs(found.mean_strain).max() < mean


def test_the_tensor_is_that_of_the_atoms(crystal, found):
    assert_strain_is_that_of(crystal[0], found)


def test_a_triclinic_crystal_is_indexed_oriented_and_joined():
    """Of albite, whose axes a*, b* and c* are not along its edges, nor at right angles."""
    hkls = ((-2, 0, 1), (0, 4, 0), (0, 0, 2), (1, 3, 0))
    angles = (94.19, 116.61, 87.68)
    settings = replace(SETTINGS, cell=Lattice((8.142e-10, 12.785e-10, 7.159e-10), tuple(np.radians(angles).tolist())), stride=16)
    generator = torch.Generator().manual_seed(5)
    body, orientation = several.strained_crystal(generator, hkls, settings), several.draw_orientation(generator)
    found = []
    for number, g in enumerate(several.scattering_vectors(hkls, settings.cell)):
        scan, rho = several.simulate_reflection(generator, body, g, orientation, settings, f"r{number}")
        found.append(Result(phased(scan, rho)))
    cell = {"lattice": list(settings.cell.edges), "lattice_angles_deg": list(angles)}
    joined = reflections.join_reflections(found, None, {"strain": cell, "tensor": {"iterations": 15, "checks": False}})
    assert joined.orientation.hkls == hkls  # a triclinic lattice has no rotation onto itself
    assert joined.orientation.rivals == 0
    assert np.allclose(joined.orientation.rotation, orientation, atol=1e-3)
    assert_strain_is_that_of(body, joined, mean=8e-4)


def test_each_reflection_is_predicted_from_the_others(found):
    assert found.verdict == "good", found.reasons
    assert max(row.missed for row in found.reflections) < 0.2
    assert all(row.misfit is not None for row in found.reflections)
    assert found.sigma.source.startswith("jackknife over 4 fits")
    inside = found.fields.support
    assert np.nanmedian(found.sigma.strain[:, inside]) > 0


def test_the_sample_frame_turns_everything(found):
    turned = found.in_sample()
    inside = found.fields.support
    for own, other in ((found, turned),):
        lengths = [np.linalg.norm(one.fields.displacement[:, inside], axis=0) for one in (own, other)]
        assert np.allclose(*lengths)
        along = [
            -(one.fields.displacement[:, inside].T @ one.reflections[2].q) for one in (own, other)
        ]  # the phase of a reflection does not depend on the axes
        assert np.allclose(*along)
    assert np.allclose(turned.basis, found.orientation.rotation * found.crystal.voxel)


def test_dislocations_are_written_with_their_burgers_vectors_and_turn_with_the_axes(found, tmp_path):
    half = Fraction(1, 2)
    points = np.array([[0.0, 0.0, 0.0], [0.0, 3e-8, 4e-8]])
    slip = Slip(points, False, (1, 0, 0, -1), (1.0,) * 4, (half, half, Fraction(0)), np.array([0.0, 2e-10, 2e-10]), 4)
    assert found.dislocations == ()
    whole = replace(found, dislocations=(slip, replace(slip, indices=None, vector=None, explained=0)))
    names = {path.name for path in reflections.write(tmp_path, whole)}
    assert "tensor.vtp" in names
    assert "nan nan nan" in (tmp_path / "tensor.vtp").read_text()  # the second one is open
    said = json.loads((tmp_path / "tensor.json").read_text())["dislocations"]
    assert said[0]["burgers_uvw"] == [0.5, 0.5, 0.0]
    assert "b = 1/2 [1 1 0], screw; explains 4 of 4" in said[0]["said"]
    assert "burgers_uvw" not in said[1]
    with h5py.File(tmp_path / "tensor.cxi") as file:
        line = file["entry_1/tensor_1/dislocations/line_1"]
        assert line["burgers"].attrs["units"] == line["points"].attrs["units"] == "m"
        assert line["g_dot_b"][:].tolist() == [1, 0, 0, -1]
    (turned, _) = whole.in_sample().dislocations
    assert np.allclose(turned.vector, found.orientation.rotation @ slip.vector)
    assert turned.character == slip.character == "screw"
    reflections.write(tmp_path, found)
    assert 'NumberOfLines="0"' in (tmp_path / "tensor.vtp").read_text()


def test_masked_and_held_out_voxels_do_not_matter(singles):
    settings = reflections.resolve(GIVEN)
    common = combine.combinations(singles[0], [True] * 4)[0]
    qs = np.stack([one.q for one in singles[0]])
    windows, start = run.lay_out(singles[0], common, qs, [True] * 4, settings)
    changed = []
    for window in windows:
        magnitude = window.magnitude.clone()
        assert window.free.any()
        magnitude[window.free] = 1e3
        changed.append(replace(window, magnitude=magnitude))
    one, other = (joint.refine(each, start, 4) for each in (windows, changed))
    assert np.array_equal(one.displacement, other.displacement)
    assert np.array_equal(one.density, other.density)


def test_a_displacement_of_many_turns_is_not_wrapped(singles):
    """The phases go round four times; the fit keeps u continuous, and the counts as they are."""
    settings = reflections.resolve(GIVEN)
    common = combine.combinations(singles[0], [True] * 4)[0]
    windows, start = run.lay_out(singles[0], common, np.stack([one.q for one in singles[0]]), [True] * 4, settings)
    place = (np.indices(start.region.shape) - np.reshape([n // 2 for n in start.region.shape], (3, 1, 1, 1))) * start.voxel
    wide = 8 * np.pi / np.linalg.norm(singles[0][0].q) / np.ptp(place[0][start.region]) ** 2 * 4
    truth = replace(start, displacement=start.region * wide * np.stack([place[0] ** 2, place[0] * place[1], place[2] * place[0]]))
    made = [replace(window, magnitude=field.abs()) for window, field in zip(windows, joint.amplitudes(windows, truth), strict=True)]
    rough = replace(truth, displacement=truth.displacement + 3e-12 * np.sin(place / 3e-8) * start.region)
    fit = joint.refine(made, rough, 40)
    assert sum(fit.misfits) < 0.05 * joint.misfits(made, rough, free=False).sum()
    inner = start.density > 0.7
    turns = np.linalg.norm(singles[0][0].q) * np.ptp(fit.displacement[0][inner]) / (2 * np.pi)
    assert turns > 1.5


def test_two_reflections_give_their_plane(crystal, tmp_path):
    found = reflections.join_reflections([Result(one) for one in crystal[2][:2]], HKLS[:2], GIVEN)
    assert found.axes == "plane"
    assert np.isnan(found.fields.strain[[2, 4, 5]]).all()
    assert np.isfinite(found.fields.strain[0][found.fields.support]).any()
    assert any("their plane only" in reason for reason in found.reasons)
    assert {path.name for path in reflections.write(tmp_path, found)} == {"tensor.cxi", "tensor.vti", "tensor.png", "tensor.json"}


def test_the_command_reads_results_and_writes_files(crystal, tmp_path, capsys):
    for one in crystal[2]:
        results.write(tmp_path / f"{one.volume.name}.cxi", one)
    names = [str(tmp_path / f"r{number}.cxi") for number in range(4)]
    quick = ["--set", "tensor.iterations=5", "--set", "tensor.checks=false", "--lattice", "4.078", "--json"]
    assert main(["tensor", *names, "-o", str(tmp_path / "out"), *quick]) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert row["axes"] == "crystal"
    assert len(row["reflections"]) == 4
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"tensor.cxi", "tensor.vti", "tensor_sample.vti", "tensor.png", "tensor.json"} <= written
    text = (tmp_path / "out" / "tensor.vti").read_text()
    assert 'Name="strain" NumberOfComponents="6"' in text
    assert main(["tensor", names[0], "-o", str(tmp_path / "out"), *quick]) == 1
    assert "two reflections of one crystal or more" in capsys.readouterr().err
    wrong = [part for hkl in ("1,1,1", "1,1,1", "1,-1,1", "1,1,-1") for part in ("--hkl", hkl)]
    assert main(["tensor", *names, "-o", str(tmp_path / "out"), *quick, *wrong]) == 1
    assert "r0 and r1 are both 1 1 1" in capsys.readouterr().err


def test_around_a_dislocation_phases_stay_and_strains_are_right():
    """A screw of b = [110]/2 along its line: u jumps by b across a cut, and no phase, no strain shows where the cut lies."""
    edge, voxel = 4e-10, 5e-9
    qs = several.scattering_vectors(HKLS, cubic(edge))
    b = np.array([0.0, 0.5, 0.5]) * edge
    along = b / np.linalg.norm(b)
    one = np.array([1.0, 0, 0])
    other = np.cross(along, one)
    place = (np.indices((24, 24, 24)) - 11.7) * voxel
    x, y = (np.tensordot(v, place, axes=1) for v in (one, other))
    u = b[:, None, None, None] * np.arctan2(y, x) / (2 * np.pi)
    region = np.sqrt((place**2).sum(axis=0)) < 10 * voxel
    fields = region * np.exp(-1j * np.tensordot(qs, u, axes=1))
    common = combine.Common(fields, voxel, (False,) * 4, (1.0,) * 4, 0.0)
    assert combine.slipped(common, [True] * 4)
    assert not combine.slipped(replace(common, fields=region * np.exp(0.2j * place[:1] / voxel)), [True])
    noise = np.random.default_rng(1).normal(0, 0.2, fields.shape)
    found = combine.shared_phasors(fields * np.exp(1j * noise), qs, region)
    overlap = np.abs((found * fields.conj())[:, region].mean(axis=1))
    assert overlap.min() > np.abs(np.exp(1j * noise)[:, region].mean(axis=1)).max() + 0.002  # nearer than what was given
    away = region & (np.hypot(x, y) > 4 * voxel) & (np.sqrt((place**2).sum(axis=0)) < 8 * voxel)
    slope = (-y * other_part(one) + x * other_part(other)) / (2 * np.pi * np.hypot(x, y) ** 2)
    gradient = combine.shared_gradient(fields, qs, region, voxel)
    wanted = b[:, None, None, None, None] * slope[None]
    assert np.abs(gradient - wanted)[:, :, away].max() < 0.1 * np.abs(wanted[:, :, away]).max()


def other_part(vector):
    return vector[:, None, None, None]


def test_a_reflection_of_another_crystal_is_not_believed(crystal):
    """The same q, but of a crystal of another shape and strain, as if the beam had hit a neighbour."""
    generator = torch.Generator().manual_seed(8)
    body = several.strained_crystal(generator, HKLS, replace(SETTINGS, load="torsion"))
    g = several.scattering_vectors(HKLS, SETTINGS.cell)[3]
    scan, rho = several.simulate_reflection(generator, body, g, crystal[1], SETTINGS, "r3")
    found = reflections.join_reflections([Result(one) for one in (*crystal[2][:3], phased(scan, rho))], HKLS, GIVEN)
    assert found.verdict != "good"
    assert "r3" in found.reasons[0]
