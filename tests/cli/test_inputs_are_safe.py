"""No command that writes ever changes what it reads, whatever is asked: the same file, a link, its folder."""

import hashlib
import json
import os

import h5py
import numpy as np
import pytest

from braggshot import cli

QUICK = ["--set", "phasing.iterative.recipe='4*HIO+2*ER'", "--set", "phasing.starts=1", "--set", "phasing.partial_coherence=off"]
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "OMP_WAIT_POLICY")
ITERATIVE = ["--method", "iterative", *QUICK, "--set", "output.formats=['cxi']"]


@pytest.fixture(scope="module")
def scan_bytes(tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "g.cxi"
    assert cli.main(["simulate", "-o", str(path), "--shape", "24", "24", "24", "--phase-range", "1"]) == 0
    return path.read_bytes()


@pytest.fixture
def scan(scan_bytes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "g.cxi"
    path.write_bytes(scan_bytes)
    return path


def contents(folder):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def refused(arguments, folder, capsys):
    """The command fails with one line that says why, and every file is as it was."""
    before = contents(folder)
    status = cli.main([str(argument) for argument in arguments])
    said = capsys.readouterr().err
    assert status == 1, said
    assert "which is read here; choose another place" in said
    assert contents(folder) == before


def symbolic(path):
    link = path.with_name("link.cxi")
    link.symlink_to(path)
    return link


def hard(path):
    link = path.with_name("hard.cxi")
    os.link(path, link)
    return link


@pytest.mark.parametrize("place", [lambda path: path, lambda path: ".", lambda path: path.parent, symbolic, hard])
def test_reconstruct(scan, place, capsys):
    refused(["reconstruct", scan, *ITERATIVE, "-o", place(scan)], scan.parent, capsys)


def test_reconstruct_through_a_link_of_the_input(scan, capsys):
    link = symbolic(scan)
    refused(["reconstruct", link, *ITERATIVE, "-o", scan], scan.parent, capsys)


def test_reconstruct_refuses_before_any_work(scan, capsys):
    """A recipe that would take hours is never begun."""
    refused(["reconstruct", scan, "--method", "iterative", "--recipe", "999999*HIO", "-o", "."], scan.parent, capsys)


def test_reconstruct_and_its_mask(scan, capsys, tmp_path):
    stack, mask = tmp_path / "counts.npy", tmp_path / "counts.npz"
    np.save(stack, np.ones((8, 8, 8)))
    np.savez(mask, mask=np.zeros((8, 8), np.int8))
    arguments = ["reconstruct", stack, "--set", f"input.mask={mask}", "--set", "output.formats=['npz']", "-o", "."]
    refused(arguments, tmp_path, capsys)


def test_postprocess(scan, capsys):
    assert cli.main(["reconstruct", str(scan), *ITERATIVE, "-o", "r.cxi"]) == 0
    capsys.readouterr()
    for place in ("r.cxi", "g.cxi", "."):
        refused(["postprocess", "r.cxi", "--scan", scan, "-o", place], scan.parent, capsys)


def test_series(scan, capsys):
    refused(["series", scan, *QUICK[:0], "-o", "."], scan.parent, capsys)


def test_series_and_its_metadata(scan, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    table = tmp_path / "out" / "series.csv"
    table.write_text("input,charge\ng.cxi,0.5\n")
    refused(["series", scan, "--metadata", table, "-o", "out"], tmp_path, capsys)


def test_cluster(scan, capsys):
    pytest.importorskip("distributed")
    before = {name: os.environ.get(name) for name in THREADS}
    refused(["reconstruct", scan, *ITERATIVE, "--cluster", "local", "--workers", "1", "-o", "."], scan.parent, capsys)
    assert {name: os.environ.get(name) for name in THREADS} == before  # the environment of the workers is theirs alone


def test_stack(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with h5py.File("s.h5", "w") as file:
        file["data"] = np.random.default_rng(0).poisson(3.0, (2, 32, 32, 32)).astype(np.float32)
    refused(["stack", "s.h5", "-o", "s.h5"], tmp_path, capsys)
    os.symlink("s.h5", "again.h5")
    refused(["stack", "s.h5", "-o", "again.h5"], tmp_path, capsys)


def test_emit(scan, capsys):
    """A simulated detector writes under names of its own; a link of such a name to the scan is refused."""
    link = scan.parent / "frames" / "g_0001.h5"
    link.parent.mkdir()
    link.symlink_to(scan)
    before = scan.read_bytes()
    assert cli.main(["emit", str(scan), "--to", f"folder:{link.parent}", "--hdf5", "--rate", "0"]) == 1
    assert "which is read here" in capsys.readouterr().err
    assert scan.read_bytes() == before


def test_live(scan, capsys):
    """The folder that is watched is no place for results, which would be watched too."""
    before = contents(scan.parent)
    assert cli.main(["live", f"folder:{scan.parent}", "-o", str(scan.parent), "--once", "--no-browser"]) == 1
    assert "is watched" in capsys.readouterr().err
    assert contents(scan.parent) == before


def test_what_is_allowed_still_is(scan, capsys):
    assert cli.main(["reconstruct", str(scan), *ITERATIVE, "-o", "out", "--json"]) == 0
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert record["verdict"] in {"good", "doubtful", "failed"}
    assert cli.main(["reconstruct", str(scan), *ITERATIVE, "-o", "out"]) == 0, "an earlier result may be replaced"
