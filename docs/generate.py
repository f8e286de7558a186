"""Write into the manual's pages what the program itself can say: ``python docs/generate.py``.

What stands between ``<!-- generate: NAME ARGUMENT -->`` and ``<!-- end -->`` in a page is replaced by what the function NAME of
`PARTS` returns. A test fails while a page says anything else.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MARK = re.compile(r"^<!-- generate: (\w+) ?([^\n]*?) -->\n.*?^<!-- end -->$", re.MULTILINE | re.DOTALL)
ENTRY = re.compile(r"^(\S[^:\n]*?) : (.*(?:\n[ ]+.*)*)", re.MULTILINE)
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
    return "\n".join(_tables(found if isinstance(found, type) else found({}), prefix))


def _tables(described: Any, prefix: str) -> Iterator[str]:
    words = meanings(described if isinstance(described, type) else type(described))
    values = {field.name: _value_of(described, field) for field in dataclasses.fields(described)}
    values.pop("input", None)  # free: it goes to the reader
    plain = {name: value for name, value in values.items() if not dataclasses.is_dataclass(value)}
    if plain:
        yield "| setting | default | meaning |\n|---|---|---|"
        yield from (f"| `{prefix}{name}` | {_default(value)} | {_cell(words.get(name, ''))} |" for name, value in plain.items())
    for name in (name for name in values if name not in plain):
        yield f"\n### {prefix}{name}\n\n{_sentence(words.get(name) or type(values[name]).__doc__.splitlines()[0])}\n"
        yield from _tables(values[name], f"{prefix}{name}.")


def _value_of(described: Any, field: dataclasses.Field[Any]) -> Any:
    """Return the value of a field, or its default; MISSING where it must be given."""
    if not isinstance(described, type):
        return getattr(described, field.name)
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:].rstrip('.')}."


def meanings(described: type) -> dict[str, str]:
    """Name to words, from the Parameters of a docstring."""
    _, _, text = (described.__doc__ or "").partition("Parameters\n")
    found = {}
    for names, words in ENTRY.findall(_dedent(text)):
        found |= dict.fromkeys(names.split(", "), " ".join(words.split()))
    return found


def _dedent(text: str) -> str:
    """Without the indentation of the line of dashes under the heading."""
    indent = len(text) - len(text.lstrip(" "))
    return "\n".join(line[indent:] for line in text.splitlines())


def _default(value: Any) -> str:
    if value is dataclasses.MISSING:
        return "required"
    if isinstance(value, tuple) and any(map(dataclasses.is_dataclass, value)):
        return f"{len(value)} tables"
    return f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    """Write a value as a TOML file has it; none where a file would leave it out."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else repr(value)


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
    yield from (f"    {line.strip()}" for line in (command.epilog or "").split(" | "))
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


def citation() -> str:
    """CITATION.cff as it stands."""
    return f"```yaml\n{(ROOT / 'CITATION.cff').read_text()}```"


PARTS: dict[str, Callable[..., str]] = {
    "settings": settings,
    "commands": commands,
    "formats": formats,
    "instruments": instruments,
    "citation": citation,
}

if __name__ == "__main__":
    main()
