from __future__ import annotations

import json

from command_line import run


def test_a_file_is_described(tmp_path, capsys):
    target = tmp_path / "crystal.cxi"
    assert run("simulate", "-o", target, "--shape", "24", "26", "28") == 0
    capsys.readouterr()
    assert run("info", target, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["format"] == "cxi"
    assert facts["shape"] == [24, 26, 28]


def test_a_network_is_described(capsys):
    assert run("info", "flagship", "--json") == 0
    assert json.loads(capsys.readouterr().out)["name"] == "flagship"
