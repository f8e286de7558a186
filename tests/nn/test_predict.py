"""Whether answers are one crystal: the same or its twin, wherever it lies; another crystal is not."""

from __future__ import annotations

import pytest
import torch

from braggshot.crystals.sample import CrystalSettings, random_crystals
from braggshot.nn.predict import SAME, is_one_crystal
from braggshot.physics.fourier import crop, inverted

SETTINGS = CrystalSettings(shape=(32, 32, 32), oversampling=(2.4, 3.0), phase_range=(4.0, 6.0))


@pytest.fixture(scope="module")
def crystals():
    """Two different crystals in their boxes."""
    return crop(random_crystals(torch.Generator().manual_seed(7), 2, SETTINGS), (16, 16, 16))


def twin(rho):
    return inverted(rho).conj().resolve_conj()


def moved(rho, shift, phase=0.0, scale=1.0):
    return rho.roll(shift, dims=(0, 1, 2)) * torch.polar(torch.tensor(scale), torch.tensor(phase))


def test_the_same_crystal_elsewhere_with_another_phase_and_scale(crystals):
    rho = crystals[0]
    assert is_one_crystal(torch.stack([rho, moved(rho, (1, -1, 1), 2.0, 3.0), moved(rho, (0, 1, 0), -1.0)]))


def test_its_twin(crystals):
    rho = crystals[0]
    likeness = (rho.conj() * twin(rho[None])[0]).sum().abs() / rho.abs().square().sum()
    assert likeness < SAME  # a twin that is the same object would show nothing
    assert is_one_crystal(torch.stack([rho, twin(rho[None])[0], moved(twin(rho[None])[0], (1, 0, -1), 1.0)]))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_another_crystal_among_them(crystals, place):
    rho, other = crystals
    answers = [rho, moved(rho, (0, 0, 1)), twin(rho[None])[0]]
    answers[place] = other
    assert not is_one_crystal(torch.stack(answers))


def test_the_same_shape_with_another_phase(crystals):
    rho = crystals[0]
    assert not is_one_crystal(torch.stack([rho, rho.abs().to(rho.dtype)]))


def test_a_blend_of_both_twins(crystals):
    """A mean of a crystal and its twin is neither."""
    rho = crystals[0]
    assert not is_one_crystal(torch.stack([rho, rho + twin(rho[None])[0]]))
