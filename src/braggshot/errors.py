"""Errors that a user can cause, in words that a user can act on.

Every error that a user can cause is a `BraggshotError`; its text says what was found, what was expected and what to do. The
command line prints this text as one line and exits with status 1. Any other exception that a user sees is a bug.
"""

from __future__ import annotations

from collections.abc import Iterable


class BraggshotError(Exception):
    """Base class of all errors that a user can cause."""


class FormatError(BraggshotError):
    """Error: a file cannot be read; its format is unknown or fits two readers, it is truncated, or the scan number is wrong."""


class DataError(BraggshotError):
    """Error: the data cannot be phased; for example they are all zero or two-dimensional, or their mask has another shape."""


class GeometryError(BraggshotError):
    """Error: the positions and angles of beam, sample and detector are missing or contradict each other."""


class ConfigError(BraggshotError):
    """Error: a setting is unknown, or its value is not allowed."""


class OutputError(BraggshotError):
    """Error: a result cannot be written, for example without permission or on a full disk."""


class ClusterError(BraggshotError):
    """Error: the machines of a cluster that do the work cannot be reached, or have left the cluster."""


def list_numbers(numbers: Iterable[int], most: int = 8) -> str:
    """Write rising whole numbers as ranges, at most `most` of them: [1, 2, 3, 7] becomes "1-3, 7", and nothing "none"."""
    runs: list[list[int]] = []
    for number in map(int, numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    words = [f"{first}-{last}" if last > first else f"{first}" for first, last in runs]
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "") or "none"
