"""List the settings of all commands: name, default, meaning with unit, and what reads them."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any

import typer

from braggshot.cli.options import examples
from braggshot.cli.terminal import say
from braggshot.config import Setting, Table, list_settings, meanings

commands = typer.Typer()

# Command -> class of its settings, as module:class. It is imported when settings are listed, which takes seconds.
ROOTS = {
    "reconstruct": "braggshot.pipeline:Settings",
    "postprocess": "braggshot.pipeline:Settings",
    "series": "braggshot.series.settings:SeriesSettings",
    "live": "braggshot.live.config:LiveSettings",
    "tensor": "braggshot.reflections:TensorSettings",
    "--cluster": "braggshot.cluster:ClusterSettings",
    "train": "braggshot.train:TrainSettings",
    "simulate": "braggshot.crystals.sample:CrystalSettings",
}


@dataclass(frozen=True)
class Listed:
    """A table of settings, and the commands or file formats that read it."""

    table: Table
    readers: tuple[str, ...]


@commands.command(epilog=examples("braggshot settings prepare", "braggshot settings oversampling"))
def settings(
    word: Annotated[str | None, typer.Argument(help="Table, such as prepare, or word of a name or meaning (default all).")] = None,
) -> None:
    """List settings with default, unit, meaning and readers; give one by `--set NAME=VALUE`, or in the file of `--config`."""
    found = search(list(list_all()), word) if word else list(list_all())
    if not found:
        from braggshot.errors import ConfigError

        raise ConfigError(f"no setting has {word!r} in its name or meaning{_nearest(word or '')}.")
    for line in write_lines(found):
        say(line)


def print_settings_of(context: typer.Context, wanted: bool) -> None:
    """Print the settings of the present command, and end the program; do nothing unless this is `wanted`."""
    if not wanted:
        return
    command = str(context.info_name)
    reads_scans = "input" in {one.name for one in fields(_model(ROOTS[command]))}
    kept = [part for part in list_all() if command in part.readers or (reads_scans and part.table.name == "input")]
    say("\n".join(write_lines(kept)))
    raise typer.Exit


# Option --help-settings of each command that takes --set.
HelpSettings = Annotated[
    bool, typer.Option("--help-settings", callback=print_settings_of, is_eager=True, help="List the settings for --set, and exit.")
]


def list_all() -> Iterator[Listed]:
    """List every table of settings once; a table that commands share names all of them."""
    yield from _list_inputs()
    readers: dict[Table, list[str]] = {}
    for command, place in ROOTS.items():
        for table in list_settings(_model(place)()):
            readers.setdefault(table, []).append(command)
    yield from (Listed(table, tuple(names)) for table, names in readers.items())


def _model(place: str) -> type[Any]:
    """Import the class of settings at a place ``module:class``."""
    module, _, name = place.partition(":")
    model: type[Any] = getattr(importlib.import_module(module), name)
    return model


def _list_inputs() -> Iterator[Listed]:
    """List the options of the readers of scans, those that every format takes first."""
    from braggshot.io.registry import BUILT_IN, keyword_names, load_reader, option_names
    from braggshot.io.stated import state_values

    def table(function: Any, names: Sequence[str], meaning: str) -> Table:
        words = meanings(function)
        return Table("input", meaning, tuple(Setting(f"input.{name}", "none", words.get(name, "")) for name in names))

    common = keyword_names(state_values)
    yield Listed(table(state_values, common, "what you know better than the files"), ("every file format",))
    for known in BUILT_IN:
        reader = load_reader(known)
        own = [name for name in option_names(reader) if name not in common]
        if own:
            yield Listed(_with_overrides(table(reader.read, own, known.summary)), (f"--format {known.name}",))


def _with_overrides(table: Table) -> Table:
    """Return a table of reader options with the meanings of those that all beamlines share."""
    from braggshot.io.beamlines.readings import Overrides

    shared = meanings(Overrides)
    filled = (Setting(s.name, s.default, s.meaning or shared.get(s.name.partition(".")[2], "")) for s in table.settings)
    return Table(table.name, table.meaning, tuple(filled))


def search(listed: Sequence[Listed], word: str) -> list[Listed]:
    """Return the tables of a name, with the tables inside them; else the settings that have the word in name or meaning."""
    inside = [part for part in listed if part.table.name == word or part.table.name.startswith(f"{word}.")]
    if inside:
        return inside
    wanted = word.lower().replace("-", "_").strip("_")
    stem = re.sub(r"(?<=...)(es|s|ing|ed)$", "", wanted)

    def has_word(setting: Setting) -> bool:
        text = f"{setting.name} {setting.meaning}".lower()
        return stem in text or stem.replace("_", " ") in text or stem in text.replace(" ", "_")

    kept = (Listed(Table(p.table.name, p.table.meaning, tuple(filter(has_word, p.table.settings))), p.readers) for p in listed)
    return [part for part in kept if part.table.settings]


def _nearest(word: str) -> str:
    """Propose the word of a name or meaning that is nearest to a word that was not found."""
    texts = (f"{setting.name} {setting.meaning}" for part in list_all() for setting in part.table.settings)
    near = difflib.get_close_matches(word.lower(), {known for text in texts for known in re.findall(r"\w{3,}", text.lower())}, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def write_lines(listed: Sequence[Listed]) -> Iterator[str]:
    """Write tables of settings as lines of text: one for the name and default of a setting, one for its meaning."""
    for number, part in enumerate(listed):
        heading = f"[{part.table.name}] " if part.table.name else ""
        meaning = part.table.meaning.rstrip(".")
        yield ("\n" if number else "") + f"{heading}{meaning}{': ' if meaning else ''}read by {', '.join(part.readers)}"
        for setting in part.table.settings:
            yield f"  {setting.name} = {setting.default}"
            methods = _methods(setting.name)
            yield f"      {setting.meaning}{f' (read by --method {methods})' if methods else ''}"


def _methods(name: str) -> str:
    """Name the phasing methods that read a setting; empty if all of them do, or if it is no setting of phasing."""
    from braggshot.phasing.strategies import STRATEGIES, methods_that_read

    stage, _, rest = name.partition(".")
    readers = methods_that_read(rest) if stage == "phasing" else []
    return "" if len(readers) in {0, len(STRATEGIES)} else " or ".join(readers)
