"""Write into the manual's pages what the program itself can say: ``python docs/generate.py``.

What stands between ``<!-- generate: NAME ARGUMENT -->`` and ``<!-- end -->`` in a page is replaced by what the function NAME of
`PARTS` returns. A test fails while a page says anything else.
"""

from __future__ import annotations

import importlib
import json
import re
import statistics
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from braggshot import config

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MARK = re.compile(r"^<!-- generate: (\w+) ?([^\n]*?) -->\n.*?^<!-- end -->$", re.MULTILINE | re.DOTALL)
_KINDS = {str: "text", Path: "path", int: "integer", float: "number"}


def main() -> None:
    """Rewrite every page that has marks."""
    for page in DOCS.rglob("*.md"):
        before = page.read_text()
        after = written(before)
        if after != before:
            page.write_text(after)
            print(page.relative_to(ROOT))


def written(text: str) -> str:
    """Return the text of a page with each marked part made anew."""
    return MARK.sub(_part, text)


def _part(found: re.Match[str]) -> str:
    name, arguments = found.groups()
    mark = f"{name} {arguments}".strip()
    return f"<!-- generate: {mark} -->\n\n{PARTS[name](*arguments.split()).strip()}\n\n<!-- end -->"


def settings(place: str, prefix: str = "") -> str:
    """Tables of the dataclass ``module:Class``, or of what ``module:function`` makes of no settings, and of those inside it."""
    module, _, name = place.partition(":")
    found = getattr(importlib.import_module(module), name)
    tables = config.list_settings(found if isinstance(found, type) else found({}), prefix)
    return "\n".join(line for table in tables for line in _table(table, table.name + "." == prefix))


def _table(table: config.Table, is_outermost: bool) -> Iterator[str]:
    if table.name and not is_outermost:
        yield f"\n### {table.name}\n\n{_sentence(table.meaning)}\n"
    yield "| setting | default | meaning |\n|---|---|---|"
    for setting in table.settings:
        default = setting.default if setting.default == "required" or "tables" in setting.default else f"`{setting.default}`"
        yield f"| `{setting.name}` | {default} | {_cell(setting.meaning)} |"


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:].rstrip('.')}."


def _cell(words: str) -> str:
    """Words inside a table of Markdown: what is not code has no marks."""
    parts = words.replace("``", "`").replace("|", "\\|").split("`")
    return "`".join(part if number % 2 else re.sub(r"([*_<])", r"\\\1", part) for number, part in enumerate(parts))


def commands() -> str:
    """Each sub-command with its arguments and options, as typer knows them."""
    import typer

    from braggshot.cli import app

    group = typer.main.get_command(app)
    return "\n".join(line for name, command in group.commands.items() for line in _command(name, command))


def _command(name: str, command: Any) -> Iterator[str]:
    yield f"\n## {name}\n\n{command.help}\n"
    yield from (f"    {line.strip('`')}" for line in (command.epilog or "").split("\n\n"))
    yield "\n| | value | default | |\n|---|---|---|---|"
    for parameter in command.params:
        label = ", ".join(f"`{text}`" for text in parameter.opts)
        several = " …" if parameter.multiple or parameter.nargs == -1 else ""
        unsaid = parameter.default is None or parameter.default is False or parameter.default == ""
        default = "required" if parameter.required else "" if unsaid else f"`{parameter.default}`"
        yield f"| {label} | {_value(parameter)}{several} | {default} | {_cell(parameter.help or '')} |"


def _value(parameter: Any) -> str:
    """Describe what an argument or option takes: nothing, its own word, or a type."""
    if getattr(parameter, "is_flag", False):
        return ""
    if parameter.metavar and re.search(r"[=|]", parameter.metavar):
        return _cell(parameter.metavar.strip("<>").replace("|", ", "))
    annotation = parameter.type_descriptor.annotation
    if typing.get_origin(annotation) is typing.Literal:
        return _cell(", ".join(typing.get_args(annotation)))
    return _cell(" ".join(_KINDS.get(kind, kind.__name__) for kind in typing.get_args(annotation) or (annotation,)))


def formats() -> str:
    """List the readers and the options of each."""
    from braggshot.io.registry import BUILT_IN, option_names

    lines = ["| `--format` | reads | `--set input.…` |", "|---|---|---|"]
    for known in BUILT_IN:
        names = option_names(importlib.import_module(known.module))
        lines.append(f"| `{known.name}` | {known.summary} | {', '.join(f'`{name}`' for name in names) or '-'} |")
    return "\n".join(lines)


def instruments() -> str:
    """List the built-in diffractometers."""
    from braggshot.io.beamlines.instruments import INSTRUMENTS

    lines = ["| `instrument` | | sample circles | detector circles | rows, columns |", "|---|---|---|---|---|"]
    for name, known in INSTRUMENTS.items():
        sample, detector = (
            ", ".join(f"{axis.motor} {axis.axis}" for axis in circles) for circles in (known.sample, known.detector)
        )
        lines.append(f"| `{name}` | {known.name} | {sample} | {detector} | {known.row_axis}, {known.column_axis} |")
    return "\n".join(lines)


def durations() -> str:
    """Table of crystal and volume against method: median time of phasing, from the rows that ``evaluate`` wrote."""
    rows = [row for row in json.loads((DOCS / "lab" / "durations.json").read_text()) if "seconds" in row]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    lines = [f"| voxels | crystals | {' | '.join(f'{name} [s]' for name in methods)} |", "|---|---|" + "---|" * len(methods)]
    for shape, group in dict.fromkeys((tuple(row["shape"]), row["group"]) for row in rows):
        same = [row for row in rows if (tuple(row["shape"]), row["group"]) == (shape, group)]
        cells = [[row["seconds"] for row in same if row["method"] == name] for name in methods]
        times = " | ".join(f"{statistics.median(cell):.2g}" if cell else "" for cell in cells)
        lines.append(f"| {' x '.join(map(str, shape))} | {group} | {times} |")
    return "\n".join(lines)


def citation() -> str:
    """CITATION.cff as it stands."""
    return f"```yaml\n{(ROOT / 'CITATION.cff').read_text()}```"


PARTS: dict[str, Callable[..., str]] = {
    "settings": settings,
    "commands": commands,
    "formats": formats,
    "instruments": instruments,
    "citation": citation,
    "durations": durations,
}

if __name__ == "__main__":
    main()
