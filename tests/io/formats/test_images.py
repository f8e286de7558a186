from __future__ import annotations

import bz2
import gzip
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabio.cbfimage import CbfImage
from fabio.edfimage import EdfImage

from braggshot.errors import FormatError
from braggshot.io.registry import describe, read

COUNTS = np.random.default_rng(2).poisson(20, (12, 10, 14)).astype(np.int32)


def write(folder: Path, name: str, image: np.ndarray) -> Path:
    kind = name.split(".")[1]
    plain = folder / f"{name.split('.')[0]}.{kind}"
    (CbfImage if kind == "cbf" else EdfImage)(data=image).write(str(plain))
    for suffix, pack in ((".gz", gzip.compress), (".bz2", bz2.compress)):
        if name.endswith(suffix):
            (folder / name).write_bytes(pack(plain.read_bytes()))
            plain.unlink()
    return folder / name


@pytest.mark.parametrize("suffix", ["edf", "edf.gz", "edf.bz2", "cbf", "cbf.gz"])
def test_a_folder_of_images(tmp_path: Path, suffix: str) -> None:
    for index, image in enumerate(COUNTS):
        if index != 5:
            write(tmp_path, f"s_{index:04d}.{suffix}", image)
    write(tmp_path, f"dark.{suffix}", COUNTS[0])
    scan = read(tmp_path)
    here = np.arange(12) != 5
    assert np.array_equal(scan.arrived, here)
    assert np.array_equal(scan.frames[...], COUNTS * here[:, None, None])
    assert np.array_equal(scan.frames[2:5, 3:6, 1:4], COUNTS[2:5, 3:6, 1:4])
    assert "number 5 is missing" in " ".join(scan.provenance["noticed"])
    assert f"dark.{suffix} is not named like the other images" in " ".join(scan.provenance["noticed"])
    assert read(tmp_path / f"s_*.{suffix}").frames.shape == COUNTS.shape
    assert describe(tmp_path)["format"] == "images"


@pytest.mark.parametrize("suffix", ["edf", "cbf"])
def test_a_truncated_image_is_masked(tmp_path: Path, suffix: str) -> None:
    for index, image in enumerate(COUNTS):
        path = write(tmp_path, f"s_{index}.{suffix}", image)
    path.write_bytes(path.read_bytes()[:-100])
    scan = read(tmp_path)
    assert np.array_equal(scan.arrived, np.arange(12) < 11)
    assert np.array_equal(scan.frames[:11], COUNTS[:11])
    assert any(path.name in said and "masked" in said for said in scan.provenance["noticed"])
    with pytest.raises(FormatError, match=path.name):
        read(path)


def write_stack(path: Path) -> Path:
    stack = EdfImage(data=COUNTS[0])
    for image in COUNTS[1:]:
        stack.append_frame(data=image)
    stack.write(str(path))
    return path


def test_one_file_of_many_images(tmp_path: Path) -> None:
    path = write_stack(tmp_path / "a.edf")
    scan = read(path)
    assert np.array_equal(scan.frames[...], COUNTS)
    assert scan.arrived is None
    path.write_bytes(path.read_bytes()[:-100])
    scan = read(path)
    assert np.array_equal(scan.arrived, np.arange(12) < 11)
    assert np.array_equal(scan.frames[3:], COUNTS[3:] * (np.arange(3, 12) < 11)[:, None, None])
    assert "last of the 12 images" in scan.provenance["noticed"][0]


def test_one_image_and_no_image(tmp_path: Path) -> None:
    write(tmp_path, "a.edf", COUNTS[0])
    assert read(tmp_path / "a.edf").frames.shape == (1, 10, 14)
    (tmp_path / "b.cbf").write_text("no image")
    with pytest.raises(FormatError, match=r"b\.cbf: this CBF file holds no image"):
        read(tmp_path / "b.cbf")
    (tmp_path / "c.edf").write_text("no image")
    with pytest.raises(FormatError, match=r"c\.edf: fabio cannot read it"):
        read(tmp_path / "c.edf")
    CbfImage(data=np.ones((4, 5), np.int32)).write(str(tmp_path / "d.cbf"))
    (tmp_path / "d.cbf").write_bytes((tmp_path / "d.cbf").read_bytes()[:200])  # fabio alone would read on for ever
    with pytest.raises(FormatError, match=r"d\.cbf: this CBF file holds no image"):
        read(tmp_path / "d.cbf")


def test_without_fabio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path: Any = write_stack(tmp_path / "a.edf")
    monkeypatch.setitem(sys.modules, "fabio", None)
    with pytest.raises(FormatError, match=r"a\.edf: .* pip install fabio"):
        read(path)
