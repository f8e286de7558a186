"""Scattering vectors against xrayutilities and by hand; bases by their invariances."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braggshot.errors import GeometryError
from braggshot.physics import geometry as g
from braggshot.volumes import Circle, Geometry, Window

RAW = (201, 256, 256)
CENTRE = Window((69, 62, 63), (1, 1, 1), RAW)  # shape (64, 128, 128): centre voxel (101, 126, 127)


def diffractometer(sample, detector, energy=9.0, distance=0.5, pitch=(55e-6, 55e-6), beam=(120.3, 131.7), **axes):
    """Circles from {axis: degrees}, outermost first."""

    def circles(angles):
        return tuple(Circle(axis, np.radians(angle), f"m{i}") for i, (axis, angle) in enumerate(angles))

    return Geometry(energy * g.KEV, distance, pitch, circles(sample), circles(detector), beam, **axes)


def aps_34idc(**axes):
    th = -0.28 + 0.005 * np.arange(201)
    return diffractometer([("y+", th), ("z-", 90.0), ("y+", -5.0)], [("y+", 32.174), ("x-", 12.6346)], **axes)


def esrf_id01():
    eta = 17.5 + 0.01 * np.arange(201)
    return diffractometer(
        [("y-", 0.3), ("x-", eta), ("y-", 41.0)], [("y-", -3.2), ("x-", 35.1)], energy=13.0, distance=1.4, pitch=(75e-6, 75e-6)
    )


def petra_p10():
    sample = [("y+", 0.0), ("x-", 20.1 + 0.0075 * np.arange(201)), ("z+", 1.5), ("y-", 12.0)]
    return diffractometer(sample, [("y+", 4.0), ("x-", 40.2)], energy=8.8, distance=1.84, pitch=(75e-6, 70e-6))


def straight_through(energy=9.0):
    """Detector on the beam, sample rocking about y: everything can be said by hand."""
    return diffractometer([("y+", 0.01 * np.arange(201))], [], energy=energy, beam=(100.0, 100.0))


@pytest.mark.parametrize("instrument", [aps_34idc, esrf_id01, petra_p10])
def test_scattering_vectors_agree_with_xrayutilities(instrument):
    xu = pytest.importorskip("xrayutilities")
    geometry = instrument()
    conversion = xu.experiment.QConversion(
        [c.axis for c in geometry.sample], [c.axis for c in geometry.detector], (0, 0, 1), en=geometry.energy / g.KEV * 1e3
    )
    rows, columns = geometry.direct_beam
    conversion.init_area(
        "y-", "x+", cch1=rows, cch2=columns, Nch1=256, Nch2=256,
        distance=geometry.distance, pwidth1=geometry.pixel_size[0], pwidth2=geometry.pixel_size[1],
    )  # fmt: skip
    frames = np.array([0, 37, 100, 200])
    angles = [np.degrees(c.angle[frames] if np.ndim(c.angle) else c.angle) for c in (*geometry.sample, *geometry.detector)]
    x, y, z = conversion.area(*angles, deg=True)  # in the axes of the sample [1/A]
    expected = np.stack([z, y, x], axis=-1) * 1e10

    pixels = np.ix_(frames, range(256), range(256))
    lab = g.scattering_vector(geometry, *pixels)
    in_sample_axes = lab @ g.sample_rotation(geometry, 100)  # v @ R is R^T v
    np.testing.assert_allclose(in_sample_axes, expected, atol=1e-7 * np.abs(expected).max())


def test_the_sample_frame_has_all_circles_at_zero():
    window = Window((100 - 32, 64, 64), (1, 1, 1), RAW)
    turn = g.sample_axes(aps_34idc(), window, (64, 64, 64))
    np.testing.assert_allclose(turn @ g.sample_rotation(aps_34idc(), 100), np.eye(3), atol=1e-6)
    assert np.linalg.det(turn) == pytest.approx(1)


def test_gold_peak_of_34idc():
    # The number stands in the instrument's own analysis of this scan, direct beam at the middle of the chip.
    geometry = replace(aps_34idc(), direct_beam=(128, 128))
    q = np.linalg.norm(g.scattering_vector(geometry, 99, 126, 127))
    assert q == pytest.approx(2.6911e10, rel=2e-4)
    assert 2 * np.pi / q == pytest.approx(2.3348e-10, rel=2e-4)


def test_bragg_law():
    geometry = diffractometer([("y+", np.linspace(0, 0.01, 5))], [("x-", 2 * 14.0)], beam=(10, 20))
    q = np.linalg.norm(g.scattering_vector(geometry, 2, 10, 20))
    assert q == pytest.approx(4 * np.pi * np.sin(np.radians(14.0)) / g.wavelength(geometry.energy))


@pytest.mark.parametrize(("name", "start", "end"), [("x+", "y", "z"), ("y+", "z", "x"), ("z+", "x", "y")])
def test_positive_rotations_are_right_handed(name, start, end):
    turned = g.rotation(name, np.pi / 2) @ g.direction(start + "+")
    np.testing.assert_allclose(turned, g.direction(end + "+"), atol=1e-12)
    np.testing.assert_allclose(g.rotation(name[0] + "-", 0.3), g.rotation(name, -0.3))
    assert g.rotation(name, np.zeros((2, 5))).shape == (2, 5, 3, 3)


@pytest.mark.parametrize(
    ("circle", "towards"),
    [("x-", "y+"), ("y+", "x+")],  # an arm that lifts the detector, one that swings it outboard
)
def test_detector_circles_move_the_detector_where_they_should(circle, towards):
    geometry = diffractometer([("y+", np.linspace(0, 0.01, 5))], [(circle, 30.0)], beam=(10, 20))
    q = g.scattering_vector(geometry, 2, 10, 20)
    assert q @ g.direction(towards) > 0
    assert q @ g.direction("z+") < 0


def test_rows_grow_downwards_and_columns_outboard():
    basis, q = g.reciprocal_basis(straight_through(), Window((50, 90, 90), (1, 1, 1), RAW), (21, 21, 21))
    per_pixel = 2 * np.pi / g.wavelength(9 * g.KEV) * 55e-6 / 0.5
    np.testing.assert_allclose(basis[:, 1], [0, -per_pixel, 0], atol=1e-6 * per_pixel)
    np.testing.assert_allclose(basis[:, 2], [0, 0, per_pixel], atol=1e-6 * per_pixel)
    np.testing.assert_allclose(q, 0, atol=1e-6 * per_pixel)
    flipped = replace(straight_through(), row_axis="y+", column_axis="x-")
    mirrored, _ = g.reciprocal_basis(flipped, Window((50, 90, 90), (1, 1, 1), RAW), (21, 21, 21))
    np.testing.assert_allclose(mirrored[:, 1:], -basis[:, 1:], atol=1e-6 * per_pixel)


def test_rocking_turns_the_pattern_against_the_sample():
    # The sample turns by dt about y, so in its own axes a q fixed in space turns by -dt: dq = -dt (y x q).
    geometry = aps_34idc()
    basis, q = g.reciprocal_basis(geometry, CENTRE, (64, 128, 128))
    up_cross_q = np.array([-q[2], 0, q[0]])  # y x q = (q_z, 0, -q_x) in (x, y, z)
    np.testing.assert_allclose(basis[:, 0], -np.radians(0.005) * up_cross_q, rtol=1e-5)


def test_reversing_the_scan_flips_the_rocking_edge():
    geometry = aps_34idc()
    backwards = replace(geometry, sample=(replace(geometry.sample[0], angle=geometry.sample[0].angle[::-1]), *geometry.sample[1:]))
    window = Window((100 - 32, 64, 64), (1, 1, 1), RAW)  # centre voxel on the middle frame, which stays where it is
    there, _ = g.reciprocal_basis(geometry, window, (64, 64, 64))
    back, _ = g.reciprocal_basis(backwards, window, (64, 64, 64))
    np.testing.assert_allclose(back[:, 0], -there[:, 0], rtol=1e-9)
    np.testing.assert_allclose(back[:, 1:], there[:, 1:], rtol=1e-9)


def test_a_crop_about_the_same_voxel_changes_nothing():
    large = g.reciprocal_basis(aps_34idc(), CENTRE, (64, 128, 128))
    small = g.reciprocal_basis(aps_34idc(), Window((101 - 15, 126 - 20, 127 - 10), (1, 1, 1), RAW), (31, 41, 21))
    padded = g.reciprocal_basis(aps_34idc(), Window((101 - 150, 126 - 200, 127 - 200), (1, 1, 1), RAW), (300, 401, 400))
    for other in (small, padded):
        np.testing.assert_allclose(other[0], large[0], rtol=1e-12)
        np.testing.assert_allclose(other[1], large[1], rtol=1e-12)


def test_binning_scales_the_edges_and_keeps_the_centre_of_the_bin():
    basis, _ = g.reciprocal_basis(aps_34idc(), CENTRE, (64, 128, 128))
    same_centre = Window((101 - 31, 126 - 37, 127 - 31), (3, 5, 3), RAW)
    binned, _ = g.reciprocal_basis(aps_34idc(), same_centre, (21, 15, 20))
    np.testing.assert_allclose(binned, basis * [3, 5, 3], rtol=1e-6, atol=1e-6 * np.abs(basis).max())
    _, q = g.reciprocal_basis(aps_34idc(), Window((69, 62, 63), (2, 4, 3), RAW), (21, 15, 20))
    # Voxel 10 of an axis binned by 2 from 69 on covers raw 89 and 90, so its centre is 89.5.
    np.testing.assert_allclose(q, g.scattering_vector(aps_34idc(), 89.5, 91.5, 94, reference=89.5), rtol=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.integers(3, 40)] * 3), st.integers(0, 10_000))
def test_bases_pair_as_the_fourier_transform_does(shape, seed):
    reciprocal = np.random.default_rng(seed).normal(size=(3, 3)) * 1e6 + 3e6 * np.eye(3)
    direct = g.direct_basis(reciprocal, shape)
    np.testing.assert_allclose(reciprocal.T @ direct, 2 * np.pi * np.diag(1 / np.array(shape)), atol=1e-9)
    volumes = np.linalg.det(reciprocal) * np.linalg.det(direct)
    assert volumes == pytest.approx((2 * np.pi) ** 3 / np.prod(shape))


def test_a_point_off_centre_scatters_as_its_position_says():
    """F(q) = exp(-i q . r): the transform's phase at reciprocal voxel k must be -(B k) . (A n)."""
    from torch import from_numpy

    from braggshot.physics.fourier import fourier

    shape, place = (9, 12, 7), np.array([1, -3, 2])
    basis, _ = g.reciprocal_basis(aps_34idc(), CENTRE, shape)
    position = g.direct_basis(basis, shape) @ place
    point = np.zeros(shape, dtype=complex)
    point[tuple(place + np.array(shape) // 2)] = 1
    voxel = np.array([-2, 1, 3])
    measured = fourier(from_numpy(point)).numpy()[tuple(voxel + np.array(shape) // 2)]
    assert np.angle(measured * np.exp(1j * (basis @ voxel) @ position)) == pytest.approx(0, abs=1e-9)


def test_jitter_of_the_motor_does_not_reach_the_basis():
    geometry = aps_34idc()
    noisy = geometry.sample[0].angle + np.random.default_rng(1).uniform(-1, 1, 201) * np.radians(0.002)
    jittered = replace(geometry, sample=(replace(geometry.sample[0], angle=noisy), *geometry.sample[1:]))
    expected, _ = g.reciprocal_basis(geometry, CENTRE, (64, 128, 128))
    basis, _ = g.reciprocal_basis(jittered, CENTRE, (64, 128, 128))
    np.testing.assert_allclose(basis[:, 0], expected[:, 0], rtol=2e-3)


def test_wavelength_and_energy():
    assert g.wavelength(12.398419843320026 * g.KEV) == pytest.approx(1e-10, rel=1e-9)
    assert g.photon_energy(g.wavelength(9 * g.KEV)) == pytest.approx(9 * g.KEV)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"detector": (Circle("x-", np.linspace(0, 1, 201), "gamma"),)}, "gamma moves"),
        ({"energy": np.linspace(1, 2, 201)}, "energy and m0 both move"),
        ({"sample": (Circle("y+", 0.1),)}, "found none"),
        ({"sample": (Circle("y+", np.arange(201.0), "th"), Circle("x+", np.arange(201.0), "chi"))}, "th, chi"),
        ({"sample": (Circle("y+", np.arange(100.0)),)}, "100 rocking angles"),
        ({"sample": (Circle("y+", np.r_[np.arange(200.0), 0]),)}, "not evenly spaced"),
        ({"sample": (Circle("y+", np.zeros(201)),)}, "not evenly spaced"),
        ({"sample": (Circle("up", np.arange(201.0)),)}, "'up'"),
    ],
)
def test_geometry_that_cannot_be_used_says_why(change, words):
    with pytest.raises(GeometryError, match=words):
        g.reciprocal_basis(replace(aps_34idc(), **change), CENTRE, (64, 128, 128))


def test_a_sample_that_rocks_about_q_is_refused():
    flat = np.array([[1.0, 0, 1], [0, 1, 0], [0, 0, 0]])
    with pytest.raises(GeometryError, match="plane"):
        g.direct_basis(flat, (4, 4, 4))
