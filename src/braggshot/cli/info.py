"""Print what braggshot finds in a file of a scan, a result or a network."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from braggshot.cli.options import Format, Sets

commands = typer.Typer()


@commands.command(epilog="braggshot info example.spec --set input.scan=54")
def info(
    path: Annotated[Path, typer.Argument(help="Raw scan, result, or trained network (file or shipped name).")],
    format: Format = None,
    sets: Sets = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print what braggshot finds in a file: format, shape, scans and geometry, or the description of a network."""
    from braggshot.config import parse_assignments
    from braggshot.io.registry import describe
    from braggshot.nn.weights import is_network, load_network

    facts = (
        asdict(load_network(path)[1])
        if is_network(path)
        else describe(path, format, **parse_assignments(sets or []).get("input", {}))
    )
    if as_json:
        print(json.dumps(facts))
        return
    for name, value in facts.items():
        if value not in (None, [], {}):
            print(f"{name:14} {value}")
