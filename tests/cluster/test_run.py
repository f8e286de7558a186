"""Many scans on real processes: the same results as one process, and no death of a worker or scheduler costs more than it must."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("distributed")

from distributed import KilledWorker
from processes import contents, one_thread, scheduler_and_worker, stopped_at_work

from braggshot import cli, cluster, output, pipeline
from braggshot.cluster import ClusterConfig, connect, reconstruct_many
from braggshot.cluster.jobs import failure_record
from braggshot.cluster.run import jobs_of
from braggshot.config import parse_assignments
from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.errors import ClusterError, ConfigError
from braggshot.io import results
from braggshot.io.formats import cxi
from braggshot.series import Source

CRYSTAL = CrystalSettings(shape=(24, 26, 28), counts=(1e5, 1e5), phase_range=(1, 1), shapes=("fcc",))
SETTINGS = cluster.resolve(
    {
        "phasing": {"method": "refine", "hypotheses": 1, "orientations": 1, "partial_coherence": "off", "device": "cpu"},
        "output": {"formats": ["cxi"]},
    }
)
AS_SLOW = (
    "phasing.method=iterative",
    "phasing.starts=2",
    "phasing.partial_coherence=off",
    "phasing.device=cpu",
    "phasing.iterative.recipe=300*HIO",
    "output.formats=['cxi']",
)
SLOW = cluster.resolve(parse_assignments(AS_SLOW))
CONFIG = ClusterConfig(dashboard=False)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    for number in range(4):
        cxi.write_data(folder / f"s{number}.cxi", simulate_volume(number, CRYSTAL)[1])
    return sorted(folder.glob("*.cxi"))


@pytest.fixture(scope="module")
def client():
    with connect("local", 2, CONFIG) as client:
        yield client


def test_results_are_those_of_one_process_and_a_bad_scan_stops_nobody(scans, client, tmp_path):
    absent = tmp_path / "absent.cxi"
    reports = list(reconstruct_many([scans[0], absent, scans[1]], tmp_path / "out", client, SETTINGS))
    assert [(report.done, report.total) for report in reports] == [(1, 3), (2, 3), (3, 3)]
    (bad,) = [report for report in reports if report.failed]
    assert "no such file" in bad.record["reasons"][0]
    assert set(contents(tmp_path / "out")) == {"s0.cxi", "s0.json", "s1.cxi", "s1.json"}
    by_name = {report.record["name"]: report.record for report in reports}
    for path in scans[:2]:
        with one_thread():
            expected = pipeline.reconstruct(path, replace(SETTINGS)).reconstruction
        found = results.read(tmp_path / "out" / path.name)
        assert np.array_equal(found.rho, expected.rho)
        assert np.array_equal(found.support, expected.support)
        record, plain = by_name[path.stem], output.summary(expected, str(path), "")
        for name in ("network", "shape", "chi2", "llk_free", "verdict", "reasons"):
            assert record[name] == plain[name], name
        assert json.loads((tmp_path / "out" / f"{path.stem}.json").read_text()) == record


def test_a_second_call_computes_what_is_missing(scans, client, tmp_path):
    first = list(reconstruct_many(scans[:1], tmp_path, client, SETTINGS))
    before = contents(tmp_path)
    second = list(reconstruct_many(scans[:2], tmp_path, client, SETTINGS))
    assert [report.reused for report in first + second] == [False, True, False]
    assert second[0].record == first[0].record
    assert before.items() <= contents(tmp_path).items()

    (tmp_path / "s0.cxi").unlink()  # a record without its file is no result
    (tmp_path / ".s1-0123abcd.cxi").write_bytes(b"half a file")  # what a kill in the midst of a write leaves
    third = list(reconstruct_many(scans[:2], tmp_path, client, SETTINGS))
    assert {report.record["name"]: report.reused for report in third} == {"s0": False, "s1": True}
    assert set(contents(tmp_path)) == {"s0.cxi", "s0.json", "s1.cxi", "s1.json"}

    other = replace(SETTINGS, phasing=replace(SETTINGS.phasing, seed=1))
    assert [report.reused for report in reconstruct_many(scans[:1], tmp_path, client, other)] == [False]


def test_the_scans_of_a_killed_worker_are_done_again(scans, client, tmp_path):
    names = ["s0", "s1", "s2", "s3", "s0-2", "s1-2", "s2-2", "s3-2"]
    running = reconstruct_many(scans * 2, tmp_path, client, SLOW)
    reports = [next(running)]
    before = contents(tmp_path)
    before = {name: before[name] for name in before if name.startswith(f"{reports[0].record['name']}.")}
    pid, unfinished = stopped_at_work(client, tmp_path, names)
    (tmp_path / ".s0-0123abcd.cxi").write_bytes(b"half a file")  # as if it had been writing
    os.kill(pid, signal.SIGKILL)
    reports += running
    assert sorted(report.record["name"] for report in reports) == sorted(names)
    assert not any(report.failed for report in reports)
    after = contents(tmp_path)
    assert set(after) == {f"{name}.{kind}" for name in names for kind in ("cxi", "json")}
    assert before.items() <= after.items()  # what was done is not written again
    assert pid not in client.run(os.getpid).values()
    for name in unfinished:
        assert results.read(tmp_path / f"{name}.cxi").support.any()


@pytest.mark.long
def test_a_scheduler_that_restarts_and_one_that_does_not(scans, tmp_path, capsys):
    out, file, several = tmp_path / "out", tmp_path / "scheduler.json", scans[:2] * 3
    with scheduler_and_worker(file) as (address, scheduler), connect(address, config=CONFIG) as client:
        running = reconstruct_many(several, out, client, SLOW)
        reports = [next(running)]
        scheduler.kill()
        scheduler.wait()
        before = {path.name: path.stat().st_mtime_ns for path in out.glob(f"{reports[0].record['name']}.*")}
        with scheduler_and_worker(tmp_path / "again.json", address.rpartition(":")[2]) as (again, scheduler):
            assert again == address
            reports += running
            inputs = [str(path) for path in several]
            options = [word for setting in AS_SLOW for word in ("--set", setting)]
            assert cli.main(["reconstruct", *inputs, "-o", str(out), "--cluster", address, *options]) == 0
            assert capsys.readouterr().out.count("(kept)") == 6
            impatient = replace(CONFIG, patience=1.0)
            with connect(address, config=impatient) as hasty:
                running = reconstruct_many([*several, scans[2], scans[3]], out, hasty, SLOW)
                assert [next(running).reused for _ in several] == [True] * 6
                scheduler.kill()
                with pytest.raises(ClusterError, match="call again"):
                    next(running)
            with pytest.raises(ClusterError, match="no scheduler answers"), connect(address, config=impatient):
                pass
    names = ["s0", "s0-2", "s0-3", "s1", "s1-2", "s1-3"]
    assert sorted(report.record["name"] for report in reports) == names
    assert not any(report.failed for report in reports)
    after = contents(out)
    assert {f"{name}.{kind}" for name in names for kind in ("cxi", "json")} <= set(after)
    assert before.items() <= after.items()


def test_slurm_jobs(scans, tmp_path, monkeypatch):
    """With stand-ins for the two commands of SLURM that dask-jobqueue calls: a job is a process of this machine."""
    sbatch = f'cp "$1" {tmp_path}/job\nbash {tmp_path}/job > {tmp_path}/job.log 2>&1 &\necho "Submitted batch job $!"'
    for name, script in (("sbatch", sbatch), ("scancel", 'kill "$@"')):
        command = tmp_path / "bin" / name
        command.parent.mkdir(exist_ok=True)
        command.write_text(f"#!/bin/bash\n{script}\n")
        command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    options = {
        "cores": 1,
        "memory": "2GB",
        "queue": "beamline",
        "scheduler_options": {"host": "127.0.0.1"},
        "shared_temp_directory": str(tmp_path),
    }
    for module in ("dask_jobqueue.slurm", "dask_jobqueue.runner"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    on_interrupt = signal.getsignal(signal.SIGINT)
    with connect("slurm", 1, replace(CONFIG, slurm=options)) as client:
        assert signal.getsignal(signal.SIGINT) is on_interrupt  # dask-jobqueue replaces it when it is imported
        assert "#SBATCH -p beamline" in client.cluster.job_script()
        assert client.scheduler_info()["address"].startswith("tls://127.0.0.1")
        client.wait_for_workers(1, timeout=60)
        (variables,) = client.run(lambda: dict(os.environ)).values()
        assert variables["OMP_NUM_THREADS"] == "1"
        assert "MALLOC_TRIM_THRESHOLD_" not in variables
        (report,) = reconstruct_many(scans[:1], tmp_path / "out", client, SLOW)
    assert not report.failed
    assert set(contents(tmp_path / "out")) == {"s0.cxi", "s0.json"}


def test_what_is_no_cluster_is_refused(monkeypatch):
    with pytest.raises(ConfigError, match="local, slurm"), connect("cloud"):
        pass
    with pytest.raises(ConfigError, match="workers"):
        ClusterConfig(workers=0)
    with pytest.raises(ConfigError, match="cores and memory"), connect("slurm"):
        pass
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install"), connect("slurm"):
        pass


def test_names_do_not_collide_and_a_deadly_scan_is_said(tmp_path):
    paths = [tmp_path / "a" / "scan.npz", tmp_path / "b" / "scan.npz", tmp_path / "exp.spec", tmp_path / "img_*.tif"]
    inputs = [Source(path, "54" if path.suffix == ".spec" else None) for path in paths]
    jobs = jobs_of(inputs, tmp_path, SETTINGS, None)
    assert [job.name for job in jobs] == ["scan", "scan-2", "exp-54", "img"]
    assert len({job.digest for job in jobs}) == 4
    worker = SimpleNamespace(address="tcp://127.0.0.1:1")
    said = failure_record(jobs[0], KilledWorker("k", worker, 3))
    assert "died 4 times" in said["reasons"][0]
    assert said["verdict"] == "failed"


def test_the_command_wants_a_folder(scans, tmp_path, capsys):
    for place in ([], ["-o", str(tmp_path / "one.cxi")]):
        assert cli.main(["reconstruct", str(scans[0]), "--cluster", "local", *place]) == 1
        assert "name it with -o" in capsys.readouterr().err
