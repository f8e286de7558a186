"""Resolve settings: defaults, then a TOML file, then ``--set a.b=c``; unknown keys are refused. List settings with their meaning.

Each stage keeps its settings in a frozen dataclass beside its code. The meaning of a setting stands in the docstring of this
dataclass; this module only fills and lists such dataclasses.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import inspect
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from braggshot.display import within_lines
from braggshot.errors import ConfigError
from braggshot.gate import explain_damage, refuse_irregular, shorten

T = TypeVar("T")
# Entry of a section "Parameters" of a docstring: the names of the parameters and, after a colon, their meaning.
_ENTRY = re.compile(r"^(\w+(?:, \w+)*) : (.*(?:\n[ ]+.*)*)", re.MULTILINE)
MOST_FAULTS = 5  # number of wrong settings that one message names
_LIST = re.compile(r"[\w.+-]+(,[\w.+-]+)+")  # a list without brackets and spaces, such as 1,2,2 or png,pdf


@dataclass(frozen=True)
class Setting:
    """A setting that a user can give: its dotted name, its default as TOML, and its meaning in words, with the unit."""

    name: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Table:
    """A table of settings: its dotted name, empty for settings outside any table, its meaning, and its settings."""

    name: str
    meaning: str
    settings: tuple[Setting, ...]


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read the tables of a TOML file as nested dictionaries.

    Raises
    ------
    ConfigError : if the file is missing or is not TOML.
    """
    refuse_irregular(path, ConfigError)
    with explain_damage(path, "settings in TOML", ConfigError), Path(path).open("rb") as stream:
        return tomllib.load(stream)


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """Parse ``["prepare.binning=[1,2,2]", "input.scan=54"]`` into nested dictionaries; values are TOML, bare words are strings.

    Raises
    ------
    ConfigError : if an assignment has no ``=`` or no key.
    """
    tree: dict[str, Any] = {}
    for assignment in assignments:
        key, found, text = assignment.partition("=")
        if not found or not key.strip():
            raise ConfigError(f"--set expects key=value, found {assignment!r}; for example --set input.scan=54.")
        *parents, last = key.strip().split(".")
        table = tree
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                raise ConfigError(f"--set {assignment}: {parent!r} already has a value, so it cannot hold {last!r}.")
        table[last] = _value(text.strip())
    return tree


def _value(text: str) -> Any:
    """Parse one TOML value, or a list without brackets, such as 1,2,2; another text (a path, a recipe) is kept as it stands."""
    with contextlib.suppress(tomllib.TOMLDecodeError, RecursionError):
        return tomllib.loads(f"value = {text}")["value"]
    return [_value(part) for part in text.split(",")] if _LIST.fullmatch(text) else text


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested dictionaries; where several have a key, the last one counts."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
                merged[key] = merge(merged[key], value)
            else:
                merged[key] = value
    return merged


def resolve(model: type[T], settings: Mapping[str, Any]) -> T:
    """Fill a (nested) dataclass with settings, and check their names and types; a setting that is not given keeps its default.

    Raises
    ------
    ConfigError : if a key is unknown or its value does not fit; the message names the key, and the nearest known one.
    """
    from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

    try:
        strict = with_config(ConfigDict(extra="forbid", arbitrary_types_allowed=True))(model)
        return TypeAdapter(strict).validate_python(merge(_defaults(model), _with_lists(model, settings)))
    except ValidationError as error:
        said = [_explain(model, detail) for detail in error.errors()]
        more = f"; and {len(said) - MOST_FAULTS} more" if len(said) > MOST_FAULTS else ""
        raise ConfigError("; ".join(said[:MOST_FAULTS]) + more) from error


def _defaults(model: type[Any]) -> dict[str, Any]:
    """Return the defaults of a dataclass of settings; an empty dictionary if some of its settings have no default."""
    try:
        return dump(model())
    except TypeError:
        return {}


def _with_lists(model: type[Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a single value into a list of one where the setting is a list, such as ``output.formats=pdf``."""
    hints = typing.get_type_hints(model)

    def listed(name: str, value: Any) -> Any:
        hint = hints.get(name)
        if isinstance(value, Mapping) and isinstance(hint, type) and dataclasses.is_dataclass(hint):
            return _with_lists(hint, value)
        kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        only_lists = all(kind is type(None) or typing.get_origin(kind) is tuple for kind in kinds)
        return (value,) if only_lists and isinstance(value, str | int | float) else value

    return {name: listed(name, value) for name, value in settings.items()}


def _explain(model: type[Any], detail: Any) -> str:
    place = ".".join(str(part) for part in detail["loc"] if not str(part).startswith("function-"))
    if detail["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
        if renamed := _renamed(model, place.split(".")):
            return f"setting {place!r} is now called {renamed}"
        known = sorted(_keys(model))
        near = difflib.get_close_matches(place, known, n=1) or difflib.get_close_matches(place.split(".")[-1], known, n=1)
        return f"unknown setting {place!r}" + (f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}")
    return f"setting {place!r}: {detail['msg'][0].lower()}{detail['msg'][1:]} (found {shorten(repr(detail['input']))})"


def _renamed(model: type[Any], path: list[str]) -> str | None:
    """Look up an old name of a setting, and return its new name; None if the setting was not renamed.

    Each dataclass of settings lists its renamed settings in its table ``RENAMED``.
    """
    *parents, name = path
    for parent in parents:
        model = typing.get_type_hints(model).get(parent, type(None))
    new = getattr(model, "RENAMED", {}).get(name)
    return new and " and ".join(repr(".".join([*parents, part])) for part in new.split(" and "))


def _keys(model: type[Any], prefix: str = "") -> Iterable[str]:
    hints = typing.get_type_hints(model)
    for name, annotation in ((one.name, hints[one.name]) for one in dataclasses.fields(model)):
        yield prefix + name
        if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
            yield from _keys(annotation, f"{prefix}{name}.")


def dump(settings: Any) -> dict[str, Any]:
    """Turn resolved settings into plain nested dictionaries, to be stored with every output."""
    return dataclasses.asdict(settings)


class Changes:
    """Base class of settings: their text shows those that differ from their defaults, as `resolve` takes them."""

    def __repr__(self) -> str:
        return within_lines(f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in changed(self).items())})")


def changed(settings: Any) -> dict[str, Any]:
    """Return the settings that differ from their defaults, as nested dictionaries that `resolve` takes."""
    return _changed(settings, type(settings)())


def _changed(settings: Any, default: Any) -> dict[str, Any]:
    found = {}
    for one in dataclasses.fields(settings):
        new, old = getattr(settings, one.name), getattr(default, one.name)
        if new != old:
            same = dataclasses.is_dataclass(new) and type(new) is type(old)
            found[one.name] = _changed(new, old) if same else dump(new) if dataclasses.is_dataclass(new) else new
    return found


def list_settings(described: Any, prefix: str = "", meaning: str = "") -> Iterator[Table]:
    """List the settings of a dataclass, or of an instance whose values are the defaults: table by table, outer tables first.

    A table ``input`` is left out, because what it holds belongs to the reader of a file.
    """
    words = meanings(described)
    values = {one.name: _default_of(described, one) for one in dataclasses.fields(described) if one.name != "input"}
    plain = {name: value for name, value in values.items() if not dataclasses.is_dataclass(value)}
    if plain:
        rows = (Setting(prefix + name, _describe_default(value), words.get(name, "")) for name, value in plain.items())
        yield Table(prefix.rstrip("."), meaning, tuple(rows))
    for name in (name for name in values if name not in plain):
        purpose = words.get(name) or (type(values[name]).__doc__ or "").splitlines()[0]
        yield from list_settings(values[name], f"{prefix}{name}.", purpose)


def meanings(described: Any) -> dict[str, str]:
    """Return name -> meaning, from the section "Parameters" of the docstring of a dataclass, of an instance, or of a function."""
    documented = described if isinstance(described, type) or callable(described) else type(described)
    _, _, text = inspect.cleandoc(documented.__doc__ or "").partition("Parameters\n")
    found: dict[str, str] = {}
    for names, words in _ENTRY.findall(text):
        found |= dict.fromkeys(names.split(", "), " ".join(words.split()))
    return found


def _default_of(described: Any, one: dataclasses.Field[Any]) -> Any:
    """Return the default of a field; MISSING if it must be given."""
    if not isinstance(described, type):
        return getattr(described, one.name)
    return one.default if one.default_factory is dataclasses.MISSING else one.default_factory()


def _describe_default(value: Any) -> str:
    if value is dataclasses.MISSING:
        return "required"
    if isinstance(value, tuple) and any(map(dataclasses.is_dataclass, value)):
        return f"{len(value)} tables"
    return to_toml(value)


def to_toml(value: Any) -> str:
    """Write a value as TOML; "none" for None, which a TOML file says by leaving the setting out."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(to_toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {to_toml(item)}' for key, item in value.items())}}}"
    return f'"{value}"' if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else repr(value)
