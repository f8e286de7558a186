"""The command line; heavy imports live inside each command so that ``braggshot --help`` answers at once."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from braggshot.errors import BraggshotError

if TYPE_CHECKING:
    from braggshot.nn.training import Report
    from braggshot.pipeline import Settings
    from braggshot.refine.iterate import Progress
    from braggshot.volumes import Reconstruction

# Threads that spin while they wait slow every other program on a shared machine down, and themselves with it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

app = typer.Typer(
    help="3D images of nanocrystals from Bragg coherent diffraction. With --debug an error shows where it arose.",
    epilog="braggshot reconstruct scan.cxi | braggshot info scan.spec | braggshot simulate -o crystal.cxi",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Inputs = Annotated[list[Path], typer.Argument(help="Raw scan: CXI, SPEC, HDF5, NPZ, TIFF, or a folder or pattern of images.")]
Format = Annotated[str | None, typer.Option("--format", help="Reader to use instead of looking at the file.")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="Setting as a.b=c, such as input.scan=54.", metavar="A.B=C")]
Config = Annotated[Path | None, typer.Option("--config", help="TOML file of settings.")]
Seed = Annotated[int, typer.Option("--seed", help="Of every random number.")]


@app.command(epilog="braggshot reconstruct example.spec --set input.scan=54 --set input.flat=whitefield.tif -o out/")
def reconstruct(
    inputs: Inputs,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="A .cxi file or a folder (default NAME-braggshot).")] = None,
    method: Annotated[str | None, typer.Option(help="auto, oneshot, refine or iterative (default auto).")] = None,
    network: Annotated[str | None, typer.Option(help="Name or file of a trained network.")] = None,
    starts: Annotated[int | None, typer.Option(help="Random starts (default 10).")] = None,
    recipe: Annotated[str | None, typer.Option(help="Such as '6*(50*HIO+80*RAAR+30*ER)+100*ER'.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda (default auto).")] = None,
    seed: Annotated[int | None, typer.Option(help="Of every random number (default 0).")] = None,
    format: Format = None,
    config: Config = None,
    sets: Sets = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per input, last.")] = False,
) -> None:
    """Raw scan in, 3D crystal out, with a number that says how far to trust it."""
    from braggshot.pipeline import check_writable, finish, run, summary, write

    phasing = {"method": method, "network": network, "starts": starts, "device": device, "seed": seed}
    table: dict[str, Any] = {name: value for name, value in phasing.items() if value is not None}
    if recipe is not None:
        table["refine"] = {"recipe": recipe}
    settings = _settings(config, sets, {"phasing": table})
    for path in inputs:
        place = output or Path(f"{path.stem}-braggshot")
        check_writable(place)
        with _progress(path.name) as show:
            result = finish(run(path, settings, format), show)
        written = write(result, place, settings.output.formats)
        record = summary(result, str(path), str(place))
        if as_json:
            print(json.dumps(record), flush=True)
        else:
            _print_result(result, [str(file) for file in written])


def _settings(config: Path | None, sets: list[str] | None, flags: dict[str, Any]) -> Settings:
    """Defaults, then the file, then the flags, then --set."""
    from braggshot import config as configuration
    from braggshot.pipeline import resolve

    layers = [configuration.read_toml(config)] if config else []
    return resolve(configuration.merge(*layers, flags, configuration.parse_assignments(sets or [])))


def _bar(transient: bool = False) -> Any:
    """A bar on stderr, silent where that is no terminal; what is printed meanwhile stays above it, or goes down the pipe."""
    from rich import progress as bars
    from rich.console import Console

    console, shares = Console(stderr=True), sys.stdout.isatty()
    texts = (bars.TextColumn("{task.description}"), bars.BarColumn(), bars.TextColumn("{task.fields[note]}"))
    how: Any = {"console": console, "disable": not console.is_terminal, "transient": transient, "redirect_stdout": shares}
    return bars.Progress(*texts, bars.TimeRemainingColumn(), **how)


@contextmanager
def _progress(title: str) -> Iterator[Any]:
    """A bar on stderr with the error falling; silent where stderr is not a terminal."""
    with _bar(transient=True) as bar:
        task = bar.add_task(f"{title}: preparing", total=None, note="")

        def show(progress: Progress) -> None:
            error = "" if progress.error is None else f"error {float(progress.error.min()) ** 0.5:.4f}"
            bar.update(
                task,
                description=f"{title}: start {progress.starts[0] + 1}",
                total=progress.n_iterations,
                completed=progress.iteration,
                note=f"{progress.step} {error}",
            )

        yield show


_COLOURS = {"good": "green", "doubtful": "yellow", "failed": "red"}


def _print_result(result: Reconstruction, written: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=True)
    quality = result.quality
    same, others = sum(value >= 0.95 for value in quality.agreement) - 1, len(quality.agreement) - 1
    oversampling = result.volume.oversampling
    rows = {
        "shape": " x ".join(str(n) for n in result.rho.shape),
        "oversampling": "-" if oversampling is None else " ".join(f"{value:.1f}" for value in oversampling),
        "sqrt(chi2)": f"{quality.chi2**0.5:.4f}",
        "r_factor": f"{quality.r_factor:.3f}",
        "llk_free": f"{quality.llk_free:.3f}",
        "starts that agree": f"{same} of {others} others" if others >= 0 else "-",
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

    strain = getattr(result, "strain", None)
    return {} if strain is None else {fact.name: f"{fact.value} ({fact.note})" for fact in facts(strain)}


@app.command(epilog="braggshot postprocess recon.cxi --scan exp.spec --set input.scan=54 --set 'strain.reflection=[1,1,1]'")
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
    from braggshot.pipeline import check_writable, summary, write
    from braggshot.postprocess import postprocess as run

    settings = _settings(config, sets, {})
    place = output or Path(f"{reconstruction.stem}-strain")
    check_writable(place)
    result = run(reconstruction, scan, settings, format=format)
    written = write(result, place, settings.output.formats)
    if as_json:
        print(json.dumps(summary(result, str(reconstruction), str(place))), flush=True)
    else:
        _print_result(result, [str(file) for file in written])


@app.command(epilog="braggshot series exp.spec --scans 54-60 --column potential_V=0,0.1,0.2,0.3,0.4,0.5,0.6 -o out/")
def series(
    inputs: Inputs,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder; a second call goes on with what is missing.")],
    scans: Annotated[str | None, typer.Option(help="Of a file with several, such as 54-60,63 (default all).")] = None,
    column: Annotated[list[str] | None, typer.Option(help="More to know, one value per scan.", metavar="NAME=V1,V2,...")] = None,
    metadata: Annotated[Path | None, typer.Option(help="CSV file with such columns; 'input' or 'scan' names the scan.")] = None,
    format: Format = None,
    config: Config = None,
    sets: Sets = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per scan.")] = False,
) -> None:
    """One crystal through many scans: a row of numbers each, curves, a movie, a page."""
    from braggshot import config as configuration
    from braggshot import series as job

    layers = [configuration.read_toml(config)] if config else []
    settings = job.resolve(configuration.merge(*layers, configuration.parse_assignments(sets or [])))
    listed = job.sources(inputs, scans, column or (), metadata, format)
    with _progress(str(output)) as show:
        for report in job.run(listed, output, settings, show):
            kept = " (kept)" if report.reused else ""
            print(json.dumps(report.row) if as_json else f"{report.done}/{report.total} {job.line(report.row)}{kept}", flush=True)
    print(job.closing(output), file=sys.stderr if as_json else sys.stdout)


@app.command(epilog="braggshot info example.spec --set input.scan=54")
def info(
    path: Annotated[Path, typer.Argument(help="Raw scan, result, or trained network (file or shipped name).")],
    format: Format = None,
    sets: Sets = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what the reader sees in a file."""
    from braggshot.config import parse_assignments
    from braggshot.io.registry import describe
    from braggshot.nn.weights import is_network, load_network

    facts = (
        asdict(load_network(path)[1])
        if is_network(path)
        else describe(path, format, **parse_assignments(sets or []).get("input", {}))
    )
    if as_json:
        print(json.dumps(facts))
        return
    for name, value in facts.items():
        if value not in (None, [], {}):
            print(f"{name:14} {value}")


@app.command(epilog="braggshot simulate -o crystal.cxi --phase-range 3 --counts 1e5")
def simulate(
    output: Annotated[Path, typer.Option("-o", "--output", help="CXI file, or a folder with --raw.")],
    seed: Seed = 0,
    shape: Annotated[tuple[int, int, int], typer.Option(help="Voxels, Z Y X.")] = (64, 64, 64),
    phase_range: Annotated[float, typer.Option(help="Highest minus lowest phase in the crystal [rad].")] = 3.0,
    counts: Annotated[float, typer.Option(help="Photons in the brightest voxel.")] = 1e5,
    raw: Annotated[bool, typer.Option("--raw", help="Write a raw scan as APS 34-ID-C would: SPEC, TIFF, dark, flat.")] = False,
    sets: Annotated[list[str] | None, typer.Option("--set", help="Such as detector.gaps=1 or oversampling=[2,3].")] = None,
) -> None:
    """Draw a crystal and write its diffraction, with the truth beside the counts."""
    if raw:
        print(_simulate_raw(output, seed, phase_range, counts))
        return
    from braggshot import config
    from braggshot.crystals.sample import CrystalSettings, simulate_volume
    from braggshot.io import cxi

    flags = {"shape": shape, "phase_range": (phase_range, phase_range), "counts": (counts, counts)}
    settings = config.resolve(CrystalSettings, config.merge(flags, config.parse_assignments(sets or [])))
    rho, volume = simulate_volume(seed, settings)
    cxi.write_data(output, volume, truth=rho)
    print(output)


@app.command(epilog="braggshot train --steps 20000 -o run/ | braggshot train --init flagship --data scan.cxi --steps 300 -o tuned/")
def train(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the run; a second call goes on with it.")],
    steps: Annotated[int | None, typer.Option(help="Steps of the optimiser, earlier ones included.")] = None,
    data: Annotated[list[Path] | None, typer.Option(help="Measured scans to train on too.")] = None,
    init: Annotated[str | None, typer.Option(help="Name or file of a network to start from.")] = None,
    preset: Annotated[str, typer.Option(help="flagship, autophasenn or autophasenn-2024.")] = "flagship",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    config: Config = None,
    sets: Sets = None,
) -> None:
    """Train the network on diffraction alone: simulated, measured, or both."""
    from braggshot import config as configuration
    from braggshot.learn import learn, resolve

    layers = [configuration.read_toml(config)] if config else []
    flags = {"train": {"steps": steps}} if steps is not None else {}
    settings = resolve(configuration.merge(*layers, flags, configuration.parse_assignments(sets or [])), preset)
    with _training_bar(str(output)) as show:
        for report in learn(settings, output, data or (), init, device):
            show(report)
    print(output / "best.safetensors")


@contextmanager
def _training_bar(title: str) -> Iterator[Any]:
    """A bar on stderr with throughput, loss and the latest validation."""
    with _bar() as bar:
        task, latest = bar.add_task(title, total=None, note=""), ""

        def show(report: Report) -> None:
            nonlocal latest
            values = report.values
            if "val_correlation" in values:
                latest = f", kept apart: correlation {values['val_correlation']:.3f}, success {values['val_success_refined']:.2f}"
            note = f"{report.step}/{report.steps}, {values['per_second']:.1f} crystals/s, loss {values['loss']:.3f}{latest}"
            bar.update(task, total=report.steps, completed=report.step, note=note)

        yield show


@app.command(epilog="braggshot evaluate --suite strain --method refine+70 --method iterative-5 --crystals 20 -o evaluation/")
def evaluate(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the results; a second call does what is missing.")],
    suite: Annotated[list[str] | None, typer.Option(help="Crystals to phase (default strain); see docs/evaluation.md.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Ways to phase them (default all).")] = None,
    crystals: Annotated[int, typer.Option(help="Per group of a suite.")] = 20,
    network: Annotated[str | None, typer.Option(help="Name or file of a trained network.")] = None,
    published: Annotated[str | None, typer.Option(help="File of a trained autophasenn, for its methods.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of CXI files with a truth, for suites of files.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    seed: Seed = 0,
) -> None:
    """Methods side by side on crystals that are known: a row each, a table, figures."""
    from braggshot.evaluation import methods, rows, table
    from braggshot.report.evaluation import write_evaluation_figure

    chosen = methods.Choice(published=published, device=device, seed=seed)
    chosen = chosen if network is None else replace(chosen, network=network)
    names = method or methods.defaults(chosen)
    with _evaluation_bar() as show:
        for report in rows.evaluate(output, suite or ["strain"], names, chosen, crystals, data):
            show(report)
    found = rows.read(output / "results.json")
    table.write(output / "table.md", found)
    print(output / "table.md")
    for name in dict.fromkeys(row["suite"] for row in found):
        write_evaluation_figure(output / f"{name}.png", name, [row for row in found if row["suite"] == name])
        print(output / f"{name}.png")


@contextmanager
def _evaluation_bar() -> Iterator[Any]:
    """A bar on stderr with the latest row."""
    with _bar() as bar:
        task = bar.add_task("evaluating", total=None, note="")

        def show(report: Any) -> None:
            row = report.row
            note = f"{row['suite']}, {row['crystal']}, {row['method']}: correlation {row['correlation']:.3f}"
            bar.update(task, total=report.total, completed=report.done, note=note)

        yield show


def _simulate_raw(folder: Path, seed: int, phase_range: float, counts: float) -> Path:
    """A rocking scan on disk as 34-ID-C writes it; returns the SPEC file."""
    import numpy as np

    from braggshot.crystals.scan import ScanSettings, simulate_scan
    from braggshot.io.aps_34idc import write_scan

    scan, _ = simulate_scan(seed, settings=ScanSettings(phase_range=phase_range, counts=counts))
    assert scan.rocking_angle is not None
    assert scan.geometry is not None
    return write_scan(folder, np.asarray(scan.frames), scan.rocking_angle, scan.geometry, 1, scan.dark, scan.flat)


_INTERRUPTED = 130  # what typer makes of Ctrl-C


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 done, 1 failed with one line on stderr, 2 bad usage."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    command = typer.main.get_command(app)
    try:
        status = command.main([a for a in arguments if a != "--debug"], prog_name="braggshot", standalone_mode=False)
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            raise
        status = _explain(error)
    if status == _INTERRUPTED:
        print("braggshot: interrupted; nothing was half-written.", file=sys.stderr)
        return 1
    return int(status or 0)


def _explain(error: BaseException) -> int:
    """Say what went wrong in one line; the exit status."""
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return _INTERRUPTED
    if isinstance(error, typer.Exit):
        return error.exit_code
    if hasattr(error, "show") and hasattr(error, "exit_code"):  # a usage error, whose class typer keeps to itself
        error.show()
        return int(error.exit_code)
    known = isinstance(error, BraggshotError)
    text = " ".join(str(error).split()) if known else f"{type(error).__name__}: {error} (this is a bug; --debug shows where)"
    print(f"braggshot: {text}", file=sys.stderr)
    return 1
