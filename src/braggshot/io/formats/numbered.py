"""Find the frames among the images of a folder by the numbers in their names.

A name is split into its groups of digits and the text between. Images whose text is the same form a series. The number of the frame
is the group of digits that differs in every name of the series and advances most regularly; other groups may be the number of the
scan, a date or a time.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from braggshot.errors import FormatError, list_numbers

# Words in the names of images that are no frames of a scan.
OTHERS = re.compile(
    r"(?<![a-z])(dark|flat|white|back(ground)?|bg|bkg|empty|mask|gain|pedestal|sum|summed|mean|avg|average|median|max|min|std|total"
    r"|projection|preview|thumb(nail)?|overview)s?(field|image|frame)?s?(?![a-z])"
)
TOO_LARGE = 10**8  # numbers from here on are dates or times
RIVAL = 5  # a further series with at least this fraction (1/5) of the images of the largest one could be meant


@dataclass(frozen=True)
class Series:
    """Images of one series in the order of their numbers; None is the place of a number that is missing."""

    files: tuple[Path | None, ...]
    noticed: tuple[str, ...] = ()


def find_series(files: Sequence[Path]) -> Series:
    """Find the series among images, in the order in which they are given, and its missing numbers.

    Raises
    ------
    FormatError : if there are several series; the message has a pattern for each.
    """
    if len(files) < 2:
        return Series(tuple(files))
    root = Path(os.path.commonpath([file.parent for file in files]))
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(re.sub(r"\d+", "#", _name(file, root)), []).append(file)
    usual = [text for text in groups if not OTHERS.search(text.lower())] or list(groups)
    if len(files) >= 8 and 4 * len(usual) > len(files):  # the names end in something that changes, such as a checksum
        heads = {text: re.match(r"[^#]*#?", text)[0] for text in usual}  # type: ignore[index]
        joined = {head: [file for text in usual if heads[text] == head for file in groups[text]] for head in heads.values()}
        groups, usual = groups | joined, list(joined)
    largest = max(usual, key=lambda text: len(groups[text]))
    if len(groups[largest]) == 1 < len(usual):  # every name has its own text
        chosen = [file for text in usual for file in groups[text]]
        return Series(
            tuple(chosen),
            (*_say_left_out(files, chosen), "the names of the images have no number: taken in the order of the names."),
        )
    parts = [part for text in usual for part in _split(groups[text], root)]
    chosen = max(parts, key=len)
    rivals = [part for part in parts if len(part) > 1 and RIVAL * len(part) >= len(chosen)]
    if len(rivals) > 1:
        patterns = ", ".join(repr(str(root / _pattern(part, root))) for part in rivals[:10])
        raise FormatError(f"{root}: holds {len(rivals)} series of images; choose one by its pattern: {patterns}.")
    chosen = _drop_strays(chosen, root)
    ordered = _place(chosen, root)
    return Series(ordered.files, (*_say_left_out(files, chosen), *ordered.noticed))


def _name(file: Path, root: Path) -> str:
    """Return the name of a file below `root`, without its suffix, such as .tif or .edf.gz."""
    return re.sub(r"\.[A-Za-z]\w*(\.gz|\.bz2)?$", "", str(file.relative_to(root)))


def _numbers(files: Sequence[Path], root: Path) -> NDArray[np.object_]:
    """Return the numbers in the names of files of one series, (files, groups of digits that all of them have)."""
    found = [[int(digits) for digits in re.findall(r"\d+", _name(file, root))] for file in files]
    return np.array([row[: min(map(len, found))] for row in found], object)


def _index(numbers: NDArray[np.object_]) -> NDArray[np.object_] | None:
    """Return the column that counts the frames; None if no column differs in every name and mostly advances by one step."""
    found: list[tuple[float, int, int]] = []
    for column in range(numbers.shape[1]):
        values = np.sort(numbers[:, column])
        if len(set(values)) < len(values) or values[-1] >= TOO_LARGE or _is_clock(numbers, column):
            continue
        steps = np.diff(values)
        step = np.gcd.reduce(steps) if len(steps) else 1
        share = float(np.mean(steps == step)) if len(steps) else 1.0
        if share >= 0.5 and (values[-1] - values[0]) // step < 2 * len(
            values
        ):  # else more than half of the frames would be missing
            found.append((share, -int(values[-1]), column))
    return numbers[:, max(found)[2]] if found else None


def _is_clock(numbers: NDArray[np.object_], column: int) -> bool:
    """Tell whether a column holds times, such as 142309, behind a column of dates, such as 20260131."""
    if not column or not all(19000101 <= date <= 20991231 for date in numbers[:, column - 1]):
        return False
    times = numbers[:, column]
    return max(times) >= 10000 and all(time < 240000 and time // 100 % 100 < 60 and time % 100 < 60 for time in times)


def _split(files: list[Path], root: Path) -> list[list[Path]]:
    """Split files of the same text into series by the group of digits with the fewest values, such as the number of the scan."""
    numbers = _numbers(files, root)
    if _index(numbers) is not None:
        return [files]
    splits = []
    for column in range(numbers.shape[1]):
        values = list(dict.fromkeys(numbers[:, column]))
        parts = [[file for file, number in zip(files, numbers[:, column], strict=True) if number == value] for value in values]
        if 1 < len(values) <= len(files) // 2 and all(_index(_numbers(part, root)) is not None for part in parts):
            splits.append(parts)
    return min(splits, key=len) if splits else [files]


def _drop_strays(files: list[Path], root: Path) -> list[Path]:
    """Leave out the few files whose number is far from all others, such as scan_9999.tif, if these can then be counted."""
    numbers = _numbers(files, root)
    if _index(numbers) is not None:
        return files
    for column in numbers.T:
        order = np.argsort(column)
        run = max(np.split(order, np.flatnonzero(np.diff(column[order]) > len(files)) + 1), key=len)
        if 10 * len(run) >= 9 * len(files) and _index(numbers[np.sort(run)]) is not None:
            return [files[number] for number in np.sort(run)]
    return files


def _pattern(part: Sequence[Path], root: Path) -> str:
    """Return a pattern that fits the files of a series: numbers that differ between them become ``*``."""
    flags: Iterator[bool] = iter([len(set(column)) > 1 for column in _numbers(part, root).T])
    stem = re.sub(r"\d+", lambda digits: "*" if next(flags, False) else digits[0], _name(part[0], root))
    suffix = str(part[0].relative_to(root))[len(_name(part[0], root)) :]
    return "*".join(map(glob.escape, stem.split("*"))) + suffix


def _place(files: Sequence[Path], root: Path) -> Series:
    """Put the files of one series into the order of their numbers, with places for those that are missing."""
    if len(files) == 1:
        return Series(tuple(files))
    index = _index(_numbers(files, root))
    if index is None:
        return Series(
            tuple(files), ("no number in the names counts the images one by one: taken in the order of their names, without gaps.",)
        )
    by_number = dict(sorted(zip(index, files, strict=True)))
    numbers = list(by_number)
    step = int(np.gcd.reduce(np.diff(numbers))) if len(numbers) > 1 else 1
    places = range(numbers[0], numbers[-1] + 1, step)
    lost = [number for number in places if number not in by_number]
    if not lost:
        return Series(tuple(by_number.values()))
    are = "number {} is" if len(lost) == 1 else "numbers {} are"
    said = f"{are.format(list_numbers(lost))} missing in {root}: left as masked planes."
    return Series(tuple(by_number.get(number) for number in places), (said,))


def _say_left_out(files: Sequence[Path], chosen: Sequence[Path]) -> tuple[str, ...]:
    """Name the images that are no frames of the series."""
    others = [file.name for file in files if file not in set(chosen)]
    if not others:
        return ()
    names = ", ".join(others[:10]) + (f" and {len(others) - 10} more" if len(others) > 10 else "")
    verb = "is not named" if len(others) == 1 else "are not named"
    return (f"{names} {verb} like the other images: left out.",)
