import dataclasses
import json
import shutil

import h5py
import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sample_reconstruction import sample_reconstruction

from braggshot.errors import FormatError
from braggshot.io import results
from braggshot.io.results import strain_images
from braggshot.physics.forward import PointSpread, intensity
from braggshot.volumes import DiffractionVolume, Quality, Reconstruction


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("results") / "example.cxi"
    results.write(path, sample_reconstruction())
    return path


def assert_same(read, written, name="reconstruction"):
    """Deep equality of records, mappings and arrays; the type of containers counts, the precision of arrays too."""
    if dataclasses.is_dataclass(written):
        for field in dataclasses.fields(written):
            assert_same(getattr(read, field.name), getattr(written, field.name), f"{name}.{field.name}")
    elif isinstance(written, dict):
        assert list(read) == list(written), name  # columns of tables keep their order
        for key in written:
            assert_same(read[key], written[key], f"{name}[{key!r}]")
    elif isinstance(written, np.ndarray):
        assert read.dtype == written.dtype, name
        assert_array_equal(read, written, name)
    elif isinstance(written, tuple):
        assert isinstance(read, tuple), name
        assert len(read) == len(written), name
        for number, (one, other) in enumerate(zip(read, written, strict=True)):
            assert_same(one, other, f"{name}[{number}]")
    else:
        assert read == written, name


def test_every_field_comes_back(written):
    assert_same(results.read(written), sample_reconstruction())


def test_a_bare_reconstruction_comes_back(tmp_path):
    rho = np.zeros((4, 5, 6), np.complex64)
    rho[1:3, 2:4, 1:5] = 1 + 1j
    bare = Reconstruction(
        rho, rho != 0, DiffractionVolume(np.ones((4, 5, 6), np.float32), np.ones((4, 5, 6), bool)), Quality(0.1, 0.2, 0.3, 0.4)
    )
    results.write(tmp_path / "bare.cxi", bare)
    assert_same(results.read(tmp_path / "bare.cxi"), bare)


def test_pynx_finds_what_it_looks_for(written):
    """The paths that PyNX's readers open, with the types and attributes that it writes."""
    expected = sample_reconstruction()
    with h5py.File(written) as file:
        assert file["cxi_version"][()] == 150
        assert file.attrs["default"] == "entry_1"
        assert file.get("entry_last", getlink=True).path == "/entry_1"
        entry = file["entry_last"]
        assert (entry.attrs["NX_class"], entry.attrs["default"]) == ("NXentry", "amplitude")
        assert entry["program_name"].asstr()[()].startswith("braggshot ")
        image = entry["image_1"]
        assert image["data"].dtype == np.complex64
        assert_array_equal(image["data"][()], expected.rho)
        assert image["mask"].dtype == np.int8
        assert_array_equal(image["mask"][()] > 0, expected.support)
        assert image.get("support", getlink=True).path == "/entry_1/image_1/mask"
        assert image["is_fft_shifted"][()] == 0
        assert image["data_space"].asstr()[()] == "real"
        assert image["data"].compression == "gzip"
        assert entry.get("data_1/data", getlink=True).path == "/entry_1/image_1/data"
        assert {name: entry["data_1"].attrs[name] for name in ("NX_class", "signal")} == {"NX_class": "NXdata", "signal": "data"}
        detector = entry["instrument_1/detector_1"]
        assert_array_equal(detector["data"][()], expected.volume.intensity)
        assert_array_equal(detector["mask"][()] == 0, expected.volume.valid)  # 0 good, 1 bad
        assert detector["mask"][0, 0, 0] == 1
        assert (detector["y_pixel_size"][()], detector["x_pixel_size"][()]) == (55e-6, 56e-6)
        assert entry["instrument_1/source_1/energy"][()] == 1.44e-15
        assert entry["instrument_1/beam_1/incident_wavelength"][()] == pytest.approx(1.3795e-10, rel=1e-4)
        process = image["process_1"]
        assert process["program"].asstr()[()] == "braggshot"
        assert process["configuration/refine/beta"][()] == 0.9
        assert json.loads(process["note_1/data"].asstr()[()])["refine"]["psf"] is None
        for name, value in {"llk_poisson": 0.9, "free_llk_poisson": 1.1, "chi2": 0.0123, "r_factor": 0.08, "llk_free": 1.1}.items():
            assert process[f"results/{name}"][()] == value
        assert process["results/nb_point_support"][()] == expected.support.sum()


@pytest.mark.parametrize("key", ["amplitude", "phase", "support", "mode"])
def test_cdiutils_finds_images_by_their_names(written, key):
    """As its ``load_cxi(path, key)`` does: entry_1/<key> is an NXdata with a member ``data``."""
    rho = sample_reconstruction().rho
    with h5py.File(written) as file:
        if key != "mode":  # NeXus declares all image_N as real numbers
            assert file["entry_1"].get(key, getlink=True).path.startswith("/entry_1/image_")
            assert file[f"entry_1/{key}"].attrs["target"] == file["entry_1"].get(key, getlink=True).path
        assert file[f"entry_1/{key}"].attrs["NX_class"] == "NXdata"
        found = file[f"entry_1/{key}/data"][()]
    wanted = {"amplitude": np.abs(rho), "phase": np.where(rho != 0, np.angle(rho), 0), "support": rho != 0, "mode": 0.9 * rho}[key]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_the_completed_diffraction_has_no_gaps(tmp_path):
    """Counts where they are trusted, the crystal's own pattern in the gap, with the point spread that was found."""
    found = sample_reconstruction()
    valid = found.volume.valid.copy()
    valid[:, 3:5] = False
    counts = np.where(valid, found.volume.intensity, 0).astype(np.float32)
    gap = dataclasses.replace(found, volume=dataclasses.replace(found.volume, valid=valid, intensity=counts))
    results.write(tmp_path / "gap.cxi", gap)
    with h5py.File(tmp_path / "gap.cxi") as file:
        completed = file["entry_1/completed_1/data"]
        assert completed.attrs["units"] == "counts"
        completed = completed[()]
    psf = PointSpread(tuple(found.psf["sigma"]), found.psf["eta"])
    model = intensity(torch.from_numpy(found.rho), psf).numpy()
    assert np.array_equal(completed[valid], counts[valid])
    assert completed[~valid] == pytest.approx(model[~valid], rel=1e-4)
    assert (completed[~valid] > 0).any()


def test_the_older_name_of_the_modes_is_read(written, tmp_path):
    """Until it was found that NeXus keeps the ending `_weights`, files had `mode_weights`, and `mode` as a link to an image."""
    shutil.copy(written, tmp_path / "old.cxi")
    with h5py.File(tmp_path / "old.cxi", "a") as file:
        results_of = file["entry_1/image_1/process_1/results"]
        results_of.move("mode_shares", "mode_weights")
        file.move("entry_1/mode", "entry_1/image_5")
        file["entry_1/mode"] = h5py.SoftLink("/entry_1/image_5")
    found = results.read(tmp_path / "old.cxi").ensemble
    assert_same(found, results.read(written).ensemble)


def test_later_stages_add_named_images(written, tmp_path):
    with h5py.File(tmp_path / "more.cxi", "w") as file:
        with h5py.File(written) as source:
            source.copy("entry_1", file)
        image = strain_images.add_image(file["entry_1"], "strain", np.zeros((3, 3, 3)), "1", frame="crystal")
        assert image.name == "/entry_1/image_5"
        written_as = {"units": "1", "frame": "crystal", "long_name": "strain along q, crystal frame"}
        assert dict(file["entry_1/strain/data"].attrs) == written_as


def test_every_data_set_has_units(written):
    units = {}
    with h5py.File(written) as file:
        file.visititems(
            lambda name, item: units.update({name: item.attrs.get("units")}) if isinstance(item, h5py.Dataset) else None
        )
    assert [name for name, unit in units.items() if unit is None] == []
    detector = "entry_1/instrument_1/detector_1"
    assert units[f"{detector}/data"] == "counts"
    assert units[f"{detector}/distance"] == "m"
    assert units[f"{detector}/q_bragg"] == "1/m"
    assert units["entry_1/image_1/basis"] == "m"
    assert units["entry_1/image_1/process_1/results/seconds/phasing"] == "s"


def test_settings_with_awkward_names_and_values(tmp_path):
    settings = {
        "a/b": 1,
        "empty": [],
        "none": None,
        "nested": {"tuple": ("x", "y"), "number": np.float32(0.5), "objects": [{"z": 1}]},
    }
    results.write(tmp_path / "a.cxi", sample_reconstruction(configuration=settings))
    read = results.read(tmp_path / "a.cxi").configuration
    assert read == settings | {"nested": {"tuple": ["x", "y"], "number": 0.5, "objects": [{"z": 1}]}}


def write_as_pynx(path, rho, support, **configuration):
    """A PyNX 2025.1 result: complex128, cropped to the support, no counts, the last entry linked."""
    with h5py.File(path, "w") as file:
        file["cxi_version"] = 150
        for number in (1, 2):
            entry = file.create_group(f"entry_{number}")
            entry["program_name"] = "PyNX 2025.1"
            image = entry.create_group("image_1")
            image["data"] = rho.astype(np.complex128) * number
            image["mask"] = support.astype(np.int8)
            image["process_1/program"] = np.bytes_("PyNX")
            image["process_1/configuration/nb_raar"] = 600
            for name, value in configuration.items():
                image[f"process_1/configuration/{name}"] = value
            image["process_1/results/llk_poisson"] = 0.53
            image["process_1/results/free_llk_poisson"] = 1.49
            history = np.zeros(3, dtype=[("cycle", "<i8"), ("algorithm", "S4")])
            image["process_1/results/cycle_history"] = history
        file["entry_last"] = h5py.SoftLink("/entry_2")


def test_a_cropped_pynx_object_is_put_into_its_grid(tmp_path):
    random = np.random.default_rng(2)
    rho = random.normal(size=(5, 4, 3)) + 1j
    write_as_pynx(tmp_path / "pynx.cxi", rho, np.abs(rho) > 1.2, iobs_shape=(9, 8, 7))
    read = results.read(tmp_path / "pynx.cxi")
    assert read.rho.shape == read.volume.shape == (9, 8, 7)
    assert read.rho.dtype == np.complex64
    # the origin N // 2 of the crop stays at the origin of the grid
    assert read.rho[4, 4, 3] == np.complex64(2 * rho[2, 2, 1])  # times 2: entry_last is the second entry
    np.testing.assert_allclose(read.rho[2:7, 2:6, 2:5], 2 * rho, rtol=1e-6)
    assert read.support.sum() == (np.abs(rho) > 1.2).sum()
    assert not read.volume.valid.any()
    assert (read.quality.llk, read.quality.llk_free) == (0.53, 1.49)
    assert np.isnan(read.quality.chi2)
    assert read.method == "PyNX"
    assert "PyNX" in read.reasons[0]
    assert read.configuration["nb_raar"] == 600


def test_without_the_grid_the_object_keeps_its_own(tmp_path):
    write_as_pynx(tmp_path / "pynx.cxi", np.ones((5, 4, 3)), np.ones((5, 4, 3)))
    assert results.read(tmp_path / "pynx.cxi").rho.shape == (5, 4, 3)


def test_modes_and_corner_centred_objects(tmp_path):
    modes = np.random.default_rng(3).normal(size=(2, 5, 4, 6)) * (1 + 0.5j)
    with h5py.File(tmp_path / "modes.h5", "w") as file:
        file["entry_1/image_1/data"] = modes
        file["entry_1/image_1/is_fft_shifted"] = 1
    read = results.read(tmp_path / "modes.h5")
    np.testing.assert_allclose(read.rho, np.fft.fftshift(modes[0]), rtol=1e-6)
    assert read.rho[2, 2, 3] == np.complex64(modes[0, 0, 0, 0])


def test_an_object_larger_than_its_measurement_is_refused(tmp_path):
    write_as_pynx(tmp_path / "pynx.cxi", np.ones((5, 4, 3)), np.ones((5, 4, 3)), iobs_shape=(4, 8, 8))
    with pytest.raises(FormatError, match=r"shape \(5, 4, 3\), larger than the measured volume \(4, 8, 8\)"):
        results.read(tmp_path / "pynx.cxi")


def test_files_that_hold_no_reconstruction(tmp_path, written):
    with h5py.File(tmp_path / "scan.cxi", "w") as file:
        file["entry_1/instrument_1/detector_1/data"] = np.ones((3, 3, 3))
    (tmp_path / "text.cxi").write_text("not HDF5")
    (tmp_path / "cut.cxi").write_bytes(written.read_bytes()[:3000])
    for name, said in {
        "scan": "braggshot reconstruct",
        "text": "cannot be opened as HDF5",
        "cut": "cannot be opened as HDF5",
        "missing": "no such file",
    }.items():
        with pytest.raises(FormatError, match=said) as caught:
            results.read(tmp_path / f"{name}.cxi")
        assert "\n" not in str(caught.value)
