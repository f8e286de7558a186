"""The window of an object of unknown voxel size, from the counts it scatters into."""

import numpy as np
import pytest
import torch

from braggshot.physics.frame_search import find_placement

SHAPE, EXTENTS = (24, 16, 14), (24, 32, 28)


def lopsided():
    """A body without symmetry, with a curved phase; zero outside."""
    z, y, x = np.indices(SHAPE) - np.array(SHAPE).reshape(3, 1, 1, 1) // 2
    inside = (np.abs(z + 0.4 * y) < 5) & (np.abs(y) < 4) & (x > -4) & (x + 0.5 * z < 4)
    return (inside * np.exp(0.05j * z * y - 0.03j * x**2)).astype(np.complex64)


def scattered(rho, between):
    """|F| in raw voxels that lie so far beyond the whole k of the object."""
    field = rho
    for axis, (width, part) in enumerate(zip(EXTENTS, between, strict=True)):
        k = np.arange(width) - width // 2 + part
        waves = np.exp(-2j * np.pi * np.outer(k, np.arange(rho.shape[axis])) / width)
        field = np.moveaxis(np.tensordot(waves, field, axes=([1], [axis])), 0, axis)
    return torch.from_numpy(np.abs(field))


@pytest.mark.parametrize("between", [(0.0, 0.0, 0.0), (0.0, 0.5, 0.5), (0.5, 0.5, 0.0)])
def test_voxel_size_and_place_between_the_raw_voxels_are_found(between):
    """An even number of binned voxels has its middle between two of them."""
    rho = lopsided()
    size = [int(np.ptp(places)) + 1 for places in np.nonzero(rho)]
    speckle = [width / length for width, length in zip(EXTENTS, size, strict=True)]
    found = find_placement(torch.from_numpy(rho), scattered(rho, between), speckle, size)
    assert found.extents == EXTENTS
    assert found.between == between
    assert found.mirrored == ()
    assert found.correlation > 0.999
