"""Evaluation: crystals that come back the same, rows that are made once, failures that count, numbers that are right."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.errors import ConfigError, DataError, FormatError
from braggshot.evaluation import methods, rows, suites, table
from braggshot.evaluation.methods import METHODS, Choice, phasing_of
from braggshot.evaluation.suites import FIRST_SEED, SUITES
from braggshot.io.formats import cxi
from braggshot.iterative.algorithms import find_step
from braggshot.iterative.iterate import IterativeConfig
from braggshot.iterative.recipe import parse_recipe
from braggshot.nn import weights
from braggshot.nn.network import NetworkConfig
from braggshot.phasing.config import PhasingConfig
from braggshot.prepare import PrepareConfig, prepare
from braggshot.volumes import Scan

SMALL = CrystalSettings(shape=(16, 16, 16), oversampling=(2, 2.5), counts=(1e4, 1e4), phase_range=(0, 1))


@pytest.fixture
def quick(monkeypatch):
    """Methods and a suite that take no time; ``quick`` needs no network."""
    for name in reversed(list(METHODS)):  # undone the other way round, so their order comes back
        monkeypatch.delitem(METHODS, name)
    short = IterativeConfig(recipe="12*HIO+8*ER")
    monkeypatch.setitem(METHODS, "quick", {"method": "iterative", "starts": 1, "refine": short})
    monkeypatch.setitem(METHODS, "network", {"method": "refine", "hypotheses": 1, "refine": short})
    monkeypatch.setitem(SUITES, "tiny", suites.Suite("tiny ones", {"one": SMALL, "two": replace(SMALL, counts=(1e6, 1e6))}))


def network(path, seed=0):
    import torch

    torch.manual_seed(seed)
    made = weights.build_network("flagship", NetworkConfig(channels=(8, 8), steps=1))
    weights.save_network(path, made, weights.Card("tiny", *weights.kind_of(made)))
    return str(path)


def results(folder):
    return json.loads((folder / "results.json").read_text())


def finish(running):
    return [report.row for report in running]


@pytest.mark.parametrize("name", [name for name, suite in SUITES.items() if suite.groups])
def test_suites_come_back_the_same(name):
    crystals = list(suites.crystals(name, 2))
    assert len({crystal.name for crystal in crystals}) == len(crystals) == 2 * len(SUITES[name].groups)
    assert [crystal.group for crystal in crystals[: len(SUITES[name].groups)]] == list(SUITES[name].groups)


def test_a_crystal_is_its_number_and_its_sampling_is_measured(quick):
    first, second, *_ = suites.crystals("tiny", 1)
    (truth, volume), (again, _), (brighter, _) = first.draw(), first.draw(), second.draw()
    assert np.array_equal(truth, again)
    np.testing.assert_allclose(np.abs(brighter), 10 * np.abs(truth), rtol=1e-4, atol=1e-4)
    known = simulate_volume(FIRST_SEED, SMALL)[1]
    assert np.array_equal(known.intensity, volume.intensity)
    assert known.oversampling != volume.oversampling
    assert FIRST_SEED % 131


def test_rows_are_made_once(quick, tmp_path):
    made = finish(rows.evaluate(tmp_path, ["tiny"], ["quick"], number=1))
    assert [row["crystal"] for row in made] == ["one #0", "two #0"]
    assert results(tmp_path) == made
    assert finish(rows.evaluate(tmp_path, ["tiny"], ["quick"], number=1)) == []
    more = finish(rows.evaluate(tmp_path, ["tiny"], ["quick"], number=2))
    assert [row["crystal"] for row in more] == ["one #1", "two #1"]
    assert len(results(tmp_path)) == 4
    row = made[1]
    assert 0 < row["correlation"] <= 1
    assert row["success"] == (row["correlation"] >= 0.95)
    assert row["chi2_floor"] < row["chi2"]
    assert row["seconds"] > 0
    assert row["network"] == ""
    assert len(row["iou"]) == 10


def test_another_network_is_another_row(quick, tmp_path):
    choice = Choice(network=network(tmp_path / "net.safetensors"))
    one = finish(rows.evaluate(tmp_path, ["tiny"], ["network"], choice, 1))
    assert finish(rows.evaluate(tmp_path, ["tiny"], ["network"], choice, 1)) == []
    network(tmp_path / "net.safetensors", seed=1)
    other = finish(rows.evaluate(tmp_path, ["tiny"], ["network"], choice, 1))
    assert one[0]["network"] != other[0]["network"]
    assert one[0]["network"].startswith("net:")
    assert results(tmp_path) == other  # the older rows have given way


@pytest.mark.parametrize(
    ("shape", "binning"),
    [((40, 60, 64), (2, 1, 1)), ((64, 64, 64), (1, 1, 1)), ((32, 64, 60), (3, 1, 1)), ((45, 50, 31), (2, 1, 2))],
)
def test_the_truth_is_brought_to_the_grid_of_a_cropped_and_binned_pattern(shape, binning):
    settings = CrystalSettings(shape=(96, 64, 64), oversampling=(2.5, 8), anisotropy=3, counts=(1e9, 1e9), phase_range=(2, 2))
    truth, pattern = simulate_volume(5, settings)
    volume = prepare(Scan(pattern.intensity, "s"), PrepareConfig(shape=shape, binning=binning))
    seen = np.abs(np.fft.fftn(rows.on_window(truth, volume)))
    wanted = np.sqrt(np.fft.ifftshift(volume.intensity))
    valid = np.fft.ifftshift(volume.valid)
    assert np.corrcoef(seen[valid], wanted[valid])[0, 1] > 0.999


def test_failures_are_kept(quick, tmp_path, monkeypatch):
    def broken(*_):
        raise DataError("no peak")
        yield

    monkeypatch.setattr(rows, "prepare_and_phase", broken)
    made = finish(rows.evaluate(tmp_path, ["tiny"], ["quick"], number=1))
    assert [(row["success"], row["correlation"], row["error"]) for row in made] == [(False, 0.0, "DataError: no peak")] * 2
    text = table.markdown(made)
    assert "- tiny, one #0, quick: DataError: no peak" in text
    assert "| one | quick | 1 | 0 [0, 79] | 0.000 [0.000, 0.000] | - (" in text


def test_files_with_a_truth_are_crystals_too(tmp_path):
    truth, volume = simulate_volume(5, SMALL)
    cxi.write_data(tmp_path / "a.cxi", volume, truth)
    cxi.write_data(tmp_path / "b.cxi", volume)
    first, second = suites.crystals("atomistic", 5, tmp_path)
    found, read = first.draw()
    np.testing.assert_array_equal(found, truth)
    np.testing.assert_array_equal(read.intensity, volume.intensity)
    with pytest.raises(DataError, match="no truth"):
        second.draw()
    with pytest.raises(ConfigError, match="no CXI files"):
        list(suites.crystals("atomistic", 5, tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="--data"):
        suites.crystals("atomistic", 5)


def test_methods_are_what_they_say():
    assert phasing_of("iterative-20", Choice(), True).starts == 20
    assert phasing_of("iterative-5", Choice(), True).partial_coherence == "off"
    assert phasing_of("auto", Choice(seed=3), False) == PhasingConfig(seed=3)
    assert phasing_of("autophasenn+ER50", Choice(published="x"), True).refine.recipe == "50*ER"
    assert phasing_of("autophasenn", Choice(published="x"), True).network == "x"
    counts = {"refine+10": 10, "refine": 70, "refine+300": 300}
    for name, count in counts.items():
        config = phasing_of(name, Choice(), True)
        assert sum(find_step(step)[1] for step in parse_recipe(config.refine.recipe)) == count
    assert "FLAT" not in parse_recipe(phasing_of("classic-5", Choice(), True).iterative.recipe)
    with pytest.raises(ConfigError, match="--published"):
        phasing_of("autophasenn", Choice(), True)
    with pytest.raises(ConfigError, match="no method 'x'"):
        phasing_of("x", Choice(), True)
    assert not any(methods.is_published(name) for name in methods.default_methods(Choice()))


def test_intervals():
    """Wilson's for 0 and 10 of 10, by his formula z^2 / (n + z^2); a median whose bootstrap holds it."""
    none, all_, some = (table.wilson_interval(n, 10) for n in (0, 10, 3))
    assert (none.value, none.low, all_.value, all_.high) == (0, 0, 1, 1)
    z = 1.959964  # of 95 %
    assert none.high == pytest.approx(z**2 / (10 + z**2))
    assert all_.low == pytest.approx(1 - none.high)
    half = z * math.sqrt(0.3 * 0.7 / 10 + z**2 / 400) / (1 + z**2 / 10)
    assert (some.high - some.low) / 2 == pytest.approx(half)
    assert (some.high + some.low) / 2 == pytest.approx((0.3 + z**2 / 20) / (1 + z**2 / 10))
    sample = np.random.default_rng(1).normal(size=201)
    found = table.median(sample)
    assert found.value == np.median(sample)
    # Standard error of a median of normal numbers: sqrt(pi / (2 n)).
    assert found.high - found.low == pytest.approx(2 * 1.96 * math.sqrt(math.pi / 2 / 201), rel=0.5)
    assert table.median(sample) == found
    assert math.isnan(table.median([]).value)


def test_blends_are_failures():
    assert table.is_blend({"success": False, "blend": 0.9})
    assert not table.is_blend({"success": True, "blend": 0.9})
    assert not table.is_blend({"success": False, "error": "no peak"})


def test_a_damaged_file_is_refused(tmp_path):
    for text in ("[{", "[1]", '[{"suite": 1}]'):
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(FormatError, match="no list of results"):
            rows.read(tmp_path / "results.json")
