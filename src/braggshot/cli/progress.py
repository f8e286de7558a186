"""Draw progress bars on stderr; draw nothing where stderr is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from braggshot.cli.terminal import console

if TYPE_CHECKING:
    from braggshot.iterative.iterate import Progress


def progress_bar(transient: bool = False) -> Any:
    """Make a progress bar; text printed meanwhile appears above the bar, unless stdout is redirected to a file."""
    from rich import progress as bars

    shown, shares = console(stderr=True), sys.stdout.isatty()
    texts = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.TextColumn("{task.fields[note]}", markup=False),
    )
    how: Any = {"console": shown, "disable": not shown.is_terminal, "transient": transient, "redirect_stdout": shares}
    return bars.Progress(*texts, bars.TimeRemainingColumn(), **how)


@contextmanager
def phasing_bar(title: str) -> Iterator[Any]:
    """Show in a progress bar the step and the error of a phase retrieval as they change."""
    with progress_bar(transient=True) as bar:
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
