"""Train a network in one loop, a generator; a training that was killed resumes as if it had not stopped.

The loss uses counts only. The best weights are those with which the network recovers validation crystals best. The loss would be a
bad criterion for the choice, because the loss keeps falling while objects get worse. All random numbers, such as those of data and
starts, follow from the seed and the number of the step. So a resumed run gives the same numbers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from braggshot import config as configuration
from braggshot.errors import ConfigError
from braggshot.nn import weights
from braggshot.nn.autophasenn import Published
from braggshot.nn.checkpoints import Run, Table, load_checkpoint, save_checkpoint
from braggshot.nn.datasets import VALIDATION, Source, seed_of
from braggshot.nn.expert_iteration import SHARPENING, ExpertConfig, refine_predictions
from braggshot.nn.losses import LossConfig, correlation, data_term, r_factor, step_weights, trust
from braggshot.nn.network import Measurement, NetworkConfig, PhaseNetwork, misfit
from braggshot.nn.novelty import training_ranges
from braggshot.nn.predict import fast_bfloat16
from braggshot.nn.solved_patterns import nearer_twin
from braggshot.nn.two_scale import FINE, TwoScaleConfig, TwoScaleNetwork, coarse_network, draw_start, with_fine_steps
from braggshot.physics.fourier import pad
from braggshot.physics.metrics import align


@dataclass(frozen=True)
class TrainConfig:
    """Settings of the training of a network.

    Parameters
    ----------
    kind : kind of network, from `weights.KINDS`
    steps : number of steps of the optimiser
    batch, chunk : number of patterns per step, and per chunk; the patterns of a chunk pass through the network together
    learning_rate, warmup : largest learning rate of AdamW [1], and the number of steps in which it is reached
    schedule : how the learning rate changes with the step: "flat-decay", "halving" or "triangular2", see `rate`
    decay : share of the run, at its end, in which the learning rate of "flat-decay" falls to zero [1]
    weight_decay, beta2 : parameters of AdamW [1]
    clip : largest norm of the gradient, 0 for no limit [1]
    ema : share of the old value in each update of the running average of the network's weights, which is validated and saved [1]
    seed : seed of all random numbers
    precision : "bf16-mixed" for convolutions in 16 bits where the device has such instructions; transforms are always in 32 bits
    expert_from : first step in which the network's outputs are refined to teach it
    validate_every, checkpoint_every : steps from one validation to the next, and from one checkpoint to the next
    validation, validation_chunk : number of validation crystals, and number of crystals of one kind before the next kind follows
    network, loss, expert : settings of the network, of the loss and of expert iteration; published networks have no settings
    fine, between : settings of the kind "two-scale": its learned steps at the full resolution, and the projections between both
        resolutions; the low-resolution network of this kind is trained before
    """

    kind: str = "flagship"
    steps: int = 30_000
    batch: int = 8
    chunk: int = 8
    learning_rate: float = 1e-3
    warmup: int = 100
    schedule: Literal["flat-decay", "halving", "triangular2"] = "flat-decay"
    decay: float = 0.2
    weight_decay: float = 0.01
    beta2: float = 0.99
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    precision: Literal["bf16-mixed", "32-true"] = "bf16-mixed"
    expert_from: int = 0
    validate_every: int = 500
    checkpoint_every: int = 100
    validation: int = 36
    validation_chunk: int = 4
    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    expert: ExpertConfig = field(default_factory=ExpertConfig)
    fine: NetworkConfig = FINE
    between: ExpertConfig = field(default_factory=ExpertConfig)

    def __post_init__(self) -> None:
        if self.kind not in weights.KINDS:
            raise ConfigError(f"train.kind: no network {self.kind!r}; known: {', '.join(weights.KINDS)}.")
        if self.chunk < 1 or self.batch % self.chunk:
            raise ConfigError(f"train.batch {self.batch} must be a multiple of train.chunk {self.chunk}.")

    def rate(self, step: int) -> float:
        """Return the learning rate of a step.

        flat-decay   rises, stays constant, and falls to zero at the end; to lengthen a run, resume it from before the fall
        halving      is halved after every fifth of the run (in the paper on AutoPhaseNN: every 20 of 100 epochs)
        triangular2  rises five times from a fifth of `learning_rate` and falls back, each rise half as high as the one before (in
        the training of AutoPhaseNN 2024: every 12 of 60 epochs)
        """
        share = step / self.steps
        factor = min(1.0, (step + 1) / max(1, self.warmup))
        if self.schedule == "flat-decay":
            return self.learning_rate * min(factor, max((1 - share) / max(self.decay, 1e-9), 0.0))
        if self.schedule == "halving":
            return self.learning_rate * factor * 0.5 ** ((1 + int(100 * share)) // 20)
        cycle = int(5 * share)
        rise = 1 - abs(2 * (5 * share - cycle) - 1)
        return self.learning_rate * factor * (0.2 + 0.8 * rise / 2**cycle)


PUBLISHED = TrainConfig(batch=128, warmup=0, beta2=0.999, clip=0, ema=0)
"""Settings that the training of AutoPhaseNN and of its successor of 2024 share. Values that were not published are those with
which braggshot's own network is trained."""

PRESETS = {
    "flagship": TrainConfig(),
    "two-scale": TrainConfig(
        kind="two-scale", steps=6000, batch=4, chunk=4, ema=0.995, network=NetworkConfig(steps=4), expert=ExpertConfig(SHARPENING)
    ),
    "autophasenn": replace(
        PUBLISHED, kind="autophasenn", schedule="halving", weight_decay=0, loss=LossConfig(data="mae", expert=0)
    ),
    "autophasenn-2024": replace(
        PUBLISHED,
        kind="autophasenn-2024",
        chunk=32,
        learning_rate=2e-3,
        schedule="triangular2",
        loss=LossConfig(data="max-l1", expert=0),
    ),
}
"""Settings of training runs, by name: "flagship" is braggshot's own network, "two-scale" its steps at the full resolution. The
others train the published AutoPhaseNN as its authors did."""


@dataclass(frozen=True)
class Report:
    """Progress of a training run after a step: steps done, steps in total, patterns seen, and the step's numbers by name."""

    step: int
    steps: int
    seen: int
    values: dict[str, float]


def train(config: TrainConfig, source: Source, folder: Path, fabric: Any, initial: nn.Module | None = None) -> Iterator[Report]:
    """Train a network, yielding a `Report` after each step.

    The files ``last.safetensors`` (checkpoint), ``best.safetensors`` (weights) and ``metrics.csv`` appear in `folder`.

    Parameters
    ----------
    config : settings of the training
    source : source of patterns
    folder : output folder; a checkpoint in it is resumed
    fabric : launched `lightning_fabric.Fabric`, which gives the device and the processes; its precision stays "32-true"
    initial : network to start from, if there is no checkpoint

    Raises
    ------
    ConfigError : if the processes cannot share the chunks of a batch evenly, or the checkpoint in `folder` is of another network.
    """
    if config.batch // config.chunk % fabric.world_size:
        raise ConfigError(
            f"{config.batch // config.chunk} chunks a batch cannot be shared by {fabric.world_size} processes; change train.chunk."
        )
    run = _start_run(config, folder, fabric, initial)
    model, optimiser = fabric.setup(run.network, run.optimiser)
    table = Table(folder / "metrics.csv", run.step) if fabric.is_global_zero else None
    began, first = time.perf_counter(), run.seen
    while run.step < config.steps:
        for group in optimiser.param_groups:
            group["lr"] = config.rate(run.step)
        if isinstance(run.network, Published):
            run.network.anneal(run.step / config.steps)
        values = _gradients(model, run, config, source, fabric)
        if config.clip > 0:
            fabric.clip_gradients(model, optimiser, max_norm=config.clip)
        optimiser.step()
        optimiser.zero_grad()
        run.step += 1
        run.seen += config.batch
        _update_average(run, config)
        values["per_second"] = (run.seen - first) / (time.perf_counter() - began)
        if run.step % config.validate_every == 0 or run.step == config.steps:
            values |= _validate(run, config, source, fabric)
        if table is not None:
            table.add(run.step, run.seen, values)
            if run.step % config.checkpoint_every == 0 or run.step == config.steps:
                save_checkpoint(folder / "last.safetensors", run, configuration.dump(config))
        yield Report(run.step, config.steps, run.seen, values)
    fabric.barrier()  # the first process writes files that the others may read next


def _gradients(model: nn.Module, run: Run, config: TrainConfig, source: Source, fabric: Any) -> dict[str, float]:
    """Compute the mean gradient over the chunks of this process; return the means of the values to report, by name.

    Lightning Fabric averages the gradients over all processes.
    """
    chunks = range(fabric.global_rank, config.batch // config.chunk, fabric.world_size)
    totals: dict[str, float] = {}
    step = run.step
    for number, chunk in enumerate(chunks):
        batch = source(step, chunk, config.chunk)
        data = Measurement.of(batch.counts.to(fabric.device), batch.valid.to(fabric.device))
        begin = draw_start(run.network, data, torch.Generator(fabric.device).manual_seed(seed_of(config.seed, step, chunk) + 2))
        with fabric.no_backward_sync(model, enabled=number + 1 < len(chunks)):
            loss, values = objective(model, data, begin, config, step, batch.solution)
            fabric.backward(loss / len(chunks))
        for name, value in values.items():
            totals[name] = totals.get(name, 0.0) + value / len(chunks)
    return totals


def objective(
    model: nn.Module, data: Measurement, start: Tensor, config: TrainConfig, step: int, solution: Tensor | None = None
) -> tuple[Tensor, dict[str, float]]:
    """Return the loss of a batch, and the values of the parts of the loss by name.

    `solution` holds the objects that iterative phasing found; None if there are no such objects.
    """
    with mixed_precision(config, start.device):
        outputs = model(data.magnitude, data.valid, start)
    terms = torch.stack([data_term(magnitude, data, config.loss) for _, magnitude in outputs])
    weight = torch.tensor(step_weights(len(outputs), config.loss), device=terms.device)
    loss = (weight * terms).sum()
    last = outputs[-1][1].detach()
    values = {"chi": misfit(last, data).sqrt().mean().item(), "r_factor": r_factor(last, data).mean().item()}
    if step >= config.expert_from and config.loss.expert > 0:
        aim, share, more = _choose_target((start, outputs[-1][0].detach()), data, config, step, solution)
        pull = torch.stack([(share * (1 - correlation(rho, aim))).sum() for rho, _ in outputs])
        loss = loss + config.loss.expert * (weight * pull).sum()
        values |= {"pull": pull[-1].item()} | more
    return loss, values | {"loss": loss.item()}


def mixed_precision(config: TrainConfig, device: torch.device) -> torch.autocast:
    """Make the context in which convolutions run in 16 bits, if the settings ask for that and the device has such instructions.

    Lightning Fabric's mixed precision is not used, because it would round the magnitudes as well.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16-mixed" and fast_bfloat16(device))


def _choose_target(
    way: tuple[Tensor, Tensor], data: Measurement, config: TrainConfig, step: int, solution: Tensor | None
) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Return the target of each prediction, the weight of the target (n,), and numbers to report.

    `way` is the pair (start, prediction). Without a `solution` the target is the refined prediction. Else the target is the
    solution or its twin, whichever is nearer to the *start*. A prediction that blends both twins is equally near to both. If the
    target were the twin nearer to the prediction, the prediction would be pulled to each twin half of the time and stay a blend.
    """
    start, rho = way
    if solution is not None:
        aim = nearer_twin(start, solution.to(rho.device))
        return aim, torch.full((len(rho),), 1 / len(rho), device=rho.device), {}
    better, chi2 = refine_predictions(rho, data, config.expert, config.seed + step)
    believed = trust(chi2, data, config.loss)
    # Divided by the sum, so that a few trusted answers in a batch teach as much as many.
    share = believed / (believed.sum() + 0.5)
    return better, share, {"trust": believed.mean().item(), "chi_refined": chi2.sqrt().mean().item()}


def _initial_network(config: TrainConfig, initial: nn.Module | None) -> nn.Module:
    if config.kind != "two-scale":
        return (
            weights.build_network(config.kind, config.network) if initial is None else coarse_network(initial).requires_grad_(True)
        )
    if isinstance(initial, TwoScaleNetwork):
        return initial
    coarse = initial if isinstance(initial, PhaseNetwork) else None
    scales = TwoScaleConfig(config.network if coarse is None else coarse.config, config.fine, config.between)
    return TwoScaleNetwork(scales, coarse)


def _start_run(config: TrainConfig, folder: Path, fabric: Any, initial: nn.Module | None) -> Run:
    torch.manual_seed(config.seed)
    network = _initial_network(config, initial).to(fabric.device).train()
    betas, learning = (0.9, config.beta2), [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learning, config.learning_rate, betas, weight_decay=config.weight_decay)
    average = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    run = Run(folder, network, average, optimiser, initial)
    last = folder / "last.safetensors"
    if last.exists():
        load_checkpoint(last, run)
    return run


@torch.no_grad()
def _update_average(run: Run, config: TrainConfig) -> None:
    """Update the running average of the weights; in the first steps, old weights count less than later in training."""
    keep = min(config.ema, (1 + run.step) / (10 + run.step))
    for name, tensor in run.network.state_dict().items():
        run.average[name].lerp_(tensor, 1 - keep) if tensor.is_floating_point() else run.average[name].copy_(tensor)


@torch.no_grad()
def _validate(run: Run, config: TrainConfig, source: Source, fabric: Any) -> dict[str, float]:
    """Score the running average of the weights on validation patterns, and save the average if its score is the best so far."""
    network = deepcopy(run.network).eval()
    network.load_state_dict(run.average)
    values = validate(network, source, config, fabric)
    whole = with_fine_steps(network, run.initial)
    # Measured patterns have no truth; the misfit after a short refinement chooses.
    score = values.get("val_correlation", 1 - values["val_chi_refined"])
    if fabric.is_global_zero and score > run.best:
        run.best = score
        known = training_ranges(network, source) if not isinstance(network, Published) else {}
        card = weights.Card("trained", *weights.kind_of(whole), configuration.dump(config), run.seen, values, familiar=known)
        weights.save_network(run.folder / "best.safetensors", whole, card)
    return values


@torch.no_grad()
def validate(network: nn.Module, source: Source, config: TrainConfig, fabric: Any) -> dict[str, float]:
    """Return medians and success rates over validation patterns, of the prediction and of the refined prediction.

    Success is an aligned complex correlation with the truth of at least 0.95. Each pattern is predicted from one start only, so the
    result is not improved by a choice among several predictions.
    """
    chi: list[float] = []
    chi_refined: list[float] = []
    found: dict[str, list[float]] = {"": [], "_refined": []}
    for chunk in range(-(-config.validation // config.validation_chunk)):
        batch = source(chunk, 0, config.validation_chunk, VALIDATION)
        data = Measurement.of(batch.counts.to(fabric.device), batch.valid.to(fabric.device))
        begin = draw_start(network, data, torch.Generator(fabric.device).manual_seed(chunk))
        with mixed_precision(config, fabric.device):
            rho, magnitude = network(data.magnitude, data.valid, begin)[-1]
        better, chi2 = refine_predictions(rho, data, config.expert, chunk)
        chi += misfit(magnitude, data).sqrt().tolist()
        chi_refined += chi2.sqrt().tolist()
        if batch.truth is not None:
            for name, objects in (("", rho), ("_refined", better)):
                whole = pad(objects, data.magnitude.shape[-3:]).cpu()
                # An empty object, all of it below a hard threshold, has no correlation with the truth.
                pairs = zip(whole, batch.truth.cpu(), strict=True)
                found[name] += [align(o, t).correlation if o.any() else 0.0 for o, t in pairs]
    values = {"val_chi": _median(chi), "val_chi_refined": _median(chi_refined)}
    for name, correlations in found.items():
        if correlations:
            values["val_correlation" + name] = _median(correlations)
            values["val_success" + name] = sum(c >= 0.95 for c in correlations) / len(correlations)
    return values


def _median(values: list[float]) -> float:
    return float(torch.tensor(values).median())
