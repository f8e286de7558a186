"""From raw frames to a volume: nothing is lost, moved or invented, and everything is written down."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measured_data import DATA
from scipy import ndimage

from braggshot.config import parse_assignments, resolve
from braggshot.errors import BraggshotError, ConfigError, DataError
from braggshot.prepare import PrepareConfig, prepare
from braggshot.prepare import volume as volume_module
from braggshot.prepare.rocking import rocking_grid
from braggshot.prepare.window import averaged_misfit, choose_binning, cut, fast_length, is_fast
from braggshot.volumes import Circle, Geometry, Scan

RAW = (70, 80, 90)
AS_IT_IS = PrepareConfig(binning=(1, 1, 1), bad_pixels=False, aliens="off")


@cache
def pattern(shape=(48, 48, 48), oversampling=(3.2, 3.5, 4.0)):
    """Expected intensity of a facetted crystal, maximum 1 at N // 2."""
    grid = np.meshgrid(*[np.arange(-size, size) for size in shape], indexing="ij")
    z, y, x = (axis * over / size for axis, over, size in zip(grid, oversampling, shape, strict=True))
    body = np.maximum.reduce([*np.abs([z, y, x]), np.abs(z + y + x) / 1.6, np.abs(z - y + 0.6 * x) / 1.5])
    intensity = np.abs(np.fft.fftshift(np.fft.fftn(body <= 1))) ** 2
    return intensity[tuple(slice(size // 2, size // 2 + size) for size in shape)] / intensity.max()


def counts_at(peak, raw=RAW, counts=1e5, background=0.01, seed=0, **crystal):
    """Raw frames with the peak at voxel `peak`."""
    small = pattern(**crystal)
    expected = cut(small, [n // 2 - p for n, p in zip(small.shape, peak, strict=True)], raw)
    return np.random.default_rng(seed).poisson(counts * expected + background).astype(np.int32)


def geometry(n, step=0.005):
    angle = np.radians(10 + step * np.arange(n))
    delta, gamma = (Circle(axis, np.radians(value)) for axis, value in (("y+", 32.0), ("x-", 12.6)))
    return Geometry(1.44e-15, 0.5, (55e-6, 55e-6), (Circle("y+", angle, "th"),), (delta, gamma), (40.0, 45.0))


def position(peak, volume):
    """Voxel of `volume` that holds the raw voxel `peak`."""
    window = volume.window
    return tuple((p - s) // b for p, s, b in zip(peak, window.start, window.binning, strict=True))


PEAKS = st.tuples(st.integers(20, 50), st.integers(20, 60), st.integers(20, 70))


@given(PEAKS, st.tuples(*[st.integers(20, 61)] * 3), st.tuples(*[st.integers(1, 3)] * 3))
@settings(deadline=None, max_examples=15)
def test_the_window_maps_the_peak_to_the_centre_voxel(peak, shape, binning):
    volume = prepare(Scan(counts_at(peak), "s"), replace(AS_IT_IS, shape=shape, binning=binning))
    assert volume.shape == shape
    assert position(peak, volume) == tuple(size // 2 for size in shape)


@given(PEAKS, st.tuples(*[st.integers(1, 4)] * 3))
@settings(deadline=None, max_examples=15)
def test_cropping_padding_and_binning_conserve_counts(peak, binning):
    raw = counts_at(peak)
    shape = tuple(2 * (size // bins + 2) for size, bins in zip(RAW, binning, strict=True))  # all of the scan is inside
    volume = prepare(Scan(raw, "s"), replace(AS_IT_IS, shape=shape, binning=binning, centre=peak))
    start, stop = np.array(volume.window.start), np.array(volume.window.start) + np.array(shape) * binning
    whole = tuple(  # raw voxels whose bin does not reach beyond the scan
        slice(int(-(-max(0, -a) // b) * b + a) if a < 0 else int(a), int(min(n, z) - (min(n, z) - a) % b))
        for a, z, b, n in zip(start, stop, binning, RAW, strict=True)
    )
    assert volume.intensity.sum(dtype=float) == raw[whole].sum()
    assert volume.valid.sum() * np.prod(binning) == raw[whole].size
    assert not volume.intensity[~volume.valid].any()


@given(PEAKS, st.integers(0, 1000))
@settings(deadline=None, max_examples=10)
def test_trust_never_grows(peak, seed):
    mask = np.random.default_rng(seed).random(RAW) > 0.02
    volume = prepare(Scan(counts_at(peak), "s", valid=mask), PrepareConfig(shape=(40, 44, 48), centre=peak, binning=(1, 1, 1)))
    assert not (volume.valid & ~cut(mask, volume.window.start, volume.shape)).any()


def test_a_bin_is_valid_where_all_its_voxels_are():
    peak, mask = (35, 40, 45), np.ones(RAW, dtype=bool)
    mask[30, 30, 30] = False
    volume = prepare(Scan(counts_at(peak), "s", valid=mask), replace(AS_IT_IS, shape=(16, 16, 16), binning=(2, 2, 2), centre=peak))
    assert (~volume.valid).sum() == 1
    assert not volume.valid[position((30, 30, 30), volume)]


@given(PEAKS)
@settings(deadline=None, max_examples=5)
def test_preparing_again_changes_nothing(peak):
    once = prepare(Scan(counts_at(peak, counts=1e3), "s", geometry=geometry(RAW[0])))
    stored = {
        name: getattr(once, name) for name in ("window", "reciprocal_basis", "q_bragg", "oversampling", "steps", "provenance")
    }
    scan = Scan(once.intensity, "s", valid=once.valid, geometry=once.geometry, prepared=True, provenance=stored)
    twice = prepare(scan)
    assert np.array_equal(twice.intensity, once.intensity)
    assert np.array_equal(twice.valid, once.valid)
    assert (twice.window, twice.steps, twice.oversampling) == (once.window, once.steps, once.oversampling)
    np.testing.assert_allclose(twice.reciprocal_basis, once.reciprocal_basis)
    np.testing.assert_allclose(twice.q_bragg, once.q_bragg)
    cropped = prepare(scan, PrepareConfig(shape=(20, 24, 28), binning=(1, 1, 2), centre=tuple(n // 2 for n in once.shape)))
    direct = prepare(Scan(counts_at(peak, counts=1e3), "s", geometry=geometry(RAW[0])), replace(AS_IT_IS, shape=(20, 24, 28)))
    np.testing.assert_allclose(cropped.reciprocal_basis, direct.reciprocal_basis * [1, 1, 2], rtol=0.02, atol=5e4)
    assert cropped.window.raw_shape == RAW


def test_the_direction_of_the_scan_is_kept():
    peak = (31, 40, 45)
    frames, angle = counts_at(peak), np.radians(np.linspace(0, 0.35, RAW[0]))
    config = PrepareConfig(shape=(41, 40, 40), centre=peak)
    forth = prepare(Scan(frames, "s", rocking_angle=angle), config)
    back = prepare(Scan(frames[::-1], "s", rocking_angle=angle[::-1]), replace(config, centre=(RAW[0] - 1 - 31, 40, 45)))
    assert np.array_equal(back.intensity, forth.intensity[::-1])
    assert not any("sorted" in step for step in back.steps)


def test_a_small_centred_stack_keeps_its_grid():
    frames = counts_at((33, 31, 31), raw=(64, 64, 64), counts=1e4)
    volume = prepare(Scan(frames, "s"))
    assert volume.window.start == (0, 0, 0)
    assert np.array_equal(volume.intensity, frames)
    off = prepare(Scan(counts_at((20, 31, 31), raw=(64, 64, 64)), "s"))
    assert position((20, 31, 31), off) == tuple(n // 2 for n in off.shape)


def test_a_prepared_scan_keeps_its_grid_whatever_its_lengths():
    frames = counts_at((20, 30, 25), raw=(61, 59, 53))
    assert np.array_equal(prepare(Scan(frames, "s", prepared=True)).intensity, frames)


def test_where_the_size_is_not_certain_nothing_is_binned_or_cropped_and_it_is_said(monkeypatch):
    frames = counts_at((64, 31, 31), raw=(144, 64, 64), counts=1e4, shape=(96, 48, 48), oversampling=(9.5, 3.2, 3.5))
    assert prepare(Scan(frames, "s")).window.binning[0] > 1
    measure = volume_module.object_extent
    monkeypatch.setattr(volume_module, "object_extent", lambda *given: replace(measure(*given), certain=(False, True, True)))
    volume = prepare(Scan(frames, "s"))
    assert volume.window.binning == (1, 1, 1)
    assert volume.shape == frames.shape
    assert any("not certain along rocking: not binned there, nothing cropped" in step for step in volume.steps)


def test_a_large_scan_is_cropped_to_its_signal_and_binned_where_it_can_be():
    peak, raw = (160, 130, 120), (300, 256, 256)
    frames = counts_at(peak, raw=raw, counts=1e4, background=0.002, shape=(150, 48, 48), oversampling=(10.8, 3.2, 3.5))
    volume = prepare(Scan(frames, "s"))
    assert volume.window.binning == (3, 1, 1)
    assert position(peak, volume) == tuple(size // 2 for size in volume.shape)
    assert all(is_fast(size) and size % 2 == 0 for size in volume.shape)
    assert np.prod(volume.shape) < 500_000
    assert volume.oversampling == pytest.approx((10.8 / 3, 3.2, 3.5), rel=0.2)
    assert volume.intensity.sum() > 0.97 * frames.sum() - frames[:50].mean() * frames.size
    assert any("oversampled" in step for step in volume.steps)


def test_neither_a_hot_pixel_nor_a_zinger_is_the_peak():
    peak, raw = (70, 100, 120), (130, 256, 256)
    frames = counts_at(peak, raw=raw, counts=1e3)
    frames[:, 20, 30] = 100_000
    frames[30, 200, 50] = 1_000_000
    volume = prepare(Scan(frames, "s"), PrepareConfig(shape=(40, 40, 40)))
    assert position(peak, volume) == (20, 20, 20)


class Recorder:
    """Frames that remember what was read."""

    def __init__(self, frames):
        self.frames, self.shape, self.dtype, self.read = frames, frames.shape, frames.dtype, []

    def __getitem__(self, region):
        part = self.frames[region]
        self.read.append(part.size)
        return part


def test_only_the_window_is_read_where_the_user_knows_it():
    peak, raw = (70, 100, 120), (130, 256, 256)
    frames = Recorder(counts_at(peak, raw=raw))
    prepare(Scan(frames, "s"), PrepareConfig(centre=peak, shape=(40, 40, 40), binning=(1, 1, 1)))
    assert (
        sum(frames.read) <= 64**3 + 9 * 64**2
    )  # the window; before it eight frames, after it the brightest one, as they were counted
    frames = Recorder(np.broadcast_to(np.zeros(1, np.uint16), (2000, 1000, 1000)))
    with pytest.raises(DataError, match="no counts"):
        prepare(Scan(frames, "s"), PrepareConfig(centre=(1000, 500, 500), shape=(64, 64, 64)))
    assert sum(frames.read) < 90**3 + 8 * 90**2


def test_a_survey_reads_a_few_frames_at_a_time():
    frames = Recorder(counts_at((20, 500, 500), raw=(40, 1000, 1000), background=0.001))
    volume = prepare(Scan(frames, "s"))
    assert position((20, 500, 500), volume) == tuple(size // 2 for size in volume.shape)
    assert max(frames.read) <= 8_000_000


def test_flat_dark_and_mask():
    peak, generator = (35, 40, 45), np.random.default_rng(0)
    response = generator.uniform(0.7, 1.3, RAW[1:])
    frames = generator.poisson(counts_at(peak) * response)
    dark, mask = np.zeros(RAW[1:]), np.ones(RAW[1:], dtype=bool)
    frames[:, 38, 44], dark[38, 44] = 500, 77
    response[50, 50], mask[20, 20] = 0, False
    config = PrepareConfig(shape=(50, 60, 60), centre=peak, binning=(1, 1, 1))
    volume = prepare(Scan(frames, "s", valid=mask, dark=dark, flat=response * 1e4), config)
    bad = [(38, 44), (50, 50), (20, 20)]
    assert all(not volume.valid[position((35, row, column), volume)] for row, column in bad)
    assert (~volume.valid).sum() == 3 * 50
    plain = prepare(Scan(counts_at(peak), "s"), config)
    near = (slice(20, 30), slice(25, 35), slice(25, 35))
    assert np.corrcoef(volume.intensity[near][volume.valid[near]], plain.intensity[near][volume.valid[near]])[0, 1] > 0.999
    assert volume.intensity.sum() == pytest.approx(plain.intensity.sum(), rel=0.05)  # still counts
    assert sum("masked" in step for step in volume.steps) == 2


def test_flux_is_divided_out_and_counts_stay_counts():
    peak, flux = (35, 40, 45), np.random.default_rng(0).uniform(0.5, 1.5, RAW[0])
    flux[10] = 0
    frames = np.random.default_rng(1).poisson(counts_at(peak) * flux[:, None, None])
    volume = prepare(Scan(frames, "s", monitor=1e6 * flux), replace(AS_IT_IS, shape=RAW, centre=peak))
    assert not volume.valid[10].any()
    assert volume.valid[11].all()
    assert volume.intensity.max() == pytest.approx(1e5 * np.median(flux[flux > 0]), rel=0.05)
    level = volume.intensity.sum((1, 2)) / counts_at(peak).sum((1, 2))
    assert level[20:50].std() / level[20:50].mean() < 0.02


def test_repeated_and_missing_frames():
    peak, frames = (35, 40, 45), counts_at((35, 40, 45))
    index = np.array([*range(20), *range(20, 30), *range(24, 30), *range(33, RAW[0])])  # 24-29 twice, 30-32 never
    angle = np.radians(0.005 * index) + np.random.default_rng(0).normal(0, 2e-6, index.size)
    volume = prepare(
        Scan(frames[index], "s", rocking_angle=angle, geometry=replace(geometry(1), sample=(Circle("y+", angle),))),
        replace(AS_IT_IS, shape=RAW, centre=peak),
    )
    assert not volume.valid[30:33].any()
    assert np.array_equal(np.delete(volume.intensity, [30, 31, 32], 0), np.delete(frames, [30, 31, 32], 0))
    assert any("6 repeated" in step for step in volume.steps)
    assert any("3 missing" in step for step in volume.steps)
    regular = prepare(Scan(frames, "s", geometry=geometry(RAW[0])), replace(AS_IT_IS, shape=RAW, centre=peak))
    np.testing.assert_allclose(volume.reciprocal_basis, regular.reciprocal_basis, rtol=0.01, atol=1e3)


def test_uneven_steps_are_reported_and_left():
    angle = np.cumsum(np.random.default_rng(0).uniform(0.4, 1.6, 50)) * 1e-4
    grid = rocking_grid(50, angle)
    assert len(grid.frames) == 50
    assert any("uneven" in step for step in grid.steps)
    shuffled = rocking_grid(50, np.random.default_rng(0).permutation(50) * 1e-4)
    assert sorted(frame for plane in shuffled.frames for frame in plane) == list(range(50))
    assert not shuffled.regular


@pytest.mark.parametrize(("lost", "empty"), [([20], [20]), ([20, 21], [20, 21]), ([0], []), ([49], [])])
def test_a_frame_without_an_angle_belongs_to_no_plane(lost, empty):
    angle = np.arange(50) * 1e-4
    angle[lost] = np.nan
    grid = rocking_grid(50, angle)
    planes = [frame for plane in grid.frames for frame in plane]
    assert planes == [frame for frame in range(50) if frame not in lost]
    assert [index for index, plane in enumerate(grid.frames) if not plane] == empty
    assert f"{len(lost)} frames without an angle left out" in grid.steps
    uneven = angle * np.random.default_rng(0).uniform(0.4, 1.6, 50)
    assert sorted(frame for plane in rocking_grid(50, uneven).frames for frame in plane) == planes
    assert len(rocking_grid(50, np.full(50, np.nan)).frames) == 50


def test_the_basis_belongs_to_the_window():
    peak, frames = (35, 40, 45), counts_at((35, 40, 45))
    scan = Scan(frames, "s", geometry=geometry(RAW[0]))
    wide = prepare(scan, replace(AS_IT_IS, shape=(64, 64, 64), centre=peak))
    narrow = prepare(scan, replace(AS_IT_IS, shape=(33, 32, 31), centre=peak))
    np.testing.assert_allclose(narrow.reciprocal_basis, wide.reciprocal_basis)
    np.testing.assert_allclose(narrow.q_bragg, wide.q_bragg)
    binned = prepare(scan, replace(AS_IT_IS, shape=(16, 16, 16), centre=peak, binning=(1, 2, 3)))
    np.testing.assert_allclose(binned.reciprocal_basis, wide.reciprocal_basis * [1, 2, 3], rtol=1e-3)
    moved = prepare(scan, replace(AS_IT_IS, shape=(32, 32, 32), centre=(35, 41, 45)))
    np.testing.assert_allclose(moved.q_bragg - wide.q_bragg, wide.reciprocal_basis[:, 1], rtol=1e-2, atol=1e2)


def test_sub_voxel_offset_is_recorded_and_shifted_only_when_asked():
    z, y, x = np.meshgrid(*[np.arange(48) - 24] * 3, indexing="ij")
    frames = np.rint(1e5 * np.exp(-((z - 0.4) ** 2 + (y + 0.3) ** 2 + x**2) / 18)).astype(int)
    scan = Scan(frames, "s", geometry=geometry(48))
    plain, shifted = prepare(scan, AS_IT_IS), prepare(scan, replace(AS_IT_IS, subvoxel=True))
    assert np.array_equal(plain.intensity, frames)
    assert any("(+0.40, -0.30, +0.00)" in step for step in plain.steps)
    centre = np.array([(shifted.intensity * axis).sum() for axis in (z, y, x)]) / shifted.intensity.sum()
    assert np.all(np.abs(centre) < 0.1)
    assert (shifted.q_bragg - plain.q_bragg) @ plain.reciprocal_basis[:, 0] > 0


def test_background_and_threshold_only_when_asked():
    peak, frames = (35, 40, 45), counts_at((35, 40, 45), background=2.0)
    config = replace(AS_IT_IS, shape=(60, 60, 60), centre=peak)
    plain = prepare(Scan(frames, "s"), config).intensity
    assert np.array_equal(plain, cut(frames, (5, 10, 15), (60, 60, 60)))
    assert prepare(Scan(frames, "s"), replace(config, background=2.0)).intensity.max() == plain.max() - 2
    assert prepare(Scan(frames, "s"), replace(config, background="frame")).intensity.max() == pytest.approx(
        plain.max() - 2, abs=0.5
    )
    thresholded = prepare(Scan(frames, "s"), replace(config, threshold=5.0)).intensity
    assert np.array_equal(thresholded, np.where(plain < 5, 0, plain))


def test_a_few_voxels_that_are_no_counts_are_masked():
    frames = counts_at((35, 40, 45)).astype(np.float32)
    frames[3, 4, 5], frames[6, 7, 8] = np.nan, -1
    volume = prepare(Scan(frames, "s"), replace(AS_IT_IS, shape=RAW, centre=(35, 40, 45)))
    assert (~volume.valid).sum() == 2
    assert np.isfinite(volume.intensity).all()
    assert any("2 voxels negative" in step for step in volume.steps)
    sentinel = counts_at((35, 40, 45)).astype(np.uint32)
    sentinel[:, 10, 10] = 2**32 - 1
    scan = Scan(sentinel, "s", provenance={"no_count": 2**32 - 1})
    assert not prepare(scan, replace(AS_IT_IS, shape=RAW, centre=(35, 40, 45))).valid[:, 10, 10].any()


NOISE = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((20, 30, 40)), "no counts"),
        (np.full((20, 30, 40), np.nan), "not a number"),
        (-np.ones((20, 30, 40)), "negative"),
        (np.where(NOISE.random((20, 30, 40)) < 0.2, np.nan, 1.0), "20 % of the voxels"),
        (NOISE.poisson(3.0, (40, 50, 60)), "no Bragg peak"),
        (NOISE.random((40, 50, 60)) * 1000, "no Bragg peak"),
        (np.full((40, 50, 60), 7), "no Bragg peak"),
        (np.ones((1, 30, 40)), "too little"),
    ],
)
def test_what_cannot_be_a_bragg_peak_is_refused_in_one_line(frames, message):
    with pytest.raises(DataError, match=message) as caught:
        prepare(Scan(frames, "scan_7"))
    assert "scan_7" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "config", "message"),
    [
        ({"dark": np.zeros((3, 3))}, {}, "dark field has shape"),
        ({"flat": np.ones((3, 3))}, {}, "flat field has shape"),
        ({"monitor": np.ones(3)}, {}, "monitor has shape"),
        ({"monitor": np.zeros(70)}, {}, "no frame has a positive monitor"),
        ({"valid": np.zeros((80, 90), dtype=bool)}, {}, "100 % of the voxels"),
        ({}, {"detector": "maxipix"}, "not those of a whole maxipix"),
        ({}, {"detector": "nonsense"}, "unknown"),
        ({}, {"centre": (500, 1, 1)}, "outside the scan"),
        ({}, {"shape": (0, 1, 1)}, "must be positive"),
    ],
)
def test_settings_and_images_that_do_not_fit(changes, config, message):
    with pytest.raises(BraggshotError, match=message):
        prepare(Scan(counts_at((35, 40, 45)), "s", **changes), PrepareConfig(**config))


def test_a_two_dimensional_pattern_is_refused():
    with pytest.raises(DataError, match="3D"):
        prepare(Scan(np.ones((30, 40)), "s"))


def test_settings_are_read_from_text():
    given_text = ["shape=[64,64,64]", "binning=[1,2,2]", "centre=com", "background=frame", "subvoxel=true"]
    config = resolve(PrepareConfig, parse_assignments(given_text))
    assert config == PrepareConfig((64, 64, 64), binning=(1, 2, 2), centre="com", background="frame", subvoxel=True)
    assert resolve(PrepareConfig, {"centre": [1, 2, 3], "background": 0.5}) == PrepareConfig(centre=(1, 2, 3), background=0.5)
    with pytest.raises(ConfigError, match="binning"):
        resolve(PrepareConfig, {"bining": "auto"})


def test_lengths_and_bins():
    assert [fast_length(limit) for limit in (3, 100, 101, 127, 201, 256)] == [2, 100, 100, 126, 200, 256]
    few = np.ones((8, 8, 8))
    assert choose_binning(few, (2.1, 5.9, 6.0)) == (1, 1, 2)
    assert choose_binning(few, (2.1, 5.9, 6.0), (True, True, False)) == (1, 1, 1)
    assert choose_binning(few, (8.9, 9.1, 30)) == (2, 3, 10)


@pytest.mark.parametrize("fault", ["none", "uneven pixels", "flickering flux"])
def test_bins_shrink_where_many_photons_show_what_they_average(fault):
    """Of a known crystal: the estimate is what bins miss of its pattern at their middles, whatever the detector does."""
    z, y, x = np.meshgrid(*[np.arange(64) - 32] * 3, indexing="ij")
    body = (abs(z) <= 4) & (abs(y) <= 8) & (abs(x + y / 2) <= 9)  # 9 of 64 voxels along z
    fine, between = (
        np.fft.fftshift(np.abs(np.fft.fftn(np.fft.ifftshift(body * np.exp(shift * 1j * np.pi * z / 64)))) ** 2) for shift in (0, -1)
    )  # between: half a voxel further along z, in the middle of the bins
    rng, size = np.random.default_rng(0), (7.1, 3.7, 3.3)
    gain = {"none": 1, "uneven pixels": 1 + 0.2 * rng.standard_normal((1, 64, 64)).clip(-3, 3),
            "flickering flux": 1 + 0.05 * rng.standard_normal((64, 1, 1))}[fault]  # fmt: skip
    for peak, bins in ((1e4, 2), (1e6, 1)):
        expected, middle = peak / fine.max() * fine, peak / fine.max() * between
        averaged = (expected + np.roll(expected, -1, axis=0)) / 2
        nearby = np.maximum(ndimage.gaussian_filter(expected, np.array(size) / 8), 0.5)
        counts = rng.poisson(expected * gain)
        assert averaged_misfit(counts, (2, 1, 1), size) == pytest.approx(((averaged - middle) ** 2 / nearby).mean(), rel=0.3)
        assert choose_binning(counts, size)[0] == bins


@pytest.fixture(scope="module")
def scan54():
    from braggshot.io.beamlines import aps_34idc

    folder = DATA / "aps-34idc-scan54"
    if not folder.exists():
        pytest.skip("measured data are not beside the checkout")
    return aps_34idc.read(folder / "example.spec", scan=54, dark=folder / "dark.tif", flat=folder / "whitefield.tif")


@pytest.mark.data
def test_scan_54(scan54):
    volume = prepare(scan54)
    assert volume.window.binning == (2, 1, 1)
    assert np.all(np.abs(np.subtract(position((99, 126, 127), volume), np.array(volume.shape) // 2)) <= 1)
    assert volume.oversampling == pytest.approx((7.5 / 2, 4.4, 3.5), rel=0.2)  # of a reconstruction
    assert np.prod(volume.shape) < 160 * 128 * 128
    assert volume.intensity.sum() > 0.95 * 46_155_653
    assert volume.intensity.max() == volume.intensity[tuple(size // 2 for size in volume.shape)]
    assert 2 * np.pi / np.linalg.norm(volume.q_bragg) == pytest.approx(2.3673e-10, rel=1e-3)


@pytest.mark.data
def test_scan_54_has_an_alien(scan54):
    volume = prepare(scan54, PrepareConfig(shape=(196, 160, 144), binning=(1, 1, 1), centre=(99, 126, 127)))
    assert any("1 aliens masked at (16" in step for step in volume.steps)
    assert not volume.valid[position((165, 62, 105), volume)]
    assert volume.valid.mean() > 0.98


@pytest.mark.data
def test_the_argonne_crystal_keeps_its_grid_and_loses_the_edited_block():
    path = DATA / "argonne-crystal-64" / "ft_crop_64.tif"
    if not path.exists():
        pytest.skip("measured data are not beside the checkout")
    import tifffile

    frames = tifffile.imread(path)
    volume = prepare(Scan(frames, "argonne"))
    assert np.array_equal(volume.intensity, frames)
    block = (slice(2, 9), slice(5, 14), slice(30, 37))
    assert not volume.valid[block][frames[block] == 0].any()
    assert (~volume.valid).sum() < 1000
    assert frames[~volume.valid].max() == 0
