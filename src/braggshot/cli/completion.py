"""What the shell proposes at TAB: commands and options by themselves, and here the words that options take.

Asking the program itself would take the seconds that torch takes to import; so the words lie in ``words.txt``, which
``packaging/words.py`` writes and a test compares with the program.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import typer

Words = Mapping[str, Sequence[str]]


def proposing(option: str) -> Callable[[typer.Context, str], list[str]]:
    """The `autocompletion` of an option; where it proposes nothing, shells propose files."""

    def propose(ctx: typer.Context, incomplete: str) -> list[str]:
        known = table(ctx.command.name or "")
        if option == "--set":
            return assignments({name: words for name, words in known.items() if not name.startswith("-")}, incomplete)
        return [word for word in (*known[option], *_found(option)) if word.startswith(incomplete)]

    return propose


def table(command: str) -> dict[str, list[str]]:
    """Options and settings of a command, each with the words that it takes."""
    lines = (line.split() for line in Path(__file__).with_name("words.txt").read_text().splitlines())
    return {name: words for name, commands, *words in lines if command in commands.split(",")}


def assignments(settings: Words, incomplete: str) -> list[str]:
    """Names of settings one level at a time, as shells do with folders; the values where one setting is left.

    Never one word alone that is to be gone on with (``prepare.``, ``input.scan=``): the shell would put a space behind it.

    Examples
    --------
    >>> known = {"prepare.aliens": ["auto", "off"], "prepare.flat": [], "output.formats": []}
    >>> assignments(known, "")
    ['prepare.', 'output.']
    >>> assignments(known, "p")
    ['prepare.aliens=', 'prepare.flat=']
    >>> assignments(known, "prepare.a")
    ['prepare.aliens=auto', 'prepare.aliens=off']
    >>> assignments(known, "o")
    ['output.formats=', 'output.formats=VALUE']
    """
    setting, assigned, begun = incomplete.partition("=")
    if assigned:
        return [f"{setting}={word}" for word in settings.get(setting, ()) if word.startswith(begun)]
    depth = incomplete.count(".") + 1
    parts = [name.split(".") for name in settings if name.startswith(incomplete)]
    heads = list(dict.fromkeys(".".join(part[:depth]) + ("." if len(part) > depth else "=") for part in parts))
    if len(heads) != 1:
        return heads
    if heads[0].endswith("."):
        return assignments(settings, heads[0])
    words = settings[heads[0][:-1]]
    return [heads[0] + word for word in (words if len(words) > 1 else ("", *(words or ["VALUE"])))]


def _found(option: str) -> list[str]:
    """Words that depend on the installation: networks shipped with it, formats of other packages."""
    if option in {"--network", "--init"}:
        return sorted(file.stem for file in (Path(__file__).parents[1] / "weights").glob("*.safetensors"))
    if option == "--format":
        from importlib.metadata import entry_points

        return [point.name for point in entry_points(group="braggshot.formats")]
    return []
