"""Read a .fio file of PETRA III, as Sardana and Online write it.

::

    %c   dscan om -0.12 0.12 47 1.0                  the command, and who started it when
    %p   om = 15.1                                   parameters, one a line; any of them may have no value
    %d   Col 1 om DOUBLE                             columns, then a row for each point; <no-data> where a reading is missing
    !    comments, anywhere
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from braggshot.errors import FormatError
from braggshot.gate import explain_damage, refuse_irregular
from braggshot.io.beamlines.tables import decode, explain_early_stop, name_gaps, read_rows

COLUMN = re.compile(r"Col\s+\d+\s+(\S.*?)\s+(\w+)$", re.IGNORECASE)
STARTED = re.compile(r"acquisition started at\s+(.*)", re.IGNORECASE)


@dataclass(frozen=True)
class FioTable:
    """What a .fio file says of a scan.

    Parameters
    ----------
    command, time : the command that was typed, and the start of the scan; "" where the file does not say it
    parameters : text of each parameter, by its name; "" where it has no value
    columns : values at each point, by the name of the column; nan where the file holds no number. Columns of text are left out.
    noticed : what could not be read, in words
    """

    command: str
    time: str
    parameters: dict[str, str]
    columns: dict[str, NDArray[np.float64]]
    noticed: tuple[str, ...]


def read_fio(path: Path) -> FioTable:
    """Read a .fio file.

    Raises
    ------
    FormatError : if the file cannot be read, or has none of the parts of a .fio file.
    """
    refuse_irregular(path)
    with explain_damage(path, ".fio"):
        text = decode(path.read_bytes())
    parts: dict[str, list[str]] = {}
    here: list[str] = []
    for line in map(str.strip, text.split("\n")):
        if re.fullmatch(r"%[cpd]", line, re.IGNORECASE):
            here = parts.setdefault(line[1].lower(), [])
        elif line and line[0] != "!":
            here.append(line)
    if not parts:
        raise FormatError(f"{path}: cannot be read as .fio (it has none of the parts %c, %p, %d).")
    said: list[str] = []
    comments = parts.get("c", [])
    columns = _columns(parts.get("d", []), text.endswith("\n"), said)
    command = comments[0] if comments else ""
    points = max(map(len, columns.values()), default=0)
    stopped = explain_early_stop(command, points) if columns else None
    said += [gaps for name, values in columns.items() if (gaps := name_gaps(name, values))]
    return FioTable(
        command=command,
        time=next((match[1].strip() for line in comments if (match := STARTED.search(line))), ""),
        parameters=_parameters(parts.get("p", []), said),
        columns=columns,
        noticed=tuple(f"{path.name}: {words}." for words in ([stopped] if stopped else []) + said),
    )


def _parameters(lines: list[str], said: list[str]) -> dict[str, str]:
    found = [line.partition("=") for line in lines]
    odd = [name.strip() for name, sign, _ in found if not sign]
    if odd:
        said.append(f"{len(odd)} lines of the parameters (%p) are not read, because they are no 'name = value', first {odd[0]!r}")
    return {name.strip(): value.strip() for name, sign, value in found if sign}


def _columns(lines: list[str], whole: bool, said: list[str]) -> dict[str, NDArray[np.float64]]:
    heads = [match for line in lines if (match := COLUMN.match(line))]
    rows = [line for line in lines if not COLUMN.match(line)]
    table, remarks = read_rows(rows, len(heads), whole)
    said += remarks
    texts = {"STRING", "BOOLEAN"}
    return {head[1]: values for head, values in zip(heads, table.T, strict=True) if head[2].upper() not in texts}
