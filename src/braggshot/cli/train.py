"""Train a network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from braggshot.cli.options import Config, Device, Sets, examples, networks, proposing
from braggshot.cli.progress import progress_bar
from braggshot.cli.settings import HelpSettings
from braggshot.cli.terminal import say

if TYPE_CHECKING:
    from braggshot.nn.training import Report

commands = typer.Typer()

# Names of the networks that can be trained; each name also chooses the default settings of the training.
Preset = Literal["flagship", "two-scale", "autophasenn", "autophasenn-2024"]


@commands.command(
    epilog=examples(
        "braggshot train --steps 20000 -o run/",
        "braggshot train --init flagship --data scan.cxi --steps 300 -o tuned/",
    )
)
def train(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the run; a second call goes on with it.")],
    steps: Annotated[int | None, typer.Option(help="Steps of the optimiser, earlier ones included.")] = None,
    data: Annotated[list[Path] | None, typer.Option(help="Measured scans to train on too.")] = None,
    init: Annotated[
        str | None, typer.Option(help="Name or file of a network to start from.", autocompletion=proposing(networks))
    ] = None,
    preset: Annotated[Preset, typer.Option(help="Network to train, with its default settings.")] = "flagship",
    device: Annotated[Device, typer.Option(help="Where to compute.")] = "auto",
    config: Config = None,
    sets: Sets = None,
    help_settings: HelpSettings = False,
) -> None:
    """Train the network on diffraction alone: simulated, measured, or both."""
    from braggshot import config as configuration
    from braggshot.io.atomic import refuse_target
    from braggshot.output import check_writable
    from braggshot.train import resolve, train_network

    read = [path for path in (*(data or ()), config, Path(init) if init else None) if path is not None]
    for name in ("last.safetensors", "best.safetensors", "metrics.csv"):
        refuse_target(output / name, read)
    check_writable(output)
    layers = [configuration.read_toml(config)] if config else []
    flags = {"train": {"steps": steps}} if steps is not None else {}
    table = configuration.merge(*layers, flags, configuration.parse_assignments(sets or []))
    settings = resolve(table, preset, from_nothing=init is None and not data)
    with _training_bar(str(output)) as show:
        for report in train_network(settings, output, data or (), init, device):
            show(report)
    say(output / "best.safetensors")


@contextmanager
def _training_bar(title: str) -> Iterator[Any]:
    """Show in a progress bar the crystals per second, the loss and the latest validation of a training."""
    with progress_bar() as bar:
        task, latest = bar.add_task(title, total=None, note=""), ""

        def show(report: Report) -> None:
            nonlocal latest
            values = report.values
            if "solved" in values:
                note = f"patterns to learn from: {report.step}/{report.steps} tried, {values['solved']} solved"
                bar.update(task, total=report.steps, completed=report.step, note=note)
                return
            if "val_correlation" in values:
                latest = f", kept apart: correlation {values['val_correlation']:.3f}, success {values['val_success_refined']:.2f}"
            note = f"{report.step}/{report.steps}, {values['per_second']:.1f} crystals/s, loss {values['loss']:.3f}{latest}"
            bar.update(task, total=report.steps, completed=report.step, note=note)

        yield show
