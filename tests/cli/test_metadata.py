"""The everyday flags are settings under another name and unit."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import run

from braggshot.cli.metadata import FLAGS, as_settings, parse_hkl
from braggshot.cli.settings import list_all
from braggshot.errors import ConfigError


def test_every_flag_stands_for_a_setting_that_is_there():
    known = {setting.name for part in list_all() for setting in part.table.settings}
    assert {flag.setting for flag in FLAGS.values()} <= known


def test_units_are_converted():
    table = as_settings({"energy_kev": 9.0, "lattice": "4.078", "hkl": "1,-1,1", "distance_m": 0.5, "scan": "54", "dark": None})
    assert table == {
        "input": {"energy_ev": 9000.0, "distance_m": 0.5, "scan": 54},
        "strain": {"lattice": [pytest.approx(4.078e-10)], "reflection": [1, -1, 1]},
    }


@pytest.mark.parametrize("text", ["1,1,-1", "[1, 1, -1]", "1 1 -1", "(1,1,-1)"])
def test_a_reflection_is_read_as_people_write_it(text):
    assert parse_hkl(text) == [1, 1, -1]


def test_three_digits_are_a_reflection():
    assert parse_hkl("200") == [2, 0, 0]


@pytest.mark.parametrize("text", ["1,1", "one", "1.5,0,0", "1111"])
def test_what_is_no_reflection_is_refused(text):
    with pytest.raises(ConfigError):
        parse_hkl(text)


def test_a_mask_and_a_flat_reach_the_scan_of_any_format(tmp_path, scan, counts, capsys):
    mask = np.zeros(counts.shape[1:], np.uint8)
    mask[0] = 1
    np.save(tmp_path / "mask.npy", mask)
    np.save(tmp_path / "flat.npy", np.ones(counts.shape[1:]))
    assert run("info", scan, "--mask", tmp_path / "mask.npy", "--flat", tmp_path / "flat.npy", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["flat"]
    assert facts["masked_share"] == pytest.approx(1 / counts.shape[1])


def test_an_energy_without_a_geometry_is_refused_and_not_dropped(scan, capsys):
    assert run("info", scan, "--energy-kev", "9") == 1
    assert "energy_ev cannot place the detector" in capsys.readouterr().err


def test_an_option_overrules_a_flag(scan, capsys, tmp_path):
    assert run("reconstruct", scan, "-o", tmp_path / "out", "--hkl", "1,1,1", "--set", "strain.reflection=0,0,0") == 1
    assert "(0, 0, 0) is no reflection" in capsys.readouterr().err
