"""What is read may be anything: it is refused in one clear line, at once, and the program goes on."""

from __future__ import annotations

import contextlib
import os
import struct
import zipfile
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest

from braggshot import cli, config, gate, load_result
from braggshot.errors import BraggshotError, ConfigError, DataError, FormatError
from braggshot.io.archives import open_npz
from braggshot.io.chunks import read_region
from braggshot.io.files import open_hdf5, read_array, read_npy
from braggshot.io.formats.recorded import Plan, Recorder
from braggshot.io.frames import HDF5Frames
from braggshot.io.hdf5 import read_value
from braggshot.io.registry import describe, read
from braggshot.nn.weights import load_network
from braggshot.volumes import Frame

COUNTS = np.random.default_rng(1).poisson(3, (6, 32, 40)).astype("u4")
PACKED = {
    "bslz4": dict(hdf5plugin.Bitshuffle(cname="lz4")),
    "bszstd": dict(hdf5plugin.Bitshuffle(cname="zstd")),
    "lz4": dict(hdf5plugin.LZ4()),
    "blosc": dict(hdf5plugin.Blosc()),
    "zstd": dict(hdf5plugin.Zstd()),
    "bzip2": dict(hdf5plugin.BZip2()),
    "gzip and fletcher32": {"compression": "gzip", "fletcher32": True},
}


def loop(path: Path) -> None:
    path.symlink_to(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [os.mkfifo, loop, device, os.mkdir])
@pytest.mark.parametrize(
    "reader", [open_hdf5, read_npy, read_array, load_result, load_network, config.read_toml, read], ids=lambda one: one.__name__
)
@pytest.mark.parametrize("suffix", [".npz", ".tif"])
def test_only_regular_files_are_opened(tmp_path: Path, make, reader, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    make(path)
    with (
        pytest.raises(BraggshotError, match=r"expected a file|cannot be opened|holds no TIFF|no network") as caught,
        _entered(reader(path)),
    ):
        pass
    assert "\n" not in str(caught.value)


def _entered(opened):
    return opened if hasattr(opened, "__enter__") else pytest.fail("it was opened")


def test_a_name_that_is_not_utf8_or_too_long(tmp_path: Path) -> None:
    odd = os.path.join(os.fsencode(tmp_path), b"a\xff.npy")
    np.save(os.fsdecode(odd), COUNTS)
    with pytest.raises(FormatError, match="its name is not UTF-8"):
        read(os.fsdecode(odd))
    with pytest.raises(FormatError, match=r"no such file|cannot be opened"):
        read(tmp_path / ("a" * 300 + ".npy"))


@pytest.mark.parametrize("kind", PACKED)
def test_damaged_chunks_are_refused(tmp_path: Path, kind: str) -> None:
    random = np.random.default_rng(3)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("data", data=COUNTS, chunks=(1, 32, 40), **PACKED[kind])
        file.flush()
        good = bytearray(data.id.read_direct_chunk((2, 0, 0))[1])
        torn = good[: len(good) // 2] if kind == "zstd" else good[:12] + b"\xff\xff\xff\xff" + good[16:]
        for damage in (good[:3], good[: len(good) // 2], torn, bytes(len(good)), good[:-1]):
            data.id.write_direct_chunk((2, 0, 0), bytes(damage))
            file.flush()
            with pytest.raises(FormatError, match=r"a\.h5: (frame 2 of data is damaged|data cannot be read)"):
                read_region(data)
            assert np.array_equal(read_region(data, (slice(3, 6), slice(None), slice(None))), COUNTS[3:])
        for _ in range(40):
            damage = bytearray(good)
            damage[random.integers(len(damage))] = random.integers(256)
            data.id.write_direct_chunk((2, 0, 0), bytes(damage))
            file.flush()
            with contextlib.suppress(FormatError):
                assert read_region(data).shape == COUNTS.shape


def test_damaged_chunks_behind_a_virtual_dataset(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "part.h5", "w") as file:
        data = file.create_dataset("data", data=COUNTS, chunks=(1, 32, 40), **PACKED["bslz4"])
        data.id.write_direct_chunk((4, 0, 0), struct.pack(">QI", 5120, 5120) + b"\xff" * 20)
    layout = h5py.VirtualLayout(COUNTS.shape, "u4")
    layout[...] = h5py.VirtualSource("part.h5", "data", COUNTS.shape, "u4")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
    frames = HDF5Frames(tmp_path / "a.h5", "data")
    assert np.array_equal(frames[:4], COUNTS[:4])
    with pytest.raises(FormatError, match=r"part\.h5: frame 4 of data is damaged"):
        frames[2:5]


def test_an_unknown_filter_is_decoded_elsewhere(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("data", data=COUNTS, chunks=(1, 32, 40), **hdf5plugin.Blosc2())
        good = data.id.read_direct_chunk((1, 0, 0))[1]
    assert np.array_equal(HDF5Frames(tmp_path / "a.h5", "data")[1:3, 2:9], COUNTS[1:3, 2:9])
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["data"].id.write_direct_chunk((1, 0, 0), good[:40])
    with pytest.raises(FormatError, match=r"a\.h5: /?data cannot be read"):
        HDF5Frames(tmp_path / "a.h5", "data")[...]


def test_declared_sizes_are_compared_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("huge", (10**9,), "f4", chunks=(1000,))
        file.create_dataset("texts", (10**9,), h5py.string_dtype(), chunks=(1000,))
        file.create_dataset("chunk", (1, 2**15, 2**14), "f4", chunks=(1, 2**15, 2**14), compression="gzip")
        for name in file:
            with pytest.raises(FormatError, match=r"are declared, but the file has|of memory"):
                read_value(file[name])
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("other.npy", "w") as stream:
            np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": (10**12,)})
        with archive.open("data.npy", "w") as stream:
            np.lib.format.write_array(stream, COUNTS)
    assert np.array_equal(read(tmp_path / "a.npz").frames[...], COUNTS), "an array that nobody asks for is not read"
    with open_npz(tmp_path / "a.npz") as members, pytest.raises(FormatError, match="declares"):
        members["other"].read()
    np.save(tmp_path / "mask.npy", np.zeros((40, 40, 40)))
    with pytest.raises(DataError, match=r"mask\.npy: has shape 40 x 40 x 40, more than"):
        read(tmp_path / "a.npz", mask=tmp_path / "mask.npy")
    monkeypatch.setattr(gate, "free_memory", lambda: 1000)
    monkeypatch.setattr(gate, "SMALL", 100)
    with pytest.raises(FormatError, match="of memory, and 1000 bytes are free"):
        gate.refuse_oversized("a", 2000)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["simulate", "--shape", "100000", "100000", "100000"], "a simulated volume of shape (100000, 100000, 100000): takes"),
        (["reconstruct", "a.npz", "--set", "prepare.shape=[1000000000,9,9]"], "prepare.shape (1000000000, 9, 9): takes"),
        (["reconstruct", "a.npz", "--set", "prepare.binning=[1000000,1,1]"], "joins more voxels than the scan"),
    ],
    ids=lambda part: part[0] if isinstance(part, list) else "",
)  # fmt: skip
def test_sizes_that_are_asked_for_are_compared_first(tmp_path: Path, monkeypatch, capsys, asked: list[str], said: str) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", data=COUNTS)
    assert cli.main([*asked, "-o", "b.cxi"]) == 1
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1


@pytest.mark.parametrize("error", [MemoryError("Unable to allocate 9 GiB"), RuntimeError("can't allocate memory: 9 bytes")])
def test_too_little_memory_is_one_line_and_no_bug(tmp_path: Path, monkeypatch, capsys, error: Exception) -> None:
    def fail(*_arguments: object, **_named: object) -> None:
        raise error

    monkeypatch.setattr("braggshot.crystals.sample.simulate_volume", fail)
    assert cli.main(["simulate", "-o", str(tmp_path / "b.cxi")]) == 1
    told = capsys.readouterr().err
    assert "there is not enough memory" in told
    assert "bug" not in told


@pytest.mark.parametrize("shape", [(2, 60000, 60000), (2 * 10**6, 4, 4), (0, 4, 4)])
def test_frames_that_no_detector_takes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("data", shape, "f4", chunks=tuple(min(side, 100) for side in shape) if shape[0] else None)
        if data.size:
            data[0, 0, 0] = 1
    with pytest.raises(BraggshotError, match=r"declares frames of|holds no counts"):
        read(tmp_path / "a.h5", dataset="data")


def test_links_in_a_circle_to_a_fifo_or_outside(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["loop"] = h5py.SoftLink("/loop")
        file["fifo"] = h5py.ExternalLink("pipe", "/a")
        file.create_dataset("outside", COUNTS.shape, "u1", external=[("/etc/passwd", 0, COUNTS.size)])
        layout = h5py.VirtualLayout(COUNTS.shape, "u4")
        layout[...] = h5py.VirtualSource(".", "/itself", COUNTS.shape, "u4")
        file.create_virtual_dataset("itself", layout)
        for name in ("one", "two"):
            layout = h5py.VirtualLayout(COUNTS.shape, "u4")
            layout[...] = h5py.VirtualSource(".", "/two" if name == "one" else "/one", COUNTS.shape, "u4")
            file.create_virtual_dataset(name, layout)
    said = {
        "loop": "lead in a circle", "fifo": "pipe: is a FIFO", "outside": "outside of its folder", "itself": "leads back to itself",
        "one": "leads back to itself",
    }  # fmt: skip
    for name, words in said.items():
        with pytest.raises(BraggshotError, match=words):
            read(tmp_path / "a.h5", dataset=name)


def test_groups_nested_very_deep(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file
        for _ in range(1000):
            group = group.create_group("a")
    with pytest.raises(FormatError, match="nested more than"):
        describe(tmp_path / "a.h5")


@pytest.mark.parametrize(
    ("stored", "name"),
    [("../../x", "x"), ("/abs/y", "y"), ("..", "rec"), (None, "rec"), (5, "rec"), ("good", "good")],
)
def test_a_recordings_name_is_no_path(tmp_path: Path, stored, name: str) -> None:
    recorder = Recorder(tmp_path / "rec", Plan("scan", (32, 40), np.dtype("u4"), 6))
    for index, image in enumerate(COUNTS):
        recorder.add(Frame(image=image, index=index))
    with h5py.File(tmp_path / "rec" / "about.h5", "r+") as file:
        del file["name"]
        if stored is not None:
            file["name"] = stored
    assert read(tmp_path / "rec").name == name


def test_a_long_comment_in_a_spec_file(tmp_path: Path) -> None:
    (tmp_path / "a.spec").write_bytes(b"#F a\n#C camdist " + b"x" * 5_000_000 + b"\n#S 1 ascan th 0 1 2 1\n#L th\n1\n")
    with pytest.raises(FormatError, match=r"a\.spec"):
        describe(tmp_path / "a.spec")


@pytest.mark.parametrize(
    "text",
    [b"a = \xe9", b"a = " + b"[" * 20000, b"a = = 1", b"[prepare]\nbinning = '" + b"x" * 9000 + b"'"],
    ids=["latin-1", "deep", "no value", "long"],
)
def test_damaged_settings(tmp_path: Path, text: bytes) -> None:
    from braggshot.pipeline import resolve

    (tmp_path / "a.toml").write_bytes(text)
    with pytest.raises(ConfigError) as caught:
        resolve(config.read_toml(tmp_path / "a.toml"))
    assert len(str(caught.value)) < 1500
    assert "\n" not in str(caught.value)


def test_true_faults_stay_attached(tmp_path: Path) -> None:
    """``--debug`` shows where in a reader a damaged file led to an error."""
    with pytest.raises(FormatError, match=r"a: cannot be read as X \(KeyError: 'b'\)") as caught, gate.explain_damage("a", "X"):
        _ = {}["b"]
    assert isinstance(caught.value.__cause__, KeyError)
