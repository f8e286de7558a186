"""Train a network: combine the settings, the source of patterns, the network and the training loop."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from braggshot import config
from braggshot.errors import ConfigError
from braggshot.io import registry
from braggshot.iterative.iterate import flush_denormals
from braggshot.nn import datasets, solved_patterns, training, weights
from braggshot.nn.datasets import DataConfig, Source
from braggshot.nn.predict import LARGEST
from braggshot.nn.solved_patterns import SolvedConfig
from braggshot.nn.training import Report, TrainConfig
from braggshot.nn.two_scale import CENTRAL
from braggshot.prepare import PrepareConfig, prepare


@dataclass(frozen=True)
class TrainSettings:
    """Settings of a training run, one table for each part; `input` is passed to the reader of measured files unchanged.

    Parameters
    ----------
    whole : number of training steps at full resolution that follow the low-resolution steps of `train`; they train a network of the
        kind "two-scale"; 0 for none
    """

    input: dict[str, Any] = field(default_factory=dict)
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    data: DataConfig = field(default_factory=DataConfig)
    solved: SolvedConfig = field(default_factory=SolvedConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    whole: int = 0


FROM_NOTHING: dict[str, Any] = {
    "data": {"crop": CENTRAL},
    "solved": {"patterns": 4096},
    "train": {"steps": 20_000, "network": {"steps": 4}},
    "whole": 400,
}
"""Changes to the preset "flagship" for a training that begins with neither a network nor measured files.

Simulated patterns are phased first. The network learns from the crystals found, at low resolution, and is then trained at full
resolution.
"""
LOW = "low-resolution"  # name of the folder for the part of a training run at low resolution


def train_network(
    settings: TrainSettings, folder: Path, files: Sequence[Path] = (), initial: str | Path | None = None, device: str = "auto"
) -> Iterator[Report]:
    """Train a network in `folder`, or continue the training that is there; yields a report after each step.

    Parameters
    ----------
    settings : resolved settings
    folder : receives ``last.safetensors``, ``best.safetensors``, ``metrics.csv`` and ``tensorboard/``; with the setting `whole`
        these files are of the full resolution, and a folder inside receives the files of the low resolution
    files : measured scans, in any format that braggshot reads; with `data.measured` of 1 nothing is simulated
    initial : network to start from, by name or file
    device : "auto", "cpu" or "cuda"

    Raises
    ------
    ConfigError : if the optional packages for training are missing, or the settings contradict each other.
    """
    yield from flush_denormals(_learn(settings, folder, files, initial, device))


def _learn(
    settings: TrainSettings, folder: Path, files: Sequence[Path], initial: str | Path | None, device: str
) -> Generator[Report, None, None]:
    _check(settings, folder, initial)
    if settings.whole:
        then = _at_full_resolution(settings)
        yield from _learn(replace(settings, whole=0), folder / LOW, files, initial, device)
        yield from _learn(then, folder, files, folder / LOW / "best.safetensors", device)
        return
    fabric = _fabric(device, folder)
    start = None if initial is None else weights.load_network(initial)[0]
    source = _source(settings, files, fabric.device)
    if settings.solved.patterns:
        source = yield from _taught(settings, source, folder / "solved", fabric)
    for report in training.train(settings.train, source, folder, fabric, start):
        fabric.log_dict(report.values, report.step)  # TensorBoard
        yield report


def _check(settings: TrainSettings, folder: Path, initial: str | Path | None) -> None:
    kind = settings.train.kind
    if settings.whole and kind != "flagship":
        raise ConfigError(f"whole={settings.whole}: steps at the full resolution follow train.kind='flagship', not {kind!r}.")
    if kind == "two-scale":
        if settings.solved.patterns:
            raise ConfigError("train.kind='two-scale' is taught by refining its own answers; leave solved_patterns.patterns at 0.")
        if initial is None and not (folder / "last.safetensors").exists():
            raise ConfigError("train.kind='two-scale' begins with a finished network for the low resolution; name it as init.")


def _at_full_resolution(settings: TrainSettings) -> TrainSettings:
    """Make the settings of the second part of a training run, which trains at full resolution, on large crystals only."""
    preset, asked = training.PRESETS["two-scale"], settings.train
    crystals = tuple(kind for kind in settings.data.crystals if min(kind.shape) > CENTRAL)
    if not crystals:
        raise ConfigError(f"whole={settings.whole}: the full resolution learns from crystals of over {CENTRAL} voxels an axis.")
    # Number of chunks in a batch, as in the first part, so that the training processes can again share the chunks evenly.
    chunks = asked.batch // asked.chunk
    chunk = max(1, preset.batch // chunks)
    train = replace(
        asked,
        kind=preset.kind,
        steps=settings.whole,
        batch=chunks * chunk,
        chunk=chunk,
        ema=preset.ema,
        expert=preset.expert,
        validate_every=max(1, settings.whole // 4),
    )
    data = replace(settings.data, crop=None, crystals=crystals)
    return replace(settings, whole=0, train=train, data=data, solved=replace(settings.solved, patterns=0))


def _fabric(device: str, folder: Path) -> Any:
    """Start the training on one device, or join the training processes that torchrun has started."""
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.loggers.tensorboard import TensorBoardLogger
    except ModuleNotFoundError as error:
        raise ConfigError("training needs lightning-fabric and tensorboard: pip install 'braggshot[train]'.") from error
    world, here = (int(os.environ.get(name, 1)) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    accelerator = {"auto": "auto", "cpu": "cpu", "cuda": "gpu"}[device]
    strategy = "ddp" if world > 1 else "auto"
    logger = TensorBoardLogger(folder, name="tensorboard", version="")
    fabric = Fabric(accelerator=accelerator, strategy=strategy, devices=here, num_nodes=world // here, loggers=[logger])
    fabric.launch()
    return fabric


def _taught(settings: TrainSettings, source: Source, folder: Path, fabric: Any) -> Generator[Report, None, Source]:
    """Phase patterns of `source`; return a source that trains on the phased patterns, and validates on new patterns of `source`.

    The function is a generator, which yields a report after each file of phased patterns.
    """
    asked = settings.solved.patterns
    with fabric.rank_zero_first():
        for given, found in solved_patterns.solve(source, folder, settings.solved, settings.train.seed):
            yield Report(min(given, asked), asked, 0, {"solved": found})
    lessons = solved_patterns.replay_source(folder, settings.solved, settings.train.seed, settings.data.hidden, fabric.device)
    return solved_patterns.split_source(lessons, source)


def _source(settings: TrainSettings, files: Sequence[Path], device: torch.device) -> Source:
    simulated = datasets.simulated_source(
        settings.data.crystals, settings.train.seed, device, settings.data.hidden, settings.data.crop
    )
    if not files:
        return simulated
    volumes = [prepare(registry.read(path, **settings.input), settings.prepare) for path in files]
    most = LARGEST if settings.train.kind == "two-scale" else CENTRAL
    measured = datasets.measured_source(volumes, settings.train.seed, hidden=settings.data.hidden, most=most)
    return datasets.mix_sources(simulated, measured, settings.data.measured)


def resolve(table: dict[str, Any], preset: str = "flagship", from_nothing: bool = False) -> TrainSettings:
    """Merge nested settings into those of a preset; every name and value is checked.

    Parameters
    ----------
    from_nothing : True if neither a network nor measured files are given; the preset "flagship" then takes `FROM_NOTHING`

    Raises
    ------
    ConfigError : if there is no such preset or setting.
    """
    if preset not in training.PRESETS:
        raise ConfigError(f"no preset {preset!r}; known: {', '.join(training.PRESETS)}.")
    beginning = FROM_NOTHING if from_nothing and preset == "flagship" else {}
    return config.resolve(TrainSettings, config.merge({"train": config.dump(training.PRESETS[preset])}, beginning, table))
