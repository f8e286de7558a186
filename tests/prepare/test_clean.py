"""Artefacts are found, and what a crystal scatters is left alone."""

from functools import cache

import numpy as np
import pytest
from measured_data import DATA

from braggshot.errors import ConfigError, DataError
from braggshot.prepare.aliens import find_aliens
from braggshot.prepare.clean import dark_offset, find_dead_pixels, find_hot_pixels, find_missing_blocks, find_zingers, flat_response
from braggshot.prepare.detectors import DETECTORS, find_gaps

SHAPE = (56, 60, 64)
OVERSAMPLING = (2.8, 3.3, 4.0)


@cache
def expected(kind="facets", strain=0.0, oversampling=OVERSAMPLING, shape=SHAPE):
    """Intensity of a crystal with its maximum, 1, at N // 2; cropped from one twice as wide, so that nothing wraps."""
    grid = np.meshgrid(*[np.arange(-size, size) for size in shape], indexing="ij")
    z, y, x = (axis * over / size for axis, over, size in zip(grid, oversampling, shape, strict=True))  # +-1 at its ends
    body = np.maximum.reduce(np.abs([z, y, x]))
    if kind == "facets":
        body = np.maximum.reduce([body, np.abs(z + y + x) / 1.6, np.abs(z - y + 0.6 * x) / 1.5, y + 0.4 * z + 0.3])
    phase = strain * (np.sin(1.8 * z + 0.4) * np.cos(1.3 * y) + 0.4 * x**2)
    field = np.fft.fftshift(np.fft.fftn((body <= 1) * np.exp(1j * phase)))
    intensity = np.abs(field) ** 2
    peak = np.unravel_index(intensity.argmax(), intensity.shape)
    intensity = intensity[tuple(slice(c - size // 2, c - size // 2 + size) for c, size in zip(peak, shape, strict=True))]
    return intensity / intensity.max()


def measured(counts, background=0.01, seed=0, **crystal):
    return np.random.default_rng(seed).poisson(counts * expected(**crystal) + background).astype(np.float32)


def groups(counts):
    return [part.sum(0) for part in np.array_split(counts, 8)]


CRYSTALS = [
    {},
    {"strain": 4.0},
    {"kind": "box", "oversampling": (4.0, 3.0, 3.0)},  # fringes are single voxels between planes of zeros
    {"kind": "box", "oversampling": (2.0, 2.0, 2.0)},
]
ALL = np.ones(SHAPE, dtype=bool)


@pytest.mark.parametrize("crystal", CRYSTALS)
@pytest.mark.parametrize("counts", [3e1, 1e3, 1e5, 1e7])
def test_a_crystal_is_no_artefact(crystal, counts):
    volume = measured(counts, **crystal)
    total = volume.sum(0)
    assert not find_hot_pixels(groups(volume), ALL[0]).any()
    assert not find_dead_pixels(total, ALL[0]).any()
    assert not find_zingers(volume, ALL).any()
    assert not find_missing_blocks(total, ALL[0]).any()
    assert not find_missing_blocks(volume, ALL).any()
    assert not find_aliens(volume, ALL, crystal.get("oversampling", OVERSAMPLING))[1]


def test_flat_field():
    flat = np.random.default_rng(0).uniform(900, 1100, (40, 40))
    flat[3, 4], flat[5, 6], flat[7, 8], flat[9, 9] = 0, 500, np.nan, 1e6
    good = np.ones(flat.shape, dtype=bool)
    good[9, 9] = False  # a bad pixel must not shift the mean
    response, dark = flat_response(flat, good)
    assert {(3, 4), (5, 6), (7, 8)} == set(map(tuple, np.argwhere(dark).tolist()))
    assert response[good & ~dark].mean() == pytest.approx(1, abs=1e-5)
    assert response[10, 10] == pytest.approx(flat[10, 10] / flat[good & ~dark].mean(), rel=1e-5)
    with pytest.raises(DataError, match="flat"):
        flat_response(np.zeros((4, 4)), np.ones((4, 4), dtype=bool))


def test_dark_of_a_counting_detector_is_a_map_of_hot_pixels():
    dark = np.zeros((30, 30))
    dark[2, 3], dark[4, 5], dark[6, 7] = 100, 1, np.nan
    offset, hot = dark_offset(dark, np.ones(dark.shape, dtype=bool))
    assert offset is None
    assert {(2, 3), (6, 7)} == set(map(tuple, np.argwhere(hot).tolist()))  # above 1 is hot, 1 is not


def test_dark_of_an_integrating_detector_is_its_offset():
    dark = np.random.default_rng(0).normal(120, 3, (60, 60))
    dark[2, 3] = 200
    offset, hot = dark_offset(dark, np.ones(dark.shape, dtype=bool))
    assert offset is not None
    assert offset[10, 10] == pytest.approx(dark[10, 10])
    assert np.argwhere(hot).tolist() == [[2, 3]]


def test_hot_pixels_stay_hot_and_come_in_clusters():
    volume = measured(1e5)
    hot = [(5, 7), (40, 50), (40, 51), (41, 50), (20, 20)]
    for row, column in hot:
        volume[:, row, column] += np.random.default_rng(row).poisson(300, SHAPE[0])
    assert set(map(tuple, np.argwhere(find_hot_pixels(groups(volume), ALL[0])).tolist())) == set(hot)


def test_a_pixel_that_lights_up_for_a_while_is_not_hot():
    volume = measured(1e4)
    volume[10:24, 5, 7] += 300
    assert not find_hot_pixels(groups(volume), ALL[0]).any()


def test_dead_pixels():
    volume = measured(1e6)
    volume[:, 31, 33] = 0
    volume[:, :6, :6] = 0
    volume[::9, :6, :6] = 1
    volume[:, 3, 3] = 0  # nobody can tell: its neighbours count next to nothing too
    assert np.argwhere(find_dead_pixels(volume.sum(0), ALL[0])).tolist() == [[31, 33]]


def test_zingers():
    volume = measured(1e5)
    hits = [(10, 10, 10), (30, 50, 8), (30, 50, 9), (30, 51, 9), (31, 50, 8)]
    for voxel in hits:
        volume[voxel] = 2000
    assert set(map(tuple, np.argwhere(find_zingers(volume, ALL)).tolist())) == set(hits)


def test_a_block_cut_out_of_the_pattern_is_missing():
    volume = measured(1e6)
    volume[28:36, 14:19, 30:40] = 0
    found = find_missing_blocks(volume, ALL)
    assert found[28:36, 14:19, 30:40].all()
    assert found.sum() < 1.2 * 8 * 5 * 10


def test_darkness_and_thresholds_are_not_missing():
    volume = measured(1e4, background=0.0)
    assert (volume == 0).mean() > 0.5
    assert not find_missing_blocks(volume, ALL).any()
    volume = measured(1e6)
    assert not find_missing_blocks(np.where(volume < 10, 0, volume), ALL).any()


def test_a_gap_that_nobody_mentioned_shows_in_the_sum_of_frames():
    volume = measured(1e6, background=0.2)
    volume[:, :, 40:46] = 0
    found = find_missing_blocks(volume.sum(0), ALL[0])
    assert found[:, 40:46].all()
    assert found.sum() == found[:, 40:46].sum()


def with_alien(strength, place, seed=0, **crystal):
    grid = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    distance = sum(((axis - c) / s) ** 2 for axis, c, s in zip(grid, place, (2.5, 2, 2), strict=True))
    own = measured(1e5, seed=seed, **crystal)
    return own, own + np.random.default_rng(seed + 1).poisson(strength * np.exp(-distance / 2)).astype(np.float32)


@pytest.mark.parametrize("strain", [0.0, 3.0])
@pytest.mark.parametrize("strength", [100, 1e3, 3e4])
def test_aliens_are_masked_and_little_else(strength, strain):
    place = (38, 12, 17)
    own, volume = with_alien(strength, place, strain=strain)
    mask, centres = find_aliens(volume, ALL, OVERSAMPLING)
    assert len(centres) == 1
    assert np.all(np.abs(np.subtract(centres[0], place)) <= 2)
    foreign = volume - own
    assert foreign[mask].sum() > 0.97 * foreign.sum()
    assert mask.mean() < 0.05
    assert own[mask].sum() < 2e-3 * own.sum()


def test_an_alien_opposite_a_gap_is_left():
    """Without the opposite side nobody can tell."""
    _, volume = with_alien(1e3, (38, 12, 17))
    valid = ALL.copy()
    valid[10:26, 40:56, 40:56] = False
    volume[~valid] = 0
    assert find_aliens(volume, valid, OVERSAMPLING)[0][38, 12, 17] or not find_aliens(volume, valid, OVERSAMPLING)[1]


def test_a_streak_across_a_gap_is_no_alien():
    volume, valid = measured(1e6, kind="box"), ALL.copy()
    valid[:, :, 40:50] = False
    assert not find_aliens(np.where(valid, volume, 0), valid, OVERSAMPLING)[1]


def test_two_equal_blobs_on_opposite_sides_are_fringes():
    _, one = with_alien(1e3, (38, 12, 17))
    own, other = with_alien(1e3, tuple(2 * (n // 2) - c for n, c in zip(SHAPE, (38, 12, 17), strict=True)))
    assert not find_aliens(one + other - own, ALL, OVERSAMPLING)[1]


@pytest.mark.parametrize("name", DETECTORS)
def test_gaps_are_where_pyfai_has_them(name):
    detectors = pytest.importorskip("pyFAI.detectors").ALL_DETECTORS
    detector = detectors.get(name)
    mine = find_gaps(name, DETECTORS[name][0][0])
    assert mine is not None
    if detector is None or detector().calc_mask() is None or detector().shape != mine.shape:
        pytest.skip(f"pyFAI has no {name} of this shape")
    theirs = detector().calc_mask() != 0
    edges = 2 * 2 * mine.shape[0] if name.startswith("lambda250") else 0  # wide pixels, which pyFAI keeps
    assert mine[theirs].all()
    assert (mine & ~theirs).sum() <= edges


def test_gaps_of_other_shapes_and_names():
    assert find_gaps("maxipix", (100, 100)) is None
    two_megapixels = find_gaps("Eiger2M", (2164, 1030))
    assert two_megapixels is not None
    assert two_megapixels[[255, 258, 511, 551]].all()
    assert not two_megapixels[[254, 259, 510, 552]].all(1).any()
    with pytest.raises(ConfigError, match="maxipix"):
        find_gaps("maxipics", (516, 516))


@pytest.mark.data
@pytest.mark.parametrize(("file", "name"), [("id01_maxipix_mask", "maxipix"), ("nanomax_merlin_mask", "merlin")])
def test_gaps_of_measured_masks(file, name):
    path = DATA / "detector-masks" / f"{file}.npy"
    if not path.exists():
        pytest.skip("measured data are not beside the checkout")
    measured_mask = np.load(path) != 0
    found = find_gaps(name, measured_mask.shape)
    assert found is not None
    assert measured_mask[found].all()  # what remains of the mask are single bad pixels
    assert (measured_mask & ~found).mean() < 1e-3
