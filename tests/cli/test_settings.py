"""`braggshot settings` finds every setting; `template` prints a file that can be used as it stands."""

from __future__ import annotations

import re
import tomllib

import pytest
from command_line import run

from braggshot import config, pipeline
from braggshot.cli.settings import list_all, search
from braggshot.cli.template import write_template


@pytest.fixture(scope="module")
def listed():
    return list(list_all())


def names(parts):
    return {setting.name for part in parts for setting in part.table.settings}


def leaves(table, prefix=""):
    for name, value in table.items():
        if isinstance(value, dict) and value and prefix + name != "phasing.adapt.options":
            yield from leaves(value, f"{prefix}{name}.")
        elif prefix + name != "input":
            yield prefix + name


def test_every_setting_of_a_reconstruction_is_listed(listed):
    assert set(leaves(config.dump(pipeline.Settings()))) <= names(listed)


def test_every_setting_says_what_it_means(listed):
    assert [s.name for part in listed for s in part.table.settings if not s.meaning] == []


@pytest.mark.parametrize(
    ("word", "setting"),
    [
        ("prepare", "prepare.binning"),
        ("aliens", "prepare.aliens"),
        ("flat", "input.flat"),
        ("starts", "phasing.search_starts"),
        ("hkl", "strain.reflection"),
        ("photon energy", "input.energy_ev"),
        ("partial-coherence", "phasing.partial_coherence"),
        ("shrink_wrap", "phasing.iterative.shrink_wrap.sigma_start"),
    ],
)
def test_a_word_of_the_manual_finds_its_setting(listed, word, setting):
    assert setting in names(search(listed, word))


def test_a_table_is_printed_with_defaults_units_and_readers(capsys):
    assert run("settings", "strain") == 0
    printed = capsys.readouterr().out
    assert "read by reconstruct, postprocess, series, live" in printed
    assert "strain.voxel_size = none" in printed
    assert "[m]" in printed


def test_a_setting_of_phasing_names_the_methods_that_read_it(capsys):
    assert run("settings", "phasing.iterative") == 0
    assert "(read by --method iterative)" in capsys.readouterr().out


def test_a_word_that_is_nowhere_is_refused_and_the_nearest_is_proposed(capsys):
    assert run("settings", "oversamplling") == 1
    assert "did you mean 'oversampling'?" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["reconstruct", "series", "postprocess", "live", "train", "simulate"])
def test_every_command_lists_its_own_settings(command, capsys):
    assert run(command, "--help-settings") == 0
    printed = capsys.readouterr().out
    assert ("live.every" in printed) == (command == "live")
    assert ("series.warm" in printed) == (command in {"series", "live"})
    assert ("input.mask" in printed) == (command != "simulate")


def test_the_template_changes_nothing_as_printed_and_is_valid_when_filled_in():
    lines = list(write_template())
    assert all(not part for part in tomllib.loads("\n".join(lines)).values())
    filled = tomllib.loads("\n".join(re.sub(r"^#(?! )", "", line) for line in lines))
    resolved = pipeline.resolve(filled)
    assert resolved.strain.reflection == (1, 1, 1)
    assert resolved.input["energy_ev"] == 9000.0


def test_the_template_says_units():
    text = "\n".join(write_template())
    assert "[eV]" in text
    assert "[m]" in text
