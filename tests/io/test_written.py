"""Frames of HDF5 files that were never written, or whose files are missing, have a place and are named."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest

from braggshot.errors import FormatError
from braggshot.io.files import is_hdf5
from braggshot.io.frames import HDF5Frames
from braggshot.io.registry import read

COUNTS = np.arange(1, 12 * 4 * 6 + 1, dtype=np.uint16).reshape(12, 4, 6)


def lost(frames: HDF5Frames, counts: np.ndarray = COUNTS) -> list[int]:
    """The indices of the frames that are not there; all others must have their counts, and those must be zeros."""
    here = np.ones(len(frames), bool) if frames.arrived is None else frames.arrived
    assert np.array_equal(frames[...], counts * here[:, None, None])
    assert np.array_equal(frames[::-1, 1:3], (counts * here[:, None, None])[::-1, 1:3])
    return np.flatnonzero(~here).tolist()


@pytest.mark.parametrize("chunks", [(1, 4, 6), (1, 2, 6), (2, 4, 3), (5, 4, 6), (1, 3, 5)])
@pytest.mark.parametrize("fill", [0, 65535])
def test_chunks_that_were_never_written(tmp_path: Path, chunks: tuple[int, ...], fill: int) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("data", COUNTS.shape, "u2", chunks=chunks, compression="gzip", fillvalue=fill)
        data[:10] = COUNTS[:10]
    frames = HDF5Frames(tmp_path / "a.h5", "data")
    assert frames[:10].sum() == COUNTS[:10].sum()
    if chunks[0] <= 2:
        assert lost(frames) == [10, 11]
        assert frames.noticed == ("2 of 12 frames of data were never written (10-11): left as masked planes.",)


def test_frames_between_and_half_a_frame(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("data", COUNTS.shape, "u2", chunks=(1, 2, 6))
        for index in (0, 1, 2, 5, 6, 7, 8, 9, 11):
            data[index] = COUNTS[index]
        data[10, :2] = 9
    frames = HDF5Frames(tmp_path / "a.h5", "data")
    assert lost(frames) == [3, 4, 10]
    assert "(3-4, 10)" in frames.noticed[0]
    scan = read(tmp_path / "a.h5")
    assert scan.arrived is not None
    assert scan.arrived.sum() == 9
    assert scan.provenance["noticed"] == frames.noticed


def test_a_writer_that_leaves_out_empty_chunks(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("data", COUNTS.shape, "u2", chunks=(1, 2, 2))
        data[:, :2, :2] = 1
    frames = HDF5Frames(tmp_path / "a.h5", "data")
    assert frames.arrived is None
    assert frames[...].sum() == 48
    assert "parts without counts" in frames.noticed[0]


@pytest.mark.parametrize("chunks", [(1, 4, 6), None])
def test_nothing_was_ever_written(tmp_path: Path, chunks: Any) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", COUNTS.shape, "u2", chunks=chunks)
    with pytest.raises(FormatError, match="none of the 12 frames of data was ever written"):
        HDF5Frames(tmp_path / "a.h5", "data")


@pytest.mark.parametrize(
    ("removed", "length", "gone", "said"),
    [((2,), 8, [], "part_2.h5, which is missing: the scan is read to where it stopped, 8 frames"),
     ((1, 2), 4, [], r"part_1.h5, which is missing (and 1 further parts): the scan"),
     ((1,), 12, [4, 5, 6, 7], "part_1.h5, which is missing: its frames, taken as 4-7, are left as masked planes"),
     ((0,), 12, [0, 1, 2, 3], "part_0.h5, which is missing")],
)  # fmt: skip
@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_parts_of_a_master_file(
    tmp_path: Path, removed: tuple[int, ...], length: int, gone: list[int], said: str, how: str
) -> None:
    names = write_master(tmp_path)
    for number in removed:
        part = tmp_path / f"part_{number}.h5"
        whole = part.read_bytes()
        part.unlink()
        if how == "damaged":
            part.write_bytes(whole[:100])
    frames = HDF5Frames(tmp_path / "master.h5", names)
    assert lost(frames, COUNTS[:length]) == gone
    assert any(
        said.replace("is missing", "is missing" if how == "missing" else "is damaged or lacks it") in one for one in frames.noticed
    )


def write_master(folder: Path) -> list[str]:
    with h5py.File(folder / "master.h5", "w") as master:
        for number in range(3):
            with h5py.File(folder / f"part_{number}.h5", "w") as file:
                file["entry/data/data"] = COUNTS[4 * number : 4 * number + 4]
            master[f"entry/data/data_{number}"] = h5py.ExternalLink(f"part_{number}.h5", "/entry/data/data")
    return [f"entry/data/data_{number}" for number in range(3)]


def test_parts_of_different_length_and_all_parts_missing(tmp_path: Path) -> None:
    names = write_master(tmp_path)
    with h5py.File(tmp_path / "part_2.h5", "w") as file:
        file["entry/data/data"] = COUNTS[8:9]
    assert lost(HDF5Frames(tmp_path / "master.h5", names), COUNTS[:9]) == []
    with h5py.File(tmp_path / "part_1.h5", "w") as file:  # announced, one frame written
        data = file.create_dataset("entry/data/data", (4, 4, 6), "u2", chunks=(1, 4, 6))
        data[0] = COUNTS[4]
    frames = HDF5Frames(tmp_path / "master.h5", names)
    assert lost(frames, COUNTS[:9]) == [5, 6, 7]
    for number in range(3):
        (tmp_path / f"part_{number}.h5").unlink()
    with pytest.raises(FormatError, match=r"part_0\.h5, which is missing: copy it to where the link points"):
        HDF5Frames(tmp_path / "master.h5", names)


@pytest.mark.parametrize("interleaved", [False, True])
def test_sources_of_a_virtual_dataset(tmp_path: Path, interleaved: bool) -> None:
    layout = h5py.VirtualLayout(COUNTS.shape, "u2")
    for number in range(3):
        cut = slice(number, None, 3) if interleaved else slice(4 * number, 4 * number + 4)
        with h5py.File(tmp_path / f"part_{number}.h5", "w") as file:
            data = file.create_dataset("data", (4, 4, 6), "u2", chunks=(1, 4, 6))
            data[: 3 if number == 2 else 4] = COUNTS[cut][: 3 if number == 2 else 4]
        layout[cut] = h5py.VirtualSource(f"part_{number}.h5", "data", (4, 4, 6))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_virtual_dataset("data", layout, fillvalue=7)
    assert lost(HDF5Frames(tmp_path / "a.h5", "data")) == [11]
    (tmp_path / "part_1.h5").unlink()
    frames = HDF5Frames(tmp_path / "a.h5", "data")
    assert lost(frames) == ([1, 4, 7, 10, 11] if interleaved else [4, 5, 6, 7, 11])
    assert "3 files and 1 of them are missing" in frames.noticed[0]
    assert "part_1.h5: its frames " + ("1, 4, 7, 10" if interleaved else "4-7") in frames.noticed[0]
    assert "1 of 12 frames of data were never written (11)" in frames.noticed[1]


def test_modules_of_a_detector_and_the_gaps_between_them(tmp_path: Path) -> None:
    """What no file fills is no count: the gap between modules, and a module whose file is missing."""
    layout = h5py.VirtualLayout((12, 9, 6), "u2")
    for number, rows in enumerate((slice(0, 4), slice(5, 9))):
        with h5py.File(tmp_path / f"module_{number}.h5", "w") as file:
            file["data"] = COUNTS
        layout[:, rows] = h5py.VirtualSource(f"module_{number}.h5", "data", COUNTS.shape)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
    scan = read(tmp_path / "a.h5", dataset="data")
    assert scan.arrived is None
    assert scan.valid is not None
    assert np.flatnonzero(~scan.valid.all(axis=1)).tolist() == [4]
    assert "data: 6 of 54 pixels are filled by no file: masked." in scan.provenance["noticed"]
    np.testing.assert_array_equal(scan.frames[:, 5:], COUNTS)
    (tmp_path / "module_0.h5").unlink()
    scan = read(tmp_path / "a.h5", dataset="data")
    assert scan.arrived is None
    assert np.flatnonzero(~scan.valid.all(axis=1)).tolist() == [0, 1, 2, 3, 4]
    assert any("1 of them are missing, first" in said for said in scan.provenance["noticed"])
    (tmp_path / "module_1.h5").unlink()
    with pytest.raises(FormatError, match="spread over 2 files and 2 of them are missing"):
        read(tmp_path / "a.h5", dataset="data")


def test_a_virtual_dataset_longer_than_its_sources(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kept"] = COUNTS[:9]
        layout = h5py.VirtualLayout(COUNTS.shape, "u2")
        layout[:9] = h5py.VirtualSource(".", "kept", (9, 4, 6))
        file.create_virtual_dataset("data", layout)
    assert lost(HDF5Frames(tmp_path / "a.h5", "data")) == [9, 10, 11]


def test_external_files_of_raw_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    COUNTS[:6].tofile(tmp_path / "one.raw")
    COUNTS[6:].tofile(tmp_path / "two.raw")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        half = COUNTS[:6].nbytes
        file.create_dataset("data", COUNTS.shape, "u2", external=[("one.raw", 0, half), ("two.raw", 0, half)])
    monkeypatch.chdir(tmp_path.parent)  # HDF5 itself would look for them here
    assert lost(HDF5Frames(tmp_path / "a.h5", "data")) == []
    COUNTS[6:9].tofile(tmp_path / "two.raw")
    frames = HDF5Frames(tmp_path / "a.h5", "data")
    assert lost(frames) == [9, 10, 11]
    assert "two.raw, which is shorter than announced: frames 9-11 of 12 are left as masked planes" in frames.noticed[0]
    (tmp_path / "one.raw").unlink()
    assert lost(HDF5Frames(tmp_path / "a.h5", "data")) == [0, 1, 2, 3, 4, 5, 9, 10, 11]
    (tmp_path / "two.raw").unlink()
    with pytest.raises(FormatError, match=r"one\.raw, which is missing"):
        HDF5Frames(tmp_path / "a.h5", "data")


def test_a_file_that_its_writer_did_not_close(tmp_path: Path) -> None:
    for swmr in (True, False):
        with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
            data = file.create_dataset("data", COUNTS.shape, "u2", chunks=(1, 4, 6), maxshape=(None, 4, 6))
            if swmr:
                file.swmr_mode = True
            data[:10] = COUNTS[:10]
            file.flush()
            shutil.copy(tmp_path / "a.h5", tmp_path / f"left_{swmr}.h5")
    scan = read(tmp_path / "left_True.h5")
    assert lost(scan.frames) == [10, 11]  # type: ignore[arg-type]
    assert any("was not closed by the program that wrote it" in said for said in scan.provenance["noticed"])
    with pytest.raises(FormatError, match="run 'h5clear -s' on the copy"):
        HDF5Frames(tmp_path / "left_False.h5", "data")


@pytest.mark.parametrize("packed", [hdf5plugin.Bitshuffle(cname="lz4"), hdf5plugin.Bitshuffle(cname="zstd"), hdf5plugin.LZ4()])
def test_a_chunk_that_states_an_impossible_size(tmp_path: Path, packed: Any) -> None:
    """The decoders of these filters end the program on such a chunk."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("data", data=COUNTS, chunks=(1, 4, 6), **packed)
        place = data.id.get_chunk_info_by_coord((5, 0, 0)).byte_offset
    assert lost(HDF5Frames(tmp_path / "a.h5", "data")) == []
    with (tmp_path / "a.h5").open("r+b") as stream:
        stream.seek(place)
        stream.write(b"\0\0\0\0\x02")
    frames = HDF5Frames(tmp_path / "a.h5", "data")
    assert np.array_equal(frames[:5], COUNTS[:5])
    with pytest.raises(FormatError, match=r"a\.h5: frame 5 of data is damaged"):
        frames[...]


@pytest.mark.parametrize("block", [0, 512, 1024, 4096])
def test_a_user_block(tmp_path: Path, block: int) -> None:
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=block) as file:
        file["data"] = COUNTS
    if block:
        with (tmp_path / "a.mat").open("r+b") as stream:
            stream.write(b"MATLAB 7.3 MAT-file")
    assert is_hdf5(tmp_path / "a.mat")
    assert np.array_equal(read(tmp_path / "a.mat").frames[...], COUNTS)
    (tmp_path / "b.h5").write_bytes(bytes(3000))
    assert not is_hdf5(tmp_path / "b.h5")


@pytest.mark.parametrize("shape", [(12, 1, 4, 6), (1, 12, 4, 6), (12, 4, 6, 1), (12, 4, 1, 6), (1, 12, 1, 4, 6)])
def test_an_axis_of_length_one_is_dropped(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("data", shape, "u2", chunks=tuple(1 if side in (1, 12) else side for side in shape))
        data[...] = COUNTS.reshape(shape)
    scan = read(tmp_path / "a.h5")
    assert lost(scan.frames) == []  # type: ignore[arg-type]
    assert f"shape {' x '.join(map(str, shape))}" in scan.provenance["noticed"][0]
