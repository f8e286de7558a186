"""Commands about the network: train, evaluate, stack."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from braggshot.cli.completion import proposing
from braggshot.cli.options import Config, Seed, Sets, progress_bar

if TYPE_CHECKING:
    from braggshot.nn.training import Report

commands = typer.Typer()


@commands.command(
    epilog="braggshot train --steps 20000 -o run/ | braggshot train --init flagship --data scan.cxi --steps 300 -o tuned/"
)
def train(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the run; a second call goes on with it.")],
    steps: Annotated[int | None, typer.Option(help="Steps of the optimiser, earlier ones included.")] = None,
    data: Annotated[list[Path] | None, typer.Option(help="Measured scans to train on too.")] = None,
    init: Annotated[
        str | None, typer.Option(help="Name or file of a network to start from.", autocompletion=proposing("--init"))
    ] = None,
    preset: Annotated[
        str, typer.Option(help="flagship, two-scale, autophasenn or autophasenn-2024.", autocompletion=proposing("--preset"))
    ] = "flagship",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.", autocompletion=proposing("--device"))] = "auto",
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Train the network on diffraction alone: simulated, measured, or both."""
    from braggshot import config as configuration
    from braggshot.train import learn, resolve

    layers = [configuration.read_toml(config)] if config else []
    flags = {"train": {"steps": steps}} if steps is not None else {}
    table = configuration.merge(*layers, flags, configuration.parse_assignments(sets or []))
    settings = resolve(table, preset, from_nothing=init is None and not data)
    with _training_bar(str(output)) as show:
        for report in learn(settings, output, data or (), init, device):
            show(report)
    print(output / "best.safetensors")


@contextmanager
def _training_bar(title: str) -> Iterator[Any]:
    """A bar on stderr with throughput, loss and the latest validation."""
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


@commands.command(epilog="braggshot evaluate --suite strain --method refine --method iterative-5 --crystals 20 -o evaluation/")
def evaluate(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the results; a second call does what is missing.")],
    suite: Annotated[
        list[str] | None,
        typer.Option(help="Crystals to phase (default strain); see docs/evaluation.md.", autocompletion=proposing("--suite")),
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Ways to phase them (default all).", autocompletion=proposing("--method"))
    ] = None,
    crystals: Annotated[int, typer.Option(help="Per group of a suite.")] = 20,
    network: Annotated[
        str | None, typer.Option(help="Name or file of a trained network.", autocompletion=proposing("--network"))
    ] = None,
    published: Annotated[str | None, typer.Option(help="File of a trained autophasenn, for its methods.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of CXI files with a truth, for suites of files.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.", autocompletion=proposing("--device"))] = "auto",
    seed: Seed = 0,
) -> None:
    """Methods side by side on crystals that are known: a row each, a table, figures."""
    from braggshot.evaluation import methods, rows, table
    from braggshot.report.evaluation import write_evaluation_figure

    chosen = methods.Choice(published=published, device=device, seed=seed)
    chosen = chosen if network is None else replace(chosen, network=network)
    names = method or methods.defaults(chosen)
    with _evaluation_bar() as show:
        for report in rows.evaluate(output, suite or ["strain"], names, chosen, crystals, data):
            show(report)
    found = rows.read(output / "results.json")
    table.write(output / "table.md", found)
    print(output / "table.md")
    for name in dict.fromkeys(row["suite"] for row in found):
        write_evaluation_figure(output / f"{name}.png", name, [row for row in found if row["suite"] == name])
        print(output / f"{name}.png")


@contextmanager
def _evaluation_bar() -> Iterator[Any]:
    """A bar on stderr with the latest row."""
    with progress_bar() as bar:
        task = bar.add_task("evaluating", total=None, note="")

        def show(report: Any) -> None:
            row = report.row
            note = f"{row['suite']}, {row['crystal']}, {row['method']}: correlation {row['correlation']:.3f}"
            bar.update(task, total=report.total, completed=report.done, note=note)

        yield show


@commands.command(epilog="braggshot stack patterns.h5 -o objects.h5 --device cuda")
def stack(
    patterns: Annotated[Path, typer.Argument(help="HDF5 or .npy file of patterns (n, z, y, x), each about its peak.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="HDF5 file of the objects.")],
    dataset: Annotated[str | None, typer.Option(help="Name in an HDF5 file that holds several.")] = None,
    network: Annotated[
        str | None, typer.Option(help="Name or file of a trained network.", autocompletion=proposing("--network"))
    ] = None,
    starts: Annotated[int, typer.Option(help="Of each pattern; the best by chi2 is kept.")] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="The network's low resolution alone: several times as fast.")] = False,
    batch: Annotated[int, typer.Option(help="Patterns at a time (default: what fits).")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.", autocompletion=proposing("--device"))] = "auto",
    seed: Seed = 0,
) -> None:
    """One shot for thousands of patterns of one shape, from disk to device to disk."""
    from braggshot import config
    from braggshot.batch_predict import StackConfig, one_shot_stack

    asked = {
        "dataset": dataset,
        "network": network,
        "starts": starts,
        "quick": quick,
        "batch": batch,
        "device": device,
        "seed": seed,
    }
    settings = config.resolve(StackConfig, {name: value for name, value in asked.items() if value is not None})
    with progress_bar() as bar:
        task, began = bar.add_task(patterns.name, total=None, note=""), time.perf_counter()

        def show(done: int, total: int) -> None:
            note = f"{done}/{total}, {done / (time.perf_counter() - began):.0f} patterns/s"
            bar.update(task, total=total, completed=done, note=note)

        print(one_shot_stack(patterns, output, settings, show))
