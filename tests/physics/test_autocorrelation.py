"""The autocorrelation of a pattern and its noise; the reflection that fills voxels without counts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braggshot.physics.autocorrelation import autocorrelation, mirror


def test_noise_of_the_autocorrelation_is_that_of_poisson_counts():
    counts = np.random.default_rng(0).poisson(0.7, (40, 41, 42)).astype(np.float32)
    modulus, noise = autocorrelation(counts)
    far = modulus[:12, :12, :12]  # complex Gaussian noise: <|A|^2> is its variance
    assert modulus[20, 20, 21] == pytest.approx(1)
    assert np.sqrt((far**2).mean()) == pytest.approx(noise, rel=0.35)


@given(st.tuples(*[st.integers(3, 9)] * 3), st.data())
@settings(deadline=None, max_examples=25)
def test_mirror_is_a_point_reflection(shape, data):
    centre = tuple(data.draw(st.integers(0, size - 1)) for size in shape)
    voxel = tuple(data.draw(st.integers(0, size - 1)) for size in shape)
    volume = np.zeros(shape)
    volume[voxel] = 1
    opposite = tuple(2 * c - v for c, v in zip(centre, voxel, strict=True))
    inside = all(0 <= index < size for index, size in zip(opposite, shape, strict=True))
    assert mirror(volume, centre).sum() == inside
    assert not inside or mirror(volume, centre)[opposite] == 1
