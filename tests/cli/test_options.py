"""Words that options take: a wrong one is bad usage, said before any file is opened; the words are those of the program."""

from __future__ import annotations

import importlib.metadata
import typing
from types import SimpleNamespace

import pytest
from command_line import run

from braggshot.cli import cluster, emit, evaluate, options, reconstruct, train
from braggshot.evaluation.methods import METHODS
from braggshot.evaluation.suites import SUITES
from braggshot.io.registry import formats
from braggshot.nn.training import PRESETS
from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.strategies import STRATEGIES

WRONG = [
    ("reconstruct", "none.cxi", "--method", "gradient"),
    ("reconstruct", "none.cxi", "--device", "gpu"),
    ("reconstruct", "none.cxi", "--format", "cxy"),
    ("reconstruct", "none.cxi", "--cluster", "slrum", "-o", "out"),
    ("postprocess", "none.cxi", "--format", "cxy"),
    ("series", "none.cxi", "-o", "out", "--cluster", "slrum"),
    ("info", "none.cxi", "--format", "cxy"),
    ("train", "-o", "out", "--preset", "flagshp"),
    ("train", "-o", "out", "--device", "gpu"),
    ("evaluate", "-o", "out", "--suite", "strian"),
    ("evaluate", "-o", "out", "--suite", "strain", "--suite", "strian"),
    ("evaluate", "-o", "out", "--method", "gradient"),
    ("evaluate", "-o", "out", "--device", "gpu"),
    ("stack", "none.h5", "-o", "out.h5", "--device", "gpu"),
    ("emit", "none.cxi", "--to", "folder:out", "--compress", "zip"),
    ("emit", "none.cxi", "--to", "folder:out", "--format", "cxy"),
]


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_a_wrong_word_is_bad_usage(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    said = capsys.readouterr().err
    wrong = next(word for word in arguments if word in {"gradient", "gpu", "cxy", "slrum", "flagshp", "strian", "zip"})
    assert f"{wrong!r} is not one of" in said
    assert "none." not in said  # nobody has looked for the file yet
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("declared", "meant"),
    [
        (tuple(reconstruct.built_in()), tuple(STRATEGIES)),
        (typing.get_args(options.Device), typing.get_args(typing.get_type_hints(PhasingConfig)["device"])),
        (typing.get_args(train.Preset), tuple(PRESETS)),
        (evaluate.SUITES, tuple(SUITES)),
        (evaluate.METHODS, tuple(METHODS)),
        (tuple(options.readers()), tuple(known.name for known in formats())),
    ],
    ids=["methods", "devices", "presets", "suites", "methods of the evaluation", "readers"],
)
def test_the_words_are_those_of_the_program(declared, meant):
    assert declared == meant


def test_compressions_are_those_of_the_transports():
    from braggshot.live.simulator.dectris import COMPRESSED

    assert {word for known in COMPRESSED.values() for word in known} <= set(typing.get_args(emit.Compression))


def test_strategies_of_other_packages_are_methods_too(monkeypatch, capsys):
    registered = {"braggshot.strategies": [SimpleNamespace(name="gradient")]}
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: registered.get(group, []))
    assert "gradient" in reconstruct.methods()
    assert run("reconstruct", "none.cxi", "--method", "gradent") == 2
    assert "'gradient'" in capsys.readouterr().err
    assert run("reconstruct", "none.cxi", "--method", "gradient") == 1


def test_an_address_is_a_cluster():
    assert cluster._check("tcp://host:8786") == "tcp://host:8786"
    assert cluster._check(None) is None


def test_shipped_networks_are_proposed():
    assert "flagship" in options.networks()
    assert options.proposing(options.networks)("fl") == ["flagship"]
    assert options.proposing(options.networks)("./mine") == []
