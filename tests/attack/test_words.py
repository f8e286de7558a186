"""Names that steer a terminal, a page or a picture: of files, folders, scans, options and log lines."""

import ast
import dataclasses
import io
import logging
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from sample_crystal import result, row

from braggshot.cli import terminal
from braggshot.display import printable
from braggshot.io import results
from braggshot.io.atomic import file_name
from braggshot.phasing.verdict import judge
from braggshot.report import Drawing, planes, write_png, write_report
from braggshot.report.series import curves
from braggshot.report.solid import solid
from braggshot.series import table
from braggshot.volumes import Scan

COMMANDS = Path(terminal.__file__).parent
NAMES = [
    "esc\x1b[2J\x1b]0;owned\x07",
    "line\rover\nwritten",
    "c1\x9b2J",
    "turned\u202egnp",
    os.fsdecode(b"bad\xff\xe9"),
    "a$5_$6",
    "<b>[red]bold[/]</b>",
    "{x} %s \\frac",
]


def steers(text):
    """Tell whether a text has characters that steer a terminal."""
    return any(unicodedata.category(one) in {"Cc", "Cs"} or one in "\u202e\u2028" for one in text.replace("\n", ""))


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_name_is_printed_as_it_is_but_for_what_steers(name, capsys):
    terminal.say(f"wrote {name}")
    terminal.console().print(name)
    printed = capsys.readouterr().out
    assert not steers(printed)
    assert not steers(printable(name))
    assert "\n" not in printable(name)
    if not steers(name):
        assert printed == f"wrote {name}\n{name}\n"


def test_every_command_prints_in_one_place():
    wrong = []
    for path in sorted(COMMANDS.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            called = node.func if isinstance(node, ast.Call) else None
            name = getattr(called, "id", getattr(called, "attr", ""))
            if path.stem != "terminal" and (name in {"Console", "echo", "secho"} or getattr(called, "id", "") == "print"):
                wrong.append(f"{path.name}:{node.lineno}: {name}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_an_error_is_a_line_whatever_name_is_in_it(name, capsys, tmp_path):
    given = [[tmp_path / name], [f"--{name}"], ["x", "--format", name], ["x", "--set", name]]
    for words in ([name], *(["info", *one] for one in given)):
        assert run(*words) in {1, 2}
        assert not steers("".join(capsys.readouterr()))


@pytest.mark.parametrize("name", ["\x1b[2J\n\u202e$5_$6<b>[red]", os.fsdecode(b"bad\xff{x}%s\\frac")], ids=["turns", "no UTF-8"])
def test_a_name_loses_no_file(name, tmp_path, capsys):
    """Picture, page, result and table are written for every name, and say the name."""
    found = result(name)
    assert not steers(found.volume.name)
    drawing = Drawing(found)
    write_png(tmp_path / "a.png", drawing)
    write_report(tmp_path / "a.html", drawing)
    results.write(tmp_path / "a.cxi", found)
    assert run("info", tmp_path / "a.cxi") == 0
    assert not steers("".join(capsys.readouterr()))
    assert results.read(tmp_path / "a.cxi").volume.name == found.volume.name
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert not steers(text)
    assert "<b>[red]" not in text
    assert not steers(file_name(name))


def test_a_table_holds_every_name_and_gives_it_back(tmp_path):
    rows = [{"input": name, "name": "a", "settings": "s"} for name in NAMES if "\r" not in name]
    table.write(tmp_path / "series.csv", rows)
    assert [row["input"] for row in table.read(tmp_path / "series.csv")] == [row["input"] for row in rows]


def test_curves_and_slices_take_any_name():
    name = "a$5_$6"
    rows = [row("a", 0), row("b", 1)]
    for figure in (curves(rows, np.arange(2.0), name), planes.plane_figure(solid(result(name)))):
        figure.savefig(io.BytesIO(), format="png")


def test_a_frame_that_came_alone_is_never_good():
    found = result()
    alone = np.zeros_like(found.volume.intensity)
    alone[len(alone) // 2] = found.volume.intensity[len(alone) // 2]
    volume = dataclasses.replace(found.volume, intensity=alone)
    verdict, reasons = judge(volume, found.rho, found.support, found.quality)
    assert verdict == "failed"
    assert any("only one frame" in reason for reason in reasons)


def test_a_line_of_the_log_is_one_line_without_where_it_arose():
    try:
        raise ValueError("\x1b[2J")
    except ValueError:
        record = logging.LogRecord("x", logging.WARNING, "f", 1, "bad %s\n\x1b[2J", ("name",), sys.exc_info())
    line = terminal.OneLine().format(record)
    assert line == "bad name \ufffd[2J"


def test_the_program_prints_no_warnings_of_libraries_and_replaces_letters(tmp_path):
    script = (
        "import sys, warnings, logging; from braggshot.cli import terminal; terminal.prepare(); warnings.warn('w');"
        "logging.getLogger('x').error('a\\x1b[2J'); terminal.say('\\u03c3 \\udcff')"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=environment, check=True)
    assert re.fullmatch(rb"\? \?\s*", done.stdout)
    assert re.fullmatch(rb"a\?\[2J\s*|a\\ufffd\[2J\s*", done.stderr)


def test_a_record_has_a_name_that_can_be_printed():
    class Frames:
        shape, dtype = (4, 5, 6), np.dtype("u4")

    assert Scan(Frames(), "a\x1bb\udcff").name == "a\ufffdb\ufffd"
