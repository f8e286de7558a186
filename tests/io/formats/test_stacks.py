from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from measured_data import DATA
from numpy.testing import assert_array_equal
from scipy.io import savemat

from braggshot.errors import DataError, FormatError
from braggshot.io.formats import stacks
from braggshot.io.registry import read


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), shape=npst.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6))
def test_npz_comes_back(tmp_path: Path, data: st.DataObject, shape: tuple[int, ...]) -> None:
    kind = data.draw(st.sampled_from([np.uint16, np.int32, np.float32, np.float64]))
    counts = data.draw(npst.arrays(kind, shape))
    mask = data.draw(npst.arrays(np.uint8, data.draw(st.sampled_from([shape, shape[1:]])), elements=st.integers(0, 2)))
    np.savez(tmp_path / "a.npz", data=counts, mask=mask)
    scan = read(tmp_path / "a.npz")
    assert_array_equal(scan.frames[...], counts)
    assert scan.frames.dtype == kind
    assert_array_equal(scan.valid, mask == 0)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [(("zero", "iobs", "data"), "data"), (("zero", "iobs"), "iobs"), (("flat", "zero", "one"), "zero"), (("mask", "zero"), "zero")],
)
def test_which_array_of_an_archive(tmp_path: Path, names: tuple[str, ...], chosen: str) -> None:
    arrays = {name: np.full((2, 3, 4), index) for index, name in enumerate(names)} | (
        {"flat": np.ones(3)} if "flat" in names else {}
    )
    np.savez(tmp_path / "a.npz", **arrays)
    assert read(tmp_path / "a.npz").frames[0, 0, 0] == names.index(chosen)


def test_images_are_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 9, 100, 1):
        tifffile.imwrite(tmp_path / f"s2_{number}.tif", np.full((3, 4), number, np.int32), photometric="minisblack")
    (tmp_path / "notes.txt").write_text("x")
    assert read(tmp_path).frames[:, 0, 0].tolist() == [1, 9, 10, 100]
    assert read(tmp_path / "s2_1*.tif").frames[:, 0, 0].tolist() == [1, 10, 100]
    assert read(tmp_path).name == tmp_path.name


def test_mask_must_fit_and_complex_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((5, 6, 7)))
    np.save(tmp_path / "mask.npy", np.zeros((7, 6)))
    with pytest.raises(DataError, match=r"the mask has shape \(7, 6\), the frames \(5, 6, 7\)"):
        read(tmp_path / "a.npy", mask=tmp_path / "mask.npy")
    np.save(tmp_path / "c.npy", np.ones((5, 6, 7), complex))
    with pytest.raises(DataError, match=r"complex128 values, expected counts"):
        read(tmp_path / "c.npy")
    np.savez(tmp_path / "empty.npz")
    with pytest.raises(FormatError, match="empty"):
        read(tmp_path / "empty.npz")


@pytest.mark.parametrize("shape", [(9, 1, 5, 6), (1, 9, 5, 6), (9, 5, 6, 1)])
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat"])
def test_an_axis_of_length_one_is_dropped(tmp_path: Path, shape: tuple[int, ...], suffix: str) -> None:
    counts, path = np.arange(270, dtype=np.uint16).reshape(shape), tmp_path / f"a{suffix}"
    write = {".npy": np.save, ".npz": lambda path, array: np.savez(path, data=array), ".mat": write_matlab}[suffix]
    write(path, counts)
    scan = read(path)
    assert_array_equal(scan.frames[...], counts.reshape(9, 5, 6))
    if suffix != ".mat" or shape[-1] != 1:  # MATLAB has no last axis of length 1
        assert "axis of length 1 was dropped" in scan.provenance["noticed"][0]


def write_matlab(path: Path, array: np.ndarray) -> None:
    savemat(path, {"counts": array, "flat": np.ones((3, 4, 5)), "energy": 9.0})


def test_matlab_says_which_axis_is_taken_as_frames(tmp_path: Path) -> None:
    counts = np.arange(60.0).reshape(3, 4, 5)
    write_matlab(tmp_path / "a.mat", counts)
    scan = read(tmp_path / "a.mat")
    assert_array_equal(scan.frames[...], counts)
    assert "counts is 3 x 4 x 5: the first axis is taken as the frames" in scan.provenance["noticed"][0]
    (tmp_path / "a.mat").write_bytes((tmp_path / "a.mat").read_bytes()[:300])
    with pytest.raises(FormatError, match=r"a\.mat: cannot be read as \.mat"):
        read(tmp_path / "a.mat")


def test_which_of_several_arrays_was_taken_is_said(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", one=np.ones((2, 3, 4)), two=np.ones((2, 3, 4)))
    assert read(tmp_path / "a.npz").provenance["noticed"] == ("one was taken as the counts; two are there too.",)


def test_npy_stays_on_disk(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((5, 6, 7)))
    scan = stacks.read(tmp_path / "a.npy")
    assert isinstance(scan.frames.array, np.memmap)  # type: ignore[attr-defined]
    assert type(scan.frames[1:3]) is np.ndarray


@pytest.mark.data
def test_argonne_crystal() -> None:
    path = DATA / "argonne-crystal-64" / "ft_crop_64.tif"
    if not path.exists():
        pytest.skip(f"no measured data in {DATA}")
    scan = read(path)
    assert scan.frames.shape == (64, 64, 64)
    assert scan.frames[...].sum(dtype=float) == pytest.approx(8.3e8, rel=0.01)
