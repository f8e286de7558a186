"""A teacher that solves patterns: what it keeps is right, and what is shown of it is another view of the same crystal."""

from dataclasses import replace

import pytest
import torch
from tiny_run import TINY

from braggshot.crystals.sample import CrystalSettings
from braggshot.errors import DataError
from braggshot.iterative.iterate import IterativeConfig
from braggshot.nn import augmentation, datasets, solved_patterns
from braggshot.nn.datasets import VALIDATION
from braggshot.nn.network import Measurement, magnitude_of, misfit
from braggshot.nn.solved_patterns import SolvedConfig
from braggshot.physics.fourier import crop, fourier, in_the_middle, pad
from braggshot.physics.metrics import align
from braggshot.train import train_network

MILD = CrystalSettings(
    shape=(16, 16, 16), oversampling=(2.1, 2.6), phase_range=(0, 1.0), counts=(1e5, 1e6), shapes=("fcc",), tilt=0.0
)
QUICK = SolvedConfig(patterns=4, shard=2, starts=4, refine=IterativeConfig(recipe="60*RAAR+30*ER", monitor_every=1000))


@pytest.fixture(scope="module")
def source():
    return datasets.simulated_source([MILD], seed=5, hidden=0.0)


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory):
    path = tmp_path_factory.mktemp("solved")
    progress = list(solved_patterns.solve(source, path, QUICK, seed=3))
    assert [given for given, _ in progress] == [2, 4]
    assert progress[-1][1] >= 3
    return path


@pytest.mark.parametrize("shape", [(8, 8, 8), (7, 7, 7), (6, 6, 9)])
def test_a_turned_crystal_has_the_turned_pattern(shape):
    torch.manual_seed(0)
    rho = torch.randn(shape, dtype=torch.complex64)
    pattern = fourier(rho).abs()
    ways = augmentation.orientations(shape)
    assert len(ways) == (48 if len(set(shape)) == 1 else 16)
    for way in ways:
        turned = augmentation.turn(rho, way)
        torch.testing.assert_close(fourier(turned).abs(), augmentation.turn(pattern, way), rtol=1e-4, atol=1e-4)


def test_the_middle_is_found_below_the_voxel():
    grid = torch.stack(torch.meshgrid(*[torch.arange(16.0) - 8] * 3, indexing="ij"))
    place = torch.tensor([1.3, -2.4, 0.6])
    rho = torch.exp(-(grid - place[:, None, None, None]).square().sum(0) / 4).to(torch.complex64)
    moved = in_the_middle(rho)
    power = moved.abs().square()
    assert ((grid * power).sum((1, 2, 3)) / power.sum()).abs().max() < 1e-3
    torch.testing.assert_close(fourier(moved).abs(), fourier(rho).abs(), rtol=1e-4, atol=1e-4)


def test_the_twin_that_is_nearer_is_taught():
    torch.manual_seed(1)
    rho = torch.randn(2, 8, 8, 8, dtype=torch.complex64)
    twin = torch.stack([torch.roll(r.flip((0, 1, 2)), (1, 1, 1), (0, 1, 2)).conj() for r in rho]).resolve_conj()
    torch.testing.assert_close(fourier(twin).abs(), fourier(rho).abs(), rtol=1e-4, atol=1e-4)
    seen = torch.stack([rho[0], twin[1]])
    assert torch.equal(solved_patterns.nearer_twin(seen, rho), torch.stack([rho[0], twin[1]]))


def test_what_is_kept_is_the_crystal_and_in_the_middle(source, folder):
    counts, objects = solved_patterns.read_solved(folder)
    kept = {float(c.clamp_min(0).sum()): torch.view_as_complex(r) for c, r in zip(counts, objects, strict=True)}
    right = 0
    for step in (0, 1):
        batch = source(step, 0, 2)
        for counts, truth in zip(batch.counts, batch.truth, strict=True):
            if float(counts.sum()) in kept:
                found = pad(kept[float(counts.sum())], counts.shape)
                right += align(found, truth).correlation > 0.95
                torch.testing.assert_close(in_the_middle(found), found, rtol=0, atol=0.03 * float(found.abs().max()))
    assert right == len(kept) >= 3


def test_patterns_are_solved_together_as_on_a_gpu(source):
    batch = source(0, 0, 4)
    rho, known = solved_patterns.solve_batch(batch.counts, batch.valid, QUICK, seed=4)
    assert known.sum() >= 2
    for k in known.nonzero().squeeze(1).tolist():
        assert align(pad(rho[k], batch.counts.shape[1:]), batch.truth[k]).correlation > 0.95
    assert not rho[~known].any()


def test_noise_is_not_solved():
    """Of eight patterns; two starts that have shrunk to a speck can agree by chance."""
    counts = torch.poisson(torch.full((8, 16, 16, 16), 3.0), generator=torch.Generator().manual_seed(0))
    _, known = solved_patterns.solve_batch(counts, torch.ones_like(counts, dtype=torch.bool), QUICK, seed=0)
    assert known.sum() <= 1


def test_a_second_call_solves_what_is_missing_and_the_same(source, folder, tmp_path):
    first = sorted(folder.glob("*.safetensors"))[0]
    list(solved_patterns.solve(source, tmp_path, replace(QUICK, patterns=2), seed=3))
    assert (tmp_path / first.name).read_bytes() == first.read_bytes()
    before = (tmp_path / first.name).stat().st_mtime_ns
    list(solved_patterns.solve(source, tmp_path, QUICK, seed=3))
    assert (tmp_path / first.name).stat().st_mtime_ns == before
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_a_batch_is_turned_by_one_gather():
    field = torch.rand(4, 6, 4)
    ways = augmentation.orientations(field.shape)
    turns = solved_patterns.turn_indices(field.shape, ways)
    for way, index in zip(ways, turns, strict=True):
        assert torch.equal(field.flatten()[index].view(field.shape), augmentation.turn(field, way))


def test_what_is_shown_is_a_view_of_the_same_crystal(folder):
    show = solved_patterns.replay_source(folder, replace(QUICK, damaged=0.0), seed=9, hidden=0.0)
    batch, again, other = show(0, 0, 6), show(0, 0, 6), show(1, 0, 6)
    assert torch.equal(batch.counts, again.counts)
    assert torch.equal(batch.solution, again.solution)
    assert not torch.equal(batch.counts, other.counts)
    data = Measurement.of(batch.counts, batch.valid)
    assert misfit(magnitude_of(batch.solution, batch.counts.shape[-3:])[1], data).sqrt().max() < 0.35
    # Thinned, but never below what was asked for.
    assert batch.counts.amax((1, 2, 3)).min() > 700
    hurt = solved_patterns.replay_source(folder, replace(QUICK, damaged=1.0), seed=9, hidden=0.05)(0, 0, 6)
    assert (hurt.valid.float().mean((1, 2, 3)) < 0.97).all()
    assert not hurt.counts[~hurt.valid].any()


def test_nothing_solved_is_said(tmp_path):
    with pytest.raises(DataError, match="no pattern was solved"):
        solved_patterns.replay_source(tmp_path, QUICK, seed=0)


def test_training_learns_from_what_was_solved(tmp_path):
    settings = replace(TINY, data=replace(TINY.data, crystals=(MILD,)), solved=QUICK, train=replace(TINY.train, steps=3))
    reports = list(train_network(settings, tmp_path, device="cpu"))
    assert {"pull", "chi"} <= set(reports[-1].values)
    assert "trust" not in reports[-1].values
    assert "val_correlation" in reports[-1].values  # of crystals that are known, and that nothing was taught on
    assert sorted(path.name for path in (tmp_path / "solved").iterdir()) == ["00000.safetensors", "00001.safetensors"]


def test_patterns_are_cropped_as_a_prediction_crops_them():
    whole = datasets.simulated_source([replace(MILD, shape=(32, 32, 32))], seed=5, hidden=0.0)(0, 0, 2, VALIDATION)
    small = datasets.simulated_source([replace(MILD, shape=(32, 32, 32))], seed=5, hidden=0.0, largest=16)(0, 0, 2, VALIDATION)
    assert torch.equal(small.counts, crop(whole.counts, (16, 16, 16)))
    box = crop(small.truth, (8, 8, 8))
    data = Measurement.of(small.counts, small.valid)
    # The truth at the coarser voxel explains the cropped pattern, but for the ringing that leaves the box.
    assert misfit(magnitude_of(box, data.magnitude.shape[-3:])[1], data).sqrt().max() < 0.1
