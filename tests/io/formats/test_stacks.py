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
