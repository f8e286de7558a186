"""Write an object that one program found in the files of another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from braggshot.cli.options import Force, examples
from braggshot.cli.terminal import say
from braggshot.errors import ConfigError

commands = typer.Typer()


@commands.command(
    epilog=examples("braggshot convert results_phasing/ -o crystal.cxi", "braggshot convert crystal.cxi --to cohere -o exp_54/")
)
def convert(
    source: Annotated[Path, typer.Argument(help="Object of PyNX (CXI), cohere (folder or image.npy), cdiutils or braggshot.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="A .cxi or .npz file, or the folder of --to.")],
    to: Annotated[
        Literal["cxi", "npz", "cohere", "cdiutils"] | None,
        typer.Option(help="Program whose files are written; a .cxi is for PyNX and braggshot (default by the ending of -o)."),
    ] = None,
    number: Annotated[int | None, typer.Option("--scan", help="Number of the scan, by which cdiutils names its files.")] = None,
    force: Force = False,
) -> None:
    """Convert an object between PyNX, cohere, cdiutils and braggshot: axes, sign of the phase, scale, support, counts."""
    from braggshot.io.results.objects import read_object, write_object
    from braggshot.output import check_writable

    endings: dict[str, Literal["cxi", "npz"]] = {".cxi": "cxi", ".npz": "npz"}
    layout = to or endings.get(output.suffix)
    if layout is None:
        raise ConfigError(f"{output}: say by --to for which program, or name a .cxi or .npz file.")
    if endings.get(output.suffix) != (layout if layout in endings.values() else None):
        raise ConfigError(
            f"{output}: --to {layout} writes {'a .' + layout + ' file' if layout in endings.values() else 'a folder'}."
        )
    kept = [file for file in source.rglob("*") if file.is_file()] if source.is_dir() else [source]
    check_writable(output, kept)
    found = read_object(source)
    for file in write_object(found, output, layout, number, kept, force):
        say(f"wrote {file}")
    if not found.volume.valid.any():
        say("the source holds no counts: none were written.", to_stderr=True)
    if layout in {"cohere", "cdiutils"} or found.volume.reciprocal_basis is None:
        say("these files hold no geometry: `braggshot postprocess` takes it from the scan.", to_stderr=True)
