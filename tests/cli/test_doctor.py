from __future__ import annotations

import json

from command_line import run


def test_doctor_says_what_runs_here(capsys):
    assert run("doctor", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["versions"]["torch"].startswith("2.")
    assert facts["devices"]["auto"] in {"cpu", "cuda"}
    assert facts["devices"]["cores"] >= 1
    assert facts["memory"]["free"].endswith(" GB")
    assert facts["weights"]["flagship"].endswith(" MB)")
    assert facts["optional"]["view"].startswith("dash 4.")
    assert all(value[-1].isdigit() or value.startswith("absent: pip install") for value in facts["optional"].values())
    assert run("doctor") == 0
    printed = capsys.readouterr().out
    assert "optional" in printed
    assert "None" not in printed
