from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from braggshot.errors import DataError, FormatError
from braggshot.io.registry import read


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["a/images"] = np.arange(60).reshape(3, 4, 5)
        file["a/pixel_mask"] = np.zeros((3, 4, 5), np.int8)
        file["a/flux"] = np.array([1.0, 2.0, 3.0])
        file["a/angle"] = np.array([0.1, 0.2, 0.3])
        file["a/angle"].attrs["units"] = "rad"
        file["a/picture"] = np.zeros((4, 5))
    return tmp_path / "scan.h5"


def test_the_only_3d_dataset_needs_no_name(path: Path) -> None:
    scan = read(path)
    assert_array_equal(scan.frames[1], np.arange(20, 40).reshape(4, 5))
    assert scan.provenance["dataset"] == "a/images"


def test_several_datasets_are_listed(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["b/more"] = np.zeros((2, 2, 2))
    with pytest.raises(FormatError, match=r"dataset=\.\.\.; these are there: a/images, b/more"):
        read(path)
    with pytest.raises(FormatError, match="there is no a/image"):
        read(path, dataset="a/image")
    with pytest.raises(DataError, match="3D"):
        read(path, dataset="a/picture")


@pytest.mark.parametrize("level", ["default", "signal"])
def test_the_default_of_the_file_is_taken_and_said(path: Path, level: str) -> None:
    with h5py.File(path, "a") as file:
        file["b/more"] = np.zeros((2, 2, 2))
        file["c/plot/data"] = h5py.SoftLink("/a/images")
        file["c/plot"].attrs["signal"] = "data"
        if level == "default":
            file.attrs["default"], file["c"].attrs["default"] = "c", "plot"
    scan = read(path)
    assert scan.provenance["dataset"] == "a/images"
    assert scan.provenance["noticed"] == ("a/images, the default of the file, was taken; it also holds b/more (input.dataset).",)


def test_a_file_that_only_links_to_parts(tmp_path: Path) -> None:
    counts = np.arange(1, 241).reshape(12, 4, 5)
    with h5py.File(tmp_path / "master.h5", "w") as master:
        for number in range(1, 5):
            if number < 4:
                with h5py.File(tmp_path / f"d_{number}.h5", "w") as file:
                    file["data"] = counts[4 * number - 4 : 4 * number]
            master[f"entry/data/data_{number}"] = h5py.ExternalLink(f"d_{number}.h5", "/data")
    scan = read(tmp_path / "master.h5")
    assert_array_equal(scan.frames[...], counts)
    assert "d_4.h5, which is missing: the scan is read to where it stopped, 12 frames" in scan.provenance["noticed"][0]


@pytest.mark.parametrize("name", ["pixel_mask", "flatfield", "dark", "dark_frames", "background", "Flat_Field"])
def test_masks_and_darks_are_no_candidates(path: Path, name: str) -> None:
    with h5py.File(path, "a") as file:
        file[f"b/{name}"] = np.zeros((2, 2, 2))
        file["b/names"] = np.full((2, 2, 2), b"text")
    assert read(path).provenance["dataset"] == "a/images"


@pytest.mark.parametrize("kind", ["complex64", "bool", "S4", "object"])
@pytest.mark.parametrize("suffix", [".h5", ".cxi", ".npy", ".npz"])
def test_values_that_are_no_counts_are_refused_by_every_format(tmp_path: Path, kind: str, suffix: str) -> None:
    path, values = tmp_path / f"a{suffix}", np.full((4, 5, 6), "x" if kind == "object" else 1).astype(kind)
    if suffix in {".npy", ".npz"}:
        np.save(path, values) if suffix == ".npy" else np.savez(path, data=values)
    else:
        with h5py.File(path, "w") as file:
            values = values.astype(h5py.string_dtype()) if kind == "object" else values
            file["data" if suffix == ".h5" else "entry_1/instrument_1/detector_1/data"] = values
    asked = {"dataset": "data"} if suffix == ".h5" else {}
    with pytest.raises((DataError, FormatError)) as caught:
        read(path, **asked)
    said = (
        "no counts"
        if suffix == ".cxi"
        else "cannot be read"
        if kind == "object" and suffix[1] == "n"
        else "values, expected counts"
    )
    assert said in str(caught.value)
    assert ("|F|^2" in str(caught.value)) == (kind == "complex64" and suffix != ".cxi")


@pytest.mark.parametrize("kind", [">u2", ">i4", "f2", ">f8", "u8"])
def test_every_kind_of_number_is_read(tmp_path: Path, kind: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = np.arange(24).reshape(2, 3, 4).astype(kind)
    assert_array_equal(read(tmp_path / "a.h5").frames[...], np.arange(24).reshape(2, 3, 4))


@pytest.mark.parametrize("shape", [(1, 5, 6), (5, 6), (9, 1, 5, 6), (1, 9, 5, 6)])
def test_an_axis_of_length_one_of_data_and_mask(tmp_path: Path, shape: tuple[int, ...]) -> None:
    bad = np.zeros(shape, np.uint8)
    bad[..., 2, 3] = 1
    for name, place in (("a.cxi", "entry_1/instrument_1/detector_1/"), ("a.h5", "entry/")):
        with h5py.File(tmp_path / name, "w") as file:
            file[f"{place}data"], file[f"{place}mask"] = np.arange(270).reshape(9, 1, 5, 6), bad
        scan = read(tmp_path / name, **({"mask": "entry/mask"} if name == "a.h5" else {}))
        assert_array_equal(scan.frames[...], np.arange(270).reshape(9, 5, 6))
        assert_array_equal(np.broadcast_to(scan.valid, (9, 5, 6)), np.broadcast_to(bad.reshape(-1, 5, 6) == 0, (9, 5, 6)))


def test_none_is_said(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = np.zeros((2, 2))
    with pytest.raises(FormatError, match="holds none"):
        read(tmp_path / "a.h5")


def test_monitor_and_angle_units(path: Path) -> None:
    scan = read(path, dataset="a/images", monitor="a/flux", angle="a/angle")
    assert_array_equal(scan.monitor, [1, 2, 3])
    assert_array_equal(scan.rocking_angle, [0.1, 0.2, 0.3])  # radians stay
    with h5py.File(path, "a") as file:
        del file["a/angle"].attrs["units"]
    assert np.allclose(read(path, angle="a/angle").rocking_angle, np.deg2rad([0.1, 0.2, 0.3]))
    with pytest.raises(FormatError, match=r"monitor has shape \(4, 5\), expected 3 values"):
        read(path, monitor="a/picture")


def test_mask_in_the_file_or_beside_it(path: Path, tmp_path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["a/pixel_mask"][1, 2, 3] = 4
    assert np.argwhere(~read(path, mask="a/pixel_mask").valid).tolist() == [[1, 2, 3]]
    np.save(tmp_path / "m.npy", np.eye(4, 5))
    assert_array_equal(read(path, mask=str(tmp_path / "m.npy")).valid, np.eye(4, 5) == 0)
    with pytest.raises(DataError, match="the mask has shape"):
        read(path, mask="a/flux")
