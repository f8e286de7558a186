"""Compare phasing methods on crystals whose true shape and phase are known."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from braggshot.cli.options import Device, Network, Seed, examples, one_of
from braggshot.cli.progress import progress_bar
from braggshot.cli.terminal import say

commands = typer.Typer()

# Names of the suites (sets of crystals of known shape and phase), and names of the phasing methods that are compared on them. They
# repeat the keys of `suites.SUITES` and `methods.METHODS`, because importing those tables would import torch, which takes seconds.
SUITES = ("strain", "strong", "photons", "oversampling", "gaps", "coherence", "large", "atomistic", "faults", "trust", "smoke")
METHODS = (
    "oneshot", "oneshot+ER50", "refine+10", "refine", "refine+300", "auto", "iterative-1", "iterative-5", "iterative-20",
    "classic-1", "classic-5", "classic-20", "autophasenn", "autophasenn+ER50",
)  # fmt: skip

# Methods and number of crystals of a suite that is evaluated alone, unless others are given.
ALONE = {"smoke": (("oneshot", "refine", "auto"), 2), "trust": (("auto",), 22)}


@commands.command(
    epilog=examples(
        "braggshot evaluate --suite strain --method refine --method iterative-5 --crystals 20 -o evaluation/",
    )
)
def evaluate(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the results; a second call does what is missing.")],
    suite: Annotated[
        list[str] | None,
        typer.Option(help="Crystals to phase (default strain); see docs/evaluation.md.", **one_of(lambda: SUITES)),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="Ways to phase them (default all; three for smoke alone, auto for trust).", **one_of(lambda: METHODS)),
    ] = None,
    crystals: Annotated[
        int | None, typer.Option(help="Number of crystals in each group of a suite (default 20, 2 for smoke alone, 22 for trust).")
    ] = None,
    first: Annotated[int, typer.Option(min=0, help="Number of the first crystal of each group; parts can run apart.")] = 0,
    part: Annotated[list[Path] | None, typer.Option(help="Folder of a part that ran apart; its rows are taken over.")] = None,
    network: Network = None,
    published: Annotated[str | None, typer.Option(help="File of a trained autophasenn, for its methods.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of CXI files with a truth, for suites of files.")] = None,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = "auto",
    seed: Seed = 0,
) -> None:
    """Compare phasing methods on known crystals; write the result for each method and crystal, a summary table and figures."""
    from braggshot.evaluation import methods, reliability, rows, table
    from braggshot.io.atomic import refuse_target
    from braggshot.output import check_writable
    from braggshot.report.evaluation import write_evaluation_figure

    read = [Path(path) for path in (network, published) if path] + (list(data.iterdir()) if data and data.is_dir() else [])
    for file in ("results.json", "table.md", *(f"{name}.png" for name in suite or ["strain"])):
        refuse_target(output / file, read)
    check_writable(output)
    chosen = methods.Choice(published=published, device=device, seed=seed)
    chosen = chosen if network is None else replace(chosen, network=network)
    usual = ALONE.get(suite[0]) if suite and len(suite) == 1 else None
    names, number = usual or (methods.default_methods(chosen), 20)
    rows.merge(output, part or [])
    with _evaluation_bar() as show:
        for report in rows.evaluate(output, suite or ["strain"], method or names, chosen, crystals or number, data, first):
            show(report)
    found = rows.read(output / "results.json")
    table.write(output / "table.md", found, more=reliability.markdown(found))
    say(output / "table.md")
    for name in dict.fromkeys(row["suite"] for row in found):
        write_evaluation_figure(output / f"{name}.png", name, [row for row in found if row["suite"] == name])
        say(output / f"{name}.png")


@contextmanager
def _evaluation_bar() -> Iterator[Any]:
    """Show a progress bar of the evaluation, or a line per result where there is no terminal; yield a function that does so.

    The function takes the latest result. It names suite, crystal and method, and states the correlation with the true crystal.
    """
    with progress_bar() as bar:
        task = bar.add_task("evaluating", total=None, note="")

        def show(report: Any) -> None:
            row = report.row
            note = f"{row['suite']}, {row['crystal']}, {row['method']}: correlation {row['correlation']:.3f}"
            bar.update(task, total=report.total, completed=report.done, note=note)
            if not sys.stderr.isatty():
                say(f"{report.done}/{report.total} {note}", to_stderr=True)

        yield show
