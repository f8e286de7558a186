from __future__ import annotations

import json
import tomllib
from dataclasses import replace

import h5py
import numpy as np
import pytest
from arm_scans import arm, arm_scan
from command_line import run
from sample_inputs import SAMPLES, write_bliss

from braggshot.io.beamlines.instruments import set_geometry
from braggshot.io.registry import read
from braggshot.volumes import Circle


def table_of(geometry, **changes):
    angles = {circle.name: np.degrees(circle.angle).tolist() for circle in (*geometry.sample, *geometry.detector)}
    table = {"instrument": "id01", "energy_ev": 9000.0, "distance_m": 2.0, "pixel_size_m": 55e-6} | changes
    named = ", ".join(f"{name} = {angle}" for name, angle in angles.items())
    return "\n".join([*(f"{key} = {json.dumps(value)}" for key, value in table.items()), f"angles_deg = {{{named}}}"])


@pytest.fixture
def saved(tmp_path):
    scan = arm_scan(arm())
    np.savez(tmp_path / "arm.npz", data=scan.frames[:])
    (tmp_path / "arm.toml").write_text(table_of(scan.geometry))
    np.savez(tmp_path / "rocking.npz", data=scan.frames[:9])
    rocking = tuple(replace(c, angle=np.radians([17.0, 17.6])) if c.name == "eta" else c for c in scan.geometry.sample)
    detector = tuple(Circle(c.axis, np.radians(35.0) if c.name == "delta" else 0.0, c.name) for c in scan.geometry.detector)
    (tmp_path / "rocking.toml").write_text(table_of(replace(scan.geometry, sample=rocking, detector=detector)))
    return tmp_path


def test_the_command_writes_what_other_commands_read(saved, capsys):
    folder = saved
    arguments = ["calibrate", folder / "arm.npz", "-o", folder / "place.toml", "--set", f"input.geometry={folder / 'arm.toml'}"]
    assert run(*arguments) == 0
    said = capsys.readouterr().out
    assert "49 of 49 frames used" in said
    assert "distance                 1.2" in said
    assert said.endswith(f"wrote {folder / 'place.toml'}\n")
    written = tomllib.loads((folder / "place.toml").read_text())
    assert written["distance_m"] == pytest.approx(1.234, rel=1e-4)
    assert written["detector_rotation_deg"] == pytest.approx(0.4, abs=0.01)
    known = read(folder / "rocking.npz", geometry=str(folder / "rocking.toml"))
    placed = set_geometry(known, str(folder / "place.toml")).geometry
    assert placed.distance == written["distance_m"]
    assert list(placed.direct_beam) == written["direct_beam"]
    assert [circle.name for circle in placed.sample] == ["mu", "eta", "phi"]
    assert run(*arguments) == 0  # its own file is replaced
    (folder / "place.toml").write_text("distance_m = 1.0\n")
    assert run(*arguments) == 1
    assert "did not write it" in capsys.readouterr().err


def test_it_says_what_the_errors_do_to_a_reflection(saved, capsys):
    folder = saved
    rocking = SAMPLES["esrf_id01"](folder).path
    common = ["--set", f"input.geometry={folder / 'arm.toml'}"]
    arguments = ["calibrate", folder / "arm.npz", "-o", folder / "place.toml", "--reflection", rocking, *common]
    assert run(*arguments) == 0
    said = capsys.readouterr().out
    assert "error of the reflection by" in said
    assert "all of them" in said
    assert run(*arguments, "--json") == 0
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert 0 < record["effects"]["together"]["spacing"] < 1e-3
    assert record["effects"]["distance"]["volume"] == pytest.approx(2 * record["sigma"]["distance"] / 1.234, rel=0.1)


def test_a_file_of_a_beamline_needs_no_table(tmp_path, capsys):
    """A BLISS file of ID01 in which nu and delta move; its distance is wrong, and what is found is not."""
    scan = arm_scan(arm("id01"))
    nu, delta = (np.degrees(circle.angle) for circle in scan.geometry.detector)
    path = write_bliss(tmp_path, scan.frames[:].astype("u2"), np.full(49, 17.0))
    with h5py.File(path, "r+") as file:
        for name, angles in (("nu", nu), ("delta", delta)):
            del file[f"12.1/instrument/positioners/{name}"]
            file[f"12.1/instrument/positioners/{name}"] = angles
            file[f"12.1/measurement/{name}"] = angles
        file["12.1/title"][()] = "amesh nu -0.25 0.25 6 delta -0.25 0.25 6 1"
    assert run("calibrate", path, "--scan", 12, "-o", tmp_path / "place.toml", "--json") == 0
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert record["values"]["distance"] == pytest.approx(1.234, rel=1e-4)
    assert [record["values"]["row"], record["values"]["column"]] == pytest.approx([130.3, 118.8], abs=0.05)
    assert record["frames"] - len(record["left_out"]) == 49


def test_what_cannot_be_calibrated_is_said_in_one_line(saved, capsys):
    folder = saved
    assert run("calibrate", folder / "arm.npz", "-o", folder / "place.toml") == 1
    assert "no geometry" in capsys.readouterr().err
    arguments = ["calibrate", folder / "rocking.npz", "-o", folder / "place.toml"]
    assert run(*arguments, "--set", f"input.geometry={folder / 'rocking.toml'}") == 1
    error = capsys.readouterr().err
    assert "no detector circle moves" in error
    assert error.count("\n") == 1
    assert not (folder / "place.toml").exists()
