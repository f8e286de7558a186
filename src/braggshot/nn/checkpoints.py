"""Save and load a training run: a checkpoint of everything that changes, and a table with one row per step."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from braggshot.errors import ConfigError
from braggshot.nn import weights


@dataclass
class Run:
    """State of a training run: everything that a checkpoint saves, and the network that training began with."""

    folder: Path
    network: nn.Module
    average: dict[str, Tensor]
    optimiser: torch.optim.Optimizer
    initial: nn.Module | None = None
    step: int = 0
    seen: int = 0
    best: float = -1.0


def save_checkpoint(path: Path, run: Run, training: Mapping[str, Any]) -> None:
    """Save a training run as one safetensors file: network, running average of its weights, optimiser, settings.

    Loading a safetensors file cannot run code.
    """
    tensors = {f"network.{name}": tensor for name, tensor in run.network.state_dict().items()}
    tensors |= {f"average.{name}": tensor for name, tensor in run.average.items()}
    for index, state in run.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": tensor for name, tensor in state.items()}
    progress = {"step": run.step, "seen": run.seen, "best": run.best, "training": training}
    weights.write(path, tensors, {"progress": progress})


def load_checkpoint(path: Path, run: Run) -> None:
    """Load a checkpoint into a training run, which is changed in place.

    Raises
    ------
    ConfigError : if the file is no checkpoint, or a checkpoint of another network.
    """
    tensors, metadata = weights.read(path)
    if "progress" not in metadata:
        raise ConfigError(f"{path} is no checkpoint of a training run; choose another folder.")
    parts: dict[str, dict[str, Tensor]] = {"network": {}, "average": {}, "optimiser": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    try:
        run.network.load_state_dict(parts["network"])
    except RuntimeError as error:
        raise ConfigError(f"{path} holds another network than the settings ask for; choose another folder.") from error
    run.average = {name: tensor.to(run.average[name].device) for name, tensor in parts["average"].items()}
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in parts["optimiser"].items():
        index, _, key = name.partition(".")
        states.setdefault(int(index), {})[key] = tensor
    run.optimiser.load_state_dict({"state": states, "param_groups": run.optimiser.state_dict()["param_groups"]})
    progress = metadata["progress"]
    run.step, run.seen, run.best = progress["step"], progress["seen"], progress["best"]


# Columns of ``metrics.csv``. Those with ``val_`` hold results on validation patterns, all others on the step's training patterns.
COLUMNS = (
    "step", "seen", "per_second", "loss", "chi", "r_factor", "pull", "trust", "chi_refined", "val_chi", "val_chi_refined",
    "val_correlation", "val_success", "val_correlation_refined", "val_success_refined",
)  # fmt: skip


class Table:
    """Table of a run, ``metrics.csv``, with one row per step.

    When a run resumes from a checkpoint, rows of steps after the checkpoint are removed.
    """

    def __init__(self, path: Path, step: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        kept = [row for row in _rows(path) if int(row["step"]) <= step]
        beside = path.with_suffix(".partial")
        with beside.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, COLUMNS, restval="", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(kept)
        beside.replace(path)

    def add(self, step: int, seen: int, values: dict[str, float]) -> None:
        """Append the row of a step to the table and write it to disk."""
        with self.path.open("a", newline="") as stream:
            row = {"step": step, "seen": seen, **{name: f"{value:.6g}" for name, value in values.items()}}
            csv.DictWriter(stream, COLUMNS, restval="").writerow(row)


def _rows(path: Path) -> list[dict[str, str]]:
    """Read the complete rows of a table; the last row may be cut short if the program was killed while writing."""
    if not path.exists():
        return []
    with path.open(newline="") as stream:
        return [row for row in csv.DictReader(stream) if None not in row.values() and None not in row]
