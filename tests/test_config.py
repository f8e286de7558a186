"""Settings: layers, names, types, and messages that help."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import pytest

from braggshot import config
from braggshot.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    steps: int = 3
    widths: tuple[float, float] = (1.0, 2.0)


@dataclass(frozen=True)
class Outer:
    name: str = "x"
    inner: Inner = field(default_factory=Inner)
    free: dict[str, Any] = field(default_factory=dict)


def test_assignments_are_toml_and_bare_words_are_text():
    tree = config.parse_assignments(["a.b=54", "a.c=[1, 2]", "d=/data/x.tif", "e=true", "a.f=10*ER+SW", "g=1e-3"])
    assert tree == {"a": {"b": 54, "c": [1, 2], "f": "10*ER+SW"}, "d": "/data/x.tif", "e": True, "g": 1e-3}


@pytest.mark.parametrize("text", ["scan", "=4", "  =4"])
def test_assignments_without_key_or_value_are_refused(text):
    with pytest.raises(ConfigError, match="key=value"):
        config.parse_assignments([text])


def test_a_value_cannot_also_be_a_table():
    with pytest.raises(ConfigError, match="already has a value"):
        config.parse_assignments(["a=1", "a.b=2"])


def test_later_layers_win_and_leave_the_rest():
    assert config.merge({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, {"d": 4}) == {"a": {"b": 3, "c": 2}, "d": 4}


def test_resolve_fills_nested_records():
    found = config.resolve(Outer, {"inner": {"steps": 5, "widths": [3, 4]}, "free": {"scan": 54}})
    assert found == Outer(inner=Inner(5, (3.0, 4.0)), free={"scan": 54})
    assert config.dump(found)["inner"] == {"steps": 5, "widths": (3.0, 4.0)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inner": {"stepz": 5}}, r"unknown setting 'inner.stepz'; did you mean 'inner.steps'"),
        ({"nonsense": 1}, r"unknown setting 'nonsense'; known: .*inner.widths"),
        ({"inner": {"steps": "many"}}, r"setting 'inner.steps': .*integer.*found 'many'"),
        ({"inner": {"widths": [1]}}, r"inner.widths"),
    ],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        config.resolve(Outer, settings)


def test_files_that_are_missing_or_not_toml(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        config.read_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("a = = 1")
    with pytest.raises(ConfigError, match=r"bad\.toml: cannot be read as settings in TOML"):
        config.read_toml(tmp_path / "bad.toml")
    (tmp_path / "good.toml").write_text("[inner]\nsteps = 9\n")
    assert config.read_toml(tmp_path / "good.toml") == {"inner": {"steps": 9}}


def test_one_setting_of_a_table_leaves_the_others_as_they_are():
    """Of a table whose defaults are not those of its class, too: the rest of it must not fall back to them."""
    from braggshot.pipeline import Settings

    before = Settings().phasing
    after = config.resolve(
        Settings, {"phasing": {"refine": {"recipe": "20*ER"}, "tournament": {"opening": {"blur_start": 3.0}}}}
    ).phasing
    assert after.refine == dataclasses.replace(before.refine, recipe="20*ER")
    assert after.tournament.opening == dataclasses.replace(before.tournament.opening, blur_start=3.0)


def test_what_changed_resolves_to_the_same():
    from braggshot.pipeline import Settings

    table = {"phasing": {"refine": {"shrink_wrap": {"threshold": (0.2, 0.3)}}, "seed": 3}, "input": {"scan": 5}}
    settings = config.resolve(Settings, table)
    assert config.changed(settings) == table
    assert config.resolve(Settings, config.changed(settings)) == settings
    assert config.changed(Settings()) == {}
