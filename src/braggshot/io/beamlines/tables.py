"""Read what files of text have in common, whichever program of a beamline wrote them: letters, numbers, rows, and scan commands.

Such files are written while things go wrong, so nothing here stops at an odd line: a word that is no number becomes nan, and a
row keeps its place among the others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from braggshot.errors import list_numbers

SCAN = re.compile(r"[ad](\d?)scan|lup")  # commands that move one motor, or as many as the digit says, in equal steps
MESH = re.compile(r"d?mesh")  # commands that move two motors over a grid


def decode(text: bytes) -> str:
    """Decode text as UTF-8, or, where it is not UTF-8, as latin-1; drop a byte order mark, and end every line with a newline."""
    text = text.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")


def to_number(word: str) -> float:
    """Return the number that a word spells, nan if it spells none."""
    try:
        return float(word)
    except ValueError:
        return float("nan")


def split_names(line: str) -> list[str]:
    """Split names of motors or columns that stand two spaces or a tab apart, because a name may hold one space.

    A line whose names all stand one space apart is split at each space.
    """
    names = re.split(r"\s{2,}|\t", line.strip())
    return names if len(names) > 1 else line.split()


def read_rows(lines: Sequence[str], width: int, whole: bool) -> tuple[NDArray[np.float64], list[str]]:
    """Read rows of numbers, and say in words what could not be read.

    A row with more or fewer words than `width` keeps its place, and all its values are nan. If such a row is the last one, it was
    cut off while it was written, and is left out.

    Parameters
    ----------
    lines : one line for each row
    width : number of words that a row should have
    whole : whether the last line ends with a newline

    Returns
    -------
    the numbers (rows, width), and remarks
    """
    rows = [line.split() for line in lines]
    noticed = []
    if rows and len(rows[-1]) != width and (len(rows[-1]) < width or not whole):
        noticed.append(f"the last row is cut off ({len(rows[-1])} of {width} words), so its point is left out")
        rows.pop()
    odd = [index for index, row in enumerate(rows) if len(row) != width]
    if odd:
        noticed.append(
            f"{_points(odd)} of {len(rows)} (counted from 0) {'has' if len(odd) == 1 else 'have'} another number of words than "
            f"the {width} columns: the values there are not known"
        )
    blank = [float("nan")] * width
    numbers = [[to_number(word) for word in row] if len(row) == width else blank for row in rows]
    return np.asarray(numbers, dtype=float).reshape(len(rows), width), noticed


def name_gaps(name: str, values: NDArray[np.float64]) -> str | None:
    """Say at which points a column holds no number; None if it holds one at every point."""
    gaps = np.flatnonzero(~np.isfinite(values)).tolist()
    return f"{name} is no number at {_points(gaps)} of {len(values)} (counted from 0)" if gaps else None


def _points(indices: Sequence[int]) -> str:
    return f"point{'s' if len(indices) > 1 else ''} {list_numbers(indices)}"


def announced_points(command: str) -> int | None:
    """Return the number of points that a scan command of SPEC, Sardana or BLISS announces; None for a command of another kind.

    >>> announced_points("ascan  th 0.1 0.335  47 1"), announced_points("d2scan eta -1 1 del -2 2 20 1"), announced_points("ct 1")
    (48, 21, None)
    """
    name, *words = command.split() or [""]
    scan = SCAN.fullmatch(name)
    places = [3 * int(scan.group(1) or 1)] if scan else [3, 7] if MESH.fullmatch(name) else []
    intervals = [to_number(words[place]) if place < len(words) else float("nan") for place in places]
    if not intervals or not all(number >= 0 and number == int(number) for number in intervals if np.isfinite(number)):
        return None
    return int(np.prod([number + 1 for number in intervals])) if np.isfinite(intervals).all() else None


def explain_early_stop(command: str, points: int) -> str | None:
    """Say that a scan has fewer points than its command announces; None if it does not."""
    announced = announced_points(command)
    if announced is None or points >= announced:
        return None
    asked = " ".join(command.split())
    return f"the command announces {announced} points ({asked}), and {points} were measured: the scan stopped early"
