"""Compute strain of an object that another program found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from braggshot.cli.metadata import with_metadata
from braggshot.cli.options import Config, Force, Format, Sets, examples, forced, settings_of
from braggshot.cli.reconstruct import print_result
from braggshot.cli.terminal import say

commands = typer.Typer()


@commands.command(epilog=examples("braggshot postprocess recon.cxi --scan exp.spec --set input.scan=54 --hkl 1,1,1"))
@with_metadata("scan")
def postprocess(
    reconstruction: Annotated[Path, typer.Argument(help="Object of PyNX (CXI), cohere (folder or image.npy) or braggshot.")],
    scan: Annotated[Path | None, typer.Option(help="Raw scan that it explains; not needed for a result of braggshot.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="A .cxi file or a folder (default NAME-strain).")] = None,
    force: Force = False,
    format: Format = None,
    config: Config = None,
    sets: Sets = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, last.")] = False,
    *,
    stated: dict[str, Any],
) -> None:
    """Compute crystal frame, displacement and strain of a reconstruction that another program made."""
    from braggshot.output import summary, write
    from braggshot.postprocess import postprocess as run

    settings = settings_of(config, sets, {**stated, **forced(force)})
    place = output or Path(f"{reconstruction.stem}-strain")
    result = run(reconstruction, scan, settings, format=format, place=place)
    written = write(result, place, settings.output.formats)
    if as_json:
        say(json.dumps(summary(result, str(reconstruction), str(place))))
    else:
        print_result(result, [str(file) for file in written])
