"""Read one scan of a SPEC file.

::

    #F name, #D date, #O0 motor  motor  ..., #O1 ...      header of the file; where SPEC opened the file again, another one follows
    #o0 short short ...                                   short names of the motors in the line #O0
    #S 54  ascan  th 0.1 0.3  47 1                        a scan; its number may stand twice
    #P0 32.1 0.2 ...                                      positions of the motors in the lines #O0, #O1, ...
    #N 4, #L Theta  Epoch  Seconds  Monitor               number of columns, and their names, two spaces apart
    0.100 101 1 1000                                      a row for each point; comments, #R lines and spectra (@A) stand between
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from braggshot.errors import DataError, FormatError, list_numbers
from braggshot.gate import is_regular
from braggshot.io.beamlines.tables import (
    decode,
    explain_early_stop,
    name_gaps,
    read_rows,
    split_names,
    to_number,
)  # fmt: skip

BLOCK = re.compile(rb"#([SFE])[ \t]+(\d*)")  # beginning of a scan, or of a header of the file; it stands first in its line
NEWLINES = {b"", b"\n", b"\r"}  # what stands before the first character of a line
SPECTRUM = re.compile(r"^[ \t]*@(?:[^\n]*\\[ \t]*\n)*[^\n]*", re.MULTILINE)  # counts of a multichannel analyser, over several lines
HEAD = 1 << 16  # length of the part of a file by which its kind is told [bytes]


@dataclass(frozen=True)
class Place:
    """Place of a scan in a SPEC file: its number, how often that number has stood by then, and the bytes of header and scan."""

    number: int
    occurrence: int
    header: slice
    scan: slice

    @property
    def key(self) -> str:
        """Name of the scan: "54.1", or "54.2" where the number stands for the second time."""
        return f"{self.number}.{self.occurrence}"


@dataclass(frozen=True)
class SpecScan:
    """What a SPEC file says of one scan.

    Parameters
    ----------
    key, command, time : name such as "54.1"; the command that was typed; start of the scan, ISO 8601 where it could be read
    facts : first line of each header key, such as "UIMDET", without the key
    motors : positions at the start of the scan [units of the beamline]
    names : short name of a motor -> its name in `motors` and `columns`; empty if the file has no lines #o0, #o1, ...
    columns : values at each point, by the name of the column; nan where the file holds no number
    points : number of points
    noticed : what could not be read, in words
    """

    key: str
    command: str
    time: str
    facts: dict[str, str]
    motors: dict[str, float]
    names: dict[str, str]
    columns: dict[str, NDArray[np.float64]]
    points: int
    noticed: tuple[str, ...]


def read_head(path: str | Path) -> bytes | None:
    """Return the beginning of a SPEC file; None if the file is none, or cannot be read."""
    if not is_regular(path):
        return None
    try:
        with Path(path).open("rb") as stream:
            head = stream.read(HEAD)
    except OSError:
        return None
    begins = re.match(rb"(?:\xef\xbb\xbf)?\s*#[A-Z]", head)
    return head if begins and _blocks(head) else None


def _blocks(content: bytes) -> list[re.Match[bytes]]:
    """Find the beginnings of scans and headers. An expression that asks for the line's beginning itself takes ten times as long."""

    def begins_line(start: int) -> bool:
        if content[start - 1 : start] in NEWLINES:
            return True
        before = content[max(0, start - 80) : start].rstrip(b" \t").removesuffix(b"\xef\xbb\xbf")
        return before[-1:] in NEWLINES

    return [mark for mark in BLOCK.finditer(content) if begins_line(mark.start())]


def list_scans(content: bytes) -> list[Place]:
    """List the scans of a SPEC file, in the order of the file; `content` is the whole file."""
    marks = _blocks(content)
    stops = [*(mark.start() for mark in marks[1:]), len(content)]
    places: list[Place] = []
    seen: dict[int, int] = {}
    header, in_header = slice(0, 0), True
    for mark, stop in zip(marks, stops, strict=False):
        start, (kind, number) = mark.start(), mark.groups()
        if kind != b"S":
            header, in_header = slice(header.start if in_header else start, stop), True
        elif number:
            in_header = False
            header = slice(header.start, header.stop or start)
            seen[int(number)] = seen.get(int(number), 0) + 1
            places.append(Place(int(number), seen[int(number)], header, slice(start, stop)))
    return places


def read_scan(content: bytes, place: Place) -> SpecScan:
    """Read one scan; `content` is the whole file.

    Raises
    ------
    DataError : if the scan has no points.
    FormatError : if it names no columns.
    """
    said: list[str] = []
    text = SPECTRUM.sub("", decode(content[place.scan]))
    lines = [line.strip() for line in text.split("\n")]
    facts: dict[str, str] = {}
    for line in reversed([line for line in lines if re.match(r"#\S", line)]):  # of lines with one key the first one counts
        key, *words = line[1:].split(None, 1)
        facts[key] = words[0] if words else ""
    rows = [line for line in lines if line and line[0] not in "#@"]
    if not rows:
        raise DataError(f"scan {place.number} has no points; was it interrupted at once?")
    columns, points = _columns(facts, rows, text.endswith("\n") or place.scan.stop < len(content), said)
    command = " ".join(facts.get("S", "").split()[1:])
    said += [gaps for name, values in columns.items() if (gaps := name_gaps(name, values))]
    stopped = explain_early_stop(command, points)
    return SpecScan(
        key=place.key,
        command=command,
        time=_iso(facts.get("D", "")),
        facts=facts,
        motors=_motors(decode(content[place.header]), facts, said),
        names=read_short_names(decode(content[place.header])),
        columns=columns,
        points=points,
        noticed=tuple(f"scan {place.key}: {words}." for words in ([stopped] if stopped else []) + said),
    )


def _columns(facts: dict[str, str], rows: list[str], whole: bool, said: list[str]) -> tuple[dict[str, NDArray[np.float64]], int]:
    """Return the columns by name, and the number of points.

    If there are not as many names as values, only the first column, which is the one of the scanned motor, has a sure name.
    """
    names = split_names(facts.get("L", ""))
    if not names:
        raise FormatError("the scan names no columns (#L).")
    counts = [len(row.split()) for row in rows]
    width = len(names) if 2 * counts.count(len(names)) >= len(counts) else max(set(counts), key=counts.count)
    table, remarks = read_rows(rows, width, whole)
    said += remarks
    if width != len(names):
        words = facts["L"].split()
        first = words[0] if len(words) == width else names[0]
        said.append(
            f"the line #L names {len(names)} columns and the rows hold {width} values: only the first column ({first}) is read; "
            "mend the line #L to have the others"
        )
        names = [first]
    return dict(zip(names, table.T, strict=False)), len(table)


def _motors(header: str, facts: dict[str, str], said: list[str]) -> dict[str, float]:
    """Match the lines #O0, #O1, ... of names with the lines #P0, #P1, ... of positions; a scan may repeat the lines of names.

    A line with more or fewer positions than names is not read, because it cannot be told which position belongs to which name.
    """
    names = {match[1]: split_names(match[2]) for match in re.finditer(r"^\s*#O(\d+)[ \t]+(.*)$", header, re.MULTILINE)}
    names |= {key[1:]: split_names(words) for key, words in facts.items() if re.fullmatch(r"O\d+", key)}
    positions = {key[1:]: words.split() for key, words in facts.items() if re.fullmatch(r"P\d+", key)}
    motors: dict[str, float] = {}
    for line in sorted({*names, *positions}, key=int):
        here, there = names.get(line, []), positions.get(line, [])
        if len(here) != len(there):
            lost = f": {', '.join(here)} are not known" if here else ""
            said.append(
                f"the line #P{line} holds {len(there)} positions for the {len(here)} names of #O{line}, so it is left out{lost}"
            )
            continue
        values = {name: to_number(word) for name, word in zip(here, there, strict=True)}
        odd = [name for name, value in values.items() if not np.isfinite(value)]
        if odd:
            said.append(f"the position of {', '.join(odd)} (#P{line}) is no number and is left out")
        motors |= {name: value for name, value in values.items() if np.isfinite(value)}
    return motors


def read_short_names(header: str) -> dict[str, str]:
    """Match the lines #o0, #o1, ... of short names of motors with the lines #O0, #O1, ... of their names: short name -> name.

    A line with more or fewer short names than names is not read.
    """
    lines = {(kind, line): words for kind, line, words in re.findall(r"^\s*#([Oo])(\d+)[ \t]+(.*)$", header, re.MULTILINE)}
    pairs = [(words.split(), split_names(lines.get(("O", line), ""))) for (kind, line), words in lines.items() if kind == "o"]
    return {short: name for shorts, names in pairs if len(shorts) == len(names) for short, name in zip(shorts, names, strict=True)}


def _iso(date: str) -> str:
    try:
        return datetime.datetime.strptime(" ".join(date.split()), "%a %b %d %H:%M:%S %Y").isoformat()
    except ValueError:
        return date


def choose_scan(places: list[Place], asked: str) -> list[Place]:
    """Return the scans that `asked` can mean: a number, or a number and an occurrence such as "54.2".

    Raises
    ------
    FormatError : if there is no such scan, or `asked` is no number; the message lists the numbers in the file.
    """
    if not re.fullmatch(r"\d+(\.\d+)?", asked):
        raise FormatError(f"scan must be a number, found {asked!r}.")
    number, _, occurrence = asked.partition(".")
    fitting = [place for place in places if place.number == int(number)]
    chosen = [place for place in fitting if not occurrence or place.occurrence == int(occurrence)]
    if not chosen and fitting:
        raise FormatError(
            f"there is no scan {asked}; number {number} stands {len(fitting)} times: {', '.join(p.key for p in fitting)}."
        )
    if not chosen:
        raise FormatError(f"there is no scan {asked}; the file holds {list_numbers(sorted({place.number for place in places}))}.")
    return chosen
