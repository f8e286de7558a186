"""Training: one visible loop, which its caller owns, and which goes on after it was killed as if nothing had happened.

The loss sees counts only. The best weights are chosen on crystals that were kept apart, by how well the object comes back and never
by the transform loss, which goes on falling while objects get worse. Data, starts and everything else that is random follow from
(seed, step), so a resumed run is on the same trajectory.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from braggshot import config as configuration
from braggshot.errors import ConfigError
from braggshot.nn import weights
from braggshot.nn.datasets import VALIDATION, Source, seed_of
from braggshot.nn.expert import ExpertConfig, refined
from braggshot.nn.losses import LossConfig, correlation, r_factor, step_weights, trust
from braggshot.nn.network import Measurement, NetworkConfig, PhaseNetwork, misfit, random_start
from braggshot.physics.fourier import pad
from braggshot.physics.metrics import align


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained.

    Parameters
    ----------
    steps : of the optimiser
    batch, chunk : patterns per step, and per chunk of it; a chunk goes through the network at once
    learning_rate, warmup, decay : AdamW's rate, reached after `warmup` steps and taken down to zero over the last share `decay`
    clip : largest norm of the gradient [1]
    ema : weight of the past in the running average of the weights, which is what is validated and shipped [1]
    seed : of everything
    precision : of convolutions; transforms are always in 32 bits
    expert_from : step from which the network's outputs are refined to teach it
    validate_every, checkpoint_every : steps
    validation : crystals kept apart
    network, loss, expert : their settings
    """

    steps: int = 20_000
    batch: int = 16
    chunk: int = 16
    learning_rate: float = 1e-3
    warmup: int = 200
    decay: float = 0.2
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    precision: Literal["bf16-mixed", "32-true"] = "bf16-mixed"
    expert_from: int = 0
    validate_every: int = 500
    checkpoint_every: int = 100
    validation: int = 32
    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    expert: ExpertConfig = field(default_factory=ExpertConfig)

    def rate(self, step: int) -> float:
        """Learning rate: up, flat, and down to zero at the end; more steps later start from the flat part again."""
        remaining = (self.steps - step) / max(1.0, self.decay * self.steps)
        return self.learning_rate * min(1.0, (step + 1) / self.warmup, max(remaining, 0.0))


@dataclass
class Run:
    """What a run is made of while it runs: everything that a checkpoint must hold."""

    folder: Path
    network: nn.Module
    average: dict[str, Tensor]
    optimiser: torch.optim.Optimizer
    step: int = 0
    seen: int = 0
    best: float = -1.0


@dataclass(frozen=True)
class Report:
    """What a caller may want to know after a step."""

    step: int
    steps: int
    seen: int
    values: dict[str, float]


def train(config: TrainConfig, source: Source, folder: Path, fabric: Any, initial: PhaseNetwork | None = None) -> Iterator[Report]:
    """Train, yielding a `Report` after each step; ``last``, ``best`` and ``metrics.csv`` appear in `folder`.

    Parameters
    ----------
    config : settings
    source : of patterns
    folder : holds the checkpoint that a second call goes on from
    fabric : `lightning_fabric.Fabric`, launched: device, precision, processes
    initial : network to start from, where there is no checkpoint
    """
    run = _begin(config, folder, fabric, initial)
    model, optimiser = fabric.setup(run.network, run.optimiser)
    table = Table(folder / "metrics.csv", run.step) if fabric.is_global_zero else None
    began, first = time.perf_counter(), run.seen
    while run.step < config.steps:
        for group in optimiser.param_groups:
            group["lr"] = config.rate(run.step)
        values = _gradients(model, config, source, run.step, fabric)
        fabric.clip_gradients(model, optimiser, max_norm=config.clip)
        optimiser.step()
        optimiser.zero_grad()
        run.step += 1
        run.seen += config.batch
        _follow(run, config)
        values["per_second"] = (run.seen - first) / (time.perf_counter() - began)
        if run.step % config.validate_every == 0 or run.step == config.steps:
            values |= _validate(run, config, source, fabric)
        if table is not None:
            table.add(run.step, run.seen, values)
            if run.step % config.checkpoint_every == 0 or run.step == config.steps:
                save_checkpoint(folder / "last.safetensors", run, config)
        yield Report(run.step, config.steps, run.seen, values)


def _gradients(model: nn.Module, config: TrainConfig, source: Source, step: int, fabric: Any) -> dict[str, float]:
    """Sum the gradients of this process's chunks; the mean over processes is Fabric's business."""
    chunks = range(fabric.global_rank, config.batch // config.chunk, fabric.world_size)
    totals: dict[str, float] = {}
    for number, chunk in enumerate(chunks):
        batch = source(step, chunk, config.chunk)
        data = Measurement.of(batch.counts.to(fabric.device), batch.valid.to(fabric.device))
        start = random_start(data, torch.Generator(fabric.device).manual_seed(seed_of(config.seed, step, chunk) + 2))
        with fabric.no_backward_sync(model, enabled=number + 1 < len(chunks)):
            loss, values = objective(model, data, start, config, step)
            fabric.backward(loss / len(chunks))
        for name, value in values.items():
            totals[name] = totals.get(name, 0.0) + value / len(chunks)
    return totals


def objective(
    model: nn.Module, data: Measurement, start: Tensor, config: TrainConfig, step: int
) -> tuple[Tensor, dict[str, float]]:
    """The loss of a batch, and its parts."""
    outputs = model(data.magnitude, data.valid, start)
    share = step_weights(len(outputs), config.loss)
    chi = torch.stack([misfit(magnitude, data).sqrt().mean() for _, magnitude in outputs])
    residual = torch.stack([r_factor(magnitude, data).mean() for _, magnitude in outputs])
    weight = torch.tensor(share, device=chi.device)
    loss = (weight * (chi + residual)).sum()
    values = {"chi": chi[-1].item(), "r_factor": residual[-1].item()}
    if step >= config.expert_from and config.loss.expert > 0:
        better, chi2 = refined(outputs[-1][0].detach(), data, config.expert, config.seed + step)
        believed = trust(chi2, data, config.loss)
        pull = torch.stack([(believed * (1 - correlation(rho, better))).mean() for rho, _ in outputs])
        loss = loss + config.loss.expert * (weight * pull).sum()
        values |= {"pull": pull[-1].item(), "trust": believed.mean().item(), "chi_refined": chi2.sqrt().mean().item()}
    return loss, values | {"loss": loss.item()}


def _begin(config: TrainConfig, folder: Path, fabric: Any, initial: PhaseNetwork | None) -> Run:
    torch.manual_seed(config.seed)
    network = (initial or PhaseNetwork(config.network)).to(fabric.device).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=0.01, betas=(0.9, 0.99))
    run = Run(folder, network, {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}, optimiser)
    last = folder / "last.safetensors"
    if last.exists():
        load_checkpoint(last, run)
    return run


@torch.no_grad()
def _follow(run: Run, config: TrainConfig) -> None:
    """Running average of the weights, short at first."""
    keep = min(config.ema, (1 + run.step) / (10 + run.step))
    for name, tensor in run.network.state_dict().items():
        run.average[name].lerp_(tensor, 1 - keep) if tensor.is_floating_point() else run.average[name].copy_(tensor)


@torch.no_grad()
def _validate(run: Run, config: TrainConfig, source: Source, fabric: Any) -> dict[str, float]:
    """Score the averaged weights on patterns kept apart, and keep the best."""
    network = PhaseNetwork(config.network).to(fabric.device).eval()
    network.load_state_dict(run.average)
    values = validate(network, source, config, fabric)
    # Measured patterns have no truth: there the misfit that a short refinement leaves has to choose.
    score = values.get("val_correlation", 1 - values["val_chi_refined"])
    if fabric.is_global_zero and score > run.best:
        run.best = score
        card = weights.Card("trained", "flagship", configuration.dump(config.network), configuration.dump(config), run.seen, values)
        weights.save_network(run.folder / "best.safetensors", network, card)
    return values


def validate(network: PhaseNetwork, source: Source, config: TrainConfig, fabric: Any) -> dict[str, float]:
    """Medians and success rates over patterns that training never sees, of the prediction and of the prediction refined.

    Success is an aligned complex correlation with the truth of at least 0.95; one start each, so nothing is chosen.
    """
    chi: list[float] = []
    chi_refined: list[float] = []
    found: dict[str, list[float]] = {"": [], "_refined": []}
    for chunk in range(-(-config.validation // config.chunk)):
        batch = source(chunk, 0, config.chunk, VALIDATION)
        data = Measurement.of(batch.counts.to(fabric.device), batch.valid.to(fabric.device))
        start = random_start(data, torch.Generator(fabric.device).manual_seed(chunk))
        with fabric.autocast():
            rho, magnitude = network(data.magnitude, data.valid, start)[-1]
        better, chi2 = refined(rho, data, config.expert, chunk)
        chi += misfit(magnitude, data).sqrt().tolist()
        chi_refined += chi2.sqrt().tolist()
        if batch.truth is not None:
            for name, objects in (("", rho), ("_refined", better)):
                whole = pad(objects, data.magnitude.shape[-3:]).cpu()
                found[name] += [align(o, t).correlation for o, t in zip(whole, batch.truth.cpu(), strict=True)]
    values = {"val_chi": _median(chi), "val_chi_refined": _median(chi_refined)}
    for name, correlations in found.items():
        if correlations:
            values["val_correlation" + name] = _median(correlations)
            values["val_success" + name] = sum(c >= 0.95 for c in correlations) / len(correlations)
    return values


def _median(values: list[float]) -> float:
    return float(torch.tensor(values).median())


def save_checkpoint(path: Path, run: Run, config: TrainConfig) -> None:
    """Network, running average and optimiser as one safetensors file: nothing in it can run code."""
    tensors = {f"network.{name}": tensor for name, tensor in run.network.state_dict().items()}
    tensors |= {f"average.{name}": tensor for name, tensor in run.average.items()}
    for index, state in run.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": tensor for name, tensor in state.items()}
    progress = {"step": run.step, "seen": run.seen, "best": run.best, "training": configuration.dump(config)}
    weights.write(path, tensors, {"progress": progress})


def load_checkpoint(path: Path, run: Run) -> None:
    """Put a checkpoint into a run, in place.

    Raises
    ------
    ConfigError : if the file is no checkpoint, or of another network.
    """
    tensors, metadata = weights.read(path)
    if "progress" not in metadata:
        raise ConfigError(f"{path} is no checkpoint of a training run; give another folder with -o.")
    parts: dict[str, dict[str, Tensor]] = {"network": {}, "average": {}, "optimiser": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    try:
        run.network.load_state_dict(parts["network"])
    except RuntimeError as error:
        raise ConfigError(f"{path} holds another network than the settings ask for; give another folder with -o.") from error
    run.average = {name: tensor.to(run.average[name].device) for name, tensor in parts["average"].items()}
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in parts["optimiser"].items():
        index, _, key = name.partition(".")
        states.setdefault(int(index), {})[key] = tensor
    run.optimiser.load_state_dict({"state": states, "param_groups": run.optimiser.state_dict()["param_groups"]})
    progress = metadata["progress"]
    run.step, run.seen, run.best = progress["step"], progress["seen"], progress["best"]


COLUMNS = (
    "step", "seen", "per_second", "loss", "chi", "r_factor", "pull", "trust", "chi_refined", "val_chi", "val_chi_refined",
    "val_correlation", "val_success", "val_correlation_refined", "val_success_refined",
)  # fmt: skip


class Table:
    """``metrics.csv``: a row a step. Rows beyond the checkpoint that a run goes on from are taken back."""

    def __init__(self, path: Path, step: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = list(csv.DictReader(path.open(newline=""))) if path.exists() else []
        self.stream = path.open("w", newline="")
        self.writer = csv.DictWriter(self.stream, COLUMNS, restval="")
        self.writer.writeheader()
        self.writer.writerows(row for row in rows if int(row["step"]) <= step)

    def add(self, step: int, seen: int, values: dict[str, float]) -> None:
        """One row, on disk at once."""
        self.writer.writerow({"step": step, "seen": seen, **{name: f"{value:.6g}" for name, value in values.items()}})
        self.stream.flush()
