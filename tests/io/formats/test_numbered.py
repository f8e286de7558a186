"""Frames among the images of a folder: numbers that are missing keep their place, other images are left out, and it is said."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from braggshot.errors import FormatError
from braggshot.io.formats.numbered import find_series
from braggshot.io.registry import read


def places(names: Iterable[str]) -> tuple[list[str | None], str]:
    """Names in the order of the frames, and what is said."""
    series = find_series([Path("d") / name for name in names])
    return [file and file.name for file in series.files], " ".join(series.noticed)


def numbered(pattern: str, numbers: Iterable[int]) -> list[str]:
    return [pattern.format(number) for number in numbers]


COUNTED = [number for number in range(48) if number not in (19, 20, 21)]


@pytest.mark.parametrize(
    "pattern",
    [
        "scan_{:04d}.tif",
        "scan_{}.tif",
        "S54_{:05d}.TIF",
        "a b (2) [1] {:03d}.tif",
        "{}.npy",
        "x_{:04d}_10.5keV.tif",
        "{:04d}_s7.edf.gz",
    ],
)
def test_missing_numbers_keep_their_places(pattern: str) -> None:
    found, said = places(numbered(pattern, COUNTED))
    assert [index for index, name in enumerate(found) if name is None] == [19, 20, 21]
    assert found[22] == pattern.format(22)
    assert said == "numbers 19-21 are missing in d: left as masked planes."


def test_times_dates_and_other_digits_do_not_confuse() -> None:
    start = 1767225600000
    for stamp in ("{0}_{1}", "{1}_{0}"):
        names = [f"s_{stamp.format(f'{index:04d}', start + 1003 * index + index % 7)}.tif" for index in COUNTED]
        assert places(names)[0].count(None) == 3
    clock = [f"scan_20260131_{120000 + 100 * (index // 60) + index % 60}_{index:04d}.tif" for index in COUNTED]
    assert places(clock)[0].count(None) == 3
    checksum = [f"s7_{index:04d}_{7919 * index:04x}.tif" for index in COUNTED]
    assert places(checksum)[0].count(None) == 3
    temperature = [f"i{index:03d}_T{300 + (7 * index) % 5}.tif" for index in COUNTED]
    assert places(temperature)[0].count(None) == 3


@pytest.mark.parametrize("names", [numbered("t_{}.tif", range(0, 100, 5)), numbered("t_{:03d}.tif", range(1, 60, 2))])
def test_a_constant_stride_is_no_gap(names: list[str]) -> None:
    assert places(names) == (names, "")


def test_a_gap_in_a_stride() -> None:
    found, said = places(numbered("t_{:03d}.tif", [0, 5, 10, 20, 25, 30]))
    assert found[3] is None
    assert "number 15 is missing" in said


@pytest.mark.parametrize(
    "names",
    [
        numbered("t_{}.tif", (1, 9, 10, 100)),
        ["a.tif", "b.tif", "c.tif"],
        numbered("t_{}.tif", (20260131120000, 20260131120107, 20260131120119)),
    ],
)
def test_without_a_number_that_counts_the_order_is_kept_and_said(names: list[str]) -> None:
    found, said = places(names)
    assert found == names
    assert "taken in the order of" in said


@pytest.mark.parametrize(
    "others",
    [["dark.tif", "img_sum.tif"], ["img_0007_mask.tif"], numbered("dark_{:04d}.tif", range(60)), numbered("test_{}.tif", range(5)),
     ["img_white-field.tif", "overview 12.tif"], ["img_9999.tif"]],
)  # fmt: skip
def test_other_images_are_left_out_and_named(others: list[str]) -> None:
    names = numbered("img_{:04d}.tif", range(48))
    found, said = places([*others, *names])
    assert found == names
    assert all(name in said for name in others[:10])
    assert "left out" in said


@pytest.mark.parametrize(
    ("names", "patterns"),
    [(numbered("s_1_{:04d}.tif", range(9)) + numbered("s_2_{:04d}.tif", range(9)), ["s_1_*.tif", "s_2_*.tif"]),
     (numbered("a{:04d}.tif", range(9)) + numbered("b{:04d}.tif", range(5)), ["a*.tif", "b*.tif"]),
     (numbered("[x] 7_{}.tif", range(9)) + numbered("[x] 8_{}.tif", range(9)), ["[[]x] 7_*.tif", "[[]x] 8_*.tif"]),
     ([f"S{scan}/f_{index:03d}.tif" for scan in (4, 5) for index in range(6)], ["S4/f_*.tif", "S5/f_*.tif"])],
)  # fmt: skip
def test_two_series_are_refused_with_their_patterns(tmp_path: Path, names: list[str], patterns: list[str]) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / name, np.full((4, 5), len(name), np.uint16), photometric="minisblack")
    folder = tmp_path / "S*/*.tif" if "/" in names[0] else tmp_path
    with pytest.raises(FormatError, match="2 series") as caught:
        read(folder)
    for pattern in patterns:
        assert repr(str(tmp_path / pattern)) in str(caught.value)
        assert read(tmp_path / pattern).provenance.get("noticed", ()) == ()


def test_brackets_in_the_name_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "sample[1]"
    folder.mkdir()
    for index in (0, 1, 3):
        tifffile.imwrite(folder / f"f_{index}.tif", np.full((4, 5), index + 1, np.uint16), photometric="minisblack")
    for path in (folder, folder / "*.tif", f"{folder}/f_*.tif"):
        scan = read(path)
        assert scan.frames[:, 0, 0].tolist() == [1, 2, 0, 4]
        assert scan.arrived is not None
        assert scan.arrived.tolist() == [True, True, False, True]


@pytest.mark.parametrize(
    "spoil", [lambda whole: b"", lambda whole: whole[:300], lambda whole: bytes(len(whole)), lambda whole: b"no image"]
)
@pytest.mark.parametrize("bad", [0, 7, 23])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_one_bad_image_does_not_cost_the_scan(tmp_path: Path, spoil: object, bad: int, compression: str | None) -> None:
    counts = np.random.default_rng(1).integers(0, 99, (24, 20, 30)).astype(np.uint16)
    for index, image in enumerate(counts):
        tifffile.imwrite(tmp_path / f"f_{index:04d}.tif", image, photometric="minisblack", compression=compression)
    file = tmp_path / f"f_{bad:04d}.tif"
    file.write_bytes(spoil(file.read_bytes()))  # type: ignore[operator]
    scan = read(tmp_path)
    here = np.arange(24) != bad
    assert np.array_equal(scan.arrived, here)
    assert np.array_equal(scan.frames[...], counts * here[:, None, None])
    assert any(file.name in said and "masked plane" in said for said in scan.provenance["noticed"])
    for index in (3, 4, 5):
        (tmp_path / f"f_{index:04d}.tif").write_bytes(b"")
    with pytest.raises(FormatError, match="4 of 24 images cannot be read"):
        read(tmp_path)
