"""A series on real processes: the same as in one process, bit for bit, whoever is killed on the way."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("distributed")

from processes import contents, one_thread, scheduler_and_worker, stopped_at_work

from braggshot import cli, series
from braggshot.cluster import ClusterConfig, connect, resolve_series, run_series
from braggshot.config import parse_assignments
from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.io import results
from braggshot.io.formats import cxi
from braggshot.series import table
from braggshot.series.sources import list_sources

CRYSTAL = CrystalSettings(shape=(24, 26, 28), counts=(1e5, 1e5), displacements=("gaussians",), shapes=("fcc",))
OPTIONS = (
    "phasing.method=iterative",
    "phasing.starts=2",
    "phasing.partial_coherence=off",
    "phasing.device=cpu",
    "phasing.iterative.recipe=3*(60*HIO+60*RAAR+20*ER)+20*ER",
    "series.movie=false",
)
SETTINGS = resolve_series(parse_assignments(OPTIONS))
CONFIG = ClusterConfig(dashboard=False)
NAMES = [f"s{number}" for number in range(7)]
BAD = "s3"
# Where an array lies in memory decides how a transform groups its sums: these two were seen to differ in the last bit.
REGISTERED = ("correlation_to_previous", "twin_margin")
UNTIMED = dict.fromkeys(("seconds", *REGISTERED))


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    for number, name in enumerate(NAMES):
        phases = 1 + 0.1 * number
        cxi.write_data(folder / f"{name}.cxi", simulate_volume(13, replace(CRYSTAL, phase_range=(phases, phases)))[1])
    (folder / f"{BAD}.cxi").write_text("no HDF5 at all")
    return list_sources(sorted(folder.glob("*.cxi")), columns=["V=0,1,2,3,4,5,6"])


def of_one_process(scans, folder, given):
    with one_thread():
        list(series.run(scans, folder, series.resolve(given)))
    return folder


@pytest.fixture(scope="module")
def alone(scans, tmp_path_factory):
    return of_one_process(scans, tmp_path_factory.mktemp("alone"), parse_assignments([*OPTIONS, "series.neighbour=first"]))


def assert_same(folder, expected):
    """Every file of a series, every row, every bit of every crystal; only the time that it took differs."""
    rows, other = table.read(folder / "series.csv"), table.read(expected / "series.csv")
    for row, wanted in zip(rows, other, strict=True):
        assert row | UNTIMED == wanted | UNTIMED
        for key in REGISTERED:
            assert row[key] == (wanted[key] if wanted[key] is None else pytest.approx(wanted[key], rel=1e-12))
    done = [row["name"] for row in rows if row["name"]]
    assert set(contents(folder)) == set(contents(expected)) | {f"{name}.json" for name in done}
    for name in done:
        found, wanted = results.read(folder / f"{name}.cxi"), results.read(expected / f"{name}.cxi")
        assert np.array_equal(found.rho, wanted.rho)
        assert np.array_equal(found.support, wanted.support)
        assert found.choices == wanted.choices
        assert found.configuration == wanted.configuration


@pytest.mark.long
def test_a_killed_worker_changes_nothing(scans, alone, tmp_path):
    with connect("local", 2, CONFIG) as client:
        running = run_series(scans, tmp_path, client, SETTINGS)
        reports = [next(running), next(running)]
        assert reports[0].row["name"] == "s0"  # which all others follow
        before = {name: when for name, when in contents(tmp_path).items() if name.startswith("s0.")}
        pid, unfinished = stopped_at_work(client, tmp_path, NAMES[1:])
        (tmp_path / ".s5-0123abcd.cxi").write_bytes(b"half a file")  # as if it had been writing
        os.kill(pid, signal.SIGKILL)
        reports += running
        assert pid not in client.run(os.getpid).values()
    assert unfinished
    assert [report.done for report in reports] == list(range(1, 8))
    assert before.items() <= contents(tmp_path).items()  # what was done is not written again
    assert_same(tmp_path, alone)


@pytest.mark.long
def test_a_restarted_scheduler_changes_nothing(scans, alone, tmp_path, capsys):
    out = tmp_path / "out"
    with scheduler_and_worker(tmp_path / "scheduler.json") as (address, scheduler), connect(address, config=CONFIG) as client:
        running = run_series(scans, out, client, SETTINGS)
        reports = [next(running), next(running)]
        scheduler.kill()
        scheduler.wait()
        before = {name: when for name, when in contents(out).items() if name.startswith("s0.")}
        with scheduler_and_worker(tmp_path / "again.json", address.rpartition(":")[2]) as (again, _):
            assert again == address
            reports += running
            assert [report.done for report in reports] == list(range(1, 8))
            assert_same(out, alone)
            kept = contents(out)
            command = ["series", *(str(scan.path) for scan in scans), "-o", str(out), "--column", "V=0,1,2,3,4,5,6"]
            options = [word for setting in OPTIONS for word in ("--set", setting)]
            assert cli.main([*command, "--cluster", address, *options]) == 0
    said = capsys.readouterr().out
    assert said.count("(kept)") == 6
    assert f"{BAD}.cxi: failed: " in said
    assert before.items() <= kept.items()
    crystals = {name: when for name, when in kept.items() if name.endswith((".cxi", ".json"))}
    assert crystals.items() <= contents(out).items()


def test_a_chain_is_walked_and_a_first_scan_without_a_crystal_is_passed_over(scans, tmp_path):
    """The scan that cannot be read comes first, so the next one becomes what the others follow."""
    listed, short = [scans[3], scans[0], scans[1]], parse_assignments([*OPTIONS, "phasing.iterative.recipe=20*HIO+20*ER"])
    with connect("local", 1, CONFIG) as client:
        for follows in ("previous", "first"):
            given = {**short, "series": {**short["series"], "neighbour": follows}}
            reports = list(run_series(listed, tmp_path / follows, client, resolve_series(given)))
            assert [report.row["verdict"] == "failed" for report in reports] == [True, False, False]
            assert_same(tmp_path / follows, of_one_process(listed, tmp_path / f"{follows}-alone", given))


def test_a_row_holds_only_with_all_that_it_follows(scans):
    """Another crystal to follow is another row; so is one that was phased anew with other settings."""
    settings, other = series.resolve({"series": {"neighbour": "first"}}), series.resolve({"phasing": {"seed": 7}})
    first = table.digest(settings, scans[0])
    followed = (None, first, table.digest(settings, scans[2], first), table.digest(other, scans[0]))
    assert len({table.digest(settings, scans[1], follows) for follows in followed}) == 4
