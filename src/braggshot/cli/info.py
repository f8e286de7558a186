"""Print what braggshot finds in a file of a scan, a result or a network."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from braggshot.cli.metadata import with_metadata
from braggshot.cli.options import Format, Sets, examples, layered

commands = typer.Typer()


@commands.command(epilog=examples("braggshot info example.spec --scan 54"))
@with_metadata()
def info(
    path: Annotated[Path, typer.Argument(help="Raw scan, result, or trained network (file or shipped name).")],
    format: Format = None,
    sets: Sets = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    *,
    stated: dict[str, Any],
) -> None:
    """Print what braggshot finds in a file: format, shape, scans and geometry, or the description of a network."""
    from braggshot.io.registry import describe
    from braggshot.nn.weights import is_network, load_network

    facts = (
        asdict(load_network(path)[1])
        if is_network(path)
        else describe(path, format, **layered(None, sets, stated).get("input", {}))
    )
    if as_json:
        print(json.dumps(facts))
        return
    for name, value in facts.items():
        if value not in (None, [], {}):
            print(f"{name:14} {value}")
