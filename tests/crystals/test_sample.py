"""Random crystals: reproducible, sampled as asked, centred, in photons."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from braggshot.crystals.sample import PHASES, CrystalSettings, centre_pattern, random_crystals, random_volumes, simulate_volume
from braggshot.crystals.shapes import SHAPES
from braggshot.errors import ConfigError
from braggshot.physics.fourier import fourier, pad

SMALL = CrystalSettings(shape=(32, 36, 30), oversampling=(2.0, 4.0), counts=(1e3, 1e5))


def crystals(settings=SMALL, n=24, seed=0):
    return random_crystals(torch.Generator().manual_seed(seed), n, settings)


def widths(rho):
    inside = rho.abs() > rho.abs().amax((1, 2, 3), keepdim=True) / 2
    return torch.stack([inside.any(b).any(a).sum(1) for a, b in ((1, 2), (1, 3), (2, 3))][::-1], dim=1)


def test_the_same_seed_gives_the_same_crystal():
    rho, volume = simulate_volume(5, SMALL)
    again, same = simulate_volume(5, SMALL)
    other, _ = simulate_volume(6, SMALL)
    np.testing.assert_array_equal(rho, again)
    np.testing.assert_array_equal(volume.intensity, same.intensity)
    assert abs(rho - other).max() > 0.1 * abs(rho).max()
    assert rho.dtype == np.complex64
    assert rho.shape == volume.shape == SMALL.shape
    assert volume.provenance["seed"] == 5


def test_oversampling_is_that_of_the_finished_crystal():
    size = torch.tensor(SMALL.shape)
    measured = size / widths(crystals())
    assert measured.min() >= 1.9  # a voxel more on one side than the extent
    assert measured.max() <= 4 * 1.35
    assert (measured.amax(1) / measured.amin(1)).max() < 2 * 1.3
    assert (measured.amax(1) / measured.amin(1)).max() > 1.4


def test_every_family_makes_a_crystal_inside_its_box():
    for shape in SHAPES:
        rho = crystals(CrystalSettings(shape=(24, 24, 24), oversampling=(2, 2), shapes=(shape,)), n=4)
        edge = torch.cat([rho[:, :4].flatten(1), rho[:, :, :4].flatten(1), rho[..., -3:].flatten(1), rho[:, -3:].flatten(1)], 1)
        assert not edge.abs().any(), shape
        assert torch.isfinite(rho.abs()).all()
    for phase in PHASES:
        rho = crystals(CrystalSettings(shape=(24, 24, 24), oversampling=(2, 3), displacements=(phase,)), n=4)
        assert torch.isfinite(rho.abs()).all()
        assert rho.angle().std() > 0.05, phase


def test_brightest_voxel_and_expected_counts():
    peak = fourier(crystals()).abs().square().amax((1, 2, 3))
    assert peak.min() >= 1e3 * 0.999
    assert peak.max() <= 1e5 * 1.001
    rho, volume = simulate_volume(3, SMALL)
    expected = fourier(torch.from_numpy(rho)).abs().square().numpy()
    bright = expected > 20
    assert np.mean((volume.intensity - expected)[bright] ** 2 / expected[bright]) == pytest.approx(1, abs=0.2)


def test_volumes_are_the_counts_of_the_same_crystals():
    settings = CrystalSettings(shape=(30, 33, 36), oversampling=(2.0, 3.0), counts=(1e6, 1e6))
    rho, counts, valid = random_volumes(torch.Generator().manual_seed(2), 3, settings)
    torch.testing.assert_close(rho, crystals(settings, n=3, seed=2))
    expected = fourier(rho).abs().square()
    bright = expected > 20
    assert valid.all()
    assert ((counts - expected)[bright] ** 2 / expected[bright]).mean().item() == pytest.approx(1, abs=0.05)


def test_a_field_that_turns_too_fast_is_drawn_anew():
    settings = CrystalSettings(shape=(48, 48, 48), oversampling=(2.0, 2.5), phase_range=(12.0, 12.0), steepest=2.0)

    def reached(redraws):
        volumes = (simulate_volume(seed, replace(settings, redraws=redraws))[1] for seed in range(8))
        return np.mean([volume.provenance["phase_range"] for volume in volumes])

    assert reached(6) > reached(0) + 0.5
    assert reached(6) < 12.0 + 2 * np.pi  # a dislocation adds its turn


def test_the_phase_range_that_came_out_is_told():
    settings = CrystalSettings(shape=(32, 32, 32), phase_range=(2.0, 2.0), oversampling=(2, 3), displacements=("bending",))
    assert simulate_volume(0, settings)[1].provenance["phase_range"] == pytest.approx(2, abs=1e-3)


def test_the_pattern_is_centred_within_the_tilt():
    pattern = fourier(crystals()).abs().square()
    for axis, size in enumerate(SMALL.shape, start=1):
        angle = 2 * torch.pi * (torch.arange(size) - size // 2) / size
        profile = pattern.sum([a for a in (1, 2, 3) if a != axis])
        centre = torch.atan2((profile * angle.sin()).sum(1), (profile * angle.cos()).sum(1)) * size / (2 * torch.pi)
        assert centre.abs().max() <= 0.51
        assert centre.std() > 0.15


def test_the_ramp_moves_the_pattern_the_right_way():
    box = torch.zeros(1, 9, 9, 9, dtype=torch.complex64)
    box[:, 2:7, 2:7, 2:7] = 1
    rho = pad(centre_pattern(box, (20, 20, 21), torch.tensor([[3.0, -2.0, 1.0]])), (20, 20, 21))
    brightest = np.unravel_index(int(fourier(rho).abs().argmax()), (20, 20, 21))
    assert brightest == (13, 8, 11)


def test_zero_phase_range_is_a_perfect_crystal():
    settings = CrystalSettings(shape=(32, 32, 32), oversampling=(2, 3), phase_range=(0, 0), displacements=("bending",), tilt=0.0)
    rho = crystals(settings, n=3)
    inside = rho.abs() > 0
    assert rho.angle()[inside].abs().max() < 1e-3


def test_a_volume_behind_a_gap_is_marked():
    from braggshot.crystals.detector import DetectorSettings

    settings = CrystalSettings(shape=(32, 32, 32), oversampling=(2, 3), detector=DetectorSettings(gaps=1.0, gap_widths=(3,)))
    _, volume = simulate_volume(1, settings)
    assert 0.7 < volume.valid.mean() < 0.95
    assert not volume.intensity[~volume.valid].any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shapes": ("cube",)}, "cube"),
        ({"displacements": ()}, "none"),
        ({"phase_range": (2.0, 1.0)}, "phase_range"),
        ({"oversampling": (2.0, 20.0)}, "four voxels"),
    ],
)
def test_settings_that_make_no_crystal_are_refused(change, words):
    with pytest.raises(ConfigError, match=words):
        CrystalSettings(**change)
