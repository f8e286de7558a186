"""Say which parts of braggshot can run on this machine."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from braggshot.cli.options import examples
from braggshot.cli.terminal import say

commands = typer.Typer()


@commands.command(epilog=examples("braggshot doctor --json"))
def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Say what can run on this machine: versions, devices, memory, weights, and which optional parts are missing."""
    from braggshot.doctor import examine

    facts = examine()
    if as_json:
        say(json.dumps(facts))
        return
    for topic, found in facts.items():
        if found:
            say(topic)
        for name, value in found.items():
            say(f"  {name:16} {value}")
