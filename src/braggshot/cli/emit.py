"""Send the frames of a scan as a detector would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from braggshot.cli.options import Format, Seed, Sets, examples
from braggshot.cli.progress import progress_bar
from braggshot.cli.terminal import say

commands = typer.Typer()

# Methods that compress the frames before they are sent; "none" leaves them uncompressed.
Compression = Literal["none", "lz4", "bslz4", "blosc", "zstd"]


@commands.command(
    epilog=examples(
        "braggshot emit scan.cxi --to folder:frames/ --rate 50 --faults drop=0.02,truncate=0.01,abort=at:10",
    )
)
def emit(
    path: Annotated[Path, typer.Argument(help="Any scan that braggshot reads.")],
    to: Annotated[
        str,
        typer.Option("--to", help="folder:PATH, pva:CHANNEL, zmq:, stins: or bluesky:tcp://127.0.0.1:PORT, tiled:, blissdata:."),
    ],
    rate: Annotated[float, typer.Option(help="Frames a second; 0 is as fast as they go.")] = 10.0,
    faults: Annotated[
        str,
        typer.Option(
            help="Faults, such as drop=0.02,duplicate=0.02,reorder=0.05,late=0.02,truncate=0.01,dead=after:30,abort=at:10."
        ),
    ] = "",
    seed: Seed = 0,
    repeat: Annotated[int, typer.Option(min=1, help="Number of scans.")] = 1,
    compress: Annotated[Compression | None, typer.Option(help="Compression of the frames (default that of the transport).")] = None,
    hdf5: Annotated[
        bool, typer.Option("--hdf5", help="Into a folder: one growing HDF5 file per scan, not one TIFF per frame.")
    ] = False,
    format: Format = None,
    sets: Sets = None,
) -> None:
    """Send the frames of a scan as a detector would; on request some frames are lost, late or damaged."""
    from dataclasses import asdict
    from threading import Event

    from braggshot.config import parse_assignments
    from braggshot.io.registry import read
    from braggshot.live.simulator import player
    from braggshot.live.simulator.faults import parse

    planned = parse(faults)
    scan = read(path, format, **parse_assignments(sets or []).get("input", {}))
    options = {**({} if compress is None else {"compress": compress}), **({"hdf5": True} if hdf5 else {})}
    sink, stop, sent = player.open_sink(to, **options), Event(), player.EmitProgress(0, 0)
    try:
        say(f"{sink.url} has {scan.frames.shape[0]} frames of {path} for whoever listens")
        sink.wait(stop)
        with progress_bar() as bar:
            task = bar.add_task(to, total=scan.frames.shape[0] * repeat, note="")
            for sent in player.emit(scan, sink, stop, rate, planned, seed, repeat):
                bar.update(task, completed=sent.frames, note=f"scan {sent.scans}")
    except BaseException:
        stop.set()
        raise
    finally:
        sink.close()
    say(json.dumps({"to": to, **asdict(sent)}))
