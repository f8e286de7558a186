"""The oversampling measured from counts is that of the crystal that made them."""

from dataclasses import replace

import numpy as np
import pytest
from measured_data import DATA

from braggshot.crystals.sample import simulate_volume
from braggshot.errors import DataError
from braggshot.evaluation.suites import SUITES
from braggshot.io import registry
from braggshot.physics.sampling import _end, crystal_extent, filled_share, object_extent, oversampling
from braggshot.prepare import PrepareConfig, prepare

SHAPES = [(64, 64, 64), (63, 72, 50), (80, 60, 77)]


def crystal(kind, shape, extent, skew=0.0, strain=0.0):
    """Amplitude |F| of a complex body of the given extents [voxels], in axes that lean over by `skew`, and its true extents.

    The body is made on a grid twice as fine, so that no fringe is folded back into the window. The true extent is that of the
    object which the window leaves, where its amplitude exceeds a tenth of the largest.
    """
    grid = np.stack(np.meshgrid(*[np.arange(2 * size) / 2 - size // 2 for size in shape], indexing="ij"), -1)
    body = grid / (np.array(extent) / 2) @ np.array([[1, skew, -skew], [0, 1, skew / 2], [0, 0, 1]]).T
    inside = {
        "box": (np.abs(grid / (np.array(extent) / 2)) <= 1).all(-1),
        "ellipsoid": (body**2).sum(-1) <= 1,
        "octahedron": (np.abs(body).sum(-1) <= 1.25) & (np.abs(body) <= 1).all(-1),  # with its corners cut, as crystals grow
    }[kind]
    phase = strain * (np.sin(1.7 * body[..., 0] + 0.3) + 0.5 * body[..., 2] ** 2)
    field = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(inside * np.exp(1j * phase))))
    field = field[tuple(slice(size - size // 2, size - size // 2 + size) for size in shape)]
    seen = np.abs(np.fft.fftshift(np.fft.ifftn(field)))
    found = np.argwhere(seen > 0.1 * np.percentile(seen, 99.9))
    return field, found.max(0) - found.min(0) + 1


def diffract(field, peak, seed=0):
    """Poisson counts with `peak` expected in the brightest voxel, which is put at N // 2."""
    expected = np.abs(field) ** 2
    brightest = np.unravel_index(expected.argmax(), expected.shape)
    centred = np.roll(expected, np.array(expected.shape) // 2 - brightest, (0, 1, 2))
    return np.random.default_rng(seed).poisson(centred * peak / centred.max()).astype(np.float32)


@pytest.mark.parametrize("kind", ["box", "ellipsoid", "octahedron"])
@pytest.mark.parametrize("peak", [1e3, 1e5, 1e7])
@pytest.mark.parametrize("shape", SHAPES)
def test_extent_of_known_bodies(kind, peak, shape):
    rho, extent = crystal(kind, shape, np.array(shape) / (2.4, 3.1, 4.2), skew=0.25, strain=1.0)
    measured = np.array(object_extent(diffract(rho, peak)).size)
    assert np.all(np.abs(measured - extent) <= 0.2 * extent), (measured, extent)
    assert oversampling(diffract(rho, peak)) == pytest.approx(np.array(shape) / measured)


@pytest.mark.parametrize("seed", [60851, 60853, 60859])
def test_strain_does_not_shrink_the_crystal(seed):
    """The autocorrelation of a strongly strained crystal is faint far out, which is no halo."""
    mild, strained = (simulate_volume(seed, SUITES["strain"].groups[group])[1].intensity for group in ("pi", "6 pi"))
    assert oversampling(strained) == pytest.approx(oversampling(mild), rel=0.55)


@pytest.mark.parametrize("kind", ["box", "ellipsoid", "octahedron"])
@pytest.mark.parametrize("strain", [2.0, 6.0])
@pytest.mark.parametrize("peak", [1e4, 1e6])
def test_volume_of_known_bodies(kind, strain, peak):
    field, _ = crystal(kind, (64, 60, 66), np.array((64, 60, 66)) / (2.4, 3.1, 4.2), skew=0.25, strain=strain)
    counts, size = diffract(field, peak), np.abs(np.fft.ifftn(field))
    true = np.mean(size > 0.3 * np.percentile(size, 99.9))
    measured = oversampling(counts)
    share = filled_share(counts, None, measured)
    assert share / true == pytest.approx(1, abs=0.35)
    middle = counts[8:-8, 6:-6, 5:-5]
    assert filled_share(middle, None, oversampling(middle)) == pytest.approx(share, rel=0.35), "a coarser grid of the same extent"


@pytest.mark.parametrize("strain", [1.0, 2.0, 6.0])
@pytest.mark.parametrize("first", [22, 40])
def test_gaps_do_not_change_the_volume(strain, first):
    """Voxels that are not valid spread the power of the pattern; not undone, the body would be half as large again."""
    field, _ = crystal("octahedron", (64, 60, 66), np.array((64, 60, 66)) / (2.4, 3.1, 2.8), skew=0.25, strain=strain)
    counts, valid = diffract(field, 1e6), np.ones(field.shape, bool)
    valid[:, first : first + 6] = valid[:, :, first : first + 6] = False
    measured = oversampling(counts)
    whole = filled_share(counts, None, measured)
    assert filled_share(np.where(valid, counts, 0), valid, measured) == pytest.approx(whole, rel=0.15)


def test_axes_are_not_exchanged():
    rho, _ = crystal("ellipsoid", (64, 64, 64), (10, 16, 26))
    z, y, x = oversampling(diffract(rho, 1e6))
    assert z > 1.3 * y > 1.3 * 1.3 * x


def test_cropping_the_pattern_changes_the_grid_of_the_object_not_its_oversampling():
    rho, _ = crystal("octahedron", (96, 96, 96), (30, 24, 36))
    counts = diffract(rho, 1e6)
    assert oversampling(counts[16:80, 24:72, 18:78]) == pytest.approx(oversampling(counts), rel=0.08)


@pytest.mark.parametrize("gap", [(40, 6), (22, 6), (44, 12)])
def test_gaps_beside_the_peak_do_not_change_it(gap):
    first, width = gap
    rho, extent = crystal("octahedron", (64, 64, 64), (22, 18, 26), skew=0.2)
    counts, valid = diffract(rho, 1e5), np.ones((64, 64, 64), dtype=bool)
    valid[:, first : first + width] = valid[:, :, first : first + width] = False
    measured = np.array(object_extent(np.where(valid, counts, 0), valid).size)
    assert np.all(np.abs(measured / extent - 1) <= 0.2), (measured, extent)


def test_response_of_pixels_and_flux_of_frames_do_not_change_it():
    rho, extent = crystal("octahedron", (64, 64, 64), (22, 18, 26))
    generator = np.random.default_rng(3)
    uneven = diffract(rho, 1e6) * generator.normal(1, 0.05, (64, 64)) * generator.normal(1, 0.02, (64, 1, 1))
    assert np.all(np.abs(np.array(object_extent(uneven).size) / extent - 1) <= 0.2)


@pytest.mark.parametrize("seed", [7_200_001, 7_200_002, 7_200_003])
def test_a_flat_field_that_was_not_given_moves_the_size_of_a_strained_crystal_little(seed):
    """The pixels' response, of a spread of 20 %, does not rock; by the plain autocorrelation the size falls to a third."""
    rho, volume = simulate_volume(seed, replace(SUITES["strain"].groups["4 pi"], counts=(1e5, 1e5)))
    response = np.clip(np.random.default_rng(seed).normal(1, 0.2, (64, 64)), 0.3, None)
    for counts in (volume.intensity, volume.intensity * response):
        ratio = np.array(object_extent(counts).size) / crystal_extent(rho)
        assert np.all((ratio > 0.65) & (ratio < 1.25)), ratio


def test_a_pattern_of_a_few_photons_has_no_certain_size():
    counts = np.random.default_rng(0).poisson(0.01, (48, 48, 48)).astype(np.float32)
    assert not any(object_extent(counts).certain)


def test_an_object_too_large_for_the_grid_reports_two():
    rho, _ = crystal("box", (48, 48, 48), (40, 12, 12))
    assert oversampling(diffract(rho, 1e6))[0] == 2.0


def test_nothing_to_measure():
    with pytest.raises(DataError, match="no counts"):
        oversampling(np.zeros((8, 8, 8), np.float32))


@pytest.mark.data
def test_argonne_crystal():
    path = DATA / "argonne-crystal-64" / "ft_crop_64.tif"
    if not path.exists():
        pytest.skip("measured data are not beside the checkout")
    import tifffile

    # a reconstruction of it fills 20 x 13 x 20 of 64 voxels
    assert oversampling(tifffile.imread(path)) == pytest.approx((3.2, 4.9, 3.2), rel=0.1)


def test_a_slow_fall_ends_where_power_has_fallen_and_not_at_the_face_of_the_array():
    """So it falls along the rocking axis of scan 54, whose steps are fine: with every shift by a factor of 1.7."""
    shifts = np.arange(80)
    profile = 1e6 * np.where(shifts < 8, 1.0, 1.7 ** (8.0 - shifts)) + 1.5e3
    end, _, found = _end(profile, 400.0, 12.0)
    assert 10 < end < 16
    assert found
    filled = np.full(80, 1e6)
    assert _end(filled, 400.0, 60.0)[0] == pytest.approx(80, abs=2)


@pytest.mark.data
@pytest.mark.parametrize("given", [{}, {"dark": "dark.tif"}, {"dark": "dark.tif", "flat": "whitefield.tif"}])
def test_a_measured_crystal_has_one_size_along_the_rocking_axis_whatever_fields_are_given(given):
    folder = DATA / "aps-34idc-scan54"
    scan = registry.read(folder / "example.spec", None, scan=54, **{name: folder / file for name, file in given.items()})
    volume = prepare(scan, PrepareConfig())
    steps = volume.oversampling[0] * volume.window.binning[0]  # the crystal itself has 7.7
    assert 6.4 < steps < 9.1
