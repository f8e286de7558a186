"""Phase thousands of patterns, each by one pass of the network."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from braggshot.cli.options import Device, Force, Network, Seed, examples
from braggshot.cli.progress import progress_bar
from braggshot.cli.terminal import say

commands = typer.Typer()


@commands.command(epilog=examples("braggshot stack patterns.h5 -o objects.h5 --device cuda"))
def stack(
    patterns: Annotated[Path, typer.Argument(help="HDF5 or .npy file of patterns (n, z, y, x), each about its peak.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="HDF5 file of the objects.")],
    dataset: Annotated[str | None, typer.Option(help="Dataset of the patterns, in an HDF5 file that holds several.")] = None,
    network: Network = None,
    starts: Annotated[int, typer.Option(help="Random starts for each pattern; the one with the lowest chi2 is kept.")] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="The network's low resolution alone: several times as fast.")] = False,
    batch: Annotated[int, typer.Option(help="Patterns in a batch (default: as many as fit into memory).")] = 0,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = "auto",
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Phase thousands of patterns of one shape, each by one pass of the network; patterns and objects stay on disk."""
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

        say(one_shot_stack(patterns, output, settings, show, force))
