"""An object goes to every other program and back: same hand, same sign of the displacement, same peak, same counts.

The object is chiral, has a ramp and an asymmetric displacement, and its axes have different lengths, one of them odd. So a mirror,
a swap of axes, the twin, the conjugate or a shift by a voxel each give another object.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import h5py
import numpy as np
import pytest
import tifffile
import torch

from braggshot.errors import FormatError, OutputError
from braggshot.io.results import cdiutils, cohere
from braggshot.io.results.objects import read_object, write_object
from braggshot.physics.fourier import fourier
from braggshot.volumes import DiffractionVolume, Quality, Reconstruction

SHAPE = (18, 20, 23)
RAMP = (2, -3, 4)  # voxels by which the peak lies off the middle: frames, rows, columns
PLACES = {"cxi": "a.cxi", "cohere": "cohere", "cdiutils": "cdiutils"}


def places():
    return [axis - n // 2 for axis, n in zip(np.indices(SHAPE).astype(float), SHAPE, strict=True)]


def displacement_phase():
    """-q.u of a displacement that has no symmetry."""
    z, y, x = places()
    return 0.04 * z * y - 0.03 * x * x + 0.02 * y * x + 0.003 * z**3


@pytest.fixture(scope="module")
def crystal():
    z, y, x = places()
    # A staircase: three bars along the three axes, each beginning where the last one ends, wind to the right.
    bars = [(abs(z) < 2) & (abs(y) < 2) & (x > -6) & (x < 2), (abs(z) < 2) & (y > -2) & (y < 6) & (abs(x) < 2),
            (z > -2) & (z < 5) & (y > 2) & (y < 6) & (abs(x) < 2)]  # fmt: skip
    body = bars[0] | bars[1] | bars[2]
    ramp = 2 * np.pi * sum(peak * axis / n for peak, axis, n in zip(RAMP, (z, y, x), SHAPE, strict=True))
    rho = (40 * body * np.exp(1j * (displacement_phase() + ramp))).astype(np.complex64)
    counts = fourier(torch.from_numpy(rho)).abs().square().numpy()
    volume = DiffractionVolume(counts, np.ones(SHAPE, bool), name="stairs_S0054")
    return Reconstruction(rho, body, volume, Quality(0.0, 0.0, 0.5, 0.5))


def test_the_object_has_no_symmetry(crystal):
    """Else the tests below would see nothing."""
    counts = crystal.volume.intensity
    peak = tuple(n // 2 + k for n, k in zip(SHAPE, RAMP, strict=True))
    assert np.hypot(*np.subtract(np.unravel_index(counts.argmax(), SHAPE), peak)[:2]) < 3
    for axis in range(3):
        mirrored = np.roll(np.flip(counts, axis), 1 - SHAPE[axis] % 2, axis)
        assert np.linalg.norm(mirrored - counts) > 0.3 * np.linalg.norm(counts), axis


@pytest.mark.parametrize("layout", PLACES)
def test_an_object_goes_there_and_back(crystal, tmp_path, layout):
    place = tmp_path / PLACES[layout]
    files = write_object(crystal, place, layout)
    assert files
    assert all(file.is_file() for file in files)
    back = read_object(place)
    np.testing.assert_allclose(back.rho, crystal.rho, atol=1e-4 * np.abs(crystal.rho).max())
    np.testing.assert_array_equal(back.support, crystal.support)
    if layout != "cdiutils":  # its counts are a file of its own pipeline
        np.testing.assert_allclose(back.volume.intensity, crystal.volume.intensity, rtol=1e-4, atol=1e-2)
        assert back.volume.valid.all()


@pytest.mark.parametrize("layout", ["cohere", "cdiutils"])
def test_from_one_program_to_another(crystal, tmp_path, layout):
    """cohere -> cdiutils -> CXI gives what braggshot wrote first, and so the other way round."""
    first, second = tmp_path / "first", tmp_path / "second"
    write_object(crystal, first, layout, scan=54)
    other = {"cohere": "cdiutils", "cdiutils": "cohere"}[layout]
    write_object(read_object(first), second, other, scan=54)
    write_object(read_object(second), tmp_path / "c.cxi", "cxi")
    np.testing.assert_allclose(read_object(tmp_path / "c.cxi").rho, crystal.rho, atol=1e-4 * np.abs(crystal.rho).max())


def as_cohere(folder):
    """What cohere has in memory: magnitudes with the peak at the corner, object, support; arrays are (column, row, frame)."""
    data = np.fft.fftshift(tifffile.imread(folder / "phasing_data" / "data.tif").transpose())
    return data, np.load(folder / "results_phasing" / "image.npy"), np.load(folder / "results_phasing" / "support.npy")


def test_cohere_sees_the_same_crystal(crystal, tmp_path):
    """Its object explains its own data, and its phase is +q.u at the same material point."""
    write_object(crystal, tmp_path, "cohere")
    data, image, support = as_cohere(tmp_path)
    unscaled = np.abs(np.fft.ifftn(image, norm="forward"))
    np.testing.assert_allclose(unscaled, data, rtol=1e-3, atol=1e-3 * data.max())
    columns, rows, frames = np.nonzero(support > 0.5)
    inside = crystal.rho[frames, rows, columns]
    assert np.abs(inside).min() > 0  # the same voxel holds the same material
    turn = np.exp(1j * np.angle(image[columns, rows, frames])) * np.exp(1j * np.angle(inside))
    np.testing.assert_allclose(turn, turn[0], atol=1e-3)  # +q.u against -q.u
    for wrong in (image.conj(), image[::-1], image[:, ::-1], image[:, :, ::-1]):  # the twin alone explains the data as well
        assert np.linalg.norm(np.abs(np.fft.ifftn(wrong, norm="forward")) - data) > 0.1 * np.linalg.norm(data)


def test_pynx_and_cdiutils_see_the_same_crystal(crystal, tmp_path):
    """Forward transform, orthonormal: the object is the one whose |fftn|^2 are the counts, peak in the middle."""
    write_object(crystal, tmp_path / "a.cxi", "cxi")
    (written,) = write_object(crystal, tmp_path, "cdiutils")
    for path, name in ((tmp_path / "a.cxi", "entry_last/image_1/data"), (written, "entry_1/data_1/data")):
        with h5py.File(path) as file:
            rho = np.asarray(file[name])
        rho = rho[0] if rho.ndim == 4 else rho
        pattern = np.abs(np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(rho), norm="ortho"))) ** 2
        np.testing.assert_allclose(pattern, crystal.volume.intensity, rtol=1e-3, atol=1e-4 * pattern.max())
        z, y, x = places()
        ramp = 2 * np.pi * sum(peak * axis / n for peak, axis, n in zip(RAMP, (z, y, x), SHAPE, strict=True))
        left = np.angle(rho * np.exp(-1j * (displacement_phase() + ramp)))[crystal.support]
        np.testing.assert_allclose(left, left[0], atol=1e-3)  # phase = -q.u, and not its twin's


@pytest.mark.skipif(importlib.util.find_spec("cohere_core") is None, reason="cohere is not installed")
@pytest.mark.filterwarnings("ignore")
def test_cohere_itself_reads_our_files(crystal, tmp_path):
    import cohere_core.utilities as utilities
    from cohere_core.lib.nplib import nplib

    write_object(crystal, tmp_path, "cohere")
    data = np.fft.fftshift(utilities.read_tif(str(tmp_path / "phasing_data" / "data.tif")))
    image = np.load(tmp_path / "results_phasing" / "image.npy")
    np.testing.assert_allclose(np.abs(nplib.ifft(image)), data, rtol=1e-3, atol=1e-3 * data.max())


def test_counts_of_cdiutils_are_read_from_the_file_beside(crystal, tmp_path):
    (written,) = write_object(crystal, tmp_path, "cdiutils")
    assert not read_object(written).volume.valid.any()
    mask = np.zeros(SHAPE, np.int8)
    mask[0] = 1
    with h5py.File(tmp_path / f"S54{cdiutils.COUNTS}", "w") as file:
        file["entry_1/image_1/data"] = crystal.volume.intensity
        file["entry_1/image_1/mask"] = mask
    back = read_object(tmp_path)
    np.testing.assert_array_equal(back.volume.intensity, crystal.volume.intensity)
    np.testing.assert_array_equal(back.volume.valid, mask == 0)


def test_an_object_of_cohere_without_data_has_no_counts(crystal, tmp_path):
    cohere.export(tmp_path, crystal)
    (tmp_path / "phasing_data" / "data.tif").unlink()
    assert not read_object(tmp_path / "results_phasing").volume.valid.any()


def test_what_cannot_be_read_or_replaced_is_said(crystal, tmp_path):
    with pytest.raises(FormatError, match="no such file"):
        read_object(tmp_path / "none")
    for scan in (1, 2):
        write_object(crystal, tmp_path / "many", "cdiutils", scan=scan)
    with pytest.raises(FormatError, match=r"S1_.*S2_.*name the file"):
        read_object(tmp_path / "many")
    with pytest.raises(OutputError, match="scan number"):
        write_object(replace(crystal, volume=replace(crystal.volume, name="stairs")), tmp_path, "cdiutils")
    np.save(tmp_path / "image.npy", np.ones(3))
    (tmp_path / "results_phasing").mkdir()
    (tmp_path / "image.npy").rename(tmp_path / "results_phasing" / "image.npy")
    with pytest.raises(OutputError, match="did not write it"):
        write_object(crystal, tmp_path, "cohere")
    write_object(crystal, tmp_path, "cohere", force=True)
