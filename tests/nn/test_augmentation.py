"""Views of measured counts: turned, thinned, hidden, and never the voxels that phasing judges by."""

import numpy as np
import pytest
import torch

from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.errors import DataError
from braggshot.iterative.projections import held_out_voxels
from braggshot.nn import augmentation, datasets
from braggshot.nn.datasets import VALIDATION
from braggshot.physics.fourier import crop, inverted


@pytest.fixture(scope="module")
def volume():
    return simulate_volume(4, CrystalSettings(shape=(48, 40, 44), oversampling=(2.2, 3.0), counts=(1e6, 1e6)))[1]


def test_held_out_voxels_are_never_shown(volume):
    marked = np.where(held_out_voxels(torch.from_numpy(volume.valid), generator=torch.Generator().manual_seed(0)), 1e9, 0.0)
    source = datasets.measured_source(
        [type(volume)(marked.astype(np.float32), volume.valid, oversampling=volume.oversampling)], seed=1
    )
    for step in range(4):
        batch = source(step, 0, 3)
        assert not batch.counts.any()
        assert 0.85 < float(batch.valid.float().mean()) < 0.95


def test_a_view_is_turned_thinned_and_seeded(volume):
    source = datasets.measured_source([volume], seed=1, faintest=1e4, hidden=0.0)
    batch, again = source(3, 0, 8), source(3, 0, 8)
    assert torch.equal(batch.counts, again.counts)
    assert batch.counts.shape == (8, 32, 32, 32)
    plain = source(0, 0, 1, VALIDATION).counts[0]
    assert torch.equal(plain, crop(torch.from_numpy(volume.intensity), (32, 32, 32)) * source(0, 0, 1, VALIDATION).valid[0])
    brightest = batch.counts.amax((1, 2, 3))
    assert 0.8e4 < brightest.min() <= brightest.max() <= plain.max()
    assert len({float(b) for b in brightest}) > 4
    # Each view is the same pattern in one of the cube's orientations, but for its noise.
    for counts in batch.counts:
        likeness = [torch.corrcoef(torch.stack([counts.sqrt().flatten(), augmentation.turn(plain, w).sqrt().flatten()]))[0, 1]
                    for w in augmentation.orientations(plain.shape)]  # fmt: skip
        assert max(likeness) > 0.9


@pytest.mark.parametrize("shape", [(6, 6, 6), (7, 7, 4), (5, 6, 8)])
def test_what_is_turned_can_be_turned_back(shape):
    field = torch.arange(float(np.prod(shape))).view(shape)
    for way in augmentation.orientations(shape):
        assert torch.equal(augmentation.turn_back(augmentation.turn(field, way), way), field)


def test_orientations_differ_by_more_than_the_twin():
    """24 of a cube, the first as it is, none of them another's inversion; then they come again."""
    field = torch.rand(4, 4, 4, generator=torch.Generator().manual_seed(0))
    ways = augmentation.choose_orientations(field.shape, 30)
    assert torch.equal(augmentation.turn(field, ways[0]), field)
    assert ways[24:] == ways[:6]
    seen = [augmentation.turn(field, way) for way in ways[:24]]
    for k, one in enumerate(seen):
        assert not any(torch.equal(one, other) or torch.equal(one, inverted(other)) for other in seen[k + 1 :])
    assert len(set(augmentation.choose_orientations((4, 5, 6), 9))) == 4


def test_without_volumes_it_says_so():
    with pytest.raises(DataError, match="no measured volumes"):
        datasets.measured_source([], seed=0)
