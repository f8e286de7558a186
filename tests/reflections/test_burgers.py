"""Burgers vectors from whole numbers: every vector of a lattice comes back, also where one reflection is wrong."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from braggshot.physics.lattice import Lattice
from braggshot.reflections.burgers import burgers, edges_of, name_of, slips
from braggshot.reflections.combine import Common

CUBIC = Lattice((4e-10, 4e-10, 4e-10), (np.pi / 2,) * 3)
PLANES = np.array([[1, 1, 1], [-1, 1, 1], [1, -1, 1], [2, 0, 0], [0, 2, 2]])
HALF = Fraction(1, 2)


@pytest.mark.parametrize("wanted", [(HALF, -HALF, 0), (0, HALF, HALF), (-HALF, -HALF, 0), (1, 0, 0), (HALF, HALF, HALF)])
@pytest.mark.parametrize("number", [3, 4, 5])
def test_three_reflections_tell_the_vector(wanted, number):
    planes = PLANES[:number]
    turns = [round(float(plane @ np.array(wanted, float))) for plane in planes]
    if not np.allclose(planes @ np.array(wanted, float), turns):
        pytest.skip("no lattice vector of a lattice with these reflections")
    found, explained = burgers(planes, turns, [1.0] * number, CUBIC)
    assert found == tuple(map(Fraction, wanted))
    assert explained == number


def test_one_wrong_turn_is_outvoted():
    turns = [0, -1, 1, 1, -1]  # 1/2 [1 -1 0]
    assert burgers(PLANES, turns, [1.0] * 5, CUBIC) == ((HALF, -HALF, Fraction(0)), 5)
    assert burgers(PLANES, [0, -1, 1, 1, 0], [1, 1, 1, 1, 0.6], CUBIC) == ((HALF, -HALF, Fraction(0)), 4)


def test_names_and_edges():
    assert name_of((HALF, -HALF, Fraction(0))) == "1/2 [1 -1 0]"
    assert name_of((Fraction(1), Fraction(0), Fraction(0))) == "[1 0 0]"
    assert name_of((Fraction(1, 6), Fraction(1, 6), Fraction(-1, 3))) == "1/6 [1 1 -2]"
    assert np.allclose(edges_of(CUBIC), 4e-10 * np.eye(3)[::-1])


def dislocated(character: str) -> tuple[Common, list]:
    """Fields of three reflections of a ball with a line along z of the crystal, b = 1/2 [1 1 0] or [0 0 1] of a cubic cell."""
    hkls = [(1, 1, 1), (-1, 1, 1), (0, 2, 0)] if character == "edge" else [(1, 1, 1), (0, 1, 1), (1, 0, 2)]
    b = np.array([0.5, 0.5, 0.0]) if character == "edge" else np.array([0.0, 0.0, 1.0])
    z, y, x = np.indices((40,) * 3) - 20
    radius = np.sqrt(z**2 + y**2 + x**2)
    theta = np.arctan2(y + 0.3, x - 1.4)  # right-handed about +z
    fields = []
    for hkl in hkls:
        turns = round(float(np.dot(hkl, b)))
        core = np.tanh(np.hypot(y + 0.3, x - 1.4) / 1.5) ** abs(turns)
        fields.append(core * np.exp(-1j * turns * theta) / (1 + np.exp((radius - 13) / 0.4)))
    return Common(np.stack(fields), 5e-9, (False,) * 3, (1.0,) * 3, 0.0), hkls


@pytest.mark.parametrize(("character", "name"), [("edge", "1/2 [1 1 0]"), ("screw", "[0 0 1]")])
def test_a_line_gets_its_vector_and_character(character, name):
    common, hkls = dislocated(character)
    (slip,) = slips(common, [True] * 3, hkls, CUBIC)
    sign = np.sign(slip.points[-1, 0] - slip.points[0, 0])  # b changes its sign with the direction of the line
    assert name_of(tuple(part * int(sign) for part in slip.indices)) == name
    assert slip.character == character
    assert slip.explained == 3
    assert min(slip.agreed) > 0.9


def test_two_reflections_leave_the_vector_open():
    common, hkls = dislocated("edge")
    (slip,) = slips(common, [True, True, False], hkls, CUBIC)
    assert slip.vector is None
    assert len(slip.turns) == 2
