from __future__ import annotations

import json
import re

from command_line import QUICK, run


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


def test_a_scan_without_geometry_says_how_to_give_it_and_how_long_phasing_takes(scan, capsys):
    assert run("info", scan) == 0
    printed = capsys.readouterr().out
    assert "--energy-kev" in printed
    assert "--hkl 1,1,1" in printed
    assert re.search(r"phasing +about [\d.]+ s here; up to [\d.]+ s", printed)


def test_a_reflection_that_is_given_is_not_asked_for(scan, capsys):
    assert run("info", scan, "--hkl", "1,1,1", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert not any("--hkl" in words for words in facts["missing"])
    shortest, longest = facts["phasing_seconds"]
    assert 0 < shortest <= longest


def test_a_result_is_described_as_it_was_when_it_was_made(tmp_path, scan, capsys):
    out = tmp_path / "result.cxi"
    assert run("reconstruct", scan, "-o", out, *QUICK) == 0
    made = capsys.readouterr().out
    assert run("info", out) == 0
    described = capsys.readouterr().out
    assert described == made.replace(f"wrote {out}\n", "")


def test_a_result_without_strain_says_why(tmp_path, scan, capsys):
    assert run("reconstruct", scan, "-o", tmp_path / "r.cxi", *QUICK, "--hkl", "1,1,1", "--json") == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["strain"] is None
    assert any("no strain map" in words and "no geometry" in words for words in summary["noticed"])
