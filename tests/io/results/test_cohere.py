import dataclasses

import numpy as np
import pytest
import tifffile
from sample_reconstruction import sample_reconstruction, sample_volume

from braggshot.io.results import cohere


def read_as_cohere(folder):
    """cohere_core: data is transposed on reading, then brought to the corner by fftshift; image and support as they are."""
    data = np.fft.fftshift(tifffile.imread(folder / "phasing_data" / "data.tif").transpose())
    return data, np.load(folder / "results_phasing" / "image.npy"), np.load(folder / "results_phasing" / "support.npy")


def to_reciprocal_space(image):
    """cohere_core: ``ifft`` with numpy's norm "forward", which leaves the inverse transform unscaled."""
    return np.fft.ifftn(image, norm="forward")


@pytest.fixture(scope="module")
def crystal():
    whole = sample_reconstruction()
    return dataclasses.replace(whole, volume=dataclasses.replace(sample_volume(whole.rho), valid=np.ones(whole.rho.shape, bool)))


def test_the_object_explains_the_data_in_coheres_convention(tmp_path, crystal):
    """Unequal shapes, one odd, and an asymmetric complex object: sign, order, scale and centring must all be right."""
    cohere.export(tmp_path, crystal)
    data, image, support = read_as_cohere(tmp_path)
    assert data.shape == image.shape == support.shape == crystal.rho.shape[::-1]
    known = data > 0  # the test volume has three voxels that are not valid
    np.testing.assert_allclose(np.abs(to_reciprocal_space(image))[known], data[known], rtol=2e-3, atol=1e-3 * data.max())
    np.testing.assert_array_equal(support > 0, np.abs(image) > 0)


@pytest.mark.parametrize("wrong", [np.conj, lambda image: image.transpose(2, 1, 0)], ids=["sign", "order"])
def test_the_check_sees_a_wrong_convention(tmp_path, crystal, wrong):
    cohere.export(tmp_path, crystal)
    data, image, _ = read_as_cohere(tmp_path)
    other = np.abs(to_reciprocal_space(wrong(image)))
    assert other.shape != data.shape or np.linalg.norm(other - data) > 0.2 * np.linalg.norm(data)


def test_the_tiff_opens_in_the_order_of_the_frames(tmp_path, crystal):
    cohere.export(tmp_path, crystal)
    stored = tifffile.imread(tmp_path / "phasing_data" / "data.tif")
    assert stored.dtype == np.float32
    z, y, x = crystal.volume.shape
    assert stored.shape == (z, y, x)
    # even axes are as prepared; the odd one is rolled by the voxel that cohere's fftshift is off
    np.testing.assert_allclose(stored**2, np.roll(crystal.volume.intensity, 1, axis=2), rtol=1e-5)
