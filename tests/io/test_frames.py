from __future__ import annotations

import struct
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
        data[1000] = 0
        data[1000, 500, 500] = 7
    frames = HDF5Frames(tmp_path / "huge.h5", "data")
    assert frames.shape == (2000, 1000, 1000)
    assert frames[936:1064, 436:564, 436:564].sum() == 7
    assert frames.arrived is not None
    assert np.flatnonzero(frames.arrived).tolist() == [1000]


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


@pytest.mark.parametrize("metadata", [None, {}])
def test_an_image_of_another_shape_in_a_stack_is_left_out(tmp_path: Path, metadata: Any) -> None:
    counts = np.arange(12 * 5 * 6, dtype=np.uint16).reshape(12, 5, 6)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for image in (*counts, np.ones((3, 4), np.uint16)):
            file.write(image, photometric="minisblack", metadata=metadata)
    frames = TiffFrames([tmp_path / "a.tif"])
    assert np.array_equal(frames[...], counts)
    assert frames.noticed == ("a.tif holds 1 other images, of shape (3, 4), were left out.",)


@pytest.mark.parametrize("shape", [(12, 1, 5, 6), (1, 12, 5, 6), (12, 5, 6, 1)])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_an_axis_of_length_one_in_a_stack(tmp_path: Path, shape: tuple[int, ...], compression: Any) -> None:
    counts = np.arange(12 * 5 * 6, dtype=">u2").reshape(12, 5, 6)
    tifffile.imwrite(tmp_path / "a.tif", counts.reshape(shape), photometric="minisblack", compression=compression)
    frames = TiffFrames([tmp_path / "a.tif"])
    assert np.array_equal(frames[2:, 1:], counts[2:, 1:])
    assert "axis of length 1 was dropped" in frames.noticed[0]


@pytest.mark.parametrize("code", [65000, 270, 306])
def test_a_damaged_tag_that_is_not_needed(tmp_path: Path, code: int) -> None:
    counts = np.arange(12 * 5 * 6, dtype="<u2").reshape(12, 5, 6)
    for index, image in enumerate(counts):
        tags = [(256, 4, 1, 6), (257, 4, 1, 5), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1),
                (278, 4, 1, 5), (279, 4, 1, 60), (339, 3, 1, 1), (code, 12, 1, 2**31 - 256)]  # fmt: skip  # it lies beyond the file
        directory = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
        head = b"II*\0" + struct.pack("<I", 8 + 60)
        (tmp_path / f"{index}.tif").write_bytes(head + image.tobytes() + struct.pack("<H", len(tags)) + directory + bytes(4))
    frames = TiffFrames([tmp_path / f"{index}.tif" for index in range(12)])
    assert np.array_equal(frames[...], counts)
    assert frames.arrived is None


def test_the_largest_of_several_images_in_each_file(tmp_path: Path) -> None:
    counts = np.arange(4 * 15 * 16, dtype=np.uint16).reshape(4, 15, 16)
    for index, image in enumerate(counts):
        with tifffile.TiffWriter(tmp_path / f"{index}.tif") as file:
            file.write(np.ones((3, 4), np.uint16), photometric="minisblack")
            file.write(image, photometric="minisblack")
    frames = TiffFrames([tmp_path / f"{index}.tif" for index in range(4)])
    assert np.array_equal(frames[...], counts)
    assert "the largest was taken" in frames.noticed[0]


def test_images_of_another_shape_are_named(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.tif" for index in range(6)]
    for path, size in zip(paths, (6, 6, 5, 6, 6, 4), strict=True):
        tifffile.imwrite(path, np.ones((size, 7), np.int32), photometric="minisblack")
    frames = TiffFrames(paths[:5])
    assert frames.arrived is not None
    assert np.flatnonzero(~frames.arrived).tolist() == [2]
    assert frames[...].sum() == 4 * 42
    assert any("2.tif: the image is (5, 7), the others (6, 7): left as a masked plane" in said for said in frames.noticed)
    with pytest.raises(FormatError, match=r"2\.tif: the image is \(5, 7\).* 2 of 6 images cannot be read"):
        TiffFrames(paths)


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
    single = ArrayFrames(counts)
    single.arrived, single.noticed = np.arange(12) != 4, ("frame 4 is missing",)
    summed = SummedFrames(single, 3)
    assert summed.arrived is not None
    assert summed.arrived.tolist() == [True, False, True, True]
    assert summed.noticed == single.noticed
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
