"""Resolve settings: defaults, then a TOML file, then ``--set a.b=c``; unknown keys are refused.

Each stage keeps its settings in a frozen dataclass beside its code; this module only fills such dataclasses and never knows what
a setting means.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from braggshot.display import within_lines
from braggshot.errors import ConfigError

T = TypeVar("T")


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read the tables of a TOML file as nested dictionaries.

    Raises
    ------
    ConfigError : if the file is missing or is not TOML.
    """
    try:
        with Path(path).open("rb") as stream:
            return tomllib.load(stream)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read settings from {path}: {error}") from error


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
    """Parse one TOML value; a text that is no TOML (a path, a recipe) is kept as it stands."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


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
        return TypeAdapter(strict).validate_python(merge(_defaults(model), settings))
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(model, detail) for detail in error.errors())) from error


def _defaults(model: type[Any]) -> dict[str, Any]:
    """Return the defaults of a dataclass of settings; an empty dictionary if some of its settings have no default."""
    try:
        return dump(model())
    except TypeError:
        return {}


def _explain(model: type[Any], detail: Any) -> str:
    place = ".".join(str(part) for part in detail["loc"] if not str(part).startswith("function-"))
    if detail["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
        if renamed := _renamed(model, place.split(".")):
            return f"setting {place!r} is now called {renamed}"
        known = sorted(_keys(model))
        near = difflib.get_close_matches(place, known, n=1) or difflib.get_close_matches(place.split(".")[-1], known, n=1)
        return f"unknown setting {place!r}" + (f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}")
    return f"setting {place!r}: {detail['msg'][0].lower()}{detail['msg'][1:]} (found {detail['input']!r})"


def _renamed(model: type[Any], path: list[str]) -> str | None:
    """Look up an old name of a setting, and return its new name; None if the setting was not renamed.

    Each dataclass of settings lists its renamed settings in its table ``RENAMED``.
    """
    import typing

    *parents, name = path
    for parent in parents:
        model = typing.get_type_hints(model).get(parent, type(None))
    new = getattr(model, "RENAMED", {}).get(name)
    return new and " and ".join(repr(".".join([*parents, part])) for part in new.split(" and "))


def _keys(model: type[Any], prefix: str = "") -> Iterable[str]:
    import typing

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
