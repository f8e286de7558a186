"""Commands that give a crystal: reconstruct, postprocess, series."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from braggshot.cli import many
from braggshot.cli.completion import proposing
from braggshot.cli.many import Cluster, Workers
from braggshot.cli.options import Config, Format, Inputs, Sets, layered, phasing_bar, settings_of

if TYPE_CHECKING:
    from braggshot.volumes import Reconstruction

commands = typer.Typer()


@commands.command(epilog="braggshot reconstruct example.spec --set input.scan=54 --set input.flat=whitefield.tif -o out/")
def reconstruct(
    inputs: Inputs,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="A .cxi file or a folder (default NAME-braggshot).")] = None,
    method: Annotated[
        str | None, typer.Option(help="auto, oneshot, refine or iterative (default auto).", autocompletion=proposing("--method"))
    ] = None,
    network: Annotated[
        str | None, typer.Option(help="Name or file of a trained network.", autocompletion=proposing("--network"))
    ] = None,
    starts: Annotated[int | None, typer.Option(help="Random starts; implies --method iterative (default 10).")] = None,
    recipe: Annotated[str | None, typer.Option(help="Likewise; such as '6*(50*HIO+80*RAAR+30*ER)+100*ER'.")] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu or cuda (default auto).", autocompletion=proposing("--device"))
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of every random number (default 0).")] = None,
    cluster: Cluster = None,
    workers: Workers = None,
    format: Format = None,
    config: Config = None,
    sets: Sets = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per input, last.")] = False,
) -> None:
    """Raw scan in, 3D crystal out, with a number that says how far to trust it."""
    from braggshot.output import summary, write
    from braggshot.pipeline import drain, imply_method, run

    phasing = {"method": method, "network": network, "starts": starts, "device": device, "seed": seed}
    table: dict[str, Any] = {name: value for name, value in phasing.items() if value is not None}
    if recipe is not None:
        table["iterative"] = {"recipe": recipe}
    table = imply_method(table)
    if cluster is not None:
        many.run(inputs, output, layered(config, sets, {"phasing": table}), many.Where(cluster, workers), format, as_json)
        return
    settings = settings_of(config, sets, {"phasing": table})
    for path in inputs:
        place = output or Path(f"{path.stem}-braggshot")
        with phasing_bar(path.name) as show:
            result = drain(run(path, settings, format, place=place), show)
        written = write(result, place, settings.output.formats)
        record = summary(result, str(path), str(place))
        if as_json:
            print(json.dumps(record), flush=True)
        else:
            _print_result(result, [str(file) for file in written])


_COLOURS = {"good": "green", "doubtful": "yellow", "failed": "red"}


def _print_result(result: Reconstruction, written: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    from braggshot.report.text import agreement

    console = Console(soft_wrap=True)
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
    console.print(table)
    console.print(f"[bold {_COLOURS[result.verdict]}]{result.verdict}[/]")
    for reason in result.reasons:
        console.print(f"  {reason}")
    for file in written:
        console.print(f"wrote {file}", highlight=False)


def _strain_rows(result: Reconstruction) -> dict[str, str]:
    """The lines of the table that a geometry allows."""
    from braggshot.report.strain_section import facts

    return {} if result.strain is None else {fact.name: f"{fact.value} ({fact.note})" for fact in facts(result.strain)}


@commands.command(epilog="braggshot postprocess recon.cxi --scan exp.spec --set input.scan=54 --set 'strain.reflection=[1,1,1]'")
def postprocess(
    reconstruction: Annotated[Path, typer.Argument(help="Object of PyNX (CXI), cohere (folder or image.npy) or braggshot.")],
    scan: Annotated[Path | None, typer.Option(help="Raw scan that it explains; not needed for a result of braggshot.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="A .cxi file or a folder (default NAME-strain).")] = None,
    format: Format = None,
    config: Config = None,
    sets: Sets = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, last.")] = False,
) -> None:
    """Crystal frame, displacement and strain of a reconstruction that is there already."""
    from braggshot.output import check_writable, inputs_of, summary, write
    from braggshot.postprocess import postprocess as run

    settings = settings_of(config, sets, {})
    place = output or Path(f"{reconstruction.stem}-strain")
    read = [path for one in (reconstruction, scan) if one for path in inputs_of({"path": one, "options": settings.input})]
    check_writable(place, read)
    result = run(reconstruction, scan, settings, format=format)
    written = write(result, place, settings.output.formats)
    if as_json:
        print(json.dumps(summary(result, str(reconstruction), str(place))), flush=True)
    else:
        _print_result(result, [str(file) for file in written])


@commands.command(epilog="braggshot series exp.spec --scans 54-60 --column potential_V=0,0.1,0.2,0.3,0.4,0.5,0.6 -o out/")
def series(
    inputs: Inputs,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder; a second call goes on with what is missing.")],
    scans: Annotated[str | None, typer.Option(help="Of a file with several, such as 54-60,63 (default all).")] = None,
    column: Annotated[list[str] | None, typer.Option(help="More to know, one value per scan.", metavar="NAME=V1,V2,...")] = None,
    metadata: Annotated[Path | None, typer.Option(help="CSV file with such columns; 'input' or 'scan' names the scan.")] = None,
    cluster: Cluster = None,
    workers: Workers = None,
    format: Format = None,
    config: Config = None,
    sets: Sets = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per scan.")] = False,
) -> None:
    """One crystal through many scans: a row of numbers each, curves, a movie, a page."""
    from braggshot import series as job

    listed = job.sources(inputs, scans, column or (), metadata, format)
    with contextlib.ExitStack() as stack:
        if cluster is not None:
            reports = many.series(listed, output, config, sets, many.Where(cluster, workers))
        else:
            settings = job.resolve(layered(config, sets))
            reports = job.run(listed, output, settings, stack.enter_context(phasing_bar(str(output))))
        for report in reports:
            kept = " (kept)" if report.reused else ""
            print(json.dumps(report.row) if as_json else f"{report.done}/{report.total} {job.line(report.row)}{kept}", flush=True)
    print(job.closing(output), file=sys.stderr if as_json else sys.stdout)
