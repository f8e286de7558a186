"""Thousands of patterns in a file, as few as do: what arrives in the other file, and what is refused."""

from __future__ import annotations

import threading

import h5py
import numpy as np
import pytest
import torch

from braggshot import cli
from braggshot.batch_predict import StackConfig, _one_ahead, one_shot_stack
from braggshot.crystals.sample import CrystalSettings, random_volumes
from braggshot.errors import DataError, FormatError, OutputError
from braggshot.io.formats import patterns
from braggshot.physics.metrics import align

SHAPE = (32, 32, 32)


@pytest.fixture(scope="module")
def crystals():
    settings = CrystalSettings(shape=SHAPE, oversampling=(2.1, 2.6), phase_range=(0, 0.5), counts=(1e6, 1e6))
    rho, counts, _ = random_volumes(torch.Generator().manual_seed(5), 3, settings)
    return rho, counts.numpy()


@pytest.fixture
def source(tmp_path, crystals):
    path = tmp_path / "patterns.h5"
    with h5py.File(path, "w") as file:
        file["entry/counts"] = crystals[1].astype(np.uint32)
    return path


def test_objects_of_all_patterns_by_the_command(source, crystals, tmp_path, capsys):
    target = tmp_path / "new" / "objects.h5"
    assert cli.main(["stack", str(source), "-o", str(target), "--starts", "4", "--batch", "2"]) == 0
    assert capsys.readouterr().out.strip() == str(target)
    with h5py.File(target) as file:
        assert file["object"].shape == (3, 16, 16, 16)
        assert file["object"].dtype == np.complex64
        assert file.attrs["network"] == "flagship"
        chi2, objects = file["chi2"][()], torch.from_numpy(file["object"][()])
    assert (chi2 > 0).all()
    assert (chi2 < 0.1).all()
    found = [align(o, t[8:24, 8:24, 8:24]).correlation for o, t in zip(objects, crystals[0], strict=True)]
    assert np.median(found) > 0.9, found


def test_the_low_resolution_alone_is_another_answer(source, crystals, tmp_path):
    for name, quick in (("whole", False), ("quick", True)):
        one_shot_stack(source, tmp_path / f"{name}.h5", StackConfig(quick=quick, starts=2))
    with h5py.File(tmp_path / "whole.h5") as whole, h5py.File(tmp_path / "quick.h5") as quick:
        assert quick.attrs["quick"]
        assert not whole.attrs["quick"]
        assert quick["object"].shape == whole["object"].shape
        assert np.median(whole["chi2"]) < np.median(quick["chi2"])


def test_batches_only_share_the_work(source, tmp_path):
    told = []
    one_shot_stack(source, tmp_path / "a.h5", StackConfig(batch=2), lambda *done: told.append(done))
    assert told == [(2, 3), (3, 3)]
    with h5py.File(source) as file:
        np.save(tmp_path / "patterns.npy", file["entry/counts"][:2])
    one_shot_stack(tmp_path / "patterns.npy", tmp_path / "b.h5", StackConfig(batch=2))
    with h5py.File(tmp_path / "a.h5") as a, h5py.File(tmp_path / "b.h5") as b:
        assert np.abs(a["object"][:2] - b["object"][:]).max() < 1e-3 * np.abs(a["object"][:2]).max()


def test_patterns_off_the_middle_are_refused(tmp_path, crystals):
    np.save(tmp_path / "p.npy", np.roll(crystals[1], 6, axis=2))
    with pytest.raises(DataError, match=r"\[0, 6, 0\] voxels .* centre them"):
        one_shot_stack(tmp_path / "p.npy", tmp_path / "o.h5")
    assert not (tmp_path / "o.h5").exists()


def test_what_is_no_stack_of_patterns_is_named(tmp_path, crystals):
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["a"] = file["b"] = crystals[1]
        file["c"] = 1
    with pytest.raises(FormatError, match="found /a, /b; name it as dataset"), patterns.open_patterns(tmp_path / "two.h5"):
        pass
    with patterns.open_patterns(tmp_path / "two.h5", "b") as found:
        assert found.shape == crystals[1].shape
    for name in ("c", "d"):
        with pytest.raises(FormatError, match="is no dataset"), patterns.open_patterns(tmp_path / "two.h5", name):
            pass
    np.save(tmp_path / "flat.npy", crystals[1][0])
    with pytest.raises(FormatError, match="expected patterns"), patterns.open_patterns(tmp_path / "flat.npy"):
        pass
    (tmp_path / "text").write_text("no patterns")
    with pytest.raises(FormatError, match="neither"), patterns.open_patterns(tmp_path / "text"):
        pass
    np.save(tmp_path / "none.npy", crystals[1][:0])
    with pytest.raises(DataError, match="no patterns"):
        one_shot_stack(tmp_path / "none.npy", tmp_path / "o.h5")


def test_a_full_disk_is_known_before(tmp_path):
    with pytest.raises(OutputError, match="GB are free"), patterns.create_objects(tmp_path / "o.h5", 10**12, SHAPE, {}):
        pass


def test_an_error_on_the_way_leaves_no_file(source, tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        one_shot_stack(source, tmp_path / "o.h5", StackConfig(batch=2), stop)
    assert [path.name for path in tmp_path.iterdir()] == ["patterns.h5"]


def test_what_is_ahead_comes_in_order_and_no_further_than_asked():
    made = []

    def items():
        for k in range(6):
            made.append(k)
            yield k

    with _one_ahead(items()) as coming:
        assert [next(coming) for _ in range(2)] == [0, 1]
    assert made == [0, 1, 2], "two given, one ahead"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("braggshot-ahead")]
    with _one_ahead(range(4)) as coming:
        assert list(coming) == [0, 1, 2, 3]


def test_the_next_one_is_made_while_one_is_in_use():
    second_is_made = threading.Event()

    def items():
        yield 1
        second_is_made.set()
        yield 2

    with _one_ahead(items()) as coming:
        assert next(coming) == 1
        assert second_is_made.wait(10)


def test_an_error_of_the_thread_is_raised_where_its_item_is_asked_for():
    def items():
        yield 1
        raise DataError("the second one is broken")

    with _one_ahead(items()) as coming:
        assert next(coming) == 1
        with pytest.raises(DataError, match="second"):
            next(coming)
