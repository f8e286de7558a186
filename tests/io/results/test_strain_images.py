"""A strain map through a result file and through VTK, with names, units and frames as other programs look for them."""

import dataclasses

import h5py
import numpy as np
import pytest
from sample_reconstruction import sample_reconstruction

from braggshot.crystal_frame import StrainConfig, strain_map
from braggshot.io import results
from braggshot.io.results import vtk
from braggshot.volumes import Facet, StrainMap, Uncertainty


@pytest.fixture(scope="module")
def found():
    reconstruction = sample_reconstruction(shape=(20, 22, 25))
    smooth = np.exp(0.1j * np.indices(reconstruction.rho.shape)[1] ** 1.5)
    reconstruction = dataclasses.replace(reconstruction, rho=(np.abs(reconstruction.rho) * smooth).astype(np.complex64))
    flat = np.where(reconstruction.support, 0.1, 0).astype(np.float32)
    spread = dataclasses.replace(reconstruction, uncertainty=Uncertainty(flat, flat / 100, 4, "starts that agree"))
    facets = (
        Facet(np.array([0.0, 0.6, 0.8]), 2e-15, 0.3, np.array([1e-9, 2e-9, 3e-9]), 1e-4, 2e-5, (1, -1, 1), 0.05),
        Facet(np.array([1.0, 0.0, 0.0]), 1e-15, 0.1, np.zeros(3), -1e-4, 3e-5),
    )
    return spread, dataclasses.replace(strain_map(spread, StrainConfig(reflection=(1, 1, 1))), facets=facets)


@pytest.fixture(scope="module")
def path(found, tmp_path_factory):
    path = tmp_path_factory.mktemp("cxi") / "result.cxi"
    results.write(path, dataclasses.replace(found[0], strain=found[1]))
    return path


def test_everything_comes_back(found, path):
    back = results.read_strain(path)
    for field in dataclasses.fields(StrainMap):
        before, after = getattr(found[1], field.name), getattr(back, field.name)
        if isinstance(before, np.ndarray):
            np.testing.assert_allclose(after, before, rtol=1e-6, atol=1e-18, err_msg=field.name)
        elif field.name == "facets":
            for one, other in zip(before, after, strict=True):
                assert one.hkl == other.hkl
                assert one.off == other.off
                np.testing.assert_allclose(one.normal, other.normal)
                assert one.strain_std == other.strain_std
        else:
            assert after == pytest.approx(before) if isinstance(before, float) else after == before, field.name
    assert results.read(path).uncertainty.samples == 4


def test_named_links_units_and_frames(path):
    with h5py.File(path) as file:
        entry = file["entry_1"]
        for name, units in {
            "amplitude": "photons^0.5",
            "displacement": "m",
            "strain": "1",
            "d_spacing": "m",
            "support": "1",
        }.items():
            assert entry.get(name, getlink=True).path.startswith("/entry_1/image_")
            data = entry[name]["data"]
            assert data.attrs["units"] == units
            assert data.attrs["frame"] == "crystal"
            assert data.attrs["basis"].shape == (3, 3)
        assert entry["image_1/frame"].asstr()[()] == "detector"  # rho itself stays on the grid of its measurement
        assert entry["strain_1/numbers/strain_std"][()] > 0
        assert np.isnan(entry["strain/data"][()]).any()


def test_viewers_open_the_file_at_the_strain_with_axes_in_nanometres(found, path):
    """As silx and h5web look for the default plot: along the attributes ``default``, then ``signal`` and ``axes``."""
    from silx.io import nxdata

    with h5py.File(path) as file:
        for start in (file, file["entry_1"], file["entry_last"]):
            shown = nxdata.get_default(start)
            assert shown is not None
            assert shown.is_valid
            np.testing.assert_array_equal(shown.signal[()], found[1].strain)
            assert shown.axes_dataset_names == ["z", "y", "x"]
            assert shown.signal.attrs["long_name"] == "strain along q, crystal frame"
            for axis, (values, size) in enumerate(zip(shown.axes, found[1].strain.shape, strict=True)):
                assert values.attrs["units"] == "nm"
                edge = np.linalg.norm(found[1].basis[:, axis]) * 1e9
                np.testing.assert_allclose(values[()], (np.arange(size) - size // 2) * edge)


def test_every_image_is_a_plot_that_says_what_it_holds(path):
    from silx.io import nxdata

    with h5py.File(path) as file:
        entry = file["entry_1"]
        for name in ("data_1", *(name for name in entry if name.startswith("image_"))):
            shown = nxdata.NXdata(entry[name])
            assert shown.is_valid, shown.issues
            assert [axis.attrs["units"] for axis in shown.axes] == ["nm"] * 3
            assert " frame" in shown.signal.attrs["long_name"]
        assert nxdata.NXdata(entry["data_1"]).axes_dataset_names == ["rocking", "row", "column"]


def test_numbers_have_the_units_that_their_names_tell(path):
    with h5py.File(path) as file:
        units = {name: data.attrs["units"] for name, data in file["entry_1/strain_1/numbers"].items()}
    expected = {"volume_m3": "m^3", "d_spacing_m": "m", "strain_std": "1", "displacement_range_m": "m"}
    assert {name: units[name] for name in expected} == expected
    assert "1" not in [value for name, value in units.items() if name.endswith(("_m", "_m3"))]


def test_without_a_strain_map_there_is_none(tmp_path):
    results.write(tmp_path / "a.cxi", sample_reconstruction())
    assert results.read_strain(tmp_path / "a.cxi") is None


def test_vtk_holds_the_fields_in_nanometres(found, tmp_path):
    vtk.write(tmp_path / "a.vti", dataclasses.replace(found[0], strain=found[1]))
    text = (tmp_path / "a.vti").read_text()
    for name, units in {"displacement": "nm", "strain": "1", "lattice_parameter": "nm", "bulk": "1"}.items():
        assert f'Name="{name}"' in text
        assert f">{units}</InformationKey>" in text
    assert 'Direction="1 0 0 0 1 0 0 0 1"' in text.replace("-0", "0")
