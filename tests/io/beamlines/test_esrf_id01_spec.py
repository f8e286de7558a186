"""SPEC files and EDF images of ESRF ID01: images by their numbers, calibration, and what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sample_layouts import write_id01_spec

from braggshot.errors import DataError, FormatError
from braggshot.io.registry import read
from braggshot.volumes import Scan

COUNTS = np.random.default_rng(3).poisson(30, (7, 12, 10)).astype(np.int32)
ANGLES: dict[str, Any] = {"mu": 0.5, "eta": np.linspace(17.2, 17.8, len(COUNTS)), "phi": 12.0, "nu": 3.0, "delta": 35.2}


def notes(scan: Scan) -> str:
    return " ".join(scan.provenance["noticed"])


def test_the_calibration_of_the_file_is_read(tmp_path: Path) -> None:
    scan = read(write_id01_spec(tmp_path, COUNTS, ANGLES))
    assert scan.geometry is not None
    assert (scan.geometry.direct_beam, scan.geometry.distance) == ((6.0, 4.5), 0.8)
    assert scan.geometry.energy == pytest.approx(10e3 * 1.602176634e-19)
    assert_array_equal(scan.monitor, np.arange(1000, 1007))
    assert "0.8 m (det_distance_CC of align.spec) is taken" in notes(scan)
    scan = read(write_id01_spec(tmp_path / "b", COUNTS, ANGLES, calibrated=False))
    assert scan.geometry is None
    assert "do not give distance_m" in notes(scan)


def test_an_image_that_is_not_there_loses_its_point(tmp_path: Path) -> None:
    path = write_id01_spec(tmp_path, COUNTS, ANGLES)
    (tmp_path / "data/data_mpx4_00122.edf.gz").unlink()
    scan = read(path)
    assert_array_equal(scan.frames[...], COUNTS[[0, 1, 3, 4, 5, 6]])
    assert "1 of 7 points have no frame (number 2" in notes(scan)


def test_what_is_missing_is_one_clear_line(tmp_path: Path) -> None:
    path = write_id01_spec(tmp_path, COUNTS, ANGLES)
    with pytest.raises(FormatError, match=r"nowhere; say frames="):
        read(path, frames="nowhere")
    assert_array_equal(read(path, frames=tmp_path / "data").frames[...], COUNTS)
    (tmp_path / "data/other_00122.edf").write_bytes(b"")
    with pytest.raises(FormatError, match="have one number; choose with frames="):
        read(path)
    whole = path.read_text()
    path.write_text(whole.replace("mpx4inr", "unknown"))
    with pytest.raises(FormatError, match="has no column with the numbers of images"):
        read(path)
    path.write_text(whole.replace(" 12", " 90"))
    with pytest.raises(DataError, match="0 images belong to the 7 points"):
        read(path, frames=str(tmp_path / "data/data_*.edf.gz"))
