from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.testing import assert_array_equal
from sample_inputs import aps_geometry, make_volume
from sample_reconstruction import sample_reconstruction

from braggshot.errors import DataError, FormatError, OutputError
from braggshot.io import results
from braggshot.io.formats import cxi
from braggshot.io.registry import choose, read
from braggshot.volumes import DiffractionVolume, Window

SHAPES = npst.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), shape=SHAPES)
def test_volume_comes_back(tmp_path: Path, data: st.DataObject, shape: tuple[int, ...]) -> None:
    finite = {"allow_nan": False, "allow_infinity": False}
    basis = npst.arrays(np.float64, (3, 3), elements=st.floats(-1e9, 1e9, **finite))
    triple = st.tuples(*[st.integers(-50, 50)] * 3)
    volume = DiffractionVolume(
        intensity=data.draw(npst.arrays(np.float32, shape, elements=st.floats(0, 2.0**30, width=32, **finite))),
        valid=data.draw(npst.arrays(np.bool_, shape)),
        name=data.draw(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=8)),
        window=data.draw(st.none() | st.builds(Window, triple, st.tuples(*[st.integers(1, 4)] * 3), triple)),
        reciprocal_basis=data.draw(st.none() | basis),
        q_bragg=data.draw(st.none() | npst.arrays(np.float64, 3, elements=st.floats(-1e11, 1e11, **finite))),
        oversampling=data.draw(st.none() | st.tuples(*[st.floats(1, 20)] * 3)),
        steps=data.draw(st.lists(st.sampled_from(["flat field", "cropped to 64³"]), max_size=3).map(tuple)),
        geometry=data.draw(st.none() | st.just(aps_geometry()[1])),
        provenance={"scan": 54, "noticed": ["µm"]},
    )
    cxi.write_data(tmp_path / "a.cxi", volume)
    scan = cxi.read(tmp_path / "a.cxi")
    assert_array_equal(scan.frames[...], volume.intensity)
    assert_array_equal(scan.valid, volume.valid)
    assert scan.prepared
    restored = scan.provenance
    assert restored["title"] == volume.name
    for name in ("reciprocal_basis", "q_bragg"):
        wanted = getattr(volume, name)
        assert (name in restored) == (wanted is not None)
        assert wanted is None or np.array_equal(restored[name], wanted)
    assert restored.get("window") == volume.window
    assert restored.get("oversampling") == volume.oversampling
    assert restored["steps"] == volume.steps
    assert restored["provenance"] == volume.provenance
    if volume.geometry is None:
        assert scan.geometry is None
    else:
        assert scan.geometry is not None
        assert_same_geometry(scan.geometry, volume.geometry)


def assert_same_geometry(found: Any, wanted: Any) -> None:
    for field in dataclasses.fields(wanted):
        if field.name not in {"sample", "detector"}:
            assert getattr(found, field.name) == getattr(wanted, field.name), field.name
    for one, other in zip((*found.sample, *found.detector), (*wanted.sample, *wanted.detector), strict=True):
        assert (one.axis, one.name) == (other.axis, other.name)
        assert_array_equal(one.angle, other.angle)


def test_layout_is_that_of_pynx(tmp_path: Path) -> None:
    truth = (np.ones(make_volume().shape) * 1j).astype(np.complex64)
    cxi.write_data(tmp_path / "a.cxi", make_volume(geometry=aps_geometry()[1]), truth)
    with h5py.File(tmp_path / "a.cxi") as file:
        assert file["cxi_version"][()] == 140
        assert file.attrs["default"] == "entry_1"
        assert file["entry_1"].attrs["default"] == "data_1"
        assert file["entry_1/data_1"].attrs["signal"] == "data"
        assert file.get("entry_1/data_1/data", getlink=True).path == "/entry_1/instrument_1/detector_1/data"
        instrument = file["entry_1/instrument_1"]
        assert instrument["detector_1/data"].compression == "gzip"
        assert set(np.unique(instrument["detector_1/mask"])) == {0, 1}
        assert instrument["detector_1/mask"][0, 1, 1] == 1
        expected = {
            "source_1/energy": (9e3 * 1.602176634e-19, "J"), "beam_1/incident_energy": (9e3 * 1.602176634e-19, "J"),
            "beam_1/incident_wavelength": (1.37760e-10, "m"), "detector_1/distance": (0.5, "m"),
            "detector_1/x_pixel_size": (55e-6, "m"), "detector_1/y_pixel_size": (55e-6, "m"),
        }  # fmt: skip
        for name, (value, units) in expected.items():
            assert instrument[name][()] == pytest.approx(value, rel=1e-5)
            assert instrument[name].attrs["units"] == units
        assert_array_equal(file["entry_1/truth_1/data"], truth)
        without: list[str] = []

        def collect(name: str, node: Any) -> None:
            if isinstance(node, h5py.Dataset) and "units" not in node.attrs:
                without.append(name)

        file.visititems(collect)
        assert not without


def test_file_of_pynx_is_read(tmp_path: Path) -> None:
    """Written as PyNX 2025.1 does: NX_detector, energies under instrument_1, no circles."""
    counts = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    with h5py.File(tmp_path / "pynx.cxi", "w") as file:
        file.attrs.update(creator="PyNX", default="entry_1", instrument="APS 34-ID-C")
        file["cxi_version"] = 140
        detector = file.create_group("entry_1/instrument_1/detector_1")
        detector.attrs["NX_class"] = "NX_detector"
        detector["data"], detector["mask"], detector["distance"] = counts, (counts % 7 == 0).astype(np.uint8) * 2, 0.5
        file["entry_1/instrument_1/source_1/energy"] = 1.44e-15
        file["entry_1/instrument_1/name"] = "APS 34-ID-C"
        file["entry_1/data_1/data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")
    scan = read(tmp_path / "pynx.cxi")
    assert_array_equal(scan.frames[1:], counts[1:])
    assert_array_equal(scan.valid, counts % 7 != 0)
    assert scan.geometry is None
    assert not scan.prepared
    assert scan.provenance["energy"] == 1.44e-15
    assert scan.provenance["distance"] == 0.5
    assert scan.provenance["instrument"] == "APS 34-ID-C"


def test_result_file_is_read_for_its_counts(tmp_path: Path) -> None:
    found = sample_reconstruction()
    results.write(tmp_path / "result.cxi", found)
    scan = read(tmp_path / "result.cxi")
    assert choose(tmp_path / "result.cxi")[0].name == "cxi"
    assert_array_equal(scan.frames[...], found.volume.intensity)
    assert_array_equal(scan.valid, found.volume.valid)
    assert scan.prepared


def test_object_without_counts_is_refused(tmp_path: Path) -> None:
    for values, space in ((np.ones((3, 4, 5), complex), "real"), (np.ones((3, 4, 5)), "real")):
        with h5py.File(tmp_path / "a.cxi", "w") as file:
            file["entry_1/image_1/data"], file["entry_1/image_1/data_space"] = values, space
            file["entry_1/data_1/data"] = h5py.SoftLink("/entry_1/image_1/data")
        with pytest.raises(FormatError, match="direct space but no counts"):
            read(tmp_path / "a.cxi")


@pytest.mark.parametrize("shape", [(4, 5, 6), (3, 7, 5)])
def test_shifted_image_is_centred(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Zero frequency at index 0 comes to N // 2, on odd sizes too."""
    counts, mask = np.zeros(shape), np.zeros(shape, np.int8)
    counts[0, 0, 0], mask[0, 0, 1] = 9, 1
    with h5py.File(tmp_path / "a.cxi", "w") as file:
        group = file.create_group("entry_1/image_1")
        group["data"], group["mask"], group["is_fft_shifted"], group["data_space"] = counts, mask, 1, "reciprocal"
    scan = read(tmp_path / "a.cxi")
    centre = tuple(n // 2 for n in shape)
    assert scan.frames[centre[0]][centre[1:]] == 9
    assert not scan.valid[centre[0], centre[1], centre[2] + 1]  # type: ignore[index]
    assert scan.valid.sum() == np.prod(shape) - 1  # type: ignore[union-attr]


def test_further_mask_is_added_and_must_fit(tmp_path: Path) -> None:
    volume = make_volume()
    cxi.write_data(tmp_path / "a.cxi", volume)
    further = np.zeros(volume.shape[1:])
    further[5, 5] = 1
    np.save(tmp_path / "mask.npy", further)
    scan = read(tmp_path / "a.cxi", mask=tmp_path / "mask.npy")
    assert_array_equal(scan.valid, volume.valid & (further == 0))
    np.save(tmp_path / "mask.npy", further.T)
    with pytest.raises(DataError, match=r"mask has shape"):
        read(tmp_path / "a.cxi", mask=tmp_path / "mask.npy")


def test_nothing_half_written_where_writing_fails(tmp_path: Path) -> None:
    (tmp_path / "a.cxi").mkdir()
    with pytest.raises(OutputError, match=r"a\.cxi"):
        cxi.write_data(tmp_path / "a.cxi", make_volume())
    assert [path.name for path in tmp_path.iterdir()] == ["a.cxi"]
