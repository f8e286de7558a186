"""Write the words that the shell proposes, asked of the program (make words), after a setting or a choice was added.

Each line of the file is an option or setting, the commands that have it, and the words that it takes, where they are known.
"""

from __future__ import annotations

import dataclasses
import typing
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer

from braggshot import cluster, config, pipeline, train
from braggshot.cli import app
from braggshot.crystals.sample import CrystalSettings
from braggshot.evaluation.methods import METHODS
from braggshot.evaluation.suites import SUITES
from braggshot.io.registry import BUILT_IN, _load, option_names
from braggshot.live import session
from braggshot.nn.training import PRESETS
from braggshot.phasing.strategies import PhasingConfig

FILE = Path(__file__).parents[1] / "src" / "braggshot" / "cli" / "words.txt"
RESOLVERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "reconstruct": cluster.resolve,
    "postprocess": pipeline.resolve,
    "series": cluster.resolve_series,
    "live": session.resolve,
    "train": train.resolve,
    "simulate": lambda table: config.resolve(CrystalSettings, table),
}


def text() -> str:
    """The whole file."""
    rows: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for command, name, words in _rows():
        rows[name, *words].append(command)
    return "".join(" ".join([name, ",".join(commands), *words]) + "\n" for (name, *words), commands in rows.items())


def _rows() -> Iterator[tuple[str, str, list[str]]]:
    commands = typer.main.get_command(app).commands
    for name, command in commands.items():
        options = {option for parameter in command.params for option in parameter.opts}
        words = {option: list(METHODS) if (name, option) == ("evaluate", "--method") else found for option, found in _options()}
        yield from ((name, option, found) for option, found in words.items() if option in options)
        if name == "live" or "--format" in options:
            yield from ((name, f"input.{option}", []) for option in _of_readers())
        if name in RESOLVERS:
            yield from ((name, setting, found) for setting, found in _settings(RESOLVERS[name]({})))


def _options() -> Iterator[tuple[str, list[str]]]:
    """Options and their words; shipped networks are looked for when they are asked."""
    hints = typing.get_type_hints(PhasingConfig)
    yield "--method", _words(hints["method"])
    yield "--device", _words(hints["device"])
    yield "--cluster", ["local", "slurm", "tcp://"]
    yield "--preset", list(PRESETS)
    yield "--suite", list(SUITES)
    yield "--format", [known.name for known in BUILT_IN]
    yield from (("--network", []), ("--init", []))


def _of_readers() -> list[str]:
    return sorted({"geometry", *(name for known in BUILT_IN for name in option_names(_load(known)))})


def _settings(table: Any, prefix: str = "") -> Iterator[tuple[str, list[str]]]:
    """Name and words of each setting of a record, and of the records in it."""
    hints = typing.get_type_hints(type(table))
    for field in dataclasses.fields(table):
        value = getattr(table, field.name)
        if dataclasses.is_dataclass(value):
            yield from _settings(value, f"{prefix}{field.name}.")
        elif field.name != "input":  # free: it goes to the reader
            yield prefix + field.name, _words(hints[field.name])


def _words(hint: Any) -> list[str]:
    """What a value may be, where its type names that; a default is no help to who wants to change it."""
    if hint is bool:
        return ["true", "false"]
    kinds = () if typing.get_origin(hint) is tuple else (hint, *typing.get_args(hint))  # a list needs brackets and quotes
    return [word for kind in kinds if typing.get_origin(kind) is typing.Literal for word in typing.get_args(kind)]


if __name__ == "__main__":
    FILE.write_text(text())
