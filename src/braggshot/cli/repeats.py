"""Read repeats of one scan and add them, for the commands that sum."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from braggshot.pipeline import Settings
    from braggshot.volumes import Scan

Sum = Annotated[
    bool, typer.Option("--sum", help="Add the inputs, repeats of one scan; --scan takes 54-60,63. Changed ones are left out.")
]


def take_numbers(flags: dict[str, Any]) -> str | None:
    """Take the numbers of the scans out of the settings that flags state, and return them as they were given."""
    stated = dict(flags.get("input") or {})
    numbers = stated.pop("scan", None)
    flags["input"] = stated
    return None if numbers is None else str(numbers)


def read_sum(
    inputs: Sequence[Path], numbers: str | None, settings: Settings, format: str | None, output: Path | None
) -> tuple[Scan, str, Path]:  # fmt: skip
    """Read all repeats and add them.

    Return the sum, the names of its inputs, and the place of the result.

    Raises
    ------
    BraggshotError : for scans that cannot be added, or a place where nothing can be written; the place is checked first.
    """
    from braggshot.output import check_writable, files_of
    from braggshot.prepare import sum_repeats
    from braggshot.series import list_sources
    from braggshot.series.repeats import read_source

    place = output or Path(f"{inputs[0].stem}-sum-braggshot")
    sources = list_sources(inputs, numbers, format=format)
    scans = [read_source(source, settings) for source in sources]
    files = [file for scan in scans for file in files_of(scan)]
    check_writable(place, files, [], settings.output.formats, settings.output.force)
    return sum_repeats(scans, settings.prepare, settings.repeats), ", ".join(source.label for source in sources), place
