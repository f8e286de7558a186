from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

from braggshot.errors import FormatError
from braggshot.io.files import read_array
from braggshot.io.frames import ArrayFrames, HDF5Frames, SummedFrames, TiffFrames


def test_cutting_a_small_cube_reads_little_of_a_big_file(tmp_path: Path, bytes_read: Any) -> None:
    counts = np.random.default_rng(0).integers(0, 2**31, (96, 256, 256), dtype=np.int32)  # noise: does not compress
    with bytes_read.opener(tmp_path / "big.h5", "w") as file:
        file.create_dataset("data", data=counts, chunks=(1, 64, 64))
    size = (tmp_path / "big.h5").stat().st_size
    frames = HDF5Frames(tmp_path / "big.h5", "data")
    cube = frames[40:56, 100:116, 70:86]
    assert np.array_equal(cube, counts[40:56, 100:116, 70:86])
    chunks = 16 * 64 * 64 * 4
    assert chunks <= bytes_read.total < size / 20


def test_a_scan_larger_than_memory_is_cut(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "huge.h5", "w") as file:
        data = file.create_dataset("data", (2000, 1000, 1000), np.uint32, chunks=(1, 125, 125))  # 8 GB, nothing allocated
        data[1000, 500, 500] = 7
    frames = HDF5Frames(tmp_path / "huge.h5", "data")
    assert frames.shape == (2000, 1000, 1000)
    assert frames[936:1064, 436:564, 436:564].sum() == 7


def test_uncompressed_tiff_stack_is_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = np.arange(8 * 50 * 40, dtype=np.int32).reshape(8, 50, 40)
    tifffile.imwrite(tmp_path / "a.tif", counts, photometric="minisblack")
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda *_, **__: pytest.fail("read a whole page"))
    assert np.array_equal(TiffFrames([tmp_path / "a.tif"])[2:4, 10:12, 5:9], counts[2:4, 10:12, 5:9])


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"metadata": None}, {"imagej": True}])
@pytest.mark.parametrize("share", [0.3, 0.97])
def test_truncated_tiff_stack_is_never_a_shorter_scan(tmp_path: Path, options: dict[str, Any], share: float) -> None:
    counts = np.random.default_rng(1).integers(0, 200, (5, 60, 70)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", counts, photometric="minisblack", **options)
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(FormatError, match=r"a\.tif: .*TIFF"):
        TiffFrames([tmp_path / "a.tif"])[...]


def test_images_of_another_shape_are_named(tmp_path: Path) -> None:
    for index, size in enumerate((6, 6, 5)):
        tifffile.imwrite(tmp_path / f"{index}.tif", np.ones((size, 7), np.int32), photometric="minisblack")
    frames = TiffFrames([tmp_path / f"{index}.tif" for index in range(3)])
    assert frames[:2].sum() == 84
    with pytest.raises(FormatError, match=r"2\.tif: the image is \(5, 7\), the first one \(6, 7\)"):
        frames[2]


def test_colour_image_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 9, 3), np.uint8), photometric="rgb")
    with pytest.raises(FormatError, match="colour"):
        TiffFrames([tmp_path / "a.tif"])


def test_lost_source_of_a_virtual_dataset_is_not_zeros(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "part.h5", "w") as file:
        file["data"] = np.ones((3, 4, 5))
    layout = h5py.VirtualLayout((3, 4, 5), float)
    layout[:] = h5py.VirtualSource("part.h5", "data", (3, 4, 5))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
    assert HDF5Frames(tmp_path / "a.h5", "data")[...].sum() == 60
    (tmp_path / "part.h5").unlink()
    with pytest.raises(FormatError, match=r"spread over 1 files and 1 of them are missing, first .*part\.h5"):
        HDF5Frames(tmp_path / "a.h5", "data")


def test_lost_file_behind_soft_and_external_links_is_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["instrument/images"] = h5py.ExternalLink("gone.h5", "/data")
        file["measurement/images"] = h5py.SoftLink("/instrument/images")
        file["empty"] = h5py.SoftLink("/nowhere")
    with pytest.raises(FormatError, match=r"images is kept in .*gone\.h5, which is missing"):
        HDF5Frames(tmp_path / "a.h5", "measurement/images")
    for name in ("empty", "measurement/other"):
        with pytest.raises(FormatError, match=f"there is no {name}"):
            HDF5Frames(tmp_path / "a.h5", name)
    with pytest.raises(FormatError, match="measurement is a group"):
        HDF5Frames(tmp_path / "a.h5", "measurement")


def test_missing_filter_is_named(tmp_path: Path) -> None:
    """In a process of its own that never saw hdf5plugin: HDF5 keeps filters once they are loaded."""
    script = """
import sys, types
sys.modules["hdf5plugin"] = types.ModuleType("hdf5plugin")
from braggshot.errors import FormatError
from braggshot.io.frames import HDF5Frames
try:
    HDF5Frames(sys.argv[1], "data")[...]
except FormatError as error:
    print(error)
"""
    import hdf5plugin

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", data=np.ones((2, 3, 4)), chunks=(1, 3, 4), **hdf5plugin.Bitshuffle(cname="lz4"))
    said = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a.h5")],
        capture_output=True, text=True, check=True, env={"HDF5_PLUGIN_PATH": str(tmp_path), "PATH": ""},
    )  # fmt: skip
    assert "filter" in said.stdout
    assert "a.h5" in said.stdout


def test_parts_follow_each_other_and_must_fit(tmp_path: Path) -> None:
    counts = np.arange(7 * 4 * 5).reshape(7, 4, 5)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"], file["b"], file["c"] = counts[:3], counts[3:], np.ones((2, 5, 5))
    frames = HDF5Frames(tmp_path / "a.h5", ["a", "b"])
    assert np.array_equal(frames[2:5, 1:3, ::2], counts[2:5, 1:3, ::2])
    assert np.array_equal(frames[[6, 0, 3, 3]], counts[[6, 0, 3, 3]])
    with pytest.raises(FormatError, match="different shapes"):
        HDF5Frames(tmp_path / "a.h5", ["a", "c"])


def test_summed_frames_add_repeats() -> None:
    counts = np.arange(12 * 3 * 4, dtype=np.uint16).reshape(12, 3, 4)
    summed = SummedFrames(ArrayFrames(counts), 3)
    assert summed.shape == (4, 3, 4)
    assert np.array_equal(summed[1:3, 1:], counts.reshape(4, 3, 3, 4).sum(axis=1)[1:3, 1:])


@pytest.mark.parametrize("region", [9, (0, 12), (0, slice(None, None, -1)), (0, [1, 2])])
def test_regions_that_do_not_exist(region: Any) -> None:
    with pytest.raises(IndexError):
        ArrayFrames(np.zeros((9, 12, 10)))[region]


def test_arrays_from_other_files(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no such file"):
        read_array(tmp_path / "dark.tif")
    (tmp_path / "dark.edf").write_text("x")
    with pytest.raises(FormatError, match=r"\.npy, \.npz or \.tif"):
        read_array(tmp_path / "dark.edf")
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(FormatError, match=r"objects\.npy"):
        read_array(tmp_path / "objects.npy")
