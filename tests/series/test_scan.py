"""A series as a process that is killed, and warm starts where the pattern is blurred by partial coherence."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from braggshot import cli, series
from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.io import results
from braggshot.io.atomic import sweep
from braggshot.io.formats import cxi
from braggshot.physics.forward import intensity
from braggshot.report import series as report
from braggshot.series import table
from braggshot.series.sources import list_sources

CRYSTAL = CrystalSettings(shape=(24, 26, 28), counts=(1e5, 1e5), displacements=("gaussians",), shapes=("fcc",))
PHASING = ("method=iterative", "starts=2", "partial_coherence=off", "device=cpu", "iterative.recipe=2*(20*HIO+20*RAAR+10*ER)+20*ER")
OPTIONS = ("series.movie=false", *(f"phasing.{option}" for option in PHASING))


def crystal(phases):
    return simulate_volume(3, replace(CRYSTAL, phase_range=(phases, phases)))


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    for number, phases in enumerate((1.0, 1.1, 1.2)):
        cxi.write_data(folder / f"s{number}.cxi", crystal(phases)[1])
    return sorted(folder.glob("*.cxi"))


def command(scans, folder):
    return ["series", *map(str, scans), "-o", str(folder), *(word for option in OPTIONS for word in ("--set", option))]


def start(scans, folder):
    words = [sys.executable, "-m", "braggshot", *command(scans, folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def killed_after(rows, running, folder):
    """SIGKILL once that many rows are on disk; the next scan is then being phased."""
    deadline = time.monotonic() + 240
    while len(table.read(folder / "series.csv")) < rows:
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    return running.returncode


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system knows no SIGKILL")
def test_a_killed_series_goes_on_where_it_was(scans, tmp_path, capsys):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    broken.mkdir()
    assert killed_after(1, start(scans, broken), broken) == -signal.SIGKILL
    kept = table.read(broken / "series.csv")
    assert 1 <= len(kept) < len(scans)
    assert not (broken / "series.html").exists()
    for row in kept:  # a row is there only when its crystal is
        assert results.read_strain(broken / f"{row['name']}.cxi") is None  # no geometry here; the file is whole
        assert results.read(broken / f"{row['name']}.cxi").support.any()
    written = {row["name"]: (broken / f"{row['name']}.cxi").stat().st_mtime_ns for row in kept}
    (broken / ".s2-0123abcd.cxi").write_bytes(b"half a file")  # what a kill in the midst of a write leaves

    assert cli.main(command(scans, broken)) == 0
    assert capsys.readouterr().out.count("(kept)") == len(kept)
    assert {name: (broken / f"{name}.cxi").stat().st_mtime_ns for name in written} == written
    assert cli.main(command(scans, whole)) == 0
    assert {path.name for path in broken.iterdir()} == {path.name for path in whole.iterdir()}
    rows, expected = table.read(broken / "series.csv"), table.read(whole / "series.csv")
    assert [row["name"] for row in rows] == ["s0", "s1", "s2"]
    assert [row["seconds"] for row in rows[: len(kept)]] == [row["seconds"] for row in kept]
    for row, other in zip(rows, expected, strict=True):
        assert row.keys() == other.keys()
        for name in row.keys() - {"seconds"}:
            assert row[name] == (pytest.approx(other[name], rel=1e-5) if isinstance(other[name], float) else other[name]), name


def test_only_left_overs_are_swept(tmp_path):
    stays = ["series.csv", ".braggshot-probe", ".hidden", ".s2-note.txt", "s2-0123abcd.cxi"]
    for name in [*stays, ".s2-0123abcd.cxi", ".series-89abcdef.csv"]:
        (tmp_path / name).touch()
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(stays)


# the table and its page


def rows_with(*resolutions, verdict="good"):
    kinds = {"prtf": "resolution_prtf_m", "edge": "resolution_edge_m"}
    made = []
    for number, known in enumerate(resolutions):
        own = next(iter(known), None)
        row = {"name": f"s{number}", "input": f"s{number}", "verdict": verdict, "reasons": "x", "chi2": 0.1, "time": None}
        row |= {kinds[name]: length for name, length in known.items()}
        made.append(row | {"resolution_m": known.get(own), "resolution_method": own})
    return made


def test_one_kind_of_resolution_for_all_rows_where_there_is_one():
    both, edge_only = {"prtf": 3e-8, "edge": 2e-8}, {"edge": 1e-8}
    same = table.unify_resolution(rows_with(both, edge_only))
    assert [(row["resolution_method"], row["resolution_m"]) for row in same] == [("edge", 2e-8), ("edge", 1e-8)]
    failed = rows_with(edge_only, verdict="failed")
    kept = table.unify_resolution([*rows_with(both), *failed])
    assert [row["resolution_method"] for row in kept] == ["prtf", "edge"]  # a failed scan decides nothing
    mixed = table.unify_resolution(rows_with({"prtf": 3e-8}, edge_only))
    assert [row["resolution_method"] for row in mixed] == ["prtf", "edge"]
    text = report.page(Path(), mixed, np.arange(2.0), "scan", None, b"")
    assert "not of one kind" in text
    assert "10 to 90 %" in report.page(Path(), same, np.arange(2.0), "scan", None, b"")


def test_a_series_that_failed_has_its_page(recwarn):
    rows = rows_with({"edge": 1e-8}, verdict="failed")
    report.curves(rows, np.zeros(1), "scan").savefig(io.BytesIO())
    text = report.page(Path(), rows, np.zeros(1), "scan", None, b"")
    assert "Series of 1 scan<" in text
    assert "nothing to plot" in text
    assert not recwarn.list


# partial coherence


def blurred(phases, sigma=0.7):
    """Counts of a crystal whose pattern is spread by a Gaussian, as a finite source spreads it."""
    from scipy import ndimage

    rho, volume = crystal(phases)
    expected = ndimage.gaussian_filter(intensity(torch.from_numpy(rho)).numpy().astype(np.float64), sigma, mode="wrap")
    counts = np.random.default_rng(5).poisson(expected * (1e5 / expected.max())).astype(np.float32)
    return replace(volume, intensity=counts)


def test_warm_starts_go_on_with_a_point_spread(tmp_path):
    """The neighbour is a coherent crystal; from it, too, the point spread is found, and it is the same in both scans."""
    for number, phases in enumerate((1.0, 1.15)):
        cxi.write_data(tmp_path / f"s{number}.cxi", blurred(phases))
    settings = series.resolve(
        {
            "phasing": {
                **{"method": "iterative", "starts": 3, "device": "cpu", "partial_coherence": "auto"},
                **{"limits": {"agreement": 0.9}},  # short recipes; this is no test of the verdict
                **{"iterative": {"recipe": "4*(20*HIO+20*RAAR+10*ER)+20*ER"}, "coherence_recipe": "PSF+16*(10*HIO+2*ER+PSF)+30*ER"},
            },
            "series": {"movie": False},
        }
    )
    rows = [r.row for r in series.run(list_sources(sorted(tmp_path.glob("*.cxi"))), tmp_path / "out", settings)]
    crystals = [results.read(tmp_path / "out" / f"s{number}.cxi") for number in range(2)]
    for one in crystals:
        assert one.psf is not None
        np.testing.assert_allclose(one.psf["sigma"], 0.7, atol=0.2)
    assert crystals[1].ensemble.table["warm"].tolist() == [0, 0, 0, 1]
    assert rows[1]["warm_cold_correlation"] > 0.9
    assert rows[1]["correlation_to_previous"] > 0.9
    assert rows[1]["warm_llk_free"] < 1.5 * rows[1]["cold_llk_free"]
