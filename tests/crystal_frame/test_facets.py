"""A particle of known facets: normals, names, areas and strains come back."""

import numpy as np
import pytest
from scipy.spatial import ConvexHull, HalfspaceIntersection
from scipy.spatial.transform import Rotation

from braggshot.crystal_frame.facets import facets, indexed
from braggshot.physics import lattice

TURN = Rotation.from_euler("zyx", [31, -12, 47], degrees=True).as_matrix()
EDGE = 6e-9


def particle(families, shape=(60, 62, 58), turn=TURN):
    """Planes (hkl, distance [m]) of a polyhedron, and its amplitude with anti-aliased faces on cubic voxels."""
    planes = [(hkl, distance) for family, distance in families for hkl in lattice.family(family, lattice.cubic())]
    hkl = np.array([plane for plane, _ in planes])
    distance = np.array([d for _, d in planes])
    normals = lattice.normals(hkl, lattice.cubic()) @ turn.T
    r = EDGE * (np.indices(shape) - np.array(shape).reshape(3, 1, 1, 1) // 2)
    depth = (distance.reshape(-1, 1, 1, 1) - np.tensordot(normals, r, axes=1)).min(axis=0)
    return hkl, normals, distance, 5 * np.clip(0.5 + depth / EDGE, 0, 1), r


def true_areas(normals, distance):
    corners = HalfspaceIntersection(np.column_stack([normals, -distance / distance.max()]), np.zeros(3)).intersections
    hull = ConvexHull(corners)
    face = np.argmax(hull.equations[:, :3] @ normals.T, axis=1)
    edges = corners[hull.simplices]
    area = np.linalg.norm(np.cross(edges[:, 1] - edges[:, 0], edges[:, 2] - edges[:, 0]), axis=1) / 2
    return np.bincount(face, area, len(normals)) * distance.max() ** 2


@pytest.fixture(scope="module")
def truncated():
    """A truncated octahedron, strained by 1e-3 below one {100} facet and by -5e-4 elsewhere."""
    hkl, normals, distance, amplitude, r = particle([((1, 1, 1), 105e-9), ((1, 0, 0), 118e-9)])
    special = np.flatnonzero((hkl == (1, 0, 0)).all(axis=1))[0]
    strain = np.where(np.tensordot(normals[special], r, axes=1) > 90e-9, 1e-3, -5e-4)
    support = amplitude > 2.5
    found = facets(amplitude, support, np.where(support, strain, np.nan), EDGE * np.eye(3))
    return hkl, normals, distance, special, found


def test_every_facet_is_found_where_it_is(truncated):
    _, normals, distance, _, found = truncated
    assert len(found) == 14
    angle = np.degrees(np.arccos(np.clip(np.array([f.normal for f in found]) @ normals.T, -1, 1)))
    assert sorted(angle.argmin(axis=1)) == list(range(14))
    assert angle.min(axis=1).max() < 1.5
    for facet, plane in zip(found, angle.argmin(axis=1), strict=True):
        assert facet.centre @ normals[plane] == pytest.approx(distance[plane], abs=0.7 * EDGE)


def test_areas(truncated):
    _, normals, distance, _, found = truncated
    areas = true_areas(normals, distance)
    nearest = (np.array([f.normal for f in found]) @ normals.T).argmax(axis=1)
    np.testing.assert_allclose([f.area for f in found], areas[nearest], rtol=0.2)
    assert sum(f.area for f in found) == pytest.approx(areas.sum(), rel=0.08)


def test_mean_strain_of_each_facet(truncated):
    _, normals, _, special, found = truncated
    for facet in found:
        if facet.normal @ normals[special] > 0.99:
            assert facet.strain == pytest.approx(1e-3, rel=0.02)
        elif facet.normal @ normals[special] < 0.3:
            assert facet.strain == pytest.approx(-5e-4, rel=0.02)


@pytest.mark.parametrize("reflection", [(1, 1, 1), (2, 0, 0), (2, 2, 0), (1, 1, -1)])
def test_names_are_those_of_the_planes_up_to_the_symmetry(truncated, reflection):
    *_, found = truncated
    q = TURN @ lattice.normals(reflection, lattice.cubic()) * 2.7e10
    named = indexed(found, q, reflection, lattice.cubic())
    hkl = np.array([f.hkl for f in named])
    assert np.degrees([f.off for f in named]).max() < 2
    assert sorted(np.abs(hkl).sum(axis=1)) == [1] * 6 + [3] * 8
    # The names belong together: angles between them, and to the reflection, are those between the normals.
    directions = hkl / np.linalg.norm(hkl, axis=1, keepdims=True)
    measured = np.array([f.normal for f in named])
    np.testing.assert_allclose(directions @ directions.T, measured @ measured.T, atol=0.05)
    np.testing.assert_allclose(directions @ reflection / np.linalg.norm(reflection), measured @ q / 2.7e10, atol=0.05)
    # As a whole they are a rotation, never a mirror image.
    _, residual = Rotation.align_vectors(measured, directions)
    assert residual < 0.1


def test_a_plane_of_no_low_index_gets_no_name():
    _, _, _, amplitude, _ = particle([((1, 1, 1), 105e-9)])
    support = amplitude > 2.5
    found = facets(amplitude, support, np.where(support, 0.0, np.nan), EDGE * np.eye(3))
    assert len(found) == 8
    tilted = Rotation.from_euler("x", 17, degrees=True).as_matrix() @ TURN @ lattice.normals((1, 1, 1), lattice.cubic())
    assert any(f.hkl is None for f in indexed(found, tilted, (1, 1, 1), lattice.cubic()))


def test_a_ball_has_none_and_nothing_breaks():
    r = np.linalg.norm(np.indices((50, 50, 50)) - 25, axis=0)
    amplitude = np.clip(18.5 - r, 0, 1)
    assert len(facets(amplitude, amplitude > 0.5, np.zeros((50, 50, 50)), EDGE * np.eye(3))) == 0
    assert facets(np.zeros((5, 5, 5)), np.zeros((5, 5, 5), bool), np.zeros((5, 5, 5)), np.eye(3)) == ()
    assert indexed((), np.ones(3), (1, 1, 1), lattice.cubic()) == ()


def test_planes_of_no_low_index_get_no_names():
    """Twelve facets in random directions: any turn would bring a few within tolerance of {111}, {110} or {100}."""
    random = np.random.default_rng(4)
    directions = random.normal(size=(12, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    r = EDGE * (np.indices((60, 60, 60)) - 30)
    amplitude = 5 * np.clip(0.5 + (100e-9 - np.tensordot(directions, r, axes=1)).min(axis=0) / EDGE, 0, 1)
    found = facets(amplitude, amplitude > 2.5, np.zeros(amplitude.shape), EDGE * np.eye(3))
    assert len(found) > 7
    named = indexed(found, np.array([0.0, 3e10, 0.0]), (1, 1, 1), lattice.cubic())
    assert all(facet.hkl is None for facet in named)
