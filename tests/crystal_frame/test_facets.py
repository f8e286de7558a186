"""A particle of known facets: normals, names, areas and strains come back."""

import numpy as np
import pytest
from scipy.spatial import ConvexHull, HalfspaceIntersection
from scipy.spatial.transform import Rotation

from braggshot.crystal_frame.facets import facets, indexed
from braggshot.physics import lattice
from braggshot.volumes import Facet

TURN = Rotation.from_euler("zyx", [31, -12, 47], degrees=True).as_matrix()
EDGE = 6e-9


def particle(families, shape=(60, 62, 58), turn=TURN):
    """Planes (hkl, distance [m]) of a polyhedron, and its amplitude with anti-aliased faces on cubic voxels."""
    planes = [(hkl, distance) for family, distance in families for hkl in lattice.family(family, lattice.cubic())]
    hkl = np.array([plane for plane, _ in planes])
    distance = np.array([d for _, d in planes])
    normals = (lattice.normals(hkl, lattice.cubic()) @ turn.T)[:, ::-1]  # turned as (x, y, z), right-handed; then (z, y, x)
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
    q = (TURN @ lattice.normals(reflection, lattice.cubic()))[::-1] * 2.7e10
    named = indexed(found, q, reflection, lattice.cubic())
    hkl = np.array([f.hkl for f in named])
    assert np.degrees([f.off for f in named]).max() < 2
    assert sorted(np.abs(hkl).sum(axis=1)) == [1] * 6 + [3] * 8
    # The names belong together: angles between them, and to the reflection, are those between the normals.
    directions = hkl / np.linalg.norm(hkl, axis=1, keepdims=True)
    measured = np.array([f.normal for f in named])
    np.testing.assert_allclose(directions @ directions.T, measured @ measured.T, atol=0.05)
    np.testing.assert_allclose(directions @ reflection / np.linalg.norm(reflection), measured @ q / 2.7e10, atol=0.05)
    # As a whole they are a rotation of right-handed vectors (x, y, z), never a mirror image.
    _, residual = Rotation.align_vectors(measured[:, ::-1], directions)
    assert residual < 0.1


def test_a_plane_of_no_low_index_gets_no_name():
    _, _, _, amplitude, _ = particle([((1, 1, 1), 105e-9)])
    support = amplitude > 2.5
    found = facets(amplitude, support, np.where(support, 0.0, np.nan), EDGE * np.eye(3))
    assert len(found) == 8
    tilted = (Rotation.from_euler("x", 17, degrees=True).as_matrix() @ TURN @ lattice.normals((1, 1, 1), lattice.cubic()))[::-1]
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


@pytest.mark.parametrize(
    ("cell", "reflection"),
    [
        (lattice.cubic(4.078e-10), (3, 2, 1)),
        (lattice.Lattice((4.913e-10, 4.913e-10, 5.405e-10), (np.pi / 2, np.pi / 2, 2 * np.pi / 3)), (1, 0, 1)),  # quartz
        (lattice.Lattice((8.14e-10, 12.8e-10, 7.16e-10), (1.646, 2.034, 1.532)), (0, 0, 1)),  # albite, triclinic
    ],
    ids=["cubic 321", "quartz 101", "albite 001"],
)
def test_a_reflection_without_a_mirror_through_it_names_the_true_planes(cell, reflection):
    """The body's planes are known from outside; a mirror image of the right-handed axes would name other planes."""
    planes = np.array(list(np.ndindex(3, 3, 3))) - 1
    planes = planes[np.abs(planes).sum(axis=1) > 0]
    planes = planes[np.gcd.reduce(planes, axis=1) == 1]
    normals = (lattice.normals(planes, cell) @ TURN.T)[:, ::-1]
    q = (TURN @ lattice.normals(reflection, cell))[::-1]
    kept = np.argsort(-np.random.default_rng(2).random(len(planes)))[:12]
    found = [Facet(normals[k], 1e-15, 1 / 12, np.zeros(3), 0.0, 0.0) for k in kept]
    for facet, k in zip(indexed(found, 3e10 * q, reflection, cell), kept, strict=True):
        # Planes that a rotation about q, a symmetry of the cell, brings onto each other are equally right.
        assert facet.hkl is not None
        angle = np.degrees(np.arccos(np.clip(lattice.normals(facet.hkl, cell) @ lattice.normals(planes[k], cell), -1, 1)))
        assert angle < 1e-3


ROUND = np.indices((64, 64, 64)) - 32.0


def rod(radius):
    """Signed depth below the surface of a rod with flat ends [voxels], turned to no axis of the grid."""
    along, *across = np.tensordot(TURN, ROUND, axes=1)
    return np.minimum(radius - np.hypot(*across), 22 - np.abs(along))


def rod_with_caps(radius):
    """The same with round ends."""
    along, *across = np.tensordot(TURN, ROUND, axes=1)
    return radius - np.sqrt(across[0] ** 2 + across[1] ** 2 + np.maximum(np.abs(along) - 12, 0) ** 2)


def cone(radius):
    """A cone with a flat base."""
    along, *across = np.tensordot(TURN, ROUND, axes=1)
    tilt = np.arctan(radius / 40)
    return np.minimum((20 - along) * radius / 40 * np.cos(tilt) - np.hypot(*across) * np.cos(tilt), along + 20)


@pytest.mark.parametrize(
    ("depth", "flat"),
    [(rod(8), 2), (rod(15), 2), (rod_with_caps(8), 0), (rod_with_caps(14), 0), (cone(14), 1), (8 - np.sqrt((ROUND**2).sum(0)), 0)],
    ids=["thin rod", "rod", "thin rod with caps", "rod with caps", "cone", "ball"],
)
def test_round_surfaces_have_no_facets(depth, flat):
    amplitude = 5 * np.clip(0.5 + depth, 0, 1)
    found = facets(amplitude, amplitude > 2.5, np.zeros(amplitude.shape), EDGE * np.eye(3))
    assert len(found) == flat


@pytest.mark.parametrize("width", [18, 24])
def test_facets_of_a_small_crystal_are_found_and_none_besides(width):
    _, normals, _, amplitude, _ = particle([((1, 1, 1), 0.475 * width * EDGE), ((1, 0, 0), 0.53 * width * EDGE)])
    found = facets(amplitude, amplitude > 2.5, np.zeros(amplitude.shape), EDGE * np.eye(3))
    angle = np.degrees(np.arccos(np.clip(np.array([f.normal for f in found]) @ normals.T, -1, 1)))
    assert sorted(angle.argmin(axis=1)) == list(range(14))
    assert angle.min(axis=1).max() < 4
