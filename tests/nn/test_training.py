"""The training loop: it goes on exactly where it was killed, processes share it exactly, and settings mean what they say."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_run
import torch
from tiny_run import TINY, TWO_PROCESSES

from braggshot.crystals.detector import DetectorSettings
from braggshot.crystals.sample import CrystalSettings
from braggshot.errors import ConfigError
from braggshot.iterative.iterate import IterativeConfig
from braggshot.nn import training, weights
from braggshot.nn.checkpoints import Run, Table, load_checkpoint, save_checkpoint
from braggshot.nn.datasets import TRAINING, VALIDATION, seed_of, simulated_source
from braggshot.nn.expert_iteration import ExpertConfig, refine_predictions
from braggshot.nn.losses import LossConfig, correlation, quarter_photon_floor, step_weights, trust
from braggshot.nn.network import Measurement, NetworkConfig, PhaseNetwork, magnitude_of, misfit, random_start
from braggshot.nn.training import PRESETS, TrainConfig, train
from braggshot.train import train_network

lightning_fabric = pytest.importorskip("lightning_fabric")

RUN = Path(tiny_run.__file__)
TRAIN = TINY.train


def crystals():
    return simulated_source(TINY.data.crystals, TRAIN.seed)


def cpu():
    return lightning_fabric.Fabric(accelerator="cpu", devices=1, precision="32-true")


def finish(running, steps=None):
    return [report for report, _ in zip(running, range(steps or 1_000), strict=False)]


def tensors_of(folder, part="network"):
    tensors, _ = weights.read(folder / "last.safetensors")
    return {name: tensor for name, tensor in tensors.items() if name.startswith(part)}


def table_of(folder):
    with (folder / "metrics.csv").open(newline="") as stream:
        return [{name: value for name, value in row.items() if name != "per_second"} for row in csv.DictReader(stream)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    reports = finish(train_network(TINY, folder, device="cpu"))
    return folder, reports


def test_a_run_leaves_what_it_promises(whole):
    folder, reports = whole
    assert [report.step for report in reports] == list(range(1, 7))
    assert reports[-1].seen == 24
    assert {file.name for file in folder.iterdir()} == {"last.safetensors", "best.safetensors", "metrics.csv", "tensorboard"}
    assert list((folder / "tensorboard").glob("events.*"))
    rows = table_of(folder)
    assert [row["step"] for row in rows] == [str(k) for k in range(1, 7)]
    assert rows[2]["val_correlation"]
    assert not rows[1]["val_correlation"]
    assert not rows[1]["pull"]  # the teacher comes later
    assert rows[2]["pull"]
    network, card = weights.load_network(folder / "best.safetensors")
    assert isinstance(network, PhaseNetwork)
    assert network.config == TRAIN.network
    assert card.kind == "flagship"
    assert card.seen in {12, 24}
    assert card.training["seed"] == TRAIN.seed
    assert 0 < card.metrics["val_correlation"] < 1


def test_a_killed_run_goes_on_to_the_same_weights(whole, tmp_path):
    """Killed by the system after step 5, with the last checkpoint at step 4; bit for bit."""
    killed = subprocess.run([sys.executable, RUN, tmp_path, "5"], check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(table_of(tmp_path)) == 5
    with (tmp_path / "metrics.csv").open("a") as stream:
        stream.write("6,24,0.1,0.")  # a row that the kill cut short
    reports = finish(train_network(TINY, tmp_path, device="cpu"))
    assert [report.step for report in reports] == [5, 6]
    for part in ("network", "average", "optimiser"):
        found, expected = tensors_of(tmp_path, part), tensors_of(whole[0], part)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert table_of(tmp_path) == table_of(whole[0])
    best = [weights.read(folder / "best.safetensors")[0] for folder in (tmp_path, whole[0])]
    assert all(torch.equal(best[0][name], best[1][name]) for name in best[1])


@pytest.mark.slow
def test_two_processes_are_one(whole, tmp_path):
    """The chunks of a batch over two processes under torchrun: the same weights, but for the order of sums."""
    done = subprocess.run([*TWO_PROCESSES, RUN, tmp_path], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # Of the way travelled, all tensors joined: Adam turns the rounding of one small gradient into a step of full length.
    # Half the batch, which is what a lost exchange amounts to, is 0.8 away in the weights, 0.8 and 0.4 in the moments.
    torch.manual_seed(TRAIN.seed)
    start = {f"network.{name}": tensor for name, tensor in PhaseNetwork(TRAIN.network).state_dict().items()}
    for end in ("", ".exp_avg", ".exp_avg_sq"):
        part = "optimiser" if end else "network"
        found, expected = tensors_of(tmp_path, part), tensors_of(whole[0], part)
        names = [name for name in expected if name.endswith(end)]
        away = torch.cat([(found[name] - expected[name]).flatten() for name in names])
        travelled = torch.cat([(expected[name] - start.get(name, 0)).flatten() for name in names])
        assert torch.linalg.vector_norm(travelled) > 0
        assert torch.linalg.vector_norm(away) <= 0.05 * torch.linalg.vector_norm(travelled), part + end  # 0.02 on some processors
    assert [row["step"] for row in table_of(tmp_path)] == [row["step"] for row in table_of(whole[0])]


def test_a_finished_run_stays_finished_and_longer_ones_go_on(whole, tmp_path):
    folder, _ = whole
    for name in ("last.safetensors", "metrics.csv"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    assert finish(train(TRAIN, crystals(), tmp_path, cpu())) == []
    reports = finish(train(replace(TRAIN, steps=7), crystals(), tmp_path, cpu()))
    assert [report.step for report in reports] == [7]


def test_a_checkpoint_is_checked(tmp_path):
    network = PhaseNetwork(TRAIN.network)
    run = Run(tmp_path, network, {}, torch.optim.AdamW(network.parameters()), 3, 12, 0.5)
    save_checkpoint(tmp_path / "last.safetensors", run, {})
    with pytest.raises(ConfigError, match="another network"):
        finish(train(replace(TRAIN, network=NetworkConfig((8, 8))), crystals(), tmp_path, cpu()))
    with pytest.raises(ConfigError, match="has no card"):
        weights.load_network(tmp_path / "last.safetensors")
    weights.save_network(tmp_path / "last.safetensors", network, weights.Card("x"))
    with pytest.raises(ConfigError, match="no checkpoint"):
        load_checkpoint(tmp_path / "last.safetensors", run)


def test_published_networks_go_through_the_same_loop(tmp_path):
    config = replace(
        PRESETS["autophasenn-2024"],
        steps=2,
        batch=2,
        chunk=2,
        precision="32-true",
        validate_every=2,
        validation=2,
        validation_chunk=1,
    )
    reports = finish(train(config, crystals(), tmp_path, cpu()))
    assert reports[-1].values["val_correlation"] >= 0
    assert "pull" not in reports[-1].values
    network, card = weights.load_network(tmp_path / "best.safetensors")
    assert card.kind == "autophasenn-2024"
    assert network.threshold.item() == pytest.approx(0.085)  # of the second of two steps
    assert finish(train(config, crystals(), tmp_path, cpu())) == []


def test_the_largest_one_keeps_its_statistics_in_sixteen_bits(tmp_path):
    network = weights.build_network("autophasenn-2024")
    network.encoder[2].running_var.fill_(1e6)  # beyond 16 bits
    weights.save_network(tmp_path / "half.safetensors", network, weights.Card("x", "autophasenn-2024"), half=True)
    back, _ = weights.load_network(tmp_path / "half.safetensors")
    assert back.encoder[2].running_var[0] == 1e6
    assert (tmp_path / "half.safetensors").stat().st_size < 16e6
    weights.save_network(tmp_path / "odd.safetensors", network, weights.Card("x", "another"))
    with pytest.raises(ConfigError, match="does not know"):
        weights.load_network(tmp_path / "odd.safetensors")


def test_an_object_that_faded_is_a_failure_and_no_crash(tmp_path):
    """Everything below the hard threshold, as the prototype met it."""
    network = weights.build_network("autophasenn-2024")
    torch.nn.init.constant_(network.amplitude[-1].bias, -20)
    config = replace(PRESETS["autophasenn-2024"], steps=1, batch=2, chunk=2, precision="32-true", validation=2, validation_chunk=2)
    values = finish(train(config, crystals(), tmp_path, cpu(), network))[-1].values
    assert values["val_correlation"] == 0
    assert values["val_success"] == 0


def test_settings_that_cannot_be(tmp_path):
    with pytest.raises(ConfigError, match="multiple of"):
        TrainConfig(batch=10, chunk=4)
    with pytest.raises(ConfigError, match="known: flagship"):
        TrainConfig(kind="another")
    three = type("Three", (), {"world_size": 3})()
    with pytest.raises(ConfigError, match="shared by 3"):
        finish(train(TRAIN, crystals(), tmp_path, three))


def test_schedules():
    flat = TrainConfig(steps=100, warmup=10, decay=0.2)
    assert [round(flat.rate(k) * 1e3, 6) for k in (0, 9, 50, 80, 90, 100)] == [0.1, 1, 1, 1, 0.5, 0]
    paper = replace(PRESETS["autophasenn"], steps=100)
    assert [paper.rate(k) for k in (0, 18, 19, 39, 99)] == [1e-3, 1e-3, 5e-4, 2.5e-4, 1e-3 / 32]
    cyclic = replace(PRESETS["autophasenn-2024"], steps=60)
    assert [round(cyclic.rate(k) * 1e3, 6) for k in (0, 6, 12, 18, 30)] == [0.4, 2, 0.4, 1.2, 0.8]


def test_seeds_of_chunks_never_meet():
    seeds = {
        seed_of(s, step, chunk, f) for s in range(3) for step in range(40) for chunk in range(9) for f in (TRAINING, VALIDATION)
    }
    assert len(seeds) == 3 * 40 * 9 * 2
    assert max(seeds) < 2**63
    source = simulated_source([CrystalSettings(shape=(16, 16, 16), oversampling=(2, 3))], 0)
    one, again, other = source(3, 0, 2), source(3, 0, 2), source(3, 1, 2)
    assert torch.equal(one.counts, again.counts)
    assert not torch.equal(one.counts, other.counts)
    assert not torch.equal(one.counts, source(3, 0, 2, VALIDATION).counts)


def test_the_teacher_treats_each_pattern_alone():
    """Patterns refined as one batch come out as those refined one by one, and fit better than before on average."""
    batch = simulated_source([replace(TINY.data.crystals[0], detector=DetectorSettings(gaps=1.0, gap_widths=(2,)))], 0)(0, 0, 3)
    data = Measurement.of(batch.counts, batch.valid)
    rho = random_start(data, torch.Generator().manual_seed(0))
    config = ExpertConfig(IterativeConfig(recipe="12*RAAR+8*ER"))
    together, chi2 = refine_predictions(rho, data, config, 5)
    for k in range(3):
        one = Measurement(data.magnitude[k : k + 1], data.valid[k : k + 1])
        # A start's random numbers follow from the seed plus its place in the batch.
        alone, error = refine_predictions(rho[k : k + 1], one, config, 5 + k)
        assert correlation(together[k : k + 1], alone) > 1 - 1e-3
        torch.testing.assert_close(chi2[k : k + 1], error, rtol=0.02, atol=1e-6)
    assert chi2.mean() < misfit(magnitude_of(rho, batch.counts.shape[-3:])[1], data).mean()


def test_the_pull_ignores_the_global_phase_and_trusts_a_good_fit():
    rho = torch.complex(*torch.randn(2, 3, 4, 4, 4))
    torch.testing.assert_close(correlation(rho, 5 * rho * torch.exp(torch.tensor(1j))), torch.ones(3))
    counts = torch.poisson(torch.full((1, 8, 8, 8), 20.0))
    data = Measurement.of(counts, torch.ones(1, 8, 8, 8, dtype=torch.bool))
    floor = quarter_photon_floor(data)
    torch.testing.assert_close(floor, 0.25 * counts.numel() / counts.sum()[None])
    config = LossConfig(trust=0.04)
    assert trust(floor, data, config) == 1
    torch.testing.assert_close(trust(floor + 0.04**2, data, config), torch.exp(torch.tensor([-1.0])), rtol=1e-4, atol=0)
    assert step_weights(3, LossConfig(growth=2)) == pytest.approx([1 / 7, 2 / 7, 4 / 7])


def test_a_table_takes_back_what_the_checkpoint_does_not_know(tmp_path):
    table = Table(tmp_path / "metrics.csv", 0)
    for step in (1, 2, 3):
        table.add(step, 4 * step, {"loss": 1 / step})
    Table(tmp_path / "metrics.csv", 2).add(3, 12, {"loss": 9.0})
    assert [(row["step"], row["loss"]) for row in table_of(tmp_path)] == [("1", "1"), ("2", "0.5"), ("3", "9")]


@pytest.mark.parametrize("computes", [True, False])
def test_sixteen_bits_are_never_emulated(computes, monkeypatch):
    monkeypatch.setattr(training, "fast_bfloat16", lambda device: computes)
    with training.mixed_precision(TrainConfig(), torch.device("cpu")):
        found = torch.nn.functional.conv3d(torch.ones(1, 1, 4, 4, 4), torch.ones(1, 1, 3, 3, 3))
    assert found.dtype == (torch.bfloat16 if computes else torch.float32)
