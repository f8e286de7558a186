"""Detectors that stand across the beam: where it falls when they were moved, and what their files say."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sample_layouts import write_20ide, write_id27

from braggshot.io.registry import choose, read

COUNTS = np.random.default_rng(3).poisson(30, (7, 12, 10)).astype(np.uint16)
STEPS = np.linspace(3.2, 3.6, len(COUNTS))


def test_a_detector_moved_outboard_and_up_has_its_direct_beam_inboard_and_below(tmp_path: Path) -> None:
    path = write_20ide(tmp_path, COUNTS, {"samRy": STEPS}, shift=(11.0, 5.5))
    scan = read(path)
    assert scan.geometry is not None
    assert scan.geometry.direct_beam == pytest.approx((5.5 + 100, 4.5 - 200))
    assert "11 mm outboard of the beam (DetX) and 5.5 mm above it (DetY)" in " ".join(scan.provenance["noticed"])
    assert "frame's centre" not in " ".join(scan.provenance["noticed"])
    assert scan.dark is None  # no counts
    assert_array_equal(scan.flat, np.full((12, 10), 7.0))
    stated = read(path, direct_beam=(1, 2)).geometry
    assert stated is not None
    assert stated.direct_beam == (1, 2)
    with h5py.File(path, "a") as file:
        del file["DMS/DetX"]
    scan = read(path)
    assert scan.geometry is not None
    assert scan.geometry.direct_beam == (5.5, 4.5)
    assert "frame's centre is assumed" in " ".join(scan.provenance["noticed"])


def test_the_name_of_a_file_tells_the_detector(tmp_path: Path) -> None:
    path = write_20ide(tmp_path, COUNTS, {"samRy": STEPS})
    for name, pitch in (("sample_054.BSE.h5", 7.8e-6), ("sample_054.ASI.h5", 55e-6), ("sample_054.h5", 55e-6)):
        path = path.rename(tmp_path / name)
        geometry = read(path).geometry
        assert geometry is not None
        assert geometry.pixel_size == (pitch, pitch)


def test_id27_leaves_out_what_its_files_say_of_the_distance(tmp_path: Path) -> None:
    path = write_id27(tmp_path, COUNTS, {"nath": STEPS})
    assert choose(path)[0].name == "esrf_id27"
    scan = read(path)
    assert scan.geometry is None
    assert "do not give distance_m" in " ".join(scan.provenance["noticed"])
    with h5py.File(path, "a") as file:
        file.move("sample_12.1/instrument/positioners/nath", "sample_12.1/instrument/positioners/eta")
    assert choose(path)[0].name == "esrf_id01"
