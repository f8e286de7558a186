"""Print what braggshot finds in a file of a scan, a result or a network."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from braggshot.cli.metadata import with_metadata
from braggshot.cli.options import Format, Sets, examples, layered
from braggshot.cli.terminal import say
from braggshot.display import printable

if TYPE_CHECKING:
    from braggshot.volumes import Reconstruction

commands = typer.Typer()


@commands.command(epilog=examples("braggshot info example.spec --scan 54", "braggshot info out/crystal.cxi"))
@with_metadata()
def info(
    path: Annotated[Path, typer.Argument(help="Raw scan, result, or trained network (file or shipped name).")],
    format: Format = None,
    sets: Sets = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    *,
    stated: dict[str, Any],
) -> None:
    """Print what a file holds: a scan, what it lacks and how long phasing takes; a result with its verdict; or a network."""
    from braggshot.nn.weights import is_network, load_network
    from braggshot.output import summary

    if is_network(path):
        print_facts(asdict(load_network(path)[1]), as_json)
        return
    result = find_result(path, format)
    if result is None:
        describe_scan(path, format, layered(None, sets, stated), as_json)
    elif as_json:
        say(json.dumps(summary(result, str(path), str(path))))
    else:
        from braggshot.cli.reconstruct import print_result

        print_result(result, [])


def find_result(path: Path, format: str | None) -> Reconstruction | None:
    """Read the result in a file; None if the file holds none, or if the user names a format of scans."""
    from braggshot.errors import FormatError
    from braggshot.io import results
    from braggshot.io.files import is_hdf5

    if format is not None or not path.is_file() or not is_hdf5(path):
        return None
    try:
        return results.read(path)
    except FormatError:
        return None


def describe_scan(path: Path, format: str | None, table: dict[str, Any], as_json: bool) -> None:
    """Print what a reader finds in a scan, what is missing for the strain, and how long phasing takes on this machine."""
    from braggshot import pipeline
    from braggshot.io.registry import describe

    settings = pipeline.resolve(table)
    facts = {**describe(path, format, **settings.input)}
    facts["missing"] = list(say_missing(facts, settings.strain.reflection is not None))
    if as_json:
        facts["phasing_seconds"] = pipeline.estimate_seconds(path, settings, format)
        say(json.dumps(facts))
        return
    print_facts(facts, False)
    shortest, longest = pipeline.estimate_seconds(path, settings, format)
    search = f"; up to {round_seconds(longest)} s where the crystal has to be searched for" if longest > shortest else ""
    say(f"{'phasing':14} about {round_seconds(shortest)} s here{search}")


def print_facts(facts: Mapping[str, Any], as_json: bool) -> None:
    """Print facts by name, one in a line, or all as one JSON object; facts without a value are left out of the lines."""
    if as_json:
        say(json.dumps(facts))
        return
    for name, value in facts.items():
        if isinstance(value, Mapping):
            for part, inner in value.items():
                say(f"{name + ' ' + part:30} {write_value(inner)}")
        elif name in {"noticed", "missing"}:
            for words in value:
                say(f"{name:14} {words}")
        elif value not in (None, [], {}):
            say(f"{name:14} {write_value(value)}")


def write_value(value: Any) -> str:
    """Write a value for a reader: numbers with seven digits, lists and tables without brackets."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.7g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {write_value(inner)}" for name, inner in value.items())
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ", ".join(map(write_value, value))
    return printable(value)


def say_missing(facts: Mapping[str, Any], has_reflection: bool) -> Iterator[str]:
    """Say which facts the strain needs and the scan lacks, and how to give them."""
    if facts["geometry"] is None and not facts["prepared"]:
        yield (
            "strain and lengths in metres need the geometry: give --set input.geometry=FILE.toml, "
            "or what the file lacks by --energy-kev, --distance-m and --set input.pixel_size_m=METRES"
        )
    if not has_reflection:
        yield "the lattice parameter and the names of facets need the reflection: give --hkl 1,1,1 --lattice 4.078"


def round_seconds(seconds: float) -> str:
    """Round a time to two digits, and write it without a power of ten."""
    return f"{float(f'{seconds:.2g}'):g}"
