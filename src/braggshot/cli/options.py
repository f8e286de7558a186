"""What the commands share: their options, settings from file and flags, and bars of progress."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from braggshot.cli.completion import proposing

if TYPE_CHECKING:
    from braggshot.iterative.iterate import Progress
    from braggshot.pipeline import Settings

Inputs = Annotated[list[Path], typer.Argument(help="Raw scan: CXI, SPEC, HDF5, NPZ, TIFF, or a folder or pattern of images.")]
Format = Annotated[
    str | None, typer.Option("--format", help="Reader to use instead of looking at the file.", autocompletion=proposing("--format"))
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", help="Setting as a.b=c, such as input.scan=54.", metavar="A.B=C", autocompletion=proposing("--set")),
]
Config = Annotated[Path | None, typer.Option("--config", help="TOML file of settings.")]
Seed = Annotated[int, typer.Option("--seed", help="Of every random number.")]


def layered(config: Path | None, sets: list[str] | None, flags: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a user asks for: the file, then the flags, then --set."""
    from braggshot import config as configuration

    layers = [configuration.read_toml(config)] if config else []
    return configuration.merge(*layers, flags or {}, configuration.parse_assignments(sets or []))


def settings_of(config: Path | None, sets: list[str] | None, flags: Mapping[str, Any]) -> Settings:
    """Defaults, then what a user asks for."""
    from braggshot.pipeline import resolve

    return resolve(layered(config, sets, flags))


def progress_bar(transient: bool = False) -> Any:
    """A bar on stderr, silent where that is no terminal; what is printed meanwhile stays above it, or goes down the pipe."""
    from rich import progress as bars
    from rich.console import Console

    console, shares = Console(stderr=True), sys.stdout.isatty()
    texts = (bars.TextColumn("{task.description}"), bars.BarColumn(), bars.TextColumn("{task.fields[note]}"))
    how: Any = {"console": console, "disable": not console.is_terminal, "transient": transient, "redirect_stdout": shares}
    return bars.Progress(*texts, bars.TimeRemainingColumn(), **how)


@contextmanager
def phasing_bar(title: str) -> Iterator[Any]:
    """A bar on stderr with the error falling; silent where stderr is not a terminal."""
    with progress_bar(transient=True) as bar:
        task = bar.add_task(f"{title}: preparing", total=None, note="")

        def show(progress: Progress) -> None:
            error = "" if progress.error is None else f"error {float(progress.error.min()) ** 0.5:.4f}"
            bar.update(
                task,
                description=f"{title}: start {progress.starts[0] + 1}",
                total=progress.n_iterations,
                completed=progress.iteration,
                note=f"{progress.step} {error}",
            )

        yield show
