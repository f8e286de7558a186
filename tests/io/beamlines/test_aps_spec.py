"""SPEC files of APS beamlines read by a table: the raised detector, the wedge, frames in one HDF5 file, what is missing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sample_inputs import SAMPLES
from sample_layouts import write_aps

from braggshot.errors import FormatError
from braggshot.io.registry import describe, read
from braggshot.volumes import Scan

COUNTS = np.random.default_rng(3).poisson(30, (7, 12, 10)).astype(np.uint32)
STEPS = np.linspace(3.2, 3.6, len(COUNTS))
CHEX: dict[str, Any] = {"Mu": 0.3, "Eta": STEPS, "Chi": 1.0, "Phi": 41.0, "Nu": 3.0, "Delta": 35.0}
FAR = {"camdist": 800.0, "Energy": 10.0}


def notes(scan: Scan) -> str:
    return " ".join(scan.provenance["noticed"])


def test_a_raised_detector_has_its_direct_beam_below(tmp_path: Path) -> None:
    angles, motors = {"AeroTech": STEPS, "vff_eta": 25.0}, {"vff_r": 66.0, "detdist": 6000.0}
    scan = read(write_aps(tmp_path, COUNTS, angles, motors=motors), energy_ev=52000)
    assert scan.geometry is not None
    assert scan.geometry.direct_beam == (pytest.approx(5.5 + 66e-3 / 55e-6), 4.5)
    assert scan.geometry.distance == 6.0
    assert "66 mm (vff_r) below the middle of the frame" in notes(scan)
    scan = read(tmp_path / "Staff1.spec")
    assert scan.geometry is None
    assert "do not give energy_ev; say energy_ev=" in notes(scan)


def test_the_wedge_is_assumed(tmp_path: Path) -> None:
    scan = read(SAMPLES["aps_7idd"](tmp_path).path)
    assert scan.geometry is not None
    assert np.degrees(scan.geometry.sample[0].angle) == pytest.approx(10.0)
    assert "wedge is not in the file: 10 degrees is assumed" in notes(scan)


def test_frames_in_one_file_are_found_or_named(tmp_path: Path) -> None:
    spec = write_aps(tmp_path, COUNTS, CHEX, motors=FAR, kind=".h5")
    assert describe(spec)["scans"] == ["54"]
    file = tmp_path / "data/Staff1_S0054_00000.h5"
    moved = Path(shutil.move(file, tmp_path.parent / f"{tmp_path.name}.h5"))
    with pytest.raises(FormatError, match=r"no frames of scan 54: looked for \*S0054\*\.h5\*"):
        read(spec, scan=54)
    assert_array_equal(read(spec, scan=54, frames=moved).frames[...], COUNTS)
    with pytest.raises(FormatError, match=r"nowhere: no frames \(\.h5\)"):
        read(spec, scan=54, frames="nowhere")
    for part in (0, 1):
        shutil.copy(moved, tmp_path / f"Staff1_S0054_{part:05d}.h5")
    with pytest.raises(FormatError, match="2 files hold frames of this scan"):
        read(spec)


@pytest.mark.parametrize("format", ["aps_1ide", "aps_7idd", "aps_28idb"])
@pytest.mark.parametrize("odd", ["0", "nan", "none"])
def test_no_unset_distance_passes(tmp_path: Path, format: str, odd: str) -> None:
    path = Path(SAMPLES[format](tmp_path).path)
    path.write_text(path.read_text().replace(" 800", f" {odd}", 1))
    scan = read(path, energy_ev=10000)
    assert scan.geometry is None
    assert "do not give distance_m; say distance_m=" in notes(scan)
    assert read(path, energy_ev=10000, distance_m=0.8).geometry is not None
