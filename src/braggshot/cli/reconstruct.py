"""Phase raw scans; each gives a crystal, a verdict and result files."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from braggshot.cli.cluster import Cluster, Where, Workers, phase_many
from braggshot.cli.metadata import with_metadata
from braggshot.cli.options import (
    Config,
    Device,
    Force,
    Format,
    Inputs,
    Network,
    Sets,
    examples,
    forced,
    layered,
    one_of,
    registered,
    settings_of,
)
from braggshot.cli.progress import phasing_bar
from braggshot.cli.repeats import Sum, read_sum, take_numbers
from braggshot.cli.terminal import console, say
from braggshot.errors import ConfigError

if TYPE_CHECKING:
    from braggshot.volumes import Reconstruction, Scan

commands = typer.Typer()

# Source file with the table of phasing strategies.
STRATEGIES = Path(__file__).parents[1] / "phasing" / "strategies.py"


def built_in() -> list[str]:
    """List the names of the built-in phasing strategies, read from the source text, because importing torch takes seconds."""
    table = next(
        node.value
        for node in ast.parse(STRATEGIES.read_text(encoding="utf-8")).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "STRATEGIES"
    )
    return [ast.literal_eval(key) for key in table.keys if key is not None] if isinstance(table, ast.Dict) else []


def methods() -> list[str]:
    """List the names of all phasing strategies, those of other packages too."""
    return [*built_in(), *registered("braggshot.strategies")]


@commands.command(
    epilog=examples(
        "braggshot reconstruct example.spec --scan 54 --flat whitefield.tif --hkl 1,1,1 --lattice 4.078 -o out/",
    )
)
@with_metadata()
def reconstruct(
    inputs: Inputs,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="A .cxi file or a folder (default NAME-braggshot).")] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="How to phase (default auto); other packages may add methods.",
            metavar=f"<{'|'.join(built_in())}>",
            **one_of(methods),
        ),
    ] = None,
    network: Network = None,
    starts: Annotated[int | None, typer.Option(help="Random starts; implies --method iterative (default 10).")] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe such as `6*(50*HIO+80*RAAR+30*ER)+100*ER`; implies --method iterative.")
    ] = None,
    device: Annotated[Device | None, typer.Option(help="Where to compute (default auto).")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random number (default 0).")] = None,
    add: Sum = False,
    force: Force = False,
    cluster: Cluster = None,
    workers: Workers = None,
    format: Format = None,
    config: Config = None,
    sets: Sets = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per input, last.")] = False,
    *,
    stated: dict[str, Any],
) -> None:
    """Turn a raw scan into a 3D crystal, with a verdict that says how far to trust it."""
    from braggshot.output import summary, write
    from braggshot.pipeline import drain, imply_method, run

    phasing = {"method": method, "network": network, "starts": starts, "device": device, "seed": seed}
    table: dict[str, Any] = {name: value for name, value in phasing.items() if value is not None}
    if recipe is not None:
        table["iterative"] = {"recipe": recipe}
    flags = {**stated, **forced(force), "phasing": imply_method(table)}
    if cluster is not None:
        if add:
            raise ConfigError("--sum adds scans on this machine: leave --cluster out.")
        phase_many(inputs, output, layered(config, sets, flags), Where(cluster, workers), format, as_json)
        return
    numbers = take_numbers(flags) if add else None
    settings = settings_of(config, sets, flags)
    sources: list[tuple[Path | Scan, str, Path]] = [(path, str(path), output or Path(f"{path.stem}-braggshot")) for path in inputs]
    if add:
        sources = [read_sum(inputs, numbers, settings, format, output)]
    for source, label, place in sources:
        with phasing_bar(source.name) as show:
            result = drain(run(source, settings, format, place=place), show)
        written = write(result, place, settings.output.formats)
        record = summary(result, label, str(place))
        if as_json:
            say(json.dumps(record))
        else:
            print_result(result, [str(file) for file in written])


# Colour in which a verdict is printed.
_COLOURS = {"good": "green", "explained": "cyan", "doubtful": "yellow", "failed": "red", "not judged": "bright_black"}


def print_result(result: Reconstruction, written: list[str]) -> None:
    """Print the table of a result, its verdict with reasons, and the files that hold it."""
    from rich.table import Table

    from braggshot.report.text import agreement

    quality = result.quality
    oversampling = result.volume.oversampling
    rows = {
        "shape": " x ".join(str(n) for n in result.rho.shape),
        "oversampling": "-" if oversampling is None else " ".join(f"{value:.1f}" for value in oversampling),
        "sqrt(chi2)": f"{quality.chi2**0.5:.4f}",
        "r_factor": f"{quality.r_factor:.3f}",
        "llk_free": f"{quality.llk_free:.3f}",
        "starts that agree": agreement(quality.agreeing),
        "resolution": "-" if quality.resolution is None else f"{quality.resolution * 1e9:.1f} nm (PRTF 1/e)",
        **_strain_rows(result),
        "seconds": ", ".join(f"{name} {value:.1f}" for name, value in result.seconds.items()),
    }
    table = Table(title=result.volume.name, show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    shown = console()
    shown.print(table)
    for words in result.volume.provenance.get("noticed", ()):
        shown.print(f"noticed: {words}", highlight=False)
    print_verdict(result.verdict, result.reasons, written)


def print_verdict(verdict: str, reasons: Iterable[str], written: Iterable[str]) -> None:
    """Print a verdict with reasons, and the files that hold the result."""
    shown = console()
    shown.print(verdict, style=f"bold {_COLOURS[verdict]}")
    for reason in reasons:
        shown.print(f"  {reason}")
    for file in written:
        shown.print(f"wrote {file}", highlight=False)


def _strain_rows(result: Reconstruction) -> dict[str, str]:
    """Return the rows of the printed table that describe the strain map, as a dict from name to text.

    The dict is empty if there is no strain map.
    """
    from braggshot.report.strain_section import facts

    return {} if result.strain is None else {fact.name: f"{fact.value} ({fact.note})" for fact in facts(result.strain)}
