"""The main job as a user meets it: files, JSON, and one clear line for every bad input, with nothing half-written."""

from __future__ import annotations

import errno
import functools
import json
import os
import re
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import tifffile
from command_line import QUICK, run

from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.io.formats import cxi


def test_one_file_and_json(scan, tmp_path, capsys):
    target = tmp_path / "out.cxi"
    assert run("reconstruct", scan, "-o", target, "--json", *QUICK) == 0
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    wanted = {"input", "output", "method", "network", "shape", "oversampling", "chi2", "r_factor", "llk_free"}
    wanted |= {"resolution_m", "verdict", "reasons", "seconds"}
    assert wanted <= set(record)
    assert record["verdict"] in {"good", "doubtful", "failed"}
    assert record["reasons"]
    assert record["seconds"]["total"] > 0
    with h5py.File(target) as file:
        rho = file["entry_1/image_1/data"][()]
        stored = (
            json.loads(file["entry_1/image_1/process_1/note_1/data"][()]) if "note_1" in file["entry_1/image_1/process_1"] else None
        )
        assert rho.dtype == np.complex64
        assert list(rho.shape) == record["shape"]
        magnitude = np.abs(np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(rho), norm="ortho")))
        intensity = file["entry_1/instrument_1/detector_1/data"][()]
        valid = file["entry_1/instrument_1/detector_1/mask"][()] == 0
    measured = np.sqrt(intensity[valid])
    scale = (measured * magnitude[valid]).sum() / (magnitude[valid] ** 2).sum()
    chi2 = ((scale * magnitude[valid] - measured) ** 2).sum() / intensity[valid].sum()
    assert record["chi2"] == pytest.approx(chi2, rel=1e-3)
    assert stored is None or stored["phasing"]["starts"] == 2


def test_a_folder_gets_every_format_and_a_table(scan, tmp_path, capsys):
    assert run("reconstruct", scan, "-o", tmp_path / "out", *QUICK) == 0
    assert sorted(file.suffix for file in (tmp_path / "out").iterdir()) == [".cxi", ".html", ".png", ".vti"]
    printed = capsys.readouterr().out
    assert "sqrt(chi2)" in printed
    assert "wrote" in printed


def test_the_same_seed_gives_the_same_crystal(scan, tmp_path):
    for name in ("a", "b"):
        assert run("reconstruct", scan, "-o", tmp_path / f"{name}.cxi", "--seed", "5", *QUICK) == 0
    with h5py.File(tmp_path / "a.cxi") as a, h5py.File(tmp_path / "b.cxi") as b:
        assert np.array_equal(a["entry_1/image_1/data"][()], b["entry_1/image_1/data"][()])


def truncated_hdf5(folder, counts):
    path = folder / "cut.cxi"
    _, volume = simulate_volume(3, CrystalSettings(shape=(24, 26, 28)))
    cxi.write_data(path, volume)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path, []


def truncated_tiff(folder, counts):
    path = folder / "cut.tif"
    tifffile.imwrite(path, counts.astype(np.float32))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path, []


def array(**changes):
    def make(folder, counts):
        path = folder / "bad.npz"
        np.savez(path, **{name: change(counts) for name, change in changes.items()})
        return path, []

    return make


def wrong_scan(folder, counts):
    (folder / "a.spec").write_text("#F a.spec\n#E 1\n#D now\n\n#S 1 ascan th 0 1 2 0.1\n#N 1\n#L Theta\n0\n1\n\n")
    return folder / "a.spec", ["--set", "input.scan=99", "--format", "aps_34idc"]


def no_frames(folder, counts):
    (folder / "a.spec").write_text("#F a.spec\n#E 1\n#D now\n\n#S 1 ascan th 0 1 2 0.1\n#N 1\n#L Theta\n0\n1\n\n")
    return folder / "a.spec", ["--set", "input.scan=1", "--format", "aps_34idc"]


def with_options(*options):
    def make(folder, counts):
        np.savez(folder / "ok.npz", data=counts)
        return folder / "ok.npz", list(options)

    return make


BAD = {
    "missing file": (lambda folder, counts: (folder / "none.cxi", []), "no such file"),
    "unknown format": (lambda folder, counts: ((folder / "x.txt").write_text("hello") and folder / "x.txt", []), "tried"),
    "truncated HDF5": (truncated_hdf5, "cut.cxi"),
    "truncated TIFF": (truncated_tiff, "cut.tif"),
    "wrong scan": (wrong_scan, "99"),
    "missing frames": (no_frames, "frames"),
    "all zero": (array(data=np.zeros_like), "zero|no counts|no valid"),
    "all NaN": (array(data=lambda c: np.full_like(c, np.nan)), "not a number"),
    "two-dimensional": (array(data=lambda c: c[0]), "3D"),
    "negative counts": (array(data=lambda c: -c - 1), "negative"),
    "no peak": (array(data=np.ones_like), "peak"),
    "mask of another shape": (array(data=lambda c: c, mask=lambda c: np.zeros((3, 4, 5), bool)), "mask"),
    "unknown setting": (with_options("--set", "phasing.stars=3"), "unknown setting 'phasing.stars'; did you mean"),
    "unknown reader option": (with_options("--set", "input.sacn=3"), "no option sacn"),
    "bad recipe": (with_options("--recipe", "20*OSS"), "unknown step 'OSS'"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_is_one_clear_line(case, tmp_path, counts, capsys):
    make, message = BAD[case]
    (tmp_path / "in").mkdir()
    path, options = make(tmp_path / "in", counts)
    assert run("reconstruct", path, "-o", tmp_path / "out", *QUICK, *options) == 1
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("braggshot: ")
    assert "bug" not in lines[0]
    assert re.search(message, lines[0]), lines[0]
    assert not list((tmp_path / "out").glob("*"))


def test_a_network_that_is_not_there(scan, tmp_path, capsys):
    assert run("reconstruct", scan, "-o", tmp_path / "out", "--method", "refine", "--network", "nothing") == 1
    assert "no network" in capsys.readouterr().err


def test_no_write_permission(scan, tmp_path, capsys, monkeypatch):
    """The main user of a container is root, whom permissions do not stop; so the refusal is simulated."""
    from pathlib import Path

    def refuse(self, *args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    assert run("reconstruct", scan, "-o", tmp_path / "out", *QUICK) == 1
    assert "cannot write there (Permission denied)" in capsys.readouterr().err


def test_disk_full(scan, tmp_path, capsys, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert run("reconstruct", scan, "-o", tmp_path / "out", *QUICK) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "No space left" in lines[0]
    assert not [file for file in (tmp_path / "out").rglob("*") if file.is_file()]


def test_interrupt_leaves_nothing(scan, tmp_path):
    """Ctrl-C in the middle of phasing, in a process of its own."""
    command = [sys.executable, "-m", "braggshot", "reconstruct", str(scan), "-o", str(tmp_path / "out"), "--recipe", "100000*HIO"]
    # A runner in the background may have told its children to ignore Ctrl-C; a terminal does not.
    restore = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=restore)
    try:
        begun = time.monotonic()
        while not (tmp_path / "out").exists() and time.monotonic() < begun + 60:
            time.sleep(0.1)  # the folder is made right before the work
        time.sleep(2)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 1
    assert errors.strip().splitlines() == ["braggshot: interrupted; nothing was half-written."]
    assert not list((tmp_path / "out").glob("*"))
