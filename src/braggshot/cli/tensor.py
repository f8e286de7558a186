"""Join several reflections of one crystal: displacement vector and strain tensor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from braggshot.cli.metadata import parse_hkl, with_metadata
from braggshot.cli.options import Config, Force, Format, Inputs, Sets, examples, forced, layered
from braggshot.cli.progress import phasing_bar
from braggshot.cli.reconstruct import print_verdict
from braggshot.cli.terminal import say

if TYPE_CHECKING:
    from braggshot.volumes import Scan

commands = typer.Typer()


@commands.command(
    epilog=examples("braggshot tensor exp.spec --scans 54,57,60 --hkl 1,1,1 --hkl -1,1,1 --hkl 2,0,0 --lattice 4.078 -o out/")
)
@with_metadata("scan", "hkl")
def tensor(
    inputs: Inputs,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder; a second call phases only what is missing.")],
    scans: Annotated[
        str | None, typer.Option("--scans", "--scan", help="Scans of a file with several, such as 54,57,60 (default all).")
    ] = None,
    hkl: Annotated[
        list[str] | None, typer.Option("--hkl", metavar="H,K,L", help="Reflection of each scan, in their order (default: found).")
    ] = None,
    force: Force = False,
    format: Format = None,
    config: Config = None,
    sets: Sets = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, last.")] = False,
    *,
    stated: dict[str, Any],
) -> None:
    """Join several reflections of one crystal into its displacement vector, strain tensor and rotation."""
    from braggshot import reflections
    from braggshot.output import check_writable
    from braggshot.reflections import files

    settings = reflections.resolve(layered(config, sets, {**stated, **forced(force)}))
    hkls = None if hkl is None else [(h, k, m) for h, k, m in map(parse_hkl, hkl)]
    sources = _open(inputs, scans, format, settings.input)
    check_writable(output, inputs, force=settings.output.force)
    with phasing_bar(str(output)) as show:
        found = reflections.join_reflections(
            sources, hkls, settings, place=output, on_progress=show, say=lambda words: say(words, to_stderr=as_json)
        )
    if as_json:
        say(json.dumps({"output": str(output), **files.summary(found)}))
        return
    for line in files.lines_of(found)[len(found.reasons) :]:
        say(line)
    print_verdict(found.verdict, found.reasons, map(str, files.places(output, found).values()))


def _open(inputs: list[Path], scans: str | None, format: str | None, options: dict[str, Any]) -> list[Path | Scan]:
    """List results as they are, and open the scans of every other file."""
    from braggshot.io import registry
    from braggshot.series import list_sources

    found: list[Path | Scan] = []
    for path in inputs:
        if path.suffix == ".cxi" and scans is None and format is None:
            found.append(path)
            continue
        for source in list_sources([path], scans, format=format):
            number = {} if source.scan is None else {"scan": int(source.scan) if source.scan.isdigit() else source.scan}
            found.append(registry.read(source.path, source.format, **{**options, **number}))
    return found
